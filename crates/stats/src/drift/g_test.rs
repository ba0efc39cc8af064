//! G-test (likelihood ratio).

use super::{Direction, Kind, Method, Pair};
use crate::error::{Result, StatsError};
use crate::special::chi_squared_sf;

pub(super) static METHOD: Method = Method {
    name: "g_test",
    kinds: &[Kind::Categorical],
    default_threshold: 0.1,
    direction: Direction::Below,
    doc: "P-value of the G-test 2·Σ obs·ln(obs/exp) with the raw reference counts expected: both samples must have the same number of rows, as in Evidently.",
    compute,
};

/// 2·Σ obs·ln(obs/exp) on k − 1 degrees of freedom (Woolf 1957).
fn compute(pair: &Pair<'_>) -> Result<f64> {
    if pair.reference_rows() != pair.current_rows() {
        let why = format!(
            "it needs as many current as reference rows, there are {} and {}; use `chisquare`",
            pair.current_rows(),
            pair.reference_rows()
        );
        return Err(StatsError::not_applicable(METHOD.name, why));
    }
    let counts = pair.value_counts();
    if counts.len() < 2 {
        return Err(StatsError::degenerate(
            "there is one distinct value, so no degree of freedom is left",
        ));
    }
    let term = |(expected, observed): &(u64, u64)| {
        let (expected, observed) = (*expected as f64, *observed as f64);
        if observed > 0.0 {
            2.0 * observed * (observed / expected).ln()
        } else {
            0.0
        }
    };
    Ok(chi_squared_sf(
        counts.iter().map(term).sum(),
        (counts.len() - 1) as f64,
    ))
}
