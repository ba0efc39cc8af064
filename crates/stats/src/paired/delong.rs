//! DeLong's test: are two correlated AUCs different?
//!
//! DeLong, DeLong & Clarke-Pearson (1988), in the O(n log n) midrank form of Sun & Xu (2014). Golden values: pROC's
//! own test suite on the aSAH data.

use crate::error::{Result, StatsError, all_finite, open_unit, same_length};
use crate::paired::Interval;
use crate::ranks::{argsort, tie_groups};
use crate::special::{normal_quantile, normal_two_sided};
use serde::{Deserialize, Serialize};

/// Two AUCs on the same rows and the uncertainty of their difference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeLong {
    /// AUC of the champion.
    pub auc_a: f64,
    /// AUC of the challenger.
    pub auc_b: f64,
    /// Variance of `auc_a`.
    pub var_a: f64,
    /// Variance of `auc_b`.
    pub var_b: f64,
    /// Covariance of both.
    pub cov: f64,
    /// `auc_b − auc_a`.
    pub difference: f64,
    /// Standard error of the difference; 0 when both models rank every pair alike.
    pub std_error: f64,
    /// Difference in standard errors; 0 when the models rank every pair alike.
    pub z: f64,
    /// P-value of "both AUCs are equal"; 1 when the models rank every pair alike.
    pub p_two_sided: f64,
}

impl DeLong {
    /// Normal confidence interval of the difference.
    pub fn interval(&self, level: f64) -> Result<Interval> {
        open_unit("level", level)?;
        let half = normal_quantile(f64::midpoint(1.0, level)) * self.std_error;
        Ok(Interval {
            lower: self.difference - half,
            upper: self.difference + half,
            level,
        })
    }
}

/// Compares the AUCs of scores `a` (champion) and `b` (challenger). Needs two rows of each class.
pub fn delong(labels: &[bool], a: &[f64], b: &[f64]) -> Result<DeLong> {
    same_length("a", labels.len(), a.len())?;
    same_length("b", labels.len(), b.len())?;
    all_finite(a)?;
    all_finite(b)?;
    let positives = labels.iter().filter(|l| **l).count();
    let negatives = labels.len() - positives;
    if positives == 0 || negatives == 0 {
        return Err(StatsError::OneClassOnly { rows: labels.len() });
    }
    if positives < 2 || negatives < 2 {
        return Err(StatsError::degenerate(format!(
            "a variance needs two rows of each class, there are {positives} true and {negatives} false"
        )));
    }
    let placed_a = Placements::of(labels, a, positives, negatives);
    let placed_b = Placements::of(labels, b, positives, negatives);
    let (m, n) = (positives as f64, negatives as f64);
    let variance = |x: &Placements, y: &Placements| {
        covariance(&x.positive, &y.positive) / m + covariance(&x.negative, &y.negative) / n
    };
    let auc_a = mean(&placed_a.positive);
    let auc_b = mean(&placed_b.positive);
    let (var_a, var_b, cov) = (
        variance(&placed_a, &placed_a),
        variance(&placed_b, &placed_b),
        variance(&placed_a, &placed_b),
    );
    let difference = auc_b - auc_a;
    // Placements that agree row by row differ by exactly zero; a rounding residue of the subtraction would not.
    let identical = placed_a == placed_b;
    let std_error = if identical {
        0.0
    } else {
        (var_a + var_b - 2.0 * cov).max(0.0).sqrt()
    };
    let (z, p_two_sided) = if difference == 0.0 {
        (0.0, 1.0)
    } else if std_error == 0.0 {
        return Err(StatsError::degenerate(
            "the AUCs differ but their difference has no variance: too few rows",
        ));
    } else {
        let z = difference / std_error;
        (z, normal_two_sided(z))
    };
    Ok(DeLong {
        auc_a,
        auc_b,
        var_a,
        var_b,
        cov,
        difference,
        std_error,
        z,
        p_two_sided,
    })
}

/// For each positive the share of negatives below it (V10), for each negative the share of positives above it (V01).
#[derive(PartialEq)]
struct Placements {
    positive: Vec<f64>,
    negative: Vec<f64>,
}

impl Placements {
    fn of(labels: &[bool], scores: &[f64], positives: usize, negatives: usize) -> Self {
        let order = argsort(scores);
        let mut by_row = vec![0.0; labels.len()];
        let (mut positives_below, mut negatives_below) = (0_usize, 0_usize);
        for group in tie_groups(scores, &order) {
            let members = &order[group];
            let group_positives = members.iter().filter(|i| labels[**i as usize]).count();
            let group_negatives = members.len() - group_positives;
            let positives_above = positives - positives_below - group_positives;
            let share_below = (negatives_below as f64 + group_negatives as f64 / 2.0) / negatives as f64;
            let share_above = (positives_above as f64 + group_positives as f64 / 2.0) / positives as f64;
            for &row in members {
                by_row[row as usize] = if labels[row as usize] {
                    share_below
                } else {
                    share_above
                };
            }
            positives_below += group_positives;
            negatives_below += group_negatives;
        }
        let mut placements = Self {
            positive: Vec::with_capacity(positives),
            negative: Vec::with_capacity(negatives),
        };
        for (label, placement) in labels.iter().zip(by_row) {
            if *label {
                placements.positive.push(placement);
            } else {
                placements.negative.push(placement);
            }
        }
        placements
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn covariance(x: &[f64], y: &[f64]) -> f64 {
    let (mean_x, mean_y) = (mean(x), mean(y));
    let sum: f64 = x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    sum / (x.len() - 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_rank_alike_do_not_differ() {
        let labels = [true, false, true, false, true];
        let scores = [0.9, 0.2, 0.4, 0.5, 0.7];
        let doubled: Vec<f64> = scores.iter().map(|s| s * 2.0).collect();
        let got = delong(&labels, &scores, &doubled).unwrap();
        assert_eq!((got.difference, got.std_error, got.p_two_sided), (0.0, 0.0, 1.0));
    }

    #[test]
    fn one_row_of_a_class_has_no_variance() {
        let got = delong(&[true, false, false], &[0.9, 0.1, 0.2], &[0.1, 0.2, 0.3]);
        assert!(matches!(got, Err(StatsError::Degenerate { .. })));
    }
}
