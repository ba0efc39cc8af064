//! The steps of runs, one row an attempt.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::RunId;

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::runs;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// Where an attempt at a step stands.
    StepState {
        /// Not begun.
        Pending = "pending",
        /// At work.
        Running = "running",
        /// Done.
        Succeeded = "succeeded",
        /// Not done.
        Failed = "failed",
        /// Told to stop.
        Cancelled = "cancelled",
        /// Not needed.
        Skipped = "skipped",
        /// An earlier result stands in for it.
        Reused = "reused",
    }
);

/// One try of one step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StepRow {
    /// Of which run.
    pub run: RunId,
    /// Which step.
    pub name: String,
    /// Which try, from 1.
    pub attempt: u32,
    /// The run's lease under which it was written.
    pub lease: i64,
    /// Where it stands.
    pub state: StepState,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What came out.
    pub output: Value,
    /// Why it failed.
    pub error: Option<String>,
}

const COLUMNS: &str = "run, name, attempt, lease, state, started_at, ended_at, output, error";

fn read(row: &Row<'_>) -> rusqlite::Result<StepRow> {
    let mut fields = Fields::of(row);
    Ok(StepRow {
        run: fields.next()?,
        name: fields.next()?,
        attempt: fields.next()?,
        lease: fields.next()?,
        state: fields.next()?,
        started_at: fields.next()?,
        ended_at: fields.next()?,
        output: fields.next()?,
        error: fields.next()?,
    })
}

/// Writes the attempt if its lease is still the run's; otherwise writes nothing.
pub fn upsert_with_lease(tx: &mut Tx<'_>, step: &StepRow) -> Result<(), StoreError> {
    runs::check_lease(tx, &step.run, step.lease)?;
    let values = bind![
        step.run,
        step.name,
        step.attempt,
        step.lease,
        step.state,
        step.started_at,
        step.ended_at,
        step.output,
        step.error
    ];
    tx.upsert("steps", COLUMNS, "run, name, attempt", values)
}

/// The attempts of a run, in the order in which they were first written.
pub fn list(tx: &ReadTx<'_>, run: &RunId) -> Result<Vec<StepRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM steps WHERE run = ?1 ORDER BY rowid");
    tx.rows(&sql, bind![run], read)
}
