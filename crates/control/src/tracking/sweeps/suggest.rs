//! Which parameters the next trial gets. A pure function of the space, the seed, the trial's number and what was measured: asking
//! again gives the same answer.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value};

use super::space::{Dimension, Distribution, Method, Space, tidy};

/// How many trials are drawn at random before a Bayesian search leans on them.
const WARM_UP: usize = 6;
/// The share of trials that count as good.
const GOOD: f64 = 0.2;
/// Normal distributions are searched this many standard deviations to each side.
const SIGMAS: f64 = 4.0;

/// A trial that was measured.
#[derive(Clone, PartialEq, Debug)]
pub struct Observation {
    /// Its parameters, as they were suggested.
    pub params: Value,
    /// What came of it, as it was measured; NaN where it failed.
    pub objective: f64,
}

/// The parameters of trial `number`, or none when a grid is used up or the sweep has all its trials.
pub fn suggest(space: &Space, seed: i64, number: i64, past: &[Observation]) -> Option<Value> {
    if space.run_cap.is_some_and(|cap| number >= cap) {
        return None;
    }
    let values: Vec<Value> = if space.method == Method::Grid {
        grid_point(space, number)?
    } else {
        let mut rng = rng(seed, number);
        let known = past.iter().filter(|seen| seen.objective.is_finite()).count();
        let lean = space.method == Method::Bayes && known >= WARM_UP;
        let mut drawn_values = Vec::new();
        for dimension in &space.dimensions {
            let learnt = if lean {
                learnt(space, dimension, past, &mut rng)
            } else {
                None
            };
            drawn_values.push(learnt.unwrap_or_else(|| drawn(&dimension.distribution, &mut rng)));
        }
        drawn_values
    };
    let mut params = Map::new();
    for (dimension, value) in space.dimensions.iter().zip(values) {
        set(&mut params, &dimension.path, value);
    }
    Some(Value::Object(params))
}

fn rng(seed: i64, number: i64) -> StdRng {
    let mut bytes = [0_u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    StdRng::from_seed(bytes)
}

fn set(params: &mut Map<String, Value>, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        params.insert(first.clone(), value);
        return;
    }
    let inner = params
        .entry(first.clone())
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(inner) = inner {
        set(inner, rest, value);
    }
}

fn at<'v>(params: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(params, |value, name| value.get(name))
}

/// The point of a grid with this number: the last parameter changes fastest.
fn grid_point(space: &Space, number: i64) -> Option<Vec<Value>> {
    let mut rest = usize::try_from(number).ok()?;
    let mut values = Vec::new();
    for dimension in space.dimensions.iter().rev() {
        let mut line = dimension.distribution.grid()?;
        if line.is_empty() {
            return None;
        }
        values.push(line.swap_remove(rest % line.len()));
        rest /= dimension.distribution.grid()?.len();
    }
    values.reverse();
    (rest == 0).then_some(values)
}

fn drawn(distribution: &Distribution, rng: &mut StdRng) -> Value {
    match distribution {
        Distribution::Choice { values, weights } => {
            let place = match weights.iter().sum::<f64>() {
                total if total > 0.0 => {
                    let mut left = rng.random::<f64>() * total;
                    let passed = weights.iter().take_while(|weight| {
                        left -= **weight;
                        left >= 0.0
                    });
                    passed.count()
                }
                _ => rng.random_range(0..values.len().max(1)),
            };
            values
                .get(place)
                .or(values.last())
                .cloned()
                .unwrap_or(Value::Null)
        }
        Distribution::Integer { min, max } => Value::from(rng.random_range(*min..=(*max).max(*min))),
        Distribution::Uniform { min, max, .. } => {
            let line = min + rng.random::<f64>() * (max - min);
            off_line(distribution, line)
        }
        Distribution::Normal { mu, sigma, .. } => {
            // Box and Muller; 1 - u is never 0.
            let (u, v) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
            let z = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            off_line(distribution, mu + sigma * z)
        }
    }
}

/// The value of the parameter that the Parzen estimator prefers.
fn learnt(space: &Space, dimension: &Dimension, past: &[Observation], rng: &mut StdRng) -> Option<Value> {
    let distribution = &dimension.distribution;
    let (from, to) = ends(distribution)?;
    let estimator = match distribution {
        Distribution::Choice { .. } => tpe::histogram_estimator(),
        _ => tpe::parzen_estimator(),
    };
    let range = tpe::range(from, to).ok()?;
    let mut optimizer = tpe::TpeOptimizerBuilder::new()
        .gamma(GOOD)
        .build(estimator, range)
        .ok()?;
    for seen in past {
        let Some(line) = at(&seen.params, &dimension.path).and_then(|value| on_line(distribution, value))
        else {
            continue;
        };
        let loss = match seen.objective {
            value if !value.is_finite() => f64::INFINITY,
            value if space.maximize => -value,
            value => value,
        };
        if line >= from && line < to {
            optimizer.tell(line, loss).ok()?;
        }
    }
    optimizer.ask(rng).ok().map(|line| off_line(distribution, line))
}

/// The stretch of the line on which a parameter's values lie; none where there is only one.
fn ends(distribution: &Distribution) -> Option<(f64, f64)> {
    let (from, to) = match distribution {
        Distribution::Choice { values, .. } => (0.0, values.len() as f64),
        Distribution::Integer { min, max } => (*min as f64, *max as f64 + 1.0),
        // The end of a range does not belong to it.
        Distribution::Uniform { min, max, .. } => (*min, max + (max - min) * 1e-9),
        Distribution::Normal { mu, sigma, .. } => (mu - SIGMAS * sigma, mu + SIGMAS * sigma),
    };
    let several = !matches!(distribution, Distribution::Choice { values, .. } if values.len() < 2);
    (several && to > from).then_some((from, to))
}

fn on_line(distribution: &Distribution, value: &Value) -> Option<f64> {
    match distribution {
        Distribution::Choice { values, .. } => values.iter().position(|v| v == value).map(|i| i as f64),
        Distribution::Integer { .. } => value.as_f64().map(|v| v + 0.5),
        Distribution::Uniform { log: true, .. } | Distribution::Normal { log: true, .. } => {
            value.as_f64().filter(|v| *v > 0.0).map(f64::ln)
        }
        Distribution::Uniform { .. } | Distribution::Normal { .. } => value.as_f64(),
    }
}

fn off_line(distribution: &Distribution, line: f64) -> Value {
    match distribution {
        Distribution::Choice { values, .. } => {
            let last = values.len().saturating_sub(1);
            values
                .get((line.max(0.0) as usize).min(last))
                .cloned()
                .unwrap_or(Value::Null)
        }
        Distribution::Integer { min, max } => {
            Value::from((line.floor() as i64).clamp(*min, (*max).max(*min)))
        }
        Distribution::Uniform { min, max, log, step } => {
            let line = line.clamp(*min, *max);
            Value::from(stepped(if *log { line.exp() } else { line }, *step))
        }
        Distribution::Normal { log, step, .. } => {
            Value::from(stepped(if *log { line.exp() } else { line }, *step))
        }
    }
}

fn stepped(value: f64, step: Option<f64>) -> f64 {
    step.map_or(value, |step| tidy((value / step).round() * step))
}
