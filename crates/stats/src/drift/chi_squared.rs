//! Pearson's χ² test against the reference's shares.

use super::{Direction, Kind, Method, Pair};
use crate::error::{Result, StatsError};
use crate::special::chi_squared_sf;

pub(super) static METHOD: Method = Method {
    name: "chisquare",
    kinds: &[Kind::Categorical],
    default_threshold: 0.05,
    direction: Direction::Below,
    doc: "P-value of the χ² goodness-of-fit test, the reference taken as exact. A value that is new in the current sample gives p = 0 at once.",
    compute,
};

/// Σ (obs − exp)²/exp with exp = reference count · n₂/n₁, on k − 1 degrees of freedom (Pearson 1900).
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let counts = pair.value_counts();
    if counts.len() < 2 {
        return Err(StatsError::degenerate(
            "there is one distinct value, so no degree of freedom is left",
        ));
    }
    let scale = pair.current_rows() as f64 / pair.reference_rows() as f64;
    let term = |(reference, current): &(u64, u64)| {
        let expected = *reference as f64 * scale;
        (*current as f64 - expected).powi(2) / expected
    };
    Ok(chi_squared_sf(
        counts.iter().map(term).sum(),
        (counts.len() - 1) as f64,
    ))
}
