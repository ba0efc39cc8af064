//! What is deployed: a bundle's description of itself, and the port of whoever packs, unpacks and loads it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ports::PortError;
use crate::servable::Loader;
use crate::spec::ServingSpec;
use crate::tensors::TensorSpec;

/// The file in a bundle that describes it.
pub const MANIFEST_FILE: &str = "tidemill.json";

/// The folder in a bundle under which everything else lies.
pub const FILES_FOLDER: &str = "files";

/// The form of bundles that this program writes, and the newest that it reads.
pub const BUNDLE_FORMAT: u32 = 1;

/// A bundle has at most so many files,
pub const MAX_BUNDLE_FILES: usize = 20_000;
/// and so many bytes in them.
pub const MAX_BUNDLE_BYTES: u64 = 4 << 30;

/// What a bundle says of itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleManifest {
    /// [`BUNDLE_FORMAT`] of whoever wrote it.
    pub format: u32,
    /// The deployment's name where none is given.
    pub name: String,
    /// What answers.
    pub model: BundledModel,
    /// What Python it needs; nothing if it needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<BundledPython>,
    /// Parts of a [`ServingSpec`] that go before its defaults.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub serving: Map<String, Value>,
}

/// What answers. Paths are below [`FILES_FOLDER`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum BundledModel {
    /// A function or class in Python.
    Function {
        /// `module:function`, `module:Class` or `module:Class.method`.
        target: String,
    },
    /// A pickle of something with `predict`.
    Estimator {
        /// The file.
        file: String,
        /// The method that answers; `predict` if none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<String>,
        /// Its inputs, where it does not know them itself.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        inputs: Vec<TensorSpec>,
        /// Its outputs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        outputs: Vec<TensorSpec>,
    },
    /// A folder with `MLmodel`.
    Mlflow {
        /// The folder; empty if it is the bundle's own.
        folder: String,
    },
    /// A model file in a format that needs no Python.
    Native {
        /// The file.
        file: String,
    },
    /// A graph of other deployments.
    Graph {
        /// The file: a graph of `tidemill.yaml` in JSON.
        file: String,
    },
}

/// The Python that a bundle needs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundledPython {
    /// An interpreter on the machine that serves, as it is: no environment is made. Default: the server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<PathBuf>,
    /// A file in the bundle from which an environment is made: `requirements.txt`, `uv.lock`, `pylock.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Modules to import beforehand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preload: Vec<String>,
    /// Variables that workers are given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
}

impl BundleManifest {
    /// What stands in `tidemill.json`.
    ///
    /// # Errors
    /// If it is none, or one of a later program.
    pub fn parse(text: &[u8]) -> Result<Self, PortError> {
        let broken = |message: String| PortError::caller("bundle_broken", message);
        let value: Value = serde_json::from_slice(text)
            .map_err(|error| broken(format!("`{MANIFEST_FILE}` is not JSON: {error}")))?;
        let format = value["format"].as_u64().unwrap_or(0);
        if format > u64::from(BUNDLE_FORMAT) {
            return Err(broken(format!(
                "the bundle has format {format}, this program reads up to {BUNDLE_FORMAT}; update it"
            )));
        }
        serde_json::from_value(value).map_err(|error| broken(format!("`{MANIFEST_FILE}`: {error}")))
    }
}

/// Settings over settings: objects are merged, everything else is replaced.
pub fn merge_settings(under: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        match (under.get_mut(key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => merge_settings(below, above),
            _ => {
                under.insert(key.clone(), value.clone());
            }
        }
    }
}

/// A bundle that is to be loaded.
#[derive(Clone, Debug)]
pub struct Deploying {
    /// The deployment's name.
    pub name: String,
    /// What the bundle says of itself.
    pub manifest: BundleManifest,
    /// The folder into which it was unpacked.
    pub folder: PathBuf,
    /// How it is served.
    pub serving: ServingSpec,
}

/// Packs, unpacks and loads bundles.
#[async_trait]
pub trait DeploymentEngine: Send + Sync + fmt::Debug {
    /// Packs the files below `folder` into `archive`.
    ///
    /// # Errors
    /// If they cannot be read, or are too many or too large.
    async fn pack(&self, folder: &Path, manifest: &BundleManifest, archive: &Path) -> Result<(), PortError>;

    /// Unpacks a bundle into a folder that is not there yet, and reads what it says of itself.
    ///
    /// # Errors
    /// If it is broken or hostile, or there is no room.
    async fn unpack(&self, archive: &Path, folder: &Path) -> Result<BundleManifest, PortError>;

    /// What the unpacked files are a model of, where nobody has said it: for files from the registry.
    ///
    /// # Errors
    /// If they are no model that is known.
    fn recognise(&self, folder: &Path) -> Result<(BundledModel, Option<BundledPython>), PortError>;

    /// Parts of a [`ServingSpec`] that its code declares, read without running it.
    ///
    /// # Errors
    /// If the code cannot be read, or what it declares makes no sense.
    async fn declared(
        &self,
        manifest: &BundleManifest,
        folder: &Path,
    ) -> Result<Map<String, Value>, PortError>;

    /// Makes what it needs to be loaded: its environment.
    ///
    /// # Errors
    /// If that cannot be made.
    async fn prepare(&self, deploying: &Deploying) -> Result<(), PortError>;

    /// A loader; nothing is loaded.
    ///
    /// # Errors
    /// If it can be seen already that it will not load.
    fn loader(&self, deploying: &Deploying) -> Result<Arc<dyn Loader>, PortError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_merged_deeply_and_the_upper_ones_win() {
        let object = |value: Value| value.as_object().cloned().unwrap();
        let mut under = object(json!({ "worker": { "cpu": 1, "memory_mib": 5 }, "timeout": "1s" }));
        merge_settings(
            &mut under,
            &object(json!({ "worker": { "cpu": 2 }, "timeout": "2s" })),
        );
        assert_eq!(
            Value::Object(under),
            json!({ "worker": { "cpu": 2, "memory_mib": 5 }, "timeout": "2s" })
        );
    }

    #[test]
    fn a_manifest_of_a_later_program_is_refused_by_its_number() {
        let error = BundleManifest::parse(br#"{"format": 2, "anything": 1}"#).unwrap_err();
        assert_eq!(
            error.message,
            "the bundle has format 2, this program reads up to 1; update it"
        );
        let manifest = BundleManifest {
            format: BUNDLE_FORMAT,
            name: "a".to_owned(),
            model: BundledModel::Function {
                target: "app:predict".to_owned(),
            },
            python: Some(BundledPython::default()),
            serving: Map::new(),
        };
        let text = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(BundleManifest::parse(&text).unwrap(), manifest);
        assert!(BundleManifest::parse(br#"{"format": 1}"#).is_err());
    }
}
