//! What is counted of each version, as Triton's statistics extension tells it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tidemill_core::clock::Stopwatch;
use tidemill_core::ids::{EndpointName, VersionNumber};

use crate::error::ServeError;

/// Of answers in pieces, so many pieces are told apart by their place.
const PLACES: usize = 1_000;

/// How often something happened, and how long it took in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DurationStatistics {
    /// How often.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

/// What batches of one size took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct BatchStatistics {
    /// Rows a batch.
    pub batch_size: u64,
    /// From the queue to the model.
    pub compute_input: DurationStatistics,
    /// In the model.
    pub compute_infer: DurationStatistics,
    /// From the model to the answers.
    pub compute_output: DurationStatistics,
}

/// What the pieces of answers took that came at one place: first, second and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ResponseStatistics {
    /// In the model, since the piece before.
    pub compute_infer: DurationStatistics,
    /// From the model to the piece.
    pub compute_output: DurationStatistics,
    /// Pieces that came.
    pub success: DurationStatistics,
    /// Failures instead of a piece.
    pub fail: DurationStatistics,
    /// Ends without a further piece.
    pub empty_response: DurationStatistics,
    /// Callers who went away before the piece.
    pub cancel: DurationStatistics,
}

/// How waiting for a piece of an answer ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Piece {
    Came,
    Failed,
    /// The answer was over.
    Over,
    /// The caller went away.
    Cancelled,
}

/// What has been counted of a version since the process started.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionStatistics {
    /// The endpoint.
    pub name: EndpointName,
    /// The version.
    pub version: VersionNumber,
    /// When it last answered, milliseconds since 1970; 0 if never.
    pub last_inference: u64,
    /// Rows answered.
    pub inference_count: u64,
    /// Batches given to the model.
    pub execution_count: u64,
    /// Calls answered, from arrival to answer.
    pub success: DurationStatistics,
    /// Calls that were not answered, whatever the reason: refused, late, given up by their caller, failed in the model or on the way to it.
    /// A call that was wrong in itself is none of them.
    pub fail: DurationStatistics,
    /// Calls that failed in the model.
    pub failed_by_model: u64,
    /// Calls refused before the model: queue full, rate limit, deadline.
    pub rejected: u64,
    /// Calls whose caller went away.
    pub cancelled: u64,
    /// Waiting.
    pub queue: DurationStatistics,
    /// From the queue to the model.
    pub compute_input: DurationStatistics,
    /// In the model.
    pub compute_infer: DurationStatistics,
    /// From the model to the answers.
    pub compute_output: DurationStatistics,
    /// Calls answered from memory.
    pub cache_hit: DurationStatistics,
    /// Calls that were looked for in memory and not found.
    pub cache_miss: DurationStatistics,
    /// Calls waiting now.
    pub pending: u64,
    /// Seconds that the latest load took.
    pub load_seconds: f64,
    /// By the size of batches.
    pub batches: Vec<BatchStatistics>,
    /// Of answers in pieces, by the place of the piece; none of other models.
    pub responses: Vec<ResponseStatistics>,
}

#[derive(Debug, Default)]
pub(crate) struct Timed {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Timed {
    pub fn add(&self, ns: u64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub fn get(&self) -> DurationStatistics {
        DurationStatistics {
            count: self.count.load(Ordering::Relaxed),
            ns: self.ns.load(Ordering::Relaxed),
        }
    }
}

/// The live counters of a version.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub last_inference: AtomicU64,
    pub inferences: AtomicU64,
    pub executions: AtomicU64,
    pub success: Timed,
    pub fail: Timed,
    by_model: AtomicU64,
    pub rejected: AtomicU64,
    pub cancelled: AtomicU64,
    pub queue: Timed,
    pub input: Timed,
    pub infer: Timed,
    pub output: Timed,
    pub cache_hit: Timed,
    pub cache_miss: Timed,
    pub pending: AtomicU64,
    pub load_micros: AtomicU64,
    batches: Mutex<BTreeMap<u64, BatchStatistics>>,
    responses: Mutex<Vec<ResponseStatistics>>,
}

/// How long the parts of a batch took, nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchTimes {
    pub rows: u64,
    pub input: u64,
    pub infer: u64,
    pub output: u64,
}

impl Counts {
    /// One batch that the model has answered.
    pub fn executed(&self, times: BatchTimes) {
        self.executions.fetch_add(1, Ordering::Relaxed);
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = batches.entry(times.rows).or_default();
        batch.batch_size = times.rows;
        let parts = [
            (&mut batch.compute_input, times.input),
            (&mut batch.compute_infer, times.infer),
            (&mut batch.compute_output, times.output),
        ];
        for (part, ns) in parts {
            part.count += 1;
            part.ns += ns;
        }
    }

    /// One call of an answered batch: its rows, and how long it waited before.
    pub fn inferred(&self, rows: usize, queue: u64, times: BatchTimes) {
        self.inferences.fetch_add(rows as u64, Ordering::Relaxed);
        self.queue.add(queue);
        self.input.add(times.input);
        self.infer.add(times.infer);
        self.output.add(times.output);
    }

    /// A batch of one call, given to the model as it came.
    pub fn answered_alone(&self, rows: usize, queue: u64, infer: u64) {
        let times = BatchTimes {
            rows: rows as u64,
            input: 0,
            infer,
            output: 0,
        };
        self.executed(times);
        self.inferred(rows, queue, times);
    }

    /// A call that was not answered. What was wrong in itself says nothing about the version.
    pub fn failed(&self, error: &ServeError, ns: u64) {
        match error {
            ServeError::Overloaded { .. } | ServeError::DeadlinePassed { .. } => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
            }
            ServeError::Model { .. } => {
                self.by_model.fetch_add(1, Ordering::Relaxed);
            }
            ServeError::Payload { .. }
            | ServeError::UnknownEndpoint { .. }
            | ServeError::UnknownVersion { .. } => return,
            _ => {}
        }
        self.fail.add(ns);
    }

    /// A piece of an answer that came, or not, at its place.
    pub fn piece(&self, place: usize, piece: Piece, ns: u64) {
        if place >= PLACES {
            return;
        }
        let mut responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        if responses.len() <= place {
            responses.resize(place + 1, ResponseStatistics::default());
        }
        let Some(at) = responses.get_mut(place) else {
            return;
        };
        let add = |part: &mut DurationStatistics, ns: u64| {
            part.count += 1;
            part.ns += ns;
        };
        match piece {
            Piece::Came | Piece::Failed => {
                add(&mut at.compute_infer, ns);
                add(&mut at.compute_output, 0);
                let ended = match piece {
                    Piece::Came => &mut at.success,
                    _ => &mut at.fail,
                };
                add(ended, ns);
            }
            Piece::Over => add(&mut at.empty_response, ns),
            // Nothing is left to clean up, which is what this time would be.
            Piece::Cancelled => add(&mut at.cancel, 0),
        }
    }

    /// One request that was answered by itself, with no batch gathered before it. Takes no lock.
    pub fn answered(&self, times: BatchTimes, total: u64) {
        self.executions.fetch_add(1, Ordering::Relaxed);
        self.inferences.fetch_add(times.rows, Ordering::Relaxed);
        self.input.add(times.input);
        self.infer.add(times.infer);
        self.output.add(times.output);
        self.queue.add(0);
        self.success.add(total);
    }

    pub fn snapshot(&self, name: &EndpointName, version: VersionNumber) -> VersionStatistics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        VersionStatistics {
            name: name.clone(),
            version,
            last_inference: get(&self.last_inference),
            inference_count: get(&self.inferences),
            execution_count: get(&self.executions),
            success: self.success.get(),
            fail: self.fail.get(),
            failed_by_model: get(&self.by_model),
            rejected: get(&self.rejected),
            cancelled: get(&self.cancelled),
            queue: self.queue.get(),
            compute_input: self.input.get(),
            compute_infer: self.infer.get(),
            compute_output: self.output.get(),
            cache_hit: self.cache_hit.get(),
            cache_miss: self.cache_miss.get(),
            pending: get(&self.pending),
            load_seconds: get(&self.load_micros) as f64 / 1e6,
            batches: batches.values().copied().collect(),
            responses: responses.clone(),
        }
    }
}

/// A call of a version, which is counted when it ends; one that is dropped before was given up by its caller.
#[derive(Debug)]
pub(super) struct Counted {
    counts: Arc<Counts>,
    received: Stopwatch,
    ended: bool,
}

impl Counted {
    pub fn new(counts: &Arc<Counts>, received: Stopwatch) -> Self {
        Self {
            counts: Arc::clone(counts),
            received,
            ended: false,
        }
    }

    /// Ends it if this is an error.
    pub fn watch<T>(&mut self, result: Result<T, ServeError>) -> Result<T, ServeError> {
        if let Err(error) = &result {
            self.failed(error);
        }
        result
    }

    pub fn failed(&mut self, error: &ServeError) {
        if !std::mem::replace(&mut self.ended, true) {
            self.counts.failed(error, self.received.nanos());
        }
    }

    /// It was answered, so many milliseconds after 1970.
    pub fn answered(&mut self, at: u64) {
        if !std::mem::replace(&mut self.ended, true) {
            self.counts.success.add(self.received.nanos());
            self.counts.last_inference.store(at, Ordering::Relaxed);
        }
    }

    /// It is counted elsewhere.
    pub fn passed_on(mut self) {
        self.ended = true;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.ended {
            self.counts.cancelled.fetch_add(1, Ordering::Relaxed);
            self.counts.fail.add(self.received.nanos());
        }
    }
}
