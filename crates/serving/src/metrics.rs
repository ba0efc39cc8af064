//! Counters and a latency histogram: atomics that are written on the hot path and read as one snapshot.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// The first bucket ends at 2^5 = 32 µs, the last finite one at 2^24 µs = 16.8 s.
const FIRST_EXPONENT: u32 = 5;
const BUCKETS: usize = 21;

/// A snapshot of everything that serving counts, since the process started.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Metrics {
    /// Requests answered, repeats included.
    pub requests: u64,
    /// Requests answered from an earlier answer to the same request.
    pub repeats: u64,
    /// Requests refused or failed.
    pub errors: u64,
    /// Rows that the canary failed to answer.
    pub canary_failed_rows: u64,
    /// Rows that the champion failed to answer.
    pub champion_failed_rows: u64,
    /// Rows that the previous champion failed to answer.
    pub previous_failed_rows: u64,
    /// Rows answered by the endpoint's default.
    pub default_rows: u64,
    /// Rows answered by a version that the fallback chain names.
    pub fallback_rows: u64,
    /// Rows answered by a rule of the fallback chain.
    pub rule_rows: u64,
    /// Rows that got no answer because the endpoint abstains.
    pub abstained_rows: u64,
    /// Rows that no model was asked, because of a missing value or one that training never saw.
    pub unfit_rows: u64,
    /// Batches that a shadow failed to answer.
    pub shadow_failures: u64,
    /// Batches that shadows did not answer because the machine was behind.
    pub shadows_shed: u64,
    /// Requests refused because the machine was behind.
    pub requests_shed: u64,
    /// Requests that the endpoint's sampling left out of the log.
    pub unsampled_requests: u64,
    /// Batches in the log.
    pub appended_batches: u64,
    /// Rows in the log.
    pub appended_rows: u64,
    /// Bytes in the log.
    pub appended_bytes: u64,
    /// Times the log was forced to disk.
    pub fsyncs: u64,
    /// Rows that the log refused; their requests were refused too, unless the endpoint answers all the same.
    pub dropped_rows: u64,
    /// Bytes of the log that were written again because the disk had failed to keep them.
    pub rewritten_bytes: u64,
    /// Calls of deployments in the log.
    pub appended_calls: u64,
    /// Calls of deployments that were answered and could not be recorded, or were refused for that.
    pub dropped_calls: u64,
    /// Calls of deployments that sampling left out of the log.
    pub unsampled_calls: u64,
    /// Inputs and answers that are recorded without their values because they are too large, or cannot be redacted.
    pub omitted_payloads: u64,
    /// From a request's arrival to its answer.
    pub latency: Latency,
}

/// A histogram of latencies in buckets that double.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Latency {
    /// Upper bounds of the buckets, microseconds, inclusive; the last bucket of `counts` has none.
    pub bounds_us: Vec<u64>,
    /// Requests in each bucket (not cumulative), one more than there are bounds.
    pub counts: Vec<u64>,
    /// Sum of all latencies, microseconds.
    pub sum_us: u64,
    /// How many.
    pub count: u64,
}

impl Latency {
    /// The upper bound of the bucket that holds the quantile `q` (0 to 1), microseconds; `None` without data or beyond the last bound.
    pub fn quantile_us(&self, q: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return self.bounds_us.get(bucket).copied();
            }
        }
        None
    }
}

/// The live counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub requests: Counter,
    pub repeats: Counter,
    pub errors: Counter,
    pub canary_failed_rows: Counter,
    pub champion_failed_rows: Counter,
    pub previous_failed_rows: Counter,
    pub default_rows: Counter,
    pub fallback_rows: Counter,
    pub rule_rows: Counter,
    pub abstained_rows: Counter,
    pub unfit_rows: Counter,
    pub shadow_failures: Counter,
    pub shadows_shed: Counter,
    pub requests_shed: Counter,
    pub unsampled_requests: Counter,
    pub appended_batches: Counter,
    pub appended_rows: Counter,
    pub appended_bytes: Counter,
    pub fsyncs: Counter,
    pub dropped_rows: Counter,
    pub rewritten_bytes: Counter,
    pub appended_calls: Counter,
    pub dropped_calls: Counter,
    pub unsampled_calls: Counter,
    pub omitted_payloads: Counter,
    latency_sum: Counter,
    latency: [Counter; BUCKETS],
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub fn observe_latency(&self, micros: u64) {
        let exponent = u64::BITS - (micros.max(1) - 1).leading_zeros();
        let bucket = (exponent.saturating_sub(FIRST_EXPONENT) as usize).min(BUCKETS - 1);
        self.latency[bucket].add(1);
        self.latency_sum.add(micros);
    }

    pub fn snapshot(&self) -> Metrics {
        let counts: Vec<u64> = self.latency.iter().map(Counter::get).collect();
        Metrics {
            requests: self.requests.get(),
            repeats: self.repeats.get(),
            errors: self.errors.get(),
            canary_failed_rows: self.canary_failed_rows.get(),
            champion_failed_rows: self.champion_failed_rows.get(),
            previous_failed_rows: self.previous_failed_rows.get(),
            default_rows: self.default_rows.get(),
            fallback_rows: self.fallback_rows.get(),
            rule_rows: self.rule_rows.get(),
            abstained_rows: self.abstained_rows.get(),
            unfit_rows: self.unfit_rows.get(),
            shadow_failures: self.shadow_failures.get(),
            shadows_shed: self.shadows_shed.get(),
            requests_shed: self.requests_shed.get(),
            unsampled_requests: self.unsampled_requests.get(),
            appended_batches: self.appended_batches.get(),
            appended_rows: self.appended_rows.get(),
            appended_bytes: self.appended_bytes.get(),
            fsyncs: self.fsyncs.get(),
            dropped_rows: self.dropped_rows.get(),
            rewritten_bytes: self.rewritten_bytes.get(),
            appended_calls: self.appended_calls.get(),
            dropped_calls: self.dropped_calls.get(),
            unsampled_calls: self.unsampled_calls.get(),
            omitted_payloads: self.omitted_payloads.get(),
            latency: Latency {
                bounds_us: (0..BUCKETS as u32 - 1)
                    .map(|i| 1 << (FIRST_EXPONENT + i))
                    .collect(),
                count: counts.iter().sum(),
                counts,
                sum_us: self.latency_sum.get(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_the_bucket_whose_bound_holds_them() {
        let counters = Counters::default();
        for micros in [0, 32, 33, 64, 1_000, u64::MAX / 2] {
            counters.observe_latency(micros);
        }
        let latency = counters.snapshot().latency;
        assert_eq!(latency.counts[..2], [2, 2]);
        assert_eq!((latency.counts[BUCKETS - 1], latency.count), (1, 6));
        assert_eq!(latency.quantile_us(0.5), Some(64));
        assert_eq!(latency.quantile_us(1.0), None);
    }
}
