//! Alerts: what monitors raised, and what became of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{AlertId, EndpointName, RunId};

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// What became of an alert.
    AlertState {
        /// Nothing yet.
        Open = "open",
        /// It started a run.
        Triggered = "triggered",
        /// It came too soon after another to start one.
        CooledDown = "cooled_down",
        /// A person has seen it.
        Acknowledged = "acknowledged",
    }
);

/// An alert.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AlertRow {
    /// Names it.
    pub id: AlertId,
    /// About which endpoint.
    pub endpoint: EndpointName,
    /// Which monitor raised it.
    pub monitor: String,
    /// When.
    pub at: Timestamp,
    /// Where the window that it is about ends.
    pub window_until: Timestamp,
    /// What is wrong, for people.
    pub summary: String,
    /// What was measured.
    pub signals: Value,
    /// What became of it.
    pub state: AlertState,
    /// The run that it started.
    pub run: Option<RunId>,
}

const COLUMNS: &str = "id, endpoint, monitor, at, window_until, summary, signals, state, run";

fn read(row: &Row<'_>) -> rusqlite::Result<AlertRow> {
    let mut fields = Fields::of(row);
    Ok(AlertRow {
        id: fields.next()?,
        endpoint: fields.next()?,
        monitor: fields.next()?,
        at: fields.next()?,
        window_until: fields.next()?,
        summary: fields.next()?,
        signals: fields.next()?,
        state: fields.next()?,
        run: fields.next()?,
    })
}

/// Adds an alert; whether it is new. Alerts have derived ids, so raising one again changes nothing.
pub fn insert(tx: &mut Tx<'_>, alert: &AlertRow) -> Result<bool, StoreError> {
    let values = bind![
        alert.id,
        alert.endpoint,
        alert.monitor,
        alert.at,
        alert.window_until,
        alert.summary,
        alert.signals,
        alert.state,
        alert.run
    ];
    tx.insert_new("alerts", COLUMNS, values)
}

/// An alert.
pub fn get(tx: &ReadTx<'_>, id: &AlertId) -> Result<AlertRow, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM alerts WHERE id = ?1");
    tx.first(&sql, bind![id], read)?
        .ok_or_else(|| StoreError::not_found("alert", id))
}

/// Says what became of an alert; `run` is kept if none is given.
pub fn set_state(
    tx: &mut Tx<'_>,
    id: &AlertId,
    state: AlertState,
    run: Option<&RunId>,
) -> Result<(), StoreError> {
    let sql = "UPDATE alerts SET state = ?2, run = coalesce(?3, run) WHERE id = ?1";
    if tx.execute(sql, bind![id, state, run])? == 0 {
        return Err(StoreError::not_found("alert", id));
    }
    Ok(())
}

/// The latest `limit` alerts, latest first; of one endpoint or of all.
pub fn list(
    tx: &ReadTx<'_>,
    endpoint: Option<&EndpointName>,
    limit: u32,
) -> Result<Vec<AlertRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM alerts WHERE endpoint = ?1 OR ?1 IS NULL ORDER BY at DESC, id DESC LIMIT ?2"
    );
    tx.rows(&sql, bind![endpoint, limit], read)
}

/// The latest alert of a monitor.
pub fn last(tx: &ReadTx<'_>, endpoint: &EndpointName, monitor: &str) -> Result<Option<AlertRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM alerts WHERE endpoint = ?1 AND monitor = ?2 ORDER BY at DESC, id DESC LIMIT 1"
    );
    tx.first(&sql, bind![endpoint, monitor], read)
}
