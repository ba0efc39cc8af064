//! Time as a parameter: [`Clock`] is handed to every component, so the same code runs in production and in a replay.
#![allow(clippy::disallowed_methods)] // this module is the one door to the machine's clock

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::spec::Span;

/// A point in time: microseconds since the Unix epoch, UTC. Written as RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// The start of the interval of length `step` (counted from the epoch, so days start at midnight UTC) that holds this time.
    pub const fn floor_to(self, step: Span) -> Self {
        let step = step.as_micros();
        Self(self.0.div_euclid(step) * step)
    }

    /// `2013-05`, the UTC month.
    pub fn month(self) -> String {
        self.to_string().chars().take(7).collect()
    }

    /// `2013-05-17`, the UTC day.
    pub fn day(self) -> String {
        self.to_string().chars().take(10).collect()
    }
}

impl Add<Span> for Timestamp {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.as_micros()))
    }
}

impl Sub<Span> for Timestamp {
    type Output = Self;
    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.as_micros()))
    }
}

impl Sub for Timestamp {
    type Output = Span;
    fn sub(self, other: Self) -> Span {
        Span::from_micros(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is neither a date nor an RFC 3339 time.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{text}` is not a time: expected RFC 3339 such as `2013-05-17T10:00:00Z`, or a date such as `2013-05-17`"
)]
pub struct TimestampError {
    text: String,
}

impl FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        if let Ok(t) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(t.as_microsecond()));
        }
        // A bare date is midnight UTC, so that `--from 2013-01-01` reads as one expects.
        format!("{text}T00:00:00Z")
            .parse::<jiff::Timestamp>()
            .map(|t| Self(t.as_microsecond()))
            .map_err(|_| TimestampError {
                text: text.to_owned(),
            })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(serde::de::Error::custom)
        } else {
            i64::deserialize(deserializer).map(Self)
        }
    }
}

/// Where a component takes its time from.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// The current time.
    fn now(&self) -> Timestamp;
    /// Returns once [`Clock::now`] is at or after `deadline`.
    async fn sleep_until(&self, deadline: Timestamp);
    /// The clock as one that can be moved by hand, if it is one.
    fn as_virtual(&self) -> Option<&VirtualClock> {
        None
    }
}

/// The clock of production: the machine's own.
#[derive(Debug, Default, Clone, Copy)]
pub struct WallClock;

#[async_trait]
impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_microsecond())
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let wait = deadline.0.saturating_sub(self.now().0);
        if let Ok(micros) = u64::try_from(wait) {
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
    }
}

/// The clock of a replay: stands still until it is moved, and never goes back.
#[derive(Debug, Clone)]
pub struct VirtualClock {
    now: Arc<watch::Sender<Timestamp>>,
}

impl VirtualClock {
    /// A clock that stands at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self {
            now: Arc::new(watch::Sender::new(start)),
        }
    }

    /// Moves the clock to `to`; a time in the past is ignored. Returns the time it now shows.
    pub fn advance_to(&self, to: Timestamp) -> Timestamp {
        self.now.send_if_modified(|now| {
            let moves = to > *now;
            if moves {
                *now = to;
            }
            moves
        });
        *self.now.borrow()
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let mut changes = self.now.subscribe();
        // The sender lives as long as `self`, so waiting can only end by reaching the deadline.
        let _ = changes.wait_for(|now| *now >= deadline).await;
    }

    fn as_virtual(&self) -> Option<&VirtualClock> {
        Some(self)
    }
}

/// Measures how long something took on the machine, for latencies and reports; never feeds a decision.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Nanoseconds since the start.
    pub fn nanos(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Microseconds since the start.
    pub fn micros(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Waits on the machine's clock, whatever clock the product runs on: for back-off and polling of real processes only.
pub async fn real_sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_dates_and_rfc3339_and_names_what_it_cannot_read() {
        let t: Timestamp = "2013-05-17".parse().unwrap();
        assert_eq!(t.to_string(), "2013-05-17T00:00:00Z");
        assert_eq!(
            (t.month(), t.day()),
            ("2013-05".to_owned(), "2013-05-17".to_owned())
        );
        assert!(
            "17.5.2013"
                .parse::<Timestamp>()
                .unwrap_err()
                .to_string()
                .contains("`17.5.2013`")
        );
    }

    #[tokio::test]
    async fn a_virtual_clock_never_goes_back_and_wakes_sleepers() {
        let clock = VirtualClock::new(Timestamp(10));
        let sleeper = clock.clone();
        let task = tokio::spawn(async move { sleeper.sleep_until(Timestamp(20)).await });
        assert_eq!(clock.advance_to(Timestamp(5)), Timestamp(10));
        assert_eq!(clock.advance_to(Timestamp(25)), Timestamp(25));
        task.await.unwrap();
    }
}
