//! A graph of trees that answers tensors on our own engine, with the labels and scores that ONNX Runtime gives.

use bytes::Bytes;
use rayon::prelude::*;
use tidemill_core::ports::PortError;
use tidemill_core::tensors::{DataType, Tensor, TensorData};

use super::proto::{Graph, Node};
use super::servable::required;
use super::trees::{self, Raw, Transform};
use crate::encode::Input;
use crate::trees::{Block, Ensemble, Link, Workspace};

/// Rows that one thread answers at a time.
const BLOCK: usize = 64;

/// Batches of up to this many rows are answered on the calling thread.
const PARALLEL_FROM: usize = 512;

/// The trees and what the graph makes of them.
#[derive(Debug)]
pub(super) struct Forest {
    ensemble: Ensemble,
    inputs: Vec<Input>,
    input: String,
    transform: Transform,
    labels: Labels,
    /// The graph's outputs, and what each is.
    outputs: Vec<(String, Output)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Label,
    Scores,
}

#[derive(Debug)]
enum Labels {
    Numbers(Vec<i64>),
    Texts(Vec<Bytes>),
}

impl Forest {
    /// The graph, if it is nothing but trees whose every output is known to the last bit.
    pub fn recognise(graph: &Graph<'_>) -> Option<Self> {
        let mut given = required(graph);
        let (input, None) = (given.next()?, given.next()) else {
            return None;
        };
        let features = match input.shape.as_deref()? {
            &[_, features] => usize::try_from(features).ok().filter(|&features| features > 0)?,
            _ => return None,
        };
        if input.element != 1 {
            return None;
        }
        let mut outputs = Vec::new();
        let mut scores = None;
        for output in &graph.outputs {
            let (node, place) = trace(graph, output.name)?;
            let what = match (node.op, place) {
                ("TreeEnsembleClassifier", 0) => Output::Label,
                ("TreeEnsembleClassifier", 1) | ("TreeEnsembleRegressor", 0) => Output::Scores,
                _ => return None,
            };
            scores.get_or_insert(node);
            outputs.push((output.name.to_owned(), what));
        }
        let node = scores?;
        let place = usize::from(node.op == "TreeEnsembleClassifier");
        let name = *node.outputs.get(place)?;
        let Raw {
            ensemble,
            inputs,
            transform,
        } = trees::recognise_raw(graph, input.name, name, features)?;
        let numbers = node.ints("classlabels_int64s");
        let labels = if numbers.is_empty() {
            let texts = node.texts("classlabels_strings")?;
            Labels::Texts(texts.into_iter().map(Bytes::from).collect())
        } else {
            Labels::Numbers(numbers.to_vec())
        };
        Some(Self {
            ensemble,
            inputs,
            input: input.name.to_owned(),
            transform,
            labels,
            outputs,
        })
    }

    /// How many trees.
    pub fn trees(&self) -> usize {
        self.ensemble.trees()
    }

    /// Answers the wanted outputs.
    pub fn run(&self, given: &[Tensor], wanted: &[&str]) -> Result<Vec<Tensor>, PortError> {
        let bad = |what: String| PortError::caller("bad_payload", what);
        let tensor = given
            .iter()
            .find(|tensor| tensor.name == self.input)
            .ok_or_else(|| bad(format!("input `{}` is missing", self.input)))?;
        let features = self.inputs.len();
        let (&[rows, width], TensorData::Fixed(bytes), DataType::Fp32) =
            (tensor.shape.as_slice(), &tensor.data, tensor.datatype)
        else {
            return Err(bad(format!(
                "input `{}` is {} of shape {:?}; expected FP32 of shape [rows, {features}]",
                self.input,
                tensor.datatype.name(),
                tensor.shape
            )));
        };
        if width != features || bytes.len() != rows * features * 4 {
            return Err(bad(format!(
                "input `{}` has shape {:?}; expected [rows, {features}]",
                self.input, tensor.shape
            )));
        }
        let sums = self.sums(bytes, rows);
        let tensors = wanted.iter().filter_map(|name| {
            let (_, what) = self.outputs.iter().find(|(output, _)| output == name)?;
            Some(match what {
                Output::Label => self.label_tensor(name, rows, &sums),
                Output::Scores => self.score_tensor(name, rows, &sums),
            })
        });
        tensors
            .collect::<Result<Vec<Tensor>, _>>()
            .map_err(|error| PortError::internal("model_broken", error.to_string()))
    }

    /// What the trees add up to, row by row.
    fn sums(&self, bytes: &[u8], rows: usize) -> Vec<f64> {
        let outputs = self.ensemble.outputs();
        let mut sums = vec![0.0; rows * outputs];
        let answer = |work: &mut (Vec<f64>, Workspace), (block, out): (usize, &mut [f64])| {
            let count = out.len() / outputs;
            let features = self.inputs.len();
            let (cells, work) = work;
            cells.resize(count * features, 0.0);
            let numbers = bytes[block * BLOCK * features * 4..].as_chunks::<4>().0;
            for (feature, (input, cells)) in self.inputs.iter().zip(cells.chunks_exact_mut(count)).enumerate()
            {
                let column = numbers.iter().skip(feature).step_by(features);
                for (cell, number) in cells.iter_mut().zip(column) {
                    *cell = f64::from(f32::from_le_bytes(*number));
                }
                for step in &input.steps {
                    step.apply(cells);
                }
            }
            let block = Block {
                cells,
                stride: count,
                rows: count,
            };
            self.ensemble.predict(block, work, out);
        };
        if rows > PARALLEL_FROM {
            let blocks = sums.par_chunks_mut(BLOCK * outputs).enumerate();
            blocks.for_each_init(Default::default, answer);
        } else {
            let mut work = Default::default();
            for block in sums.chunks_mut(BLOCK * outputs).enumerate() {
                answer(&mut work, block);
            }
        }
        sums
    }

    /// The place of a row's label.
    fn label(&self, sums: &[f64]) -> usize {
        match (self.transform, sums) {
            (Transform::PositivePair, &[sum]) => usize::from(sum > 0.5),
            (_, &[sum]) => usize::from(sum > 0.0),
            (_, sums) => {
                let mut best = 0;
                for (place, sum) in sums.iter().enumerate() {
                    if *sum > sums[best] {
                        best = place;
                    }
                }
                best
            }
        }
    }

    fn label_tensor(
        &self,
        name: &str,
        rows: usize,
        sums: &[f64],
    ) -> Result<Tensor, tidemill_core::tensors::TensorError> {
        let places = sums
            .chunks_exact(self.ensemble.outputs())
            .map(|sums| self.label(sums));
        match &self.labels {
            Labels::Numbers(labels) => {
                let bytes = places.flat_map(|place| labels.get(place).copied().unwrap_or(0).to_le_bytes());
                Tensor::fixed(
                    name,
                    DataType::Int64,
                    vec![rows],
                    bytes.collect::<Vec<u8>>().into(),
                )
            }
            Labels::Texts(labels) => {
                let texts = places.map(|place| Some(labels.get(place).cloned().unwrap_or_default()));
                Tensor::strings(name, vec![rows], texts.collect())
            }
        }
    }

    fn score_tensor(
        &self,
        name: &str,
        rows: usize,
        sums: &[f64],
    ) -> Result<Tensor, tidemill_core::tensors::TensorError> {
        let outputs = self.ensemble.outputs();
        let mut numbers: Vec<f32> = Vec::with_capacity(rows * (outputs + 1));
        for sums in sums.chunks_exact(outputs) {
            match (self.transform, sums) {
                (Transform::PositivePair, &[sum]) => numbers.extend([1.0 - sum as f32, sum as f32]),
                (Transform::Pair, &[sum]) => numbers.extend([-sum as f32, sum as f32]),
                (Transform::LogisticPair, &[sum]) => {
                    let mut pair = [0.0; 2];
                    Link::LogisticF32.apply(&[-sum, sum], &mut pair);
                    numbers.extend(pair.map(|number| number as f32));
                }
                (Transform::Link(link), sums) => {
                    let mut row = vec![0.0; outputs];
                    link.apply(sums, &mut row);
                    numbers.extend(row.iter().map(|&number| number as f32));
                }
                (_, sums) => numbers.extend(sums.iter().map(|&number| number as f32)),
            }
        }
        let width = numbers.len() / rows.max(1);
        let width = if rows == 0 { self.width() } else { width };
        Tensor::of_f32(name, vec![rows, width], &numbers)
    }

    /// Scores a row.
    fn width(&self) -> usize {
        match self.transform {
            Transform::Link(_) => self.ensemble.outputs(),
            _ => 2,
        }
    }
}

/// The tree ensemble that a value comes from, and which of its outputs, through nodes that change nothing.
fn trace<'a, 'b>(graph: &'b Graph<'a>, output: &'a str) -> Option<(&'b Node<'a>, usize)> {
    let mut name = output;
    // As many steps as there are nodes: a checked graph has no circle.
    for _ in 0..=graph.nodes.len() {
        let node = graph.nodes.iter().find(|node| node.outputs.contains(&name))?;
        match node.op {
            "Identity" | "ZipMap" => name = node.inputs.first()?,
            // A label that is a whole number stays one.
            "Cast" if node.attribute("to")?.int == Some(7) => name = node.inputs.first()?,
            _ => {
                let place = node.outputs.iter().position(|made| *made == name)?;
                return Some((node, place));
            }
        }
    }
    None
}
