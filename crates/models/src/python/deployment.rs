//! What a worker loads, and within which limits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidemill_core::spec::{Span, WorkerSpec};
use tidemill_core::tensors::TensorSpec;

/// What a worker loads. Paths are within the deployment's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PythonModel {
    /// A function or a class of the user's.
    Function {
        /// `module:function`, `module:Class` or `module:Class.method`.
        target: String,
    },
    /// A pickle of something with `predict`. Loading it runs what it says.
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
    /// A model that mlflow wrote.
    Mlflow {
        /// The folder with `MLmodel`.
        folder: String,
        /// The flavours of `MLmodel`.
        flavors: Value,
        /// The signature of `MLmodel`: `inputs`, `outputs` and `params` as lists.
        #[serde(default)]
        signature: Value,
    },
}

/// A deployment in Python.
#[derive(Debug, Clone)]
pub struct PythonDeployment {
    /// Its name, for logs and errors.
    pub name: String,
    /// The interpreter of its environment.
    pub python: PathBuf,
    /// The folder of its files, from which it imports.
    pub folder: PathBuf,
    /// What is loaded.
    pub model: PythonModel,
    /// What a worker may take.
    pub worker: WorkerSpec,
    /// How long a call may take where `worker` does not say.
    pub timeout: Span,
    /// Variables that it is given beside the usual few.
    pub environment: BTreeMap<String, String>,
    /// Modules that the fork server imports beforehand.
    pub preload: Vec<String>,
    /// A file in which is remembered what was learnt by loading it, so that the next time is quicker.
    pub memory: Option<PathBuf>,
}

impl PythonDeployment {
    pub(crate) fn threads(&self) -> u32 {
        self.worker.cpu.ceil().clamp(1.0, 1_024.0) as u32
    }

    pub(super) fn time_limit(&self) -> Duration {
        let limit = self.worker.time_limit.unwrap_or(self.timeout);
        Duration::from_micros(limit.as_micros().max(1) as u64)
    }

    pub(super) fn memory_limit(&self) -> u64 {
        u64::from(self.worker.memory_mib) << 20
    }

    pub(super) fn concurrency(&self) -> usize {
        self.worker.concurrency.max(1) as usize
    }

    pub(crate) fn config(&self) -> Value {
        let mut model = serde_json::to_value(&self.model).unwrap_or_default();
        for key in ["file", "folder"] {
            if let Some(path) = model[key].as_str() {
                model[key] = self.folder.join(path).to_string_lossy().into();
            }
        }
        json!({
            "name": self.name,
            "folder": self.folder,
            "model": model,
            "memory_mib": self.worker.memory_mib,
            "concurrency": self.worker.concurrency,
            "environment": self.environment,
        })
    }
}
