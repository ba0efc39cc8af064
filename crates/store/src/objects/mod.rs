//! The object store: bytes under a key, durable once written, checked against their digest when read.

mod bucket;
mod bundles;
mod folder;
mod incoming;
mod key;
mod local;
mod outgoing;
mod shelf;
mod streams;

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tidemill_core::digest::Digest;
use tokio::sync::RwLock;

use crate::error::StoreError;

pub(crate) use bucket::Ledger;
pub use bucket::{Bucket, BucketFault, BucketTrouble, BucketUpload, Environment};
pub use bundles::{BundleFile, BundleFiles};
pub use folder::{Entry, Folder, Obstacle};
pub use incoming::{Arrived, Incoming};
pub use key::{ContentKind, ObjectKey};
pub(crate) use local::sync_folder;
pub use outgoing::Outgoing;
pub use shelf::{Shelf, Shelved};
pub use streams::{Alone, Kept};

/// Above this many bytes a digest is computed on a thread that may block.
const BLOCKING_DIGEST: usize = 1 << 18;

/// The object store of a data folder. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    // The folder behind `store`, if it is one: writes go there by our own, durable way.
    folder: Option<Arc<LocalRoot>>,
    // Held for reading between the moment that an object is found or made and the one that a row refers to it; held for writing
    // while objects without a row are removed.
    referring: Arc<RwLock<()>>,
}

struct LocalRoot {
    root: PathBuf,
    files: Arc<LocalFileSystem>,
}

/// An object in a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectInfo {
    /// Where it is, from the root of the object store.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Objects({})", self.store)
    }
}

impl Objects {
    /// Objects as files below `root`, which is created.
    pub fn local(root: &FilePath) -> Result<Self, StoreError> {
        if !root.is_dir() {
            std::fs::create_dir_all(root).map_err(|e| StoreError::io("create the folder", root, e))?;
            if let Some(parent) = root.parent() {
                sync_folder(parent)?;
            }
        }
        let root = root.canonicalize().map_err(|e| StoreError::io("open", root, e))?;
        let files = LocalFileSystem::new_with_prefix(&root)
            .map(Arc::new)
            .map_err(|e| StoreError::objects(&Path::ROOT, e))?;
        Ok(Self {
            store: Arc::clone(&files) as Arc<dyn ObjectStore>,
            folder: Some(Arc::new(LocalRoot { root, files })),
            referring: Arc::default(),
        })
    }

    /// Objects in a store that is durable by itself: S3 and the like, or memory in tests.
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            folder: None,
            referring: Arc::default(),
        }
    }

    /// Removes what writes that were killed left behind. Only while nothing writes.
    pub(crate) fn discard_unfinished(&self) -> Result<(), StoreError> {
        match &self.folder {
            Some(folder) => local::discard_unfinished(&folder.root),
            None => Ok(()),
        }
    }

    /// The store itself, for readers that read in parts (DataFusion). Write through [`Objects::put`].
    pub fn inner(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// Where an object is in [`Objects::inner`].
    pub fn path(&self, key: &ObjectKey) -> Path {
        key.path()
    }

    /// The file of an object, if objects are files.
    pub fn file(&self, key: &ObjectKey) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        folder.files.path_to_filesystem(&key.path()).ok()
    }

    /// Stores an object; durable on return. One that is named by its digest is written only once.
    pub async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        if let Some(expected) = key.content_digest() {
            let found = digest_of(bytes.clone()).await?;
            if found != expected {
                return Err(self.corrupt(key, expected, found));
            }
        }
        self.put_checked(key, bytes).await
    }

    /// Stores an object unless there is one; durable on return. Returns whether it was stored.
    pub async fn put_new(&self, key: &ObjectKey, bytes: Bytes) -> Result<bool, StoreError> {
        let path = key.path();
        let Some(folder) = &self.folder else {
            let payload = PutPayload::from_bytes(bytes);
            return match self.store.put_opts(&path, payload, PutMode::Create.into()).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                Err(e) => Err(StoreError::objects(&path, e)),
            };
        };
        let target = folder
            .files
            .path_to_filesystem(&path)
            .map_err(|e| StoreError::objects(&path, e))?;
        let root = folder.root.clone();
        blocking(move || local::write_new(&root, &target, &bytes)).await
    }

    /// Stores bytes under their digest.
    pub async fn put_content(&self, kind: ContentKind, bytes: Bytes) -> Result<Digest, StoreError> {
        let digest = digest_of(bytes.clone()).await?;
        self.put_checked(&kind.key(digest), bytes).await?;
        Ok(digest)
    }

    async fn put_checked(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        let size = bytes.len() as u64;
        let there = key.content_digest().is_some() && self.head(key).await? == Some(size);
        let path = key.path();
        let Some(folder) = &self.folder else {
            if there {
                return Ok(());
            }
            let put = self.store.put(&path, PutPayload::from_bytes(bytes)).await;
            return put.map(|_| ()).map_err(|e| StoreError::objects(&path, e));
        };
        let target = folder
            .files
            .path_to_filesystem(&path)
            .map_err(|e| StoreError::objects(&path, e))?;
        let root = folder.root.clone();
        blocking(move || {
            if there {
                // Whoever renamed it there may not have synced the folder yet.
                return sync_folder(target.parent().unwrap_or(&root));
            }
            local::write(&root, &target, &bytes)
        })
        .await
    }

    /// The bytes of an object. One that is named by its digest is checked against it.
    pub async fn get(&self, key: &ObjectKey) -> Result<Bytes, StoreError> {
        let path = key.path();
        let failed = |e| StoreError::objects(&path, e);
        let bytes = self
            .store
            .get(&path)
            .await
            .map_err(failed)?
            .bytes()
            .await
            .map_err(failed)?;
        if let Some(expected) = key.content_digest() {
            let found = digest_of(bytes.clone()).await?;
            if found != expected {
                return Err(self.corrupt(key, expected, found));
            }
        }
        Ok(bytes)
    }

    /// The size of an object, if there is one.
    pub async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        let path = key.path();
        match self.store.head(&path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(StoreError::objects(&path, e)),
        }
    }

    /// The objects below a folder such as `snapshots/data`, by path; all of them for an empty one.
    pub async fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let prefix = Path::from(folder);
        let listed: Vec<_> = self
            .store
            .list(Some(&prefix))
            .try_collect()
            .await
            .map_err(|e| StoreError::objects(&prefix, e))?;
        let mut infos: Vec<ObjectInfo> = listed
            .into_iter()
            .map(|meta| ObjectInfo {
                path: meta.location.to_string(),
                size: meta.size,
            })
            .collect();
        infos.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(infos)
    }

    /// Removes an object; one that is not there is fine.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let path = key.path();
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(StoreError::objects(&path, e)),
        }
    }

    fn corrupt(&self, key: &ObjectKey, expected: Digest, found: Digest) -> StoreError {
        let path = match self.file(key) {
            Some(file) => file.display().to_string(),
            None => key.path().to_string(),
        };
        StoreError::Corrupt {
            path,
            expected,
            found,
        }
    }
}

async fn digest_of(bytes: Bytes) -> Result<Digest, StoreError> {
    if bytes.len() < BLOCKING_DIGEST {
        return Ok(Digest::of(&bytes));
    }
    blocking(move || Ok(Digest::of(&bytes))).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| StoreError::Panicked {
            message: e.to_string(),
        })?
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
