//! The prediction log: a write-ahead log in segments.
//!
//! A batch is acknowledged once it is in the log ([`Durability`] says how safely); from then on it is found there, until its segment is
//! removed because it has become Parquet elsewhere. A sealed segment never changes and its name is never used again.

mod calls;
mod forcing;
mod index;
mod reading;
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
use std::time::Duration;

use tidemill_core::clock::Timestamp;
use tidemill_core::ids::EndpointName;
use tidemill_core::predictions::PredictionBatch;
use tokio::sync::{oneshot, watch};

use crate::error::ServeError;
use crate::metrics::{Counters, Metrics};
use crate::server::InferResponse;
use index::{Index, Slot};
pub use reading::SegmentReader;
pub use record::LogEntry;
pub(crate) use record::{CallDraft, RequestKey};
use record::{Kind, Note, NoteRef};
pub use segment::SegmentId;
use writer::{Append, Command, Keeper, Tail};

/// How safe a batch is once it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The kernel has it: it survives the end of the process at any instruction. A power cut may cost what came after the latest
    /// forcing to disk.
    Written {
        /// How often what was written is forced to disk.
        sync_every: Duration,
    },
    /// The disk has it: it survives a power cut too.
    Synced,
}

impl Default for Durability {
    fn default() -> Self {
        Self::Written {
            sync_every: Duration::from_millis(50),
        }
    }
}

/// How the log is kept.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A segment is sealed once it holds this much.
    pub segment_bytes: u64,
    /// How safe a batch is once it is acknowledged.
    pub durability: Durability,
    /// Test only: bytes that may still be written before the disk is full.
    #[cfg(test)]
    pub(crate) disk: Option<Arc<std::sync::atomic::AtomicU64>>,
    /// Test only: so many times the disk cannot be forced to keep something.
    #[cfg(test)]
    pub(crate) fsync_failures: Option<Arc<std::sync::atomic::AtomicU64>>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            durability: Durability::default(),
            #[cfg(test)]
            disk: None,
            #[cfg(test)]
            fsync_failures: None,
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
    /// Rows in all segments, calls of deployments among them.
    pub rows: usize,
    /// Calls of deployments in all segments.
    pub calls: usize,
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
    tail: Arc<Tail>,
    compacting: tokio::sync::Mutex<()>,
    waiting: calls::Waiting,
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
        let tail = Arc::new(Tail::new(segment, options, Arc::clone(&shared)));
        let keeper = Keeper::new(dir.to_path_buf(), Arc::clone(&tail));
        let writer = std::thread::Builder::new()
            .name("prediction-log".to_owned())
            .spawn(move || keeper.run(&queue))
            .map_err(|source| ServeError::log("start the writer of", dir, source))?;
        let inner = Inner {
            dir: dir.to_path_buf(),
            shared,
            tail,
            compacting: tokio::sync::Mutex::new(()),
            waiting: calls::Waiting::default(),
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
        if self.inner.tail.is_direct() {
            if self.inner.tail.append(&record, NoteRef::of(&batch), claim)? {
                self.send(Command::Rotate)?;
            }
            return Ok(());
        }
        let (done, acknowledged) = oneshot::channel();
        let append = Append {
            record,
            note: Note {
                endpoint: batch.endpoint,
                at: batch.at,
                ids: batch.ids,
                kind: Kind::Batch,
            },
            claim,
            done,
            _charge: None,
        };
        self.send(Command::Append(Box::new(append)))?;
        acknowledged.await.map_err(|_| ServeError::Closed)?
    }

    fn send(&self, command: Command) -> Result<(), ServeError> {
        let commands = self.inner.commands.as_ref().ok_or(ServeError::Closed)?;
        commands.send(command).map_err(|_| ServeError::Closed)
    }

    /// Waits for the right to answer a request, or for the answer that another one gives.
    ///
    /// # Errors
    /// If the earlier answer cannot be read.
    pub(crate) async fn claim(&self, key: RequestKey) -> Result<Claimed, ServeError> {
        loop {
            let (waiter, place) = {
                let mut index = self.inner.shared.write();
                match index.request(key) {
                    Some(Slot::InFlight(waiter)) => (Some(waiter.clone()), None),
                    Some(Slot::Live(place)) => (None, Some(*place)),
                    Some(Slot::Recent(response)) => {
                        return Ok(Claimed::Served(InferResponse::clone(response)));
                    }
                    None => {
                        let (held, waiter) = watch::channel(());
                        index.claim(key, waiter);
                        let shared = Arc::clone(&self.inner.shared);
                        return Ok(Claimed::Mine(Claim {
                            key,
                            shared,
                            _held: held,
                        }));
                    }
                }
            };
            if let Some(mut waiter) = waiter {
                // Nothing is ever sent: this ends when the claim is dropped.
                let _ = waiter.changed().await;
            }
            if let Some(place) = place {
                match self.read_place(place).await {
                    Ok(LogEntry::Batch(batch)) => return Ok(Claimed::Served(InferResponse::from(&*batch))),
                    Ok(LogEntry::Call(_)) => {
                        return Err(ServeError::Internal(
                            "a call stands where a named request was".to_owned(),
                        ));
                    }
                    // Removed meanwhile: the answer is remembered in memory by now.
                    Err(_) if !place.segment.path(&self.inner.dir).exists() => {}
                    Err(error) => return Err(error),
                }
            }
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

    /// A sealed segment, to be read in the order of writing. Blocking.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn reader(&self, segment: SegmentId) -> Result<SegmentReader, ServeError> {
        SegmentReader::open(&segment.path(&self.inner.dir))
    }

    /// Puts a damaged segment aside, under its name with `.damaged`, so that nothing waits for it any more. Returns where it is.
    ///
    /// # Errors
    /// If the file cannot be renamed.
    pub async fn set_aside(&self, segment: SegmentId) -> Result<PathBuf, ServeError> {
        let dir = self.inner.dir.clone();
        let kept = blocking(move || segment::set_aside(&dir, segment)).await?;
        self.inner.shared.write().remove(segment, Vec::new());
        Ok(kept)
    }

    /// Deletes a sealed segment whose batches are recorded elsewhere. Removing it again does nothing.
    ///
    /// # Errors
    /// If the segment is still open, or the file cannot be deleted.
    pub async fn remove(&self, segment: &SegmentId) -> Result<(), ServeError> {
        let id = *segment;
        let (open, has_requests) = {
            let index = self.inner.shared.read();
            (index.is_open(id), index.has_requests(id))
        };
        if open {
            return Err(ServeError::Internal(format!(
                "segment `{id}` of the prediction log is still open; seal it before removing it"
            )));
        }
        let dir = self.inner.dir.clone();
        let answers = blocking(move || {
            let path = id.path(&dir);
            if !has_requests || !path.exists() {
                return Ok(Vec::new());
            }
            let named = recovery::read_sealed(&path)?.into_iter();
            let answer = |found: recovery::Found| {
                let request = found.record.request?;
                let batch = found.record.entry.into_batch()?;
                Some((request, InferResponse::from(&batch)))
            };
            Ok(named.filter_map(answer).collect())
        })
        .await?;
        // Remembered before the file goes, so that a repeated request finds its answer in one place or the other.
        self.inner.shared.write().remove(id, answers);
        let dir = self.inner.dir.clone();
        blocking(move || segment::delete(&dir, id)).await
    }

    /// When the oldest batch of an endpoint that is not removed yet was served.
    pub fn oldest_of(&self, endpoint: &EndpointName) -> Option<Timestamp> {
        self.inner.shared.read().oldest_of(endpoint)
    }

    /// How much the log holds that is not removed yet.
    pub fn live_stats(&self) -> LiveStats {
        self.inner.shared.read().stats()
    }

    /// Held by whoever moves sealed segments elsewhere.
    pub async fn compacting(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.compacting.lock().await
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
