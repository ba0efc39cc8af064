//! DeLong's test: are two correlated AUCs different?
//!
//! DeLong, DeLong & Clarke-Pearson (1988), in the O(n log n) midrank form of Sun & Xu (2014). Golden values: pROC's
//! own test suite on the aSAH data.

use crate::error::{Result, StatsError, all_finite, open_unit, same_length};
use crate::paired::Interval;
use crate::ranks::{argsort, tie_groups};
use crate::special::{normal_quantile, normal_two_sided};
use serde::{Deserialize, Serialize};

/// Two AUCs on the same rows and the uncertainty of their difference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeLong {
    /// AUC of the champion.
    pub auc_a: f64,
    /// AUC of the challenger.
    pub auc_b: f64,
    /// Variance of `auc_a`.
    pub var_a: f64,
    /// Variance of `auc_b`.
    pub var_b: f64,
    /// Covariance of both.
    pub cov: f64,
    /// `auc_b − auc_a`.
    pub difference: f64,
    /// Standard error of the difference; 0 when both models rank every pair alike.
    pub std_error: f64,
    /// Difference in standard errors; 0 when the models rank every pair alike.
    pub z: f64,
    /// P-value of "both AUCs are equal"; 1 when the models rank every pair alike.
    pub p_two_sided: f64,
}

impl DeLong {
    /// Normal confidence interval of the difference.
    pub fn interval(&self, level: f64) -> Result<Interval> {
        open_unit("level", level)?;
        let half = normal_quantile(f64::midpoint(1.0, level)) * self.std_error;
        Ok(Interval {
            lower: self.difference - half,
            upper: self.difference + half,
            level,
        })
    }
}

/// Compares the AUCs of scores `a` (champion) and `b` (challenger). Needs two rows of each class.
///
/// Rows count as independent. Where they come in groups that share something (flights of one day share the weather), the
/// standard error is too small: use [`delong_clustered`].
pub fn delong(labels: &[bool], a: &[f64], b: &[f64]) -> Result<DeLong> {
    let (placed_a, placed_b) = placements(labels, a, b)?;
    let (m, n) = (placed_a.positive.len() as f64, placed_a.negative.len() as f64);
    let variance = |x: &Placements, y: &Placements| {
        covariance(&x.positive, &y.positive) / m + covariance(&x.negative, &y.negative) / n
    };
    let variances = [
        variance(&placed_a, &placed_a),
        variance(&placed_b, &placed_b),
        variance(&placed_a, &placed_b),
    ];
    compare(&placed_a, &placed_b, variances)
}

/// DeLong's comparison for clustered rows (Obuchowski, Biometrics 53, 1997, eq. 3–5): `clusters` names the cluster of each row, and
/// placements are summed within clusters before their covariances are taken, so that only clusters count as independent. With
/// every row a cluster of its own it differs from [`delong`] by nothing but the cross term, which is then zero on average.
/// Needs two clusters with a positive row and two with a negative one.
pub fn delong_clustered(labels: &[bool], a: &[f64], b: &[f64], clusters: &[u64]) -> Result<DeLong> {
    same_length("clusters", labels.len(), clusters.len())?;
    let (placed_a, placed_b) = placements(labels, a, b)?;
    let sums_a = ClusterSums::of(labels, &placed_a, clusters);
    let sums_b = ClusterSums::of(labels, &placed_b, clusters);
    let (with_positive, with_negative) = (sums_a.with_positive as f64, sums_a.with_negative as f64);
    let all = sums_a.positive.len() as f64;
    if sums_a.with_positive < 2 || sums_a.with_negative < 2 {
        return Err(StatsError::degenerate(format!(
            "a variance over clusters needs two with true rows and two with false ones, there are {with_positive} and {with_negative}"
        )));
    }
    let (m, n) = (placed_a.positive.len() as f64, placed_a.negative.len() as f64);
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let variance = |x: &ClusterSums, y: &ClusterSums| {
        let positive = with_positive / (with_positive - 1.0) * product(&x.positive, &y.positive) / (m * m);
        let negative = with_negative / (with_negative - 1.0) * product(&x.negative, &y.negative) / (n * n);
        let across = all / (all - 1.0)
            * (product(&x.positive, &y.negative) + product(&y.positive, &x.negative))
            / (m * n);
        positive + negative + across
    };
    let variances = [
        variance(&sums_a, &sums_a),
        variance(&sums_b, &sums_b),
        variance(&sums_a, &sums_b),
    ];
    compare(&placed_a, &placed_b, variances)
}

/// For each cluster, by how much its placements exceed their mean: the sums over its positive and over its negative rows.
struct ClusterSums {
    positive: Vec<f64>,
    negative: Vec<f64>,
    with_positive: usize,
    with_negative: usize,
}

impl ClusterSums {
    fn of(labels: &[bool], placed: &Placements, clusters: &[u64]) -> Self {
        let auc = mean(&placed.positive);
        // Sorted, so that sums run in the same order on every machine.
        let mut by_cluster: std::collections::BTreeMap<u64, (f64, f64, bool, bool)> =
            std::collections::BTreeMap::new();
        let (mut positive, mut negative) = (placed.positive.iter(), placed.negative.iter());
        for (label, cluster) in labels.iter().zip(clusters) {
            let entry = by_cluster.entry(*cluster).or_default();
            if *label {
                entry.0 += positive.next().map_or(0.0, |v| v - auc);
                entry.2 = true;
            } else {
                entry.1 += negative.next().map_or(0.0, |v| v - auc);
                entry.3 = true;
            }
        }
        Self {
            positive: by_cluster.values().map(|c| c.0).collect(),
            negative: by_cluster.values().map(|c| c.1).collect(),
            with_positive: by_cluster.values().filter(|c| c.2).count(),
            with_negative: by_cluster.values().filter(|c| c.3).count(),
        }
    }
}

fn placements(labels: &[bool], a: &[f64], b: &[f64]) -> Result<(Placements, Placements)> {
    same_length("a", labels.len(), a.len())?;
    same_length("b", labels.len(), b.len())?;
    all_finite(a)?;
    all_finite(b)?;
    let positives = labels.iter().filter(|l| **l).count();
    let negatives = labels.len() - positives;
    if positives == 0 || negatives == 0 {
        return Err(StatsError::OneClassOnly { rows: labels.len() });
    }
    if positives < 2 || negatives < 2 {
        return Err(StatsError::degenerate(format!(
            "a variance needs two rows of each class, there are {positives} true and {negatives} false"
        )));
    }
    let placed_a = Placements::of(labels, a, positives, negatives);
    let placed_b = Placements::of(labels, b, positives, negatives);
    Ok((placed_a, placed_b))
}

/// The comparison, from the variances of both AUCs and their covariance.
fn compare(placed_a: &Placements, placed_b: &Placements, [var_a, var_b, cov]: [f64; 3]) -> Result<DeLong> {
    let auc_a = mean(&placed_a.positive);
    let auc_b = mean(&placed_b.positive);
    let difference = auc_b - auc_a;
    // Placements that agree row by row differ by exactly zero; a rounding residue of the subtraction would not.
    let identical = placed_a == placed_b;
    let std_error = if identical {
        0.0
    } else {
        (var_a + var_b - 2.0 * cov).max(0.0).sqrt()
    };
    let (z, p_two_sided) = if difference == 0.0 {
        (0.0, 1.0)
    } else if std_error == 0.0 {
        return Err(StatsError::degenerate(
            "the AUCs differ but their difference has no variance: too few rows",
        ));
    } else {
        let z = difference / std_error;
        (z, normal_two_sided(z))
    };
    Ok(DeLong {
        auc_a,
        auc_b,
        var_a,
        var_b,
        cov,
        difference,
        std_error,
        z,
        p_two_sided,
    })
}

/// For each positive the share of negatives below it (V10), for each negative the share of positives above it (V01).
#[derive(PartialEq)]
struct Placements {
    positive: Vec<f64>,
    negative: Vec<f64>,
}

impl Placements {
    fn of(labels: &[bool], scores: &[f64], positives: usize, negatives: usize) -> Self {
        let order = argsort(scores);
        let mut by_row = vec![0.0; labels.len()];
        let (mut positives_below, mut negatives_below) = (0_usize, 0_usize);
        for group in tie_groups(scores, &order) {
            let members = &order[group];
            let group_positives = members.iter().filter(|i| labels[**i as usize]).count();
            let group_negatives = members.len() - group_positives;
            let positives_above = positives - positives_below - group_positives;
            let share_below = (negatives_below as f64 + group_negatives as f64 / 2.0) / negatives as f64;
            let share_above = (positives_above as f64 + group_positives as f64 / 2.0) / positives as f64;
            for &row in members {
                by_row[row as usize] = if labels[row as usize] {
                    share_below
                } else {
                    share_above
                };
            }
            positives_below += group_positives;
            negatives_below += group_negatives;
        }
        let mut placements = Self {
            positive: Vec::with_capacity(positives),
            negative: Vec::with_capacity(negatives),
        };
        for (label, placement) in labels.iter().zip(by_row) {
            if *label {
                placements.positive.push(placement);
            } else {
                placements.negative.push(placement);
            }
        }
        placements
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn covariance(x: &[f64], y: &[f64]) -> f64 {
    let (mean_x, mean_y) = (mean(x), mean(y));
    let sum: f64 = x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    sum / (x.len() - 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_rank_alike_do_not_differ() {
        let labels = [true, false, true, false, true];
        let scores = [0.9, 0.2, 0.4, 0.5, 0.7];
        let doubled: Vec<f64> = scores.iter().map(|s| s * 2.0).collect();
        let got = delong(&labels, &scores, &doubled).unwrap();
        assert_eq!((got.difference, got.std_error, got.p_two_sided), (0.0, 0.0, 1.0));
    }

    /// Two models on independent rows, the second a little noisier.
    fn independent(rows: usize) -> (Vec<bool>, Vec<f64>, Vec<f64>) {
        let mut rng = crate::rng::SeededRng::new(11);
        let (mut labels, mut a, mut b) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rows {
            let signal = rng.uniform();
            labels.push(rng.uniform() < signal);
            a.push(signal + 0.3 * rng.uniform());
            b.push(signal + 0.6 * rng.uniform());
        }
        (labels, a, b)
    }

    #[test]
    fn clusters_of_one_row_agree_with_independent_rows() {
        let (labels, a, b) = independent(3_000);
        let plain = delong(&labels, &a, &b).unwrap();
        let alone = delong_clustered(&labels, &a, &b, &(0..3_000).collect::<Vec<u64>>()).unwrap();
        assert_eq!(plain.difference, alone.difference);
        assert!(
            (alone.std_error / plain.std_error - 1.0).abs() < 0.02,
            "{} {}",
            alone.std_error,
            plain.std_error
        );
    }

    #[test]
    fn copies_of_a_row_in_its_cluster_add_no_confidence() {
        let (labels, a, b) = independent(800);
        let plain = delong(&labels, &a, &b).unwrap();
        let four = |values: &[f64]| values.iter().flat_map(|v| [*v; 4]).collect::<Vec<f64>>();
        let labels4: Vec<bool> = labels.iter().flat_map(|l| [*l; 4]).collect();
        let clusters: Vec<u64> = (0..3_200).map(|i| i / 4).collect();
        let naive = delong(&labels4, &four(&a), &four(&b)).unwrap();
        let honest = delong_clustered(&labels4, &four(&a), &four(&b), &clusters).unwrap();
        assert!(
            (naive.std_error * 2.0 / plain.std_error - 1.0).abs() < 0.02,
            "copies look like data to the plain test"
        );
        assert!(
            (honest.std_error / plain.std_error - 1.0).abs() < 0.02,
            "{} {}",
            honest.std_error,
            plain.std_error
        );
    }

    #[test]
    fn one_cluster_has_no_variance() {
        let (labels, a, b) = independent(50);
        assert!(matches!(
            delong_clustered(&labels, &a, &b, &[7; 50]),
            Err(StatsError::Degenerate { .. })
        ));
    }

    #[test]
    fn one_row_of_a_class_has_no_variance() {
        let got = delong(&[true, false, false], &[0.9, 0.1, 0.2], &[0.1, 0.2, 0.3]);
        assert!(matches!(got, Err(StatsError::Degenerate { .. })));
    }
}
