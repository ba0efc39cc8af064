//! What some files are a model of, by looking at them. Nothing is loaded, and no pickle is opened.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};
use tidemill_core::deployments::BundledModel;
use tidemill_core::ports::PortError;

use super::has_extension;
use crate::manifest::MANIFEST_FILE;

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
            let (flavors, _) = mlmodel(&path.join("MLmodel"))?;
            if let Some(file) = native_flavor(path, &flavors) {
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
        // A manifest names the file that counts among those beside it.
        if let Ok(found) = recognise(&path.join(MANIFEST_FILE)) {
            return Ok(found);
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
        || has_extension(&name, "json") && (text.contains("\"learner\"") || text.contains("\"format\""));
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

/// The first bytes of a file.
fn beginning(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(256).read_to_end(&mut start)?;
    Ok(start)
}

/// The file of a flavour that needs no Python and whose answers are then the same as those of `mlflow.pyfunc`: a graph of ONNX, a booster of
/// LightGBM's or XGBoost's own. Their classes with scikit-learn's ways answer with labels, and what was pickled needs Python.
fn native_flavor(folder: &Path, flavors: &Value) -> Option<String> {
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
            (!found.python && begins).then(|| file.to_owned())
        });
        if found.is_some() {
            return found;
        }
    }
    None
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
        assert_eq!(
            mlmodel("lightgbm: {data: m.txt, model_class: lightgbm.basic.Booster}").model,
            native("m.txt").0
        );
    }
}
