//! What is counted of each version, as Triton's statistics extension tells it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tidemill_core::ids::{EndpointName, VersionNumber};

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
    /// Calls that failed in the model.
    pub fail: DurationStatistics,
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
}

/// How long the parts of a batch took, nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchTimes {
    pub rows: u64,
    pub input: u64,
    pub infer: u64,
    pub output: u64,
}

impl BatchTimes {
    /// Of rows that went to the model as they came.
    pub fn of_model(rows: usize, infer: u64) -> Self {
        Self {
            rows: rows as u64,
            input: 0,
            infer,
            output: 0,
        }
    }
}

impl Counts {
    /// One batch for `calls` calls.
    pub fn executed(&self, times: BatchTimes, calls: u64) {
        self.executions.fetch_add(1, Ordering::Relaxed);
        self.inferences.fetch_add(times.rows, Ordering::Relaxed);
        for _ in 0..calls {
            self.input.add(times.input);
            self.infer.add(times.infer);
            self.output.add(times.output);
        }
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
        VersionStatistics {
            name: name.clone(),
            version,
            last_inference: get(&self.last_inference),
            inference_count: get(&self.inferences),
            execution_count: get(&self.executions),
            success: self.success.get(),
            fail: self.fail.get(),
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
        }
    }
}
