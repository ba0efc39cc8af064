//! Guessing passwords is slow: a name that was tried with wrong ones is refused for a while, whoever asks. Tokens are too long to guess.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidemill_core::clock::Stopwatch;

/// So many wrong passwords of one name are heard in a [`WINDOW`].
const ALLOWED: u32 = 10;
/// What is remembered of a name lasts so long after its first wrong password.
const WINDOW: Duration = Duration::from_mins(1);
/// So many names are remembered at most.
const NAMES: usize = 4096;

struct Failures {
    since: Duration,
    count: u32,
}

/// The wrong passwords of the last minute, by what stands for a name.
pub(super) struct Throttle {
    started: Stopwatch,
    names: Mutex<HashMap<[u8; 32], Failures>>,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self {
            started: Stopwatch::start(),
            names: Mutex::default(),
        }
    }

    /// How long a name has to wait before a password of it is looked at; `None` if not at all.
    pub(super) fn wait(&self, name: &[u8; 32]) -> Option<Duration> {
        self.wait_at(name, self.started.elapsed())
    }

    /// Remembers that a password of a name was wrong.
    pub(super) fn failed(&self, name: [u8; 32]) {
        self.failed_at(name, self.started.elapsed());
    }

    fn wait_at(&self, name: &[u8; 32], now: Duration) -> Option<Duration> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = names.get(name).filter(|failures| failures.count >= ALLOWED)?;
        (failures.since + WINDOW)
            .checked_sub(now)
            .filter(|wait| !wait.is_zero())
    }

    fn failed_at(&self, name: [u8; 32], now: Duration) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES && !names.contains_key(&name) {
            names.retain(|_, failures| failures.since + WINDOW > now);
            // Names that are made up must not make it forget one that is under attack: those tried least go.
            if names.len() >= NAMES {
                let least = names.values().map(|failures| failures.count).min().unwrap_or(0);
                names.retain(|_, failures| failures.count > least);
            }
        }
        let failures = names.entry(name).or_insert(Failures { since: now, count: 0 });
        if failures.since + WINDOW <= now {
            *failures = Failures { since: now, count: 0 };
        }
        failures.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> [u8; 32] {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    #[test]
    fn a_name_waits_after_ten_wrong_passwords_until_a_minute_has_passed() {
        let throttle = Throttle::new();
        let at = Duration::from_secs;
        for second in 0..9 {
            throttle.failed_at(name(1), at(second));
        }
        assert_eq!(throttle.wait_at(&name(1), at(9)), None);
        throttle.failed_at(name(1), at(9));
        assert_eq!(throttle.wait_at(&name(1), at(10)), Some(at(50)));
        assert_eq!(throttle.wait_at(&name(2), at(10)), None, "another name");
        assert_eq!(throttle.wait_at(&name(1), at(60)), None);
        throttle.failed_at(name(1), at(60));
        assert_eq!(throttle.wait_at(&name(1), at(60)), None, "it counts anew");
    }

    #[test]
    fn names_that_are_made_up_do_not_fill_the_memory_nor_free_one_that_waits() {
        let throttle = Throttle::new();
        for _ in 0..10 {
            throttle.failed_at(name(0), Duration::ZERO);
        }
        for number in 1..3 * NAMES as u64 {
            throttle.failed_at(name(number), Duration::from_secs(1));
        }
        assert!(throttle.names.lock().unwrap().len() <= NAMES);
        assert!(throttle.wait_at(&name(0), Duration::from_secs(2)).is_some());
    }
}
