//! A version that fails again and again is not asked for a while, then tried by a few.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tidemill_core::clock::Timestamp;
use tidemill_core::spec::BreakerSpec;

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Requests go through.
    Closed,
    /// None does.
    Open,
    /// A few try.
    HalfOpen,
}

#[derive(Debug, Default)]
struct Inner {
    failures: VecDeque<Timestamp>,
    open_since: Option<Timestamp>,
    probing: u32,
}

const CLOSED: u8 = 0;
const NOT_CLOSED: u8 = 1;

/// Counts failures. While it is closed, a request that succeeds takes no lock here.
#[derive(Debug)]
pub(crate) struct Breaker {
    spec: BreakerSpec,
    state: AtomicU8,
    inner: Mutex<Inner>,
    opened: AtomicU64,
}

/// Leave to ask the version; dropped without a word, nothing was learnt.
#[derive(Debug)]
pub(crate) struct Pass {
    breaker: Arc<Breaker>,
    probe: bool,
}

impl Breaker {
    pub fn new(spec: &BreakerSpec) -> Self {
        Self {
            spec: spec.clone(),
            state: AtomicU8::new(CLOSED),
            inner: Mutex::default(),
            opened: AtomicU64::new(0),
        }
    }

    pub fn spec(&self) -> &BreakerSpec {
        &self.spec
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave to ask, or none.
    pub fn admit(self: &Arc<Self>, now: Timestamp) -> Option<Pass> {
        let pass = |probe| Pass {
            breaker: Arc::clone(self),
            probe,
        };
        if self.state.load(Ordering::Acquire) == CLOSED {
            return Some(pass(false));
        }
        let mut inner = self.lock();
        let Some(since) = inner.open_since else {
            return Some(pass(false));
        };
        if now < since + self.spec.open || inner.probing >= self.spec.probes {
            return None;
        }
        inner.probing += 1;
        Some(pass(true))
    }

    /// Where it stands.
    pub fn state(&self, now: Timestamp) -> BreakerState {
        match self.lock().open_since {
            None => BreakerState::Closed,
            Some(since) if now < since + self.spec.open => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// How often it has opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    fn open(&self, inner: &mut Inner, now: Timestamp) {
        inner.open_since = Some(now);
        inner.failures.clear();
        self.state.store(NOT_CLOSED, Ordering::Release);
        self.opened.fetch_add(1, Ordering::Relaxed);
    }
}

impl Pass {
    /// The version answered.
    pub fn succeeded(self) {
        if self.probe {
            let mut inner = self.breaker.lock();
            inner.open_since = None;
            inner.failures.clear();
            self.breaker.state.store(CLOSED, Ordering::Release);
        }
    }

    /// The version failed.
    pub fn failed(self, now: Timestamp) {
        let breaker = &self.breaker;
        let mut inner = breaker.lock();
        if self.probe {
            breaker.open(&mut inner, now);
            return;
        }
        if inner.open_since.is_some() {
            // It was asked before the breaker opened.
            return;
        }
        let from = now - breaker.spec.window;
        while inner.failures.front().is_some_and(|at| *at < from) {
            inner.failures.pop_front();
        }
        inner.failures.push_back(now);
        if inner.failures.len() >= breaker.spec.failures as usize {
            breaker.open(&mut inner, now);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.probe {
            let mut inner = self.breaker.lock();
            inner.probing = inner.probing.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemill_core::spec::Span;

    use super::*;

    fn breaker() -> Arc<Breaker> {
        Arc::new(Breaker::new(&BreakerSpec {
            failures: 3,
            window: Span::from_micros(100),
            open: Span::from_micros(1_000),
            probes: 1,
        }))
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn fail(breaker: &Arc<Breaker>, now: i64) {
        breaker.admit(at(now)).unwrap().failed(at(now));
    }

    #[test]
    fn it_opens_after_so_many_failures_within_its_window_and_not_for_older_ones() {
        let breaker = breaker();
        for now in [10, 20, 200, 210] {
            fail(&breaker, now);
        }
        assert_eq!(breaker.state(at(210)), BreakerState::Closed);
        fail(&breaker, 220);
        assert_eq!(breaker.state(at(220)), BreakerState::Open);
        assert!(breaker.admit(at(221)).is_none());
        assert_eq!(breaker.opened(), 1);
    }

    #[test]
    fn after_a_rest_one_tries_and_its_luck_closes_or_opens_it_again() {
        let breaker = breaker();
        for now in [1, 2, 3] {
            fail(&breaker, now);
        }
        assert_eq!(breaker.state(at(1_003)), BreakerState::HalfOpen);
        let probe = breaker.admit(at(1_003)).unwrap();
        assert!(breaker.admit(at(1_004)).is_none(), "one at a time");
        probe.failed(at(1_005));
        assert!(
            breaker.admit(at(2_004)).is_none(),
            "open again from the probe's failure"
        );
        let gone = breaker.admit(at(2_005)).unwrap();
        drop(gone);
        breaker.admit(at(2_006)).unwrap().succeeded();
        assert_eq!(breaker.state(at(2_006)), BreakerState::Closed);
        fail(&breaker, 2_007);
        assert!(breaker.admit(at(2_008)).is_some(), "old failures are forgotten");
    }

    #[test]
    fn one_that_was_asked_before_it_opened_says_nothing_about_now() {
        let breaker = breaker();
        let early = breaker.admit(at(0)).unwrap();
        for now in [1, 2, 3] {
            fail(&breaker, now);
        }
        early.failed(at(900));
        assert_eq!(
            breaker.state(at(1_003)),
            BreakerState::HalfOpen,
            "its rest does not begin anew"
        );
    }
}
