//! Champion against challenger in shadow, on the same rows, as labels mature.

use crate::error::{Result, StatsError};
use crate::exact_float;
use crate::sequential::betting::BettingEProcess;
use crate::sequential::rejects;
use serde::{Deserialize, Serialize};

/// What paired losses show so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairedDecision {
    /// The challenger is shown to be worse by more than the margin.
    Worse,
    /// The challenger is shown to be better than the champion.
    Superior,
    /// The challenger is shown to be no worse than the margin allows.
    NonInferior,
    /// Not enough data.
    Undecided,
}

/// Anytime-valid comparison of mean losses, d = loss(champion) − loss(challenger) per row: above 0, the challenger is
/// better. For losses in [0, 1] (Brier) d lies in [−1, 1].
///
/// Two betting e-processes (F5): one on d + margin, whose "up" is non-inferiority and whose "down" is harm, one on d,
/// whose "up" is superiority.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedLossEProcess {
    #[serde(with = "exact_float")]
    margin: f64,
    against_margin: BettingEProcess,
    against_zero: BettingEProcess,
}

impl PairedLossEProcess {
    /// Tolerates a mean loss that is worse by `margin` (0 or more, below 1); differences lie in [−1, 1].
    pub fn new(margin: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&margin) {
            return Err(StatsError::ParameterOutOfRange {
                name: "margin",
                value: margin,
                expected: "0 or more, below 1",
            });
        }
        Ok(Self {
            margin,
            against_margin: BettingEProcess::new(1.0 + margin)?,
            against_zero: BettingEProcess::new(1.0)?,
        })
    }

    /// Adds a labelled row; losses lie in [0, 1].
    pub fn update(&mut self, loss_champion: f64, loss_challenger: f64) -> Result<()> {
        for value in [loss_champion, loss_challenger] {
            if !(0.0..=1.0).contains(&value) {
                return Err(StatsError::ParameterOutOfRange {
                    name: "loss",
                    value,
                    expected: "a loss from 0 to 1",
                });
            }
        }
        let d = loss_champion - loss_challenger;
        self.against_margin.update(d + self.margin)?;
        self.against_zero.update(d)
    }

    /// Rows so far.
    pub fn count(&self) -> u64 {
        self.against_zero.count()
    }

    /// Mean of d; absent before the first row.
    pub fn mean_difference(&self) -> Option<f64> {
        self.against_zero.mean()
    }

    /// The tolerated mean loss.
    pub fn margin(&self) -> f64 {
        self.margin
    }

    /// Most evidence so far for mean d > −margin.
    pub fn log_e_noninferior(&self) -> f64 {
        self.against_margin.peak_log_e_up()
    }

    /// Most evidence so far for mean d < −margin.
    pub fn log_e_worse(&self) -> f64 {
        self.against_margin.peak_log_e_down()
    }

    /// Most evidence so far for mean d > 0.
    pub fn log_e_superior(&self) -> f64 {
        self.against_zero.peak_log_e_up()
    }

    /// Most evidence so far for mean d < 0.
    pub fn log_e_inferior(&self) -> f64 {
        self.against_zero.peak_log_e_down()
    }

    /// Harm at level `alpha_harm` comes first, then superiority, then non-inferiority at level `alpha_promote`.
    pub fn decision(&self, alpha_promote: f64, alpha_harm: f64) -> PairedDecision {
        if rejects(self.log_e_worse(), alpha_harm) {
            PairedDecision::Worse
        } else if rejects(self.log_e_superior(), alpha_promote) {
            PairedDecision::Superior
        } else if rejects(self.log_e_noninferior(), alpha_promote) {
            PairedDecision::NonInferior
        } else {
            PairedDecision::Undecided
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SeededRng;

    fn run(shift: f64, rows: usize) -> PairedLossEProcess {
        let mut rng = SeededRng::new(9);
        let mut process = PairedLossEProcess::new(0.01).unwrap();
        for _ in 0..rows {
            let champion = 0.1 + 0.2 * rng.uniform();
            let challenger = (champion + shift + 0.1 * (rng.uniform() - 0.5)).clamp(0.0, 1.0);
            process.update(champion, challenger).unwrap();
        }
        process
    }

    #[test]
    fn better_equal_and_worse_challengers_are_told_apart() {
        assert_eq!(run(-0.02, 3000).decision(0.05, 0.01), PairedDecision::Superior);
        assert_eq!(run(0.0, 3000).decision(0.05, 0.01), PairedDecision::NonInferior);
        assert_eq!(run(0.03, 3000).decision(0.05, 0.01), PairedDecision::Worse);
        assert_eq!(run(0.0, 50).decision(0.05, 0.01), PairedDecision::Undecided);
    }

    #[test]
    fn a_loss_outside_the_unit_interval_is_refused() {
        assert!(PairedLossEProcess::new(0.0).unwrap().update(0.5, 1.5).is_err());
    }
}
