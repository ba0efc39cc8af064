//! Two classes: `labels[i]` is the truth, `scores[i]` the predicted probability of `true`.

use crate::error::{Result, StatsError, all_finite, not_empty, same_length};
use crate::metrics::calibration;
use crate::ranks::{argsort, tie_groups};
use serde::{Deserialize, Serialize};

/// Counts of right and wrong answers at one threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Predicted true, is true.
    pub true_positive: u64,
    /// Predicted true, is false.
    pub false_positive: u64,
    /// Predicted false, is true.
    pub false_negative: u64,
    /// Predicted false, is false.
    pub true_negative: u64,
}

impl Confusion {
    /// Counts rows; a row is predicted true when its score is `threshold` or more.
    pub fn at_threshold(labels: &[bool], scores: &[f64], threshold: f64) -> Result<Self> {
        check(labels, scores)?;
        let mut counts = Self {
            true_positive: 0,
            false_positive: 0,
            false_negative: 0,
            true_negative: 0,
        };
        for (label, score) in labels.iter().zip(scores) {
            match (*label, *score >= threshold) {
                (true, true) => counts.true_positive += 1,
                (false, true) => counts.false_positive += 1,
                (true, false) => counts.false_negative += 1,
                (false, false) => counts.true_negative += 1,
            }
        }
        Ok(counts)
    }

    /// Share of right answers.
    pub fn accuracy(&self) -> f64 {
        let all = self.true_positive + self.false_positive + self.false_negative + self.true_negative;
        share(self.true_positive + self.true_negative, all)
    }

    /// Of the rows predicted true, the share that is true; 0 when none is (as scikit-learn).
    pub fn precision(&self) -> f64 {
        share(self.true_positive, self.true_positive + self.false_positive)
    }

    /// Of the true rows, the share found (true positive rate); 0 when there is none.
    pub fn recall(&self) -> f64 {
        share(self.true_positive, self.true_positive + self.false_negative)
    }

    /// Harmonic mean of precision and recall; 0 when nothing is true or predicted true.
    pub fn f1(&self) -> f64 {
        share(
            2 * self.true_positive,
            2 * self.true_positive + self.false_positive + self.false_negative,
        )
    }

    /// Of the false rows, the share recognised (specificity); 0 when there is none.
    pub fn true_negative_rate(&self) -> f64 {
        share(self.true_negative, self.true_negative + self.false_positive)
    }

    /// Of the false rows, the share taken for true; 0 when there is none.
    pub fn false_positive_rate(&self) -> f64 {
        share(self.false_positive, self.true_negative + self.false_positive)
    }

    /// Of the true rows, the share missed; 0 when there is none.
    pub fn false_negative_rate(&self) -> f64 {
        share(self.false_negative, self.true_positive + self.false_negative)
    }

    /// The same counts with the roles of the classes exchanged.
    pub fn swapped(&self) -> Self {
        Self {
            true_positive: self.true_negative,
            false_positive: self.false_negative,
            false_negative: self.false_positive,
            true_negative: self.true_positive,
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// Every binary metric that a gate or a signal names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BinaryMetrics {
    /// Labelled rows.
    pub rows: u64,
    /// Share of rows that are true.
    pub base_rate: f64,
    /// Area under the ROC curve; absent when the rows are of one class.
    pub auc: Option<f64>,
    /// Mean negative log likelihood, in nats.
    pub log_loss: f64,
    /// Mean squared error of the probability, 0 to 1.
    pub brier: f64,
    /// The threshold of the metrics below.
    pub threshold: f64,
    /// Counts at the threshold.
    pub confusion: Confusion,
    /// Share of right answers at the threshold.
    pub accuracy: f64,
    /// Precision at the threshold.
    pub precision: f64,
    /// Recall at the threshold.
    pub recall: f64,
    /// F1 at the threshold.
    pub f1: f64,
    /// Expected calibration error over 15 equal-width bins.
    pub ece: f64,
}

/// All binary metrics at once. Fails on an empty input, on lengths that differ and on scores outside [0, 1].
///
/// ```
/// let metrics = tidemill_stats::metrics::binary::binary(&[true, false, true], &[0.9, 0.4, 0.6], 0.5)?;
/// assert_eq!(metrics.auc, Some(1.0));
/// # Ok::<(), tidemill_stats::StatsError>(())
/// ```
pub fn binary(labels: &[bool], scores: &[f64], threshold: f64) -> Result<BinaryMetrics> {
    let confusion = Confusion::at_threshold(labels, scores, threshold)?;
    let positives = labels.iter().filter(|l| **l).count();
    let one_class = positives == 0 || positives == labels.len();
    Ok(BinaryMetrics {
        rows: labels.len() as u64,
        base_rate: positives as f64 / labels.len() as f64,
        auc: if one_class {
            None
        } else {
            Some(auc(labels, scores)?)
        },
        log_loss: log_loss(labels, scores)?,
        brier: brier(labels, scores)?,
        threshold,
        confusion,
        accuracy: confusion.accuracy(),
        precision: confusion.precision(),
        recall: confusion.recall(),
        f1: confusion.f1(),
        ece: calibration::ece(labels, scores, calibration::DEFAULT_BINS)?,
    })
}

/// Area under the ROC curve: P(score of a true row > score of a false row) + ½ P(equal), by midranks (Mann-Whitney;
/// Hanley & McNeil 1982). 0.5 is chance. Any real scores will do.
pub fn auc(labels: &[bool], scores: &[f64]) -> Result<f64> {
    check(labels, scores)?;
    let positives = labels.iter().filter(|l| **l).count();
    let negatives = labels.len() - positives;
    if positives == 0 || negatives == 0 {
        return Err(StatsError::OneClassOnly { rows: labels.len() });
    }
    let order = argsort(scores);
    let mut negatives_below = 0_usize;
    let mut wins = 0.0;
    for group in tie_groups(scores, &order) {
        let size = group.len();
        let group_positives = order[group].iter().filter(|i| labels[**i as usize]).count();
        let group_negatives = size - group_positives;
        wins += group_positives as f64 * (negatives_below as f64 + group_negatives as f64 / 2.0);
        negatives_below += group_negatives;
    }
    Ok(wins / (positives as f64 * negatives as f64))
}

/// Mean log loss in nats; probabilities are clipped to [ε, 1−ε] with the ε of `f64`, as scikit-learn does.
pub fn log_loss(labels: &[bool], scores: &[f64]) -> Result<f64> {
    Ok(mean(&log_losses(labels, scores)?))
}

/// The log loss of each row, for paired tests.
pub fn log_losses(labels: &[bool], scores: &[f64]) -> Result<Vec<f64>> {
    check_probabilities(labels, scores)?;
    let loss = |(label, score): (&bool, &f64)| {
        let p = score.clamp(f64::EPSILON, 1.0 - f64::EPSILON);
        if *label { -p.ln() } else { -(1.0 - p).ln() }
    };
    Ok(labels.iter().zip(scores).map(loss).collect())
}

/// Brier score: mean squared difference of probability and outcome, 0 to 1 (Brier 1950).
pub fn brier(labels: &[bool], scores: &[f64]) -> Result<f64> {
    Ok(mean(&brier_losses(labels, scores)?))
}

/// The squared error of each row, for paired tests; each lies in [0, 1].
pub fn brier_losses(labels: &[bool], scores: &[f64]) -> Result<Vec<f64>> {
    check_probabilities(labels, scores)?;
    Ok(labels
        .iter()
        .zip(scores)
        .map(|(label, score)| (score - f64::from(u8::from(*label))).powi(2))
        .collect())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn check(labels: &[bool], scores: &[f64]) -> Result<()> {
    same_length("scores", labels.len(), scores.len())?;
    not_empty("labels", labels.len())?;
    all_finite(scores)
}

pub(crate) fn check_probabilities(labels: &[bool], scores: &[f64]) -> Result<()> {
    check(labels, scores)?;
    match scores.iter().find(|s| !(0.0..=1.0).contains(*s)) {
        None => Ok(()),
        Some(value) => Err(StatsError::ParameterOutOfRange {
            name: "scores",
            value: *value,
            expected: "probabilities from 0 to 1",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_half_in_the_auc() {
        assert_eq!(auc(&[true, false], &[0.5, 0.5]).unwrap(), 0.5);
        assert_eq!(
            auc(&[true, true, false, false], &[0.9, 0.4, 0.4, 0.1]).unwrap(),
            0.875
        );
    }

    #[test]
    fn one_class_has_no_auc() {
        assert_eq!(
            auc(&[true, true], &[0.1, 0.2]),
            Err(StatsError::OneClassOnly { rows: 2 })
        );
        assert_eq!(binary(&[true, true], &[0.1, 0.2], 0.5).unwrap().auc, None);
    }

    #[test]
    fn a_certain_and_wrong_score_has_a_finite_loss() {
        let loss = log_loss(&[true], &[0.0]).unwrap();
        assert!((loss - 36.04365338911715).abs() < 1e-12);
    }

    #[test]
    fn a_nan_score_is_named() {
        assert!(matches!(
            auc(&[true, false], &[0.1, f64::NAN]),
            Err(StatsError::NotFinite { index: 1, .. })
        ));
    }
}
