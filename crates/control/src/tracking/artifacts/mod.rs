//! Artifacts: files that runs and models keep, in the server's own proxy or in folders and buckets that it may read.

mod multipart;
mod owners;
mod path;
mod place;
mod sweep;

use bytes::Bytes;
use tidemill_core::digest::Digest;
use tidemill_store::ContentKind;
use tidemill_store::objects::{Arrived, BucketUpload, Entry, Folder, Incoming, Outgoing};
use tidemill_store::tracking::artifacts::{self, ArtifactRow};

use super::{Caller, Result, Tracking, TrackingError};

pub use multipart::{OpenedUpload, PartUpload, PartUrl, SignedDownload, Uploads};
pub(crate) use owners::Grounds;
pub use owners::{Origin, Owners};
pub(crate) use path::{Root, cut};
pub use path::{safe_name, safe_path};
pub use place::Destination;
pub(crate) use place::Place;
pub use sweep::Swept;

/// A file that is open for reading.
#[derive(Debug)]
pub struct Artifact {
    /// Its last name.
    pub name: String,
    /// Changes when its bytes do.
    pub etag: String,
    /// Its bytes.
    pub bytes: Outgoing,
}

/// A file on its way. What is dropped before [`ArtifactUpload::finish`] leaves nothing.
#[derive(Debug)]
pub struct ArtifactUpload {
    tracking: Tracking,
    arriving: Arriving,
}

/// Where the bytes of a file on its way go, and what it will be called.
#[derive(Debug)]
enum Arriving {
    Object(Box<Incoming>, String),
    File(Box<Incoming>, Folder, String),
    InBucket(BucketUpload),
}

impl ArtifactUpload {
    /// Takes the next piece.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        match &mut self.arriving {
            Arriving::Object(incoming, _) | Arriving::File(incoming, ..) => Ok(incoming.write(piece).await?),
            Arriving::InBucket(upload) => Ok(upload.write(piece).await?),
        }
    }

    /// Makes the file visible; durable on return.
    pub async fn finish(self) -> Result<()> {
        match self.arriving {
            Arriving::Object(incoming, path) => {
                let arrived = incoming.finish().await?;
                self.tracking.keep_object(path, arrived).await
            }
            Arriving::File(incoming, folder, path) => {
                let arrived = incoming.finish().await?;
                let kept = folder.keep(arrived, &path).await?;
                kept.map_err(|obstacle| obstacle_error(obstacle, &path))
            }
            Arriving::InBucket(upload) => Ok(upload.finish().await?),
        }
    }
}

fn no_such(path: &str) -> TrackingError {
    TrackingError::not_found(format!("No such artifact: '{path}'"))
}

fn occupied(path: &str) -> TrackingError {
    TrackingError::invalid(format!(
        "'{path}' cannot be a file: a folder has that name, or a file has the name of its folder"
    ))
}

fn last_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

impl Tracking {
    /// Starts an upload to the proxy.
    pub async fn upload_artifact(&self, caller: &Caller, path: &str) -> Result<ArtifactUpload> {
        let path = safe_name(path)?;
        self.start_upload(self.proxy_place(caller, &path)?).await
    }

    /// Opens a file of the proxy.
    pub async fn artifact(&self, caller: &Caller, path: &str) -> Result<Artifact> {
        let path = safe_name(path)?;
        self.open_artifact(self.proxy_place(caller, &path)?).await
    }

    /// What is in a folder of the proxy, by name.
    pub async fn list_artifacts(&self, caller: &Caller, path: &str) -> Result<Vec<Entry>> {
        let path = safe_path(path)?;
        self.list_place(self.proxy_place(caller, &path)?).await
    }

    /// Removes a file or a folder of the proxy, and frees the bytes that no other name stands for.
    pub async fn delete_artifact(&self, caller: &Caller, path: &str) -> Result<()> {
        let path = safe_name(path)?;
        let place = self.proxy_place(caller, &path)?;
        if !self.remove_place(&place).await?.0 {
            return Err(no_such(&path));
        }
        Ok(())
    }

    /// Starts an upload below an artifact root.
    pub async fn upload_artifact_of(
        &self,
        caller: &Caller,
        root: &str,
        path: &str,
    ) -> Result<ArtifactUpload> {
        let path = safe_name(path)?;
        self.start_upload(self.place_of(caller, root, &path).await?).await
    }

    /// Opens a file below an artifact root.
    pub async fn artifact_of(&self, caller: &Caller, root: &str, path: &str) -> Result<Artifact> {
        let path = safe_name(path)?;
        self.open_artifact(self.place_of(caller, root, &path).await?)
            .await
            .map_err(|error| match error {
                TrackingError::NotFound(_) => no_such(&path),
                error => error,
            })
    }

    /// What is in a folder below an artifact root, by name.
    pub async fn artifacts_of(&self, caller: &Caller, root: &str, path: &str) -> Result<Vec<Entry>> {
        let path = safe_path(path)?;
        self.list_place(self.place_of(caller, root, &path).await?).await
    }

    /// The bytes of a file below an artifact root, such as a model's `MLmodel`; `None` if it is not there, is larger than `limit`
    /// bytes, or the root is one that only clients reach.
    pub async fn artifact_read(
        &self,
        caller: &Caller,
        root: &str,
        path: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>> {
        match self.artifact_of(caller, root, path).await {
            Ok(artifact) => Ok(artifact.bytes.rest(limit).await?),
            Err(TrackingError::Store(error)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    /// Where a run keeps its artifacts.
    pub async fn artifact_root_of_run(&self, caller: &Caller, run_id: &str) -> Result<String> {
        let (workspace, id) = (caller.workspace.clone(), run_id.to_owned());
        let root = self
            .store()
            .read(move |tx| artifacts::root_of_run(tx, &workspace, &id))
            .await?;
        root.ok_or_else(|| TrackingError::not_found(format!("Run with id={run_id} not found")))
    }

    /// Where a model version's files are.
    pub async fn artifact_root_of_version(
        &self,
        caller: &Caller,
        model: &str,
        version: &str,
    ) -> Result<String> {
        let not_found = || {
            TrackingError::not_found(format!(
                "Model Version (name={model}, version={version}) not found"
            ))
        };
        let number: i64 = version.parse().map_err(|_| not_found())?;
        let (workspace, name) = (caller.workspace.clone(), model.to_owned());
        let root = self
            .store()
            .read(move |tx| artifacts::root_of_version(tx, &workspace, &name, number))
            .await?;
        root.ok_or_else(not_found)
    }

    pub(crate) async fn start_upload(&self, place: Place) -> Result<ArtifactUpload> {
        let arriving = match place {
            Place::Object(path) => Arriving::Object(Box::new(self.store().objects().incoming().await?), path),
            Place::File(folder, path) => Arriving::File(Box::new(folder.incoming().await?), folder, path),
            Place::Bucket(bucket, path) => Arriving::InBucket(self.store().upload_to(&bucket, &path)?),
        };
        Ok(ArtifactUpload {
            tracking: self.clone(),
            arriving,
        })
    }

    async fn keep_object(&self, path: String, arrived: Arrived) -> Result<()> {
        let objects = self.store().objects();
        let kept = objects.keep(arrived, ContentKind::Artifact).await?;
        let row = ArtifactRow {
            digest: kept.digest,
            size: kept.size,
            modified_at: self.now(),
        };
        let name = path.clone();
        // The guard goes with the change: once that is queued, whoever looks for unreferenced objects comes after it.
        let put = move |tx: &mut tidemill_store::Tx<'_>| {
            let _kept = kept;
            artifacts::put(tx, &name, &row)
        };
        match self.store().write(put).await? {
            Ok(None) => Ok(()),
            Ok(Some(before)) => self.free(vec![before]).await,
            Err(obstacle) => {
                self.free(vec![row.digest]).await?;
                Err(obstacle_error(obstacle, &path))
            }
        }
    }

    pub(crate) async fn open_artifact(&self, place: Place) -> Result<Artifact> {
        match place {
            Place::File(folder, path) => {
                let bytes = folder.open(&path).await?.ok_or_else(|| no_such(&path))?;
                Ok(Artifact {
                    name: last_name(&path).to_owned(),
                    etag: format!("{:x}-{:x}", bytes.size(), bytes.modified_ms()),
                    bytes,
                })
            }
            Place::Bucket(bucket, path) => {
                let bytes = bucket.open_file(&path).await?.ok_or_else(|| no_such(&path))?;
                let written = || format!("{:x}-{:x}", bytes.size(), bytes.modified_ms());
                Ok(Artifact {
                    name: last_name(&path).to_owned(),
                    etag: bytes.etag().map_or_else(written, str::to_owned),
                    bytes,
                })
            }
            Place::Object(path) => {
                let name = path.clone();
                let row = self.store().read(move |tx| artifacts::get(tx, &name)).await?;
                let row = row.ok_or_else(|| no_such(&path))?;
                let opened = self
                    .store()
                    .objects()
                    .open(ContentKind::Artifact, row.digest)
                    .await?;
                Ok(Artifact {
                    name: last_name(&path).to_owned(),
                    etag: row.digest.to_string(),
                    // Deleted in this very moment.
                    bytes: opened.ok_or_else(|| no_such(&path))?,
                })
            }
        }
    }

    async fn list_place(&self, place: Place) -> Result<Vec<Entry>> {
        match place {
            Place::File(folder, path) => Ok(folder.list(&path).await?),
            Place::Bucket(bucket, path) => Ok(bucket.list(&path).await?),
            Place::Object(path) => Ok(self.store().read(move |tx| artifacts::list(tx, &path)).await?),
        }
    }

    /// Bytes below a place, each name counted.
    pub(crate) async fn size_of_place(&self, place: &Place) -> Result<u64> {
        match place {
            Place::File(folder, path) => Ok(folder.size(path).await?),
            Place::Bucket(bucket, path) => Ok(bucket.size(path).await?),
            Place::Object(path) => {
                let path = path.clone();
                Ok(self.store().read(move |tx| artifacts::size(tx, &path)).await?)
            }
        }
    }

    /// Removes what is at and below a place; whether there was anything, and what that freed.
    ///
    /// Where all artifacts are goes only by its owner's hand.
    pub(crate) async fn remove_place(&self, place: &Place) -> Result<(bool, Swept)> {
        if self.holds_a_root(place) {
            return Ok((false, Swept::default()));
        }
        let path = match place {
            Place::File(folder, path) => {
                let bytes = folder.size(path).await?;
                let any = folder.remove(path).await?;
                let objects = u64::from(any);
                return Ok((any, Swept { objects, bytes }));
            }
            Place::Bucket(bucket, path) => {
                let (objects, bytes) = bucket.remove(path).await?;
                return Ok((objects > 0, Swept { objects, bytes }));
            }
            Place::Object(path) => path,
        };
        let (mut any, mut swept) = (false, Swept::default());
        loop {
            let path = path.clone();
            let some = self
                .store()
                .write(move |tx| artifacts::remove_some(tx, &path, sweep::CHUNK))
                .await?;
            any |= some.names > 0;
            let freed = self.free_counted(some.digests).await?;
            swept.objects += freed.objects;
            swept.bytes += freed.bytes;
            if some.names < u64::from(sweep::CHUNK) {
                return Ok((any, swept));
            }
        }
    }

    /// Removes those objects among `digests` that no name stands for any more.
    pub(crate) async fn free(&self, digests: Vec<Digest>) -> Result<()> {
        self.free_counted(digests).await.map(|_| ())
    }
}

fn obstacle_error(obstacle: tidemill_store::objects::Obstacle, path: &str) -> TrackingError {
    match obstacle {
        tidemill_store::objects::Obstacle::Outside => {
            TrackingError::invalid("Invalid path: resolved path is outside the artifact directory")
        }
        tidemill_store::objects::Obstacle::Occupied => occupied(path),
    }
}
