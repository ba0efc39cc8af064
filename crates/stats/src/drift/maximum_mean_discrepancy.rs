//! Maximum mean discrepancy with a Gaussian kernel.

use super::{Direction, Kind, Method, Pair};
use crate::error::{Result, StatsError, all_finite};
use crate::rng::SeededRng;

pub(super) static METHOD: Method = Method {
    name: "empirical_mmd",
    kinds: &[Kind::Numeric],
    default_threshold: 0.1,
    direction: Direction::Below,
    doc: "P-value of the unbiased MMD² with a Gaussian kernel by 100 permutations with a fixed seed (Evidently does not seed). Quadratic in rows: 3000 in all at most.",
    compute,
};

const PERMUTATIONS: usize = 100;
const SEED: u64 = 0;
const MAX_ROWS: usize = 3000;

/// The share of permutations with at least the observed discrepancy.
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (reference, current) = pair.numbers(METHOD.name)?;
    let total = reference.len() + current.len();
    if total > MAX_ROWS {
        let why =
            format!("it takes {MAX_ROWS} rows in all, there are {total}; use `wasserstein` or a sample");
        return Err(StatsError::not_applicable(METHOD.name, why));
    }
    if reference.len().min(current.len()) < 2 {
        return Err(StatsError::not_applicable(
            METHOD.name,
            "it needs two rows on each side",
        ));
    }
    let precision = precision(reference);
    let pooled: Vec<f64> = reference.iter().chain(current).copied().collect();
    let mut kernel = vec![0.0; total * total];
    for i in 0..total {
        for j in 0..total {
            kernel[i * total + j] = gaussian(pooled[i], pooled[j], precision);
        }
    }
    let statistic = |order: &[usize]| {
        let (mut within_x, mut within_y, mut across) = (0.0, 0.0, 0.0);
        let (x, y) = order.split_at(reference.len());
        for (position, i) in x.iter().enumerate() {
            let row = &kernel[i * total..(i + 1) * total];
            within_x += 2.0 * x[position + 1..].iter().map(|j| row[*j]).sum::<f64>();
            across += y.iter().map(|j| row[*j]).sum::<f64>();
        }
        for (position, i) in y.iter().enumerate() {
            let row = &kernel[i * total..(i + 1) * total];
            within_y += 2.0 * y[position + 1..].iter().map(|j| row[*j]).sum::<f64>();
        }
        combine(within_x, within_y, across, x.len() as f64, y.len() as f64)
    };
    let mut order: Vec<usize> = (0..total).collect();
    let observed = statistic(&order);
    if !observed.is_finite() {
        return Err(StatsError::degenerate(
            "the values are too large for squared distances",
        ));
    }
    let mut rng = SeededRng::new(SEED);
    let mut as_extreme = 0_usize;
    for _ in 0..PERMUTATIONS {
        rng.shuffle(&mut order);
        as_extreme += usize::from(statistic(&order) >= observed);
    }
    Ok(as_extreme as f64 / PERMUTATIONS as f64)
}

/// Unbiased MMD² (Gretton et al. 2012, lemma 6) with kernel exp(−d²/(2σ²)) and Evidently's σ² = ½·median of the squared
/// distances within the reference (the diagonal counted, the nearest order statistic taken), 1/2 when that is zero.
pub fn mmd2u_evidently(reference: &[f64], current: &[f64]) -> Result<f64> {
    all_finite(reference)?;
    all_finite(current)?;
    if reference.len().min(current.len()) < 2 {
        return Err(StatsError::not_applicable(
            METHOD.name,
            "it needs two rows on each side",
        ));
    }
    let precision = precision(reference);
    let within = |values: &[f64]| -> f64 {
        let row = |i: usize| {
            values[i + 1..]
                .iter()
                .map(|v| gaussian(values[i], *v, precision))
                .sum::<f64>()
        };
        (0..values.len()).map(|i| 2.0 * row(i)).sum()
    };
    let across = reference
        .iter()
        .map(|x| current.iter().map(|y| gaussian(*x, *y, precision)).sum::<f64>())
        .sum();
    let value = combine(
        within(reference),
        within(current),
        across,
        reference.len() as f64,
        current.len() as f64,
    );
    crate::error::finite("MMD²", value)
}

fn combine(within_x: f64, within_y: f64, across: f64, n: f64, m: f64) -> f64 {
    within_x / (n * (n - 1.0)) + within_y / (m * (m - 1.0)) - 2.0 * across / (n * m)
}

/// 1/(2σ²), one over the median of all n² squared distances.
fn precision(reference: &[f64]) -> f64 {
    let mut squared: Vec<f64> = reference
        .iter()
        .flat_map(|x| reference.iter().map(move |y| (x - y).powi(2)))
        .collect();
    let middle = (0.5 * (squared.len() - 1) as f64).round_ties_even() as usize;
    let (_, median, _) = squared.select_nth_unstable_by(middle, f64::total_cmp);
    if *median == 0.0 { 1.0 } else { 1.0 / *median }
}

fn gaussian(x: f64, y: f64, precision: f64) -> f64 {
    (-(x - y).powi(2) * precision).exp()
}
