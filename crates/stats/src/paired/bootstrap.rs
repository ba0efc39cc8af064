//! Paired bootstrap: resample rows with the same indices for both models, so that what the models share cancels.
//!
//! Efron & Tibshirani (1993), chapters 13 (percentile) and 14 (BCa). For rows that hang together (several rows of one
//! customer) resample clusters: let an index stand for a cluster and expand it in the statistic.

use crate::error::{Result, StatsError, not_empty, open_unit};
use crate::paired::Interval;
use crate::rng::SeededRng;
use crate::special::{normal_cdf, normal_quantile};

/// At most this many groups are left out in turn for the acceleration of BCa.
const JACKKNIFE_GROUPS: usize = 200;

/// The replicates of a statistic, from which intervals are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// The statistic on the rows as they are.
    pub estimate: f64,
    /// The statistic on each resample, ascending.
    pub replicates: Vec<f64>,
    /// Resamples on which the statistic was undefined (for instance one class only); they are left out.
    pub undefined: u64,
    /// The seed, for the decision record.
    pub seed: u64,
    /// BCa acceleration, from a grouped jackknife; 0 when it could not be had.
    pub acceleration: f64,
}

/// Draws `resamples` (2000 or more for an interval) of `rows` indices with replacement and computes `statistic`.
/// Fails when the statistic fails on the rows as they are, or on more than one resample in ten.
pub fn paired_bootstrap(
    seed: u64,
    resamples: usize,
    rows: usize,
    statistic: impl Fn(&[usize]) -> Result<f64>,
) -> Result<Bootstrap> {
    not_empty("rows", rows)?;
    not_empty("resamples", resamples)?;
    let all: Vec<usize> = (0..rows).collect();
    let estimate = statistic(&all)?;
    let mut rng = SeededRng::new(seed);
    let mut indices = vec![0; rows];
    let mut replicates = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        indices.fill_with(|| rng.below(rows));
        if let Ok(value) = statistic(&indices)
            && value.is_finite()
        {
            replicates.push(value);
        }
    }
    let undefined = resamples - replicates.len();
    if undefined * 10 > resamples {
        return Err(StatsError::degenerate(format!(
            "the statistic is undefined on {undefined} of {resamples} resamples: there are too few rows"
        )));
    }
    replicates.sort_unstable_by(f64::total_cmp);
    let acceleration = acceleration(&all, &statistic);
    Ok(Bootstrap {
        estimate,
        replicates,
        undefined: undefined as u64,
        seed,
        acceleration,
    })
}

/// Σ(θ̄ − θ₍ᵢ₎)³ / (6·(Σ(θ̄ − θ₍ᵢ₎)²)^1.5) over leave-one-group-out values.
fn acceleration(all: &[usize], statistic: impl Fn(&[usize]) -> Result<f64>) -> f64 {
    let groups = all.len().min(JACKKNIFE_GROUPS);
    let left_out: Vec<f64> = (0..groups)
        .filter_map(|group| {
            let kept: Vec<usize> = all.iter().copied().filter(|row| row % groups != group).collect();
            if kept.is_empty() {
                None
            } else {
                statistic(&kept).ok()
            }
        })
        .collect();
    let mean = left_out.iter().sum::<f64>() / left_out.len().max(1) as f64;
    let squares: f64 = left_out.iter().map(|v| (mean - v).powi(2)).sum();
    let cubes: f64 = left_out.iter().map(|v| (mean - v).powi(3)).sum();
    let acceleration = cubes / (6.0 * squares.powf(1.5));
    if acceleration.is_finite() {
        acceleration
    } else {
        0.0
    }
}

impl Bootstrap {
    /// Standard deviation of the replicates.
    pub fn std_error(&self) -> f64 {
        let n = self.replicates.len() as f64;
        let mean = self.replicates.iter().sum::<f64>() / n;
        (self.replicates.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt()
    }

    /// Percentile interval: the middle `level` of the replicates.
    pub fn percentile(&self, level: f64) -> Result<Interval> {
        open_unit("level", level)?;
        let tail = (1.0 - level) / 2.0;
        Ok(Interval {
            lower: self.quantile(tail),
            upper: self.quantile(1.0 - tail),
            level,
        })
    }

    /// Bias-corrected and accelerated interval; the percentile interval when all replicates lie on one side.
    pub fn bca(&self, level: f64) -> Result<Interval> {
        open_unit("level", level)?;
        let n = self.replicates.len() as f64;
        let below = self.replicates.partition_point(|v| *v < self.estimate) as f64;
        let equal = self.replicates.partition_point(|v| *v <= self.estimate) as f64 - below;
        let bias = normal_quantile((below + equal / 2.0) / n);
        if !bias.is_finite() {
            return self.percentile(level);
        }
        let adjusted = |tail: f64| {
            let shifted = bias + normal_quantile(tail);
            normal_cdf(bias + shifted / (1.0 - self.acceleration * shifted))
        };
        let tail = (1.0 - level) / 2.0;
        let (lower, upper) = (self.quantile(adjusted(tail)), self.quantile(adjusted(1.0 - tail)));
        Ok(Interval { lower, upper, level })
    }

    /// Linear interpolation between order statistics (R type 7).
    fn quantile(&self, p: f64) -> f64 {
        let position = p.clamp(0.0, 1.0) * (self.replicates.len() - 1) as f64;
        let low = position.floor() as usize;
        let high = (low + 1).min(self.replicates.len() - 1);
        let part = position - low as f64;
        self.replicates[low] * (1.0 - part) + self.replicates[high] * part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skewed(n: usize) -> Vec<f64> {
        let mut rng = SeededRng::new(3);
        (0..n).map(|_| -(1.0 - rng.uniform()).ln()).collect()
    }

    fn mean_of(values: &[f64]) -> impl Fn(&[usize]) -> Result<f64> + '_ {
        |rows| Ok(rows.iter().map(|i| values[*i]).sum::<f64>() / rows.len() as f64)
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let values = skewed(50);
        let one = paired_bootstrap(1, 500, 50, mean_of(&values)).unwrap();
        let two = paired_bootstrap(1, 500, 50, mean_of(&values)).unwrap();
        let other = paired_bootstrap(2, 500, 50, mean_of(&values)).unwrap();
        assert_eq!(one, two);
        assert_ne!(one.replicates, other.replicates);
    }

    #[test]
    fn the_standard_error_is_that_of_the_mean_and_bca_leans_to_the_long_tail() {
        let values = skewed(200);
        let mean = values.iter().sum::<f64>() / 200.0;
        let sd = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 199.0).sqrt();
        let boot = paired_bootstrap(5, 4000, 200, mean_of(&values)).unwrap();
        assert!((boot.std_error() / (sd / 200.0_f64.sqrt()) - 1.0).abs() < 0.05);
        let (percentile, bca) = (boot.percentile(0.95).unwrap(), boot.bca(0.95).unwrap());
        assert!(
            bca.lower > percentile.lower && bca.upper > percentile.upper,
            "{percentile:?} {bca:?}"
        );
    }

    #[test]
    fn a_statistic_that_is_mostly_undefined_is_an_error() {
        let fails = |rows: &[usize]| {
            if rows[0] == 0 {
                Ok(1.0)
            } else {
                Err(StatsError::degenerate("no"))
            }
        };
        assert!(matches!(
            paired_bootstrap(1, 100, 10, fails),
            Err(StatsError::Degenerate { .. })
        ));
    }
}
