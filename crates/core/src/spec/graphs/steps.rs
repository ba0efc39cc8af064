//! Steps of transformations, and the statistics of outliers, each by itself.

use super::TransformStep;

/// The lower triangle `L` with `L·Lᵀ` this matrix; `None` if it is not symmetric and positive definite.
pub fn cholesky(matrix: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
    let size = matrix.len();
    let mut lower = vec![vec![0.0; size]; size];
    for i in 0..size {
        for j in 0..=i {
            if (matrix[i][j] - matrix[j][i]).abs() > 1e-9 * matrix[i][i].abs().max(matrix[j][j].abs()) {
                return None;
            }
            let known: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            let rest = matrix[i][j] - known;
            lower[i][j] = if i != j {
                rest / lower[j][j]
            } else if rest > 0.0 && rest.is_finite() {
                rest.sqrt()
            } else {
                return None;
            };
        }
    }
    Some(lower)
}

/// Whether a step says one thing, and that thing wholly.
pub(super) fn check_step(step: &TransformStep) -> Result<(), String> {
    let parts = [
        !step.select.is_empty(),
        !step.rename.is_empty(),
        !step.cast.is_empty(),
        !step.scale.is_empty(),
        !step.clip.is_empty(),
        !step.impute.is_empty(),
        step.argmax.is_some(),
        step.threshold.is_some(),
        step.softmax.is_some(),
    ];
    if parts.into_iter().filter(|there| *there).count() != 1 {
        return Err("exactly one of `select`, `rename`, `cast`, `scale`, `clip`, `impute`, `argmax`, `threshold` or `softmax`".to_owned());
    }
    for (column, scale) in &step.scale {
        let standard = matches!((scale.mean, scale.std), (Some(_), Some(std)) if std > 0.0);
        let range = matches!((scale.min, scale.max), (Some(min), Some(max)) if max > min);
        let several = scale.mean.is_some() || scale.std.is_some();
        if standard == range || (range && several) {
            return Err(format!(
                "column `{column}` is scaled by `mean` and a `std` above 0, or by `min` and a larger `max`"
            ));
        }
    }
    for (column, bounds) in &step.clip {
        let good = match (bounds.min, bounds.max) {
            (Some(min), Some(max)) => min <= max,
            (None, None) => false,
            _ => true,
        };
        if !good {
            return Err(format!(
                "column `{column}` is kept between `min` and a larger `max`, or within one of them"
            ));
        }
    }
    if let Some((column, value)) = step
        .impute
        .iter()
        .find(|(_, value)| !(value.is_number() || value.is_string()))
    {
        return Err(format!(
            "column `{column}`: `{value}` is neither a number nor a text"
        ));
    }
    match &step.threshold {
        Some(threshold) if !matches!(threshold.labels.len(), 0 | 2) => {
            Err("`labels` are two: what is below the bound, and what is not".to_owned())
        }
        _ => Ok(()),
    }
}
