//! Uploads in parts, so that a file larger than a proxy in front of us lets through, or a line that breaks, is no obstacle.
//!
//! A bucket takes the parts by itself: clients get its own URLs. Otherwise they wait on this server's disk until the upload is
//! completed. Both outlive a restart, and go after a day if nobody completes them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids;
use tidemill_store::meta;
use tidemill_store::objects::{Bucket, Incoming, Shelved};
use tokio::sync::OnceCell;

use super::super::{Caller, Result, Tracking, TrackingError};
use super::{Artifact, Place, last_name, safe_name};

/// As S3 has it.
const MAX_PARTS: u32 = 10_000;
const MAX_UPLOADS: usize = 1_000;
const LIFETIME_MS: i64 = 24 * 3_600 * 1_000;
/// How long a signed URL is good for.
const URL_LIFETIME_MS: i64 = 3_600 * 1_000;

/// Where the secret is that signs URLs.
const SECRET: &str = "artifacts.secret";

/// What proves that we gave URLs out.
#[derive(Debug, Default)]
pub struct Uploads {
    secret: OnceCell<String>,
}

/// Signs words.
#[derive(Debug)]
struct Signer<'a>(&'a str);

impl Signer<'_> {
    fn token(&self, words: &[&str]) -> String {
        let parts = std::iter::once(self.0.as_bytes()).chain(words.iter().map(|word| word.as_bytes()));
        Digest::of_parts(parts).to_string()
    }

    fn check(&self, token: &str, words: &[&str]) -> Result<()> {
        // Digests of both, so that the time it takes tells nothing.
        if Digest::of(token.as_bytes()) == Digest::of(self.token(words).as_bytes()) {
            return Ok(());
        }
        Err(expired())
    }
}

fn expired() -> TrackingError {
    TrackingError::Denied(
        "the signature of this URL does not hold, or it has expired: ask for a new one".to_owned(),
    )
}

/// An upload that was just opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenedUpload {
    /// Names it.
    pub id: String,
    /// Where each part goes, from the first.
    pub parts: Vec<PartUrl>,
}

/// Where a part goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartUrl {
    /// To this server, with this token.
    Here(String),
    /// To this URL of a bucket.
    Bucket(String),
}

/// A file that may be fetched by whoever has the URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SignedDownload {
    /// From this server.
    Here {
        /// Bytes.
        size: u64,
        /// The path in the proxy.
        path: String,
        /// The query that says so.
        query: String,
    },
    /// From a bucket.
    Bucket {
        /// Bytes.
        size: u64,
        /// The whole URL.
        url: String,
    },
}

/// A part on its way.
#[derive(Debug)]
pub struct PartUpload {
    tracking: Tracking,
    upload: String,
    number: u32,
    incoming: Incoming,
}

impl PartUpload {
    /// Takes the next piece.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        Ok(self.incoming.write(piece).await?)
    }

    /// Ends the part; returns what its `ETag` says. The same part may be sent again, and then counts.
    pub async fn finish(self) -> Result<String> {
        let arrived = self.incoming.finish().await?;
        let etag = arrived.digest.to_string();
        let shelf = self.tracking.store().shelf();
        if shelf.keep(&self.upload, self.number, arrived).await? {
            return Ok(etag);
        }
        Err(no_upload(&self.upload))
    }
}

fn no_upload(id: &str) -> TrackingError {
    TrackingError::not_found(format!(
        "there is no multipart upload `{id}`: it was ended, or took too long"
    ))
}

/// The path of the file that an upload is for: `folder` and the last name of the client's own path.
fn target(folder: &str, file: &str) -> Result<String> {
    let name = last_name(file).to_owned();
    safe_name(&if folder.is_empty() {
        name
    } else {
        format!("{folder}/{name}")
    })
}

impl Tracking {
    /// Opens an upload in parts of a file to a folder of the proxy.
    pub async fn open_upload(
        &self,
        caller: &Caller,
        folder: &str,
        file: &str,
        parts: i64,
    ) -> Result<OpenedUpload> {
        let place = self.proxy_place(caller, &target(folder, file)?)?;
        let expected = u32::try_from(parts)
            .ok()
            .filter(|parts| (1..=MAX_PARTS).contains(parts));
        let expected = expected.ok_or_else(|| {
            TrackingError::invalid(format!(
                "Invalid value {parts} for parameter 'num_parts' supplied: expected a number from 1 to {MAX_PARTS}"
            ))
        })?;
        if let Some((bucket, path)) = self.by_bucket_urls(&place) {
            let lasts = Duration::from_millis(LIFETIME_MS.unsigned_abs());
            let (id, urls) = bucket
                .open_for_client(self.store(), path, expected, lasts, self.now_ms())
                .await?;
            let parts = urls.into_iter().map(PartUrl::Bucket).collect();
            return Ok(OpenedUpload { id, parts });
        }
        let id = ids::fresh(self.now());
        let signer = self.url_signer().await?;
        let parts = (1..=expected)
            .map(|number| PartUrl::Here(signer.token(&["part", &id, &number.to_string()])))
            .collect();
        if self.tidy_uploads().await? >= MAX_UPLOADS {
            return Err(TrackingError::Conflict(format!(
                "{MAX_UPLOADS} multipart uploads are open: complete or abort some of them"
            )));
        }
        let what = Shelved {
            target: words(&place),
            parts: expected,
            opened_ms: self.now_ms(),
        };
        self.store().shelf().open(&id, what).await?;
        Ok(OpenedUpload { id, parts })
    }

    /// Starts to take a part.
    pub async fn upload_part(&self, upload: &str, number: u32, token: &str) -> Result<PartUpload> {
        self.url_signer()
            .await?
            .check(token, &["part", upload, &number.to_string()])?;
        let shelf = self.store().shelf();
        if shelf.find(upload).await?.is_none() {
            return Err(no_upload(upload));
        }
        Ok(PartUpload {
            tracking: self.clone(),
            upload: upload.to_owned(),
            number,
            incoming: shelf.incoming().await?,
        })
    }

    /// Puts the parts together, in order, and makes the file visible. Each is named by its number and its `ETag`.
    pub async fn complete_upload(
        &self,
        caller: &Caller,
        folder: &str,
        file: &str,
        id: &str,
        parts: &[(i64, String)],
    ) -> Result<()> {
        let place = self.proxy_place(caller, &target(folder, file)?)?;
        if let Some((bucket, path)) = self.by_bucket_urls(&place) {
            let etags = in_order(parts)?;
            return Ok(bucket.complete_for_client(self.store(), path, id, etags).await?);
        }
        let shelf = self.store().shelf();
        let what = shelf.find(id).await?.filter(|what| what.target == words(&place));
        let what = what.ok_or_else(|| no_upload(id))?;
        let arrived = shelf.parts(id).await?;
        check_parts(what.parts, &arrived, parts)?;
        let mut whole = self.start_upload(place).await?;
        for (number, digest) in arrived.range(1..=what.parts) {
            // Completed twice at the same time, and the other was quicker.
            let part = shelf.part(id, *number, *digest).await?;
            let mut bytes = part.ok_or_else(|| no_upload(id))?;
            while let Some(piece) = bytes.next().await? {
                whole.write(piece).await?;
            }
        }
        whole.finish().await?;
        Ok(shelf.remove(id).await?)
    }

    /// Gives an upload up; one that is not there is fine.
    pub async fn abort_upload(&self, caller: &Caller, folder: &str, file: &str, id: &str) -> Result<()> {
        let place = self.proxy_place(caller, &target(folder, file)?)?;
        if let Some((bucket, path)) = self.by_bucket_urls(&place) {
            return Ok(bucket.abort_for_client(self.store(), path, id).await?);
        }
        let shelf = self.store().shelf();
        if shelf
            .find(id)
            .await?
            .is_some_and(|what| what.target == words(&place))
        {
            shelf.remove(id).await?;
        }
        Ok(())
    }

    /// What signs URLs: the same secret for as long as the data lives, so that a URL outlives a restart.
    async fn url_signer(&self) -> Result<Signer<'_>> {
        // Ids are random in their last 74 bits.
        let fresh = || {
            (0..4)
                .map(|n| ids::fresh(Timestamp::from_micros(n)))
                .collect::<String>()
        };
        let secret = self.uploads().secret.get_or_try_init(async || {
            if let Some(known) = self.store().read(|tx| meta::get(tx, SECRET)).await? {
                return Ok(known);
            }
            let fresh = fresh();
            let stored = self.store().write(move |tx| {
                if let Some(known) = meta::get(tx, SECRET)? {
                    return Ok(known);
                }
                meta::set(tx, SECRET, &fresh)?;
                Ok(fresh)
            });
            stored.await
        });
        Ok(Signer(secret.await?))
    }

    /// Takes away parts of uploads that were opened too long ago; says how many uploads are open.
    pub(super) async fn tidy_uploads(&self) -> Result<usize> {
        Ok(self.store().shelf().tidy(self.now_ms() - LIFETIME_MS).await?)
    }

    /// The bucket and the path of a place that clients reach by the bucket's own URLs.
    fn by_bucket_urls<'a>(&self, place: &'a Place) -> Option<(&'a Bucket, &'a str)> {
        match place {
            Place::Bucket(bucket, path) if self.options().bucket_urls => Some((bucket, path)),
            _ => None,
        }
    }

    /// A URL that lets whoever has it fetch a file of the proxy.
    pub async fn sign_download(&self, caller: &Caller, path: &str) -> Result<SignedDownload> {
        let path = safe_name(path)?;
        let place = self.proxy_place(caller, &path)?;
        if let Some((bucket, key)) = self.by_bucket_urls(&place) {
            let lasts = Duration::from_millis(URL_LIFETIME_MS.unsigned_abs());
            let (size, url) = self.bucket_download(bucket, key, lasts).await?;
            return Ok(SignedDownload::Bucket { size, url });
        }
        let artifact = self.artifact(caller, &path).await?;
        let until = (self.now_ms() + URL_LIFETIME_MS).to_string();
        let token = self
            .url_signer()
            .await?
            .token(&["get", &caller.workspace, &path, &until]);
        let query = format!("workspace={}&until={until}&token={token}", caller.workspace);
        Ok(SignedDownload::Here {
            size: artifact.bytes.size(),
            path,
            query,
        })
    }

    async fn bucket_download(&self, bucket: &Bucket, path: &str, lasts: Duration) -> Result<(u64, String)> {
        let size = bucket.size_of_file(path).await?;
        let size = size.ok_or_else(|| super::no_such(path))?;
        Ok((size, bucket.url_to_get(path, lasts).await?))
    }

    /// A URL of a bucket that lets whoever has it fetch a file below an artifact root, and the file's size.
    pub async fn url_to_get(
        &self,
        caller: &Caller,
        root: &str,
        path: &str,
        lasts_s: u64,
    ) -> Result<(String, u64)> {
        let (bucket, path) = self.direct_place(caller, root, path).await?;
        let (size, url) = self
            .bucket_download(&bucket, &path, Duration::from_secs(lasts_s))
            .await?;
        Ok((url, size))
    }

    /// A URL of a bucket that lets whoever has it store a file below an artifact root.
    pub async fn url_to_put(&self, caller: &Caller, root: &str, path: &str, lasts_s: u64) -> Result<String> {
        let (bucket, path) = self.direct_place(caller, root, path).await?;
        Ok(bucket.url_to_put(&path, Duration::from_secs(lasts_s)).await?)
    }

    async fn direct_place(&self, caller: &Caller, root: &str, path: &str) -> Result<(Bucket, String)> {
        if matches!(super::Root::of(root)?, super::Root::Proxy(_)) {
            return Err(TrackingError::invalid(
                "Presigned URLs are not supported for proxied artifact storage. This endpoint requires a direct cloud storage \
                 artifact URI.",
            ));
        }
        match self.place_of(caller, root, &safe_name(path)?).await? {
            Place::Bucket(bucket, path) if self.options().bucket_urls => Ok((bucket, path)),
            Place::Bucket(..) | Place::Object(_) | Place::File(..) => Err(TrackingError::NotImplemented(
                "Presigned URLs are not supported for the current artifact repository".to_owned(),
            )),
        }
    }

    /// Opens a file by a URL that was signed for it.
    pub async fn signed_artifact(
        &self,
        workspace: &str,
        path: &str,
        until: &str,
        token: &str,
    ) -> Result<Artifact> {
        let path = safe_name(path)?;
        let signer = self.url_signer().await?;
        signer.check(token, &["get", workspace, &path, until])?;
        if until.parse().is_ok_and(|until: i64| until < self.now_ms()) {
            return Err(expired());
        }
        let caller = Caller {
            user: String::new(),
            workspace: workspace.to_owned(),
        };
        self.artifact(&caller, &path).await
    }
}

/// The ETags of parts that are named from the first on.
fn in_order(parts: &[(i64, String)]) -> Result<Vec<String>> {
    let counted = (1..).zip(parts).all(|(at, (number, _))| at == *number);
    if parts.is_empty() || !counted {
        return Err(TrackingError::invalid(
            "name the upload's parts each once, in order",
        ));
    }
    let quoted = |etag: &str| format!("\"{}\"", etag.trim_matches('"'));
    Ok(parts.iter().map(|(_, etag)| quoted(etag)).collect())
}

fn check_parts(expected: u32, arrived: &BTreeMap<u32, Digest>, parts: &[(i64, String)]) -> Result<()> {
    let named: Vec<i64> = parts.iter().map(|(number, _)| *number).collect();
    let all: Vec<i64> = (1..=i64::from(expected)).collect();
    if named != all {
        return Err(TrackingError::invalid(format!(
            "the upload has {expected} parts: name each once, in order"
        )));
    }
    for (number, etag) in parts {
        let digest = u32::try_from(*number)
            .ok()
            .and_then(|number| arrived.get(&number));
        if digest.is_none_or(|digest| digest.to_string() != etag.trim_matches('"')) {
            return Err(TrackingError::invalid(format!(
                "part {number} did not arrive, or with another ETag: send it again"
            )));
        }
    }
    Ok(())
}

/// A place in words that say the same after a restart.
fn words(place: &Place) -> String {
    match place {
        Place::Object(path) => format!("object {path}"),
        Place::File(folder, path) => format!("file {folder:?} {path}"),
        Place::Bucket(bucket, path) => format!("bucket {} {path}", bucket.uri()),
    }
}
