//! Brings the schema up to date, one transaction a migration, and refuses what a newer Tidemill wrote.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::error::StoreError;

/// In order; a released migration is never edited.
const MIGRATIONS: &[(u32, &str)] = &[(1, include_str!("../migrations/sqlite/0001_initial.sql"))];

fn known() -> u32 {
    MIGRATIONS.last().map_or(0, |(version, _)| *version)
}

fn found(conn: &Connection) -> Result<u32, StoreError> {
    let table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'";
    let exists = conn.query_row(table, [], |_| Ok(())).optional()?.is_some();
    if !exists {
        return Ok(0);
    }
    Ok(conn.query_row(
        "SELECT coalesce(max(version), 0) FROM schema_migrations",
        [],
        |row| row.get(0),
    )?)
}

/// Refuses a schema other than the one this binary reads.
pub(crate) fn check(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let (found, known) = (found(conn)?, known());
    let path = path.to_owned();
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(StoreError::NewerSchema { path, found, known }),
        std::cmp::Ordering::Less => Err(StoreError::OlderSchema { path, found, known }),
    }
}

/// Applies what is missing.
pub(crate) fn run(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found = found(conn)?;
    if found > known() {
        return check(conn, path);
    }
    for (version, sql) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
        let tx = conn.transaction()?;
        tx.execute_batch("CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY)")?;
        tx.execute_batch(sql)?;
        tx.execute("INSERT INTO schema_migrations (version) VALUES (?1)", [version])?;
        tx.commit()?;
        tracing::info!(version, path = %path.display(), "applied a migration");
    }
    Ok(())
}
