//! Jensen-Shannon distance.

use super::bins::{normalise, shares};
use super::{Direction, Kind, Method, Pair};
use crate::error::Result;

pub(super) static METHOD: Method = Method {
    name: "jensenshannon",
    kinds: &[Kind::Numeric, Kind::Categorical],
    default_threshold: 0.1,
    direction: Direction::AtLeast,
    doc: "Jensen-Shannon distance √((KL(p‖m) + KL(q‖m))/2), m = (p + q)/2, natural logarithm: 0 to 0.8326. Bins of `psi`, so one outlier can hide drift.",
    compute,
};

fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (mut p, mut q) = shares(METHOD.name, pair)?;
    normalise(&mut p);
    normalise(&mut q);
    Ok(distance(&p, &q))
}

/// Jensen-Shannon distance in nats (Lin 1991; Endres & Schindelin 2003) of shares that sum to 1.
pub(super) fn distance(p: &[f64], q: &[f64]) -> f64 {
    let term = |share: f64, mean: f64| {
        if share > 0.0 {
            share * (share / mean).ln()
        } else {
            0.0
        }
    };
    let sum: f64 = p
        .iter()
        .zip(q)
        .map(|(p, q)| term(*p, f64::midpoint(*p, *q)) + term(*q, f64::midpoint(*p, *q)))
        .sum();
    (sum / 2.0).max(0.0).sqrt()
}
