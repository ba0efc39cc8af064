//! The thread that owns the open segment: takes what is queued, writes it in one go, forces it to disk once, answers all.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tidemill_core::predictions::PredictionBatch;
use tokio::sync::oneshot;

use super::segment::{Segment, SegmentId};
use super::{Claim, LogOptions, Shared};
use crate::error::ServeError;

/// A group is written once it holds this much, even if more is queued.
const GROUP_BYTES: usize = 4 << 20;

pub(super) enum Command {
    Append(Append),
    Seal(oneshot::Sender<Result<Option<SegmentId>, ServeError>>),
}

pub(super) struct Append {
    pub record: Vec<u8>,
    pub batch: Arc<PredictionBatch>,
    pub claim: Option<Claim>,
    pub done: oneshot::Sender<Result<(), ServeError>>,
}

pub(super) struct Writer {
    dir: PathBuf,
    options: LogOptions,
    segment: Segment,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
}

impl Writer {
    pub fn new(dir: PathBuf, options: LogOptions, segment: Segment, shared: Arc<Shared>) -> Self {
        Self {
            dir,
            options,
            segment,
            shared,
            buffer: Vec::new(),
        }
    }

    /// Works until all senders are gone and the queue is empty.
    pub fn run(mut self, queue: &Receiver<Command>) {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Ok(first) = queue.recv() {
            let mut next = Some(first);
            while let Some(command) = next.take() {
                match command {
                    Command::Append(append) => {
                        bytes += append.record.len();
                        group.push(append);
                    }
                    Command::Seal(done) => {
                        self.write(&mut group);
                        bytes = 0;
                        // The caller may have gone away; then nobody wants to know.
                        let _ = done.send(self.seal());
                    }
                }
                if bytes < GROUP_BYTES {
                    next = queue.try_recv().ok();
                }
            }
            self.write(&mut group);
            bytes = 0;
        }
    }

    fn write(&mut self, group: &mut Vec<Append>) {
        if group.is_empty() {
            return;
        }
        self.buffer.clear();
        for append in group.iter() {
            self.buffer.extend_from_slice(&append.record);
        }
        let result = self.segment.append(&self.buffer);
        self.count(group, result.is_ok());
        if result.is_ok() {
            let mut index = self.shared.write();
            for append in group.iter() {
                let request = append.claim.as_ref().map(Claim::key);
                index.insert(self.segment.id, Arc::clone(&append.batch), request);
            }
        }
        for append in group.drain(..) {
            // Wakes those who wait for the same request, who now find the answer (or try themselves).
            drop(append.claim);
            let _ = append.done.send(result.clone());
        }
        if self.segment.length() >= self.options.segment_bytes
            && let Err(error) = self.seal()
        {
            tracing::warn!(%error, "the prediction log could not start a new segment; the open one grows");
        }
        if self.buffer.capacity() > 2 * GROUP_BYTES {
            self.buffer = Vec::new();
        }
    }

    fn count(&self, group: &[Append], written: bool) {
        let counters = &self.shared.counters;
        let rows: usize = group.iter().map(|append| append.batch.rows()).sum();
        if !written {
            counters.dropped_rows.add(rows as u64);
            return;
        }
        counters.appended_batches.add(group.len() as u64);
        counters.appended_rows.add(rows as u64);
        counters.appended_bytes.add(self.buffer.len() as u64);
        counters.fsyncs.add(u64::from(self.options.fsync));
    }

    /// The next segment is made before the old one can be removed, so the folder always remembers the largest number.
    fn seal(&mut self) -> Result<Option<SegmentId>, ServeError> {
        if self.segment.length() == 0 {
            return Ok(None);
        }
        self.segment.finish()?;
        let sealed = self.segment.id;
        self.segment = Segment::create(&self.dir, SegmentId(sealed.0 + 1), &self.options)?;
        self.shared.write().open(self.segment.id);
        Ok(Some(sealed))
    }
}
