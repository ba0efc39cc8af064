//! Do probabilities mean what they say?

use crate::error::{Result, StatsError, not_empty};
use crate::metrics::binary::check_probabilities;
use serde::{Deserialize, Serialize};

/// The number of bins that [`ece`] uses by convention (Guo et al. 2017).
pub const DEFAULT_BINS: usize = 15;

/// One bar of a reliability diagram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Lower edge, exclusive except for 0.
    pub from: f64,
    /// Upper edge, inclusive.
    pub to: f64,
    /// Rows whose score falls here.
    pub rows: u64,
    /// Mean score of these rows.
    pub mean_score: f64,
    /// Share of these rows that are true.
    pub observed: f64,
}

/// Equal-width bins (lower, upper] over [0, 1]; empty bins are left out.
pub fn reliability(labels: &[bool], scores: &[f64], bins: usize) -> Result<Vec<ReliabilityBin>> {
    check_probabilities(labels, scores)?;
    not_empty("bins", bins)?;
    let mut sums = vec![(0_u64, 0.0_f64, 0_u64); bins];
    for (label, score) in labels.iter().zip(scores) {
        let index = ((score * bins as f64).ceil() as usize).clamp(1, bins) - 1;
        let (rows, score_sum, positives) = &mut sums[index];
        *rows += 1;
        *score_sum += score;
        *positives += u64::from(*label);
    }
    let filled = sums.into_iter().enumerate().filter(|(_, (rows, ..))| *rows > 0);
    Ok(filled
        .map(|(index, (rows, score_sum, positives))| ReliabilityBin {
            from: index as f64 / bins as f64,
            to: (index + 1) as f64 / bins as f64,
            rows,
            mean_score: score_sum / rows as f64,
            observed: positives as f64 / rows as f64,
        })
        .collect())
}

/// Expected calibration error: Σ over equal-width bins of share·|observed − mean score| (Naeini et al. 2015;
/// Guo et al. 2017). 0 to 1, 0 is best.
pub fn ece(labels: &[bool], scores: &[f64], bins: usize) -> Result<f64> {
    let total = labels.len() as f64;
    let gap = |bin: &ReliabilityBin| bin.rows as f64 / total * (bin.observed - bin.mean_score).abs();
    Ok(reliability(labels, scores, bins)?.iter().map(gap).sum())
}

/// The line through logit space that maps scores to outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recalibration {
    /// 1 when the scores are neither over- nor underconfident; below 1: overconfident.
    pub slope: f64,
    /// 0 when the scores are right on average (given the slope); above 0: too low.
    pub intercept: f64,
}

/// Logistic recalibration (Cox 1958): fits P(true) = σ(intercept + slope·logit(score)) by Newton's method.
/// Scores are clipped to [1e-12, 1 − 1e-12]. Fails when the classes are separable, because no finite line exists then.
pub fn calibration_slope_intercept(labels: &[bool], scores: &[f64]) -> Result<Recalibration> {
    check_probabilities(labels, scores)?;
    let positives = labels.iter().filter(|l| **l).count();
    if positives == 0 || positives == labels.len() {
        return Err(StatsError::OneClassOnly { rows: labels.len() });
    }
    let logit = |score: &f64| {
        let p = score.clamp(1e-12, 1.0 - 1e-12);
        (p / (1.0 - p)).ln()
    };
    let x: Vec<f64> = scores.iter().map(logit).collect();
    if x.iter().all(|v| *v == x[0]) {
        return Err(StatsError::degenerate(
            "all scores are equal, so there is no slope",
        ));
    }
    let range = |class: bool| {
        let of_class = labels
            .iter()
            .zip(&x)
            .filter(|(label, _)| **label == class)
            .map(|(_, x)| *x);
        of_class.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), x| {
            (min.min(x), max.max(x))
        })
    };
    let ((min_false, max_false), (min_true, max_true)) = (range(false), range(true));
    if max_false <= min_true || max_true <= min_false {
        let why = "the classes are separable by the score, so the logistic fit has no finite slope";
        return Err(StatsError::degenerate(why));
    }
    let loss = |slope: f64, intercept: f64| -> f64 {
        let row = |(label, x): (&bool, &f64)| {
            let eta = intercept + slope * x;
            let signed = if *label { -eta } else { eta };
            signed.max(0.0) + (-signed.abs()).exp().ln_1p()
        };
        labels.iter().zip(&x).map(row).sum()
    };
    let (mut slope, mut intercept) = (1.0_f64, 0.0_f64);
    let mut current = loss(slope, intercept);
    for _ in 0..100 {
        let (mut g0, mut g1, mut h00, mut h01, mut h11) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (label, x) in labels.iter().zip(&x) {
            let p = 1.0 / (1.0 + (-(intercept + slope * x)).exp());
            let residual = f64::from(u8::from(*label)) - p;
            let weight = p * (1.0 - p);
            g0 += residual;
            g1 += residual * x;
            h00 += weight;
            h01 += weight * x;
            h11 += weight * x * x;
        }
        let determinant = h00 * h11 - h01 * h01;
        if determinant.is_nan() || determinant <= 1e-300 {
            break;
        }
        let step_intercept = (h11 * g0 - h01 * g1) / determinant;
        let step_slope = (h00 * g1 - h01 * g0) / determinant;
        // Halve the step until the loss falls: plain Newton can overshoot on very uneven scores.
        let mut scale = 1.0;
        let mut next = loss(slope + step_slope, intercept + step_intercept);
        while (next.is_nan() || next > current) && scale > 1e-10 {
            scale /= 2.0;
            next = loss(slope + scale * step_slope, intercept + scale * step_intercept);
        }
        slope += scale * step_slope;
        intercept += scale * step_intercept;
        current = next;
        let small = |step: f64, value: f64| (scale * step).abs() < 1e-10 * (1.0 + value.abs());
        if small(step_slope, slope) && small(step_intercept, intercept) {
            return Ok(Recalibration { slope, intercept });
        }
    }
    Err(StatsError::degenerate(
        "the logistic fit does not converge: the scores hardly overlap between the classes",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SeededRng;

    fn sample(n: usize, slope: f64, intercept: f64) -> (Vec<bool>, Vec<f64>) {
        let mut rng = SeededRng::new(11);
        (0..n)
            .map(|_| {
                let eta = (rng.uniform() - 0.5) * 6.0;
                let truth = 1.0 / (1.0 + (-(intercept + slope * eta)).exp());
                (rng.uniform() < truth, 1.0 / (1.0 + (-eta).exp()))
            })
            .unzip()
    }

    #[test]
    fn recalibration_finds_the_line_that_made_the_labels() {
        let (labels, scores) = sample(50_000, 0.5, 0.3);
        let fit = calibration_slope_intercept(&labels, &scores).unwrap();
        assert!(
            (fit.slope - 0.5).abs() < 0.02 && (fit.intercept - 0.3).abs() < 0.03,
            "{fit:?}"
        );
        assert!(ece(&labels, &scores, DEFAULT_BINS).unwrap() > 0.05);
        let (labels, scores) = sample(50_000, 1.0, 0.0);
        assert!(ece(&labels, &scores, DEFAULT_BINS).unwrap() < 0.02);
    }

    #[test]
    fn separable_classes_have_no_finite_slope() {
        let got = calibration_slope_intercept(&[false, false, true, true], &[0.1, 0.2, 0.8, 0.9]);
        assert!(matches!(got, Err(StatsError::Degenerate { .. })), "{got:?}");
    }

    #[test]
    fn ece_by_hand() {
        // Bin (0.2, 0.4]: mean .3, observed .5; bin (0.8, 1]: mean .9, observed 1.
        let got = ece(&[true, false, true, true], &[0.3, 0.3, 0.9, 0.9], 5).unwrap();
        assert!((got - (0.5 * 0.2 + 0.5 * 0.1)).abs() < 1e-12);
    }
}
