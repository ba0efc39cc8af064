//! The numbers of a window: pure functions from columns and references to signals.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::frame::{Column, Frame, Scores};
use tidemill_core::spec::{DriftMethod, DriftMonitor, QualityMonitor};
use tidemill_stats::Result as StatsResult;
use tidemill_stats::drift::{
    ReferenceHistogram, ReferenceSample, Sample, jensen_shannon_against, ks_against, psi_against,
    wasserstein_against,
};

/// Bins of a reference histogram.
const BINS: usize = 10;

/// The name under which the distribution of the predictions themselves is watched.
pub const PREDICTION: &str = "prediction";

/// What a snapshot's profile says of a column; what is not there is not compared.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ColumnReference {
    /// Rows.
    #[serde(default)]
    pub rows: u64,
    /// Of these, null.
    #[serde(default)]
    pub nulls: u64,
    /// Smallest number.
    #[serde(default)]
    pub min: Option<f64>,
    /// Largest number.
    #[serde(default)]
    pub max: Option<f64>,
    /// The shares of quantile bins or categories.
    #[serde(default)]
    pub histogram: Option<ReferenceHistogram>,
    /// Some sorted values.
    #[serde(default)]
    pub sample: Option<ReferenceSample>,
}

impl ColumnReference {
    /// Reads a snapshot's profile, column by column; one that cannot be read compares with nothing.
    pub fn of_profile(profile: &BTreeMap<String, Value>) -> BTreeMap<String, Self> {
        profile
            .iter()
            .map(|(name, entry)| {
                (
                    name.clone(),
                    serde_json::from_value(entry.clone()).unwrap_or_default(),
                )
            })
            .collect()
    }

    /// A reference that is a histogram alone.
    pub fn of_histogram(histogram: Option<&Value>) -> Self {
        Self {
            histogram: histogram.and_then(|v| serde_json::from_value(v.clone()).ok()),
            ..Self::default()
        }
    }
}

/// The distances of one column from its reference, by every method that applies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DriftSignal {
    /// Population stability index over the reference's deciles.
    pub psi: Option<f64>,
    /// Jensen–Shannon distance.
    pub jensen_shannon: Option<f64>,
    /// Wasserstein distance over the reference's standard deviation.
    pub wasserstein: Option<f64>,
    /// Kolmogorov–Smirnov statistic.
    pub ks: Option<f64>,
    /// The deciding method's threshold for this column.
    pub threshold: f64,
    /// The deciding method's distance is at or above it.
    pub drifted: bool,
}

impl DriftSignal {
    /// The deciding method's distance.
    pub fn deciding(&self, method: DriftMethod) -> Option<f64> {
        match method {
            DriftMethod::Psi => self.psi,
            DriftMethod::JensenShannon => self.jensen_shannon,
            DriftMethod::Wasserstein => self.wasserstein,
            DriftMethod::Ks => self.ks,
        }
    }
}

/// Calls `f` with the column as `stats` reads it.
pub fn with_sample<T>(column: &Column, f: impl FnOnce(&Sample<'_>) -> T) -> T {
    match column {
        Column::Numeric(values) => f(&Sample::Numeric(values)),
        Column::Categorical(values) => {
            let names: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
            f(&Sample::Categorical(&names))
        }
    }
}

/// A column's reference histogram.
///
/// # Errors
/// If the column is empty.
pub fn histogram_of(column: &Column) -> StatsResult<ReferenceHistogram> {
    with_sample(column, |sample| ReferenceHistogram::from_sample(sample, BINS))
}

/// The predictions as a column: the scores, or for several classes the most probable class.
pub fn prediction_column(scores: &Scores) -> Column {
    match scores {
        Scores::Binary(values) | Scores::Regression(values) => Column::Numeric(values.clone()),
        Scores::Multiclass {
            classes,
            probabilities,
        } => Column::Categorical(
            probabilities
                .chunks(classes.len().max(1))
                .map(|row| {
                    let best = row
                        .iter()
                        .enumerate()
                        .max_by(|a, b| a.1.total_cmp(b.1))
                        .map(|(i, _)| i)?;
                    classes.get(best).map(|c| c.as_str().into())
                })
                .collect(),
        ),
    }
}

/// The drift of one column.
pub fn drift_of(
    plan: &DriftMonitor,
    name: &str,
    reference: &ColumnReference,
    column: &Column,
) -> DriftSignal {
    let threshold = plan.thresholds.get(name).copied().unwrap_or(plan.threshold);
    let mut signal = with_sample(column, |sample| DriftSignal {
        psi: reference
            .histogram
            .as_ref()
            .and_then(|h| psi_against(h, sample).ok()),
        jensen_shannon: reference
            .histogram
            .as_ref()
            .and_then(|h| jensen_shannon_against(h, sample).ok()),
        wasserstein: reference
            .sample
            .as_ref()
            .and_then(|s| wasserstein_against(s, sample).ok()),
        ks: reference
            .sample
            .as_ref()
            .and_then(|s| ks_against(s, sample).ok())
            .map(|t| t.statistic),
        threshold,
        drifted: false,
    });
    signal.drifted = signal
        .deciding(plan.method)
        .is_some_and(|distance| distance >= threshold);
    signal
}

/// The drift of a window: each feature and the predictions, and the share of features that has drifted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftSignals {
    /// Rows in the window.
    pub rows: u64,
    /// By feature, and [`PREDICTION`].
    pub columns: BTreeMap<String, DriftSignal>,
    /// Drifted features over features that could be compared.
    pub share: f64,
}

/// Computes a window's drift.
pub fn drift_signals(
    plan: &DriftMonitor,
    references: &BTreeMap<String, ColumnReference>,
    prediction_reference: &ColumnReference,
    features: &Frame,
    predictions: Option<&Column>,
) -> DriftSignals {
    let unknown = ColumnReference::default();
    let mut columns = BTreeMap::new();
    let (mut drifted, mut compared) = (0usize, 0usize);
    for (feature, column) in features.schema().features.iter().zip(features.columns()) {
        let reference = references.get(&feature.name).unwrap_or(&unknown);
        let signal = drift_of(plan, &feature.name, reference, column);
        compared += usize::from(signal.deciding(plan.method).is_some());
        drifted += usize::from(signal.drifted);
        columns.insert(feature.name.clone(), signal);
    }
    if let Some(column) = predictions {
        columns.insert(
            PREDICTION.to_owned(),
            drift_of(plan, PREDICTION, prediction_reference, column),
        );
    }
    let share = if compared == 0 {
        0.0
    } else {
        drifted as f64 / compared as f64
    };
    DriftSignals {
        rows: features.rows() as u64,
        columns,
        share,
    }
}

/// The quality of one column in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QualitySignal {
    /// Share of nulls.
    pub nulls: f64,
    /// The same in the training snapshot.
    pub reference_nulls: f64,
    /// Share of values outside the training snapshot's range or categories, of those that are there.
    pub unseen: f64,
    /// New categories, up to ten.
    pub new_categories: Vec<String>,
    /// What is wrong, if anything.
    pub problem: Option<String>,
}

/// The quality of each feature in a window.
pub fn quality_signals(
    plan: &QualityMonitor,
    references: &BTreeMap<String, ColumnReference>,
    features: &Frame,
) -> BTreeMap<String, QualitySignal> {
    let unknown = ColumnReference::default();
    features
        .schema()
        .features
        .iter()
        .zip(features.columns())
        .map(|(feature, column)| {
            let reference = references.get(&feature.name).unwrap_or(&unknown);
            (
                feature.name.clone(),
                quality_of(plan, &feature.name, reference, column),
            )
        })
        .collect()
}

fn quality_of(
    plan: &QualityMonitor,
    name: &str,
    reference: &ColumnReference,
    column: &Column,
) -> QualitySignal {
    let rows = column.len().max(1) as f64;
    let (mut nulls, mut unseen) = (0usize, 0usize);
    let mut new_categories: Vec<String> = Vec::new();
    match column {
        Column::Numeric(values) => {
            for value in values {
                if value.is_nan() {
                    nulls += 1;
                } else if reference.min.is_some_and(|min| *value < min)
                    || reference.max.is_some_and(|max| *value > max)
                {
                    unseen += 1;
                }
            }
        }
        Column::Categorical(values) => {
            let known = match &reference.histogram {
                Some(ReferenceHistogram::Categorical { shares, .. }) => Some(shares),
                _ => None,
            };
            for value in values {
                match value {
                    None => nulls += 1,
                    Some(value) => {
                        if known.is_some_and(|shares| !shares.contains_key(&**value)) {
                            unseen += 1;
                            if new_categories.len() < 10 && !new_categories.iter().any(|c| **c == **value) {
                                new_categories.push(value.to_string());
                            }
                        }
                    }
                }
            }
        }
    }
    let share_of_nulls = nulls as f64 / rows;
    let reference_nulls = if reference.rows == 0 {
        0.0
    } else {
        reference.nulls as f64 / reference.rows as f64
    };
    let present = (column.len() - nulls).max(1) as f64;
    let unseen = unseen as f64 / present;
    let problem = if reference.rows > 0 && share_of_nulls - reference_nulls > plan.max_null_increase {
        Some(format!(
            "`{name}` is null in {:.1} % of the rows, {:.1} % in training",
            share_of_nulls * 100.0,
            reference_nulls * 100.0
        ))
    } else if unseen > plan.max_unseen {
        Some(format!(
            "{:.1} % of `{name}` lies outside what training has seen",
            unseen * 100.0
        ))
    } else {
        None
    };
    QualitySignal {
        nulls: share_of_nulls,
        reference_nulls,
        unseen,
        new_categories,
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;
    use tidemill_core::frame::{Feature, FeatureKind, FeatureSchema};

    fn frame(values: Vec<f64>, names: Vec<Option<&str>>) -> Frame {
        let schema = Arc::new(FeatureSchema {
            features: vec![
                Feature {
                    name: "temp".into(),
                    kind: FeatureKind::Numeric,
                },
                Feature {
                    name: "carrier".into(),
                    kind: FeatureKind::Categorical,
                },
            ],
        });
        let names = names.into_iter().map(|n| n.map(Arc::from)).collect();
        Frame::new(schema, vec![Column::Numeric(values), Column::Categorical(names)]).unwrap()
    }

    fn profile(frame: &Frame) -> BTreeMap<String, ColumnReference> {
        let entries = frame
            .schema()
            .features
            .iter()
            .zip(frame.columns())
            .map(|(f, c)| {
                let (min, max) = match c {
                    Column::Numeric(v) => (v.iter().copied().reduce(f64::min), v.iter().copied().reduce(f64::max)),
                    Column::Categorical(_) => (None, None),
                };
                let entry = json!({ "rows": c.len(), "nulls": 0, "min": min, "max": max, "histogram": histogram_of(c).unwrap() });
                (f.name.clone(), entry)
            })
            .collect();
        ColumnReference::of_profile(&entries)
    }

    #[test]
    fn a_shifted_feature_drifts_and_a_stable_one_does_not() {
        let names = |n: usize| {
            (0..n)
                .map(|i| Some(if i % 3 == 0 { "UA" } else { "B6" }))
                .collect::<Vec<_>>()
        };
        let reference = frame((0..900).map(|i| f64::from(i % 100)).collect(), names(900));
        let current = frame((0..900).map(|i| f64::from(i % 100) + 60.0).collect(), names(900));
        let plan = DriftMonitor::default();
        let signals = drift_signals(
            &plan,
            &profile(&reference),
            &ColumnReference::default(),
            &current,
            None,
        );
        assert!(signals.columns["temp"].drifted && !signals.columns["carrier"].drifted);
        assert!((signals.share - 0.5).abs() < 1e-12);
        let same = drift_signals(
            &plan,
            &profile(&reference),
            &ColumnReference::default(),
            &reference,
            None,
        );
        assert_eq!(same.share, 0.0);
    }

    #[test]
    fn nulls_ranges_and_new_categories_are_named() {
        let reference = frame(vec![0.0, 50.0, 100.0, 70.0], vec![Some("UA"); 4]);
        let current = frame(
            vec![f64::NAN, f64::NAN, 500.0, 10.0],
            vec![Some("UA"), Some("ZZ"), Some("ZZ"), None],
        );
        let signals = quality_signals(&QualityMonitor::default(), &profile(&reference), &current);
        assert!(
            signals["temp"]
                .problem
                .as_deref()
                .unwrap()
                .contains("null in 50.0 %")
        );
        assert_eq!(signals["temp"].unseen, 0.5);
        assert_eq!(signals["carrier"].new_categories, vec!["ZZ"]);
        assert!(signals["carrier"].problem.is_some());
    }
}
