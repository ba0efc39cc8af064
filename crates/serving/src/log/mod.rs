//! The prediction log: a write-ahead log in segments, written by one thread with group commit.
//!
//! A batch is acknowledged once it is on disk; from then on it is found in memory too, until its segment is removed because it
//! has become Parquet elsewhere. A sealed segment never changes and its name is never used again.

mod index;
mod record;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};
use std::thread::JoinHandle;

use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, PredictionId};
use tidemill_core::predictions::PredictionBatch;
use tokio::sync::{oneshot, watch};

use crate::error::ServeError;
use crate::metrics::{Counters, Metrics};
use crate::server::InferResponse;
use index::{Index, Slot};
pub(crate) use record::RequestKey;
pub use segment::SegmentId;
use writer::{Append, Command, Writer};

/// How the log is kept.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A segment is sealed once it holds this much.
    pub segment_bytes: u64,
    /// Force each group of batches to disk before they are acknowledged. Off only where losing the latest answers in a power cut
    /// is accepted: a killed process loses nothing either way.
    pub fsync: bool,
    /// Test only: bytes that may still be written before the disk is full.
    #[cfg(test)]
    pub(crate) disk: Option<Arc<std::sync::atomic::AtomicU64>>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            fsync: true,
            #[cfg(test)]
            disk: None,
        }
    }
}

/// What was found when the log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Segments with batches in them.
    pub segments: usize,
    /// Batches in them.
    pub batches: usize,
    /// Bytes cut off the end of the last segment: a batch that was being written when the process died, never acknowledged.
    pub truncated_bytes: u64,
}

/// How much the log holds that is not removed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LiveStats {
    /// Segments, the open one included if it holds a batch.
    pub segments: usize,
    /// Batches in all segments.
    pub batches: usize,
    /// Rows in all segments.
    pub rows: usize,
    /// Batches in the open segment.
    pub open_batches: usize,
    /// The time of the oldest batch.
    pub oldest: Option<Timestamp>,
}

/// What the writer and the callers share.
#[derive(Debug, Default)]
struct Shared {
    index: RwLock<Index>,
    counters: Arc<Counters>,
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    shared: Arc<Shared>,
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
    lock: File,
}

impl Drop for Inner {
    /// Lets the writer finish what is queued.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(dir = %self.dir.display(), "the prediction log's writer panicked");
        }
        // Closing the file alone would not do while a child process that is just being started holds a copy of it.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(dir = %self.dir.display(), %error, "the prediction log's lock could not be released");
        }
    }
}

/// The prediction log. Cheap to clone; the last clone to be dropped closes it.
#[derive(Debug, Clone)]
pub struct PredictionLog {
    inner: Arc<Inner>,
}

/// The answer to [`PredictionLog::claim`].
pub(crate) enum Claimed {
    /// The request is new: whoever holds the claim answers it.
    Mine(Claim),
    /// It was answered before.
    Served(InferResponse),
}

/// The right to answer a request. It travels with the batch to the writer, so that a caller who goes away half-way frees it neither
/// too early nor never. Dropped without an answer, the next one who waits gets it.
#[derive(Debug)]
pub(crate) struct Claim {
    key: RequestKey,
    shared: Arc<Shared>,
    _held: watch::Sender<()>,
}

impl Claim {
    pub fn key(&self) -> RequestKey {
        self.key
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.write().release(self.key);
    }
}

impl PredictionLog {
    /// Opens the log in `dir`, which is made if need be, and reads what it holds. One process at a time. Blocking.
    ///
    /// # Errors
    /// If the folder cannot be used or is in use, or a record that was once whole is damaged.
    pub fn open(dir: &Path, options: LogOptions) -> Result<(Self, Recovery), ServeError> {
        let lock = recovery::lock(dir)?;
        let shared = Arc::new(Shared::default());
        let (segment, found) = recovery::recover(dir, &options, &mut shared.write())?;
        if found.truncated_bytes > 0 {
            let bytes = found.truncated_bytes;
            tracing::warn!(dir = %dir.display(), bytes, "cut an unfinished batch off the prediction log");
        }
        let (commands, queue) = mpsc::channel();
        let writer = Writer::new(dir.to_path_buf(), options, segment, Arc::clone(&shared));
        let writer = std::thread::Builder::new()
            .name("prediction-log".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|source| ServeError::log("start the writer of", dir, source))?;
        let inner = Inner {
            dir: dir.to_path_buf(),
            shared,
            commands: Some(commands),
            writer: Some(writer),
            lock,
        };
        let inner = Arc::new(inner);
        Ok((Self { inner }, found))
    }

    /// Records a batch; once this returns, it survives kill -9. Dropping the future does not take the batch back.
    ///
    /// # Errors
    /// [`ServeError::LogFull`] if the disk is full, [`ServeError::Log`] if writing failed: the batch is not recorded then.
    pub async fn append(&self, batch: PredictionBatch) -> Result<(), ServeError> {
        self.append_claimed(batch, None).await
    }

    pub(crate) async fn append_claimed(
        &self,
        batch: PredictionBatch,
        claim: Option<Claim>,
    ) -> Result<(), ServeError> {
        let record = record::encode(claim.as_ref().map(Claim::key), &batch)?;
        let (done, acknowledged) = oneshot::channel();
        self.send(Command::Append(Append {
            record,
            batch: Arc::new(batch),
            claim,
            done,
        }))?;
        acknowledged.await.map_err(|_| ServeError::Closed)?
    }

    fn send(&self, command: Command) -> Result<(), ServeError> {
        let commands = self.inner.commands.as_ref().ok_or(ServeError::Closed)?;
        commands.send(command).map_err(|_| ServeError::Closed)
    }

    /// Waits for the right to answer a request, or for the answer that another one gives.
    pub(crate) async fn claim(&self, key: RequestKey) -> Claimed {
        loop {
            let mut waiter = {
                let mut index = self.inner.shared.write();
                match index.request(key) {
                    Some(Slot::InFlight(waiter)) => waiter.clone(),
                    Some(Slot::Live(batch)) => return Claimed::Served(InferResponse::from(&**batch)),
                    Some(Slot::Recent(response)) => return Claimed::Served(InferResponse::clone(response)),
                    None => {
                        let (held, waiter) = watch::channel(());
                        index.claim(key, waiter);
                        let shared = Arc::clone(&self.inner.shared);
                        return Claimed::Mine(Claim {
                            key,
                            shared,
                            _held: held,
                        });
                    }
                }
            };
            // Nothing is ever sent: this ends when the claim is dropped.
            let _ = waiter.changed().await;
        }
    }

    /// Closes the open segment, if it holds a batch, and starts a new one. Returns the segment that was closed.
    ///
    /// # Errors
    /// If the segment cannot be forced to disk or the next one not be made; the open segment stays open then.
    pub async fn seal(&self) -> Result<Option<SegmentId>, ServeError> {
        let (done, sealed) = oneshot::channel();
        self.send(Command::Seal(done))?;
        sealed.await.map_err(|_| ServeError::Closed)?
    }

    /// The sealed segments that are not removed yet, oldest first.
    pub fn sealed(&self) -> Vec<SegmentId> {
        self.inner.shared.read().sealed()
    }

    /// Reads a sealed segment from disk, in the order of writing.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub async fn read(&self, segment: &SegmentId) -> Result<Vec<PredictionBatch>, ServeError> {
        let path = segment.path(&self.inner.dir);
        blocking(move || {
            let records = recovery::read_sealed(&path)?;
            Ok(records.into_iter().map(|record| record.batch).collect())
        })
        .await
    }

    /// Deletes a sealed segment whose batches are recorded elsewhere. Removing it again does nothing.
    ///
    /// # Errors
    /// If the segment is still open, or the file cannot be deleted.
    pub async fn remove(&self, segment: &SegmentId) -> Result<(), ServeError> {
        let id = *segment;
        if self.inner.shared.read().is_open(id) {
            return Err(ServeError::Internal(format!(
                "segment `{id}` of the prediction log is still open; seal it before removing it"
            )));
        }
        let dir = self.inner.dir.clone();
        blocking(move || segment::delete(&dir, id)).await?;
        self.inner.shared.write().remove(id);
        Ok(())
    }

    /// The batches of an endpoint served in `[from, until)` that are not removed yet, in the order of writing.
    pub fn live_batches(
        &self,
        endpoint: &EndpointName,
        from: Timestamp,
        until: Timestamp,
    ) -> Vec<Arc<PredictionBatch>> {
        let index = self.inner.shared.read();
        let wanted = |batch: &&Arc<PredictionBatch>| {
            batch.at >= from && batch.at < until && batch.endpoint == *endpoint
        };
        index.batches().filter(wanted).cloned().collect()
    }

    /// Whether a prediction is in a batch that is not removed yet.
    pub fn contains(&self, prediction: &PredictionId) -> bool {
        self.find(prediction).is_some()
    }

    /// The batch and row of a prediction, if the batch is not removed yet.
    pub fn find(&self, prediction: &PredictionId) -> Option<(Arc<PredictionBatch>, usize)> {
        self.inner.shared.read().find(prediction)
    }

    /// How much the log holds that is not removed yet.
    pub fn live_stats(&self) -> LiveStats {
        self.inner.shared.read().stats()
    }

    /// The log's folder.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// What has been counted so far, by the log and by the server on top of it.
    pub fn metrics(&self) -> Metrics {
        self.inner.shared.counters.snapshot()
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.inner.shared.counters
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServeError> + Send + 'static,
) -> Result<T, ServeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ServeError::Internal(format!("a blocking thread failed: {error}")))?
}
