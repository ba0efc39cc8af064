//! The open segment and who writes to it.
//!
//! Where an answer may leave once it is in the kernel's hands ([`Durability::Written`]), the one who has it appends it: a write into the
//! page cache takes a microsecond or two, waking another thread takes more. What takes long (forcing to disk, starting a segment) is
//! done by the keeper's thread, beside the lock. Where an answer has to be on the disk itself ([`Durability::Synced`]), the keeper
//! writes what is queued in one go and forces it to disk once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use tidemill_core::clock::Stopwatch;
use tokio::sync::oneshot;

use super::forcing::Forcing;
use super::index::Place;
use super::record::{Kind, Note, NoteRef};
use super::segment::{Segment, SegmentId};
use super::{Claim, Durability, LogOptions, Shared};
use crate::error::ServeError;

/// A group is written once it holds this much, even if more is queued.
const GROUP_BYTES: usize = 4 << 20;
/// A write that takes longer than this, microseconds, says that the disk stalls: until one is quick again, nobody but the keeper waits for it.
const STALL_MICROS: u64 = 20_000;

/// So long one who does not wait tries to write by itself, microseconds.
const PATIENCE_MICROS: u64 = 1_000;

/// Bytes that wait to be written for callers who do not wait; given back when this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Charge {
    /// `None` if as much waits already as may.
    pub fn take(held: &Arc<AtomicUsize>, bytes: usize, most: usize) -> Option<Self> {
        let before = held.fetch_add(bytes, Ordering::AcqRel);
        let charge = Self {
            held: Arc::clone(held),
            bytes,
        };
        (before + bytes <= most).then_some(charge)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

pub(super) enum Command {
    Append(Box<Append>),
    Seal(oneshot::Sender<Result<Option<SegmentId>, ServeError>>),
    /// The open segment is full.
    Rotate,
}

pub(super) struct Append {
    pub record: Vec<u8>,
    pub note: Note,
    pub claim: Option<Claim>,
    pub done: oneshot::Sender<Result<(), ServeError>>,
    pub _charge: Option<Charge>,
}

/// The open segment, shared by all who append.
#[derive(Debug)]
pub(super) struct Tail {
    segment: Mutex<Segment>,
    options: LogOptions,
    shared: Arc<Shared>,
    /// Something was written that is not forced to disk yet.
    dirty: AtomicBool,
    /// A rotation is asked for and not done.
    rotating: AtomicBool,
    stalled: AtomicBool,
    /// What is acknowledged cannot be forced to disk: nothing more is taken until it can.
    failing: AtomicBool,
}

impl Tail {
    pub fn new(segment: Segment, options: LogOptions, shared: Arc<Shared>) -> Self {
        Self {
            segment: Mutex::new(segment),
            options,
            shared,
            dirty: AtomicBool::new(false),
            rotating: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Segment> {
        self.segment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether callers append by themselves.
    pub fn is_direct(&self) -> bool {
        matches!(self.options.durability, Durability::Written { .. }) && !self.is_stalled()
    }

    /// Whether the disk holds up whoever writes.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Appends one batch here and now. Returns whether the segment is full and has to be rotated.
    pub fn append(&self, record: &[u8], note: NoteRef<'_>, claim: Option<Claim>) -> Result<bool, ServeError> {
        let segment = self.lock();
        self.append_to(segment, record, note, claim)
    }

    /// The same for one who does not wait: `None` if others write and go on writing.
    pub fn try_append(&self, record: &[u8], note: NoteRef<'_>) -> Option<Result<bool, ServeError>> {
        let watch = Stopwatch::start();
        let segment = loop {
            match self.segment.try_lock() {
                Ok(segment) => break segment,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if watch.micros() > PATIENCE_MICROS => return None,
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        };
        Some(self.append_to(segment, record, note, None))
    }

    fn append_to(
        &self,
        mut segment: MutexGuard<'_, Segment>,
        record: &[u8],
        note: NoteRef<'_>,
        claim: Option<Claim>,
    ) -> Result<bool, ServeError> {
        let watch = Stopwatch::start();
        if let Err(error) = self.check(&segment) {
            drop(segment);
            self.count(note, record.len(), false);
            return Err(error);
        }
        let result = {
            let offset = segment.length();
            let result = segment.append(record);
            if result.is_ok() {
                let place = Place {
                    segment: segment.id,
                    offset,
                };
                let request = claim.as_ref().map(Claim::key);
                // Within the segment's lock, so that a rotation sees all or nothing of a batch.
                self.shared.write().insert(place, note, request);
            }
            let length = segment.length();
            drop(segment);
            result.map(|()| length)
        };
        drop(claim);
        // After an error the file is healed with a sync, for which no more callers than this one are to wait.
        if watch.micros() > STALL_MICROS || result.is_err() {
            self.stalled.store(true, Ordering::Relaxed);
        }
        self.count(note, record.len(), result.is_ok());
        let length = result?;
        self.dirty.store(true, Ordering::Release);
        let full = length >= self.options.segment_bytes;
        Ok(full && !self.rotating.swap(true, Ordering::AcqRel))
    }

    fn count(&self, note: NoteRef<'_>, bytes: usize, written: bool) {
        let counters = &self.shared.counters;
        let rows = note.ids.len() as u64;
        match (note.kind, written) {
            (Kind::Batch, false) => counters.dropped_rows.add(rows),
            (Kind::Call, false) => counters.dropped_calls.add(1),
            (Kind::Batch, true) => {
                counters.appended_batches.add(1);
                counters.appended_rows.add(rows);
            }
            (Kind::Call, true) => counters.appended_calls.add(1),
        }
        if written {
            counters.appended_bytes.add(bytes as u64);
        }
    }

    /// Refuses what comes while the disk does not keep what it was given.
    fn check(&self, segment: &Segment) -> Result<(), ServeError> {
        if !self.failing.load(Ordering::Acquire) {
            return Ok(());
        }
        let source = std::io::Error::other("it fails to keep what it was given; it is tried again");
        Err(segment.error("force to disk", source))
    }

    /// What the open segment holds that is not forced to disk, if it is anything.
    fn unsynced(&self) -> Option<Forcing> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return None;
        }
        let copy = self.lock().unforced();
        match copy {
            Ok(forcing) => Some(forcing),
            Err(error) => {
                self.dirty.store(true, Ordering::Release);
                tracing::warn!(%error, "the prediction log cannot be forced to disk yet");
                None
            }
        }
    }
}

/// The thread that does what takes long.
pub(super) struct Keeper {
    dir: PathBuf,
    tail: Arc<Tail>,
    buffer: Vec<u8>,
    /// Segments that nobody appends to any more and that could not be forced to disk yet.
    unsettled: Vec<Segment>,
    synced: Stopwatch,
}

impl Keeper {
    pub fn new(dir: PathBuf, tail: Arc<Tail>) -> Self {
        Self {
            dir,
            tail,
            buffer: Vec::new(),
            unsettled: Vec::new(),
            synced: Stopwatch::start(),
        }
    }

    /// Works until all senders are gone and the queue is empty.
    pub fn run(mut self, queue: &Receiver<Command>) {
        let mut group = Vec::new();
        let mut bytes = 0;
        loop {
            let first = match self.tail.options.durability {
                Durability::Written { sync_every } => match queue.recv_timeout(sync_every) {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) => {
                        self.sync();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                },
                Durability::Synced => match queue.recv() {
                    Ok(command) => command,
                    Err(_) => break,
                },
            };
            let mut next = Some(first);
            while let Some(command) = next.take() {
                match command {
                    Command::Append(append) => {
                        bytes += append.record.len();
                        group.push(*append);
                    }
                    Command::Seal(done) => {
                        self.write(&mut group);
                        bytes = 0;
                        // The caller may have gone away; then nobody wants to know.
                        let _ = done.send(self.seal());
                    }
                    Command::Rotate => {
                        self.write(&mut group);
                        bytes = 0;
                        self.rotate();
                    }
                }
                if bytes < GROUP_BYTES {
                    next = queue.try_recv().ok();
                }
            }
            self.write(&mut group);
            bytes = 0;
            if let Durability::Written { sync_every } = self.tail.options.durability
                && self.synced.elapsed() >= sync_every
            {
                self.sync();
            }
        }
        self.sync();
    }

    /// Forces to disk what callers have written, beside the lock: nobody waits for it.
    fn sync(&mut self) {
        self.synced = Stopwatch::start();
        self.settle();
        let unsettled = !self.unsettled.is_empty();
        let Some(forcing) = self.tail.unsynced() else {
            self.tail.failing.store(unsettled, Ordering::Release);
            return;
        };
        let forced = forcing.run(&self.tail.options);
        {
            let mut segment = self.tail.lock();
            if segment.id == forcing.id {
                segment.note_forced(forcing.until, forced.is_ok());
            }
        }
        let fails = forced.is_err() || unsettled;
        let failed_before = self.tail.failing.swap(fails, Ordering::AcqRel);
        match forced {
            Ok(bytes) if failed_before => {
                self.tail.shared.counters.rewritten_bytes.add(bytes);
                tracing::info!(dir = %self.dir.display(), bytes, "the prediction log was written again and is on disk");
            }
            Ok(_) => {}
            Err(error) => {
                self.tail.dirty.store(true, Ordering::Release);
                if !failed_before {
                    tracing::error!(
                        dir = %self.dir.display(), %error,
                        "the prediction log cannot be forced to disk: it takes nothing more until what it holds could be written again"
                    );
                }
            }
        }
        self.tail.shared.counters.fsyncs.add(1);
    }

    fn write(&mut self, group: &mut Vec<Append>) {
        if group.is_empty() {
            return;
        }
        self.buffer.clear();
        for append in group.iter() {
            self.buffer.extend_from_slice(&append.record);
        }
        let synced = matches!(self.tail.options.durability, Durability::Synced);
        let watch = Stopwatch::start();
        let result = {
            let mut segment = self.tail.lock();
            let mut offset = segment.length();
            let result = self
                .tail
                .check(&segment)
                .and_then(|()| segment.append(&self.buffer))
                .and_then(|()| if synced { segment.sync(offset) } else { Ok(()) });
            if result.is_ok() {
                let mut index = self.tail.shared.write();
                for append in group.iter() {
                    let place = Place {
                        segment: segment.id,
                        offset,
                    };
                    index.insert(place, append.note.lent(), append.claim.as_ref().map(Claim::key));
                    offset += append.record.len() as u64;
                }
            }
            result.map(|()| segment.length())
        };
        for append in group.iter() {
            self.tail
                .count(append.note.lent(), append.record.len(), result.is_ok());
        }
        self.tail
            .shared
            .counters
            .fsyncs
            .add(u64::from(synced && result.is_ok()));
        if !synced && result.is_ok() {
            self.tail.dirty.store(true, Ordering::Release);
            if watch.micros() < STALL_MICROS {
                self.tail.stalled.store(false, Ordering::Relaxed);
            }
        }
        for append in group.drain(..) {
            // Wakes those who wait for the same request, who now find the answer (or try themselves).
            drop(append.claim);
            let _ = append.done.send(result.clone().map(|_| ()));
        }
        if result.is_ok_and(|length| length >= self.tail.options.segment_bytes) {
            self.rotate();
        }
        if self.buffer.capacity() > 2 * GROUP_BYTES {
            self.buffer = Vec::new();
        }
    }

    fn rotate(&mut self) {
        if let Err(error) = self.seal() {
            tracing::warn!(%error, "the prediction log could not start a new segment; the open one grows");
        }
        self.tail.rotating.store(false, Ordering::Release);
    }

    /// The next segment is made before the old one can be removed, so the folder always remembers the largest number. The old one
    /// counts as sealed once it is on disk as a whole; meanwhile appends go to the new one.
    fn seal(&mut self) -> Result<Option<SegmentId>, ServeError> {
        let id = {
            let segment = self.tail.lock();
            if segment.length() == 0 {
                return Ok(None);
            }
            segment.id
        };
        let fresh = Segment::create(&self.dir, SegmentId(id.0 + 1), &self.tail.options)?;
        let old = {
            let mut segment = self.tail.lock();
            let old = std::mem::replace(&mut *segment, fresh);
            self.tail.shared.write().open(segment.id);
            old
        };
        self.unsettled.push(old);
        self.settle();
        if self.unsettled.iter().any(|segment| segment.id == id) {
            return Err(ServeError::Internal(format!(
                "segment `{id}` of the prediction log could not be forced to disk yet; it is tried again"
            )));
        }
        Ok(Some(id))
    }

    /// Forces segments that were left to disk; those for which it fails are tried again at the next turn.
    fn settle(&mut self) {
        let mut left = std::mem::take(&mut self.unsettled);
        left.retain_mut(|segment| match segment.finish() {
            Ok(()) => {
                self.tail.shared.write().settled(segment.id);
                false
            }
            Err(error) => {
                tracing::warn!(%error, "a segment of the prediction log could not be forced to disk yet");
                true
            }
        });
        self.unsettled = left;
    }
}
