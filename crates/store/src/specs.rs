//! Specs as they were applied: every text that ever was, and which one counts for each project.

use serde::{Deserialize, Serialize};
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// A spec by its digest.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SpecRow {
    /// Names it.
    pub digest: Digest,
    /// The project.
    pub name: String,
    /// The spec, JSON.
    pub text: String,
    /// When it was first seen.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "digest, name, text, created_at";

fn read(row: &Row<'_>) -> rusqlite::Result<SpecRow> {
    let mut fields = Fields::of(row);
    Ok(SpecRow {
        digest: fields.next()?,
        name: fields.next()?,
        text: fields.next()?,
        created_at: fields.next()?,
    })
}

/// Keeps a spec; whether it is new. The first time it was seen stays.
pub fn put(tx: &mut Tx<'_>, spec: &SpecRow) -> Result<bool, StoreError> {
    let values = bind![spec.digest, spec.name, spec.text, spec.created_at];
    tx.insert_new("specs", COLUMNS, values)
}

/// A spec by its digest.
pub fn get(tx: &ReadTx<'_>, digest: &Digest) -> Result<SpecRow, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM specs WHERE digest = ?1");
    tx.first(&sql, bind![digest], read)?
        .ok_or_else(|| StoreError::not_found("spec", digest))
}

/// The spec that counts for a project.
pub fn current(tx: &ReadTx<'_>, name: &str) -> Result<Option<SpecRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM specs WHERE digest = (SELECT digest FROM current_specs WHERE name = ?1)"
    );
    tx.first(&sql, bind![name], read)
}

/// The specs that count, by project.
pub fn list_current(tx: &ReadTx<'_>) -> Result<Vec<SpecRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM specs WHERE digest IN (SELECT digest FROM current_specs) ORDER BY name"
    );
    tx.rows(&sql, bind![], read)
}

/// Makes a stored spec the one that counts for its project.
pub fn set_current(tx: &mut Tx<'_>, name: &str, digest: &Digest) -> Result<(), StoreError> {
    let spec = get(tx, digest)?;
    if spec.name != name {
        let message = format!("{} is a spec of `{}`, not of `{name}`", digest.short(), spec.name);
        return Err(StoreError::conflict("spec", message));
    }
    tx.upsert("current_specs", "name, digest", "name", bind![name, digest])
}
