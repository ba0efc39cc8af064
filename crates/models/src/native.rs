//! Model files that need no Python, as deployments: a table of features in, the model's answers out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use tidemill_core::frame::{Column, Feature, FeatureKind, Frame, Scores, Task};
use tidemill_core::ports::{Contributions, Model, ModelBundle, ModelRuntime as _, ModelSignature, PortError};
use tidemill_core::servable::{CallContext, Interface, Loader, Payload, Servable, Work};
use tidemill_core::spec::Device;
use tidemill_core::tensors::{DataType, Tensor, TensorData, TensorError, TensorSpec};

use crate::bundle::has_extension;
use crate::manifest::{AnswerForm, MANIFEST_FILE, Manifest, Serve};
use crate::{OnnxModel, Runtime};

/// The name of the one output.
const OUTPUT: &str = "output";

/// Loads a model file.
#[derive(Debug)]
pub(crate) struct NativeLoader {
    /// The folder of the deployment's files.
    pub folder: PathBuf,
    /// The file in it.
    pub file: String,
    /// Where an ONNX model runs.
    pub device: Device,
}

#[async_trait]
impl Loader for NativeLoader {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        let (folder, file, device) = (self.folder.clone(), self.file.clone(), self.device);
        let work = move || -> Result<Arc<dyn Servable>, PortError> {
            if has_extension(&file, "onnx") {
                let path = folder.join(&file);
                let beside = path.parent().unwrap_or(&folder);
                return Ok(Arc::new(OnnxModel::load_from(beside, name_of(&file), device)?));
            }
            Ok(Arc::new(Tabular::load(&folder, &file)?))
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| Err(PortError::internal("model_broken", error.to_string())))
    }
}

fn name_of(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>, PortError> {
    std::fs::read(folder.join(name))
        .map_err(|error| PortError::upstream("bundle_io", format!("cannot read `{name}`: {error}")))
}

/// The format and the model file beside, where this is a manifest (`model.json`) that names one by a plain name.
pub(crate) fn manifest_of(bytes: &[u8]) -> Option<(String, String)> {
    // A large file that does not begin so is a model, and not parsed to find that out.
    let head = bytes.get(..bytes.len().min(256))?;
    if bytes.len() > 1 << 20 && !String::from_utf8_lossy(head).contains("\"format\"") {
        return None;
    }
    let manifest: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let (format, file) = (manifest["format"].as_str()?, manifest["file"].as_str()?);
    (!file.contains(['/', '\\']) && !file.starts_with('.')).then(|| (format.to_owned(), file.to_owned()))
}

fn format_of(file: &str, bytes: &[u8]) -> Result<&'static str, PortError> {
    if bytes.starts_with(b"tree\n") {
        return Ok("lightgbm");
    }
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into_owned();
    if head.contains("\"sklearn_trees\"") {
        return Ok("sklearn_trees");
    }
    // Both forms begin with a brace; the engine says what is wrong with what follows.
    if bytes.trim_ascii_start().starts_with(b"{") {
        return Ok("xgboost");
    }
    Err(PortError::caller(
        "model_unknown",
        format!(
            "`{file}` is no model that is known here without Python: expected LightGBM's text, XGBoost's JSON or UBJ, what \
             sklearn_trees.py writes, or ONNX"
        ),
    ))
}

fn interface(signature: &ModelSignature, format: &str) -> Interface {
    let input = |feature: &tidemill_core::frame::Feature| {
        let datatype = match feature.kind {
            FeatureKind::Numeric => DataType::Fp64,
            FeatureKind::Categorical => DataType::Bytes,
        };
        TensorSpec::new(feature.name.clone(), datatype, vec![-1])
    };
    let mut output = TensorSpec::new(OUTPUT, DataType::Fp64, vec![-1]);
    if signature.task == Task::Multiclass {
        output.shape.push(signature.classes.len() as i64);
        output.labels = signature.classes.to_vec();
    }
    Interface {
        platform: format.to_owned(),
        inputs: signature.features.features.iter().map(input).collect(),
        outputs: vec![output],
        batches: true,
        columns: true,
        ..Interface::default()
    }
}

/// A model of tables that is asked by tensors, one for each column or a matrix of all.
#[derive(Debug)]
pub(crate) struct Tabular {
    pub model: Arc<dyn Model>,
    interface: Interface,
    answer: AnswerForm,
    labels: Vec<String>,
    size: u64,
}

impl Tabular {
    /// Loads a file of a folder, or what a manifest there names. Blocks.
    pub fn load(folder: &Path, file: &str) -> Result<Self, PortError> {
        let path = folder.join(file);
        let beside = path.parent().unwrap_or(folder);
        let bytes = read(beside, name_of(file))?;
        let (format, bundle) = match manifest_of(&bytes) {
            Some((format, named)) => {
                let model = read(beside, &named)?;
                let files = [(named, model), (MANIFEST_FILE.to_owned(), bytes)];
                (format, ModelBundle::from(files))
            }
            None => {
                let format = format_of(file, &bytes)?;
                let manifest = json!({ "format": format, "file": "model" }).to_string();
                let files = [
                    (MANIFEST_FILE.to_owned(), manifest.into_bytes()),
                    ("model".to_owned(), bytes),
                ];
                (format.to_owned(), ModelBundle::from(files))
            }
        };
        let size = bundle.values().map(Vec::len).sum::<usize>() as u64;
        let model = Runtime.load(&bundle)?;
        let mut interface = interface(model.signature(), &format);
        let serve = Manifest::read(&bundle)?.serve;
        let (answer, labels) = match serve {
            Some(serve) => {
                check_serve(&serve, model.signature())?;
                interface.columns = serve.inputs.iter().all(|input| input.shape.len() == 1);
                interface.inputs = serve.inputs;
                interface.outputs = vec![serve.output];
                (serve.answer, serve.labels)
            }
            None => (AnswerForm::Scores, Vec::new()),
        };
        Ok(Self {
            model,
            interface,
            answer,
            labels,
            size,
        })
    }

    /// The rows that tensors hold.
    pub fn frame(&self, tensors: &[Tensor]) -> Result<Frame, PortError> {
        let features = &self.model.signature().features;
        let matrix = self.interface.inputs.first().filter(|_| !self.interface.columns);
        let columns = match matrix {
            Some(spec) => matrix_columns(spec, tensors, features.features.len())?,
            None => {
                let columns = features.features.iter().map(|feature| column(feature, tensors));
                columns.collect::<Result<Vec<Column>, PortError>>()?
            }
        };
        Frame::new(Arc::clone(features), columns).map_err(|error| bad(error.to_string()))
    }

    fn output(&self) -> &TensorSpec {
        // There is always the one.
        &self.interface.outputs[0]
    }

    /// An answer as the interface says it.
    pub fn written(&self, scores: &Scores) -> Result<Tensor, TensorError> {
        let (rows, spec) = (scores.rows(), self.output());
        let classes = match scores {
            Scores::Multiclass { classes, .. } => Some(classes.len()),
            Scores::Binary(_) => Some(2),
            Scores::Regression(_) => None,
        };
        match (self.answer, scores) {
            (AnswerForm::Labels, _) => {
                let places = (0..rows).map(|row| place(scores, row));
                if spec.datatype == DataType::Bytes {
                    let label = |place: usize| Some(Bytes::from(self.labels[place].clone()));
                    return Tensor::strings(&spec.name, vec![rows], places.map(label).collect());
                }
                let number = |text: &String| match text.as_str() {
                    "true" => 1.0,
                    "false" => 0.0,
                    number => number.parse().unwrap_or(f64::NAN),
                };
                let numbers: Vec<f64> = self.labels.iter().map(number).collect();
                let numbers: Vec<f64> = places.map(|place| numbers[place]).collect();
                Tensor::of_numbers(&spec.name, spec.datatype, vec![rows], &numbers)
            }
            (AnswerForm::Probabilities, Scores::Binary(second)) => {
                let both: Vec<f64> = second.iter().flat_map(|second| [1.0 - second, *second]).collect();
                Tensor::of_f64(&spec.name, vec![rows, 2], &both)
            }
            (_, Scores::Multiclass { .. }) => {
                Tensor::of_f64(&spec.name, vec![rows, classes.unwrap_or(1)], scores.values())
            }
            _ => Tensor::of_f64(&spec.name, vec![rows], scores.values()),
        }
    }
}

/// The class that a row is in: of two the second from above one half, of several the first with the largest probability.
fn place(scores: &Scores, row: usize) -> usize {
    let values = scores.row(row);
    match scores {
        Scores::Binary(_) | Scores::Regression(_) => usize::from(values[0] > 0.5),
        Scores::Multiclass { .. } => {
            (0..values.len()).fold(
                0,
                |best, place| if values[place] > values[best] { place } else { best },
            )
        }
    }
}

/// Whether what a deployment is said to give fits the model.
fn check_serve(serve: &Serve, signature: &ModelSignature) -> Result<(), PortError> {
    let features = signature.features.features.len();
    let classes = match signature.task {
        Task::Binary => 2,
        Task::Multiclass => signature.classes.len(),
        Task::Regression => 0,
    };
    let columns = serve.inputs.iter().all(|input| input.shape.len() == 1);
    let fits = match serve.answer {
        AnswerForm::Labels => classes > 0 && serve.labels.len() == classes,
        AnswerForm::Probabilities => classes > 0,
        AnswerForm::Scores => true,
    } && if columns {
        serve.inputs.len() == features
    } else {
        serve.inputs.len() == 1
    };
    if fits {
        return Ok(());
    }
    Err(PortError::caller(
        "model_manifest",
        format!(
            "`serve` of `{MANIFEST_FILE}` does not fit the model of {features} features and {classes} classes; convert it again"
        ),
    ))
}

fn column(feature: &Feature, tensors: &[Tensor]) -> Result<Column, PortError> {
    let tensor = tensors.iter().find(|tensor| tensor.name == feature.name);
    let tensor = tensor.ok_or_else(|| bad(format!("input `{}` is missing", feature.name)))?;
    match (feature.kind, &tensor.data) {
        (FeatureKind::Numeric, TensorData::Fixed(_)) => {
            Ok(Column::Numeric(tensor.to_f64().unwrap_or_default()))
        }
        (FeatureKind::Categorical, TensorData::Strings(strings)) => {
            let texts = strings.iter().map(|text| {
                text.as_ref()
                    .map(|text| String::from_utf8_lossy(text).as_ref().into())
            });
            Ok(Column::Categorical(texts.collect()))
        }
        _ => Err(bad(format!(
            "input `{}` is {}",
            feature.name,
            tensor.datatype.name()
        ))),
    }
}

fn matrix_columns(spec: &TensorSpec, tensors: &[Tensor], width: usize) -> Result<Vec<Column>, PortError> {
    let tensor = tensors.iter().find(|tensor| tensor.name == spec.name);
    let tensor = tensor.ok_or_else(|| bad(format!("input `{}` is missing", spec.name)))?;
    let values = tensor.to_f64().filter(|_| tensor.shape.get(1) == Some(&width));
    let values = values.ok_or_else(|| {
        bad(format!(
            "input `{}` has shape {:?}, expected numbers of shape [rows, {width}]",
            spec.name, tensor.shape
        ))
    })?;
    let column = |place: usize| Column::Numeric(values.iter().skip(place).step_by(width).copied().collect());
    Ok((0..width).map(column).collect())
}

fn bad(message: String) -> PortError {
    PortError::caller("bad_payload", message)
}

#[async_trait]
impl Servable for Tabular {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn work(&self) -> Work {
        Work::Light
    }

    async fn call(&self, payload: Payload, context: &CallContext) -> Result<Payload, PortError> {
        let Payload::Tensors(tensors) = payload else {
            return Err(bad("it takes tensors, one for each column".to_owned()));
        };
        let known = &self.output().name;
        if let Some(unknown) = context.outputs.iter().find(|name| *name != known) {
            return Err(PortError::caller(
                "unknown_output",
                format!("the model has no output `{unknown}`; it has `{known}`"),
            ));
        }
        let scores = self.model.predict(&self.frame(&tensors)?)?;
        let answer = self.written(&scores);
        let answer = answer.map_err(|error| PortError::internal("model_broken", error.to_string()))?;
        Ok(Payload::Tensors(vec![answer]))
    }

    async fn explain(
        &self,
        payload: Payload,
        _context: &CallContext,
    ) -> Result<Option<Contributions>, PortError> {
        let Payload::Tensors(tensors) = payload else {
            return Ok(None);
        };
        self.model.contributions(&self.frame(&tensors)?)
    }

    fn memory(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data")
            .join(name)
    }

    async fn loaded(folder: &Path, file: &str) -> Arc<dyn Servable> {
        let loader = NativeLoader {
            folder: folder.to_owned(),
            file: file.to_owned(),
            device: Device::Auto,
        };
        loader.load().await.unwrap()
    }

    #[tokio::test]
    async fn scikit_learns_trees_a_manifest_and_trees_in_onnx_are_known_by_what_is_in_them() {
        let forest = loaded(&data("formats"), "sklearn.json").await;
        assert_eq!(forest.interface().platform, "sklearn_trees");
        assert_eq!(forest.interface().outputs[0].labels, ["0", "1", "2"]);
        let named = loaded(&data("wine"), "model.json").await;
        assert_eq!(named.interface().platform, "lightgbm");
        assert_eq!(named.interface().outputs[0].labels.len(), 3);
        let graph = loaded(&data("onnx"), "trees.onnx").await;
        assert_eq!(graph.interface().platform, "tidemill_trees");
    }

    const STUMP: &str = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=1\n\
        objective=regression\nfeature_names=age weight\nfeature_infos=[0:9] [0:9]\ntree_sizes=300\n\nTree=0\nnum_leaves=2\n\
        num_cat=0\nsplit_feature=1\nsplit_gain=1\nthreshold=2.5\ndecision_type=2\nleft_child=-1\nright_child=-2\n\
        leaf_value=10 20\nleaf_weight=1 1\nleaf_count=1 1\ninternal_value=0\ninternal_weight=0\ninternal_count=2\n\
        is_linear=0\nshrinkage=1\n\n\nend of trees\n";

    #[tokio::test]
    async fn a_manifest_says_in_which_form_a_deployment_answers_and_what_does_not_fit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(
            data("formats").join("sklearn.json"),
            dir.path().join("trees.json"),
        )
        .unwrap();
        let serve = |answer: &str, labels: &[&str]| {
            let manifest = json!({
                "format": "sklearn_trees", "file": "trees.json",
                "serve": {
                    "answer": answer, "labels": labels,
                    "inputs": [
                        {"name": "a", "datatype": "FP32", "shape": [-1]}, {"name": "b", "datatype": "INT32", "shape": [-1]},
                        {"name": "colour", "datatype": "BYTES", "shape": [-1]},
                    ],
                    "output": {"name": "said", "datatype": "INT64", "shape": [-1]},
                },
            });
            std::fs::write(dir.path().join(MANIFEST_FILE), manifest.to_string()).unwrap();
            Tabular::load(dir.path(), MANIFEST_FILE)
        };
        let model = serve("labels", &["10", "20", "30"]).unwrap();
        assert_eq!(model.interface().inputs[1].datatype, DataType::Int32);
        let asked = vec![
            Tensor::of_f32("a", vec![2], &[-2.0, 2.0]).unwrap(),
            Tensor::of_numbers("b", DataType::Int32, vec![2], &[-2.0, 2.0]).unwrap(),
            Tensor::strings("colour", vec![2], vec![Some("red".into()), None]).unwrap(),
        ];
        let scores = model.model.predict(&model.frame(&asked).unwrap()).unwrap();
        let Payload::Tensors(answer) = model
            .call(Payload::Tensors(asked), &CallContext::default())
            .await
            .unwrap()
        else {
            panic!("tensors")
        };
        assert_eq!(
            (answer[0].name.as_str(), answer[0].datatype),
            ("said", DataType::Int64)
        );
        let largest = |row: usize| {
            let row = scores.row(row);
            let most = row.iter().copied().fold(f64::MIN, f64::max);
            10.0 * (1 + row.iter().position(|value| *value == most).unwrap()) as f64
        };
        assert_eq!(answer[0].to_f64().unwrap(), [largest(0), largest(1)]);
        assert_eq!(serve("labels", &["10"]).unwrap_err().code, "model_manifest");
        assert!(serve("probabilities", &[]).is_ok());
    }

    #[tokio::test]
    async fn a_file_of_lightgbm_is_asked_by_columns_under_the_names_that_it_has() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("m.txt"), STUMP).unwrap();
        let loader = NativeLoader {
            folder: dir.path().to_owned(),
            file: "m.txt".to_owned(),
            device: Device::Auto,
        };
        let model = loader.load().await.unwrap();
        let names: Vec<&str> = model
            .interface()
            .inputs
            .iter()
            .map(|input| input.name.as_str())
            .collect();
        assert_eq!(names, ["age", "weight"]);
        let column = |name: &str, values: &[f64]| Tensor::of_f64(name, vec![values.len()], values).unwrap();
        let asked = Payload::Tensors(vec![column("weight", &[1.0, 3.0]), column("age", &[0.0, 0.0])]);
        let Payload::Tensors(answer) = model.call(asked, &CallContext::default()).await.unwrap() else {
            panic!("tensors")
        };
        assert_eq!(answer[0].to_f64().unwrap(), [10.0, 20.0]);
        std::fs::write(dir.path().join("m.txt"), "a,b\n1,2\n").unwrap();
        assert_eq!(loader.load().await.unwrap_err().code, "model_unknown");
        // A pickle is opened in a worker and nowhere else, whatever a bundle says of it.
        std::fs::write(dir.path().join("m.txt"), b"\x80\x04\x95pickle").unwrap();
        assert_eq!(loader.load().await.unwrap_err().code, "model_unknown");
    }
}
