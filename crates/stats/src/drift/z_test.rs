//! Two-proportion z-test.

use super::{Direction, Kind, Method, Pair};
use crate::error::Result;
use crate::special::normal_two_sided;

pub(super) static METHOD: Method = Method {
    name: "z",
    kinds: &[Kind::Categorical],
    default_threshold: 0.05,
    direction: Direction::Below,
    doc: "P-value of the pooled two-proportion z-test on the share of values other than the smallest: meant for columns of two values.",
    compute,
};

/// (p₁ − p₂)/√(P(1 − P)(1/n₁ + 1/n₂)), two-sided; 1 when both samples hold one and the same value.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature: other methods can fail"
)]
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let counts = pair.value_counts();
    if counts.len() == 1 {
        return Ok(1.0);
    }
    let (n1, n2) = (pair.reference_rows() as f64, pair.current_rows() as f64);
    let (first_ref, first_cur) = counts[0];
    let (p1, p2) = ((n1 - first_ref as f64) / n1, (n2 - first_cur as f64) / n2);
    let pooled = (p1 * n1 + p2 * n2) / (n1 + n2);
    Ok(normal_two_sided(
        (p1 - p2) / (pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n2)).sqrt(),
    ))
}
