//! How far the machine is behind: what is left undone first when it cannot do all.
//!
//! A timer is set again and again; how much later than asked it rings is how long a task waits for its turn on this machine. It tells an
//! overload of any cause, costs nothing on the way of a request, and needs no guess of what a request takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tidemill_core::clock::{Stopwatch, real_sleep};

/// How often is looked.
const EVERY: Duration = Duration::from_millis(20);
/// So many looks in a row have to find the machine behind.
const LOOKS: usize = 8;
/// Seconds behind from which each level holds, and below half of which it ends.
const LEVELS: [f64; 3] = [0.050, 0.250, 1.000];

/// What is left undone. Each level leaves undone what those before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing.
    None,
    /// Shadows do not answer.
    Shadows,
    /// Requests of the canary's units are refused.
    Canary,
    /// All requests are refused.
    All,
}

/// The latest look at the machine. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PressureGauge(Arc<AtomicU8>);

impl PressureGauge {
    /// What is to be left undone now.
    pub fn now(&self) -> Pressure {
        match self.0.load(Ordering::Relaxed) {
            0 => Pressure::None,
            1 => Pressure::Shadows,
            2 => Pressure::Canary,
            _ => Pressure::All,
        }
    }

    /// Sets what is to be left undone: for those who know better than a timer, and for tests.
    pub fn set(&self, pressure: Pressure) {
        self.0.store(pressure as u8, Ordering::Relaxed);
    }

    /// Looks for ever.
    pub async fn watch(&self) {
        let mut latest = [0.0_f64; LOOKS];
        let mut look = 0;
        loop {
            let watch = Stopwatch::start();
            real_sleep(EVERY).await;
            // Timers have a grain of a millisecond, which says nothing.
            let late = watch.elapsed().saturating_sub(EVERY + Duration::from_millis(1));
            latest[look % LOOKS] = late.as_secs_f64();
            look += 1;
            // Late each time, not once: one pause of the machine is no overload.
            let behind = latest.iter().copied().fold(f64::INFINITY, f64::min);
            let before = self.now();
            let after = next(before, behind);
            if after != before {
                self.set(after);
                tracing::info!(
                    ?after,
                    behind_ms = behind * 1e3,
                    "the load on this machine has changed"
                );
            }
        }
    }
}

/// The level after `before` for a machine that is so many seconds behind.
fn next(before: Pressure, behind: f64) -> Pressure {
    let levels = [Pressure::Shadows, Pressure::Canary, Pressure::All];
    let reached = levels.into_iter().zip(LEVELS).rev().find(|(level, from)| {
        let from = if *level <= before { from / 2.0 } else { *from };
        behind >= from
    });
    reached.map_or(Pressure::None, |(level, _)| level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_begins_when_the_machine_falls_behind_and_ends_only_well_below() {
        let mut level = Pressure::None;
        let seen: Vec<Pressure> = [0.001, 0.055, 0.026, 0.300, 0.120, 2.0, 0.600, 0.400, 0.020, 0.0]
            .into_iter()
            .map(|behind| {
                level = next(level, behind);
                level
            })
            .collect();
        use Pressure::{All, Canary, None, Shadows};
        assert_eq!(
            seen,
            [
                None, Shadows, Shadows, Canary, Shadows, All, All, Canary, None, None
            ]
        );
    }
}
