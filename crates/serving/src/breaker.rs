//! A deployment that keeps failing is left alone for a while, so that those behind it answer at once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tidemill_core::clock::Stopwatch;

/// So many failures in a row open the circuit.
const FAILURES: u32 = 5;
/// It stays open for so long, microseconds; then one request tries.
const PAUSE_MICROS: u64 = 5_000_000;

/// Counts a deployment's failures in a row.
#[derive(Debug)]
pub(crate) struct Breaker {
    since: Stopwatch,
    failures: AtomicU32,
    /// Microseconds of `since`; 0 while closed.
    open_until: AtomicU64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            since: Stopwatch::start(),
            failures: AtomicU32::new(0),
            open_until: AtomicU64::new(0),
        }
    }
}

impl Breaker {
    /// Whether the deployment may be asked. While the circuit is open, only the first to come after the pause may.
    pub fn admits(&self) -> bool {
        let until = self.open_until.load(Ordering::Acquire);
        until == 0 || self.try_again(until, self.since.micros())
    }

    fn try_again(&self, until: u64, now: u64) -> bool {
        let next = now + PAUSE_MICROS;
        now >= until
            && self
                .open_until
                .compare_exchange(until, next, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    /// It answered.
    pub fn answered(&self) {
        // Mostly nothing has changed, and a write would be contended.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.open_until.store(0, Ordering::Release);
        }
    }

    /// It failed. Returns whether that opened the circuit.
    pub fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::AcqRel) + 1;
        if failures < FAILURES {
            return false;
        }
        let until = self.since.micros() + PAUSE_MICROS;
        self.open_until.swap(until, Ordering::AcqRel) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_the_circuit_one_request_tries_and_an_answer_closes_it() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES - 1 {
            assert!(breaker.admits() && !breaker.failed());
        }
        breaker.answered();
        for _ in 0..FAILURES - 1 {
            assert!(breaker.admits() && !breaker.failed());
        }
        assert!(breaker.failed(), "the fifth in a row");
        assert!(!breaker.admits());
        let until = breaker.open_until.load(Ordering::Relaxed);
        assert!(!breaker.try_again(until, until - 1));
        assert!(breaker.try_again(until, until + 1));
        assert!(!breaker.try_again(until, until + 1), "another has tried");
        breaker.answered();
        assert!(breaker.admits());
    }
}
