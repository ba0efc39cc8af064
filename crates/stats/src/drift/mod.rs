//! Has a column changed? One file per method, all of them in [`METHODS`].
//!
//! The registered methods answer exactly as Evidently 0.7 does (cleaning, binning, thresholds, direction), so that
//! a team can move without recalibrating; their known weaknesses are said in each `doc`. What Tidemill itself uses by
//! default on production windows stands in [`histogram`] and [`reference_sample`]: compact references that are
//! stored with a snapshot, quantile bins that one outlier cannot stretch, and missing values that count.

mod anderson;
mod bins;
mod chi_squared;
pub mod cramer_von_mises;
mod energy;
mod epps_singleton;
mod fisher;
mod g_test;
mod hellinger;
pub mod histogram;
mod jensen_shannon;
mod kolmogorov_smirnov;
mod kullback_leibler;
mod mann_whitney;
mod maximum_mean_discrepancy;
mod psi;
pub mod reference_sample;
mod sample;
mod student_t;
mod total_variation;
mod wasserstein;
mod z_test;

pub use anderson::anderson_statistic;
pub use histogram::{
    ReferenceHistogram, jensen_shannon_against, l_infinity_against, psi_against, psi_p_value, psi_quantile,
};
pub use kolmogorov_smirnov::{KsTest, ks_two_sample};
pub use maximum_mean_discrepancy::mmd2u_evidently;
pub use reference_sample::{ReferenceSample, ks_against, wasserstein_against};
pub use sample::{Kind, Pair, Sample};
pub use total_variation::tvd_statistic;
pub use wasserstein::wasserstein_distance;

use crate::error::{Result, StatsError};
use serde::{Deserialize, Serialize};

/// When does a score mean drift?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Drift when score ≥ threshold (distances).
    AtLeast,
    /// Drift when score > threshold (distances).
    Above,
    /// Drift when score ≤ threshold (p-values).
    AtMost,
    /// Drift when score < threshold (p-values).
    Below,
}

impl Direction {
    /// Does `score` mean drift at this threshold?
    pub fn drifted(self, score: f64, threshold: f64) -> bool {
        match self {
            Self::AtLeast => score >= threshold,
            Self::Above => score > threshold,
            Self::AtMost => score <= threshold,
            Self::Below => score < threshold,
        }
    }

    /// Is the score a p-value (small means drift)?
    pub fn is_p_value(self) -> bool {
        matches!(self, Self::AtMost | Self::Below)
    }
}

/// A drift method: declared once, listed in [`METHODS`].
#[derive(Debug)]
pub struct Method {
    /// Its name in specs and listings, the same as Evidently's.
    pub name: &'static str,
    /// The kinds of column that it takes.
    pub kinds: &'static [Kind],
    /// The threshold when none is given.
    pub default_threshold: f64,
    /// When the score means drift.
    pub direction: Direction,
    /// One paragraph for listings: what it measures, its source, what to mind.
    pub doc: &'static str,
    compute: fn(&Pair<'_>) -> Result<f64>,
}

/// The answer of a drift method.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DriftScore {
    /// The method.
    pub method: &'static str,
    /// A distance or a p-value, see [`Method::direction`].
    pub score: f64,
    /// The threshold it was compared with.
    pub threshold: f64,
    /// Does the score mean drift?
    pub drifted: bool,
}

/// Every method, in the order in which they are listed.
pub static METHODS: &[&Method] = &[
    &psi::METHOD,
    &kullback_leibler::METHOD,
    &jensen_shannon::METHOD,
    &wasserstein::METHOD,
    &kolmogorov_smirnov::METHOD,
    &hellinger::METHOD,
    &chi_squared::METHOD,
    &z_test::METHOD,
    &total_variation::METHOD,
    &g_test::METHOD,
    &energy::METHOD,
    &cramer_von_mises::METHOD,
    &student_t::METHOD,
    &mann_whitney::METHOD,
    &fisher::METHOD,
    &anderson::METHOD,
    &epps_singleton::METHOD,
    &maximum_mean_discrepancy::METHOD,
];

/// Finds a method by its name.
///
/// ```
/// use tidemill_stats::drift::{Sample, by_name, score};
/// let reference: Vec<f64> = (0..100).map(f64::from).collect();
/// let current: Vec<f64> = (50..150).map(f64::from).collect();
/// let method = by_name("ks").expect("`ks` is in the registry");
/// let got = score(method, &Sample::Numeric(&reference), &Sample::Numeric(&current))?;
/// assert!(got.drifted && got.score < 1e-9);
/// # Ok::<(), tidemill_stats::StatsError>(())
/// ```
pub fn by_name(name: &str) -> Option<&'static Method> {
    METHODS.iter().copied().find(|method| method.name == name)
}

/// Scores `current` against `reference` at the method's own threshold.
pub fn score(method: &Method, reference: &Sample<'_>, current: &Sample<'_>) -> Result<DriftScore> {
    score_at(method, reference, current, method.default_threshold)
}

/// Scores `current` against `reference` at a given threshold. Missing values (NaN, ±∞, `None`) are dropped first.
pub fn score_at(
    method: &Method,
    reference: &Sample<'_>,
    current: &Sample<'_>,
    threshold: f64,
) -> Result<DriftScore> {
    let pair = Pair::clean(method.name, reference, current)?;
    if !method.kinds.contains(&pair.kind()) {
        let kinds: Vec<&str> = method.kinds.iter().map(|kind| kind.name()).collect();
        let why = format!(
            "it takes {} columns, this one is {}",
            kinds.join(" and "),
            pair.kind().name()
        );
        return Err(StatsError::not_applicable(method.name, why));
    }
    score_pair(method, &pair, threshold)
}

fn score_pair(method: &Method, pair: &Pair<'_>, threshold: f64) -> Result<DriftScore> {
    let score = crate::error::finite(method.name, (method.compute)(pair)?)?;
    Ok(DriftScore {
        method: method.name,
        score,
        threshold,
        drifted: method.direction.drifted(score, threshold),
    })
}

/// Evidently's choice (reference/monitoring.md §2.1). With n reference rows and u distinct values of both samples, for
/// n ≤ 1000: numeric u > 5 ks, u 3 to 5 chisquare, u ≤ 2 z; categorical u > 2 chisquare, else z. For n > 1000: numeric
/// u > 5 wasserstein, else jensenshannon; categorical jensenshannon.
pub fn default_method(reference: &Sample<'_>, current: &Sample<'_>) -> Result<&'static Method> {
    Ok(default_for(&Pair::clean("default", reference, current)?))
}

/// Scores by [`default_method`]. Unlike a call by name, it gives numeric columns of few values to chisquare and z.
pub fn score_default(reference: &Sample<'_>, current: &Sample<'_>) -> Result<DriftScore> {
    let pair = Pair::clean("default", reference, current)?;
    let method = default_for(&pair);
    score_pair(method, &pair, method.default_threshold)
}

fn default_for(pair: &Pair<'_>) -> &'static Method {
    let distinct = pair.distinct();
    let few_rows = pair.reference_rows() <= 1000;
    match (few_rows, pair.kind()) {
        (true, Kind::Numeric) if distinct > 5 => &kolmogorov_smirnov::METHOD,
        (true, _) if distinct > 2 => &chi_squared::METHOD,
        (true, _) => &z_test::METHOD,
        (false, Kind::Numeric) if distinct > 5 => &wasserstein::METHOD,
        (false, _) => &jensen_shannon::METHOD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for method in METHODS {
            assert!(
                std::ptr::eq(by_name(method.name).unwrap(), *method),
                "{}",
                method.name
            );
            assert!(!method.doc.is_empty() && !method.kinds.is_empty());
        }
        assert!(by_name("nope").is_none());
    }

    #[test]
    fn a_numeric_test_refuses_categories_and_says_why() {
        let words = [Some("a"), Some("b")];
        let sample = Sample::Categorical(&words);
        let got = score(by_name("ks").unwrap(), &sample, &sample).unwrap_err();
        assert_eq!(
            got.to_string(),
            "method `ks` is not applicable: it takes numeric columns, this one is categorical"
        );
    }

    #[test]
    fn a_column_without_values_is_empty_on_its_own_side() {
        let (empty, full) = ([f64::NAN, f64::INFINITY], [1.0, 2.0]);
        let got = score_default(&Sample::Numeric(&full), &Sample::Numeric(&empty));
        assert_eq!(got, Err(StatsError::Empty { what: "current" }));
    }
}
