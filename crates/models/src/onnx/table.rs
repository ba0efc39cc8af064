//! An ONNX graph as a model of a table's rows: columns in, scores out.

use std::sync::Arc;

use tidemill_core::frame::{Column, Frame, Scores, Task};
use tidemill_core::ports::{Model, ModelBundle, ModelSignature, PortError};
use tidemill_core::tensors::{DataType, Tensor};

use super::columns::{Input, default_features, fit, inputs, tensor};
use super::proto::{Graph, Node, ValueInfo};
use super::servable::{checked, expose, external_files};
use super::sessions::{RunError, Sessions, Settings};
use super::{OnnxError, trees};
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

impl OnnxTable {
    fn values(&self, columns: &[&Column], rows: usize) -> Result<Vec<f64>, PortError> {
        let mut columns = columns.iter();
        let given = self.inputs.iter().map(|input| {
            let mine: Vec<&Column> = columns.by_ref().take(input.width).copied().collect();
            Ok((input.name.as_str(), tensor(input, &mine, rows)?))
        });
        let given = given.collect::<Result<Vec<_>, PortError>>()?;
        let inputs: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let output = self.output.name.as_str();
        let broken = |what: String| {
            PortError::internal(
                "model_broken",
                format!(
                    "`{}` did not answer: {what}; roll back to the version before",
                    self.file
                ),
            )
        };
        let answer = self.sessions.run(&inputs, &[(output, output)]);
        let mut answer = answer.map_err(|error| match error {
            RunError::Session(error) => error.of(&self.file),
            RunError::Input(name, error) => {
                PortError::caller("features_mismatch", format!("input `{name}`: {error}"))
            }
            RunError::Answer(error) => broken(error.to_string()),
        })?;
        let answer = answer
            .pop()
            .ok_or_else(|| broken(format!("output `{output}` did not come")))?;
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
