//! `model.json`: what a bundle says about itself.

use std::collections::HashSet;

use serde::{Deserialize, Deserializer, Serialize};
use tidemill_core::frame::{Feature, FeatureKind, FeatureSchema, Task};
use tidemill_core::ports::ModelBundle;
use tidemill_core::tensors::TensorSpec;

use crate::error::BundleError;

/// The manifest's name in every bundle.
pub(crate) const MANIFEST_FILE: &str = "model.json";

/// The manifest of a bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Which engine reads the file.
    pub format: String,
    /// The model file's name in the bundle.
    pub file: String,
    /// The question; the file may say it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// The classes, in the order of the model's outputs.
    #[serde(default, deserialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// The inputs, in the order in which the model reads them; if there are none, those that the file names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<ManifestFeature>,
    /// What runs an ONNX model: `onnxruntime`, or whatever is fastest if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Threads that one call of an ONNX model uses; 1 if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// What trained it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
    /// What a deployment of it takes and gives, where that is what the original in Python takes and gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<Serve>,
}

/// What a deployment takes and gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Serve {
    /// The form of its answers.
    pub answer: AnswerForm,
    /// Its inputs: a column for each feature, or one matrix.
    pub inputs: Vec<TensorSpec>,
    /// Its only output.
    pub output: TensorSpec,
    /// The label of each class, as texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// In which form a model answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AnswerForm {
    /// A number, or one a class; of two classes the probability of the second.
    #[default]
    Scores,
    /// The class, as scikit-learn's `predict`.
    Labels,
    /// A number a class, also of two, as `predict_proba`.
    Probabilities,
}

/// What runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    /// ONNX Runtime.
    OnnxRuntime,
}

/// One input of a model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ManifestFeature {
    /// The column.
    pub name: String,
    /// What it holds.
    pub kind: FeatureKind,
    /// The levels of a categorical input; a level's position is its code.
    #[serde(default, deserialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

#[derive(Deserialize)]
struct Header {
    format: String,
}

impl Manifest {
    /// Reads and checks the manifest of a bundle.
    pub fn read(bundle: &ModelBundle) -> Result<Self, BundleError> {
        let bytes = file(bundle, MANIFEST_FILE)?;
        // The format first: another format's manifest may look different in every other field.
        let header: Header = serde_json::from_slice(bytes).map_err(BundleError::Manifest)?;
        if !crate::SUPPORTED_FORMATS.contains(&header.format.as_str()) {
            return Err(BundleError::UnknownFormat(header.format));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(BundleError::Manifest)?;
        manifest.check().map_err(BundleError::Contradiction)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        for feature in &self.features {
            if !names.insert(feature.name.as_str()) {
                return Err(format!("feature `{}` is listed twice", feature.name));
            }
            if feature.kind == FeatureKind::Numeric && !feature.categories.is_empty() {
                return Err(format!(
                    "feature `{}` is numeric and has `categories`; make its kind `categorical` or drop them",
                    feature.name
                ));
            }
            if let Some(level) = first_duplicate(&feature.categories) {
                return Err(format!(
                    "feature `{}` lists category `{level}` twice",
                    feature.name
                ));
            }
        }
        match first_duplicate(&self.classes) {
            Some(class) => Err(format!("`classes` lists `{class}` twice")),
            None => Ok(()),
        }
    }

    /// The inputs: as listed, or else as the file has them.
    pub fn features_or(
        &self,
        read: impl FnOnce() -> Vec<ManifestFeature>,
    ) -> Result<Vec<ManifestFeature>, BundleError> {
        let features = if self.features.is_empty() {
            read()
        } else {
            self.features.clone()
        };
        if features.is_empty() {
            return Err(BundleError::Contradiction(
                "`features` is empty; list the model's inputs in the order in which it reads them".into(),
            ));
        }
        Ok(features)
    }
}

/// Inputs without their levels.
pub(crate) fn schema(features: &[ManifestFeature]) -> FeatureSchema {
    let features = features.iter().map(|feature| Feature {
        name: feature.name.clone(),
        kind: feature.kind,
    });
    FeatureSchema {
        features: features.collect(),
    }
}

/// A file of a bundle.
pub(crate) fn file<'a>(bundle: &'a ModelBundle, name: &str) -> Result<&'a [u8], BundleError> {
    bundle.get(name).map(Vec::as_slice).ok_or_else(|| {
        let names: Vec<String> = bundle.keys().map(|key| format!("`{key}`")).collect();
        BundleError::NoFile {
            name: name.to_owned(),
            present: if names.is_empty() {
                "nothing".into()
            } else {
                names.join(", ")
            },
        }
    })
}

fn first_duplicate(texts: &[String]) -> Option<&String> {
    let mut seen = HashSet::new();
    texts.iter().find(|text| !seen.insert(text.as_str()))
}

/// Levels and classes may be written as texts, numbers or booleans; here they are texts.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let values = Vec::<serde_json::Value>::deserialize(deserializer)?;
    values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) => Ok(text),
            serde_json::Value::Number(number) => Ok(number.to_string()),
            serde_json::Value::Bool(truth) => Ok(truth.to_string()),
            other => Err(serde::de::Error::custom(format!(
                "`{other}` is neither text, number nor boolean"
            ))),
        })
        .collect()
}
