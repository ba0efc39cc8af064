//! A file on its way into a bucket: gathered into parts, a few of which are sent while more arrive, so that memory stays the same
//! up to 20 GiB and then grows with the parts, of which S3 takes ten thousand. Nothing is visible before the end; what is dropped half-way is ended in the bucket, too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};
use tokio::task::JoinSet;

use super::ledger::{Ledger, Note};
use super::{Bucket, Inner};
use crate::error::StoreError;

/// The size of the first parts; S3 takes none under 5 MiB but the last.
const PART: usize = 8 << 20;
/// After so many parts each is eight times as large, so that ten thousand, which is all that S3 takes, are more than its largest
/// object.
const GROW_EVERY: usize = 2_500;
/// So many parts are on their way at once.
const AT_ONCE: usize = 3;
/// How long one part may take.
pub(super) const PART_TIME: Duration = Duration::from_mins(10);

type Sent = Result<(usize, PartId), StoreError>;

/// A file on its way into a bucket.
#[derive(Debug)]
pub struct BucketUpload {
    bucket: Bucket,
    key: Path,
    ledger: Arc<Ledger>,
    gathered: Vec<Bytes>,
    gathered_size: usize,
    multipart: Option<Multipart>,
}

/// Once there is more than one part.
#[derive(Debug)]
struct Multipart {
    id: String,
    begun: usize,
    sending: JoinSet<Sent>,
    parts: BTreeMap<usize, PartId>,
}

pub(super) async fn in_time<T>(
    inner: &Inner,
    doing: &'static str,
    work: impl Future<Output = object_store::Result<T>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(PART_TIME, work).await {
        Ok(done) => done.map_err(|error| inner.trouble(&error, doing)),
        Err(_) => Err(inner.too_slow(doing)),
    }
}

impl BucketUpload {
    pub(super) fn start(bucket: Bucket, key: Path, ledger: Arc<Ledger>) -> Self {
        Self {
            bucket,
            key,
            ledger,
            gathered: Vec::new(),
            gathered_size: 0,
            multipart: None,
        }
    }

    /// Takes the next piece. Returns at once unless the bucket is slower than the sender.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), StoreError> {
        let mut piece = piece;
        loop {
            let begun = self.multipart.as_ref().map_or(0, |multipart| multipart.begun);
            let size = PART << (3 * (begun / GROW_EVERY));
            let room = size - self.gathered_size;
            if piece.len() < room {
                break;
            }
            // All parts of one size: some stores insist.
            let first = piece.split_to(room);
            self.gathered_size += first.len();
            self.gathered.push(first);
            self.send_part().await?;
        }
        if !piece.is_empty() {
            self.gathered_size += piece.len();
            self.gathered.push(piece);
        }
        Ok(())
    }

    /// Makes the file visible; durable on return.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        if self.multipart.is_none() {
            let payload = PutPayload::from_iter(std::mem::take(&mut self.gathered));
            let inner = &self.bucket.inner;
            return in_time(inner, "write", inner.patient.put(&self.key, payload))
                .await
                .map(|_| ());
        }
        if self.gathered_size > 0 {
            self.send_part().await?;
        }
        let inner = Arc::clone(&self.bucket.inner);
        let Some(multipart) = &mut self.multipart else {
            return Err(StoreError::Closed);
        };
        while let Some(sent) = multipart.sending.join_next().await {
            let (index, part) = joined(sent)?;
            multipart.parts.insert(index, part);
        }
        let parts = std::mem::take(&mut multipart.parts).into_values().collect();
        let completing = inner.patient.complete_multipart(&self.key, &multipart.id, parts);
        in_time(&inner, "write", completing).await?;
        if let Some(multipart) = self.multipart.take() {
            self.ledger.close(self.bucket.uri(), &multipart.id, true).await;
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        let inner = &self.bucket.inner;
        let id = in_time(inner, "write", inner.quick.create_multipart(&self.key)).await?;
        let note = Note {
            bucket: self.bucket.uri().to_owned(),
            key: self.key.to_string(),
            upload: id.clone(),
            by_client_ms: None,
        };
        // From here on dropping it ends it.
        self.multipart = Some(Multipart {
            id,
            begun: 0,
            sending: JoinSet::new(),
            parts: BTreeMap::new(),
        });
        self.ledger.open(note).await
    }

    async fn send_part(&mut self) -> Result<(), StoreError> {
        if self.multipart.is_none() {
            self.begin().await?;
        }
        let Some(multipart) = &mut self.multipart else {
            return Err(StoreError::Closed);
        };
        let inner = Arc::clone(&self.bucket.inner);
        let index = multipart.begun;
        multipart.begun += 1;
        let payload = PutPayload::from_iter(std::mem::take(&mut self.gathered));
        self.gathered_size = 0;
        let (key, id) = (self.key.clone(), multipart.id.clone());
        multipart.sending.spawn(async move {
            let part = in_time(&inner, "write", inner.patient.put_part(&key, &id, index, payload)).await?;
            Ok((index, part))
        });
        while multipart.sending.len() >= AT_ONCE {
            let Some(sent) = multipart.sending.join_next().await else {
                break;
            };
            let (index, part) = joined(sent)?;
            multipart.parts.insert(index, part);
        }
        Ok(())
    }
}

fn joined(sent: Result<Sent, tokio::task::JoinError>) -> Sent {
    sent.map_err(|error| StoreError::Panicked {
        message: error.to_string(),
    })?
}

impl Drop for BucketUpload {
    fn drop(&mut self) {
        let (Some(mut multipart), Ok(runtime)) =
            (self.multipart.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let (bucket, key, ledger) = (
            self.bucket.clone(),
            self.key.to_string(),
            Arc::clone(&self.ledger),
        );
        runtime.spawn(async move {
            // A part that arrives after the end would stay.
            multipart.sending.shutdown().await;
            let ended = bucket.end_upload(&key, &multipart.id).await;
            if let Err(error) = &ended {
                tracing::warn!(%error, key, "an upload that was given up could not be ended in its bucket; the next sweep tries again");
            }
            ledger.close(bucket.uri(), &multipart.id, ended.is_ok()).await;
        });
    }
}
