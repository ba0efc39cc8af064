//! What can go wrong with stored things, who has to act, and what to do about it.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_core::digest::Digest;
use tidemill_core::ids::RunId;
use tidemill_core::ports::{Blame, PortError};

use crate::objects::{BucketFault, BucketTrouble};

/// Why the store could not do its work. Cheap to clone: one failed commit answers every writer of its group.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {what} `{path}`: {source}")]
    Io {
        /// What was tried: `open`, `write`, …
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The metadata database failed.
    #[error("the metadata database failed: {source}")]
    Database {
        /// What it said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The object store failed.
    #[error("the object store failed on `{path}`: {source}")]
    Objects {
        /// The object.
        path: String,
        /// What it said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A bucket outside refused or failed.
    #[error("{0}")]
    Bucket(Box<BucketTrouble>),
    /// Another server uses this data folder.
    #[error("another server{} uses the data folder `{path}`: stop it, or start this one with another `--data`", .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The data folder.
        path: PathBuf,
        /// The other server's process, if its lock file says so.
        pid: Option<u32>,
    },
    /// There is no space left; nothing of the write was kept.
    #[error(
        "the disk is full while writing {what}: nothing of this write was kept; free some space and try again, no restart is needed"
    )]
    DiskFull {
        /// What was being written.
        what: String,
    },
    /// A stored object is not what was stored.
    #[error(
        "`{path}` is corrupt: its digest should be {expected} but is {found}; restore the file from a backup"
    )]
    Corrupt {
        /// The object.
        path: String,
        /// The digest that names it.
        expected: Digest,
        /// The digest of what is there.
        found: Digest,
    },
    /// A stored value cannot be read back.
    #[error("{what} cannot be read back: {message}")]
    Unreadable {
        /// Which value.
        what: String,
        /// Why.
        message: String,
    },
    /// There is no such thing.
    #[error("there is no {noun} `{key}`")]
    NotFound {
        /// What kind of thing.
        noun: &'static str,
        /// Its name or id.
        key: String,
    },
    /// A later attempt took the run over; nothing was written.
    #[error(
        "lease {held} of run `{run}` is stale: lease {current} took the run over, so nothing was written"
    )]
    StaleLease {
        /// The run.
        run: RunId,
        /// The token of the one that wrote.
        held: i64,
        /// The token that counts now.
        current: i64,
    },
    /// The write contradicts what is stored; nothing was written.
    #[error("{noun}: {message}")]
    Conflict {
        /// What kind of thing.
        noun: &'static str,
        /// What contradicts what.
        message: String,
    },
    /// The data folder was written by a newer Tidemill.
    #[error(
        "the database `{path}` has schema {found} but this Tidemill knows only up to {known}: start it with the newer version, or restore a backup"
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest that this binary knows.
        known: u32,
    },
    /// The data folder has to be migrated, which only a server does.
    #[error(
        "the database `{path}` has schema {found} but this Tidemill reads {known}: start the server once to migrate it"
    )]
    OlderSchema {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// What this binary reads.
        known: u32,
    },
    /// The store was opened for reading.
    #[error("this store was opened for reading only: send the change to the running server")]
    ReadOnly,
    /// The store has shut down, or a write ended without an answer.
    #[error("the store has shut down")]
    Closed,
    /// A closure given to the store panicked; its writes were rolled back.
    #[error("a store operation panicked and was rolled back: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
}

impl StoreError {
    /// A stable code, one page each in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "store_io",
            Self::Database { .. } => "store_database",
            Self::Objects { .. } => "store_objects",
            Self::Bucket(trouble) => match trouble.fault {
                BucketFault::Denied => "store_bucket_denied",
                BucketFault::Missing => "store_bucket_missing",
                BucketFault::Unreachable => "store_bucket_unreachable",
                BucketFault::Failed => "store_bucket_failed",
            },
            Self::Locked { .. } => "store_locked",
            Self::DiskFull { .. } => "store_disk_full",
            Self::Corrupt { .. } => "store_corrupt",
            Self::Unreadable { .. } => "store_unreadable",
            Self::NotFound { .. } => "not_found",
            Self::StaleLease { .. } => "stale_lease",
            Self::Conflict { .. } => "conflict",
            Self::NewerSchema { .. } => "store_newer_schema",
            Self::OlderSchema { .. } => "store_older_schema",
            Self::ReadOnly => "store_read_only",
            Self::Closed => "store_closed",
            Self::Panicked { .. } => "store_panicked",
        }
    }

    /// Who has to act.
    pub fn blame(&self) -> Blame {
        match self {
            Self::NotFound { .. }
            | Self::StaleLease { .. }
            | Self::Conflict { .. }
            | Self::Locked { .. }
            | Self::NewerSchema { .. }
            | Self::OlderSchema { .. }
            | Self::ReadOnly => Blame::Caller,
            Self::Io { .. }
            | Self::DiskFull { .. }
            | Self::Objects { .. }
            | Self::Bucket(_)
            | Self::Corrupt { .. } => Blame::Upstream,
            Self::Database { .. } | Self::Unreadable { .. } | Self::Closed | Self::Panicked { .. } => {
                Blame::Us
            }
        }
    }

    /// There is no such thing.
    pub fn not_found(noun: &'static str, key: impl ToString) -> Self {
        Self::NotFound {
            noun,
            key: key.to_string(),
        }
    }

    /// The write contradicts what is stored.
    pub fn conflict(noun: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict {
            noun,
            message: message.into(),
        }
    }

    /// Whether it says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return Self::DiskFull {
                what: format!("`{}`", path.display()),
            };
        }
        Self::Io {
            what,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn objects(path: &object_store::path::Path, source: object_store::Error) -> Self {
        match source {
            object_store::Error::NotFound { .. } => Self::not_found("object", path),
            source => Self::Objects {
                path: path.to_string(),
                source: Arc::new(source),
            },
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull {
                what: "the metadata database".to_owned(),
            },
            Some(rusqlite::ErrorCode::ConstraintViolation) => Self::conflict(
                "metadata",
                format!("the write contradicts what is stored: {error}"),
            ),
            _ => match error {
                rusqlite::Error::FromSqlConversionFailure(column, _, source) => Self::Unreadable {
                    what: format!("column {column} of a stored row"),
                    message: source.to_string(),
                },
                error => Self::Database {
                    source: Arc::new(error),
                },
            },
        }
    }
}

impl From<StoreError> for PortError {
    fn from(error: StoreError) -> Self {
        Self {
            blame: error.blame(),
            code: error.code(),
            message: error.to_string(),
            trace: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_such_whoever_meets_it() {
        let full = Path::new("/dev/full");
        if full.exists() {
            let error = StoreError::io("write", full, std::fs::write(full, "x").unwrap_err());
            assert_eq!(
                (error.code(), error.blame()),
                ("store_disk_full", Blame::Upstream)
            );
            let port = PortError::from(error);
            assert!(
                port.message
                    .starts_with("the disk is full while writing `/dev/full`"),
                "{port}"
            );
        }
    }
}
