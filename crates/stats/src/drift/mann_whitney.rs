//! Mann-Whitney U test, one-sided as in the peer.

use super::{Direction, Kind, Method, Pair};
use crate::error::Result;
use crate::ranks::{argsort, tie_groups};
use crate::special::{ln_choose, normal_sf};

pub(super) static METHOD: Method = Method {
    name: "mannw",
    kinds: &[Kind::Numeric],
    default_threshold: 0.05,
    direction: Direction::Below,
    doc: "P-value of the Mann-Whitney test that the reference is stochastically smaller. One-sided, as in Evidently: a current sample that is *lower* gives p near 1, never drift. Use `ks` or `wasserstein` to see both directions.",
    compute,
};

/// With at most this many rows in the smaller sample, and no ties, the p-value is exact.
const MAX_EXACT_ROWS: usize = 8;

/// Alternative "less" (Mann & Whitney 1947): exact for small samples without ties, else normal with correction for ties
/// and continuity.
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let (reference, current) = pair.numbers(METHOD.name)?;
    let (n1, n2) = (reference.len(), current.len());
    let pooled: Vec<f64> = reference.iter().chain(current).copied().collect();
    let order = argsort(&pooled);
    let (mut rank_sum, mut tie_term) = (0.0, 0.0);
    let mut ties = false;
    for group in tie_groups(&pooled, &order) {
        let size = group.len() as f64;
        let mean_rank = (group.start + group.end + 1) as f64 / 2.0;
        rank_sum += mean_rank * order[group].iter().filter(|i| (**i as usize) < n1).count() as f64;
        tie_term += size.powi(3) - size;
        ties |= size > 1.0;
    }
    let (m, n) = (n1 as f64, n2 as f64);
    let u_reference = rank_sum - m * (m + 1.0) / 2.0;
    let u_current = m * n - u_reference;
    if n1.min(n2) <= MAX_EXACT_ROWS && !ties {
        return Ok(exact_sf(u_current as usize, n1.min(n2), n1.max(n2)));
    }
    let total = m + n;
    let spread = (m * n / 12.0 * ((total + 1.0) - tie_term / (total * (total - 1.0))))
        .max(0.0)
        .sqrt();
    let numerator = u_current - m * n / 2.0 - 0.5;
    if spread == 0.0 {
        return Ok(if numerator < 0.0 { 1.0 } else { 0.0 });
    }
    Ok(normal_sf(numerator / spread))
}

/// P(U ≥ u) for samples of `small` and `large` rows: coefficients of the Gaussian binomial.
fn exact_sf(u: usize, small: usize, large: usize) -> f64 {
    let top = small * large;
    // By symmetry P(U ≥ u) = P(U ≤ top − u); sum the shorter side.
    let (upto, complement) = if u > top - u { (top - u, false) } else { (u, true) };
    let mut ways = vec![0.0_f64; upto + 1];
    ways[0] = 1.0;
    for i in 1..=small {
        for k in (large + i..=upto).rev() {
            ways[k] -= ways[k - large - i];
        }
        for k in i..=upto {
            ways[k] += ways[k - i];
        }
    }
    let total = ln_choose((small + large) as f64, small as f64).exp();
    let up_to: f64 = ways.iter().sum::<f64>() / total;
    let p = if complement {
        1.0 - up_to + ways[upto] / total
    } else {
        up_to
    };
    p.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::exact_sf;

    #[test]
    fn small_tables_by_hand() {
        // 2 and 2 rows: U takes 0..4 in 1, 1, 2, 1, 1 of 6 orders.
        let got: Vec<f64> = (0..=4).map(|u| exact_sf(u, 2, 2) * 6.0).collect();
        let expected = [6.0, 5.0, 4.0, 2.0, 1.0];
        assert!(
            got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-12),
            "{got:?}"
        );
    }
}
