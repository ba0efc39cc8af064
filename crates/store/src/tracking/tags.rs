//! Tags of runs.

use std::collections::BTreeMap;

use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// Sets tags; of a key that comes twice the last value counts.
pub fn set(tx: &mut Tx<'_>, run: i64, tags: &[(&str, &str)]) -> Result<(), StoreError> {
    let last: BTreeMap<&str, &str> = tags.iter().copied().collect();
    let rows: Vec<_> = last.into_iter().map(|(key, value)| (run, key, value)).collect();
    let tail = " ON CONFLICT (run, key) DO UPDATE SET value = excluded.value";
    tx.insert_rows("run_tags", "run, key, value", tail, &rows, |row, out| {
        out.extend_from_slice(&[&row.0, &row.1, &row.2]);
    })
}

/// A tag's value.
pub fn value(tx: &ReadTx<'_>, run: i64, key: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT value FROM run_tags WHERE run = ?1 AND key = ?2";
    tx.first(sql, bind![run, key], |row| Fields::of(row).next())
}

/// Deletes a tag; returns whether it was there.
pub fn delete(tx: &mut Tx<'_>, run: i64, key: &str) -> Result<bool, StoreError> {
    let sql = "DELETE FROM run_tags WHERE run = ?1 AND key = ?2";
    Ok(tx.execute(sql, bind![run, key])? > 0)
}
