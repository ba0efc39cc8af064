//! How good a model is on labelled rows: the spec's metrics, each with its sampling error where one is known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_core::frame::{Labels, Scores};
use tidemill_core::spec::Metric;
use tidemill_stats::metrics::{binary, calibration, multiclass, regression};
use tidemill_stats::paired::delong::delong;
use tidemill_stats::{Result as StatsResult, StatsError};

/// Bins of the calibration error.
const ECE_BINS: usize = 15;

/// A metric's value and its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The value.
    pub value: f64,
    /// Its standard error; absent where the metric has no simple one.
    pub std_error: Option<f64>,
}

/// All `metrics` that can be had from these rows. One that cannot (one class only, say) is left out.
pub fn measure(metrics: &[Metric], labels: &Labels, scores: &Scores) -> BTreeMap<String, Measured> {
    metrics
        .iter()
        .filter_map(|metric| Some((metric.name().to_owned(), value_of(*metric, labels, scores).ok()?)))
        .collect()
}

/// One metric on labelled rows.
///
/// # Errors
/// If it cannot be had: no rows, one class only, or labels and scores of different tasks.
pub fn value_of(metric: Metric, labels: &Labels, scores: &Scores) -> StatsResult<Measured> {
    let value = match (labels, scores) {
        (Labels::Binary(y), Scores::Binary(p)) => match metric {
            Metric::Auc => {
                // The variance of one AUC is DeLong's; comparing the model with itself gives it.
                let value = binary::auc(y, p)?;
                let std_error = delong(y, p, p).ok().map(|d| d.var_a.sqrt());
                return Ok(Measured { value, std_error });
            }
            Metric::LogLoss => return mean_of(&binary::log_losses(y, p)?),
            Metric::Brier => return mean_of(&binary::brier_losses(y, p)?),
            Metric::Ece => calibration::ece(y, p, ECE_BINS)?,
            Metric::Accuracy => binary::binary(y, p, 0.5)?.accuracy,
            Metric::F1 => binary::binary(y, p, 0.5)?.f1,
            _ => return Err(not_for(metric)),
        },
        (
            Labels::Multiclass { indices, .. },
            Scores::Multiclass {
                classes,
                probabilities,
            },
        ) => {
            let k = classes.len();
            match metric {
                Metric::Auc => multiclass::macro_auc(indices, probabilities, k)?,
                Metric::LogLoss => return mean_of(&multiclass::log_losses(indices, probabilities, k)?),
                Metric::Brier => return mean_of(&multiclass::brier_losses(indices, probabilities, k)?),
                Metric::Accuracy => multiclass::multiclass(indices, probabilities, k)?.accuracy,
                Metric::F1 => multiclass::multiclass(indices, probabilities, k)?.macro_f1,
                _ => return Err(not_for(metric)),
            }
        }
        (Labels::Regression(y), Scores::Regression(p)) => match metric {
            Metric::Mae => return mean_of(&y.iter().zip(p).map(|(y, p)| (y - p).abs()).collect::<Vec<_>>()),
            Metric::Rmse => regression::rmse(y, p)?,
            Metric::R2 => regression::r2(y, p)?,
            _ => return Err(not_for(metric)),
        },
        _ => return Err(not_for(metric)),
    };
    Ok(Measured {
        value,
        std_error: None,
    })
}

fn not_for(metric: Metric) -> StatsError {
    StatsError::NotApplicable {
        method: metric.name(),
        why: "labels and scores are of another task".into(),
    }
}

fn mean_of(losses: &[f64]) -> StatsResult<Measured> {
    let n = losses.len() as f64;
    if losses.is_empty() {
        return Err(StatsError::Empty { what: "rows" });
    }
    let mean = losses.iter().sum::<f64>() / n;
    let variance = losses.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    Ok(Measured {
        value: mean,
        std_error: Some((variance / n).sqrt()),
    })
}

/// A loss in `[0, 1]` for each row: the Brier score for classes (halved for several classes, whose own lies in `[0, 2]`), and for
/// numbers the absolute error over `range`, capped at 1.
///
/// # Errors
/// If labels and scores are of different tasks or lengths.
pub fn bounded_losses(labels: &Labels, scores: &Scores, range: f64) -> StatsResult<Vec<f64>> {
    match (labels, scores) {
        (Labels::Binary(y), Scores::Binary(p)) => binary::brier_losses(y, p),
        (
            Labels::Multiclass { indices, .. },
            Scores::Multiclass {
                classes,
                probabilities,
            },
        ) => {
            let losses = multiclass::brier_losses(indices, probabilities, classes.len())?;
            Ok(losses.into_iter().map(|l| (l / 2.0).min(1.0)).collect())
        }
        (Labels::Regression(y), Scores::Regression(p)) if y.len() == p.len() => {
            let range = if range > 0.0 { range } else { 1.0 };
            Ok(y.iter()
                .zip(p)
                .map(|(y, p)| ((y - p).abs() / range).min(1.0))
                .collect())
        }
        _ => Err(StatsError::NotApplicable {
            method: "loss",
            why: "labels and scores are of another task".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_cannot_be_had_is_left_out_and_the_rest_stays() {
        let labels = Labels::Binary(vec![true, true]);
        let measured = measure(
            &[Metric::Auc, Metric::Brier],
            &labels,
            &Scores::Binary(vec![0.9, 0.7]),
        );
        assert!(!measured.contains_key("auc"));
        assert!((measured["brier"].value - 0.05).abs() < 1e-12);
    }

    #[test]
    fn losses_stay_between_zero_and_one_for_every_task() {
        let regression = bounded_losses(
            &Labels::Regression(vec![0.0, 10.0]),
            &Scores::Regression(vec![5.0, 900.0]),
            20.0,
        );
        assert_eq!(regression.unwrap(), vec![0.25, 1.0]);
        assert!(bounded_losses(&Labels::Binary(vec![true]), &Scores::Regression(vec![1.0]), 1.0).is_err());
    }
}
