//! Model files that need no Python, as deployments: a table of features in, the model's answers out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use tidemill_core::frame::{Column, FeatureKind, Frame, Scores, Task};
use tidemill_core::ports::{Contributions, Model, ModelBundle, ModelRuntime as _, ModelSignature, PortError};
use tidemill_core::servable::{CallContext, Interface, Loader, Payload, Servable, Work};
use tidemill_core::tensors::{DataType, Tensor, TensorData, TensorSpec};

use crate::bundle::has_extension;
use crate::manifest::MANIFEST_FILE;
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
}

#[async_trait]
impl Loader for NativeLoader {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        let (folder, file) = (self.folder.clone(), self.file.clone());
        let work = move || -> Result<Arc<dyn Servable>, PortError> {
            let path = folder.join(&file);
            let beside = path.parent().unwrap_or(&folder);
            if has_extension(&file, "onnx") {
                return Ok(Arc::new(OnnxModel::load_from(beside, name_of(&file))?));
            }
            let bytes = read(beside, name_of(&file))?;
            let (format, bundle) = match manifest_of(&bytes) {
                Some((format, named)) => {
                    let model = read(beside, &named)?;
                    let files = [(named, model), (MANIFEST_FILE.to_owned(), bytes)];
                    (format, ModelBundle::from(files))
                }
                None => {
                    let format = format_of(&file, &bytes)?;
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
            Ok(Arc::new(Tabular {
                interface: interface(model.signature(), &format),
                model,
                size,
            }))
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
fn manifest_of(bytes: &[u8]) -> Option<(String, String)> {
    let head = bytes.get(..bytes.len().min(256))?;
    if !String::from_utf8_lossy(head).contains("\"format\"") {
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

/// A model of tables that is asked by tensors, one for each column.
#[derive(Debug)]
struct Tabular {
    model: Arc<dyn Model>,
    interface: Interface,
    size: u64,
}

impl Tabular {
    fn frame(&self, tensors: &[Tensor]) -> Result<Frame, PortError> {
        let features = &self.model.signature().features;
        let columns = features.features.iter().map(|feature| {
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
        });
        let columns = columns.collect::<Result<Vec<Column>, PortError>>()?;
        Frame::new(Arc::clone(features), columns).map_err(|error| bad(error.to_string()))
    }
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
        if let Some(unknown) = context.outputs.iter().find(|name| *name != OUTPUT) {
            return Err(PortError::caller(
                "unknown_output",
                format!("the model has no output `{unknown}`; it has `{OUTPUT}`"),
            ));
        }
        let scores = self.model.predict(&self.frame(&tensors)?)?;
        let mut shape = vec![scores.rows()];
        if let Scores::Multiclass { classes, .. } = &scores {
            shape.push(classes.len());
        }
        let answer = Tensor::of_f64(OUTPUT, shape, scores.values());
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
    async fn a_file_of_lightgbm_is_asked_by_columns_under_the_names_that_it_has() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("m.txt"), STUMP).unwrap();
        let loader = NativeLoader {
            folder: dir.path().to_owned(),
            file: "m.txt".to_owned(),
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
