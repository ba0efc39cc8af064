//! Sorting of floats and midranks, shared by AUC, DeLong and the rank tests.

/// A sorted copy.
pub(crate) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut copy: Vec<f64> = values.iter().map(|v| v + 0.0).collect();
    copy.sort_unstable_by(f64::total_cmp);
    copy
}

/// Maps a float to an integer with the same order (`-0.0` onto `0.0`), which sorts faster than a comparison of floats.
fn order_key(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
}

/// The positions of `values` in ascending order of value; ties in order of position.
pub fn argsort(values: &[f64]) -> Vec<u32> {
    let mut keyed: Vec<(u64, u32)> = values
        .iter()
        .enumerate()
        .map(|(i, v)| (order_key(*v), i as u32))
        .collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, index)| index).collect()
}

/// Ranks from 1; tied values share the mean of their ranks.
pub fn midranks(values: &[f64]) -> Vec<f64> {
    let order = argsort(values);
    let mut ranks = vec![0.0; values.len()];
    for group in tie_groups(values, &order) {
        let mean_rank = (group.start + group.end + 1) as f64 / 2.0;
        for &index in &order[group] {
            ranks[index as usize] = mean_rank;
        }
    }
    ranks
}

/// The runs of equal values along `order`, as ranges of positions in `order`.
pub(crate) fn tie_groups<'a>(
    values: &'a [f64],
    order: &'a [u32],
) -> impl Iterator<Item = std::ops::Range<usize>> + 'a {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = values[*order.get(start)? as usize];
        let mut end = start + 1;
        while end < order.len() && values[order[end] as usize] == first {
            end += 1;
        }
        let range = start..end;
        start = end;
        Some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_the_mean_rank() {
        assert_eq!(midranks(&[3.0, -1.0, 3.0, 0.0, -0.0]), [4.5, 1.0, 4.5, 2.5, 2.5]);
    }

    #[test]
    fn negative_numbers_sort_before_positive_ones() {
        assert_eq!(argsort(&[2.0, -3.0, -1.0, 1.0]), [1, 2, 3, 0]);
    }
}
