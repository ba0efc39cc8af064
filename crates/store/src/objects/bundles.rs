//! Models as objects: each file under its own digest, and a list of them whose digest names the model.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemill_core::digest::Digest;
use tidemill_core::ports::ModelBundle;

use super::{ContentKind, ObjectKey, Objects};
use crate::error::StoreError;

/// A file of a bundle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BundleFile {
    /// Of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// The files of a bundle by name.
pub type BundleFiles = BTreeMap<String, BundleFile>;

impl Objects {
    /// Stores a model; the same files give the same digest.
    pub async fn put_bundle(&self, bundle: &ModelBundle) -> Result<Digest, StoreError> {
        let mut files = BundleFiles::new();
        for (name, bytes) in bundle {
            let digest = self
                .put_content(ContentKind::ModelFile, Bytes::copy_from_slice(bytes))
                .await?;
            let size = bytes.len() as u64;
            files.insert(name.clone(), BundleFile { digest, size });
        }
        let list = serde_json::to_vec(&files).map_err(|e| StoreError::Unreadable {
            what: "a model's list of files".to_owned(),
            message: e.to_string(),
        })?;
        self.put_content(ContentKind::ModelBundle, list.into()).await
    }

    /// Which files make up a model.
    pub async fn bundle_files(&self, bundle: &Digest) -> Result<BundleFiles, StoreError> {
        let list = self.get(&ObjectKey::ModelBundle(*bundle)).await?;
        serde_json::from_slice(&list).map_err(|e| StoreError::Unreadable {
            what: format!("the list of files of model {bundle}"),
            message: e.to_string(),
        })
    }

    /// Reads a model.
    pub async fn get_bundle(&self, bundle: &Digest) -> Result<ModelBundle, StoreError> {
        let mut files = ModelBundle::new();
        for (name, file) in self.bundle_files(bundle).await? {
            let bytes = self.get(&ObjectKey::ModelFile(file.digest)).await?;
            files.insert(name, bytes.to_vec());
        }
        Ok(files)
    }
}
