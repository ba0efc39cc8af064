//! How many events until a decision? To be shown before a rollout starts.

use crate::error::{Result, StatsError, open_unit, positive};
use crate::rng::SeededRng;
use crate::sequential::rare_events::{HARM_RATIOS, NONINFERIORITY_RATIOS, likelihood_ratio};
use serde::{Deserialize, Serialize};

/// Streams that are simulated.
const SIMULATIONS: usize = 2000;
/// Events after which a stream counts as undecided.
const HORIZON: u64 = 6000;
const SEED: u64 = 0x7164_6d69_6c6c;

/// Operating characteristics of a rate-ratio test, in events over both arms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventsNeeded {
    /// Half of the streams are decided by then; absent when fewer than half are decided within the horizon.
    pub median: Option<u64>,
    /// Nine in ten streams are decided by then; absent when fewer are decided within the horizon.
    pub p90: Option<u64>,
    /// Share of streams that are decided within the horizon.
    pub decided: f64,
    /// Events after which a stream counts as undecided.
    pub horizon: u64,
}

/// Events until harm is shown when the canary's event rate is `true_ratio` times the control's, at canary share
/// `share` and level `alpha`. A simulation with a fixed seed: the same arguments give the same answer.
pub fn events_needed(true_ratio: f64, share: f64, alpha: f64) -> Result<EventsNeeded> {
    simulate(true_ratio, share, alpha, 1.0, &HARM_RATIOS)
}

/// Events until "less than `tolerated_ratio` times the control's rate" is shown when the ratio is `true_ratio`.
pub fn events_needed_noninferiority(
    tolerated_ratio: f64,
    true_ratio: f64,
    share: f64,
    alpha: f64,
) -> Result<EventsNeeded> {
    if !(tolerated_ratio > 1.0 && tolerated_ratio.is_finite()) {
        return Err(StatsError::ParameterOutOfRange {
            name: "tolerated_ratio",
            value: tolerated_ratio,
            expected: "a ratio above 1, for instance 1.5",
        });
    }
    simulate(true_ratio, share, alpha, tolerated_ratio, &NONINFERIORITY_RATIOS)
}

fn simulate(true_ratio: f64, share: f64, alpha: f64, null_ratio: f64, grid: &[f64]) -> Result<EventsNeeded> {
    positive("true_ratio", true_ratio)?;
    open_unit("share", share)?;
    open_unit("alpha", alpha)?;
    let in_canary = true_ratio * share / (true_ratio * share + 1.0 - share);
    let factors = |canary: bool| -> Vec<f64> {
        grid.iter()
            .map(|ratio| likelihood_ratio(canary, share, *ratio, null_ratio))
            .collect()
    };
    let (canary_factors, control_factors) = (factors(true), factors(false));
    let threshold = grid.len() as f64 / alpha;
    let mut rng = SeededRng::new(SEED);
    let mut decided_at: Vec<u64> = Vec::with_capacity(SIMULATIONS);
    let mut products = vec![1.0; grid.len()];
    for _ in 0..SIMULATIONS {
        products.fill(1.0);
        for event in 1..=HORIZON {
            let factors = if rng.uniform() < in_canary {
                &canary_factors
            } else {
                &control_factors
            };
            let mut sum = 0.0;
            for (product, factor) in products.iter_mut().zip(factors) {
                *product *= factor;
                sum += *product;
            }
            if sum >= threshold {
                decided_at.push(event);
                break;
            }
        }
    }
    decided_at.sort_unstable();
    let at = |share: f64| {
        decided_at
            .get(((SIMULATIONS as f64 * share).ceil() as usize).saturating_sub(1))
            .copied()
    };
    Ok(EventsNeeded {
        median: at(0.5),
        p90: at(0.9),
        decided: decided_at.len() as f64 / SIMULATIONS as f64,
        horizon: HORIZON,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: Option<u64>, expected: f64) {
        let got = got.unwrap() as f64;
        assert!((got / expected - 1.0).abs() < 0.12, "{got} instead of {expected}");
    }

    /// The table of reference/loop.md §2.4, from an independent simulation.
    #[test]
    fn operating_characteristics_agree_with_the_reference_table() {
        let got = events_needed(1.5, 0.1, 0.01).unwrap();
        near(got.median, 607.0);
        near(got.p90, 1257.0);
        let got = events_needed(3.0, 0.05, 0.01).unwrap();
        near(got.median, 87.0);
        near(got.p90, 200.0);
        let got = events_needed_noninferiority(1.5, 1.0, 0.1, 0.05).unwrap();
        near(got.median, 320.0);
        near(got.p90, 938.0);
    }

    #[test]
    fn equal_rates_are_rarely_called_harm() {
        let got = events_needed(1.0, 0.1, 0.01).unwrap();
        assert!(got.decided <= 0.01, "{}", got.decided);
        assert_eq!(got.median, None);
    }
}
