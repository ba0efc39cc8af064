//! Exact e-process for the rate of rare bad events (F6): errors, timeouts, fallbacks, crashes.
//!
//! Condition on the events: if both arms have the same rate, an event is in the canary with probability π, its share
//! of traffic at that moment. A rate ratio r makes that θ(r) = rπ/(rπ + 1 − π). The evidence is the mean over a grid of
//! ratios of Π θ(r)/θ(r₀) (canary) and (1 − θ(r))/(1 − θ(r₀)) (control). Exact for any sequence of shares.

use crate::error::{Result, StatsError, open_unit, positive};
use crate::exact_float;
use crate::special::{ln_beta, log_sum_exp};
use serde::{Deserialize, Serialize};

/// Rate ratios that a harm test bets on.
pub const HARM_RATIOS: [f64; 7] = [1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0];
/// Rate ratios that a non-inferiority test bets on.
pub const NONINFERIORITY_RATIOS: [f64; 4] = [1.0, 0.8, 0.6, 0.4];

/// Evidence about the ratio of event rates, canary to control, one event at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateRatioEProcess {
    #[serde(with = "exact_float")]
    null_ratio: f64,
    #[serde(with = "exact_float::list")]
    alternatives: Vec<f64>,
    /// One running log likelihood ratio for each alternative.
    #[serde(with = "exact_float::list")]
    log_products: Vec<f64>,
    canary_events: u64,
    events: u64,
    #[serde(with = "exact_float")]
    peak_log_e: f64,
}

impl RateRatioEProcess {
    /// Bets against "the canary's rate is at most the control's": roll back when it reaches 1/α.
    pub fn harm() -> Self {
        Self::with_grid(1.0, &HARM_RATIOS)
    }

    /// Bets against "the canary's rate is `tolerated_ratio` times the control's or more": advance when it reaches 1/α.
    pub fn noninferiority(tolerated_ratio: f64) -> Result<Self> {
        if !(tolerated_ratio > 1.0 && tolerated_ratio.is_finite()) {
            return Err(StatsError::ParameterOutOfRange {
                name: "tolerated_ratio",
                value: tolerated_ratio,
                expected: "a ratio above 1, for instance 1.5",
            });
        }
        Ok(Self::with_grid(tolerated_ratio, &NONINFERIORITY_RATIOS))
    }

    fn with_grid(null_ratio: f64, alternatives: &[f64]) -> Self {
        Self {
            null_ratio,
            alternatives: alternatives.to_vec(),
            log_products: vec![0.0; alternatives.len()],
            canary_events: 0,
            events: 0,
            peak_log_e: 0.0,
        }
    }

    /// Adds a bad event: was it served by the canary, and what was the canary's share `pi` at that moment?
    pub fn update(&mut self, canary: bool, pi: f64) -> Result<()> {
        open_unit("pi", pi)?;
        for (alternative, log_product) in self.alternatives.iter().zip(&mut self.log_products) {
            *log_product += libm::log(likelihood_ratio(canary, pi, *alternative, self.null_ratio));
        }
        self.events += 1;
        self.canary_events += u64::from(canary);
        self.peak_log_e = self.peak_log_e.max(self.log_e());
        Ok(())
    }

    /// The evidence now.
    pub fn log_e(&self) -> f64 {
        log_sum_exp(&self.log_products) - libm::log(self.alternatives.len() as f64)
    }

    /// The most evidence at any look so far: a decision once reached stands.
    pub fn peak_log_e(&self) -> f64 {
        self.peak_log_e
    }

    /// Events seen, in both arms.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Events seen in the canary.
    pub fn canary_events(&self) -> u64 {
        self.canary_events
    }
}

/// θ(r)/θ(r₀) for an event in the canary, (1 − θ(r))/(1 − θ(r₀)) for one in the control.
pub(crate) fn likelihood_ratio(canary: bool, pi: f64, ratio: f64, null_ratio: f64) -> f64 {
    let totals = (null_ratio * pi + 1.0 - pi) / (ratio * pi + 1.0 - pi);
    if canary {
        ratio / null_ratio * totals
    } else {
        totals
    }
}

/// Two-sided closed form for a constant share: a Beta(2π, 2(1 − π)) mixture over the share of events in the canary.
/// ln E = lnB(a + x, b + n − x) − lnB(a, b) − x·ln π − (n − x)·ln(1 − π).
pub fn beta_mixture_log_e(canary_events: u64, events: u64, pi: f64) -> Result<f64> {
    open_unit("pi", pi)?;
    if canary_events > events {
        return Err(StatsError::ParameterOutOfRange {
            name: "canary_events",
            value: canary_events as f64,
            expected: "at most the number of events",
        });
    }
    let (a, b) = (2.0 * pi, 2.0 * (1.0 - pi));
    positive("a", a)?;
    let (x, rest) = (canary_events as f64, (events - canary_events) as f64);
    Ok(ln_beta(a + x, b + rest) - ln_beta(a, b) - x * pi.ln() - rest * (1.0 - pi).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_expectation_one_under_the_null() {
        for pi in [0.01, 0.1, 0.5] {
            for (ratio, null) in [(2.0, 1.0), (0.6, 1.5)] {
                let theta = null * pi / (null * pi + 1.0 - pi);
                let expectation = theta * likelihood_ratio(true, pi, ratio, null)
                    + (1.0 - theta) * likelihood_ratio(false, pi, ratio, null);
                assert!((expectation - 1.0).abs() < 1e-14);
            }
        }
    }

    #[test]
    fn a_burst_of_events_in_a_small_canary_is_harm() {
        let mut process = RateRatioEProcess::harm();
        for i in 0..20 {
            process.update(i % 2 == 0, 0.05).unwrap();
        }
        assert!(process.log_e() > 100.0_f64.ln());
        assert_eq!((process.events(), process.canary_events()), (20, 10));
    }

    #[test]
    fn quiet_canaries_advance() {
        let mut process = RateRatioEProcess::noninferiority(2.0).unwrap();
        for i in 0..200 {
            process.update(i % 10 == 0, 0.1).unwrap();
        }
        assert!(process.peak_log_e() > 20.0_f64.ln());
    }
}
