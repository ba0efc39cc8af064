//! The removal of objects that no name stands for, safe beside uploads.

use std::str::FromStr as _;

use tidemill_core::digest::Digest;
use tidemill_store::ContentKind;
use tidemill_store::tracking::artifacts;

use super::super::{Result, Tracking};

/// So many names or objects are dealt with at once.
pub(super) const CHUNK: u32 = 500;

/// What a sweep removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Tracking {
    /// Removes those objects among `digests` that no name stands for any more.
    pub(crate) async fn free_counted(&self, digests: Vec<Digest>) -> Result<Swept> {
        let mut swept = Swept::default();
        let objects = self.store().objects();
        for chunk in digests.chunks(CHUNK as usize) {
            let chunk = chunk.to_vec();
            let alone = objects.alone().await;
            // As a change, not as a read: it comes after every change that was queued before nothing could be queued any more.
            let free = self
                .store()
                .write(move |tx| artifacts::unreferenced(tx, &chunk))
                .await?;
            for digest in &free {
                let size = objects.head(&ContentKind::Artifact.key(*digest)).await?;
                swept.objects += u64::from(size.is_some());
                swept.bytes += size.unwrap_or(0);
            }
            objects
                .remove_unreferenced(&alone, ContentKind::Artifact, &free)
                .await?;
        }
        Ok(swept)
    }

    /// Ends the uploads in parts that nobody will end any more, here and in buckets.
    pub async fn sweep_uploads(&self) -> Result<u64> {
        self.tidy_uploads().await?;
        let buckets = self.all_buckets();
        Ok(self
            .store()
            .end_forgotten_uploads(&buckets, self.now_ms())
            .await?)
    }

    /// Removes every object that no name stands for: a server that was killed between writing an object and naming it leaves such.
    pub async fn sweep_artifacts(&self) -> Result<Swept> {
        let listed = self.store().objects().list("artifacts").await?;
        let digests = listed
            .iter()
            .filter_map(|object| Digest::from_str(object.path.rsplit('/').next()?).ok())
            .collect();
        self.free_counted(digests).await
    }
}
