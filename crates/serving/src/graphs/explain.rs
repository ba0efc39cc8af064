//! What each input contributed to a model's answer.
//!
//! By sampling: Štrumbelj & Kononenko, "Explaining prediction models and individual predictions with feature contributions" (Knowledge and
//! Information Systems 41, 2014): the columns of a row are changed from the baseline's values to its own in a random order, and each
//! column is given the change of the answer when its turn comes; the mean over orders estimates its Shapley value. Each order is also
//! gone backwards, which takes most of the noise away. Of every order the changes add up to the whole difference, so base and
//! attributions always add up to the answer.

use bytes::Bytes;
use serde_json::Value;
use tidemill_core::ports::PortError;
use tidemill_core::servable::Payload;
use tidemill_core::spec::{ExplainMethod, ExplainNode, ModelNode};
use tidemill_core::tensors::{DataType, Tensor, TensorData};
use tidemill_stats::rng::SeededRng;

use super::run::{Run, of_serving};
use super::servable::failed;
use super::tensors::{broken, numbers, tensors_of, width};

/// So many rows are asked at a time.
const ROWS_AT_ONCE: usize = 2_048;

pub(super) async fn explain(run: &Run<'_>, spec: &ExplainNode, input: Payload) -> Result<Payload, PortError> {
    let model = ModelNode {
        deployment: spec.deployment.clone(),
        version: spec.version,
    };
    let mut columns = tensors_of(input)?;
    let interface = run.interface(&model).await?;
    if let Some(interface) = interface
        .as_ref()
        .filter(|interface| !interface.inputs.is_empty())
    {
        // In the model's order, so that the attributions are.
        let inputs = interface.inputs.iter();
        let found = inputs.filter_map(|spec| columns.iter().find(|column| column.name == spec.name).cloned());
        columns = found.collect();
    }
    if spec.method == ExplainMethod::Auto && interface.is_some() {
        let call = run.call_of(&model, Payload::Tensors(columns.clone()));
        if let Some(own) = run.server().hosting().explain(call).await.map_err(of_serving)? {
            return Ok(own);
        }
    }
    let rows = columns.first().map_or(0, Tensor::rows);
    let sampling = Sampling::new(spec, columns, rows)?;
    let mut rng = SeededRng::new(spec.seed);
    let features = sampling.columns.len();
    let mut sums = vec![0.0; rows * features];
    let mut bases = vec![0.0; rows];
    for row in 0..rows {
        // Every order begins at the baseline and ends at the row, so these two are asked once.
        let mut points = vec![vec![false; features], vec![true; features]];
        let mut orders = Vec::new();
        for _ in 0..spec.samples {
            let mut order: Vec<usize> = (0..features).collect();
            rng.shuffle(&mut order);
            let backwards: Vec<usize> = order.iter().rev().copied().collect();
            orders.push(order);
            orders.push(backwards);
        }
        for order in &orders {
            let mut own = vec![false; features];
            for feature in &order[..features.saturating_sub(1)] {
                own[*feature] = true;
                points.push(own.clone());
            }
        }
        let mut answers = Vec::with_capacity(points.len());
        for points in points.chunks(ROWS_AT_ONCE) {
            let payload = sampling.mixed(row, points)?;
            let answer = run.ask(&model, payload).await?;
            answers.extend(sampling.read(&answer, points.len())?);
        }
        let (base, whole) = (answers[0], answers[1]);
        bases[row] = base;
        let mut next = 2;
        for order in &orders {
            let mut before = base;
            for (step, feature) in order.iter().enumerate() {
                let after = if step + 1 == features {
                    whole
                } else {
                    next += 1;
                    answers[next - 1]
                };
                sums[row * features + feature] += after - before;
                before = after;
            }
        }
        let count = orders.len() as f64;
        sums[row * features..(row + 1) * features]
            .iter_mut()
            .for_each(|sum| *sum /= count);
    }
    let attributions = Tensor::of_f64("attributions", vec![rows, features], &sums).map_err(broken)?;
    let base = Tensor::of_f64("base", vec![rows], &bases).map_err(broken)?;
    Ok(Payload::Tensors(vec![attributions, base]))
}

struct Sampling<'a> {
    spec: &'a ExplainNode,
    columns: Vec<Tensor>,
    /// One row each.
    baseline: Vec<Tensor>,
}

impl<'a> Sampling<'a> {
    fn new(spec: &'a ExplainNode, columns: Vec<Tensor>, rows: usize) -> Result<Self, PortError> {
        let baseline = columns.iter().map(|column| {
            let name = &column.name;
            if column.rows() != rows || (width(column) != 1 && rows > 0) {
                let message = format!("column `{name}` has shape {:?}, expected one value a row", column.shape);
                return Err(PortError::caller("graph_failed", message));
            }
            let value = spec.baseline.get(name).ok_or_else(|| {
                failed(format!("the model does not explain itself; for sampling, give `explain.baseline` a value for `{name}`"))
            })?;
            let mut shape = column.shape.clone();
            if let Some(rows) = shape.first_mut() {
                *rows = 1;
            }
            let wrong = || failed(format!("`explain.baseline`: `{value}` does not fit column `{name}`"));
            let tensor = match (column.datatype, value) {
                (DataType::Bytes, Value::String(text)) => Tensor::strings(name, shape, vec![Some(Bytes::from(text.clone()))]),
                (DataType::Bytes, _) => return Err(wrong()),
                (datatype, value) => {
                    let number = value.as_f64().or(value.as_bool().map(|value| f64::from(u8::from(value))));
                    Tensor::of_numbers(name, datatype, shape, &[number.ok_or_else(wrong)?])
                }
            };
            tensor.map_err(broken)
        });
        let baseline = baseline.collect::<Result<_, PortError>>()?;
        if columns.is_empty() {
            return Err(failed("there is no column to explain by"));
        }
        Ok(Self {
            spec,
            columns,
            baseline,
        })
    }

    /// A request of a row for each point: each column the row's own, or the baseline's.
    fn mixed(&self, row: usize, points: &[Vec<bool>]) -> Result<Payload, PortError> {
        let mixed =
            self.columns
                .iter()
                .zip(&self.baseline)
                .enumerate()
                .map(|(feature, (column, baseline))| {
                    let own = column.slice_rows(row, row + 1).map_err(broken)?;
                    let rows: Vec<&Tensor> = points
                        .iter()
                        .map(|point| if point[feature] { &own } else { baseline })
                        .collect();
                    Tensor::concat_rows(&rows).map_err(broken)
                });
        mixed.collect::<Result<_, _>>().map(Payload::Tensors)
    }

    /// The number that is explained, of each row.
    fn read(&self, answer: &Payload, rows: usize) -> Result<Vec<f64>, PortError> {
        let tensors = tensors_of(answer.clone())?;
        let numeric = |tensor: &&Tensor| matches!(tensor.data, TensorData::Fixed(_));
        let output = match &self.spec.output {
            Some(name) => tensors.iter().find(|tensor| tensor.name == *name),
            None => tensors.iter().find(numeric),
        };
        let output = output.ok_or_else(|| {
            failed("the model gave no such output of numbers to explain; name one in `explain.output`")
        })?;
        let (values, width) = (numbers(output)?, width(output));
        let class = self.spec.class as usize;
        if output.rows() != rows || class >= width {
            return Err(failed(format!(
                "output `{}` has shape {:?}, expected {rows} rows and a place {class}",
                output.name, output.shape
            )));
        }
        Ok(values.chunks(width).map(|row| row[class]).collect())
    }
}
