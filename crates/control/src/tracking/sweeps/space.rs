//! What a sweep searches: its parameters, the metric that it optimizes, and when it gives up on a trial. The words are W&B's.

use serde_json::{Map, Value};

use crate::tracking::{Result, TrackingError};

/// How the next trial is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Every combination once.
    Grid,
    /// Independent draws.
    Random,
    /// Draws that lean on what was measured: a tree-structured Parzen estimator for each parameter.
    Bayes,
}

/// Where the values of a parameter come from.
#[derive(Clone, PartialEq, Debug)]
pub enum Distribution {
    /// One of a list, all alike or by weight.
    Choice {
        /// Without repeats.
        values: Vec<Value>,
        /// One for each value, or none.
        weights: Vec<f64>,
    },
    /// A whole number from `min` to `max`, both included.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// Uniform between `min` and `max` of its scale.
    Uniform {
        /// The least, on the scale.
        min: f64,
        /// The greatest, on the scale.
        max: f64,
        /// Whether the scale is the natural logarithm.
        log: bool,
        /// Values are multiples of this.
        step: Option<f64>,
    },
    /// Normal on its scale.
    Normal {
        /// The mean, on the scale.
        mu: f64,
        /// The standard deviation, on the scale.
        sigma: f64,
        /// Whether the scale is the natural logarithm.
        log: bool,
        /// Values are multiples of this.
        step: Option<f64>,
    },
}

/// A parameter.
#[derive(Clone, PartialEq, Debug)]
pub struct Dimension {
    /// Its name, from the outside in where parameters are nested.
    pub path: Vec<String>,
    /// Where its values come from.
    pub distribution: Distribution,
}

/// When a trial is ended before its time.
#[derive(Clone, PartialEq, Debug)]
pub struct Hyperband {
    /// After how many reports trials are compared, rising.
    pub bands: Vec<usize>,
    /// One of so many goes on.
    pub eta: f64,
}

/// What a sweep searches.
#[derive(Clone, PartialEq, Debug)]
pub struct Space {
    /// How the next trial is chosen.
    pub method: Method,
    /// The name of the metric, if any.
    pub metric: Option<String>,
    /// Whether more of the metric is better.
    pub maximize: bool,
    /// The parameters, by name.
    pub dimensions: Vec<Dimension>,
    /// When a trial is ended before its time.
    pub early: Option<Hyperband>,
    /// How many trials there are at most.
    pub run_cap: Option<i64>,
}

fn wrong(place: &str, message: &str) -> TrackingError {
    TrackingError::invalid(format!("sweep: `{place}` {message}"))
}

fn number(map: &Map<String, Value>, key: &str) -> Option<f64> {
    map.get(key).and_then(|value| match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_f64(),
    })
}

fn is_integer(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key).is_some_and(|value| value.is_i64() || value.is_u64())
}

impl Space {
    /// Reads a sweep's configuration.
    pub fn read(config: &Value) -> Result<Self> {
        let Some(config) = config.as_object() else {
            return Err(wrong("config", "is not a mapping"));
        };
        let method = match config.get("method").and_then(Value::as_str) {
            Some("grid") => Method::Grid,
            Some("random") => Method::Random,
            Some("bayes") => Method::Bayes,
            Some(other) => {
                return Err(wrong(
                    "method",
                    &format!("is `{other}`: expected grid, random or bayes"),
                ));
            }
            None => return Err(wrong("method", "is missing: expected grid, random or bayes")),
        };
        let metric = config.get("metric").and_then(Value::as_object);
        let name = metric
            .and_then(|metric| metric.get("name"))
            .and_then(Value::as_str);
        if method == Method::Bayes && name.is_none() {
            return Err(wrong(
                "metric",
                "is missing: a Bayesian search needs its name and goal",
            ));
        }
        let goal = metric
            .and_then(|metric| metric.get("goal"))
            .and_then(Value::as_str);
        let mut dimensions = Vec::new();
        match config.get("parameters").and_then(Value::as_object) {
            Some(parameters) => read_parameters(parameters, &mut Vec::new(), &mut dimensions)?,
            None => {
                return Err(wrong(
                    "parameters",
                    "is missing: expected a mapping from names to values",
                ));
            }
        }
        let space = Self {
            method,
            metric: name.map(str::to_owned),
            maximize: goal == Some("maximize"),
            dimensions,
            early: read_early(config.get("early_terminate"))?,
            run_cap: config.get("run_cap").and_then(Value::as_i64),
        };
        if method == Method::Grid {
            for dimension in &space.dimensions {
                if dimension.distribution.grid().is_none() {
                    let place = format!("parameters.{}", dimension.path.join("."));
                    return Err(wrong(
                        &place,
                        "has no end of values: a grid needs `values`, whole numbers or a step `q`",
                    ));
                }
            }
        }
        Ok(space)
    }
}

fn read_parameters(
    parameters: &Map<String, Value>,
    path: &mut Vec<String>,
    dimensions: &mut Vec<Dimension>,
) -> Result<()> {
    for (name, parameter) in parameters {
        path.push(name.clone());
        let place = format!("parameters.{}", path.join("."));
        let Some(parameter) = parameter.as_object() else {
            return Err(wrong(&place, "is not a mapping"));
        };
        if let Some(inner) = parameter.get("parameters").and_then(Value::as_object) {
            read_parameters(inner, path, dimensions)?;
        } else {
            dimensions.push(Dimension {
                path: path.clone(),
                distribution: read_distribution(parameter, &place)?,
            });
        }
        path.pop();
    }
    Ok(())
}

fn read_distribution(parameter: &Map<String, Value>, place: &str) -> Result<Distribution> {
    if let Some(value) = parameter.get("value") {
        return Ok(Distribution::Choice {
            values: vec![value.clone()],
            weights: Vec::new(),
        });
    }
    if let Some(values) = parameter.get("values") {
        return read_choice(values, parameter.get("probabilities"), place);
    }
    let whole = is_integer(parameter, "min") && is_integer(parameter, "max");
    let kind = match parameter.get("distribution").and_then(Value::as_str) {
        Some(kind) => kind,
        None if whole => "int_uniform",
        None => "uniform",
    };
    let step = kind
        .starts_with("q_")
        .then(|| number(parameter, "q").unwrap_or(1.0));
    if step.is_some_and(|step| step <= 0.0) {
        return Err(wrong(place, "has a step `q` that is not above 0"));
    }
    let log = kind.contains("log_");
    if kind.ends_with("normal") {
        let (mu, sigma) = (
            number(parameter, "mu").unwrap_or(0.0),
            number(parameter, "sigma").unwrap_or(1.0),
        );
        if !(sigma > 0.0 && sigma.is_finite() && mu.is_finite()) {
            return Err(wrong(place, "has a `sigma` that is not above 0"));
        }
        return Ok(Distribution::Normal { mu, sigma, log, step });
    }
    let (Some(min), Some(max)) = (number(parameter, "min"), number(parameter, "max")) else {
        return Err(wrong(place, "has neither `value`, `values` nor `min` and `max`"));
    };
    if !(min <= max && min.is_finite() && max.is_finite()) {
        return Err(wrong(place, "has a `min` above its `max`"));
    }
    let (min, max) = match kind {
        "int_uniform" => {
            return Ok(Distribution::Integer {
                min: min.ceil() as i64,
                max: max.floor() as i64,
            });
        }
        "uniform" | "q_uniform" | "log_uniform" | "q_log_uniform" => (min, max),
        // The logarithm of 1/x is uniform, so that of x is, with ends that have swapped sides.
        "inv_log_uniform" => (-max, -min),
        "log_uniform_values" | "q_log_uniform_values" | "inv_log_uniform_values" if min > 0.0 => {
            (min.ln(), max.ln())
        }
        "log_uniform_values" | "q_log_uniform_values" | "inv_log_uniform_values" => {
            return Err(wrong(place, "is on a logarithmic scale: `min` must be above 0"));
        }
        other => {
            return Err(wrong(
                place,
                &format!("has the distribution `{other}`, which is not known here"),
            ));
        }
    };
    Ok(Distribution::Uniform { min, max, log, step })
}

fn read_choice(values: &Value, weights: Option<&Value>, place: &str) -> Result<Distribution> {
    let Some(listed) = values.as_array().filter(|values| !values.is_empty()) else {
        return Err(wrong(place, "has `values` that are no list, or an empty one"));
    };
    let weights: Vec<f64> = weights
        .and_then(Value::as_array)
        .map(|weights| weights.iter().filter_map(Value::as_f64).collect())
        .unwrap_or_default();
    let fitting = weights.is_empty() || (weights.len() == listed.len() && weights.iter().all(|w| *w >= 0.0));
    if !fitting || (!weights.is_empty() && weights.iter().sum::<f64>() <= 0.0) {
        return Err(wrong(place, "needs one probability for each of its `values`"));
    }
    if !weights.is_empty() {
        return Ok(Distribution::Choice {
            values: listed.clone(),
            weights,
        });
    }
    let mut values: Vec<Value> = Vec::new();
    for value in listed {
        if !values.contains(value) {
            values.push(value.clone());
        }
    }
    Ok(Distribution::Choice { values, weights })
}

fn read_early(early: Option<&Value>) -> Result<Option<Hyperband>> {
    const PLACE: &str = "early_terminate";
    /// More bands than any trial will reach.
    const MOST: usize = 64;
    let Some(early) = early.and_then(Value::as_object) else {
        return Ok(None);
    };
    if early.get("type").and_then(Value::as_str) != Some("hyperband") {
        return Err(wrong(PLACE, "has a type other than `hyperband`"));
    }
    let eta = number(early, "eta").unwrap_or(3.0);
    if !(eta > 1.0 && eta.is_finite()) {
        return Err(wrong(PLACE, "has an `eta` that is not above 1"));
    }
    let mut bands = Vec::new();
    if let Some(max) = number(early, "max_iter") {
        let brackets = number(early, "s").unwrap_or(1.0).clamp(1.0, MOST as f64) as usize;
        let mut band = max;
        for _ in 0..brackets {
            band /= eta;
            if band < 1.0 {
                break;
            }
            bands.push(band as usize);
        }
        bands.reverse();
    } else if let Some(min) = number(early, "min_iter") {
        let mut band = min.max(1.0);
        while bands.len() < MOST && band < 1e9 {
            bands.push(band as usize);
            band *= eta;
        }
    } else {
        return Err(wrong(PLACE, "needs `min_iter` or `max_iter`"));
    }
    bands.dedup();
    Ok(Some(Hyperband { bands, eta }))
}

impl Distribution {
    /// All values in order, if they have an end that a grid can reach.
    pub fn grid(&self) -> Option<Vec<Value>> {
        /// A grid with more points on one line is a mistake.
        const MOST: i64 = 1_000_000;
        match self {
            Self::Choice { values, .. } => Some(values.clone()),
            Self::Integer { min, max } if max - min < MOST => Some((*min..=*max).map(Value::from).collect()),
            Self::Uniform {
                min,
                max,
                log: false,
                step: Some(step),
            } if (max - min) / step < MOST as f64 => {
                let count = ((max - min) / step + 1e-9).floor() as i64;
                Some(
                    (0..=count)
                        .map(|i| Value::from(tidy(min + i as f64 * step)))
                        .collect(),
                )
            }
            _ => None,
        }
    }
}

/// Without the last digits, where 0.1 + 0.2 leaves something.
pub(super) fn tidy(value: f64) -> f64 {
    format!("{value:.12e}").parse().unwrap_or(value)
}
