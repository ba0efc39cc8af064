//! Shapley values from the answers to mixed inputs. A coalition is a set of features that have the row's values while the others have
//! the baseline's; `v(S)` is the model's answer to it.
//!
//! Exactly (Shapley 1953): φᵢ = Σ over S without i of |S|!·(n−|S|−1)!/n! · (v(S ∪ {i}) − v(S)), which asks 2ⁿ coalitions.
//! By sampling (Štrumbelj & Kononenko, "Explaining prediction models and individual predictions with feature contributions", Knowledge and
//! Information Systems 41, 2014): the features join in a random order, and each is given the change of the answer when its turn comes; the
//! mean over orders estimates φᵢ. Each order is also gone backwards, which takes most of the noise away. Of every order the changes add
//! up to the whole difference, so base and contributions always add up to the answer.

use tidemill_stats::rng::SeededRng;

/// More features than this are never asked in every combination.
pub(super) const MOST_EXACT: usize = 12;

/// Which coalitions are asked for a row, and what their answers come to.
#[derive(Debug)]
pub(super) struct Plan {
    features: usize,
    kind: Kind,
    /// One flag a feature: whether it has the row's own value.
    points: Vec<Vec<bool>>,
}

#[derive(Debug)]
enum Kind {
    /// The point at a number is the coalition whose bits it has.
    Exact,
    /// The first point is the baseline, the second the row; then, for each order, those between.
    Orders(Vec<Vec<usize>>),
}

/// What the answers of a row come to.
#[derive(Debug, PartialEq)]
pub(super) struct Shares {
    /// For each output one number a feature, then the baseline's answer.
    pub values: Vec<f64>,
    /// For each output the standard error of the contributions together: the root of the sum of their squares. 0 where all was asked, NaN
    /// where one order was.
    pub errors: Vec<f64>,
}

impl Plan {
    /// Asks every coalition. `features` is at most [`MOST_EXACT`].
    pub fn exact(features: usize) -> Self {
        let point = |mask: usize| (0..features).map(|feature| mask >> feature & 1 == 1).collect();
        Self {
            features,
            kind: Kind::Exact,
            points: (0..1_usize << features).map(point).collect(),
        }
    }

    /// Asks along `samples` random orders, each also backwards.
    pub fn sampled(features: usize, samples: usize, rng: &mut SeededRng) -> Self {
        let mut orders = Vec::with_capacity(2 * samples);
        for _ in 0..samples {
            let mut order: Vec<usize> = (0..features).collect();
            rng.shuffle(&mut order);
            let backwards: Vec<usize> = order.iter().rev().copied().collect();
            orders.extend([order, backwards]);
        }
        let mut points = vec![vec![false; features], vec![true; features]];
        for order in &orders {
            let mut own = vec![false; features];
            for feature in &order[..features.saturating_sub(1)] {
                own[*feature] = true;
                points.push(own.clone());
            }
        }
        Self {
            features,
            kind: Kind::Orders(orders),
            points,
        }
    }

    /// The coalitions to be asked.
    pub fn points(&self) -> &[Vec<bool>] {
        &self.points
    }

    /// From the answers, `width` numbers a point.
    pub fn shares(&self, answers: &[f64], width: usize) -> Shares {
        debug_assert_eq!(answers.len(), self.points.len() * width);
        let mut shares = Shares {
            values: Vec::with_capacity(width * (self.features + 1)),
            errors: Vec::with_capacity(width),
        };
        for output in 0..width {
            let of_point = |point: usize| answers[point * width + output];
            let (mut values, error) = match &self.kind {
                Kind::Exact => (self.all(of_point), 0.0),
                Kind::Orders(orders) => self.means(orders, of_point),
            };
            values.push(of_point(0));
            shares.values.append(&mut values);
            shares.errors.push(error);
        }
        shares
    }

    fn all(&self, of_point: impl Fn(usize) -> f64) -> Vec<f64> {
        let n = self.features;
        // weights[s] = s!·(n−s−1)!/n!, built up without a factorial that overflows.
        let mut weights = vec![1.0 / n.max(1) as f64; n];
        for size in 1..n {
            weights[size] = weights[size - 1] * size as f64 / (n - size) as f64;
        }
        let share = |feature: usize| {
            let without = (0..1_usize << n).filter(|mask| mask >> feature & 1 == 0);
            without
                .map(|mask| {
                    let gain = of_point(mask | 1 << feature) - of_point(mask);
                    weights[mask.count_ones() as usize] * gain
                })
                .sum()
        };
        (0..n).map(share).collect()
    }

    fn means(&self, orders: &[Vec<usize>], of_point: impl Fn(usize) -> f64) -> (Vec<f64>, f64) {
        let n = self.features;
        let (base, whole) = (of_point(0), of_point(1));
        let pairs = orders.len() as f64 / 2.0;
        let (mut sums, mut squares) = (vec![0.0; n], vec![0.0; n]);
        let mut next = 2;
        for pair in orders.chunks(2) {
            let mut of_pair = vec![0.0; n];
            for order in pair {
                let mut before = base;
                for (step, feature) in order.iter().enumerate() {
                    let after = if step + 1 == n {
                        whole
                    } else {
                        next += 1;
                        of_point(next - 1)
                    };
                    of_pair[*feature] += (after - before) / 2.0;
                    before = after;
                }
            }
            for (feature, share) in of_pair.into_iter().enumerate() {
                sums[feature] += share;
                squares[feature] += share * share;
            }
        }
        let means: Vec<f64> = sums.iter().map(|sum| sum / pairs).collect();
        // The variance of a mean of so many independent pairs.
        let variances = squares.iter().zip(&means).map(|(square, mean)| {
            let spread = (square - pairs * mean * mean).max(0.0);
            spread / ((pairs - 1.0) * pairs)
        });
        let error = if pairs > 1.0 {
            variances.sum::<f64>().sqrt()
        } else {
            f64::NAN
        };
        (means, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks a function of three features, whose baseline is 0, in every point of a plan.
    fn asked(plan: &Plan, row: [f64; 3], function: impl Fn([f64; 3]) -> [f64; 2]) -> Vec<f64> {
        let answer = |point: &Vec<bool>| {
            let mut mixed = [0.0; 3];
            for (feature, own) in point.iter().enumerate() {
                mixed[feature] = if *own { row[feature] } else { 0.0 };
            }
            function(mixed)
        };
        plan.points().iter().flat_map(answer).collect()
    }

    #[test]
    fn every_coalition_gives_shapleys_own_values_for_each_output() {
        let plan = Plan::exact(3);
        // A product of three is shared evenly; a maximum of 1, 2 and 3 is shared as an airport's runway is.
        let answers = asked(&plan, [1.0, 2.0, 3.0], |[a, b, c]| [a * b * c, a.max(b).max(c)]);
        let shares = plan.shares(&answers, 2);
        let expected = [2.0, 2.0, 2.0, 0.0, 1.0 / 3.0, 5.0 / 6.0, 11.0 / 6.0, 0.0];
        for (got, expected) in shares.values.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{shares:?}");
        }
        assert_eq!(shares.errors, [0.0, 0.0]);
    }

    #[test]
    fn samples_add_up_come_close_and_say_how_close() {
        let plan = Plan::sampled(3, 400, &mut SeededRng::new(1));
        let answers = asked(&plan, [1.0, 2.0, 3.0], |[a, b, c]| [a * b * c, a.max(b).max(c)]);
        let shares = plan.shares(&answers, 2);
        for (output, whole) in [6.0, 3.0].into_iter().enumerate() {
            let sum: f64 = shares.values[output * 4..][..4].iter().sum();
            assert!((sum - whole).abs() < 1e-9);
        }
        let exact = [1.0 / 3.0, 5.0 / 6.0, 11.0 / 6.0];
        let error = shares.errors[1];
        assert!(error > 0.0 && error < 0.1, "{error}");
        for (got, expected) in shares.values[4..7].iter().zip(exact) {
            assert!((got - expected).abs() < 5.0 * error, "{shares:?}");
        }
        let once = Plan::sampled(3, 1, &mut SeededRng::new(1));
        let answers = asked(&once, [1.0, 2.0, 3.0], |[a, b, c]| [a + b + c, 0.0]);
        let shares = once.shares(&answers, 2);
        assert_eq!(shares.values[..4], [1.0, 2.0, 3.0, 0.0]);
        assert!(shares.errors[0].is_nan());
    }

    #[test]
    fn one_feature_has_the_whole_difference() {
        for plan in [Plan::exact(1), Plan::sampled(1, 2, &mut SeededRng::new(0))] {
            let answers: Vec<f64> = plan
                .points()
                .iter()
                .map(|own| if own[0] { 5.0 } else { 2.0 })
                .collect();
            assert_eq!(plan.shares(&answers, 1).values, [3.0, 2.0]);
        }
    }
}
