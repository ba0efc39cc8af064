//! Epps-Singleton test.

use super::{Direction, Kind, Method, Pair};
use crate::error::{Result, StatsError};
use crate::special::chi_squared_sf;

pub(super) static METHOD: Method = Method {
    name: "es",
    kinds: &[Kind::Numeric],
    default_threshold: 0.05,
    direction: Direction::Below,
    doc: "P-value of the Epps-Singleton test on empirical characteristic functions: sees changes of shape, needs 5 rows a side and a pooled interquartile range above 0.",
    compute,
};

/// Points of the characteristic function, in units of half the pooled interquartile range.
const POINTS: [f64; 2] = [0.4, 0.8];
type Matrix = [[f64; 4]; 4];

/// W = n·g'Σ⁺g with g the difference of mean cosines and sines (Epps & Singleton 1986; Goerg & Kaiser 2009).
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (reference, current) = pair.numbers(METHOD.name)?;
    if reference.len().min(current.len()) < 5 {
        return Err(StatsError::not_applicable(
            METHOD.name,
            "it needs five rows on each side",
        ));
    }
    let mut pooled: Vec<f64> = reference.iter().chain(current).copied().collect();
    pooled.sort_unstable_by(f64::total_cmp);
    let scale = (quantile(&pooled, 0.75) - quantile(&pooled, 0.25)) / 2.0;
    if scale <= 0.0 {
        return Err(StatsError::not_applicable(
            METHOD.name,
            "the pooled interquartile range is zero; use `ks`",
        ));
    }
    let (mean_x, cov_x) = moments(reference, scale);
    let (mean_y, cov_y) = moments(current, scale);
    let (nx, ny) = (reference.len() as f64, current.len() as f64);
    let n = nx + ny;
    let mut covariance = [[0.0; 4]; 4];
    for (i, row) in covariance.iter_mut().enumerate() {
        for (j, cell) in row.iter_mut().enumerate() {
            *cell = n / nx * cov_x[i][j] + n / ny * cov_y[i][j];
        }
    }
    let (values, vectors) = symmetric_eigen(covariance);
    // numpy's defaults: pinv drops singular values up to 1e-15 of the largest; the rank is that of the inverse.
    let largest = values.iter().fold(0.0_f64, |max, v| max.max(v.abs()));
    let kept = |value: f64| value.abs() > 1e-15 * largest;
    let smallest = values
        .iter()
        .copied()
        .filter(|v| kept(*v))
        .fold(f64::INFINITY, |min, v| min.min(v.abs()));
    let rank_limit = 4.0 * f64::EPSILON / smallest;
    let difference: [f64; 4] = std::array::from_fn(|i| mean_x[i] - mean_y[i]);
    let (mut statistic, mut rank) = (0.0, 0_u32);
    for (k, value) in values.iter().enumerate() {
        if kept(*value) {
            let projection: f64 = (0..4).map(|i| vectors[i][k] * difference[i]).sum();
            statistic += n * projection * projection / value;
            rank += u32::from(1.0 / value.abs() > rank_limit);
        }
    }
    if rank == 0 {
        return Err(StatsError::degenerate(
            "the covariance of the characteristic function is zero",
        ));
    }
    if nx.max(ny) < 25.0 {
        statistic /= 1.0 + n.powf(-0.45) + 10.1 * (nx.powf(-1.7) + ny.powf(-1.7));
    }
    Ok(chi_squared_sf(statistic, f64::from(rank)))
}

/// Linear interpolation between order statistics (numpy's default).
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let position = p * (sorted.len() - 1) as f64;
    let low = position.floor() as usize;
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (sorted[high] - sorted[low]) * (position - low as f64)
}

/// Mean and biased covariance of (cos t₁x, cos t₂x, sin t₁x, sin t₂x).
fn moments(values: &[f64], scale: f64) -> ([f64; 4], Matrix) {
    let n = values.len() as f64;
    let features: Vec<[f64; 4]> = values
        .iter()
        .map(|x| {
            let [a, b] = POINTS.map(|t| t / scale * x);
            [a.cos(), b.cos(), a.sin(), b.sin()]
        })
        .collect();
    let mean: [f64; 4] = std::array::from_fn(|i| features.iter().map(|f| f[i]).sum::<f64>() / n);
    let mut covariance = [[0.0; 4]; 4];
    for (i, row) in covariance.iter_mut().enumerate() {
        for (j, cell) in row.iter_mut().enumerate() {
            *cell = features
                .iter()
                .map(|f| (f[i] - mean[i]) * (f[j] - mean[j]))
                .sum::<f64>()
                / n;
        }
    }
    (mean, covariance)
}

/// Eigenvalues and eigenvectors (columns) of a symmetric matrix, by Jacobi rotations.
fn symmetric_eigen(mut matrix: Matrix) -> ([f64; 4], Matrix) {
    let mut vectors: Matrix = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
    for _sweep in 0..60 {
        let mut off_diagonal = 0.0;
        for p in 0..3 {
            for q in p + 1..4 {
                off_diagonal += matrix[p][q].abs();
                if matrix[p][q] == 0.0 {
                    continue;
                }
                let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q]);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let cosine = 1.0 / t.hypot(1.0);
                let sine = t * cosine;
                for row in &mut matrix {
                    let (left, right) = (row[p], row[q]);
                    row[p] = cosine * left - sine * right;
                    row[q] = sine * left + cosine * right;
                }
                let (upper, lower) = (matrix[p], matrix[q]);
                for k in 0..4 {
                    matrix[p][k] = cosine * upper[k] - sine * lower[k];
                    matrix[q][k] = sine * upper[k] + cosine * lower[k];
                }
                for row in &mut vectors {
                    let (left, right) = (row[p], row[q]);
                    row[p] = cosine * left - sine * right;
                    row[q] = sine * left + cosine * right;
                }
            }
        }
        if off_diagonal == 0.0 {
            break;
        }
    }
    (std::array::from_fn(|i| matrix[i][i]), vectors)
}
