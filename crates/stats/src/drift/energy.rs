//! Energy distance.

use super::wasserstein::for_each_gap;
use super::{Direction, Kind, Method, Pair};
use crate::error::Result;

pub(super) static METHOD: Method = Method {
    name: "ed",
    kinds: &[Kind::Numeric],
    default_threshold: 0.1,
    direction: Direction::Above,
    doc: "Energy distance √(2·∫(F₁ − F₂)²), in the square root of the unit of the values: the default threshold suits standardised columns only.",
    compute,
};

/// √(2·∫ (F₁ − F₂)² dx) (Székely & Rizzo 2013).
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (reference, current) = pair.numbers(METHOD.name)?;
    let mut sum = 0.0;
    for_each_gap(reference, current, |gap, difference| {
        sum += gap * difference * difference;
    });
    Ok((2.0 * sum).sqrt())
}
