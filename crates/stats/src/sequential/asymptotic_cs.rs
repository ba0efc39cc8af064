//! Asymptotic confidence sequence for a mean (F3; Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, Annals of
//! Statistics 52(6), 2024): an interval that is valid at every sample size at once, for large samples.
//!
//! With few events the plug-in variance is too small and the guarantee is lost: 36 % false rejections were measured at
//! a 10 % share without a start rule. Ask [`AsymptoticCs::may_start`] first.

use crate::error::{Result, StatsError, open_unit, positive};
use crate::exact_float;
use crate::paired::Interval;
use serde::{Deserialize, Serialize};

/// Count, mean and sum of squared deviations, updated one value at a time (Welford 1962).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Values so far.
    pub count: u64,
    /// Their mean.
    #[serde(with = "exact_float")]
    pub mean: f64,
    /// Σ (value − mean)².
    #[serde(with = "exact_float")]
    pub squares: f64,
}

impl Moments {
    /// Adds a value.
    pub fn update(&mut self, value: f64) -> Result<()> {
        if !value.is_finite() {
            return Err(StatsError::NotFinite {
                index: self.count as usize,
                value,
            });
        }
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
        Ok(())
    }

    /// Sample variance (n − 1); 0 for fewer than two values.
    pub fn variance(&self) -> f64 {
        if self.count < 2 {
            0.0
        } else {
            self.squares / (self.count - 1) as f64
        }
    }
}

/// What the rule for a start needs to know of an arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// Units in the arm.
    pub units: u64,
    /// Units with the event (conversion, error).
    pub events: u64,
}

/// The confidence sequence: level and the sample size at which it is tightest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AsymptoticCs {
    /// Error probability over all looks together.
    #[serde(with = "exact_float")]
    alpha: f64,
    /// The free parameter ρ.
    #[serde(with = "exact_float")]
    rho: f64,
}

impl AsymptoticCs {
    /// Events and non-events that each arm must show before the first look.
    pub const MIN_EVENTS: u64 = 10;

    /// Tightest near `tightest_at` units: ρ = √((−2·ln α + ln(−2·ln α) + 1)/t*).
    pub fn new(alpha: f64, tightest_at: f64) -> Result<Self> {
        open_unit("alpha", alpha)?;
        positive("tightest_at", tightest_at)?;
        let twice = -2.0 * alpha.ln();
        let inner = twice + twice.ln() + 1.0;
        if inner <= 0.0 {
            return Err(StatsError::ParameterOutOfRange {
                name: "alpha",
                value: alpha,
                expected: "below 0.8",
            });
        }
        Ok(Self {
            alpha,
            rho: (inner / tightest_at).sqrt(),
        })
    }

    /// The parameter ρ.
    pub fn rho(&self) -> f64 {
        self.rho
    }

    /// Half the width of the two-sided interval after `units` values of this `variance`:
    /// σ·√(2(tρ² + 1)/(t²ρ²)·ln(√(tρ² + 1)/α)).
    pub fn half_width(&self, units: u64, variance: f64) -> Result<f64> {
        let log_term = |scaled: f64| (scaled.sqrt() / self.alpha).ln();
        self.width(units, variance, log_term)
    }

    /// Distance from the mean to a one-sided bound: ln(1 + √(tρ² + 1)/(2α)) in place of the logarithm above.
    pub fn one_sided_width(&self, units: u64, variance: f64) -> Result<f64> {
        let log_term = |scaled: f64| (scaled.sqrt() / (2.0 * self.alpha)).ln_1p();
        self.width(units, variance, log_term)
    }

    fn width(&self, units: u64, variance: f64, log_term: impl Fn(f64) -> f64) -> Result<f64> {
        crate::error::not_empty("units", units as usize)?;
        if !(variance >= 0.0 && variance.is_finite()) {
            return Err(StatsError::ParameterOutOfRange {
                name: "variance",
                value: variance,
                expected: "a finite number, 0 or more",
            });
        }
        let t = units as f64;
        let scaled = t * self.rho * self.rho + 1.0;
        Ok((variance * 2.0 * scaled / (t * t * self.rho * self.rho) * log_term(scaled)).sqrt())
    }

    /// The two-sided interval of a running mean.
    pub fn interval(&self, moments: &Moments) -> Result<Interval> {
        let half = self.half_width(moments.count, moments.variance())?;
        Ok(Interval {
            lower: moments.mean - half,
            upper: moments.mean + half,
            level: 1.0 - self.alpha,
        })
    }

    /// One-sided bounds; each holds at level 1 − α alone.
    pub fn one_sided_bounds(&self, moments: &Moments) -> Result<Interval> {
        let width = self.one_sided_width(moments.count, moments.variance())?;
        Ok(Interval {
            lower: moments.mean - width,
            upper: moments.mean + width,
            level: 1.0 - self.alpha,
        })
    }

    /// The start rule: at least 10 events and 10 non-events in each arm.
    pub fn may_start(canary: ArmCounts, control: ArmCounts) -> bool {
        let enough = |arm: ArmCounts| {
            arm.events >= Self::MIN_EVENTS && arm.units.saturating_sub(arm.events) >= Self::MIN_EVENTS
        };
        enough(canary) && enough(control)
    }

    /// The start rule for a pooled variance: 5 events expected in the canary at the pooled rate.
    pub fn may_start_pooled(canary: ArmCounts, control: ArmCounts) -> bool {
        let units = canary.units + control.units;
        let events = canary.events + control.events;
        units > 0 && canary.units as f64 * events as f64 / units as f64 >= 5.0
    }
}

/// The increment for an A/B mean: D = (Y − ŷ)·(W/π − (1 − W)/(1 − π)), whose mean is the effect for any shares π that
/// are fixed before the request. `predicted` is any guess of Y made from the past (the champion's prediction).
pub fn ipw_increment(outcome: f64, predicted: f64, canary: bool, canary_share: f64) -> Result<f64> {
    open_unit("canary_share", canary_share)?;
    let weight = if canary {
        1.0 / canary_share
    } else {
        -1.0 / (1.0 - canary_share)
    };
    Ok((outcome - predicted) * weight)
}

/// The bound B = max(1/π, 1/(1 − π)) on |[`ipw_increment`]| when |Y − ŷ| is at most 1.
pub fn ipw_bound(canary_share: f64) -> Result<f64> {
    open_unit("canary_share", canary_share)?;
    Ok((1.0 / canary_share).max(1.0 / (1.0 - canary_share)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_without_events_may_not_start() {
        let few = ArmCounts {
            units: 1000,
            events: 9,
        };
        let enough = ArmCounts {
            units: 1000,
            events: 10,
        };
        assert!(AsymptoticCs::may_start(enough, enough));
        assert!(!AsymptoticCs::may_start(few, enough));
        assert!(!AsymptoticCs::may_start(
            ArmCounts {
                units: 15,
                events: 10
            },
            enough
        ));
        assert!(AsymptoticCs::may_start_pooled(
            ArmCounts {
                units: 1000,
                events: 0
            },
            enough
        ));
    }

    #[test]
    fn increments_have_the_effect_as_their_mean_and_stay_in_bounds() {
        let share = 0.1;
        // Y = 1 in the canary and 0 in the control, guess 0: E D = π·(1/π) = 1.
        let mean = share * ipw_increment(1.0, 0.0, true, share).unwrap()
            + (1.0 - share) * ipw_increment(0.0, 0.0, false, share).unwrap();
        assert!((mean - 1.0).abs() < 1e-15);
        assert_eq!(ipw_bound(share).unwrap(), 10.0);
    }

    #[test]
    fn moments_agree_with_two_passes() {
        let values = [1e9 + 1.0, 1e9 + 4.0, 1e9 + 7.0];
        let mut moments = Moments::default();
        for value in values {
            moments.update(value).unwrap();
        }
        assert_eq!((moments.mean, moments.variance()), (1e9 + 4.0, 9.0));
    }
}
