//! Parameters of runs: written once.

use std::collections::HashMap;

use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// Which of these keys a run has, with their values.
pub fn values(tx: &ReadTx<'_>, run: i64, keys: &[&str]) -> Result<HashMap<String, String>, StoreError> {
    let read = |row: &crate::db::Row<'_>| {
        let mut fields = Fields::of(row);
        Ok((fields.next()?, fields.next()?))
    };
    let found: Vec<(String, String)> = match keys {
        [] => Vec::new(),
        [key] => {
            let sql = "SELECT key, value FROM run_params WHERE run = ?1 AND key = ?2";
            tx.rows(sql, bind![run, key], read)?
        }
        _ => {
            let sql = "SELECT key, value FROM run_params WHERE run = ?1";
            tx.rows(sql, bind![run], read)?
        }
    };
    Ok(found
        .into_iter()
        .filter(|(key, _)| keys.contains(&key.as_str()))
        .collect())
}

/// Adds parameters that the run does not have yet, each key once.
pub fn insert(tx: &mut Tx<'_>, run: i64, params: &[(&str, &str)]) -> Result<(), StoreError> {
    let rows: Vec<_> = params.iter().map(|(key, value)| (run, *key, *value)).collect();
    tx.insert_rows("run_params", "run, key, value", "", &rows, |row, out| {
        out.extend_from_slice(&[&row.0, &row.1, &row.2]);
    })
}
