//! Which trials are not worth going on with: at each band, the trials that reached it are ranked by their best value so far, and
//! one of `eta` goes on (Li et al., "Hyperband", JMLR 18, 2018; W&B's `early_terminate`).

use super::space::Hyperband;

/// What a trial has reported so far, in order.
#[derive(Clone, PartialEq, Debug)]
pub struct Curve {
    /// Which trial.
    pub trial: i64,
    /// Whether it still runs: only then can it be stopped.
    pub running: bool,
    /// Its reports.
    pub values: Vec<f64>,
}

/// The trials to stop, in the order of `curves`.
pub fn to_stop(rule: &Hyperband, maximize: bool, curves: &[Curve]) -> Vec<i64> {
    let loss_at = |curve: &Curve, band: usize| {
        let losses = curve.values.iter().take(band).filter(|value| value.is_finite());
        let losses = losses.map(|value| if maximize { -value } else { *value });
        losses.fold(f64::INFINITY, f64::min)
    };
    curves
        .iter()
        .filter(|curve| curve.running)
        .filter(|curve| {
            let reached = rule.bands.iter().rev().find(|band| curve.values.len() >= **band);
            let Some(&band) = reached else {
                return false;
            };
            let rivals: Vec<f64> = curves
                .iter()
                .filter(|rival| rival.values.len() >= band)
                .map(|rival| loss_at(rival, band))
                .collect();
            // With fewer than `eta` at a band nobody is the best of `eta`.
            if (rivals.len() as f64) < rule.eta {
                return false;
            }
            let own = loss_at(curve, band);
            let better = rivals.iter().filter(|rival| **rival < own).count();
            let keep = (rivals.len() as f64 / rule.eta).floor().max(1.0) as usize;
            better >= keep
        })
        .map(|curve| curve.trial)
        .collect()
}
