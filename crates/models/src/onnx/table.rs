//! An ONNX graph as a model of a table's rows: columns in, scores out.

use std::sync::Arc;

use bytes::Bytes;
use ort::session::{OutputSelector, RunOptions, SessionInputValue};
use tidemill_core::frame::{Column, FeatureKind, Frame, Scores, Task};
use tidemill_core::ports::{Model, ModelBundle, ModelSignature, PortError};
use tidemill_core::tensors::{DataType, Tensor};

use super::proto::{Graph, Node, ValueInfo};
use super::servable::{checked, external_files, required};
use super::sessions::{Sessions, Settings};
use super::wire::Writer;
use super::{OnnxError, tensors, trees};
use crate::encode::{Rounding, RowEncoder, columns_for};
use crate::error::BundleError;
use crate::manifest::{self, Manifest, ManifestFeature};
use crate::tree_model::{Parts, TreeModel};

/// An ONNX model of a table.
#[derive(Debug)]
pub(crate) struct OnnxTable {
    signature: ModelSignature,
    inputs: Vec<Input>,
    output: Output,
    sessions: Sessions,
    file: String,
}

/// A tensor that columns go into.
#[derive(Debug)]
struct Input {
    name: String,
    datatype: DataType,
    /// How many columns it takes, side by side.
    width: usize,
    /// Whether it has a dimension for them.
    flat: bool,
}

/// Where the answer stands.
#[derive(Debug)]
struct Output {
    name: String,
    /// Numbers a row.
    width: usize,
    /// Whether a binary model gives both probabilities.
    pair: bool,
}

/// Loads the model that a manifest describes.
pub(crate) fn load(manifest: &Manifest, bundle: &ModelBundle) -> Result<Arc<dyn Model>, PortError> {
    let bytes = manifest::file(bundle, &manifest.file)?;
    let of = |error: OnnxError| error.of(&manifest.file);
    let model = checked(bytes, bundle).map_err(of)?;
    let inputs = inputs(&model.graph).map_err(of)?;
    let features = manifest.features_or(|| default_features(&inputs))?;
    let inputs = fit(inputs, &features).map_err(|reason| mismatch(manifest, reason))?;
    let answer = answer(&model.graph, manifest).map_err(|reason| mismatch(manifest, reason))?;
    if let Some(trees) = as_trees(&model.graph, manifest, &inputs, &features, &answer)? {
        tracing::debug!(
            trees = trees.trees(),
            "tree ensemble in an ONNX file, on our own engine"
        );
        return Ok(Arc::new(trees));
    }
    let external = external_files(&model);
    let mut file = bytes.to_vec();
    if answer.hidden {
        expose(&mut file, &answer.name);
    }
    let settings = Settings {
        threads: manifest.threads.unwrap_or(1),
        ..Settings::default()
    };
    let sessions = Sessions::open(file, &external, bundle, settings).map_err(of)?;
    Ok(Arc::new(OnnxTable {
        signature: ModelSignature {
            features: Arc::new(manifest::schema(&features)),
            task: answer.task,
            classes: if answer.task == Task::Multiclass {
                answer.classes.into()
            } else {
                Arc::default()
            },
        },
        inputs,
        output: Output {
            name: answer.name,
            width: answer.width,
            pair: answer.task == Task::Binary && answer.width == 2,
        },
        sessions,
        file: manifest.file.clone(),
    }))
}

/// The model on our own engine, where that gives ONNX Runtime's answers to the last bit.
fn as_trees(
    graph: &Graph<'_>,
    manifest: &Manifest,
    inputs: &[Input],
    features: &[ManifestFeature],
    answer: &Answer,
) -> Result<Option<TreeModel>, PortError> {
    let [input] = inputs else {
        return Ok(None);
    };
    if manifest.engine.is_some() || input.datatype != DataType::Fp32 || input.flat {
        return Ok(None);
    }
    let Some(found) = trees::recognise(graph, &input.name, &answer.name, features.len()) else {
        return Ok(None);
    };
    let fits = match answer.task {
        Task::Multiclass => found.ensemble.outputs() == answer.classes.len(),
        Task::Binary | Task::Regression => found.ensemble.outputs() == 1,
    };
    if !fits {
        return Ok(None);
    }
    let model = TreeModel::assemble(Parts {
        file: manifest.file.clone(),
        task: answer.task,
        classes: if answer.task == Task::Multiclass {
            answer.classes.clone()
        } else {
            Vec::new()
        },
        features: features.to_vec(),
        encoder: RowEncoder::of(found.inputs, Rounding::F32),
        ensemble: found.ensemble,
    })?;
    Ok(Some(model))
}

fn mismatch(manifest: &Manifest, reason: String) -> PortError {
    BundleError::Mismatch {
        file: manifest.file.clone(),
        reason,
    }
    .into()
}

/// What the graph takes. A width of 0 is not said.
fn inputs(graph: &Graph<'_>) -> Result<Vec<Input>, OnnxError> {
    required(graph)
        .map(|info: &ValueInfo<'_>| {
            let unsupported = |what: &str| {
                OnnxError::Unsupported(format!(
                    "input `{}` {what}; serve the model as tensors, without a table",
                    info.name
                ))
            };
            let datatype = tensors::datatype(info.element)
                .filter(|_| info.is_tensor)
                .ok_or_else(|| unsupported("is no tensor"))?;
            let shape = info.shape.as_deref().unwrap_or(&[-1, -1]);
            let (width, flat) = match shape {
                [_] => (1, true),
                [_, width] => (usize::try_from(*width).unwrap_or(0), false),
                _ => return Err(unsupported("has more than two dimensions")),
            };
            Ok(Input {
                name: info.name.to_owned(),
                datatype,
                width,
                flat,
            })
        })
        .collect()
}

/// Names for the columns: an input of one column gives it its own.
fn default_features(inputs: &[Input]) -> Vec<ManifestFeature> {
    let names = inputs.iter().flat_map(|input| {
        (0..input.width).map(|position| match input.width {
            1 => (input.name.clone(), input.datatype),
            _ => (format!("{}_{position}", input.name), input.datatype),
        })
    });
    names
        .map(|(name, datatype)| ManifestFeature {
            name,
            kind: kind(datatype),
            categories: Vec::new(),
        })
        .collect()
}

fn kind(datatype: DataType) -> FeatureKind {
    if datatype == DataType::Bytes {
        FeatureKind::Categorical
    } else {
        FeatureKind::Numeric
    }
}

/// Gives each input its columns, in order; one whose width is not said takes what the others leave.
fn fit(mut inputs: Vec<Input>, features: &[ManifestFeature]) -> Result<Vec<Input>, String> {
    let said: usize = inputs.iter().map(|input| input.width).sum();
    let open: Vec<usize> = (0..inputs.len())
        .filter(|&input| inputs[input].width == 0)
        .collect();
    if let (&[open], Some(left)) = (open.as_slice(), features.len().checked_sub(said)) {
        inputs[open].width = left;
    }
    let total: usize = inputs.iter().map(|input| input.width).sum();
    if total != features.len() || inputs.iter().any(|input| input.width == 0) {
        return Err(format!(
            "it takes {total} columns in {} tensors, `features` lists {}; list one feature a column, in the order of the tensors",
            inputs.len(),
            features.len()
        ));
    }
    let mut columns = features.iter();
    for input in &inputs {
        for feature in columns.by_ref().take(input.width) {
            if feature.kind != kind(input.datatype) {
                return Err(format!(
                    "feature `{}` goes into tensor `{}`, which is {}; change its kind",
                    feature.name,
                    input.name,
                    input.datatype.name()
                ));
            }
        }
    }
    Ok(inputs)
}

/// Which output answers, and what it means.
struct Answer {
    name: String,
    width: usize,
    task: Task,
    classes: Vec<String>,
    /// Whether it is no output of the graph yet: what goes into a `ZipMap`.
    hidden: bool,
}

fn answer(graph: &Graph<'_>, manifest: &Manifest) -> Result<Answer, String> {
    let zipped = graph.nodes.iter().find(|node| {
        node.op == "ZipMap"
            && node
                .outputs
                .iter()
                .any(|made| graph.outputs.iter().any(|it| it.name == *made))
    });
    let labelled = graph
        .outputs
        .iter()
        .any(|output| matches!(output.element, 7 | 8) && output.is_tensor);
    let numbers = graph
        .outputs
        .iter()
        .filter(|output| matches!(output.element, 1 | 11) && output.is_tensor);
    let numbers: Vec<&ValueInfo<'_>> = numbers.collect();
    let classes = if manifest.classes.is_empty() {
        class_labels(graph)
    } else {
        manifest.classes.clone()
    };
    let (name, width, hidden) = match (zipped, numbers.as_slice()) {
        (Some(node), _) => {
            let input = node.inputs.first().copied().unwrap_or_default();
            (input.to_owned(), classes.len(), true)
        }
        (None, [first, ..]) => (first.name.to_owned(), said_width(first), false),
        (None, []) => {
            return Err("it has no output of numbers; serve the model as tensors, without a table".into());
        }
    };
    let task = manifest
        .task
        .unwrap_or(match (labelled || zipped.is_some(), width) {
            (true, 2) => Task::Binary,
            (true, 0) if classes.len() == 2 => Task::Binary,
            // The score of an outlier detector.
            (true, 1) | (false, _) => Task::Regression,
            (true, _) => Task::Multiclass,
        });
    let width = match (task, width) {
        (Task::Regression, 0) => 1,
        (Task::Binary, 0) => 2,
        (Task::Multiclass, 0) => classes.len(),
        (_, width) => width,
    };
    let fits = match task {
        Task::Regression => width == 1,
        Task::Binary => matches!(width, 1 | 2),
        Task::Multiclass => width > 1,
    };
    if !fits {
        return Err(format!(
            "its output `{name}` has {width} numbers a row, which is no answer to `{task:?}`; set `task`, and for several \
             classes `classes`"
        ));
    }
    let classes = if task == Task::Multiclass && classes.len() != width {
        if !manifest.classes.is_empty() {
            return Err(format!(
                "its output `{name}` has {width} numbers a row, `classes` has {} names",
                classes.len()
            ));
        }
        (0..width).map(|class| class.to_string()).collect()
    } else {
        classes
    };
    Ok(Answer {
        name,
        width,
        task,
        classes,
        hidden,
    })
}

/// The last dimension of an output; 1 if there is only the rows', 0 if it is not said.
fn said_width(info: &ValueInfo<'_>) -> usize {
    match info.shape.as_deref() {
        Some([_]) => 1,
        Some([_, width]) => usize::try_from(*width).unwrap_or(0),
        _ => 0,
    }
}

/// The names of the classes: of the `ZipMap`, or else of the classifier.
pub(super) fn class_labels(graph: &Graph<'_>) -> Vec<String> {
    let labels = |node: &Node<'_>| {
        let numbers = ["classlabels_int64s", "classlabels_ints"].map(|name| node.ints(name));
        let numbers = numbers.into_iter().find(|numbers| !numbers.is_empty());
        match numbers {
            Some(numbers) => numbers.iter().map(i64::to_string).collect(),
            None => node.texts("classlabels_strings").unwrap_or_default(),
        }
    };
    let zipmaps = graph.nodes.iter().filter(|node| node.op == "ZipMap");
    zipmaps
        .chain(graph.nodes.iter().filter(|node| node.op != "ZipMap"))
        .map(labels)
        .find(|labels| !labels.is_empty())
        .unwrap_or_default()
}

/// Makes a value of single-precision numbers an output of the graph. Protocol buffers join messages that come twice, so a second
/// graph that only has this output is enough.
fn expose(model: &mut Vec<u8>, name: &str) {
    let tensor = Writer::default().int(1, 1);
    let kind = Writer::default().bytes(1, &tensor.0);
    let info = Writer::default().bytes(1, name.as_bytes()).bytes(2, &kind.0);
    let graph = Writer::default().bytes(12, &info.0);
    model.extend_from_slice(&Writer::default().bytes(7, &graph.0).0);
}

impl OnnxTable {
    fn values(&self, columns: &[&Column], rows: usize) -> Result<Vec<f64>, PortError> {
        let mut columns = columns.iter();
        let given = self.inputs.iter().map(|input| {
            let mine: Vec<&Column> = columns.by_ref().take(input.width).copied().collect();
            let value = tensors::to_ort(&tensor(input, &mine, rows)?).map_err(|error| {
                PortError::caller("features_mismatch", format!("input `{}`: {error}", input.name))
            })?;
            Ok((input.name.as_str(), SessionInputValue::from(value)))
        });
        let given = given.collect::<Result<Vec<_>, PortError>>()?;
        let read = self
            .sessions
            .with(|session| -> Result<Tensor, tensors::ValueError> {
                let selector = OutputSelector::no_default().with(self.output.name.as_str());
                let options = RunOptions::new()?.with_outputs(selector);
                let outputs = session.run_with_options(given, &options)?;
                match outputs.get(&self.output.name) {
                    Some(value) => tensors::from_ort(&self.output.name, value),
                    None => Err(tensors::ValueError::Type(format!(
                        "output `{}` did not come",
                        self.output.name
                    ))),
                }
            });
        let broken = |what: String| {
            PortError::internal(
                "model_broken",
                format!(
                    "`{}` did not answer: {what}; roll back to the version before",
                    self.file
                ),
            )
        };
        let answer = read
            .map_err(|error| error.of(&self.file))?
            .map_err(|error| broken(error.to_string()))?;
        let values = answer.to_f64().unwrap_or_default();
        if values.len() != rows * self.output.width {
            return Err(broken(format!(
                "output `{}` has shape {:?} for {rows} rows of {} numbers",
                self.output.name, answer.shape, self.output.width
            )));
        }
        Ok(if self.output.pair {
            values.into_iter().skip(1).step_by(2).collect()
        } else {
            values
        })
    }
}

/// Columns side by side, row by row.
fn tensor(input: &Input, columns: &[&Column], rows: usize) -> Result<Tensor, PortError> {
    let shape = if input.flat {
        vec![rows]
    } else {
        vec![rows, input.width]
    };
    let wrong =
        |error: tidemill_core::tensors::TensorError| PortError::internal("internal", error.to_string());
    if input.datatype == DataType::Bytes {
        let mut texts = vec![Some(Bytes::new()); rows * input.width];
        for (position, column) in columns.iter().enumerate() {
            if let Column::Categorical(levels) = column {
                let cells = texts.iter_mut().skip(position).step_by(input.width);
                for (cell, level) in cells.zip(levels) {
                    // ONNX has no missing text; the empty one stands for it.
                    *cell = Some(
                        level
                            .as_deref()
                            .map_or_else(Bytes::new, |level| Bytes::copy_from_slice(level.as_bytes())),
                    );
                }
            }
        }
        return Tensor::strings(input.name.as_str(), shape, texts).map_err(wrong);
    }
    let mut numbers = vec![0.0; rows * input.width];
    for (position, column) in columns.iter().enumerate() {
        if let Column::Numeric(values) = column {
            let cells = numbers.iter_mut().skip(position).step_by(input.width);
            cells.zip(values).for_each(|(cell, &value)| *cell = value);
        }
    }
    let floating = matches!(input.datatype, DataType::Fp32 | DataType::Fp64);
    if !floating
        && let Some(odd) = numbers
            .iter()
            .find(|value| value.fract() != 0.0 || value.is_nan())
    {
        return Err(PortError::caller(
            "features_mismatch",
            format!(
                "tensor `{}` of the model takes whole numbers, and `{odd}` came; send a whole number",
                input.name
            ),
        ));
    }
    macro_rules! bytes {
        ($type:ty) => {
            numbers
                .iter()
                .flat_map(|&value| (value as $type).to_le_bytes())
                .collect::<Vec<u8>>()
        };
    }
    let bytes = match input.datatype {
        DataType::Fp32 => bytes!(f32),
        DataType::Fp64 => bytes!(f64),
        DataType::Int64 => bytes!(i64),
        DataType::Int32 => bytes!(i32),
        DataType::Int16 => bytes!(i16),
        DataType::Int8 => bytes!(i8),
        DataType::Uint64 => bytes!(u64),
        DataType::Uint32 => bytes!(u32),
        DataType::Uint16 => bytes!(u16),
        DataType::Uint8 => bytes!(u8),
        DataType::Bool => numbers.iter().map(|&value| u8::from(value != 0.0)).collect(),
        other => {
            return Err(PortError::caller(
                "features_mismatch",
                format!(
                    "tensor `{}` of the model is {}, which no column fits",
                    input.name,
                    other.name()
                ),
            ));
        }
    };
    Tensor::fixed(input.name.as_str(), input.datatype, shape, bytes.into()).map_err(wrong)
}

impl Model for OnnxTable {
    fn signature(&self) -> &ModelSignature {
        &self.signature
    }

    fn predict(&self, rows: &Frame) -> Result<Scores, PortError> {
        let columns = columns_for(&self.signature.features, rows)?;
        let values = if rows.rows() == 0 {
            Vec::new()
        } else {
            self.values(&columns, rows.rows())?
        };
        crate::tree_model::scores(&self.signature, values)
    }
}
