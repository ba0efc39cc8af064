//! Where bundles lie, and which of them are on their way.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_core::digest::Digest;
use tidemill_store::objects::Folder;

/// Where a bundle is, packed and unpacked.
#[derive(Debug, Clone)]
pub(super) struct Place(pub PathBuf);

impl Place {
    pub fn archives(&self) -> Folder {
        Folder::at(self.0.join("archives"))
    }

    pub fn archive(&self, digest: Digest) -> PathBuf {
        self.0.join("archives").join(archive_name(digest))
    }

    pub fn unpacked(&self, digest: Digest) -> PathBuf {
        self.0.join("unpacked").join(digest.to_string())
    }
}

pub(super) fn archive_name(digest: Digest) -> String {
    format!("{digest}.tidemill")
}

/// Bundles that are being deployed, each as often as it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Underway(Arc<Mutex<Vec<Digest>>>);

/// Keeps a bundle from being forgotten.
pub(super) struct Kept {
    digest: Digest,
    underway: Underway,
}

impl Underway {
    pub fn digests(&self) -> MutexGuard<'_, Vec<Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn keep(&self, digest: Digest) -> Kept {
        self.digests().push(digest);
        Kept {
            digest,
            underway: self.clone(),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut digests = self.underway.digests();
        if let Some(position) = digests.iter().position(|digest| *digest == self.digest) {
            digests.swap_remove(position);
        }
    }
}
