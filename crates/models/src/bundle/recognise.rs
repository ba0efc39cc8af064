//! What some files are a model of, by looking at them. Nothing is loaded, and no pickle is opened.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};
use tidemill_core::deployments::BundledModel;
use tidemill_core::ports::PortError;

use super::has_extension;
use crate::manifest::MANIFEST_FILE;
use crate::native::{Tabular, manifest_of};

/// A larger file is a model itself.
const MOST_OF_A_MANIFEST: u64 = 16 << 20;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Recognised {
    /// What answers.
    pub model: BundledModel,
    /// Whether it takes Python to load it.
    pub python: bool,
}

/// What `path` is a model of: a file, or a folder with `MLmodel` or with one model file. Paths in the answer start at the folder.
///
/// # Errors
/// If it is none that is known.
pub fn recognise(path: &Path) -> Result<Recognised, PortError> {
    let unknown = |what: &str| {
        PortError::caller(
            "model_unknown",
            format!(
                "`{}` {what}; known are LightGBM's text, XGBoost's JSON and UBJ, ONNX, pickles and joblib files, and folders with \
                 `MLmodel`",
                path.display()
            ),
        )
    };
    if path.is_dir() {
        if path.join("MLmodel").is_file() {
            let (flavors, signature) = mlmodel(&path.join("MLmodel"))?;
            if let Some(file) = native_flavor(path, &flavors, &signature) {
                return Ok(Recognised {
                    model: BundledModel::Native { file },
                    python: false,
                });
            }
            return Ok(Recognised {
                model: BundledModel::Mlflow {
                    folder: String::new(),
                },
                python: true,
            });
        }
        // A manifest and the file that it names are one model.
        if file_named_by(&path.join(MANIFEST_FILE)).is_some_and(|named| path.join(named).is_file()) {
            return Ok(Recognised {
                model: BundledModel::Native {
                    file: MANIFEST_FILE.to_owned(),
                },
                python: false,
            });
        }
        let entries =
            std::fs::read_dir(path).map_err(|error| unknown(&format!("cannot be listed: {error}")))?;
        let mut found = entries
            .flatten()
            .filter(|entry| entry.path().is_file())
            .filter_map(|entry| recognise(&entry.path()).ok());
        return match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(unknown("has no model in it")),
            (Some(_), Some(_)) => Err(unknown("has several models in it: name one")),
        };
    }
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let start = beginning(path).map_err(|error| unknown(&format!("cannot be read: {error}")))?;
    let start = start.as_slice();
    let text = String::from_utf8_lossy(start);
    let native = has_extension(&name, "onnx")
        // XGBoost's own ending, and mlflow's for it: JSON, UBJ or an old binary form, of which the engine says what it can read.
        || has_extension(&name, "xgb")
        || has_extension(&name, "ubj")
        || text.starts_with("tree\n") && text.contains("version=")
        || has_extension(&name, "json") && (text.contains("\"learner\"") || text.contains("\"format\""))
        || file_named_by(path).is_some();
    if native {
        return Ok(Recognised {
            model: BundledModel::Native { file: name },
            python: false,
        });
    }
    let pickled = ["pkl", "pickle", "joblib", "cloudpickle"]
        .iter()
        .any(|end| has_extension(&name, end));
    // A pickle of protocol 2 or later begins with its number.
    if pickled
        || start.first() == Some(&0x80) && start.get(1).is_some_and(|protocol| (2..=5).contains(protocol))
    {
        return Ok(Recognised {
            model: BundledModel::Estimator {
                file: name,
                method: None,
                inputs: Vec::new(),
                outputs: Vec::new(),
            },
            python: true,
        });
    }
    Err(unknown("is no model that is known here"))
}

/// The model's file beside, where `path` is a `model.json` that names one.
pub fn file_named_by(path: &Path) -> Option<String> {
    if !has_extension(&path.to_string_lossy(), "json")
        || std::fs::metadata(path).ok()?.len() > MOST_OF_A_MANIFEST
    {
        return None;
    }
    let (_, file) = manifest_of(&std::fs::read(path).ok()?)?;
    Some(file)
}

/// The first bytes of a file.
fn beginning(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(256).read_to_end(&mut start)?;
    Ok(start)
}

/// The file of a flavour that needs no Python and whose answers are then the same as those of `mlflow.pyfunc`: a graph of ONNX, a booster of
/// LightGBM's or XGBoost's own that its engine takes. Their classes with scikit-learn's ways answer with labels, and what was pickled needs Python.
fn native_flavor(folder: &Path, flavors: &Value, signature: &Value) -> Option<String> {
    let boolean = |column: &Value| column["type"] == "boolean";
    let truths = signature["inputs"]
        .as_array()
        .is_some_and(|inputs| inputs.iter().any(boolean));
    for name in ["lightgbm", "xgboost", "onnx"] {
        let flavor = &flavors[name];
        let class = flavor["model_class"].as_str().unwrap_or(".Booster");
        let file = flavor["data"]
            .as_str()
            .or(flavors["python_function"]["data"].as_str());
        if flavor.is_null() || !class.ends_with(".Booster") {
            continue;
        }
        let found = file.filter(|file| !file.contains("..")).and_then(|file| {
            let found = recognise(&folder.join(file)).ok()?;
            let begins = has_extension(file, "onnx")
                || beginning(&folder.join(file))
                    .is_ok_and(|bytes| bytes.starts_with(b"{") || bytes.starts_with(b"tree\n"));
            (!found.python && begins && (name == "onnx" || !truths && answers_natively(folder, file)))
                .then(|| file.to_owned())
        });
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Whether the engine takes a booster, and answers as its `predict` does. Linear boosters, linear trees, several numbers a leaf and
/// objectives of the user's own need Python; `multi:softmax` answers with classes there, with probabilities here.
fn answers_natively(folder: &Path, file: &str) -> bool {
    let Ok(bytes) = std::fs::read(folder.join(file)) else {
        return false;
    };
    let softmax = b"multi:softmax";
    let labels = !bytes.starts_with(b"tree\n") && bytes.windows(softmax.len()).any(|part| part == softmax);
    !labels && Tabular::load(folder, file).is_ok()
}

/// Flavours and signature of an `MLmodel` file.
pub(crate) fn mlmodel(path: &Path) -> Result<(Value, Value), PortError> {
    let broken =
        |message: String| PortError::caller("bundle_broken", format!("`{}`: {message}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| broken(error.to_string()))?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|error| broken(error.to_string()))?;
    let mut signature = json!({});
    for part in ["inputs", "outputs", "params"] {
        // MLflow writes each as JSON in a text.
        if let Some(text) = value["signature"][part].as_str() {
            signature[part] =
                serde_json::from_str(text).map_err(|error| broken(format!("`signature.{part}`: {error}")))?;
        }
    }
    Ok((value["flavors"].clone(), signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_its_first_bytes_or_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let kind = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            recognise(&path).map(|found| (found.model, found.python))
        };
        let native = |file: &str| {
            (
                BundledModel::Native {
                    file: file.to_owned(),
                },
                false,
            )
        };
        assert_eq!(kind("m.txt", b"tree\nversion=v4\n").unwrap(), native("m.txt"));
        assert_eq!(kind("m.json", b"{\"learner\":{}").unwrap(), native("m.json"));
        assert_eq!(kind("m.onnx", b"\x08").unwrap(), native("m.onnx"));
        assert!(matches!(
            kind("model", b"\x80\x05\x95"),
            Ok((BundledModel::Estimator { .. }, true))
        ));
        assert_eq!(kind("m.csv", b"a,b\n").unwrap_err().code, "model_unknown");
        let folder = dir.path().join("sub");
        std::fs::create_dir(&folder).unwrap();
        assert!(recognise(&folder).unwrap_err().message.contains("no model in it"));
        std::fs::write(folder.join("m.txt"), "tree\nversion=v4\n").unwrap();
        assert_eq!(recognise(&folder).unwrap().model, native("m.txt").0);
        let mlmodel = |flavors: &str| {
            std::fs::write(folder.join("MLmodel"), format!("flavors:\n  {flavors}\n")).unwrap();
            recognise(&folder).unwrap()
        };
        assert!(mlmodel("sklearn: {}").python);
        assert!(mlmodel("lightgbm: {data: m.txt, model_class: lightgbm.sklearn.LGBMClassifier}").python);
        // What the engine does not take goes to Python instead of failing.
        let booster = "lightgbm: {data: m.txt, model_class: lightgbm.basic.Booster}";
        assert!(mlmodel(booster).python);
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/diabetes");
        std::fs::copy(data.join("model.txt"), folder.join("m.txt")).unwrap();
        assert_eq!(mlmodel(booster).model, native("m.txt").0);
        let signature = "inputs: '[{\"type\": \"boolean\", \"name\": \"a\"}]'";
        assert!(mlmodel(&format!("{booster}\nsignature:\n  {signature}")).python);
        std::fs::write(
            folder.join(MANIFEST_FILE),
            r#"{"file": "m.txt", "format": "lightgbm"}"#,
        )
        .unwrap();
        std::fs::remove_file(folder.join("MLmodel")).unwrap();
        assert_eq!(recognise(&folder).unwrap().model, native(MANIFEST_FILE).0);
    }
}
