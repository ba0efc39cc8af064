//! What monitors found in each window of time.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, VersionNumber};

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// What a monitor says of a window.
    WindowState {
        /// Nothing to raise.
        Ok = "ok",
        /// Something to raise.
        Alert = "alert",
        /// Not enough data to say.
        Insufficient = "insufficient",
    }
);

/// A window that a monitor has judged.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WindowRow {
    /// Of which endpoint.
    pub endpoint: EndpointName,
    /// `quality`, `drift`, `performance` or `outcome`.
    pub monitor: String,
    /// Its first moment.
    pub from: Timestamp,
    /// The moment after its last.
    pub until: Timestamp,
    /// When it was judged.
    pub computed_at: Timestamp,
    /// The champion that it is about.
    pub version: VersionNumber,
    /// The snapshot that it was compared with.
    pub reference: Option<Digest>,
    /// What was measured.
    pub signals: Value,
    /// What that means.
    pub state: WindowState,
}

const COLUMNS: &str = "endpoint, monitor, from_at, until_at, computed_at, version, reference, signals, state";

fn read(row: &Row<'_>) -> rusqlite::Result<WindowRow> {
    let mut fields = Fields::of(row);
    Ok(WindowRow {
        endpoint: fields.next()?,
        monitor: fields.next()?,
        from: fields.next()?,
        until: fields.next()?,
        computed_at: fields.next()?,
        version: fields.next()?,
        reference: fields.next()?,
        signals: fields.next()?,
        state: fields.next()?,
    })
}

/// Writes a window; judged again (late labels), it replaces what was found before.
pub fn upsert(tx: &mut Tx<'_>, window: &WindowRow) -> Result<(), StoreError> {
    let values = bind![
        window.endpoint,
        window.monitor,
        window.from,
        window.until,
        window.computed_at,
        window.version,
        window.reference,
        window.signals,
        window.state
    ];
    tx.upsert("windows", COLUMNS, "endpoint, monitor, until_at", values)
}

/// The latest `limit` windows that end after `since`, oldest first; of one monitor or of all.
pub fn list(
    tx: &ReadTx<'_>,
    endpoint: &EndpointName,
    monitor: Option<&str>,
    since: Timestamp,
    limit: u32,
) -> Result<Vec<WindowRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM windows WHERE endpoint = ?1 AND (monitor = ?2 OR ?2 IS NULL) AND until_at > ?3 \
         ORDER BY until_at DESC, monitor DESC LIMIT ?4"
    );
    let mut windows = tx.rows(&sql, bind![endpoint, monitor, since, limit], read)?;
    windows.reverse();
    Ok(windows)
}

/// Where the last window that a monitor has judged ends.
pub fn last_until(
    tx: &ReadTx<'_>,
    endpoint: &EndpointName,
    monitor: &str,
) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT max(until_at) FROM windows WHERE endpoint = ?1 AND monitor = ?2";
    tx.one(sql, bind![endpoint, monitor], |row| Fields::of(row).next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, temp_store};

    fn window(monitor: &str, until: i64, state: WindowState) -> WindowRow {
        WindowRow {
            endpoint: "delay".into(),
            monitor: monitor.to_owned(),
            from: at(until - 10),
            until: at(until),
            computed_at: at(until),
            version: VersionNumber(1),
            reference: None,
            signals: Value::Null,
            state,
        }
    }

    #[test]
    fn a_window_judged_again_replaces_itself() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                upsert(tx, &window("drift", 10, WindowState::Insufficient))?;
                upsert(tx, &window("drift", 10, WindowState::Alert))?;
                upsert(tx, &window("drift", 20, WindowState::Ok))?;
                upsert(tx, &window("quality", 20, WindowState::Ok))
            })
            .unwrap();
        store
            .read_blocking(|tx| {
                let endpoint = "delay".into();
                assert_eq!(last_until(tx, &endpoint, "drift")?, Some(at(20)));
                assert_eq!(last_until(tx, &endpoint, "outcome")?, None);
                let drift = list(tx, &endpoint, Some("drift"), at(0), 10)?;
                let states: Vec<_> = drift.iter().map(|w| w.state).collect();
                assert_eq!(states, [WindowState::Alert, WindowState::Ok]);
                assert_eq!(list(tx, &endpoint, None, at(10), 10)?.len(), 2);
                assert_eq!(list(tx, &endpoint, None, at(0), 1)?[0].until, at(20));
                Ok(())
            })
            .unwrap();
    }
}
