//! A bucket of an S3-compatible object store, with files under their own names.
//!
//! The local store is content-addressed; a bucket is not. The digest of an upload that streams through is known only at its end, when
//! the bytes lie under some key already, and S3 has no rename: each would have to be stored twice, or wait on a local disk. And who
//! gives artifacts to a bucket means to find them there: MLflow's clients with `--default-artifact-root s3://…` read and write
//! `prefix/experiment/run/artifacts/path` by themselves, lifecycle rules, replication and other tools go by the same paths, and what
//! MLflow's clients have put there before is served as it is. So a file's key is its path, an identical file is stored twice, and the
//! listing is the bucket's own.
//!
//! S3 lets `a` and `a/b` be objects at the same time, so, unlike in a [`super::Folder`], no name is ever occupied. A file is visible
//! at once when its upload ends, and not before; one that replaces another does so at once.
//!
//! Bytes stream both ways in constant memory. A part that fails is sent again, and a download that breaks off goes on where it
//! stood, as long as the object is still the same one.

mod config;
mod fault;
mod ledger;
mod presign;
mod upload;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore as _, ObjectStoreExt as _};
use tidemill_core::clock::{Clock as _, WallClock};

use super::folder::Entry;
use super::outgoing::Outgoing;
use crate::error::StoreError;
use crate::store::Store;

pub use config::Environment;
pub use fault::{BucketFault, BucketTrouble};
pub(crate) use ledger::Ledger;
pub use upload::BucketUpload;

use ledger::Note;
use presign::{Permission, Signing};

/// How long nothing may come of a download before it counts as broken.
const SILENCE: Duration = Duration::from_mins(1);
/// What `AWS4-HMAC-SHA256` allows at most.
const LONGEST_S: u64 = 7 * 24 * 3_600;

/// A bucket, or the part of it below a prefix. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    inner: Arc<Inner>,
}

// Not `Debug`: it has the credentials.
struct Inner {
    /// For requests that move no files.
    quick: AmazonS3,
    /// For those that do, and may take long.
    patient: AmazonS3,
    uri: String,
    name: String,
    prefix: String,
    endpoint: String,
    /// What stands in front of keys in URLs.
    base: String,
    region: String,
}

impl Inner {
    fn trouble(&self, error: &object_store::Error, doing: &'static str) -> StoreError {
        fault::trouble(error, doing, &self.name, &self.endpoint)
    }

    /// Asks for a file, and waits no longer for the answer to begin than for it to go on.
    async fn get(
        &self,
        key: &Path,
        options: GetOptions,
    ) -> Result<object_store::Result<GetResult>, StoreError> {
        let got = tokio::time::timeout(SILENCE, self.patient.get_opts(key, options)).await;
        got.map_err(|_| self.too_slow("read"))
    }

    fn too_slow(&self, doing: &'static str) -> StoreError {
        StoreError::Bucket(Box::new(BucketTrouble {
            fault: BucketFault::Unreachable,
            doing,
            bucket: self.name.clone(),
            endpoint: self.endpoint.clone(),
            detail: "it took too long".to_owned(),
        }))
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({} at {})", self.inner.uri, self.inner.endpoint)
    }
}

impl PartialEq for Bucket {
    fn eq(&self, other: &Self) -> bool {
        self.inner.uri == other.inner.uri && self.inner.endpoint == other.inner.endpoint
    }
}

impl Eq for Bucket {}

impl Bucket {
    fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The bucket that a URI such as `s3://bucket/prefix` names, reached as the environment says. Asks nobody yet.
    pub fn open(uri: &str, environment: Environment<'_>) -> Result<Self, StoreError> {
        config::bucket(uri, environment)
    }

    /// Whether a URI names something in a bucket.
    pub fn is_uri(uri: &str) -> bool {
        config::parts_of(uri).is_some()
    }

    /// `s3://bucket/prefix`
    pub fn uri(&self) -> &str {
        &self.inner.uri
    }

    /// The path below the prefix that a URI names; `None` for one elsewhere.
    pub fn path_of(&self, uri: &str) -> Option<String> {
        let uri = uri.split(['?', '#']).next().unwrap_or(uri);
        let (name, path) = config::parts_of(uri)?;
        if name != self.inner.name {
            return None;
        }
        let below = path.strip_prefix(self.inner.prefix.as_str())?;
        if below.is_empty() || self.inner.prefix.is_empty() {
            return Some(below.to_owned());
        }
        below.strip_prefix('/').map(str::to_owned)
    }

    /// Which bucket of which server it is, and the whole key of a path in it: what two prefixes share is the same in both.
    pub fn whole_key(&self, path: &str) -> (String, String) {
        let inner = &self.inner;
        let bucket = format!("{}/{}", inner.endpoint, inner.name);
        (bucket, format!("{}/{path}", inner.prefix))
    }

    fn key(&self, path: &str) -> Result<Path, StoreError> {
        let prefix = &self.inner.prefix;
        let whole = match (prefix.is_empty(), path.is_empty()) {
            (true, _) => path.to_owned(),
            (false, true) => prefix.clone(),
            (false, false) => format!("{prefix}/{path}"),
        };
        Path::parse(&whole)
            .map_err(|error| StoreError::conflict("artifact", format!("`{path}` cannot be a key: {error}")))
    }

    fn trouble(&self, error: &object_store::Error, doing: &'static str) -> StoreError {
        self.inner.trouble(error, doing)
    }

    /// Whether it is there and lets itself be listed.
    pub async fn check(&self) -> Result<(), StoreError> {
        let prefix = self.key("")?;
        let mut listed = self.inner.quick.list(Some(&prefix));
        match listed.next().await {
            Some(Err(error)) => Err(self.trouble(&error, "list")),
            _ => Ok(()),
        }
    }

    /// Opens a file; `None` if there is none.
    pub async fn open_file(&self, path: &str) -> Result<Option<Outgoing>, StoreError> {
        let key = self.key(path)?;
        match self.inner.get(&key, GetOptions::default()).await? {
            Ok(got) => {
                let file = BucketFile {
                    inner: Arc::clone(&self.inner),
                    key,
                    etag: got.meta.e_tag.clone(),
                    range: None,
                    stream: None,
                };
                let (size, modified_ms) = (got.meta.size, got.meta.last_modified.timestamp_millis());
                let stream = Some(got.into_stream());
                let file = BucketFile { stream, ..file };
                Ok(Some(Outgoing::of_bucket(file, size, modified_ms)))
            }
            Err(error) => self.unless_absent(&error),
        }
    }

    fn unless_absent<T>(&self, error: &object_store::Error) -> Result<Option<T>, StoreError> {
        let trouble = self.trouble(error, "read");
        let missing =
            matches!(&trouble, StoreError::Bucket(trouble) if trouble.fault == BucketFault::Missing);
        if matches!(error, object_store::Error::NotFound { .. }) && !missing {
            return Ok(None);
        }
        Err(trouble)
    }

    /// A file's size; `None` if there is none.
    pub async fn size_of_file(&self, path: &str) -> Result<Option<u64>, StoreError> {
        match self.inner.quick.head(&self.key(path)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) => self.unless_absent(&error),
        }
    }

    /// The size of what has this very key, of which there may be more below: of all keys that begin so it is the first.
    async fn size_of_exactly(&self, key: &Path) -> Result<Option<u64>, StoreError> {
        let first = PaginatedListOptions {
            max_keys: Some(1),
            ..PaginatedListOptions::default()
        };
        let listed = self.inner.quick.list_paginated(Some(key.as_ref()), first).await;
        let listed = listed.map_err(|error| self.trouble(&error, "list"))?;
        let exact = listed
            .result
            .objects
            .iter()
            .find(|object| object.location == *key);
        Ok(exact.map(|object| object.size))
    }

    /// What is in the folder `path`, by name.
    pub async fn list(&self, path: &str) -> Result<Vec<Entry>, StoreError> {
        let folder = self.key(path)?;
        let listed = self.inner.quick.list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|error| self.trouble(&error, "list"))?;
        let name = |path: &Path| path.filename().map(str::to_owned);
        let folders = listed.common_prefixes.iter().filter_map(|path| {
            Some(Entry {
                name: name(path)?,
                size: None,
            })
        });
        // Some tools mark a folder by an empty object of its name.
        let files = listed.objects.iter().filter(|file| file.location != folder);
        let files = files.filter_map(|file| {
            Some(Entry {
                name: name(&file.location)?,
                size: Some(file.size),
            })
        });
        let entries: BTreeSet<Entry> = folders.chain(files).collect();
        Ok(entries.into_iter().collect())
    }

    /// How many bytes lie at and below `path`.
    pub async fn size(&self, path: &str) -> Result<u64, StoreError> {
        let folder = self.key(path)?;
        let below = self
            .inner
            .quick
            .list(Some(&folder))
            .try_fold(0, async |sum, file| Ok(sum + file.size))
            .await
            .map_err(|error| self.trouble(&error, "list"))?;
        Ok(below + self.size_of_exactly(&folder).await?.unwrap_or(0))
    }

    /// Removes the file or the folder `path`, which must name something; says how many files and bytes went.
    pub async fn remove(&self, path: &str) -> Result<(u64, u64), StoreError> {
        // A whole bucket goes only by its owner's hand.
        if path.is_empty() {
            return Ok((0, 0));
        }
        let (folder, quick) = (self.key(path)?, &self.inner.quick);
        let (mut files, mut bytes) = (0, 0);
        if let Some(size) = self.size_of_exactly(&folder).await? {
            let removed = quick.delete(&folder).await;
            removed.map_err(|error| self.trouble(&error, "delete"))?;
            (files, bytes) = (1, size);
        }
        let counted = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let counting = Arc::clone(&counted);
        // Deleted while it is listed, however much that is.
        let listed = quick.list(Some(&folder)).map_ok(move |file| {
            counting.0.fetch_add(1, Ordering::Relaxed);
            counting.1.fetch_add(file.size, Ordering::Relaxed);
            file.location
        });
        let removed = quick.delete_stream(listed.boxed()).try_for_each(async |_| Ok(()));
        removed.await.map_err(|error| self.trouble(&error, "delete"))?;
        files += counted.0.load(Ordering::Relaxed);
        bytes += counted.1.load(Ordering::Relaxed);
        Ok((files, bytes))
    }

    async fn url(&self, permission: Permission<'_>) -> Result<String, StoreError> {
        let credential = self.inner.quick.credentials().get_credential().await;
        let credential = credential.map_err(|error| self.trouble(&error, "sign URLs"))?;
        let signing = Signing {
            key_id: &credential.key_id,
            secret: &credential.secret_key,
            token: credential.token.as_deref(),
            region: &self.inner.region,
            // What S3 compares it with is its own clock.
            at: WallClock.now(),
        };
        Ok(signing.url(&permission))
    }

    /// A URL that lets whoever has it fetch a file.
    pub async fn url_to_get(&self, path: &str, lasts: Duration) -> Result<String, StoreError> {
        self.url_to("GET", path, lasts).await
    }

    /// A URL that lets whoever has it store a file.
    pub async fn url_to_put(&self, path: &str, lasts: Duration) -> Result<String, StoreError> {
        self.url_to("PUT", path, lasts).await
    }

    async fn url_to(&self, method: &'static str, path: &str, lasts: Duration) -> Result<String, StoreError> {
        let key = self.key(path)?;
        let permission = Permission {
            method,
            base: &self.inner.base,
            key: key.as_ref(),
            query: &[],
            lasts_s: lasts.as_secs().min(LONGEST_S),
        };
        self.url(permission).await
    }

    /// Opens an upload whose `parts` parts a client sends to the bucket by itself: the upload's name, and a URL for each part.
    pub async fn open_for_client(
        &self,
        store: &Store,
        path: &str,
        parts: u32,
        lasts: Duration,
        now_ms: i64,
    ) -> Result<(String, Vec<String>), StoreError> {
        let key = self.key(path)?;
        let upload = self.inner.quick.create_multipart(&key).await;
        let upload = upload.map_err(|error| self.trouble(&error, "write"))?;
        let note = Note {
            bucket: self.uri().to_owned(),
            key: key.to_string(),
            upload: upload.clone(),
            by_client_ms: Some(now_ms),
        };
        store.ledger().open(note).await?;
        let mut urls = Vec::with_capacity(parts as usize);
        for number in 1..=parts {
            let number = number.to_string();
            let permission = Permission {
                method: "PUT",
                base: &self.inner.base,
                key: key.as_ref(),
                query: &[("partNumber", &number), ("uploadId", &upload)],
                lasts_s: lasts.as_secs().min(LONGEST_S),
            };
            urls.push(self.url(permission).await?);
        }
        Ok((upload, urls))
    }

    /// Puts the parts that a client has sent together; they are named by their ETags, in order.
    pub async fn complete_for_client(
        &self,
        store: &Store,
        path: &str,
        upload: &str,
        etags: Vec<String>,
    ) -> Result<(), StoreError> {
        let key = self.key(path)?;
        let parts = etags
            .into_iter()
            .map(|content_id| PartId { content_id })
            .collect();
        let id = upload.to_owned();
        let completing = self.inner.patient.complete_multipart(&key, &id, parts);
        upload::in_time(&self.inner, "write", completing).await?;
        store.ledger().close(self.uri(), upload, true).await;
        Ok(())
    }

    /// Gives up an upload whose parts a client sends.
    pub async fn abort_for_client(&self, store: &Store, path: &str, upload: &str) -> Result<(), StoreError> {
        let key = self.key(path)?;
        self.end_upload(key.as_ref(), upload).await?;
        // To the bucket an upload of another path is one that is not there; its note stays.
        if store.ledger().is_of(self.uri(), upload, key.as_ref()).await {
            store.ledger().close(self.uri(), upload, true).await;
        }
        Ok(())
    }

    async fn end_upload(&self, key: &str, upload: &str) -> Result<(), StoreError> {
        let key = Path::parse(key).map_err(|error| StoreError::conflict("artifact", error.to_string()))?;
        match self.inner.quick.abort_multipart(&key, &upload.to_owned()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.trouble(&error, "delete")),
        }
    }
}

impl Store {
    /// Starts the arrival of a file in a bucket.
    pub fn upload_to(&self, bucket: &Bucket, path: &str) -> Result<BucketUpload, StoreError> {
        let key = bucket.key(path)?;
        Ok(BucketUpload::start(
            bucket.clone(),
            key,
            Arc::clone(self.ledger()),
        ))
    }

    /// Ends uploads to these buckets that nobody will end any more: those of a server that was killed, and those of clients that have
    /// taken longer than a day. Says how many.
    pub async fn end_forgotten_uploads(&self, buckets: &[Bucket], now_ms: i64) -> Result<u64, StoreError> {
        self.ledger().sweep(buckets, now_ms).await
    }
}

/// A file in a bucket that is read.
pub(super) struct BucketFile {
    inner: Arc<Inner>,
    key: Path,
    pub(super) etag: Option<String>,
    range: Option<(u64, u64)>,
    stream: Option<BoxStream<'static, object_store::Result<Bytes>>>,
}

impl fmt::Debug for BucketFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BucketFile({})", self.key)
    }
}

impl BucketFile {
    /// Leaves out all but these bytes.
    pub(super) fn only(&mut self, start: u64, end: u64) {
        self.range = Some((start, end));
        self.stream = None;
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => match self.range.take() {
                Some((start, end)) if start < end => self.get(start, end).await?,
                _ => return Ok(None),
            },
        };
        match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(piece))) => {
                self.stream = Some(stream);
                Ok(Some(piece))
            }
            Ok(Some(Err(error))) => Err(self.inner.trouble(&error, "read")),
            Ok(None) => Ok(None),
            Err(_) => Err(self.inner.too_slow("read")),
        }
    }

    // `&mut`: a stream cannot be shared between threads.
    async fn get(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, StoreError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(start..end)),
            // Not a part of another file that has come in its place.
            if_match: self.etag.clone(),
            ..GetOptions::default()
        };
        let got = self.inner.get(&self.key, options).await?;
        Ok(got
            .map_err(|error| self.inner.trouble(&error, "read"))?
            .into_stream())
    }
}
