//! Files of rows that were turned into Parquet: which bytes became which, or why they could not.

use serde_json::Value;
use tidemill_core::digest::Digest;

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// What became of a file.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredTable {
    /// Stands for the file: the digest of its bytes, or of its place and its mark.
    pub source: Digest,
    /// How its rows were read.
    pub format: String,
    /// Whether it is the latter.
    pub by_place: bool,
    /// The Parquet; none if the file is no table.
    pub parquet: Option<Digest>,
    /// How many rows.
    pub rows: u64,
    /// Its columns, as JSON.
    pub columns: Value,
    /// Why it is no table; empty if it is one.
    pub problem: String,
    /// When it was last asked.
    pub used_ms: i64,
}

const COLUMNS: &str = "source, format, by_place, parquet, row_count, column_list, problem, used_ms";

fn read(row: &Row<'_>) -> rusqlite::Result<StoredTable> {
    let mut fields = Fields::of(row);
    Ok(StoredTable {
        source: fields.next()?,
        format: fields.next()?,
        by_place: fields.next()?,
        parquet: fields.next()?,
        rows: fields.next()?,
        columns: fields.next()?,
        problem: fields.next()?,
        used_ms: fields.next()?,
    })
}

/// What became of a file.
pub fn get(tx: &ReadTx<'_>, source: Digest, format: &str) -> Result<Option<StoredTable>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM tracking_tables WHERE source = ?1 AND format = ?2");
    tx.first(&sql, bind![source, format], read)
}

/// Remembers what became of a file.
pub fn put(tx: &mut Tx<'_>, table: &StoredTable) -> Result<(), StoreError> {
    let values = bind![
        table.source,
        table.format,
        table.by_place,
        table.parquet,
        table.rows,
        table.columns,
        table.problem,
        table.used_ms
    ];
    tx.upsert("tracking_tables", COLUMNS, "source, format", values)
}

/// Says that a file was asked.
pub fn touch(tx: &mut Tx<'_>, source: Digest, now_ms: i64) -> Result<(), StoreError> {
    let sql = "UPDATE tracking_tables SET used_ms = ?2 WHERE source = ?1";
    tx.execute(sql, bind![source, now_ms])?;
    Ok(())
}

/// Forgets files that are known by their place and were not asked since a moment; the Parquet that they became.
pub fn forget_unused(tx: &mut Tx<'_>, before_ms: i64, limit: u32) -> Result<Vec<Digest>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM tracking_tables WHERE by_place AND used_ms < ?1 ORDER BY used_ms LIMIT ?2"
    );
    let unused = tx.rows(&sql, bind![before_ms, limit], read)?;
    for table in &unused {
        tx.execute(
            "DELETE FROM tracking_tables WHERE source = ?1 AND format = ?2",
            bind![table.source, table.format],
        )?;
    }
    Ok(unused.into_iter().filter_map(|table| table.parquet).collect())
}

/// Forgets a file whose bytes are gone, however it was read; the Parquet that it became.
pub(crate) fn forget(tx: &mut Tx<'_>, source: Digest) -> Result<Vec<Digest>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM tracking_tables WHERE source = ?1 ORDER BY format");
    let tables = tx.rows(&sql, bind![source], read)?;
    tx.execute("DELETE FROM tracking_tables WHERE source = ?1", bind![source])?;
    Ok(tables.into_iter().filter_map(|table| table.parquet).collect())
}

/// Whether a file became these bytes.
pub(crate) fn refers(tx: &ReadTx<'_>, parquet: Digest) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM tracking_tables WHERE parquet = ?1 LIMIT 1";
    tx.exists(sql, bind![parquet])
}
