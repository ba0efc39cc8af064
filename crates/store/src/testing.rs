//! What the tests of this crate share.

use tempfile::TempDir;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;

use crate::db::Database;
use crate::store::Store;

/// Names a PostgreSQL server by a URL without a database; the tests of this crate then run on it.
const POSTGRES: &str = "TIDEMILL_TEST_POSTGRES";

/// A store in a folder that goes when the guard does: on SQLite, or in a fresh database of the server that [`POSTGRES`] names.
pub fn temp_store() -> (TempDir, Store) {
    let (dir, store, _) = temp_store_on(fresh_database());
    (dir, store)
}

/// [`temp_store`] in a given database, for tests that open it again.
pub fn temp_store_on(database: Database) -> (TempDir, Store, Database) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_on(dir.path(), database.clone()).unwrap();
    (dir, store, database)
}

/// Whether these tests run on SQLite.
pub fn on_sqlite() -> bool {
    std::env::var_os(POSTGRES).is_none()
}

/// An empty database.
pub fn fresh_database() -> Database {
    let Ok(server) = std::env::var(POSTGRES) else {
        return Database::Sqlite;
    };
    let name = format!("t{}", tidemill_core::ids::fresh(at(1)));
    let server = server.trim_end_matches('/').to_owned();
    let database = Database::parse(&format!("{server}/{name}")).unwrap();
    let create = move || {
        let mut client = postgres::Client::connect(&format!("{server}/postgres"), postgres::NoTls).unwrap();
        client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    };
    std::thread::spawn(create).join().unwrap();
    database
}

/// So many seconds after the epoch.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

pub fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}
