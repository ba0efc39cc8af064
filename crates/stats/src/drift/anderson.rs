//! Two-sample Anderson-Darling test.

use super::{Direction, Kind, Method, Pair};
use crate::error::{Result, StatsError, all_finite, not_empty};
use crate::ranks::sorted;
use crate::special::horner;

pub(super) static METHOD: Method = Method {
    name: "anderson",
    kinds: &[Kind::Numeric],
    default_threshold: 0.1,
    direction: Direction::Below,
    doc: "P-value of the two-sample Anderson-Darling test (midranks), interpolated between 0.25 and 0.001: weighs the tails more than `ks`.",
    compute,
};

/// Levels of the table, and their critical values for two samples (Scholz & Stephens 1987, table 2: b₀ + b₁ + b₂).
const LEVELS: [f64; 7] = [0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 0.001];
const CRITICAL: [f64; 7] = [
    0.675 - 0.245 - 0.105,
    1.281 + 0.25 - 0.305,
    1.645 + 0.678 - 0.362,
    1.96 + 1.149 - 0.391,
    2.326 + 1.822 - 0.396,
    2.573 + 2.364 - 0.345,
    3.085 + 3.615 - 0.154,
];

fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (reference, current) = pair.numbers(METHOD.name)?;
    let statistic = normalised(reference, current)?;
    if statistic < CRITICAL[0] {
        return Ok(LEVELS[0]);
    }
    if statistic > CRITICAL[6] {
        return Ok(LEVELS[6]);
    }
    Ok(horner(statistic, &quadratic_fit(&CRITICAL, &LEVELS.map(f64::ln))).exp())
}

/// The normalised statistic (A² − 1)/σ of Scholz & Stephens (1987), equation 7, midrank version.
pub fn anderson_statistic(a: &[f64], b: &[f64]) -> Result<f64> {
    not_empty("a", a.len())?;
    not_empty("b", b.len())?;
    all_finite(a)?;
    all_finite(b)?;
    normalised(&sorted(a), &sorted(b))
}

fn normalised(a: &[f64], b: &[f64]) -> Result<f64> {
    let total = a.len() + b.len();
    if total < 4 {
        return Err(StatsError::not_applicable(
            METHOD.name,
            format!("it needs 4 rows in all, there are {total}"),
        ));
    }
    let n = total as f64;
    let (n_a, n_b) = (a.len() as f64, b.len() as f64);
    let (mut i, mut j) = (0, 0);
    let (mut sum_a, mut sum_b) = (0.0, 0.0);
    let mut groups = 0_u64;
    while i < a.len() || j < b.len() {
        let next = match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) => x.min(*y),
            (Some(only), None) | (None, Some(only)) => *only,
            (None, None) => break,
        };
        let in_a = a[i..].iter().take_while(|v| **v == next).count();
        let in_b = b[j..].iter().take_while(|v| **v == next).count();
        let size = (in_a + in_b) as f64;
        let below = (i + j) as f64 + size / 2.0;
        let denominator = below * (n - below) - n * size / 4.0;
        let term = |seen: usize, here: usize, rows: f64| {
            size / n * (n * (seen as f64 + here as f64 / 2.0) - below * rows).powi(2) / denominator
        };
        if denominator != 0.0 {
            sum_a += term(i, in_a, n_a);
            sum_b += term(j, in_b, n_b);
        }
        i += in_a;
        j += in_b;
        groups += 1;
    }
    if groups < 2 {
        return Err(StatsError::not_applicable(
            METHOD.name,
            "all values are equal: it needs two distinct ones",
        ));
    }
    let a2 = (sum_a / n_a + sum_b / n_b) * (n - 1.0) / n;
    Ok((a2 - 1.0) / variance(n_a, n_b).sqrt())
}

/// Variance of A² under the null hypothesis, for k = 2 samples (Scholz & Stephens 1987, equation 4).
fn variance(n_a: f64, n_b: f64) -> f64 {
    let n = n_a + n_b;
    let inverse_sizes = 1.0 / n_a + 1.0 / n_b;
    let (mut partial, mut g) = (0.0, 0.0);
    for i in 2..n as u64 {
        partial += 1.0 / (n + 1.0 - i as f64);
        g += partial / i as f64;
    }
    let h = partial + 1.0;
    let a = (4.0 * g - 6.0) + (10.0 - 6.0 * g) * inverse_sizes;
    let b = (2.0 * g - 4.0) * 4.0 + 16.0 * h + (2.0 * g - 14.0 * h - 4.0) * inverse_sizes - 8.0 * h + 4.0 * g
        - 6.0;
    let c = (6.0 * h + 2.0 * g - 2.0) * 4.0
        + (4.0 * h - 4.0 * g + 6.0) * 2.0
        + (2.0 * h - 6.0) * inverse_sizes
        + 4.0 * h;
    let d = (2.0 * h + 6.0) * 4.0 - 8.0 * h;
    (a * n.powi(3) + b * n * n + c * n + d) / ((n - 1.0) * (n - 2.0) * (n - 3.0))
}

/// Least-squares parabola through points, highest power first; centred for accuracy.
fn quadratic_fit(x: &[f64; 7], y: &[f64; 7]) -> [f64; 3] {
    let centre = x.iter().sum::<f64>() / 7.0;
    let mut matrix = [[0.0; 4]; 3];
    for (x, y) in x.iter().zip(y) {
        let powers = [1.0, x - centre, (x - centre).powi(2)];
        for (row, left) in powers.iter().enumerate() {
            for (column, right) in powers.iter().enumerate() {
                matrix[row][column] += left * right;
            }
            matrix[row][3] += left * y;
        }
    }
    for pivot in 0..3 {
        for row in pivot + 1..3 {
            let factor = matrix[row][pivot] / matrix[pivot][pivot];
            let pivot_row = matrix[pivot];
            for (cell, above) in matrix[row].iter_mut().zip(pivot_row) {
                *cell -= factor * above;
            }
        }
    }
    let c2 = matrix[2][3] / matrix[2][2];
    let c1 = (matrix[1][3] - matrix[1][2] * c2) / matrix[1][1];
    let c0 = (matrix[0][3] - matrix[0][1] * c1 - matrix[0][2] * c2) / matrix[0][0];
    [
        c2,
        c1 - 2.0 * c2 * centre,
        c0 - c1 * centre + c2 * centre * centre,
    ]
}
