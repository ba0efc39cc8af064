//! Whether there is an overload: more calls come than are answered, and it goes on.
//!
//! A long line alone is none. Callers that ask again once they are answered make a line that is as long as they are many and stays so;
//! refusing them would only make them ask again at once. An overload is a line that grows window after window. Where refusing makes calls
//! come much faster than before, it was no overload after all, and refusing ends.

use std::time::Duration;

/// In so many windows one after the other more has to come than is answered.
const RISING: u32 = 3;
/// This many times what is answered, and one call more.
const CLEARLY: f64 = 1.25;
/// So many more than can be worked on at once are under way by then.
const LINE: usize = 4;
/// In so many windows one after the other no more comes than is answered before the overload is over.
const EASING: u32 = 4;
/// Refused callers that come this many times as fast as before ask again at once.
const STORM: f64 = 3.0;
/// In so many windows one after the other.
const STORMY: u32 = 2;
/// For so long such callers are let wait, microseconds.
const PATIENCE: u64 = 60_000_000;

/// What is done about calls that come on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mode {
    /// They wait.
    Calm,
    /// They are refused.
    Overloaded,
    /// They wait, and no overload is seen for a while.
    Patient,
}

/// What happened in a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Calls that came, refused ones too.
    pub came: u64,
    /// Calls that were answered.
    pub answered: u64,
    /// How long it was.
    pub lasted: Duration,
    /// Calls under way at its end.
    pub under_way: usize,
    /// What can be worked on at once, and one more.
    pub least: usize,
}

impl Seen {
    fn rate(&self) -> f64 {
        self.came as f64 / self.lasted.as_secs_f64().max(1e-9)
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Calm {
        rising: u32,
        /// The sum of the rates of the rising windows, calls a second.
        rates: f64,
    },
    Overloaded {
        /// Calls a second when it began.
        rate: f64,
        easing: u32,
        stormy: u32,
    },
    Patient {
        until: u64,
    },
}

/// What the latest windows say.
#[derive(Debug)]
pub(super) struct Trend(State);

impl Default for Trend {
    fn default() -> Self {
        Self(State::Calm {
            rising: 0,
            rates: 0.0,
        })
    }
}

impl Trend {
    /// Forgets what was seen.
    pub fn forget(&mut self) -> Mode {
        *self = Self::default();
        Mode::Calm
    }

    /// Takes in a window that ended `now`, in microseconds.
    pub fn follow(&mut self, seen: Seen, now: u64) -> Mode {
        let answered = seen.answered as f64;
        let came = seen.came as f64;
        self.0 = match self.0 {
            State::Calm { .. } if came < CLEARLY * answered + 1.0 => Self::default().0,
            State::Calm { rising, rates } => {
                let (rising, rates) = (rising + 1, rates + seen.rate());
                if rising >= RISING && seen.under_way >= seen.least + LINE {
                    State::Overloaded {
                        rate: rates / f64::from(rising),
                        easing: 0,
                        stormy: 0,
                    }
                } else {
                    State::Calm { rising, rates }
                }
            }
            State::Overloaded { rate, easing, stormy } => {
                let stormy = if seen.rate() > STORM * rate { stormy + 1 } else { 0 };
                let easing = if came <= 1.1 * answered + 1.0 {
                    easing + 1
                } else {
                    0
                };
                if stormy >= STORMY {
                    State::Patient {
                        until: now + PATIENCE,
                    }
                } else if easing >= EASING {
                    Self::default().0
                } else {
                    State::Overloaded { rate, easing, stormy }
                }
            }
            State::Patient { until } if now >= until => Self::default().0,
            patient @ State::Patient { .. } => patient,
        };
        match self.0 {
            State::Calm { .. } => Mode::Calm,
            State::Overloaded { .. } => Mode::Overloaded,
            State::Patient { .. } => Mode::Patient,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(came: u64, answered: u64, under_way: usize) -> Seen {
        Seen {
            came,
            answered,
            lasted: Duration::from_millis(80),
            under_way,
            least: 2,
        }
    }

    #[test]
    fn callers_that_wait_for_their_answers_are_never_an_overload_however_many_they_are() {
        let mut trend = Trend::default();
        // Sixty-four come at once, and from then on each asks again when it is answered.
        assert_eq!(trend.follow(seen(68, 4, 64), 0), Mode::Calm);
        for window in 0..1_000 {
            let jitter = window % 3;
            let mode = trend.follow(seen(3 + jitter, 4, 63 + jitter as usize), window);
            assert_eq!(mode, Mode::Calm);
        }
    }

    #[test]
    fn a_line_that_grows_window_after_window_is_an_overload_until_no_more_comes_than_is_answered() {
        let mut trend = Trend::default();
        let modes: Vec<Mode> = (1..=3)
            .map(|window| trend.follow(seen(8, 4, 2 + 4 * window), 0))
            .collect();
        assert_eq!(modes, [Mode::Calm, Mode::Calm, Mode::Overloaded]);
        for _ in 0..1_000 {
            assert_eq!(trend.follow(seen(8, 4, 2), 0), Mode::Overloaded);
        }
        let modes: Vec<Mode> = (0..4).map(|_| trend.follow(seen(4, 4, 2), 0)).collect();
        assert_eq!(modes[2..], [Mode::Overloaded, Mode::Calm]);
    }

    #[test]
    fn where_refusing_makes_calls_come_faster_they_wait_for_a_while() {
        let mut trend = Trend::default();
        for window in 1..=3 {
            trend.follow(seen(8, 4, 2 + 4 * window), 0);
        }
        assert_eq!(trend.follow(seen(400, 4, 2), 1), Mode::Overloaded);
        assert_eq!(trend.follow(seen(400, 4, 2), 2), Mode::Patient);
        assert_eq!(trend.follow(seen(40, 4, 40), 1_000), Mode::Patient);
        assert_eq!(trend.follow(seen(4, 4, 40), PATIENCE + 2), Mode::Calm);
    }
}
