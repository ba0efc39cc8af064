//! Deployments: from a bundle on the disk to a loader, whatever is in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tidemill_core::deployments::{
    BundleManifest, BundledModel, BundledPython, Deploying, DeploymentEngine, FILES_FOLDER,
};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{Interface, Loader, Servable};
use tidemill_core::spec::Device;

use crate::bundle::{self, Include, mlmodel};
use crate::convert::{Conversion, convert, is_native};
use crate::manifest::MANIFEST_FILE;
use crate::native::NativeLoader;
use crate::python::{Environments, PythonDeployment, PythonModel, PythonModels, clean_environment};

/// Where what was converted of a bundle lies.
const CONVERTED_FOLDER: &str = "converted";

/// Packs, unpacks and loads bundles.
#[derive(Debug)]
pub struct Deployer {
    python: PythonModels,
    environments: Environments,
    interpreter: PathBuf,
}

impl Deployer {
    /// Below `data`, environments and the sources of workers are kept. `interpreter` runs what names none.
    pub fn new(data: &Path, interpreter: PathBuf) -> Self {
        // Processes of ours work elsewhere.
        let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
        Self {
            python: PythonModels::new(data.join("python")),
            environments: Environments::new(data.join("environments")),
            interpreter,
        }
    }

    fn base<'a>(&'a self, manifest: &'a BundleManifest) -> &'a Path {
        let named = manifest
            .python
            .as_ref()
            .and_then(|python| python.interpreter.as_deref());
        named.unwrap_or(&self.interpreter)
    }

    fn interpreter_of(&self, manifest: &BundleManifest, files: &Path) -> Result<PathBuf, PortError> {
        let lock = manifest.python.as_ref().and_then(|python| python.lock.as_deref());
        match lock {
            Some(lock) => self.environments.find(self.base(manifest), files, safe(lock)?),
            None => Ok(self.base(manifest).to_owned()),
        }
    }

    async fn inspect(&self, python: &Path, files: &Path, target: &str) -> Result<Value, PortError> {
        let script = self.python.sources()?.join("tidemill_worker/inspect_source.py");
        let mut command = tokio::process::Command::new(python);
        clean_environment(&mut command, 1);
        let output = command
            .arg(script)
            .arg(files)
            .arg(target)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| {
                PortError::upstream(
                    "python_missing",
                    format!(
                        "cannot start Python as `{}`: {error}; install Python 3.10 or newer, or name one with `TIDEMILL_PYTHON`",
                        python.display()
                    ),
                )
            })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let last = said.trim_end().lines().last().unwrap_or_default().to_owned();
            return Err(PortError::caller(
                "worker_start",
                format!("`{target}` cannot be read: {last}"),
            ));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| {
            PortError::internal("worker_start", format!("`{target}` cannot be read: {error}"))
        })
    }

    fn python_model(manifest: &BundleManifest, files: &Path) -> Result<PythonModel, PortError> {
        Ok(match &manifest.model {
            BundledModel::Function { target } => PythonModel::Function {
                target: target.clone(),
            },
            BundledModel::Estimator {
                file,
                method,
                inputs,
                outputs,
            } => PythonModel::Estimator {
                file: safe(file)?.to_owned(),
                method: method.clone(),
                inputs: inputs.clone(),
                outputs: outputs.clone(),
            },
            BundledModel::Mlflow { folder } => {
                let (flavors, signature) = mlmodel(&files.join(safe(folder)?).join("MLmodel"))?;
                PythonModel::Mlflow {
                    folder: folder.clone(),
                    flavors,
                    signature,
                }
            }
            BundledModel::Native { file } | BundledModel::Graph { file } => {
                return Err(PortError::internal(
                    "model_unknown",
                    format!("`{file}` needs no Python"),
                ));
            }
        })
    }
}

/// A path of a manifest, if it stays in the bundle.
fn safe(path: &str) -> Result<&str, PortError> {
    let stays = Path::new(path).components().all(|part| {
        matches!(
            part,
            std::path::Component::Normal(_) | std::path::Component::CurDir
        )
    });
    if stays {
        return Ok(path);
    }
    Err(PortError::caller(
        "bundle_broken",
        format!("`{path}` leads out of the bundle"),
    ))
}

/// What `@tidemill.endpoint` says, in the words of a `ServingSpec`.
fn serving_of(settings: &Value) -> Result<Map<String, Value>, PortError> {
    let wrong = |name: &str, expected: &str| {
        PortError::caller(
            "bundle_broken",
            format!(
                "`@tidemill.endpoint` says `{name}={}`; expected {expected}",
                settings[name]
            ),
        )
    };
    let mut worker = Map::new();
    let mut serving = Map::new();
    for name in ["cpu", "concurrency"] {
        match &settings[name] {
            Value::Null => {}
            Value::Number(number) => drop(worker.insert(name.to_owned(), number.clone().into())),
            _ => return Err(wrong(name, "a number")),
        }
    }
    match &settings["memory"] {
        Value::Null => {}
        Value::Number(number) => drop(worker.insert("memory_mib".to_owned(), number.clone().into())),
        text => {
            let mib = text.as_str().and_then(mebibytes);
            let mib = mib.ok_or_else(|| {
                wrong(
                    "memory",
                    "MiB as a number, or a text such as \"512MiB\" or \"2GiB\"",
                )
            })?;
            worker.insert("memory_mib".to_owned(), mib.into());
        }
    }
    match &settings["timeout"] {
        Value::Null => {}
        Value::String(text) => drop(serving.insert("timeout".to_owned(), text.clone().into())),
        Value::Number(seconds) => {
            let millis = (seconds.as_f64().unwrap_or(0.0) * 1_000.0).round() as i64;
            serving.insert("timeout".to_owned(), format!("{millis}ms").into());
        }
        _ => return Err(wrong("timeout", "seconds, or a text such as \"30s\"")),
    }
    if let Some(rows) = settings["batch"].as_u64() {
        serving.insert("batching".to_owned(), json!({ "max_rows": rows }));
    }
    if !worker.is_empty() {
        serving.insert("worker".to_owned(), worker.into());
    }
    Ok(serving)
}

/// MiB, from `512MiB`, `2GiB`, `512M`, `2G`.
pub fn mebibytes(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u32 = text[..digits].parse().ok()?;
    match text[digits..].trim().to_ascii_lowercase().as_str() {
        "m" | "mb" | "mib" => Some(number),
        "g" | "gb" | "gib" => number.checked_mul(1_024),
        _ => None,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(PortError::internal("bundle_io", error.to_string())))
}

#[async_trait]
impl DeploymentEngine for Deployer {
    async fn pack(&self, folder: &Path, manifest: &BundleManifest, archive: &Path) -> Result<(), PortError> {
        let (folder, manifest, archive) = (folder.to_owned(), manifest.clone(), archive.to_owned());
        blocking(move || {
            let everything = Include {
                path: folder.clone(),
                extension: None,
                named: false,
            };
            let files: BTreeMap<String, PathBuf> = bundle::collect(&folder, &[everything])?.files;
            bundle::pack(&manifest, &files, &archive)
        })
        .await
    }

    async fn unpack(&self, archive: &Path, folder: &Path) -> Result<BundleManifest, PortError> {
        let (archive, folder) = (archive.to_owned(), folder.to_owned());
        blocking(move || bundle::unpack(&archive, &folder)).await
    }

    fn recognise(&self, folder: &Path) -> Result<(BundledModel, Option<BundledPython>), PortError> {
        let found = bundle::recognise(folder)?;
        Ok((found.model, found.python.then(BundledPython::default)))
    }

    async fn declared(
        &self,
        manifest: &BundleManifest,
        folder: &Path,
    ) -> Result<Map<String, Value>, PortError> {
        let BundledModel::Function { target } = &manifest.model else {
            return Ok(Map::new());
        };
        let files = folder.join(FILES_FOLDER);
        let inspected = self.inspect(self.base(manifest), &files, target).await?;
        serving_of(&inspected["settings"])
    }

    async fn prepare(&self, deploying: &Deploying) -> Result<(), PortError> {
        let manifest = &deploying.manifest;
        if let Some(lock) = manifest.python.as_ref().and_then(|python| python.lock.as_deref()) {
            let files = deploying.folder.join(FILES_FOLDER);
            self.environments
                .ensure(self.base(manifest), &files, safe(lock)?)
                .await?;
        }
        let python = !matches!(manifest.model, BundledModel::Native { .. });
        if deploying.serving.convert && python {
            self.convert(deploying, &deploying.folder.join(CONVERTED_FOLDER))
                .await?;
        }
        Ok(())
    }

    fn loader(&self, deploying: &Deploying) -> Result<Arc<dyn Loader>, PortError> {
        let manifest = &deploying.manifest;
        let files = deploying.folder.join(FILES_FOLDER);
        if let BundledModel::Native { file } = &manifest.model {
            return Ok(Arc::new(NativeLoader {
                file: safe(file)?.to_owned(),
                folder: files,
                device: deploying.serving.device,
            }));
        }
        let deployment = self.python_deployment(deploying)?;
        let python = self.python.warm_loader(deployment);
        if deploying.serving.convert {
            let folder = deploying.folder.join(CONVERTED_FOLDER);
            return Ok(Arc::new(MaybeNative { folder, python }));
        }
        Ok(python)
    }
}

impl Deployer {
    fn python_deployment(&self, deploying: &Deploying) -> Result<PythonDeployment, PortError> {
        let manifest = &deploying.manifest;
        let files = deploying.folder.join(FILES_FOLDER);
        let python = manifest.python.clone().unwrap_or_default();
        Ok(PythonDeployment {
            name: deploying.name.clone(),
            python: self.interpreter_of(manifest, &files)?,
            model: Self::python_model(manifest, &files)?,
            folder: files,
            worker: deploying.serving.worker.clone(),
            timeout: deploying.serving.timeout,
            environment: with_device(python.environment, deploying.serving.device),
            preload: python.preload,
            memory: Some(
                deploying
                    .folder
                    .with_extension(format!("{}.json", deploying.name)),
            ),
        })
    }

    /// Makes a native model of a pickle or of an MLflow model, in `folder`.
    ///
    /// # Errors
    /// If it is nothing that Python loads, Python cannot be started, or the folder not written.
    pub async fn convert(&self, deploying: &Deploying, folder: &Path) -> Result<Conversion, PortError> {
        if matches!(deploying.manifest.model, BundledModel::Function { .. }) {
            return Ok(Conversion::Refused("it is a function".to_owned()));
        }
        convert(
            &self.python_deployment(deploying)?,
            &self.python.sources()?,
            folder,
        )
        .await
    }
}

/// Shows a worker the GPUs that it may use, unless its deployment says that itself.
fn with_device(mut environment: BTreeMap<String, String>, device: Device) -> BTreeMap<String, String> {
    const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
    let visible = match device {
        Device::Cpu => Some(String::new()),
        Device::Cuda(number) => Some(number.to_string()),
        // Those that this process sees.
        Device::Auto => std::env::var(VISIBLE).ok(),
    };
    if let Some(visible) = visible {
        environment.entry(VISIBLE.to_owned()).or_insert(visible);
    }
    environment
}

/// What was converted, where something was; else what Python loads.
#[derive(Debug)]
struct MaybeNative {
    folder: PathBuf,
    python: Arc<dyn Loader>,
}

#[async_trait]
impl Loader for MaybeNative {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        if !is_native(&self.folder) {
            return self.python.load().await;
        }
        let native = NativeLoader {
            folder: self.folder.clone(),
            file: MANIFEST_FILE.to_owned(),
            // Trees, which know the processor alone.
            device: Device::Cpu,
        };
        native.load().await
    }

    fn interface(&self) -> Option<Interface> {
        self.python.interface().filter(|_| !is_native(&self.folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_decorator_says_is_put_into_the_words_of_the_settings() {
        let said = json!({ "cpu": 2, "memory": "1GiB", "concurrency": 4, "batch": 32, "timeout": 1.5 });
        let serving = serving_of(&said).unwrap();
        let spec: tidemill_core::spec::ServingSpec = serde_json::from_value(Value::Object(serving)).unwrap();
        assert_eq!(
            (spec.worker.cpu, spec.worker.memory_mib, spec.worker.concurrency),
            (2.0, 1_024, 4)
        );
        assert_eq!(
            (spec.batching.unwrap().max_rows, spec.timeout.as_micros()),
            (32, 1_500_000)
        );
        assert!(serving_of(&json!({ "batch": true })).unwrap().is_empty());
        let error = serving_of(&json!({ "memory": "much" })).unwrap_err();
        assert!(error.message.contains("says `memory=\"much\"`"), "{error}");
    }

    #[test]
    fn paths_of_a_manifest_stay_in_its_bundle() {
        assert!(safe("model/m.pkl").is_ok() && safe("").is_ok());
        for path in ["../m.pkl", "/etc/passwd", "a/../../b"] {
            assert_eq!(safe(path).unwrap_err().code, "bundle_broken");
        }
    }
}
