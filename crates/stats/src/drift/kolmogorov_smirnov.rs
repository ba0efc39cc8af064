//! Two-sample Kolmogorov-Smirnov test.

use super::{Direction, Kind, Method, Pair};
use crate::error::{Result, all_finite, not_empty};
use crate::kolmogorov;
use crate::ranks::sorted;
use serde::{Deserialize, Serialize};

pub(super) static METHOD: Method = Method {
    name: "ks",
    kinds: &[Kind::Numeric],
    default_threshold: 0.05,
    direction: Direction::AtMost,
    doc: "P-value of the two-sided Kolmogorov-Smirnov test. With many rows it calls every tiny change drift, and with many columns it needs a correction for multiplicity.",
    compute,
};

/// Exact p-values are computed up to this many rows a side, as scipy does.
const MAX_EXACT_ROWS: usize = 10_000;

/// Result of the two-sample test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KsTest {
    /// sup |F₁ − F₂|, 0 to 1.
    pub statistic: f64,
    /// Two-sided p-value.
    pub p_value: f64,
}

fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (reference, current) = pair.numbers(METHOD.name)?;
    Ok(test(reference, current).p_value)
}

/// The two-sided test as scipy's `ks_2samp`: exact p-value by lattice paths (Hodges 1958) up to 10 000 rows, then
/// the one-sample distribution at n₁n₂/(n₁ + n₂).
pub fn ks_two_sample(a: &[f64], b: &[f64]) -> Result<KsTest> {
    not_empty("a", a.len())?;
    not_empty("b", b.len())?;
    all_finite(a)?;
    all_finite(b)?;
    Ok(test(&sorted(a), &sorted(b)))
}

fn test(a: &[f64], b: &[f64]) -> KsTest {
    let statistic = statistic(a, b);
    let exact = if a.len().max(b.len()) <= MAX_EXACT_ROWS {
        kolmogorov::two_sample_exact_sf(statistic, a.len() as u64, b.len() as u64)
    } else {
        None
    };
    let p_value = exact.unwrap_or_else(|| asymptotic_p(statistic, a.len() as f64, b.len() as f64));
    KsTest { statistic, p_value }
}

/// P-value of a two-sample statistic by the one-sample distribution at the effective size.
pub(super) fn asymptotic_p(statistic: f64, n_a: f64, n_b: f64) -> f64 {
    let effective = (n_a * n_b / (n_a + n_b)).round_ties_even().max(1.0);
    kolmogorov::one_sample_sf(effective as u64, statistic).clamp(0.0, 1.0)
}

/// sup |F_a − F_b| of two ascending samples.
pub(super) fn statistic(a: &[f64], b: &[f64]) -> f64 {
    let (n_a, n_b) = (a.len() as f64, b.len() as f64);
    let (mut i, mut j, mut largest) = (0, 0, 0.0_f64);
    while i < a.len() && j < b.len() {
        let next = a[i].min(b[j]);
        while i < a.len() && a[i] == next {
            i += 1;
        }
        while j < b.len() && b[j] == next {
            j += 1;
        }
        largest = largest.max((i as f64 / n_a - j as f64 / n_b).abs());
    }
    largest
}
