//! McNemar's test on the rows where two classifiers disagree (McNemar 1947; mid-p: Fagerland, Lydersen & Laake 2013).

use crate::special::{binomial_cdf, binomial_pmf, chi_squared_sf};
use serde::{Deserialize, Serialize};

/// All four forms of the test. Use `p_exact` or `p_mid` when `b + c < 25`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Rows where the champion is right and the challenger wrong.
    pub b: u64,
    /// Rows where the challenger is right and the champion wrong.
    pub c: u64,
    /// (b − c)²/(b + c).
    pub chi_squared: f64,
    /// P-value of `chi_squared` with one degree of freedom.
    pub p_chi_squared: f64,
    /// (|b − c| − 1)²/(b + c), Edwards' continuity correction.
    pub corrected: f64,
    /// P-value of `corrected`.
    pub p_corrected: f64,
    /// min(1, 2·P(Bin(b + c, ½) ≤ min(b, c))).
    pub p_exact: f64,
    /// `p_exact` with half the probability of the outcome itself taken off each side.
    pub p_mid: f64,
}

/// Tests "both are right equally often". With no row of disagreement there is no evidence: every p-value is 1.
pub fn mcnemar(b: u64, c: u64) -> McNemar {
    let n = b + c;
    if n == 0 {
        let (chi_squared, corrected) = (0.0, 0.0);
        return McNemar {
            b,
            c,
            chi_squared,
            p_chi_squared: 1.0,
            corrected,
            p_corrected: 1.0,
            p_exact: 1.0,
            p_mid: 1.0,
        };
    }
    let gap = b.abs_diff(c) as f64;
    let chi_squared = gap * gap / n as f64;
    // As statsmodels: the correction is applied even when b = c, and squared.
    let corrected = (gap - 1.0).powi(2) / n as f64;
    let smaller = b.min(c);
    let p_exact = (2.0 * binomial_cdf(smaller, n, 0.5)).min(1.0);
    // At b = c the two halves of the outcome itself overlap.
    let p_mid = if b == c {
        1.0 - 0.5 * binomial_pmf(smaller, n, 0.5)
    } else {
        2.0 * binomial_cdf(smaller, n, 0.5) - binomial_pmf(smaller, n, 0.5)
    };
    McNemar {
        b,
        c,
        chi_squared,
        p_chi_squared: chi_squared_sf(chi_squared, 1.0),
        corrected,
        p_corrected: chi_squared_sf(corrected, 1.0),
        p_exact,
        p_mid,
    }
}

/// Counts `(b, c)` from row-wise correctness of champion and challenger.
pub fn disagreements(correct_a: &[bool], correct_b: &[bool]) -> crate::Result<(u64, u64)> {
    crate::error::same_length("correct_b", correct_a.len(), correct_b.len())?;
    let count = |pair: (bool, bool)| {
        correct_a
            .iter()
            .zip(correct_b)
            .filter(|(a, b)| (**a, **b) == pair)
            .count() as u64
    };
    Ok((count((true, false)), count((false, true))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_disagreement_is_no_evidence() {
        assert_eq!(mcnemar(0, 0).p_exact, 1.0);
    }

    #[test]
    fn mid_p_at_equality_is_below_one() {
        assert!((mcnemar(1, 1).p_mid - 0.75).abs() < 1e-12);
    }
}
