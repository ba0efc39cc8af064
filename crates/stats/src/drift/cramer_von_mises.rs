//! Two-sample Cramér-von Mises test (Anderson 1962; exact distribution: Xiao, Gordon & Yakovlev 2006).

use super::{Direction, Kind, Method, Pair};
use crate::error::{Result, StatsError, all_finite};
use crate::ranks::{midranks, sorted};
use crate::special::{ln_choose, ln_gamma, scaled_bessel_k_quarter};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::f64::consts::PI;

pub(super) static METHOD: Method = Method {
    name: "cramer_von_mises",
    kinds: &[Kind::Numeric],
    default_threshold: 0.1,
    direction: Direction::AtMost,
    doc: "P-value of the two-sample Cramér-von Mises test. Not applicable to samples so small that the peer fails on them; `cramer_von_mises_test` answers there too.",
    compute,
};

/// Up to this many rows a side the p-value is exact.
const MAX_EXACT_ROWS: usize = 20;

/// Result of the two-sample test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CramerVonMises {
    /// The statistic T.
    pub statistic: f64,
    /// Its p-value.
    pub p_value: f64,
}

fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (reference, current) = pair.numbers(METHOD.name)?;
    if peer_fails(reference.len(), current.len()) {
        let why = format!(
            "it has no answer for {} and {} rows; collect more than {MAX_EXACT_ROWS} on a side",
            reference.len(),
            current.len()
        );
        return Err(StatsError::not_applicable(METHOD.name, why));
    }
    Ok(test(reference, current)?.p_value)
}

/// The peer's exact branch keeps counts in the smallest unsigned type that holds them and fails where that is
/// narrower than 64 bits (reference/monitoring.md §2.7 #7).
fn peer_fails(n_a: usize, n_b: usize) -> bool {
    if n_a.max(n_b) > MAX_EXACT_ROWS {
        return false;
    }
    let (m, n) = (n_a as u64, n_b as u64);
    let multiple = m / crate::kolmogorov::gcd(m, n) * n;
    let bound = (multiple * multiple * (m + n)) as f64;
    bound.max(ln_choose((m + n) as f64, m as f64).exp().round()) <= f64::from(u32::MAX)
}

/// The test on samples of any size from 2 rows each: exact up to 20 rows a side, else by the limit law.
pub fn cramer_von_mises_test(a: &[f64], b: &[f64]) -> Result<CramerVonMises> {
    all_finite(a)?;
    all_finite(b)?;
    test(&sorted(a), &sorted(b))
}

fn test(a: &[f64], b: &[f64]) -> Result<CramerVonMises> {
    if a.len() < 2 || b.len() < 2 {
        return Err(StatsError::not_applicable(
            METHOD.name,
            "it needs two rows on each side",
        ));
    }
    let pooled: Vec<f64> = a.iter().chain(b).copied().collect();
    let ranks = midranks(&pooled);
    let deviation = |ranks: &[f64]| -> f64 {
        ranks
            .iter()
            .enumerate()
            .map(|(i, r)| (r - (i + 1) as f64).powi(2))
            .sum()
    };
    let (m, n) = (a.len() as f64, b.len() as f64);
    let u = m * deviation(&ranks[..a.len()]) + n * deviation(&ranks[a.len()..]);
    let (product, total) = (m * n, m + n);
    let statistic = u / (product * total) - (4.0 * product - 1.0) / (6.0 * total);
    let p_value = if a.len().max(b.len()) <= MAX_EXACT_ROWS {
        exact_p(u, a.len() as u64, b.len() as u64)
    } else {
        asymptotic_p(statistic, m, n)
    };
    Ok(CramerVonMises { statistic, p_value })
}

/// T standardised to the mean and variance of the limit law (Anderson 1962, equations 14 and 15).
fn asymptotic_p(statistic: f64, m: f64, n: f64) -> f64 {
    let (product, total) = (m * n, m + n);
    let mean = (1.0 + 1.0 / total) / 6.0;
    let variance = (total + 1.0) * (4.0 * product * total - 3.0 * (m * m + n * n) - 2.0 * product)
        / (45.0 * total * total * 4.0 * product);
    let standardised = 1.0 / 6.0 + (statistic - mean) / (45.0 * variance).sqrt();
    if standardised < 0.003 {
        1.0
    } else {
        (1.0 - limit_cdf(standardised)).max(0.0)
    }
}

/// Distribution function of the limit law (Csörgő & Faraway 1996, equation 1.2), terms below 1e-7 left out as in scipy.
fn limit_cdf(x: f64) -> f64 {
    let mut sum = 0.0;
    for k in 0..1000_u32 {
        let k = f64::from(k);
        let scale = (ln_gamma(k + 0.5) - ln_gamma(k + 1.0)).exp() / (PI.powf(1.5) * x.sqrt());
        let y = 4.0 * k + 1.0;
        let term = scale * y.sqrt() * scaled_bessel_k_quarter(y * y / (16.0 * x));
        sum += term;
        if term.abs() < 1e-7 {
            break;
        }
    }
    sum
}

/// Share of the orders of `m` + `n` values whose statistic is at least the observed one: walks all lattice paths, keeping
/// for each end point how many paths have which value.
fn exact_p(u: f64, m: u64, n: u64) -> f64 {
    let multiple = m / crate::kolmogorov::gcd(m, n) * n;
    let (step_a, step_b) = ((multiple / m) as i64, (multiple / n) as i64);
    let product = (m * n) as f64;
    let scale = (multiple * multiple * (m + n)) as f64;
    let observed =
        (scale * (6.0 * u - product * (4.0 * product - 1.0)) / (6.0 * product * product)).floor() as i64;
    // column[v] for u rows of the second sample and v of the first: value → number of paths.
    let mut column: Vec<BTreeMap<i64, f64>> = vec![BTreeMap::new(); m as usize + 1];
    column[0].insert(0, 1.0);
    for taken_b in 0..=n as i64 {
        let mut from_left: BTreeMap<i64, f64> = BTreeMap::new();
        for (taken_a, from_below) in column.iter_mut().enumerate() {
            let mut merged = std::mem::take(from_below);
            for (value, paths) in from_left {
                *merged.entry(value).or_default() += paths;
            }
            let cost = (step_a * taken_a as i64 - step_b * taken_b).pow(2);
            *from_below = merged
                .into_iter()
                .map(|(value, paths)| (value + cost, paths))
                .collect();
            from_left = from_below.clone();
        }
    }
    let last = &column[m as usize];
    let all: f64 = last.values().sum();
    last.range(observed..).map(|(_, paths)| paths).sum::<f64>() / all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_agree_with_scipys_exact_values() {
        // scipy.stats.cramervonmises_2samp, method exact
        let got = cramer_von_mises_test(&[1.0, 2.0, 4.0], &[3.0, 5.0, 6.0, 7.0]).unwrap();
        assert!(
            (got.statistic - 0.3928571428571428).abs() < 1e-12
                && (got.p_value - 0.11428571428571428).abs() < 1e-12,
            "{got:?}"
        );
    }
}
