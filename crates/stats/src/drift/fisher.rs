//! Fisher's exact test.

use super::{Direction, Kind, Method, Pair};
use crate::error::{Result, StatsError};
use crate::special::ln_choose;

pub(super) static METHOD: Method = Method {
    name: "fisher_exact",
    kinds: &[Kind::Categorical],
    default_threshold: 0.1,
    direction: Direction::Below,
    doc: "P-value of Fisher's exact test on the 2×2 table of counts: at most two values and as many current as reference rows, as in Evidently.",
    compute,
};

/// Sum of the hypergeometric probabilities that are at most the observed one (Fisher 1935).
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (distinct_ref, distinct_cur) = pair.distinct_each();
    if distinct_ref > 2 || distinct_cur > 2 {
        let why = format!(
            "it takes two values at most, there are {distinct_ref} and {distinct_cur}; use `chisquare`"
        );
        return Err(StatsError::not_applicable(METHOD.name, why));
    }
    if pair.reference_rows() != pair.current_rows() {
        let why = format!(
            "it needs as many current as reference rows, there are {} and {}; use `z`",
            pair.current_rows(),
            pair.reference_rows()
        );
        return Err(StatsError::not_applicable(METHOD.name, why));
    }
    // The smallest value of the union is "zero", everything else "one".
    let (zero_ref, zero_cur) = pair.value_counts()[0];
    let n = pair.reference_rows() as u64;
    Ok(two_sided(n - zero_cur, n, n - zero_ref, n))
}

/// Two-sided p-value of `x` successes in `n` against `y` in `m`.
fn two_sided(x: u64, n: u64, y: u64, m: u64) -> f64 {
    let successes = x + y;
    let ln_total = ln_choose((n + m) as f64, successes as f64);
    let ln_probability =
        |k: u64| ln_choose(n as f64, k as f64) + ln_choose(m as f64, (successes - k) as f64) - ln_total;
    let limit = ln_probability(x) + 1e-7;
    let (low, high) = (successes.saturating_sub(m), successes.min(n));
    let tables = (low..=high).map(ln_probability).filter(|ln_p| *ln_p <= limit);
    tables.map(f64::exp).sum::<f64>().min(1.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tea_tasting_lady() {
        assert!((super::two_sided(3, 4, 1, 4) - 34.0 / 70.0).abs() < 1e-12);
    }
}
