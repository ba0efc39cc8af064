//! Weighted choice that sticks to a key.

use tidemill_core::digest::sticky_position;

/// One of several ways, with its weight.
#[derive(Debug, Clone)]
pub(crate) struct Way<T> {
    pub to: T,
    pub weight: f64,
    /// The salt and the way's name, so that a key has a position of its own on each way.
    salt: String,
}

impl<T> Way<T> {
    pub fn new(salt: &str, name: &str, to: T, weight: f64) -> Self {
        Self {
            to,
            weight,
            salt: format!("{salt}/{name}"),
        }
    }
}

/// The way of a key: weighted rendezvous hashing. Each way draws `-ln(1 - u) / weight` with the key's sticky position `u` (`loop.md` F1) under
/// the way's own salt, and the smallest wins, which happens with probability `weight / sum`. A draw depends on its own way alone, so when a
/// weight grows, keys only move to that way, and none move between the others.
pub(crate) fn choose<'a, T>(ways: &'a [Way<T>], key: &str) -> Option<&'a Way<T>> {
    let live = ways.iter().filter(|way| way.weight > 0.0);
    let draw = |way: &Way<T>| -(1.0 - sticky_position(&way.salt, key)).ln() / way.weight;
    live.map(|way| (draw(way), way))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, way)| way)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ways(weights: &[f64]) -> Vec<Way<usize>> {
        let ways = weights.iter().enumerate();
        ways.map(|(i, weight)| Way::new("salt", &i.to_string(), i, *weight))
            .collect()
    }

    proptest! {
        #[test]
        fn a_key_only_ever_moves_to_the_way_whose_weight_grows(
            weights in proptest::collection::vec(0.0..10.0f64, 2..6),
            which in 0usize..6,
            more in 0.01..20.0f64,
            key in "[a-z0-9]{1,12}",
        ) {
            let which = which % weights.len();
            let before = choose(&ways(&weights), &key).map(|way| way.to);
            let mut grown = weights.clone();
            grown[which] += more;
            let after = choose(&ways(&grown), &key).map(|way| way.to);
            prop_assert!(after == before || after == Some(which));
        }

        #[test]
        fn a_way_without_weight_is_never_chosen(
            weights in proptest::collection::vec(prop_oneof![Just(0.0), 0.1..5.0f64], 1..6),
            key in "[a-z0-9]{1,12}",
        ) {
            match choose(&ways(&weights), &key) {
                Some(way) => prop_assert!(weights[way.to] > 0.0),
                None => prop_assert!(weights.iter().all(|weight| *weight == 0.0)),
            }
        }
    }

    #[test]
    fn shares_are_as_the_weights_say() {
        let ways = ways(&[1.0, 2.0, 7.0]);
        let mut counts = [0; 3];
        for key in 0..20_000 {
            counts[choose(&ways, &key.to_string()).unwrap().to] += 1;
        }
        for (count, share) in counts.into_iter().zip([0.1, 0.2, 0.7]) {
            let spread = 5.0 * (20_000.0_f64 * share * (1.0 - share)).sqrt();
            assert!((f64::from(count) - 20_000.0 * share).abs() < spread, "{counts:?}");
        }
    }
}
