//! Snapshots: the immutable versions of a dataset. Their bytes are objects.

use serde::{Deserialize, Serialize};
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::snapshot::SnapshotManifest;

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// A snapshot and its manifest.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// Names it.
    pub digest: Digest,
    /// Which dataset.
    pub dataset: String,
    /// Rows in all.
    pub rows: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// A critical expectation failed.
    pub quarantined: bool,
    /// Everything else.
    pub manifest: SnapshotManifest,
}

impl SnapshotRow {
    /// The row of a manifest.
    pub fn of(manifest: SnapshotManifest, created_at: Timestamp) -> Self {
        Self {
            digest: manifest.digest,
            dataset: manifest.dataset.clone(),
            rows: manifest.rows,
            created_at,
            quarantined: manifest.quarantined,
            manifest,
        }
    }
}

const COLUMNS: &str = "digest, dataset, rows, created_at, quarantined, manifest";

fn read(row: &Row<'_>) -> rusqlite::Result<SnapshotRow> {
    let mut fields = Fields::of(row);
    Ok(SnapshotRow {
        digest: fields.next()?,
        dataset: fields.next()?,
        rows: fields.next()?,
        created_at: fields.next()?,
        quarantined: fields.next()?,
        manifest: fields.next()?,
    })
}

/// Keeps a snapshot; whether it is new.
pub fn insert(tx: &mut Tx<'_>, snapshot: &SnapshotRow) -> Result<bool, StoreError> {
    let values = bind![
        snapshot.digest,
        snapshot.dataset,
        snapshot.rows,
        snapshot.created_at,
        snapshot.quarantined,
        snapshot.manifest
    ];
    tx.insert_new("snapshots", COLUMNS, values)
}

/// A snapshot.
pub fn get(tx: &ReadTx<'_>, digest: &Digest) -> Result<SnapshotRow, StoreError> {
    find(tx, digest)?.ok_or_else(|| StoreError::not_found("snapshot", digest))
}

/// A snapshot, if there is one.
pub fn find(tx: &ReadTx<'_>, digest: &Digest) -> Result<Option<SnapshotRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM snapshots WHERE digest = ?1");
    tx.first(&sql, bind![digest], read)
}

/// The snapshots of a dataset, latest first.
pub fn list(tx: &ReadTx<'_>, dataset: &str) -> Result<Vec<SnapshotRow>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM snapshots WHERE dataset = ?1 ORDER BY created_at DESC, rowid DESC");
    tx.rows(&sql, bind![dataset], read)
}

/// The names of all datasets that have a snapshot.
pub fn datasets(tx: &ReadTx<'_>) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT DISTINCT dataset FROM snapshots ORDER BY dataset";
    tx.rows(sql, bind![], |row| Fields::of(row).next())
}
