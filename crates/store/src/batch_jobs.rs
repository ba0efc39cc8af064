//! Batch jobs: rows of files that are predicted into files, in the background.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, VersionNumber};

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// Where a batch job stands.
    BatchState {
        /// It waits for its turn.
        Queued = "queued",
        /// It is being worked on.
        Running = "running",
        /// Every row has its answer.
        Succeeded = "succeeded",
        /// Something was wrong; `error` says what.
        Failed = "failed",
        /// Somebody stopped it.
        Cancelled = "cancelled",
    }
);

impl BatchState {
    /// Whether nothing more happens to it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

text_enum!(
    /// In whose words a batch job was asked for.
    BatchKind {
        /// Our own: rows in, the rows with their answers out.
        Rows = "rows",
        /// `SageMaker`'s batch transform.
        Transform = "transform",
        /// Vertex AI's batch prediction.
        Vertex = "vertex",
        /// `SageMaker`'s asynchronous inference, one body a job.
        Invoke = "invoke",
    }
);

/// A batch job.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BatchJob {
    /// Its id.
    pub id: String,
    /// In whose words it is.
    pub kind: BatchKind,
    /// What its caller calls it; once in each kind.
    pub name: String,
    /// Who answers.
    pub endpoint: EndpointName,
    /// Which version, where one was asked for.
    pub version: Option<VersionNumber>,
    /// Where it stands.
    pub state: BatchState,
    /// Raised each time the work begins.
    pub attempt: u32,
    /// When it was asked to stop.
    pub stop_at: Option<Timestamp>,
    /// What was asked.
    pub spec: Value,
    /// How far it is.
    pub progress: Value,
    /// What was wrong; null while nothing is.
    pub error: Value,
    /// The workspace in whose artifacts it reads and writes.
    pub workspace: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// By whom; empty where nobody has to say who they are.
    pub created_by: String,
    /// When work began, the first time.
    pub started_at: Option<Timestamp>,
    /// When nothing more happened.
    pub ended_at: Option<Timestamp>,
    /// When it changed.
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "id, kind, name, endpoint, version, state, attempt, stop_at, spec, progress, error, workspace, created_at, \
                       created_by, started_at, ended_at, updated_at";

fn read(row: &Row<'_>) -> rusqlite::Result<BatchJob> {
    let mut fields = Fields::of(row);
    Ok(BatchJob {
        id: fields.next()?,
        kind: fields.next()?,
        name: fields.next()?,
        endpoint: fields.next()?,
        version: fields.next()?,
        state: fields.next()?,
        attempt: fields.next()?,
        stop_at: fields.next()?,
        spec: fields.next()?,
        progress: fields.next()?,
        error: fields.next()?,
        workspace: fields.next()?,
        created_at: fields.next()?,
        created_by: fields.next()?,
        started_at: fields.next()?,
        ended_at: fields.next()?,
        updated_at: fields.next()?,
    })
}

/// Adds a job. Another of the same kind and name is a conflict.
pub fn add(tx: &mut Tx<'_>, job: &BatchJob) -> Result<(), StoreError> {
    if by_name(tx, job.kind, &job.name)?.is_some() {
        return Err(StoreError::conflict(
            "batch job",
            format!(
                "there is a job `{}` already; give this one another name",
                job.name
            ),
        ));
    }
    let values = bind![
        job.id,
        job.kind,
        job.name,
        job.endpoint,
        job.version,
        job.state,
        job.attempt,
        job.stop_at,
        job.spec,
        job.progress,
        job.error,
        job.workspace,
        job.created_at,
        job.created_by,
        job.started_at,
        job.ended_at,
        job.updated_at,
    ];
    tx.insert("batch_jobs", COLUMNS, values)
}

/// The job with this id.
pub fn get(tx: &ReadTx<'_>, id: &str) -> Result<Option<BatchJob>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM batch_jobs WHERE id = ?1");
    Ok(tx.rows(&sql, bind![id], read)?.pop())
}

/// The job of this kind and name.
pub fn by_name(tx: &ReadTx<'_>, kind: BatchKind, name: &str) -> Result<Option<BatchJob>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM batch_jobs WHERE kind = ?1 AND name = ?2");
    Ok(tx.rows(&sql, bind![kind, name], read)?.pop())
}

/// The latest `limit` jobs, newest first; of one kind or of all, and only those before the id `before`, if one is given.
pub fn list(
    tx: &ReadTx<'_>,
    kind: Option<BatchKind>,
    before: Option<&str>,
    limit: u32,
) -> Result<Vec<BatchJob>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM batch_jobs WHERE (kind = ?1 OR ?1 IS NULL) AND (id < ?2 OR ?2 IS NULL) ORDER BY id DESC LIMIT ?3"
    );
    tx.rows(&sql, bind![kind, before, limit], read)
}

/// The first `limit` jobs that are to be worked on, oldest first: single bodies, or all else.
pub fn open(tx: &ReadTx<'_>, invoked: bool, limit: u32) -> Result<Vec<BatchJob>, StoreError> {
    let is = if invoked { "=" } else { "<>" };
    let sql = format!(
        "SELECT {COLUMNS} FROM batch_jobs WHERE state IN (?1, ?2) AND kind {is} ?3 ORDER BY id LIMIT ?4"
    );
    let values = bind![BatchState::Queued, BatchState::Running, BatchKind::Invoke, limit];
    tx.rows(&sql, values, read)
}

/// How many single bodies are to be worked on.
pub fn count_invoked(tx: &ReadTx<'_>) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM batch_jobs WHERE state IN (?1, ?2) AND kind = ?3";
    let values = bind![BatchState::Queued, BatchState::Running, BatchKind::Invoke];
    tx.one(sql, values, |row| Fields::of(row).next())
}

/// Work begins: the attempt that may write from now on. `None` if there is nothing to do any more.
pub fn begin(tx: &mut Tx<'_>, id: &str, now: Timestamp) -> Result<Option<BatchJob>, StoreError> {
    let sql = "UPDATE batch_jobs SET state = ?2, attempt = attempt + 1, started_at = coalesce(started_at, ?3), updated_at = ?3
         WHERE id = ?1 AND state IN (?4, ?2)";
    if tx.execute(sql, bind![id, BatchState::Running, now, BatchState::Queued])? == 0 {
        return Ok(None);
    }
    get(tx, id)
}

/// How far an attempt is; whether it still is the one that may write.
pub fn note(
    tx: &mut Tx<'_>,
    id: &str,
    attempt: u32,
    progress: &Value,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let sql =
        "UPDATE batch_jobs SET progress = ?3, updated_at = ?4 WHERE id = ?1 AND attempt = ?2 AND state = ?5";
    Ok(tx.execute(sql, bind![id, attempt, progress, now, BatchState::Running])? > 0)
}

/// How a job ended.
#[derive(Clone, PartialEq, Debug)]
pub struct BatchEnd {
    /// A final state.
    pub state: BatchState,
    /// How far it came.
    pub progress: Value,
    /// What was wrong; null if nothing was.
    pub error: Value,
}

/// An attempt has ended; whether it was the one that may write.
pub fn end(
    tx: &mut Tx<'_>,
    id: &str,
    attempt: u32,
    end: &BatchEnd,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let sql = "UPDATE batch_jobs SET state = ?3, progress = ?4, error = ?5, ended_at = ?6, updated_at = ?6
         WHERE id = ?1 AND attempt = ?2 AND state = ?7";
    let values = bind![
        id,
        attempt,
        end.state,
        end.progress,
        end.error,
        now,
        BatchState::Running
    ];
    Ok(tx.execute(sql, values)? > 0)
}

/// Asks a job to stop. One that waits is cancelled at once, one that is worked on when its work lets go; one that has ended stays as it is.
pub fn stop(tx: &mut Tx<'_>, id: &str, now: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE batch_jobs SET state = ?2, stop_at = ?3, ended_at = ?3, updated_at = ?3 WHERE id = ?1 AND state = ?4";
    tx.execute(sql, bind![id, BatchState::Cancelled, now, BatchState::Queued])?;
    let sql =
        "UPDATE batch_jobs SET stop_at = coalesce(stop_at, ?2), updated_at = ?2 WHERE id = ?1 AND state = ?3";
    tx.execute(sql, bind![id, now, BatchState::Running])?;
    Ok(())
}

/// Forgets a job that has ended; whether there was one.
pub fn delete(tx: &mut Tx<'_>, id: &str) -> Result<bool, StoreError> {
    let sql = "DELETE FROM batch_jobs WHERE id = ?1 AND state NOT IN (?2, ?3)";
    Ok(tx.execute(sql, bind![id, BatchState::Queued, BatchState::Running])? > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{at, temp_store};

    fn job(id: &str, kind: BatchKind, name: &str) -> BatchJob {
        BatchJob {
            id: id.to_owned(),
            kind,
            name: name.to_owned(),
            endpoint: "flights".into(),
            version: Some(VersionNumber(2)),
            state: BatchState::Queued,
            attempt: 0,
            stop_at: None,
            spec: json!({ "input": "in.csv" }),
            progress: json!({}),
            error: Value::Null,
            workspace: "default".to_owned(),
            created_at: at(1),
            created_by: "ada".to_owned(),
            started_at: None,
            ended_at: None,
            updated_at: at(1),
        }
    }

    #[test]
    fn a_job_is_begun_noted_and_ended_by_its_latest_attempt_alone() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                add(tx, &job("1", BatchKind::Rows, "a"))?;
                add(tx, &job("2", BatchKind::Vertex, "a"))?;
                assert!(add(tx, &job("3", BatchKind::Rows, "a")).is_err());
                let first = begin(tx, "1", at(2))?.unwrap();
                let second = begin(tx, "1", at(3))?.unwrap();
                assert_eq!((first.attempt, second.attempt), (1, 2));
                assert_eq!(
                    (second.started_at, second.version),
                    (Some(at(2)), Some(VersionNumber(2)))
                );
                assert!(
                    !note(tx, "1", 1, &json!({ "rows": 1 }), at(4))?,
                    "a stale attempt writes nothing"
                );
                assert!(note(tx, "1", 2, &json!({ "rows": 5 }), at(4))?);
                let ended = BatchEnd {
                    state: BatchState::Failed,
                    progress: json!({ "rows": 6 }),
                    error: json!({ "code": "x" }),
                };
                assert!(!end(tx, "1", 1, &ended, at(5))?);
                assert!(end(tx, "1", 2, &ended, at(5))?);
                let found = get(tx, "1")?.unwrap();
                assert_eq!((found.state, found.ended_at), (BatchState::Failed, Some(at(5))));
                assert_eq!(found.progress, json!({ "rows": 6 }));
                assert!(
                    begin(tx, "1", at(6))?.is_none(),
                    "what has ended is not begun again"
                );
                assert_eq!((open(tx, false, 9)?.len(), open(tx, true, 9)?.len()), (1, 0));
                add(tx, &job("4", BatchKind::Invoke, "a"))?;
                assert_eq!((open(tx, false, 9)?.len(), open(tx, true, 9)?.len()), (1, 1));
                assert_eq!(count_invoked(tx)?, 1);
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_waiting_job_stops_at_once_and_a_running_one_when_its_work_lets_go() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                add(tx, &job("1", BatchKind::Rows, "a"))?;
                add(tx, &job("2", BatchKind::Rows, "b"))?;
                begin(tx, "2", at(2))?;
                for id in ["1", "2"] {
                    stop(tx, id, at(3))?;
                    stop(tx, id, at(4))?;
                }
                let (waiting, running) = (get(tx, "1")?.unwrap(), get(tx, "2")?.unwrap());
                assert_eq!(
                    (waiting.state, waiting.stop_at),
                    (BatchState::Cancelled, Some(at(3)))
                );
                assert_eq!(
                    (running.state, running.stop_at),
                    (BatchState::Running, Some(at(3)))
                );
                assert!(!delete(tx, "2")?, "what is worked on is not forgotten");
                assert!(delete(tx, "1")?);
                assert_eq!(list(tx, None, None, 10)?.len(), 1);
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn jobs_are_listed_newest_first_by_kind_and_page() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                for (id, kind) in [
                    ("1", BatchKind::Rows),
                    ("2", BatchKind::Vertex),
                    ("3", BatchKind::Rows),
                ] {
                    add(tx, &job(id, kind, id))?;
                }
                let ids = |jobs: Vec<BatchJob>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
                assert_eq!(ids(list(tx, None, None, 2)?), ["3", "2"]);
                assert_eq!(ids(list(tx, None, Some("2"), 2)?), ["1"]);
                assert_eq!(ids(list(tx, Some(BatchKind::Rows), None, 9)?), ["3", "1"]);
                assert_eq!(by_name(tx, BatchKind::Vertex, "2")?.unwrap().id, "2");
                assert!(by_name(tx, BatchKind::Rows, "2")?.is_none());
                Ok(())
            })
            .unwrap();
    }
}
