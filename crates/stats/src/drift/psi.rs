//! Population stability index.

use super::bins::{fill_zeros, shares};
use super::{Direction, Kind, Method, Pair};
use crate::error::Result;

pub(super) static METHOD: Method = Method {
    name: "psi",
    kinds: &[Kind::Numeric, Kind::Categorical],
    default_threshold: 0.1,
    direction: Direction::AtLeast,
    doc: "Population stability index Σ(p − q)·ln(p/q) over equal-width bins of the pooled range, as Evidently. One outlier stretches the bins and hides any drift: `psi_quantile` has not this weakness.",
    compute,
};

/// Σ (p − q)·ln(p/q) with zero shares filled (Siddiqi 2006; Evidently's binning).
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (mut p, mut q) = shares(METHOD.name, pair)?;
    fill_zeros(&mut p);
    fill_zeros(&mut q);
    Ok(p.iter().zip(&q).map(|(p, q)| (p - q) * (p / q).ln()).sum())
}

#[cfg(test)]
mod tests {
    use super::super::{Sample, score};
    use super::METHOD;

    #[test]
    fn one_outlier_hides_the_drift_as_in_the_peer() {
        let reference: Vec<f64> = (0..2000).map(|i| f64::from(i) / 2000.0).collect();
        let mut current: Vec<f64> = reference.iter().map(|v| v + 0.5).collect();
        let psi = |current: &[f64]| {
            score(&METHOD, &Sample::Numeric(&reference), &Sample::Numeric(current)).unwrap()
        };
        assert!(psi(&current).drifted);
        current.push(1e6);
        assert!(!psi(&current).drifted);
    }
}
