//! Mean of paired differences, for losses such as log loss or squared error.

use crate::error::{Result, StatsError, all_finite, open_unit, same_length};
use crate::paired::Interval;
use crate::special::{student_quantile, student_two_sided};
use serde::{Deserialize, Serialize};

/// The mean of `b − a` over rows, with Student's t.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedMean {
    /// Rows.
    pub rows: u64,
    /// Mean of `b − a`, in the unit of the inputs.
    pub difference: f64,
    /// Standard error of the mean.
    pub std_error: f64,
    /// Difference in standard errors; 0 when every pair is equal.
    pub t: f64,
    /// Degrees of freedom, rows − 1.
    pub degrees: f64,
    /// P-value of "the mean difference is zero"; 1 when every pair is equal.
    pub p_two_sided: f64,
}

impl PairedMean {
    /// Student confidence interval of the mean difference.
    pub fn interval(&self, level: f64) -> Result<Interval> {
        open_unit("level", level)?;
        let half = student_quantile(f64::midpoint(1.0, level), self.degrees) * self.std_error;
        Ok(Interval {
            lower: self.difference - half,
            upper: self.difference + half,
            level,
        })
    }
}

/// Paired t-test (Student 1908) of `b` against `a`. For losses pass the champion's as `b` and the challenger's as `a`
/// to have "higher is better for the challenger".
pub fn paired_mean_difference(a: &[f64], b: &[f64]) -> Result<PairedMean> {
    same_length("b", a.len(), b.len())?;
    all_finite(a)?;
    all_finite(b)?;
    if a.len() < 2 {
        return Err(StatsError::degenerate(format!(
            "a spread needs two rows or more, there are {}",
            a.len()
        )));
    }
    let n = a.len() as f64;
    let difference = a.iter().zip(b).map(|(a, b)| b - a).sum::<f64>() / n;
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (b - a - difference).powi(2)).sum();
    let std_error = (squares / (n - 1.0) / n).sqrt();
    let degrees = n - 1.0;
    let (t, p_two_sided) = if difference == 0.0 {
        (0.0, 1.0)
    } else if std_error == 0.0 {
        return Err(StatsError::degenerate(
            "every row differs by the same amount, so there is no spread to test with",
        ));
    } else {
        let t = difference / std_error;
        (t, student_two_sided(t, degrees))
    };
    Ok(PairedMean {
        rows: a.len() as u64,
        difference,
        std_error,
        t,
        degrees,
        p_two_sided,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paired_t_test_agrees_with_scipy() {
        // scipy.stats.ttest_rel([2.1,1.9,3.2,4.0,2.2],[1.8,1.7,3.3,3.1,2.0]) and its confidence_interval(.95)
        let got = paired_mean_difference(&[1.8, 1.7, 3.3, 3.1, 2.0], &[2.1, 1.9, 3.2, 4.0, 2.2]).unwrap();
        assert!(
            (got.t - 1.825741858350555).abs() < 1e-12
                && (got.p_two_sided - 0.14192744777405533).abs() < 1e-12,
            "{got:?}"
        );
        let interval = got.interval(0.95).unwrap();
        assert!(
            (interval.lower - -0.1562164841374904).abs() < 1e-11,
            "{interval:?}"
        );
    }

    #[test]
    fn equal_pairs_do_not_differ() {
        assert_eq!(
            paired_mean_difference(&[1.0, 2.0], &[1.0, 2.0])
                .unwrap()
                .p_two_sided,
            1.0
        );
    }
}
