//! Kullback-Leibler divergence.

use super::bins::{fill_zeros, normalise, shares};
use super::{Direction, Kind, Method, Pair};
use crate::error::Result;

pub(super) static METHOD: Method = Method {
    name: "kl_div",
    kinds: &[Kind::Numeric, Kind::Categorical],
    default_threshold: 0.1,
    direction: Direction::AtLeast,
    doc: "Kullback-Leibler divergence Σ p·ln(p/q) of the reference from the current sample, in nats, over the bins of `psi`. Not symmetric; has the same weakness for outliers.",
    compute,
};

/// Σ p·ln(p/q), filled shares normalised to 1 (Kullback & Leibler 1951).
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (mut p, mut q) = shares(METHOD.name, pair)?;
    for side in [&mut p, &mut q] {
        fill_zeros(side);
        normalise(side);
    }
    Ok(p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum())
}
