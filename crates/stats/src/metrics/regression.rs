//! Numbers predicted: error = prediction − target, in the unit of the target.

use crate::error::{Result, StatsError, all_finite, not_empty, same_length};
use serde::{Deserialize, Serialize};

/// A mean and its spread over rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanStd {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation (n − 1); absent for one row.
    pub std: Option<f64>,
}

/// Every regression metric that a gate or a signal names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegressionMetrics {
    /// Labelled rows.
    pub rows: u64,
    /// Mean absolute error.
    pub mae: f64,
    /// Root of the mean squared error.
    pub rmse: f64,
    /// Share of the target's variance explained; absent when the target is constant.
    pub r2: Option<f64>,
    /// Mean absolute percentage error, in percent.
    pub mape: f64,
    /// Mean error (bias).
    pub mean_error: f64,
    /// Largest absolute error.
    pub abs_max_error: f64,
}

/// All regression metrics at once.
pub fn regression(targets: &[f64], predictions: &[f64]) -> Result<RegressionMetrics> {
    Ok(RegressionMetrics {
        rows: targets.len() as u64,
        mae: mae(targets, predictions)?.mean,
        rmse: rmse(targets, predictions)?,
        r2: match r2(targets, predictions) {
            Ok(value) => Some(value),
            Err(StatsError::Degenerate { .. }) => None,
            Err(other) => return Err(other),
        },
        mape: mape(targets, predictions)?.mean,
        mean_error: mean_error(targets, predictions)?.mean,
        abs_max_error: abs_max_error(targets, predictions)?,
    })
}

/// Mean absolute error and the spread of absolute errors.
pub fn mae(targets: &[f64], predictions: &[f64]) -> Result<MeanStd> {
    let errors = errors(targets, predictions)?;
    Ok(mean_std(&errors.iter().map(|e| e.abs()).collect::<Vec<_>>()))
}

/// Root of the mean squared error.
pub fn rmse(targets: &[f64], predictions: &[f64]) -> Result<f64> {
    let squares = squared_errors(targets, predictions)?;
    Ok((squares.iter().sum::<f64>() / squares.len() as f64).sqrt())
}

/// Coefficient of determination 1 − Σe²/Σ(t − t̄)²; at most 1, below 0 when worse than the mean.
pub fn r2(targets: &[f64], predictions: &[f64]) -> Result<f64> {
    let residual: f64 = squared_errors(targets, predictions)?.iter().sum();
    let mean = targets.iter().sum::<f64>() / targets.len() as f64;
    let total: f64 = targets.iter().map(|t| (t - mean).powi(2)).sum();
    if total == 0.0 {
        return Err(StatsError::degenerate(
            "all targets are equal, so there is no variance to explain",
        ));
    }
    Ok(1.0 - residual / total)
}

/// Mean absolute percentage error: 100·mean(|e| / max(|t|, ε)); the spread is a share, not a percentage, as in
/// Evidently. Evidently itself divides by max(t, ε) without the absolute value, which explodes on negative targets
/// (reference/monitoring.md §2.7 #6); on positive targets both agree.
pub fn mape(targets: &[f64], predictions: &[f64]) -> Result<MeanStd> {
    let errors = errors(targets, predictions)?;
    let relative = |(e, t): (&f64, &f64)| e.abs() / t.abs().max(f64::EPSILON);
    let MeanStd { mean, std } = mean_std(&errors.iter().zip(targets).map(relative).collect::<Vec<_>>());
    Ok(MeanStd {
        mean: 100.0 * mean,
        std,
    })
}

/// Mean error (bias) and the spread of errors.
pub fn mean_error(targets: &[f64], predictions: &[f64]) -> Result<MeanStd> {
    Ok(mean_std(&errors(targets, predictions)?))
}

/// Largest absolute error.
pub fn abs_max_error(targets: &[f64], predictions: &[f64]) -> Result<f64> {
    Ok(errors(targets, predictions)?
        .iter()
        .fold(0.0, |max, e| e.abs().max(max)))
}

/// The squared error of each row, for paired tests.
pub fn squared_errors(targets: &[f64], predictions: &[f64]) -> Result<Vec<f64>> {
    Ok(errors(targets, predictions)?.iter().map(|e| e * e).collect())
}

/// Error of the best constant guess: mean absolute error of the median (scikit-learn's dummy regressor "median").
pub fn median_baseline_mae(targets: &[f64]) -> Result<f64> {
    not_empty("targets", targets.len())?;
    all_finite(targets)?;
    let sorted = crate::ranks::sorted(targets);
    let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    Ok(targets.iter().map(|t| (t - median).abs()).sum::<f64>() / targets.len() as f64)
}

/// Error of the best constant guess: root mean squared error of the mean.
pub fn mean_baseline_rmse(targets: &[f64]) -> Result<f64> {
    not_empty("targets", targets.len())?;
    all_finite(targets)?;
    let mean = targets.iter().sum::<f64>() / targets.len() as f64;
    Ok((targets.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / targets.len() as f64).sqrt())
}

fn errors(targets: &[f64], predictions: &[f64]) -> Result<Vec<f64>> {
    same_length("predictions", targets.len(), predictions.len())?;
    not_empty("targets", targets.len())?;
    all_finite(targets)?;
    all_finite(predictions)?;
    Ok(predictions.iter().zip(targets).map(|(p, t)| p - t).collect())
}

fn mean_std(values: &[f64]) -> MeanStd {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    MeanStd {
        mean,
        std: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_by_hand() {
        let got = regression(&[1.0, 2.0, 4.0], &[2.0, 2.0, 2.0]).unwrap();
        assert_eq!(
            (got.mae, got.mean_error, got.abs_max_error),
            (1.0, -1.0 / 3.0, 2.0)
        );
        assert!((got.rmse - (5.0_f64 / 3.0).sqrt()).abs() < 1e-15);
        assert!((got.mape - 50.0).abs() < 1e-12);
    }

    #[test]
    fn negative_targets_do_not_blow_up_the_percentage() {
        assert!((mape(&[-1.0, 2.0], &[-1.5, 2.0]).unwrap().mean - 25.0).abs() < 1e-12);
    }

    #[test]
    fn a_constant_target_has_no_r2() {
        assert!(regression(&[1.0, 1.0], &[1.0, 2.0]).unwrap().r2.is_none());
    }
}
