//! What the tests of this crate share.

use tempfile::TempDir;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;

use crate::store::Store;

/// A store in a folder that goes when the guard does.
pub fn temp_store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// So many seconds after the epoch.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

pub fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}
