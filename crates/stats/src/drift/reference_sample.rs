//! A stored reference for distances that need values: at most 2000 order statistics of the reference.

use super::kolmogorov_smirnov::{KsTest, asymptotic_p, statistic};
use super::sample::Sample;
use super::wasserstein::{distance, population_std};
use crate::error::{Result, StatsError, not_empty};
use crate::exact_float;
use serde::{Deserialize, Serialize};

/// Evenly spaced order statistics of a numeric reference, ascending. For more than 2000 rows its distribution function is
/// within 1/(2·2000) of the whole reference's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReferenceSample {
    #[serde(with = "exact_float::list")]
    values: Vec<f64>,
    rows: u64,
    missing: u64,
    #[serde(with = "exact_float")]
    std: f64,
}

impl ReferenceSample {
    /// At most this many values are kept.
    pub const MAX_VALUES: usize = 2000;

    /// Keeps the order statistics at ranks (i + ½)/2000. Missing values (NaN, ±∞) are counted and dropped.
    pub fn from_values(values: &[f64]) -> Result<Self> {
        let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        not_empty("reference", finite.len())?;
        let std = population_std(&finite);
        let (rows, missing) = (finite.len() as u64, (values.len() - finite.len()) as u64);
        let sorted = crate::ranks::sorted(&finite);
        let kept = if sorted.len() <= Self::MAX_VALUES {
            sorted
        } else {
            let at = |i: usize| sorted[(2 * i + 1) * sorted.len() / (2 * Self::MAX_VALUES)];
            (0..Self::MAX_VALUES).map(at).collect()
        };
        Ok(Self {
            values: kept,
            rows,
            missing,
            std,
        })
    }

    /// The kept values, ascending.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Reference rows that were not missing.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reference rows that were missing.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Population standard deviation of the whole reference.
    pub fn std(&self) -> f64 {
        self.std
    }
}

/// Two-sided Kolmogorov-Smirnov test of a current sample against a stored reference. The error that the thinning can
/// add (1/(2·2000)) is taken off the statistic before its p-value, so that the test stays honest.
pub fn ks_against(reference: &ReferenceSample, current: &Sample<'_>) -> Result<KsTest> {
    let current = clean("ks", current)?;
    let statistic = statistic(&reference.values, &current);
    let kept = reference.values.len() as u64;
    let thinning = if reference.rows > kept {
        0.5 / kept as f64
    } else {
        0.0
    };
    let certain = (statistic - thinning).max(0.0);
    let p_value = if certain == 0.0 {
        1.0
    } else {
        asymptotic_p(certain, reference.rows as f64, current.len() as f64)
    };
    Ok(KsTest { statistic, p_value })
}

/// Wasserstein distance in standard deviations of the reference. A constant reference has no such unit and is an
/// error, instead of a distance in thousandths as in the peer.
pub fn wasserstein_against(reference: &ReferenceSample, current: &Sample<'_>) -> Result<f64> {
    let current = clean("wasserstein", current)?;
    if reference.std == 0.0 {
        return Err(StatsError::degenerate(
            "the reference is constant, so there is no spread to measure with; use PSI",
        ));
    }
    crate::error::finite(
        "the distance",
        distance(&reference.values, &current) / reference.std,
    )
}

fn clean(method: &'static str, current: &Sample<'_>) -> Result<Vec<f64>> {
    let values = match current {
        Sample::Numeric(values) | Sample::Integer(values) => values,
        Sample::Categorical(_) => {
            return Err(StatsError::not_applicable(
                method,
                "it takes numeric columns, this one is categorical",
            ));
        }
    };
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    not_empty("current", finite.len())?;
    Ok(crate::ranks::sorted(&finite))
}

#[cfg(test)]
mod tests {
    use super::super::{ks_two_sample, wasserstein_distance};
    use super::*;
    use crate::rng::SeededRng;

    fn values(n: usize, seed: u64, shift: f64) -> Vec<f64> {
        let mut rng = SeededRng::new(seed);
        (0..n).map(|_| rng.uniform() + rng.uniform() + shift).collect()
    }

    #[test]
    fn a_thinned_reference_answers_almost_as_the_whole_one() {
        let (reference, current) = (values(50_000, 1, 0.0), values(3000, 2, 0.03));
        let stored = ReferenceSample::from_values(&reference).unwrap();
        assert_eq!(stored.values().len(), 2000);
        let got = ks_against(&stored, &Sample::Numeric(&current)).unwrap();
        let whole = ks_two_sample(&reference, &current).unwrap();
        assert!(
            (got.statistic - whole.statistic).abs() < 3e-4,
            "{got:?} {whole:?}"
        );
        let got = wasserstein_against(&stored, &Sample::Numeric(&current)).unwrap();
        let whole = wasserstein_distance(&reference, &current).unwrap() / stored.std();
        assert!((got / whole - 1.0).abs() < 0.01, "{got} {whole}");
    }

    #[test]
    fn the_stored_test_keeps_its_level() {
        let stored = ReferenceSample::from_values(&values(50_000, 1, 0.0)).unwrap();
        let rejects = |seed: u64| {
            let current = values(1000, 1000 + seed, 0.0);
            ks_against(&stored, &Sample::Numeric(&current)).unwrap().p_value < 0.05
        };
        let rejected = (0..400).filter(|seed| rejects(*seed)).count();
        assert!(rejected <= 32, "{rejected} of 400");
    }

    #[test]
    fn a_constant_reference_has_no_unit_of_distance() {
        let stored = ReferenceSample::from_values(&[1.0, 1.0, f64::NAN]).unwrap();
        assert_eq!((stored.rows(), stored.missing()), (2, 1));
        assert!(matches!(
            wasserstein_against(&stored, &Sample::Numeric(&[2.0])),
            Err(StatsError::Degenerate { .. })
        ));
    }
}
