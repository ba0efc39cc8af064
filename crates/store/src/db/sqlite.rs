//! Connections to SQLite: what makes a commit durable and a reader harmless.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::db::Purpose;
use crate::error::StoreError;

pub(crate) const FILE_NAME: &str = "meta.db";

const STATEMENT_CACHE: usize = 128;

/// `FULL` syncs the write-ahead log at every commit: what was answered survives a power cut.
const WRITER: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA busy_timeout = 10000;
    PRAGMA cache_size = -8000;
    PRAGMA case_sensitive_like = ON;
    PRAGMA journal_size_limit = 67108864;";

const READER: &str = "
    PRAGMA query_only = ON;
    PRAGMA busy_timeout = 10000;
    PRAGMA case_sensitive_like = ON;
    PRAGMA cache_size = -2000;";

const INSPECTOR: &str = "
    PRAGMA busy_timeout = 10000;
    PRAGMA case_sensitive_like = ON;";

pub(super) fn open(path: &Path, purpose: Purpose) -> Result<Connection, StoreError> {
    let conn = match purpose {
        Purpose::Write | Purpose::Read => Connection::open(path)?,
        Purpose::Inspect => {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            Connection::open_with_flags(path, flags)?
        }
    };
    conn.execute_batch(match purpose {
        Purpose::Write => WRITER,
        Purpose::Read => READER,
        Purpose::Inspect => INSPECTOR,
    })?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    Ok(conn)
}
