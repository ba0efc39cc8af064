//! Several classes: `labels[i]` is the class index, `probs[i·k .. (i+1)·k]` the predicted probabilities.

use crate::error::{Result, StatsError, all_finite, not_empty, same_length};
use crate::metrics::binary;
use serde::{Deserialize, Serialize};

/// Precision, recall and F1 of one class against the rest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LabelMetrics {
    /// The class index.
    pub label: usize,
    /// Rows of this class.
    pub rows: u64,
    /// Of the rows predicted as this class, the share that is.
    pub precision: f64,
    /// Of the rows of this class, the share found.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
}

/// Every multiclass metric that a gate or a signal names. Macro means are over the classes that occur.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MulticlassMetrics {
    /// Labelled rows.
    pub rows: u64,
    /// Share of rows whose most probable class is right.
    pub accuracy: f64,
    /// Mean negative log likelihood of the true class, in nats.
    pub log_loss: f64,
    /// Mean over classes of one-vs-rest AUC; absent when only one class occurs.
    pub macro_auc: Option<f64>,
    /// Mean over classes of F1.
    pub macro_f1: f64,
    /// Mean over classes of precision.
    pub macro_precision: f64,
    /// Mean over classes of recall.
    pub macro_recall: f64,
    /// Mean over rows of Σ (p − 1{class})², 0 to 2 (Brier 1950).
    pub brier: f64,
}

/// All multiclass metrics at once; `k` is the number of classes.
pub fn multiclass(labels: &[usize], probs: &[f64], k: usize) -> Result<MulticlassMetrics> {
    check(labels, probs, k)?;
    let predicted = predicted_labels(probs, k);
    let by_label = by_label(labels, &predicted)?;
    let macro_mean =
        |value: fn(&LabelMetrics) -> f64| by_label.iter().map(value).sum::<f64>() / by_label.len() as f64;
    Ok(MulticlassMetrics {
        rows: labels.len() as u64,
        accuracy: accuracy(labels, &predicted)?,
        log_loss: log_loss(labels, probs, k)?,
        macro_auc: match macro_auc(labels, probs, k) {
            Ok(auc) => Some(auc),
            Err(StatsError::OneClassOnly { .. }) => None,
            Err(other) => return Err(other),
        },
        macro_f1: macro_mean(|m| m.f1),
        macro_precision: macro_mean(|m| m.precision),
        macro_recall: macro_mean(|m| m.recall),
        brier: brier(labels, probs, k)?,
    })
}

/// Share of rows where prediction and label agree.
pub fn accuracy(labels: &[usize], predicted: &[usize]) -> Result<f64> {
    same_length("predicted", labels.len(), predicted.len())?;
    not_empty("labels", labels.len())?;
    Ok(labels.iter().zip(predicted).filter(|(a, b)| a == b).count() as f64 / labels.len() as f64)
}

/// Precision, recall and F1 for each class that occurs as label or prediction, in order of index; an undefined
/// share is 0, as in scikit-learn.
pub fn by_label(labels: &[usize], predicted: &[usize]) -> Result<Vec<LabelMetrics>> {
    same_length("predicted", labels.len(), predicted.len())?;
    not_empty("labels", labels.len())?;
    let classes = labels.iter().chain(predicted).max().map_or(0, |max| max + 1);
    let mut counts = vec![(0_u64, 0_u64, 0_u64); classes];
    for (label, guess) in labels.iter().zip(predicted) {
        counts[*label].0 += 1;
        counts[*guess].1 += 1;
        counts[*label].2 += u64::from(label == guess);
    }
    let share = |part: u64, whole: u64| {
        if whole == 0 {
            0.0
        } else {
            part as f64 / whole as f64
        }
    };
    let occurring = counts
        .into_iter()
        .enumerate()
        .filter(|(_, (actual, guessed, _))| actual + guessed > 0);
    Ok(occurring
        .map(|(label, (actual, guessed, hits))| LabelMetrics {
            label,
            rows: actual,
            precision: share(hits, guessed),
            recall: share(hits, actual),
            f1: share(2 * hits, actual + guessed),
        })
        .collect())
}

/// Mean negative log likelihood of the true class in nats; rows are normalised to sum 1, then clipped to [ε, 1 − ε].
pub fn log_loss(labels: &[usize], probs: &[f64], k: usize) -> Result<f64> {
    let losses = log_losses(labels, probs, k)?;
    Ok(losses.iter().sum::<f64>() / losses.len() as f64)
}

/// The log loss of each row, for paired tests.
pub fn log_losses(labels: &[usize], probs: &[f64], k: usize) -> Result<Vec<f64>> {
    check(labels, probs, k)?;
    let loss = |(label, row): (&usize, &[f64])| {
        let p = row[*label] / row.iter().sum::<f64>();
        -p.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()
    };
    Ok(labels.iter().zip(probs.chunks_exact(k)).map(loss).collect())
}

/// Macro one-vs-rest AUC over the classes that occur among the labels.
pub fn macro_auc(labels: &[usize], probs: &[f64], k: usize) -> Result<f64> {
    check(labels, probs, k)?;
    let mut sum = 0.0;
    let mut classes = 0_u32;
    for class in 0..k {
        let truth: Vec<bool> = labels.iter().map(|l| *l == class).collect();
        if !truth.contains(&true) {
            continue;
        }
        let scores: Vec<f64> = probs.chunks_exact(k).map(|row| row[class]).collect();
        sum += binary::auc(&truth, &scores)?;
        classes += 1;
    }
    Ok(sum / f64::from(classes))
}

/// Multiclass Brier score, 0 to 2.
pub fn brier(labels: &[usize], probs: &[f64], k: usize) -> Result<f64> {
    let losses = brier_losses(labels, probs, k)?;
    Ok(losses.iter().sum::<f64>() / losses.len() as f64)
}

/// The Brier loss of each row, for paired tests; each lies in [0, 2].
pub fn brier_losses(labels: &[usize], probs: &[f64], k: usize) -> Result<Vec<f64>> {
    check(labels, probs, k)?;
    let loss = |(label, row): (&usize, &[f64])| -> f64 {
        row.iter()
            .enumerate()
            .map(|(class, p)| (p - f64::from(u8::from(class == *label))).powi(2))
            .sum()
    };
    Ok(labels.iter().zip(probs.chunks_exact(k)).map(loss).collect())
}

/// The most probable class of each row; the first one on ties.
pub fn predicted_labels(probs: &[f64], k: usize) -> Vec<usize> {
    let best = |row: &[f64]| {
        (0..row.len())
            .reduce(|best, i| if row[i] > row[best] { i } else { best })
            .unwrap_or(0)
    };
    probs.chunks_exact(k.max(1)).map(best).collect()
}

fn check(labels: &[usize], probs: &[f64], k: usize) -> Result<()> {
    if k < 2 {
        return Err(StatsError::ParameterOutOfRange {
            name: "k",
            value: k as f64,
            expected: "2 classes or more",
        });
    }
    not_empty("labels", labels.len())?;
    same_length("probs", labels.len() * k, probs.len())?;
    all_finite(probs)?;
    if let Some(label) = labels.iter().find(|l| **l >= k) {
        return Err(StatsError::ParameterOutOfRange {
            name: "labels",
            value: *label as f64,
            expected: "class indices below the number of classes",
        });
    }
    if let Some(p) = probs.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(StatsError::ParameterOutOfRange {
            name: "probs",
            value: *p,
            expected: "numbers from 0 to 1",
        });
    }
    if probs.chunks_exact(k).any(|row| row.iter().sum::<f64>() <= 0.0) {
        return Err(StatsError::degenerate("a row of probabilities sums to zero"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_by_hand() {
        let probs = [0.7, 0.2, 0.1, 0.1, 0.8, 0.1, 0.2, 0.5, 0.3];
        let got = multiclass(&[0, 1, 2], &probs, 3).unwrap();
        assert!((got.accuracy - 2.0 / 3.0).abs() < 1e-15);
        assert!((got.macro_f1 - (1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-15);
        assert_eq!(got.macro_auc, Some(1.0));
        assert!((got.log_loss + (0.7_f64 * 0.8 * 0.3).ln() / 3.0).abs() < 1e-15);
    }
}
