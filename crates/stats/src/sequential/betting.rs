//! Exact e-process for the mean of bounded increments, by betting (F5; Waudby-Smith & Ramdas, JRSS-B 2024).

use crate::error::{Result, StatsError, positive};
use crate::exact_float;
use crate::special::log_sum_exp;
use serde::{Deserialize, Serialize};

/// Two bets on a stream of increments D with |D| ≤ B: one that the mean is above zero, one that it is below.
///
/// Each step stakes λ = clip(m/(v + m²), 0, ½/B), where m and v are mean and variance *before* the step: the running
/// values with one pseudo-observation of mean 0 and variance B²/4 (so the first stake is 0). K⁺ = Π(1 + λD) has
/// expectation at most 1 while E D ≤ 0; K⁻ likewise with −D. Non-asymptotic, valid at any look and while shares ramp.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BettingEProcess {
    #[serde(with = "exact_float")]
    bound: f64,
    count: u64,
    #[serde(with = "exact_float")]
    sum: f64,
    #[serde(with = "exact_float")]
    sum_of_squares: f64,
    #[serde(with = "exact_float")]
    log_e_up: f64,
    #[serde(with = "exact_float")]
    log_e_down: f64,
    #[serde(with = "exact_float")]
    peak_log_e_up: f64,
    #[serde(with = "exact_float")]
    peak_log_e_down: f64,
}

impl BettingEProcess {
    /// Starts with no evidence; every increment must lie in [−bound, bound].
    pub fn new(bound: f64) -> Result<Self> {
        positive("bound", bound)?;
        Ok(Self {
            bound,
            count: 0,
            sum: 0.0,
            sum_of_squares: 0.0,
            log_e_up: 0.0,
            log_e_down: 0.0,
            peak_log_e_up: 0.0,
            peak_log_e_down: 0.0,
        })
    }

    /// Changes the bound *before* the next increment is seen, as a ramping share does.
    pub fn set_bound(&mut self, bound: f64) -> Result<()> {
        positive("bound", bound)?;
        self.bound = bound;
        Ok(())
    }

    /// Adds an increment. One that is not finite or beyond the bound is refused and changes nothing.
    pub fn update(&mut self, d: f64) -> Result<()> {
        if !d.is_finite() {
            return Err(StatsError::NotFinite {
                index: self.count as usize,
                value: d,
            });
        }
        // Room for rounding in differences such as 0.3 − (−0.7): a stake of ½/B leaves it harmless.
        if d.abs() > self.bound * (1.0 + 1e-12) {
            return Err(StatsError::ParameterOutOfRange {
                name: "d",
                value: d,
                expected: "within the bound",
            });
        }
        let stake = self.stake();
        self.log_e_up += libm::log1p(stake.max(0.0) * d);
        self.log_e_down += libm::log1p(-(-stake).max(0.0) * d);
        self.peak_log_e_up = self.peak_log_e_up.max(self.log_e_up);
        self.peak_log_e_down = self.peak_log_e_down.max(self.log_e_down);
        self.count += 1;
        self.sum += d;
        self.sum_of_squares += d * d;
        Ok(())
    }

    /// The signed stake of the next step: positive bets on "up", negative on "down".
    fn stake(&self) -> f64 {
        let n = self.count as f64 + 1.0;
        let mean = self.sum / n;
        let variance = (self.sum_of_squares + self.bound * self.bound / 4.0) / n - mean * mean;
        let limit = 0.5 / self.bound;
        (mean / (variance + mean * mean)).clamp(-limit, limit)
    }

    /// Increments so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Mean of the increments; absent before the first.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// Evidence that the mean is above zero, now.
    pub fn log_e_up(&self) -> f64 {
        self.log_e_up
    }

    /// Evidence that the mean is below zero, now.
    pub fn log_e_down(&self) -> f64 {
        self.log_e_down
    }

    /// The most evidence for "above zero" at any look so far: a decision once reached stands.
    pub fn peak_log_e_up(&self) -> f64 {
        self.peak_log_e_up
    }

    /// The most evidence for "below zero" at any look so far.
    pub fn peak_log_e_down(&self) -> f64 {
        self.peak_log_e_down
    }

    /// Evidence that the mean is not zero: ½(K⁺ + K⁻).
    pub fn log_e_two_sided(&self) -> f64 {
        log_sum_exp(&[self.log_e_up, self.log_e_down]) - std::f64::consts::LN_2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_grows_in_the_true_direction_only() {
        let mut process = BettingEProcess::new(1.0).unwrap();
        for i in 0..500 {
            process.update(if i % 5 < 3 { 0.5 } else { -0.5 }).unwrap();
        }
        assert!(process.log_e_up() > 3.0, "{}", process.log_e_up());
        assert!(process.log_e_down() <= 0.1);
    }

    #[test]
    fn an_increment_beyond_the_bound_is_refused_and_changes_nothing() {
        let mut process = BettingEProcess::new(1.0).unwrap();
        let before = process.clone();
        assert!(process.update(1.5).is_err());
        assert!(process.update(f64::NAN).is_err());
        assert_eq!(process, before);
    }
}
