//! From a model that Python loads to one that the tree engine runs: converted by a process of its own, and taken only if it answers
//! samples as the original does.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tidemill_core::clock::real_sleep;
use tidemill_core::frame::Scores;
use tidemill_core::ports::PortError;
use tidemill_core::servable::Servable as _;
use tidemill_core::tensors::{DataType, Tensor, TensorData};

use crate::manifest::MANIFEST_FILE;
use crate::native::Tabular;
use crate::python::{PythonDeployment, clean_environment};

/// The original's answers, to compare with.
const SAMPLES_FILE: &str = "samples.json";
/// Why nothing was converted.
const REFUSED_FILE: &str = "refused.txt";
/// A conversion that takes longer is given up.
const TIME_LIMIT: Duration = Duration::from_mins(10);

/// What became of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conversion {
    /// The folder has a manifest and the model's file, and so many samples were answered alike.
    Native {
        /// How many rows.
        samples: usize,
    },
    /// It stays in Python.
    Refused(String),
}

#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    refused: Option<String>,
}

#[derive(Deserialize)]
struct Samples {
    rows: Vec<Vec<Value>>,
    answers: Vec<Value>,
    scores: Vec<Vec<f64>>,
}

/// Converts what a deployment in Python would load into `folder`, once: what was found out stays there. `sources` has the worker's files.
///
/// # Errors
/// If Python cannot be started, or the folder not written.
pub(crate) async fn convert(
    deployment: &PythonDeployment,
    sources: &Path,
    folder: &Path,
) -> Result<Conversion, PortError> {
    if let Some(known) = outcome(folder) {
        return Ok(known);
    }
    let failed = |error: std::io::Error| {
        PortError::upstream(
            "bundle_io",
            format!("cannot write `{}`: {error}", folder.display()),
        )
    };
    let work = Scratch::beside(folder);
    std::fs::create_dir_all(&work.0).map_err(failed)?;
    let refused = match run(deployment, sources, &work.0).await? {
        Some(why) => Some(why),
        None => verified(&work.0).await.err(),
    };
    if let Some(why) = &refused {
        tracing::info!(name = %deployment.name, %why, "the model stays in Python");
        std::fs::write(work.0.join(REFUSED_FILE), why).map_err(failed)?;
        let _ = std::fs::remove_file(work.0.join(MANIFEST_FILE));
    }
    // What was found out appears whole; whoever came first has found out the same.
    let _ = std::fs::remove_dir_all(folder);
    std::fs::rename(&work.0, folder).map_err(failed)?;
    Ok(outcome(folder).unwrap_or_else(|| Conversion::Refused("it was taken away meanwhile".to_owned())))
}

/// A folder of one conversion, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(folder: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(folder.with_extension(format!("{}-{number}.converting", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a folder says of an earlier conversion.
fn outcome(folder: &Path) -> Option<Conversion> {
    if let Ok(why) = std::fs::read_to_string(folder.join(REFUSED_FILE)) {
        return Some(Conversion::Refused(why));
    }
    is_native(folder).then(|| Conversion::Native {
        samples: read_samples(folder).map_or(0, |samples| samples.rows.len()),
    })
}

/// Whether a folder has a model that was converted and verified.
pub(crate) fn is_native(folder: &Path) -> bool {
    folder.join(MANIFEST_FILE).is_file()
}

/// Runs the converter; `Some` is why it refused.
async fn run(deployment: &PythonDeployment, sources: &Path, out: &Path) -> Result<Option<String>, PortError> {
    let config: PathBuf = out.join("config.json");
    std::fs::write(&config, deployment.config().to_string()).map_err(|error| {
        PortError::upstream(
            "bundle_io",
            format!("cannot write `{}`: {error}", config.display()),
        )
    })?;
    let mut command = tokio::process::Command::new(&deployment.python);
    clean_environment(&mut command, deployment.threads());
    command
        .arg("-m")
        .arg("tidemill_worker.convert_model")
        .arg(&config)
        .arg(out)
        .env("PYTHONPATH", sources)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::select! {
        output = command.output() => output.map_err(|error| PortError::upstream(
            "python_missing",
            format!(
                "cannot start Python as `{}`: {error}; install Python 3.10 or newer, or name one with `TIDEMILL_PYTHON`",
                deployment.python.display()
            ),
        ))?,
        () = real_sleep(TIME_LIMIT) => return Ok(Some(format!("it took longer than {} s", TIME_LIMIT.as_secs()))),
    };
    // What it was given may name secrets of its environment.
    let _ = std::fs::remove_file(&config);
    match serde_json::from_slice::<Outcome>(&output.stdout) {
        Ok(outcome) if output.status.success() => Ok(outcome.refused),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            tracing::debug!(name = %deployment.name, %said, "the converter failed");
            let last = said
                .trim_end()
                .lines()
                .last()
                .unwrap_or("it said nothing")
                .to_owned();
            Ok(Some(format!("its conversion failed: {last}")))
        }
    }
}

fn read_samples(folder: &Path) -> Result<Samples, String> {
    let bytes = std::fs::read(folder.join(SAMPLES_FILE)).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| format!("`{SAMPLES_FILE}` cannot be read: {error}"))
}

/// Answers the samples with the converted model: labels have to be equal, numbers within 1e-9 (XGBoost's single-precision ones within 1e-6).
async fn verified(folder: &Path) -> Result<(), String> {
    let folder = folder.to_owned();
    let loading = move || {
        let model = Tabular::load(&folder, MANIFEST_FILE).map_err(|error| error.message)?;
        Ok::<_, String>((model, read_samples(&folder)?))
    };
    let loaded = tokio::task::spawn_blocking(loading).await;
    let (model, samples) = loaded.map_err(|error| error.to_string())??;
    let tolerance = if model.interface().platform == "xgboost" {
        1e-6
    } else {
        1e-9
    };
    let tensors = tensors_of(&model, &samples.rows)?;
    let said = |error: PortError| format!("the converted model does not answer: {}", error.message);
    let frame = model.frame(&tensors).map_err(said)?;
    let scores = model.model.predict(&frame).map_err(said)?;
    for (row, expected) in samples.scores.iter().enumerate() {
        let got = scores.row(row);
        // Of two classes the engine gives the second.
        let expected = match (&scores, expected.as_slice()) {
            (Scores::Binary(_), [_, second]) => std::slice::from_ref(second),
            (_, expected) => expected,
        };
        let alike = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * b.abs().max(1.0);
        if got.len() != expected.len() || !got.iter().zip(expected).all(alike) {
            return Err(format!(
                "sample row {row} is answered {got:?} by the converted model and {expected:?} by the original"
            ));
        }
    }
    let answer = model.written(&scores).map_err(|error| error.to_string())?;
    for (row, expected) in samples.answers.iter().enumerate() {
        if !same(&answer, row, expected, tolerance) {
            return Err(format!(
                "sample row {row} is answered differently from the original's {expected}"
            ));
        }
    }
    if samples.rows.is_empty() || samples.answers.len() != samples.rows.len() {
        return Err("there are no samples to compare with".to_owned());
    }
    Ok(())
}

/// Whether a row of an answer is the original's.
fn same(answer: &Tensor, row: usize, expected: &Value, tolerance: f64) -> bool {
    match (&answer.data, expected) {
        (TensorData::Strings(texts), Value::String(text)) => {
            texts.get(row).and_then(Option::as_deref) == Some(text.as_bytes())
        }
        (TensorData::Fixed(_), expected) => {
            let Ok(own) = answer.slice_rows(row, row + 1) else {
                return false;
            };
            let expected: Vec<&Value> = match expected {
                Value::Array(several) => several.iter().collect(),
                one => vec![one],
            };
            let number = |value: &Value| {
                value
                    .as_f64()
                    .or(value.as_bool().map(|value| f64::from(u8::from(value))))
            };
            let own = own.to_f64().unwrap_or_default();
            own.len() == expected.len()
                && own.iter().zip(expected).all(|(own, expected)| {
                    number(expected)
                        .is_some_and(|expected| (own - expected).abs() <= tolerance * expected.abs().max(1.0))
                })
        }
        (TensorData::Strings(_), _) => false,
    }
}

/// Rows as the tensors that the model takes.
fn tensors_of(model: &Tabular, rows: &[Vec<Value>]) -> Result<Vec<Tensor>, String> {
    let number = |value: &Value| match value {
        Value::Bool(value) => f64::from(u8::from(*value)),
        value => value.as_f64().unwrap_or(f64::NAN),
    };
    let inputs = &model.interface().inputs;
    let tensors = inputs.iter().enumerate().map(|(place, spec)| {
        if spec.shape.len() == 2 {
            let numbers: Vec<f64> = rows.iter().flatten().map(number).collect();
            let width = rows.first().map_or(0, Vec::len);
            return Tensor::of_numbers(&spec.name, spec.datatype, vec![rows.len(), width], &numbers);
        }
        let column = rows.iter().filter_map(|row| row.get(place));
        if spec.datatype == DataType::Bytes {
            let text = |value: &Value| value.as_str().map(|text| Bytes::copy_from_slice(text.as_bytes()));
            return Tensor::strings(&spec.name, vec![rows.len()], column.map(text).collect());
        }
        let numbers: Vec<f64> = column.map(number).collect();
        Tensor::of_numbers(&spec.name, spec.datatype, vec![rows.len()], &numbers)
    });
    tensors
        .collect::<Result<_, _>>()
        .map_err(|error| format!("a sample does not fit: {error}"))
}
