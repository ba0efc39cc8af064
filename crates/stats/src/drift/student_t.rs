//! Student's t-test.

use super::{Direction, Kind, Method, Pair};
use crate::error::{Result, StatsError};
use crate::special::student_two_sided;

pub(super) static METHOD: Method = Method {
    name: "t_test",
    kinds: &[Kind::Numeric],
    default_threshold: 0.05,
    direction: Direction::Below,
    doc: "P-value of Student's two-sample t-test with pooled variance: sees changes of the mean only.",
    compute,
};

/// (x̄₁ − x̄₂)/√(s²(1/n₁ + 1/n₂)) on n₁ + n₂ − 2 degrees of freedom, two-sided (Student 1908).
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (reference, current) = pair.numbers(METHOD.name)?;
    let (n1, n2) = (reference.len() as f64, current.len() as f64);
    let degrees = n1 + n2 - 2.0;
    if degrees < 1.0 {
        return Err(StatsError::degenerate(
            "one row a side leaves no degree of freedom",
        ));
    }
    let ((mean1, squares1), (mean2, squares2)) = (mean_squares(reference), mean_squares(current));
    let std_error = ((squares1 + squares2) / degrees * (1.0 / n1 + 1.0 / n2)).sqrt();
    let difference = mean1 - mean2;
    if std_error == 0.0 {
        if difference == 0.0 {
            return Err(StatsError::degenerate(
                "both samples are constant and equal, so there is no spread to test with",
            ));
        }
        return Ok(0.0);
    }
    Ok(student_two_sided(difference / std_error, degrees))
}

/// The mean and Σ (x − mean)².
fn mean_squares(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum())
}
