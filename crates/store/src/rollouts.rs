//! Rollouts: an endpoint on its way from one version to another. At most one of an endpoint is active.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{DecisionId, EndpointName, ModelName, RolloutId, RunId, VersionNumber};

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// Where a rollout stands.
    RolloutState {
        /// The new version answers beside the champion, unseen.
        Shadow = "shadow",
        /// The new version answers its share.
        Canary = "canary",
        /// Waits for more evidence, or for a person.
        Holding = "holding",
        /// The new version is the champion.
        Promoted = "promoted",
        /// The endpoint went back.
        RolledBack = "rolled_back",
        /// A person ended it.
        Aborted = "aborted",
        /// A newer version took its place.
        Superseded = "superseded",
    }
);

impl RolloutState {
    /// Whether it stays so.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Shadow | Self::Canary | Self::Holding)
    }
}

/// A rollout.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RolloutRow {
    /// Names it.
    pub id: RolloutId,
    /// Which endpoint moves.
    pub endpoint: EndpointName,
    /// Of which model.
    pub model: ModelName,
    /// The champion that it leaves.
    pub from_version: VersionNumber,
    /// The challenger that it tries.
    pub to_version: VersionNumber,
    /// Where it stands.
    pub state: RolloutState,
    /// Which step of that state.
    pub step: u32,
    /// Makes each unit's side stick.
    pub salt: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it entered its state and step.
    pub entered_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The state of its sequential tests.
    pub statistics: Value,
    /// The decision that brought it here.
    pub decision: Option<DecisionId>,
    /// Why it stands where it does, for people.
    pub reason: String,
    /// The run that made the challenger.
    pub run: Option<RunId>,
}

const COLUMNS: &str = "id, endpoint, model, from_version, to_version, state, step, salt, started_at, entered_at, ended_at, \
     statistics, decision, reason, run";

fn read(row: &Row<'_>) -> rusqlite::Result<RolloutRow> {
    let mut fields = Fields::of(row);
    Ok(RolloutRow {
        id: fields.next()?,
        endpoint: fields.next()?,
        model: fields.next()?,
        from_version: fields.next()?,
        to_version: fields.next()?,
        state: fields.next()?,
        step: fields.next()?,
        salt: fields.next()?,
        started_at: fields.next()?,
        entered_at: fields.next()?,
        ended_at: fields.next()?,
        statistics: fields.next()?,
        decision: fields.next()?,
        reason: fields.next()?,
        run: fields.next()?,
    })
}

/// Adds a rollout. A second active one of the same endpoint is a conflict.
pub fn insert(tx: &mut Tx<'_>, rollout: &RolloutRow) -> Result<(), StoreError> {
    if !rollout.state.is_final()
        && let Some(active) = active(tx, &rollout.endpoint)?
    {
        let message = format!(
            "`{}` of endpoint `{}` is still {}: end it first",
            active.id, active.endpoint, active.state
        );
        return Err(StoreError::conflict("rollout", message));
    }
    let values = bind![
        rollout.id,
        rollout.endpoint,
        rollout.model,
        rollout.from_version,
        rollout.to_version,
        rollout.state,
        rollout.step,
        rollout.salt,
        rollout.started_at,
        rollout.entered_at,
        rollout.ended_at,
        rollout.statistics,
        rollout.decision,
        rollout.reason,
        rollout.run
    ];
    tx.insert("rollouts", COLUMNS, values)
}

/// Writes what changes of a rollout: state, step, times, statistics, decision and reason. One that has ended stays as it is.
pub fn update(tx: &mut Tx<'_>, rollout: &RolloutRow) -> Result<(), StoreError> {
    let stored = get(tx, &rollout.id)?;
    if stored.state.is_final() && stored.state != rollout.state {
        let message = format!(
            "`{}` is {} and cannot become {}",
            stored.id, stored.state, rollout.state
        );
        return Err(StoreError::conflict("rollout", message));
    }
    tx.execute(
        "UPDATE rollouts SET state = ?2, step = ?3, entered_at = ?4, ended_at = ?5, statistics = ?6, decision = ?7, reason = ?8 \
         WHERE id = ?1",
        bind![
            rollout.id,
            rollout.state,
            rollout.step,
            rollout.entered_at,
            rollout.ended_at,
            rollout.statistics,
            rollout.decision,
            rollout.reason
        ],
    )?;
    Ok(())
}

/// A rollout.
pub fn get(tx: &ReadTx<'_>, id: &RolloutId) -> Result<RolloutRow, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM rollouts WHERE id = ?1");
    tx.first(&sql, bind![id], read)?
        .ok_or_else(|| StoreError::not_found("rollout", id))
}

/// The rollout that an endpoint is in.
pub fn active(tx: &ReadTx<'_>, endpoint: &EndpointName) -> Result<Option<RolloutRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM rollouts WHERE endpoint = ?1 AND state IN ('shadow', 'canary', 'holding')"
    );
    tx.first(&sql, bind![endpoint], read)
}

/// The rollouts of an endpoint, latest first.
pub fn list(tx: &ReadTx<'_>, endpoint: &EndpointName) -> Result<Vec<RolloutRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM rollouts WHERE endpoint = ?1 ORDER BY started_at DESC, id DESC");
    tx.rows(&sql, bind![endpoint], read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, temp_store};

    fn rollout(id: &str, state: RolloutState) -> RolloutRow {
        RolloutRow {
            id: id.into(),
            endpoint: "delay".into(),
            model: "delay".into(),
            from_version: VersionNumber(1),
            to_version: VersionNumber(2),
            state,
            step: 0,
            salt: "salt".to_owned(),
            started_at: at(1),
            entered_at: at(1),
            ended_at: None,
            statistics: Value::Null,
            decision: None,
            reason: String::new(),
            run: None,
        }
    }

    #[test]
    fn an_endpoint_is_in_one_rollout_at_a_time_and_an_ended_one_stays_ended() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                insert(tx, &rollout("a", RolloutState::Shadow))?;
                assert_eq!(
                    insert(tx, &rollout("b", RolloutState::Shadow))
                        .unwrap_err()
                        .code(),
                    "conflict"
                );
                update(tx, &rollout("a", RolloutState::RolledBack))?;
                assert_eq!(
                    update(tx, &rollout("a", RolloutState::Promoted))
                        .unwrap_err()
                        .code(),
                    "conflict"
                );
                insert(tx, &rollout("b", RolloutState::Canary))?;
                Ok(())
            })
            .unwrap();
        let (now, all) = store
            .read_blocking(|tx| Ok((active(tx, &"delay".into())?, list(tx, &"delay".into())?)))
            .unwrap();
        assert_eq!(now, Some(rollout("b", RolloutState::Canary)));
        assert_eq!(all.len(), 2);
    }
}
