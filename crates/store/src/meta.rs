//! Small values by key: the virtual clock, the watermarks of triggers.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// The value of `key`, if one was set.
pub fn get<T: DeserializeOwned>(tx: &ReadTx<'_>, key: &str) -> Result<Option<T>, StoreError> {
    let text = tx.first("SELECT value FROM meta WHERE key = ?1", bind![key], |row| {
        Fields::of(row).next::<String>()
    })?;
    text.map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|e| unreadable(key, &e))
}

/// Sets the value of `key`.
pub fn set<T: Serialize + ?Sized>(tx: &mut Tx<'_>, key: &str, value: &T) -> Result<(), StoreError> {
    let text = serde_json::to_string(value).map_err(|e| unreadable(key, &e))?;
    tx.upsert("meta", "key, value", "key", bind![key, text])
}

/// Forgets `key`; whether it was set.
pub fn remove(tx: &mut Tx<'_>, key: &str) -> Result<bool, StoreError> {
    Ok(tx.execute("DELETE FROM meta WHERE key = ?1", bind![key])? > 0)
}

fn unreadable(key: &str, error: &serde_json::Error) -> StoreError {
    StoreError::Unreadable {
        what: format!("the value of `{key}`"),
        message: error.to_string(),
    }
}
