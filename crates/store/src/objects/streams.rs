//! Objects that arrive and leave piece by piece, and the removal of those that nothing refers to.

use tidemill_core::digest::Digest;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::{Arrived, ContentKind, Incoming, Objects, Outgoing, blocking};
use crate::error::StoreError;

/// An object that is there and stays, as long as this guard lives: in that time a row has to come to refer to it.
#[derive(Debug)]
pub struct Kept {
    /// Of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    _referring: OwnedRwLockReadGuard<()>,
}

/// As long as this lives nothing comes to be referred to: the time to look which objects nothing refers to, and to remove them.
#[derive(Debug)]
pub struct Alone {
    _referring: OwnedRwLockWriteGuard<()>,
}

impl Objects {
    /// Starts the arrival of an object.
    pub async fn incoming(&self) -> Result<Incoming, StoreError> {
        match &self.folder {
            Some(folder) => Incoming::start(folder.root.clone()).await,
            None => Err(not_local()),
        }
    }

    /// Keeps what has arrived under its digest; the same bytes are kept once.
    pub async fn keep(&self, arrived: Arrived, kind: ContentKind) -> Result<Kept, StoreError> {
        let key = kind.key(arrived.digest);
        let Some(target) = self.file(&key) else {
            return Err(not_local());
        };
        let referring = std::sync::Arc::clone(&self.referring).read_owned().await;
        let (digest, size) = (arrived.digest, arrived.size);
        let there = self.head(&key).await? == Some(size);
        blocking(move || {
            if there {
                // Whoever renamed it there may not have synced the folder yet.
                return match target.parent() {
                    Some(folder) => super::sync_folder(folder),
                    None => Ok(()),
                };
            }
            arrived.rename(&target)
        })
        .await?;
        Ok(Kept {
            digest,
            size,
            _referring: referring,
        })
    }

    /// Opens an object; `None` if there is none.
    pub async fn open(&self, kind: ContentKind, digest: Digest) -> Result<Option<Outgoing>, StoreError> {
        match self.file(&kind.key(digest)) {
            Some(file) => Outgoing::open(&file).await,
            None => Err(not_local()),
        }
    }

    /// Waits until nothing is about to be referred to, and keeps it so.
    pub async fn alone(&self) -> Alone {
        Alone {
            _referring: std::sync::Arc::clone(&self.referring).write_owned().await,
        }
    }

    /// Removes objects that nothing refers to. Whoever calls this has looked, while alone.
    pub async fn remove_unreferenced(
        &self,
        _alone: &Alone,
        kind: ContentKind,
        digests: &[Digest],
    ) -> Result<(), StoreError> {
        for digest in digests {
            self.delete(&kind.key(*digest)).await?;
        }
        Ok(())
    }
}

fn not_local() -> StoreError {
    StoreError::conflict("object store", "artifacts need an object store in a local folder")
}
