//! How many calls may be under way at once, learnt from how long they take: once they take much longer than on a quiet day, more of
//! them only wait, and it is kinder to refuse what comes on top at once.
//!
//! The limit holds only in an overload, which is told from a busy day by its trend (`trend.rs`): callers that wait for one answer before
//! they ask again wait in line however many they are, because their line does not grow.
//!
//! After Netflix' concurrency-limits (`Gradient2Limit`): every window the limit is multiplied by `tolerance · quiet / now`, at most 1 and
//! at least ½, and a head room of half its square root is added (half: the whole root would let a single worker's line be three long). `quiet` is here the mean latency of the calls that found nobody before them, so
//! that a long overload is not taken for the normal state.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_core::clock::Stopwatch;

use super::trend::{Mode, Seen, Trend};

/// Latency may grow to this many times that of a quiet day before the limit shrinks.
const TOLERANCE: f64 = 1.4;
/// The limit is thought over this often, if enough calls have ended.
const WINDOW: Duration = Duration::from_millis(50);
const ENOUGH: u64 = 4;
/// Without a refusal for so long, microseconds, and with nobody under way, the limit is what it was at first: a burst is no overload.
const FORGET_MICROS: u64 = 1_000_000;
/// Where callers come the faster the more of them are refused, this many times what can be worked on at once may wait.
const PATIENT: usize = 64;
/// How much of the quiet latency stays with each new quiet call.
const KEEP: f64 = 0.98;

#[derive(Debug)]
struct Window {
    since: Stopwatch,
    calls: u64,
    seconds: f64,
    most_at_once: usize,
    /// Calls that failed: they have left the line too, but how long they took says nothing.
    failed: u64,
    /// Calls that had come when it began.
    came_before: u64,
}

impl Window {
    fn new(came_before: u64) -> Self {
        Self {
            since: Stopwatch::start(),
            calls: 0,
            seconds: 0.0,
            most_at_once: 0,
            failed: 0,
            came_before,
        }
    }
}

/// The limit and what it was learnt from.
#[derive(Debug)]
pub(super) struct Limit {
    under_way: AtomicUsize,
    /// An `f64`.
    allowed: AtomicU64,
    /// Seconds, an `f64`; 0 before anything is known.
    quiet: AtomicU64,
    window: Mutex<(Window, Trend)>,
    /// Calls that have come, refused ones too.
    came: AtomicU64,
    /// What is never refused: what can be worked on at once, and one more.
    least: AtomicUsize,
    /// A [`Mode`].
    mode: AtomicU8,
    most: f64,
    since: Stopwatch,
    /// Microseconds of `since` at the latest refusal.
    refused: AtomicU64,
}

/// A call under way. Dropped without a word it was neither quick nor slow: refused, or its caller went away.
#[derive(Debug)]
pub(super) struct UnderWay {
    limit: Arc<Limit>,
    since: Stopwatch,
    /// Nobody was before it.
    alone: bool,
}

impl Limit {
    /// At first, and at most, `most` calls at once.
    pub fn new(most: usize) -> Self {
        Self {
            under_way: AtomicUsize::new(0),
            allowed: AtomicU64::new((most as f64).to_bits()),
            quiet: AtomicU64::new(0),
            window: Mutex::new((Window::new(0), Trend::default())),
            came: AtomicU64::new(0),
            least: AtomicUsize::new(1),
            mode: AtomicU8::new(Mode::Calm as u8),
            most: most as f64,
            since: Stopwatch::start(),
            refused: AtomicU64::new(0),
        }
    }

    /// A call that the model failed to answer has left the line.
    fn failed(&self) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.0.failed += 1;
    }

    fn load(cell: &AtomicU64) -> f64 {
        f64::from_bits(cell.load(Ordering::Relaxed))
    }

    /// How many calls may be under way now.
    pub fn now(&self) -> usize {
        Self::load(&self.allowed) as usize
    }

    /// How many are.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::Relaxed) == mode as u8
    }

    fn enter(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// How long a call may wait for its turn: as long as it likes, but in an overload not so long that its answer would be a slow one.
    pub fn longest_wait(&self) -> Option<Duration> {
        let quiet = Self::load(&self.quiet);
        (self.is(Mode::Overloaded) && quiet > 0.0).then(|| Duration::from_secs_f64(TOLERANCE * quiet))
    }

    /// Takes a call on, unless too many are under way. `slots`: so many are worked on side by side; `together`: so many are answered by
    /// one of them at once. What can be worked on at once is never refused, nor is one more.
    pub fn admit(self: &Arc<Self>, slots: usize, together: usize) -> Option<UnderWay> {
        let before = self.under_way.fetch_add(1, Ordering::AcqRel);
        self.came.fetch_add(1, Ordering::Relaxed);
        let least = slots.saturating_mul(together).saturating_add(1);
        self.least.store(least, Ordering::Relaxed);
        // A call that finds nobody, a while after the latest refusal: what was learnt then says nothing of now.
        let now = self.since.micros();
        if before == 0 && now.saturating_sub(self.refused.load(Ordering::Acquire)) > FORGET_MICROS {
            self.allowed.store(self.most.to_bits(), Ordering::Relaxed);
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            self.enter(window.1.forget());
        }
        let refused = if self.is(Mode::Overloaded) {
            before >= self.now().max(least)
        } else {
            self.is(Mode::Patient) && before >= least.saturating_mul(PATIENT)
        };
        if refused {
            self.refused.store(now, Ordering::Release);
            self.under_way.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(UnderWay {
            limit: Arc::clone(self),
            since: Stopwatch::start(),
            alone: before < slots,
        })
    }

    /// Learns from a call that was answered. `may_grow`: more replicas are to come before anybody is refused.
    fn ended(&self, took: Duration, alone: bool, may_grow: bool) {
        let seconds = took.as_secs_f64();
        if alone {
            let quiet = Self::load(&self.quiet);
            let next = if quiet == 0.0 {
                seconds
            } else {
                KEEP * quiet + (1.0 - KEEP) * seconds
            };
            self.quiet.store(next.to_bits(), Ordering::Relaxed);
        }
        let mut guard = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (window, trend) = &mut *guard;
        window.calls += 1;
        window.seconds += seconds;
        window.most_at_once = window.most_at_once.max(self.under_way());
        let lasted = window.since.elapsed();
        if window.calls < ENOUGH || lasted < WINDOW {
            return;
        }
        let came = self.came.load(Ordering::Relaxed);
        let seen = Seen {
            came: came - window.came_before,
            answered: window.calls + window.failed,
            lasted,
            under_way: self.under_way(),
            least: self.least.load(Ordering::Relaxed),
        };
        let now = window.seconds / window.calls as f64;
        let used = window.most_at_once as f64;
        *window = Window::new(came);
        if may_grow {
            self.enter(trend.forget());
            return;
        }
        self.enter(trend.follow(seen, self.since.micros()));
        drop(guard);
        let limit = Self::load(&self.allowed);
        let quiet = Self::load(&self.quiet);
        let gradient = (TOLERANCE * quiet / now.max(1e-9)).clamp(0.5, 1.0);
        // A limit that is far from being met has not been tried, so it is neither raised nor trusted: it comes down to what was used.
        let from = if gradient < 1.0 {
            limit.min(used.max(1.0))
        } else {
            limit
        };
        let next = from * gradient + from.sqrt() / 2.0;
        self.allowed
            .store(next.clamp(1.0, self.most).to_bits(), Ordering::Relaxed);
    }
}

impl UnderWay {
    /// The call was answered. `may_grow`: there are to be more replicas yet.
    pub fn answered(self, may_grow: bool) {
        self.limit.ended(self.since.elapsed(), self.alone, may_grow);
    }

    /// The model failed to answer.
    pub fn failed(self) {
        self.limit.failed();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.limit.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn window(limit: &Limit, seconds: f64, at_once: usize) {
        limit.under_way.store(at_once, Ordering::Relaxed);
        {
            let mut guard = limit.window.lock().unwrap();
            let window = &mut guard.0;
            window.calls = ENOUGH;
            window.seconds = seconds * ENOUGH as f64;
            window.most_at_once = at_once;
        }
        tidemill_core::clock::real_sleep(WINDOW).await;
        limit.ended(Duration::from_secs_f64(seconds), false, false);
        limit.under_way.store(0, Ordering::Relaxed);
    }

    #[tokio::test]
    async fn the_limit_comes_down_while_calls_take_too_long_and_rises_again_when_they_do_not() {
        let limit = Limit::new(1_000);
        limit.quiet.store(0.010_f64.to_bits(), Ordering::Relaxed);
        for _ in 0..20 {
            let at_once = limit.now().min(100);
            window(&limit, 0.010 * at_once as f64 / 2.0, at_once).await;
        }
        let low = limit.now();
        assert!(low < 12, "{low}");
        for _ in 0..4 {
            window(&limit, 0.010, low).await;
        }
        assert!(limit.now() > low);
    }

    #[test]
    fn what_is_worked_on_at_once_and_one_more_is_never_refused() {
        let limit = Arc::new(Limit::new(1));
        limit.enter(Mode::Overloaded);
        let taken: Vec<UnderWay> = (0..9).map_while(|_| limit.admit(4, 1)).collect();
        assert_eq!((taken.len(), limit.under_way()), (5, 5));
        drop(taken);
        assert_eq!(limit.under_way(), 0);
    }
}
