//! Total variation distance.

use super::sample::Sample;
use super::{Direction, Kind, Method, Pair};
use crate::error::Result;
use crate::rng::SeededRng;

pub(super) static METHOD: Method = Method {
    name: "TVD",
    kinds: &[Kind::Categorical],
    default_threshold: 0.1,
    direction: Direction::Below,
    doc: "P-value of the total variation distance ½·Σ|p − q| by 1000 permutations with a fixed seed. Evidently permutes with numpy, so only the statistic agrees to the last digit.",
    compute,
};

const PERMUTATIONS: usize = 1000;
const SEED: u64 = 0;

/// The share of permutations with at least the observed distance.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature: other methods can fail"
)]
fn compute(pair: &Pair<'_>) -> Result<f64> {
    let counts = pair.value_counts();
    let observed = distance(&counts);
    let n_ref = pair.reference_rows();
    let values = counts.iter().enumerate();
    let mut pooled: Vec<u32> = values
        .flat_map(|(value, (r, c))| std::iter::repeat_n(value as u32, (r + c) as usize))
        .collect();
    let mut rng = SeededRng::new(SEED);
    let mut as_extreme = 0_usize;
    let mut permuted: Vec<(u64, u64)> = Vec::new();
    for _ in 0..PERMUTATIONS {
        // Only the reference's part has to be drawn: a partial Fisher-Yates shuffle.
        permuted.clear();
        permuted.extend(counts.iter().map(|(r, c)| (0, r + c)));
        for position in 0..n_ref {
            let other = position + rng.below(pooled.len() - position);
            pooled.swap(position, other);
            let (reference, current) = &mut permuted[pooled[position] as usize];
            *reference += 1;
            *current -= 1;
        }
        as_extreme += usize::from(distance(&permuted) >= observed - 1e-12);
    }
    Ok(as_extreme as f64 / PERMUTATIONS as f64)
}

/// ½·Σ|p − q| over the values of both samples, 0 to 1. Missing values are dropped.
pub fn tvd_statistic(reference: &Sample<'_>, current: &Sample<'_>) -> Result<f64> {
    Ok(distance(
        &Pair::clean(METHOD.name, reference, current)?.value_counts(),
    ))
}

fn distance(counts: &[(u64, u64)]) -> f64 {
    let n_ref = counts.iter().map(|(r, _)| r).sum::<u64>() as f64;
    let n_cur = counts.iter().map(|(_, c)| c).sum::<u64>() as f64;
    counts
        .iter()
        .map(|(r, c)| (*r as f64 / n_ref - *c as f64 / n_cur).abs())
        .sum::<f64>()
        / 2.0
}

#[cfg(test)]
mod tests {
    use super::super::score;
    use super::*;

    #[test]
    fn equal_samples_have_p_one_and_disjoint_ones_p_zero() {
        let (a, b) = ([Some("a"); 40], [Some("b"); 30]);
        let mixed = [[Some("a"); 20], [Some("b"); 20]].concat();
        let p = |x: &[Option<&str>], y: &[Option<&str>]| {
            score(&METHOD, &Sample::Categorical(x), &Sample::Categorical(y))
                .unwrap()
                .score
        };
        assert_eq!(p(&mixed, &mixed), 1.0);
        assert_eq!(p(&a, &b), 0.0);
    }
}
