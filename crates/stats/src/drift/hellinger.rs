//! Hellinger distance.

use super::bins::{histogram, pooled_range, sturges_edges};
use super::{Direction, Kind, Method, Pair};
use crate::error::Result;

pub(super) static METHOD: Method = Method {
    name: "hellinger",
    kinds: &[Kind::Numeric, Kind::Categorical],
    default_threshold: 0.1,
    direction: Direction::AtLeast,
    doc: "Hellinger distance √(1 − Σ√(p·q)), 0 to 1. Numeric columns are always binned, by the Sturges rule on the distinct values of both samples.",
    compute,
};

/// √(1 − BC) with the Bhattacharyya coefficient BC clipped to [0, 1] (Hellinger 1909).
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let coefficient: f64 = if pair.kind() == Kind::Numeric {
        let (reference, current) = pair.numbers(METHOD.name)?;
        let (min, max) = pooled_range(reference, current);
        let edges = sturges_edges(min, max, pair.distinct(), pair.is_integer());
        let (p, q) = (densities(reference, &edges), densities(current, &edges));
        let bins = edges.len() - 1;
        let width = (edges[bins] - edges[0]) / bins as f64;
        p.iter().zip(&q).map(|(p, q)| (p * q).sqrt() * width).sum()
    } else {
        let (n_ref, n_cur) = (pair.reference_rows() as f64, pair.current_rows() as f64);
        pair.value_counts()
            .iter()
            .map(|(r, c)| ((*r as f64 / n_ref) * (*c as f64 / n_cur)).sqrt())
            .sum()
    };
    Ok((1.0 - coefficient.clamp(0.0, 1.0)).sqrt())
}

fn densities(sorted: &[f64], edges: &[f64]) -> Vec<f64> {
    let total = sorted.len() as f64;
    let counts = histogram(sorted, edges);
    counts
        .iter()
        .zip(edges.windows(2))
        .map(|(count, edge)| *count as f64 / (edge[1] - edge[0]) / total)
        .collect()
}
