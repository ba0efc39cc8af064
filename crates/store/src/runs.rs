//! Pipeline runs, and the lease that makes each recorded exactly once.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{DecisionId, RunId, VersionNumber};

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// Where a run stands.
    RunState {
        /// Waits for its turn.
        Queued = "queued",
        /// Somebody works on it.
        Running = "running",
        /// Did what it should.
        Succeeded = "succeeded",
        /// Did not.
        Failed = "failed",
        /// Was told to stop.
        Cancelled = "cancelled",
        /// An earlier run of the same key had done it all.
        Reused = "reused",
    }
);

impl RunState {
    /// Whether it stays so.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// One execution of a pipeline.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunRow {
    /// Names it.
    pub id: RunId,
    /// The project.
    pub pipeline: String,
    /// What started it: `manual`, `cron`, `drift`, `labels`, …
    pub trigger_kind: String,
    /// Why, for people.
    pub trigger_reason: String,
    /// What exactly, such as an alert's id.
    pub trigger_ref: Option<String>,
    /// Where it stands.
    pub state: RunState,
    /// The digest of everything that its result depends on.
    pub key: Option<Digest>,
    /// The token of the one who works on it, rising; 0 before the first.
    pub lease: i64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When work began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What it trained on.
    pub snapshot: Option<Digest>,
    /// What it was told.
    pub params: Value,
    /// What it measured.
    pub metrics: Value,
    /// The digests of code and environment.
    pub code: Value,
    /// The model that came out.
    pub bundle: Option<Digest>,
    /// Under which version that was registered.
    pub model_version: Option<VersionNumber>,
    /// Why it failed.
    pub error: Option<String>,
    /// The gates' decision about its model.
    pub decision: Option<DecisionId>,
}

impl RunRow {
    /// A run that nobody has begun.
    pub fn queued(
        id: RunId,
        pipeline: impl Into<String>,
        trigger_kind: impl Into<String>,
        trigger_reason: impl Into<String>,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            pipeline: pipeline.into(),
            trigger_kind: trigger_kind.into(),
            trigger_reason: trigger_reason.into(),
            trigger_ref: None,
            state: RunState::Queued,
            key: None,
            lease: 0,
            created_at,
            started_at: None,
            ended_at: None,
            snapshot: None,
            params: Value::Null,
            metrics: Value::Null,
            code: Value::Null,
            bundle: None,
            model_version: None,
            error: None,
            decision: None,
        }
    }
}

/// What to change of a run; `None` leaves it as it is.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RunUpdate {
    /// [`RunRow::state`].
    pub state: Option<RunState>,
    /// [`RunRow::key`].
    pub key: Option<Digest>,
    /// [`RunRow::started_at`].
    pub started_at: Option<Timestamp>,
    /// [`RunRow::ended_at`].
    pub ended_at: Option<Timestamp>,
    /// [`RunRow::snapshot`].
    pub snapshot: Option<Digest>,
    /// [`RunRow::params`].
    pub params: Option<Value>,
    /// [`RunRow::metrics`].
    pub metrics: Option<Value>,
    /// [`RunRow::code`].
    pub code: Option<Value>,
    /// [`RunRow::bundle`].
    pub bundle: Option<Digest>,
    /// [`RunRow::model_version`].
    pub model_version: Option<VersionNumber>,
    /// [`RunRow::error`].
    pub error: Option<String>,
    /// [`RunRow::decision`].
    pub decision: Option<DecisionId>,
}

const COLUMNS: &str = "id, pipeline, trigger_kind, trigger_reason, trigger_ref, state, key, lease, created_at, started_at, \
     ended_at, snapshot, params, metrics, code, bundle, model_version, error, decision";

fn read(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    let mut fields = Fields::of(row);
    Ok(RunRow {
        id: fields.next()?,
        pipeline: fields.next()?,
        trigger_kind: fields.next()?,
        trigger_reason: fields.next()?,
        trigger_ref: fields.next()?,
        state: fields.next()?,
        key: fields.next()?,
        lease: fields.next()?,
        created_at: fields.next()?,
        started_at: fields.next()?,
        ended_at: fields.next()?,
        snapshot: fields.next()?,
        params: fields.next()?,
        metrics: fields.next()?,
        code: fields.next()?,
        bundle: fields.next()?,
        model_version: fields.next()?,
        error: fields.next()?,
        decision: fields.next()?,
    })
}

/// Adds a run. An id that is taken is a conflict.
pub fn insert(tx: &mut Tx<'_>, run: &RunRow) -> Result<(), StoreError> {
    let values = bind![
        run.id,
        run.pipeline,
        run.trigger_kind,
        run.trigger_reason,
        run.trigger_ref,
        run.state,
        run.key,
        run.lease,
        run.created_at,
        run.started_at,
        run.ended_at,
        run.snapshot,
        run.params,
        run.metrics,
        run.code,
        run.bundle,
        run.model_version,
        run.error,
        run.decision
    ];
    if !tx.insert_new("runs", COLUMNS, values)? {
        return Err(StoreError::conflict(
            "run",
            format!("`{}` is there already", run.id),
        ));
    }
    Ok(())
}

/// A run.
pub fn get(tx: &ReadTx<'_>, id: &RunId) -> Result<RunRow, StoreError> {
    find(tx, id)?.ok_or_else(|| StoreError::not_found("run", id))
}

/// A run, if there is one.
pub fn find(tx: &ReadTx<'_>, id: &RunId) -> Result<Option<RunRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM runs WHERE id = ?1");
    tx.first(&sql, bind![id], read)
}

/// The latest `limit` runs, latest first; of one pipeline or of all.
pub fn list(tx: &ReadTx<'_>, limit: u32, pipeline: Option<&str>) -> Result<Vec<RunRow>, StoreError> {
    let Some(pipeline) = pipeline else {
        let sql = format!("SELECT {COLUMNS} FROM runs ORDER BY created_at DESC, id DESC LIMIT ?1");
        return tx.rows(&sql, bind![limit], read);
    };
    let sql =
        format!("SELECT {COLUMNS} FROM runs WHERE pipeline = ?2 ORDER BY created_at DESC, id DESC LIMIT ?1");
    tx.rows(&sql, bind![limit, pipeline], read)
}

/// The latest run of this key that succeeded.
pub fn find_succeeded_by_key(tx: &ReadTx<'_>, key: &Digest) -> Result<Option<RunRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM runs WHERE key = ?1 AND state = ?2 ORDER BY ended_at DESC, id DESC LIMIT 1"
    );
    tx.first(&sql, bind![key, RunState::Succeeded], read)
}

/// The runs that wait or are worked on, oldest first.
pub fn open_runs(tx: &ReadTx<'_>) -> Result<Vec<RunRow>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM runs WHERE state IN ('queued', 'running') ORDER BY created_at, id");
    tx.rows(&sql, bind![], read)
}

/// Takes the run over: every earlier lease is stale from here on. A run that has ended cannot be taken over.
pub fn acquire_lease(tx: &mut Tx<'_>, id: &RunId, now: Timestamp) -> Result<i64, StoreError> {
    let run = get(tx, id)?;
    if run.state.is_final() {
        return Err(StoreError::conflict(
            "run",
            format!("`{id}` has ended: it {}", run.state),
        ));
    }
    let sql = "UPDATE runs SET lease = lease + 1, leased_at = ?2 WHERE id = ?1 RETURNING lease";
    tx.one(sql, bind![id, now], |row| Fields::of(row).next())
}

/// Refuses a lease that is not the run's.
pub(crate) fn check_lease(tx: &ReadTx<'_>, id: &RunId, lease: i64) -> Result<RunRow, StoreError> {
    let run = get(tx, id)?;
    if run.lease != lease {
        return Err(StoreError::StaleLease {
            run: id.clone(),
            held: lease,
            current: run.lease,
        });
    }
    Ok(run)
}

/// Changes the run if `lease` is still its own; otherwise writes nothing. A run that has ended keeps its state.
pub fn update_with_lease(
    tx: &mut Tx<'_>,
    id: &RunId,
    lease: i64,
    update: RunUpdate,
) -> Result<(), StoreError> {
    let run = check_lease(tx, id, lease)?;
    if let Some(state) = update.state
        && run.state.is_final()
        && run.state != state
    {
        let message = format!("`{id}` is {} and cannot become {state}", run.state);
        return Err(StoreError::conflict("run", message));
    }
    tx.execute(
        "UPDATE runs SET state = coalesce(?2, state), key = coalesce(?3, key), started_at = coalesce(?4, started_at), \
         ended_at = coalesce(?5, ended_at), snapshot = coalesce(?6, snapshot), params = coalesce(?7, params), \
         metrics = coalesce(?8, metrics), code = coalesce(?9, code), bundle = coalesce(?10, bundle), \
         model_version = coalesce(?11, model_version), error = coalesce(?12, error), decision = coalesce(?13, decision) \
         WHERE id = ?1",
        bind![
            id,
            update.state,
            update.key,
            update.started_at,
            update.ended_at,
            update.snapshot,
            update.params,
            update.metrics,
            update.code,
            update.bundle,
            update.model_version,
            update.error,
            update.decision
        ],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::{self, StepRow, StepState};
    use crate::testing::{at, digest, temp_store};

    fn step(lease: i64, attempt: u32, state: StepState) -> StepRow {
        StepRow {
            run: "a".into(),
            name: "train".to_owned(),
            attempt,
            lease,
            state,
            started_at: Some(at(1)),
            ended_at: None,
            output: Value::Null,
            error: None,
        }
    }

    fn state(state: RunState) -> RunUpdate {
        RunUpdate {
            state: Some(state),
            ..RunUpdate::default()
        }
    }

    #[test]
    fn a_stale_lease_writes_nothing() {
        let (_dir, store) = temp_store();
        let id = RunId::from("a");
        let written = store.write_blocking(|tx| {
            let id = RunId::from("a");
            insert(tx, &RunRow::queued(id.clone(), "delay", "manual", "test", at(1)))?;
            let old = acquire_lease(tx, &id, at(1))?;
            update_with_lease(tx, &id, old, state(RunState::Running))?;
            steps::upsert_with_lease(tx, &step(old, 1, StepState::Running))?;
            let new = acquire_lease(tx, &id, at(2))?;
            assert!(new > old);
            let stale = update_with_lease(tx, &id, old, state(RunState::Failed)).unwrap_err();
            assert!(
                matches!(stale, StoreError::StaleLease { held, current, .. } if held == old && current == new)
            );
            let stale = steps::upsert_with_lease(tx, &step(old, 1, StepState::Succeeded)).unwrap_err();
            assert_eq!(stale.code(), "stale_lease");
            steps::upsert_with_lease(tx, &step(new, 2, StepState::Running))?;
            steps::upsert_with_lease(tx, &step(new, 2, StepState::Succeeded))?;
            Ok(())
        });
        written.unwrap();
        let (run, attempts) = store
            .read_blocking(|tx| Ok((get(tx, &id)?, steps::list(tx, &id)?)))
            .unwrap();
        assert_eq!(run.state, RunState::Running);
        let states: Vec<_> = attempts.iter().map(|s| (s.attempt, s.state)).collect();
        assert_eq!(states, [(1, StepState::Running), (2, StepState::Succeeded)]);
    }

    #[test]
    fn a_run_that_has_ended_keeps_its_state_and_is_found_by_its_key() {
        let (_dir, store) = temp_store();
        let key = digest("key");
        store
            .write_blocking(move |tx| {
                let id = RunId::from("a");
                let run = RunRow {
                    key: Some(key),
                    ..RunRow::queued(id.clone(), "delay", "drift", "PSI of `dep_delay`", at(1))
                };
                insert(tx, &run)?;
                assert_eq!(insert(tx, &run).unwrap_err().code(), "conflict");
                assert_eq!(find_succeeded_by_key(tx, &key)?, None);
                let lease = acquire_lease(tx, &id, at(1))?;
                update_with_lease(tx, &id, lease, state(RunState::Succeeded))?;
                let error = update_with_lease(tx, &id, lease, state(RunState::Failed)).unwrap_err();
                assert_eq!(error.code(), "conflict");
                assert_eq!(acquire_lease(tx, &id, at(2)).unwrap_err().code(), "conflict");
                // What comes later, such as the version, still finds its place.
                let version = RunUpdate {
                    model_version: Some(VersionNumber(3)),
                    ..RunUpdate::default()
                };
                update_with_lease(tx, &id, lease, version)?;
                assert!(acquire_lease(tx, &"b".into(), at(1)).unwrap_err().is_not_found());
                Ok(())
            })
            .unwrap();
        store
            .read_blocking(|tx| {
                let found = find_succeeded_by_key(tx, &key)?.unwrap();
                assert_eq!(found.model_version, Some(VersionNumber(3)));
                assert!(open_runs(tx)?.is_empty());
                assert_eq!(list(tx, 10, Some("delay"))?, [found]);
                assert!(list(tx, 10, Some("other"))?.is_empty());
                Ok(())
            })
            .unwrap();
    }
}
