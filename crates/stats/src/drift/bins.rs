//! Evidently's binning (reference/monitoring.md §2.2), shared by psi, kl_div, jensenshannon and hellinger.

use super::sample::{Kind, Pair};
use crate::error::Result;

/// Numeric references with at most this many distinct values are compared value by value.
const MAX_DISTINCT: usize = 20;

/// Shares of reference and current rows over the same bins.
pub(super) fn shares(method: &'static str, pair: &Pair<'_>) -> Result<(Vec<f64>, Vec<f64>)> {
    if pair.kind() == Kind::Numeric {
        let (reference, current) = pair.numbers(method)?;
        if distinct(reference) > MAX_DISTINCT {
            let (min, max) = pooled_range(reference, current);
            let edges = sturges_edges(min, max, reference.len() + current.len(), pair.is_integer());
            return Ok((
                histogram_shares(reference, &edges),
                histogram_shares(current, &edges),
            ));
        }
    }
    let counts = pair.value_counts();
    let (n_ref, n_cur) = (pair.reference_rows() as f64, pair.current_rows() as f64);
    Ok(counts
        .into_iter()
        .map(|(r, c)| (r as f64 / n_ref, c as f64 / n_cur))
        .unzip())
}

/// Zero shares become a millionth of the smallest other share when that is at most 1e-4, else 1e-4. Not renormalised.
pub(super) fn fill_zeros(shares: &mut [f64]) {
    let smallest = shares
        .iter()
        .copied()
        .filter(|s| *s > 0.0)
        .fold(f64::INFINITY, f64::min);
    let filler = if smallest <= 1e-4 { smallest / 1e6 } else { 1e-4 };
    for share in shares.iter_mut().filter(|s| **s == 0.0) {
        *share = filler;
    }
}

/// Sums to 1.
pub(super) fn normalise(shares: &mut [f64]) {
    let sum: f64 = shares.iter().sum();
    for share in shares {
        *share /= sum;
    }
}

/// Smallest and largest value of two ascending samples.
pub(super) fn pooled_range(a: &[f64], b: &[f64]) -> (f64, f64) {
    let (first, last) = (a[0].min(b[0]), a[a.len() - 1].max(b[b.len() - 1]));
    (first, last)
}

/// numpy's `histogram_bin_edges(bins="sturges")`: width (max − min)/(log₂ n + 1), at least 1 for integers, and as many
/// equal bins as that needs. Without a range the bin is [v − ½, v + ½].
pub(super) fn sturges_edges(min: f64, max: f64, n: usize, integer: bool) -> Vec<f64> {
    let mut width = (max - min) / ((n as f64).log2() + 1.0);
    if integer && width > 0.0 && width < 1.0 {
        width = 1.0;
    }
    let bins = if width > 0.0 && width.is_finite() {
        ((max - min) / width).ceil().max(1.0) as usize
    } else {
        1
    };
    let (first, last) = if min == max {
        (min - 0.5, max + 0.5)
    } else {
        (min, max)
    };
    let step = (last - first) / bins as f64;
    let mut edges: Vec<f64> = (0..bins).map(|i| i as f64 * step + first).collect();
    edges.push(last);
    edges
}

/// Counts of an ascending sample in [e_i, e_{i+1}), the last bin closed.
pub(super) fn histogram(sorted: &[f64], edges: &[f64]) -> Vec<u64> {
    let last = edges.len() - 1;
    let below = |i: usize| {
        if i == last {
            sorted.partition_point(|v| *v <= edges[i])
        } else {
            sorted.partition_point(|v| *v < edges[i])
        }
    };
    (0..last)
        .map(|i| below(i + 1).saturating_sub(below(i)) as u64)
        .collect()
}

fn histogram_shares(sorted: &[f64], edges: &[f64]) -> Vec<f64> {
    histogram(sorted, edges)
        .into_iter()
        .map(|count| count as f64 / sorted.len() as f64)
        .collect()
}

/// Distinct values of an ascending sample.
pub(super) fn distinct(sorted: &[f64]) -> usize {
    usize::from(!sorted.is_empty()) + sorted.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_agree_with_numpy() {
        // numpy.histogram_bin_edges(range(9), "sturges") on floats: 5 bins; integers: width ≥ 1.
        assert_eq!(sturges_edges(0.0, 8.0, 9, false).len(), 6);
        assert_eq!(sturges_edges(0.0, 2.0, 100, true), [0.0, 1.0, 2.0]);
        assert_eq!(sturges_edges(3.0, 3.0, 10, false), [2.5, 3.5]);
    }

    #[test]
    fn the_last_bin_is_closed() {
        assert_eq!(histogram(&[0.0, 1.0, 2.0, 2.0], &[0.0, 1.0, 2.0]), [1, 3]);
    }

    #[test]
    fn zeros_are_filled_each_side_apart() {
        let mut shares = [0.5, 0.0, 0.5];
        fill_zeros(&mut shares);
        assert_eq!(shares[1], 1e-4);
        let mut shares = [1e-5, 0.0, 1.0 - 1e-5];
        fill_zeros(&mut shares);
        assert!((shares[1] - 1e-11).abs() < 1e-20);
    }
}
