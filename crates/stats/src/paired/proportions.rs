//! Difference of two paired shares, for instance accuracies of two models on the same rows.

use crate::error::{Result, StatsError, not_empty, open_unit};
use crate::paired::Interval;
use crate::paired::noninferiority::{Noninferiority, judge, noninferiority};
use crate::special::normal_quantile;
use serde::{Deserialize, Serialize};

/// Paired shares: only the rows of disagreement carry information.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedProportions {
    /// Rows where the champion is right and the challenger wrong.
    pub b: u64,
    /// Rows where the challenger is right and the champion wrong.
    pub c: u64,
    /// All rows.
    pub n: u64,
    /// Share of the challenger minus share of the champion: (c − b)/n.
    pub difference: f64,
    /// Wald standard error √((b + c) − (b − c)²/n)/n.
    pub std_error: f64,
}

/// Counts of disagreement to a difference with its standard error.
pub fn paired_proportions(b: u64, c: u64, n: u64) -> Result<PairedProportions> {
    not_empty("n", n as usize)?;
    if b + c > n {
        return Err(StatsError::ParameterOutOfRange {
            name: "n",
            value: n as f64,
            expected: "at least b + c rows",
        });
    }
    let (bf, cf, nf) = (b as f64, c as f64, n as f64);
    let difference = (cf - bf) / nf;
    let std_error = ((bf + cf) - (bf - cf).powi(2) / nf).max(0.0).sqrt() / nf;
    Ok(PairedProportions {
        b,
        c,
        n,
        difference,
        std_error,
    })
}

impl PairedProportions {
    /// Verdict by the Wald bound: fine with 25 disagreements or more.
    pub fn noninferiority(&self, margin: f64, confidence: f64) -> Result<Noninferiority> {
        noninferiority(self.difference, self.std_error, margin, confidence)
    }

    /// Verdict by Tango's score bounds: right for few rows and few disagreements too.
    pub fn noninferiority_score(&self, margin: f64, confidence: f64) -> Result<Noninferiority> {
        open_unit("confidence", confidence)?;
        let Interval { lower, upper, .. } = self.score_interval(2.0 * confidence - 1.0)?;
        judge(self.difference, lower, upper, margin, confidence)
    }

    /// Tango's score interval (Tango, Statistics in Medicine 1998) for the difference c/n − b/n, by bisection on the
    /// score statistic, which falls from one end of [−1, 1] to the other.
    pub fn score_interval(&self, level: f64) -> Result<Interval> {
        open_unit("level", level)?;
        let z = normal_quantile(f64::midpoint(1.0, level));
        let find = |target: f64| {
            let (mut low, mut high) = (-1.0_f64, 1.0_f64);
            for _ in 0..200 {
                let middle = f64::midpoint(low, high);
                if self.score(middle) > target {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            f64::midpoint(low, high)
        };
        Ok(Interval {
            lower: find(z),
            upper: find(-z),
            level,
        })
    }

    /// Tango's score statistic of "the difference is `delta`".
    fn score(&self, delta: f64) -> f64 {
        let (b, c, n) = (self.b as f64, self.c as f64, self.n as f64);
        let quadratic = 2.0 * n;
        let linear = -b - c - (2.0 * n - b + c) * delta;
        let constant = c * delta * (1.0 + delta);
        let root = (linear * linear - 4.0 * quadratic * constant).max(0.0).sqrt();
        // The most likely P(only the challenger is right) when the difference is delta.
        let only_challenger = (root - linear) / (2.0 * quadratic);
        let variance = n * (2.0 * only_challenger - delta * (1.0 + delta));
        let numerator = c - b - n * delta;
        if numerator == 0.0 {
            0.0
        } else {
            numerator / variance.max(0.0).sqrt()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tangos_interval_agrees_with_a_numerical_maximisation_of_the_likelihood() {
        // scipy: minimize_scalar for the restricted likelihood, brentq for the bounds
        let got = paired_proportions(2, 12, 50)
            .unwrap()
            .score_interval(0.95)
            .unwrap();
        assert!(
            (got.lower - 0.0611124).abs() < 1e-7 && (got.upper - 0.3447087).abs() < 1e-7,
            "{got:?}"
        );
    }

    #[test]
    fn exchanging_the_models_mirrors_the_interval() {
        let one = paired_proportions(3, 9, 40).unwrap().score_interval(0.9).unwrap();
        let other = paired_proportions(9, 3, 40).unwrap().score_interval(0.9).unwrap();
        assert!((one.lower + other.upper).abs() < 1e-12 && (one.upper + other.lower).abs() < 1e-12);
    }

    #[test]
    fn no_disagreement_still_has_an_uncertain_difference() {
        let got = paired_proportions(0, 0, 30)
            .unwrap()
            .score_interval(0.95)
            .unwrap();
        assert!(got.lower < -0.05 && got.upper > 0.05, "{got:?}");
    }
}
