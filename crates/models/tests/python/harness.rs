//! A folder with a function in it, and its deployment.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_core::clock::Stopwatch;
use tidemill_core::ports::PortError;
use tidemill_core::servable::{CallContext, Deadline, Loader, Payload, Servable};
use tidemill_core::spec::{Span, WorkerSpec};
use tidemill_core::tensors::{DataType, Tensor};
use tidemill_models::python::{PythonDeployment, PythonModel, PythonModels};

/// The Python with `tests/clients/requirements.txt` in it.
pub fn python() -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        if let Some(path) = std::env::var_os("TIDEMILL_PYTHON") {
            return path.into();
        }
        let me = std::env::current_exe().unwrap();
        let target = me.ancestors().nth(3).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let made = Command::new(root.join("scripts/test-venv.sh"))
            .env("CARGO_TARGET_DIR", target)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(made.status.success(), "scripts/test-venv.sh failed, see above");
        Path::new(String::from_utf8(made.stdout).unwrap().trim()).join("bin/python")
    };
    PYTHON.get_or_init(make).clone()
}

/// Files of a deployment, and where its fork servers come from.
pub struct Place {
    pub folder: TempDir,
    pub models: PythonModels,
    sources: TempDir,
}

impl Place {
    pub fn new(app: &str) -> Self {
        let (folder, sources) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("app.py"), app).unwrap();
        Self {
            folder,
            models: PythonModels::new(sources.path().to_owned()),
            sources,
        }
    }

    pub fn memory_file(&self) -> PathBuf {
        self.sources.path().join("learnt.json")
    }

    pub fn deployment(&self, target: &str) -> PythonDeployment {
        self.of(PythonModel::Function {
            target: target.to_owned(),
        })
    }

    pub fn of(&self, model: PythonModel) -> PythonDeployment {
        PythonDeployment {
            name: "test".to_owned(),
            python: python(),
            folder: self.folder.path().to_owned(),
            model,
            worker: WorkerSpec::default(),
            timeout: Span::from_micros(60_000_000),
            environment: [("COLOUR".to_owned(), "blue".to_owned())].into(),
            preload: Vec::new(),
            memory: None,
        }
    }

    pub async fn load(&self, target: &str) -> Arc<dyn Servable> {
        self.models.loader(self.deployment(target)).load().await.unwrap()
    }

    pub async fn load_with(&self, change: impl FnOnce(&mut PythonDeployment)) -> Arc<dyn Servable> {
        self.try_with(change).await.unwrap()
    }

    pub async fn try_with(
        &self,
        change: impl FnOnce(&mut PythonDeployment),
    ) -> Result<Arc<dyn Servable>, PortError> {
        let mut deployment = self.deployment("app:predict");
        change(&mut deployment);
        self.models.loader(deployment).load().await
    }

    pub fn loader(&self, target: &str) -> Arc<dyn Loader> {
        self.models.loader(self.deployment(target))
    }
}

pub fn body(value: &Value) -> Payload {
    Payload::Body {
        content_type: "application/json".to_owned(),
        bytes: value.to_string().into_bytes().into(),
    }
}

pub fn json_of(payload: Payload) -> Value {
    match payload {
        Payload::Body { bytes, .. } => serde_json::from_slice(&bytes).unwrap(),
        Payload::Tensors(tensors) => panic!("tensors: {tensors:?}"),
    }
}

/// Asks with JSON.
pub async fn ask(model: &Arc<dyn Servable>, value: Value) -> Result<Value, PortError> {
    let answer = model.call(body(&value), &CallContext::default()).await?;
    Ok(json_of(answer))
}

/// Asks with tensors.
pub async fn infer(model: &Arc<dyn Servable>, tensors: Vec<Tensor>) -> Result<Vec<Tensor>, PortError> {
    match model
        .call(Payload::Tensors(tensors), &CallContext::default())
        .await?
    {
        Payload::Tensors(tensors) => Ok(tensors),
        Payload::Body { bytes, .. } => panic!("a body: {bytes:?}"),
    }
}

pub fn within(milliseconds: u64) -> CallContext {
    CallContext {
        deadline: Some(Deadline::after(
            Stopwatch::start(),
            Duration::from_millis(milliseconds),
        )),
        ..CallContext::default()
    }
}

pub fn f64s(name: &str, values: &[f64]) -> Tensor {
    Tensor::of_f64(name, vec![values.len()], values).unwrap()
}

pub fn texts(name: &str, values: &[Option<&str>]) -> Tensor {
    let strings = values
        .iter()
        .map(|v| v.map(|v| v.as_bytes().to_vec().into()))
        .collect();
    Tensor::strings(name, vec![values.len()], strings).unwrap()
}

pub fn shown(tensor: &Tensor) -> Value {
    match &tensor.data {
        tidemill_core::tensors::TensorData::Strings(strings) => {
            let strings: Vec<_> = strings
                .iter()
                .map(|s| s.as_ref().map(|s| String::from_utf8_lossy(s).into_owned()))
                .collect();
            json!([tensor.datatype.name(), tensor.shape, strings])
        }
        tidemill_core::tensors::TensorData::Fixed(_) => {
            json!([tensor.datatype.name(), tensor.shape, tensor.to_f64().unwrap()])
        }
    }
}

pub fn named(datatype: DataType, name: &str, shape: Vec<i64>) -> tidemill_core::tensors::TensorSpec {
    tidemill_core::tensors::TensorSpec::new(name, datatype, shape)
}
