//! Wasserstein distance, normed by the spread of the reference.

use super::{Direction, Kind, Method, Pair};
use crate::error::{Result, all_finite, not_empty};
use crate::ranks::sorted;

pub(super) static METHOD: Method = Method {
    name: "wasserstein",
    kinds: &[Kind::Numeric],
    default_threshold: 0.1,
    direction: Direction::AtLeast,
    doc: "Wasserstein distance ∫|F₁ − F₂| in standard deviations of the reference (at least 0.001, so a constant reference turns tiny moves into drift).",
    compute,
};

/// ∫|F₁ − F₂| dx / max(population standard deviation of the reference, 0.001).
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (reference, current) = pair.numbers(METHOD.name)?;
    Ok(distance(reference, current) / population_std(reference).max(0.001))
}

/// First Wasserstein (earth mover's) distance, in the unit of the values (Vallender 1974).
pub fn wasserstein_distance(a: &[f64], b: &[f64]) -> Result<f64> {
    not_empty("a", a.len())?;
    not_empty("b", b.len())?;
    all_finite(a)?;
    all_finite(b)?;
    Ok(distance(&sorted(a), &sorted(b)))
}

/// The distance of two ascending samples.
pub(super) fn distance(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = 0.0;
    for_each_gap(a, b, |gap, difference| sum += gap * difference.abs());
    sum
}

/// Calls `visit(width, F_a − F_b)` for each interval between neighbouring values of two ascending samples.
pub(super) fn for_each_gap(a: &[f64], b: &[f64], mut visit: impl FnMut(f64, f64)) {
    let (n_a, n_b) = (a.len() as f64, b.len() as f64);
    let (mut i, mut j) = (0, 0);
    let mut previous = a[0].min(b[0]);
    while i < a.len() || j < b.len() {
        let next = match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) => x.min(*y),
            (Some(only), None) | (None, Some(only)) => *only,
            (None, None) => return,
        };
        if next > previous {
            visit(next - previous, i as f64 / n_a - j as f64 / n_b);
        }
        while i < a.len() && a[i] == next {
            i += 1;
        }
        while j < b.len() && b[j] == next {
            j += 1;
        }
        previous = next;
    }
}

/// Standard deviation with n in the denominator.
pub(super) fn population_std(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_moves_every_value_by_its_size() {
        let got = wasserstein_distance(&[3.0, 1.0, 2.0], &[2.5, 1.5, 3.5]).unwrap();
        assert!((got - 0.5).abs() < 1e-15);
        assert!((wasserstein_distance(&[0.0, 1.0, 3.0], &[5.0, 6.0, 8.0]).unwrap() - 5.0).abs() < 1e-14);
    }
}
