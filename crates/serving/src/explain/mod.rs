//! What each input contributed to a model's answer: by the model itself where it can tell (TreeSHAP), else by Shapley values from the
//! answers to mixed rows, against a baseline (`shapley`).

pub(crate) mod endpoint;
mod shapley;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;
use tidemill_core::ports::{Contributions, PortError};
use tidemill_core::servable::{Interface, Payload};
use tidemill_core::spec::ExplainMethod;
use tidemill_core::tensors::{DataType, Tensor, TensorData, TensorSpec};
use tidemill_stats::rng::SeededRng;

use shapley::{MOST_EXACT, Plan};

/// So many rows are asked at a time, where the model takes that many.
pub(crate) const ROWS_AT_ONCE: usize = 2_048;
/// More rows than this are never asked for one explanation.
const MOST_ASKED: usize = 1 << 20;
/// More than this is never kept of one row: features of all mixed rows, or numbers of all answers.
const MOST_KEPT: usize = 1 << 26;
/// So many bytes of mixed rows are asked at a time, if it is more than one row.
const BYTES_AT_ONCE: usize = 32 << 20;

/// How an explanation is found.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExplainOptions {
    /// By which method.
    pub method: ExplainMethod,
    /// The output that is explained, where the model does not explain itself. Default: its first of floats, else of numbers.
    pub output: Option<String>,
    /// What each input is when it says nothing: a value, or a list of one a place.
    pub baseline: IndexMap<String, Value>,
    /// Refuse an input without a baseline. Else it is 0, and a text is missing.
    #[serde(skip)]
    pub strict: bool,
    /// So many orders a row, each also backwards.
    pub samples: u32,
    /// Of the orders.
    pub seed: u64,
}

impl Default for ExplainOptions {
    fn default() -> Self {
        Self {
            method: ExplainMethod::Auto,
            output: None,
            baseline: IndexMap::new(),
            strict: false,
            samples: 16,
            seed: 0,
        }
    }
}

/// An input of an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedInput {
    /// Its name.
    pub name: String,
    /// How many values a row of it has; `None` for a column, which has one.
    pub width: Option<usize>,
    /// Whether its values are texts.
    pub texts: bool,
}

/// What each input contributed to each answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// How it was found: `tree_shap`, `exact` or `sampling`.
    pub method: &'static str,
    /// Whether what the trees add up to is explained, before it becomes a probability or the like; else the answer itself is.
    pub raw: bool,
    /// The inputs, in the model's order; the features are their values one after another.
    pub inputs: Vec<ExplainedInput>,
    /// The output's name.
    pub output: String,
    /// The names of the output's places, if it has several and they have names.
    pub labels: Vec<String>,
    /// How many numbers of a row's answer are explained.
    pub outputs: usize,
    /// Row by row, for each output one number a feature, then the base. They add up to what is explained.
    pub values: Vec<f64>,
    /// Row by row, for each output the standard error of its contributions together; NaN where it is not known.
    pub errors: Vec<f64>,
}

impl Explanation {
    /// How many features there are.
    pub fn features(&self) -> usize {
        self.inputs.iter().map(|input| input.width.unwrap_or(1)).sum()
    }

    /// How many rows are explained.
    pub fn rows(&self) -> usize {
        self.errors.len().checked_div(self.outputs).unwrap_or(0)
    }

    /// The contributions to an output of a row, and the base.
    pub fn of(&self, row: usize, output: usize) -> (&[f64], f64) {
        let width = self.features() + 1;
        let values = &self.values[(row * self.outputs + output) * width..][..width];
        (&values[..width - 1], values[width - 1])
    }

    /// What a model told of itself.
    pub(crate) fn of_model(
        contributions: Contributions,
        inputs: Vec<ExplainedInput>,
        output: &TensorSpec,
    ) -> Self {
        let mut explanation = Self {
            method: "tree_shap",
            raw: true,
            inputs,
            output: output.name.clone(),
            labels: output.labels.clone(),
            outputs: contributions.outputs,
            values: contributions.values,
            errors: Vec::new(),
        };
        let width = explanation.features() + 1;
        explanation.errors = vec![0.0; explanation.values.len() / width];
        if explanation.labels.len() != explanation.outputs {
            explanation.labels.clear();
        }
        explanation
    }
}

fn wrong(message: impl Into<String>) -> PortError {
    PortError::caller("not_explainable", message)
}

/// The columns of a request in the model's order, so that the contributions are.
pub(crate) fn in_order(interface: &Interface, tensors: Vec<Tensor>) -> Vec<Tensor> {
    if interface.inputs.is_empty() {
        return tensors;
    }
    let mut left = tensors;
    let inputs = interface.inputs.iter();
    let ordered = inputs.filter_map(|spec| {
        let at = left.iter().position(|tensor| tensor.name == spec.name)?;
        Some(left.swap_remove(at))
    });
    ordered.collect()
}

/// The inputs that tensors are.
pub(crate) fn inputs_of(tensors: &[Tensor]) -> Vec<ExplainedInput> {
    let input = |tensor: &Tensor| ExplainedInput {
        name: tensor.name.clone(),
        width: (tensor.shape.len() > 1).then(|| width(tensor)),
        texts: tensor.datatype == DataType::Bytes,
    };
    tensors.iter().map(input).collect()
}

/// Elements a row.
fn width(tensor: &Tensor) -> usize {
    tensor.shape.iter().skip(1).product()
}

/// Asks the model about mixed rows.
pub(crate) type Ask<'a> = dyn Fn(Vec<Tensor>) -> BoxFuture<'a, Result<Payload, PortError>> + Send + Sync + 'a;

/// Explains the answers to `tensors` by asking the model, at most `at_once` rows at a time. `outputs`: what is known of its outputs.
///
/// # Errors
/// If a baseline does not fit or is missing, there is no output of numbers, it would take too many rows, or the model fails.
pub(crate) async fn by_asking(
    tensors: Vec<Tensor>,
    outputs: &[TensorSpec],
    options: &ExplainOptions,
    at_once: usize,
    ask: &Ask<'_>,
) -> Result<Explanation, PortError> {
    let mixing = Mixing::new(options, tensors)?;
    let (features, samples) = (mixing.features, options.samples.max(1) as usize);
    let sampled = samples
        .saturating_mul(2)
        .saturating_mul(features.saturating_sub(1))
        .saturating_add(2);
    let every = 1_usize.checked_shl(u32::try_from(features).unwrap_or(u32::MAX));
    let every = every.filter(|_| features <= MOST_EXACT);
    let exact = match (options.method, every) {
        (ExplainMethod::Exact, None) => {
            return Err(wrong(format!(
                "{features} features are too many for the method `exact`, which asks every combination of at most {MOST_EXACT}; ask for \
                 `sampling`"
            )));
        }
        (ExplainMethod::Exact, Some(_)) => true,
        // Where it costs no more than samples.
        (ExplainMethod::Auto, Some(every)) => every <= sampled,
        (ExplainMethod::Auto, None) | (ExplainMethod::Sampling, _) => false,
    };
    let each = every.filter(|_| exact).unwrap_or(sampled);
    if each.saturating_mul(mixing.rows) > MOST_ASKED {
        return Err(wrong(format!(
            "explaining {} rows of {features} features takes {each} answers a row, at most {MOST_ASKED} in all are asked; send fewer rows or \
             lower `samples`",
            mixing.rows
        )));
    }
    if each.saturating_mul(features) > MOST_KEPT {
        return Err(wrong(format!(
            "explaining a row of {features} features takes {each} answers, and of these times the features at most {MOST_KEPT} are kept; lower \
             `samples`, or explain by fewer features"
        )));
    }
    let at_once = at_once.min(BYTES_AT_ONCE / mixing.row_bytes().max(1)).max(1);
    let mut rng = SeededRng::new(options.seed);
    let mut plan = exact.then(|| Plan::exact(features));
    let mut explanation = Explanation {
        method: if exact { "exact" } else { "sampling" },
        raw: false,
        inputs: inputs_of(&mixing.tensors),
        output: String::new(),
        labels: Vec::new(),
        outputs: 0,
        values: Vec::new(),
        errors: Vec::new(),
    };
    for row in 0..mixing.rows {
        if !exact {
            plan = Some(Plan::sampled(features, samples, &mut rng));
        }
        let Some(plan) = &plan else { continue };
        let mut answers = Vec::new();
        for points in plan.points().chunks(at_once) {
            let answer = ask(mixing.mixed(row, points)?).await?;
            let (name, numbers) = answered(&answer, options, points.len())?;
            explanation.outputs = numbers.len() / points.len();
            explanation.output = name;
            if each.saturating_mul(explanation.outputs) > MOST_KEPT {
                return Err(wrong(format!(
                    "output `{}` has {} numbers a row, and of {each} answers at most {MOST_KEPT} numbers are kept; lower `samples`, or name \
                     another `output`",
                    explanation.output, explanation.outputs
                )));
            }
            answers.extend(numbers);
        }
        if answers.len() != plan.points().len() * explanation.outputs {
            return Err(wrong(
                "the model's answers differ in width, so they cannot be compared",
            ));
        }
        let shares = plan.shares(&answers, explanation.outputs);
        explanation.values.extend(shares.values);
        explanation.errors.extend(shares.errors);
    }
    let known = outputs.iter().find(|spec| spec.name == explanation.output);
    let labels = known.map(|spec| spec.labels.clone()).unwrap_or_default();
    if labels.len() == explanation.outputs {
        explanation.labels = labels;
    }
    Ok(explanation)
}

/// The numbers that are explained, and their output's name.
fn answered(
    answer: &Payload,
    options: &ExplainOptions,
    rows: usize,
) -> Result<(String, Vec<f64>), PortError> {
    let Payload::Tensors(tensors) = answer else {
        return Err(wrong(
            "the model answers a body, and only tensors of numbers are explained",
        ));
    };
    let is_float = |tensor: &&Tensor| {
        matches!(
            tensor.datatype,
            DataType::Fp64 | DataType::Fp32 | DataType::Fp16 | DataType::Bf16
        )
    };
    let output = match &options.output {
        Some(name) => tensors.iter().find(|tensor| tensor.name == *name),
        None => tensors.iter().find(is_float).or_else(|| {
            tensors
                .iter()
                .find(|tensor| matches!(tensor.data, TensorData::Fixed(_)))
        }),
    };
    let found = output.and_then(|output| Some((output, output.to_f64()?)));
    let Some((output, numbers)) = found else {
        let known: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        return Err(wrong(format!(
            "the model gave no such output of numbers to explain, but `{}`; name one as `output`",
            known.join("`, `")
        )));
    };
    if output.rows() != rows || numbers.is_empty() {
        return Err(wrong(format!(
            "output `{}` has shape {:?} for {rows} rows, expected numbers for each",
            output.name, output.shape
        )));
    }
    Ok((output.name.clone(), numbers))
}

/// The rows, and the baseline that they are mixed with.
struct Mixing {
    tensors: Vec<Tensor>,
    /// One row each.
    baseline: Vec<Tensor>,
    rows: usize,
    features: usize,
}

impl Mixing {
    fn new(options: &ExplainOptions, tensors: Vec<Tensor>) -> Result<Self, PortError> {
        let rows = tensors.first().map_or(0, Tensor::rows);
        let features = tensors.iter().map(width).sum();
        if rows == 0 || features == 0 {
            return Err(wrong("there is no row, or no column to explain by"));
        }
        let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        if let Some(unknown) = options
            .baseline
            .keys()
            .find(|name| !names.contains(&name.as_str()))
        {
            return Err(wrong(format!(
                "`baseline` names `{unknown}`, which is no input; expected `{}`",
                names.join("`, `")
            )));
        }
        let baseline = tensors.iter().map(|tensor| {
            if tensor.rows() != rows || tensor.shape.is_empty() {
                let (name, shape) = (&tensor.name, &tensor.shape);
                return Err(wrong(format!(
                    "input `{name}` has shape {shape:?}, expected {rows} rows as the first has"
                )));
            }
            baseline(options, tensor)
        });
        Ok(Self {
            baseline: baseline.collect::<Result<_, PortError>>()?,
            tensors,
            rows,
            features,
        })
    }

    /// How much memory a mixed row takes.
    fn row_bytes(&self) -> usize {
        // A text is shared, and told by this.
        let size = |tensor: &Tensor| tensor.datatype.size().unwrap_or(size_of::<Option<Bytes>>());
        self.tensors
            .iter()
            .map(|tensor| width(tensor) * size(tensor))
            .sum()
    }

    /// A request of a row for each point: each feature the row's own, or the baseline's.
    fn mixed(&self, row: usize, points: &[Vec<bool>]) -> Result<Vec<Tensor>, PortError> {
        let mut first = 0;
        let mixed = self.tensors.iter().zip(&self.baseline).map(|(tensor, baseline)| {
            let width = width(tensor);
            let flags = points.iter().flat_map(|point| &point[first..first + width]);
            let places = flags.zip((0..width).cycle());
            let data = match (&tensor.data, &baseline.data) {
                (TensorData::Fixed(own), TensorData::Fixed(base)) => {
                    let size = tensor.datatype.size().unwrap_or(1);
                    let mut bytes = Vec::with_capacity(points.len() * width * size);
                    for (own_value, place) in places {
                        let (from, at) = if *own_value {
                            (own, row * width + place)
                        } else {
                            (base, place)
                        };
                        bytes.extend_from_slice(&from[at * size..][..size]);
                    }
                    TensorData::Fixed(bytes.into())
                }
                (TensorData::Strings(own), TensorData::Strings(base)) => TensorData::Strings(
                    places
                        .map(|(own_value, place)| {
                            if *own_value {
                                own[row * width + place].clone()
                            } else {
                                base[place].clone()
                            }
                        })
                        .collect(),
                ),
                _ => {
                    return Err(PortError::internal(
                        "graph_failed",
                        "a baseline is of another kind",
                    ));
                }
            };
            first += width;
            let mut shape = tensor.shape.clone();
            shape[0] = points.len();
            Ok(Tensor {
                name: tensor.name.clone(),
                datatype: tensor.datatype,
                shape,
                data,
            })
        });
        mixed.collect()
    }
}

/// One row of a tensor that says nothing.
fn baseline(options: &ExplainOptions, tensor: &Tensor) -> Result<Tensor, PortError> {
    let (name, width) = (&tensor.name, width(tensor));
    let mut shape = tensor.shape.clone();
    shape[0] = 1;
    let given = options.baseline.get(name);
    if given.is_none() && options.strict {
        return Err(wrong(format!(
            "the model does not explain itself; for sampling, give `explain.baseline` a value for `{name}`"
        )));
    }
    let unfit = |value: &Value| wrong(format!("`baseline`: `{value}` does not fit input `{name}`"));
    let values: Vec<&Value> = match given {
        None => vec![&Value::Null; width],
        Some(Value::Array(values)) if values.len() == width => values.iter().collect(),
        Some(value @ (Value::Array(_) | Value::Object(_))) => return Err(unfit(value)),
        Some(value) => vec![value; width],
    };
    let tensor = if tensor.datatype == DataType::Bytes {
        let text = |value: &&Value| match value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(Bytes::from(text.clone()))),
            other => Err(unfit(other)),
        };
        let texts = values.iter().map(text).collect::<Result<_, PortError>>()?;
        Tensor::strings(name, shape, texts)
    } else {
        let number = |value: &&Value| match value {
            Value::Null if given.is_none() => Ok(0.0),
            Value::Null => Ok(f64::NAN),
            Value::Bool(value) => Ok(f64::from(u8::from(*value))),
            value => value.as_f64().ok_or_else(|| unfit(value)),
        };
        let numbers = values
            .iter()
            .map(number)
            .collect::<Result<Vec<f64>, PortError>>()?;
        Tensor::of_numbers(name, tensor.datatype, shape, &numbers)
    };
    tensor.map_err(|error| wrong(error.to_string()))
}
