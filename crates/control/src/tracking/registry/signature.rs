//! What a version takes and gives, whoever registered it.

use serde::Serialize;
use serde_json::Value;
use tidemill_store::ReadTx;
use tidemill_store::registry::{self, Version};

use crate::tracking::{Caller, Result, Tracking};

/// The largest `MLmodel` that is read. Models of many columns have long signatures.
const MAX_MLMODEL: u64 = 4 * 1024 * 1024;

/// One column of a signature.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Field {
    /// Its name; `-` where columns have none.
    pub name: String,
    /// Its type, in the words of whoever wrote the signature.
    pub r#type: String,
    /// Whether a request must have it.
    pub required: bool,
}

/// What a model takes and gives.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Signature {
    /// What a request must have.
    pub inputs: Vec<Field>,
    /// What the answer has.
    pub outputs: Vec<Field>,
}

impl Tracking {
    /// A version's signature: the loop's own versions have theirs, a client's stands in the file `MLmodel` among the version's
    /// files; where that is not there or only clients reach it, what is `noted` of it counts.
    pub(super) async fn signature_of(
        &self,
        caller: &Caller,
        version: &Version,
        noted: Option<Signature>,
    ) -> Result<Option<Signature>> {
        if from_loop(&version.signature).is_some() {
            return Ok(noted);
        }
        let root = version.storage_location.as_deref().unwrap_or(&version.source);
        let file = self.artifact_read(caller, root, "MLmodel", MAX_MLMODEL).await?;
        let written = file.and_then(|bytes| from_mlmodel(&String::from_utf8(bytes).ok()?));
        Ok(written.or(noted))
    }
}

/// The signature in an `MLmodel`, if it has one.
fn from_mlmodel(text: &str) -> Option<Signature> {
    #[derive(serde::Deserialize)]
    struct MlModel {
        signature: Option<Value>,
    }
    let read: MlModel = serde_saphyr::from_str(text).ok()?;
    from_mlflow(&read.signature?)
}

/// What the database has of a version's signature: the loop's own, or what its run's tag `mlflow.log-model.history` says.
pub(super) fn of(tx: &ReadTx<'_>, workspace: &str, version: &Version) -> Result<Option<Signature>> {
    if let Some(own) = from_loop(&version.signature) {
        return Ok(Some(own));
    }
    let Some(run) = &version.run_id else {
        return Ok(None);
    };
    let facts = registry::run_facts(tx, workspace, run)?;
    let history = facts["tags"]["mlflow.log-model.history"].as_str().unwrap_or("[]");
    let history: Vec<Value> = serde_json::from_str(history).unwrap_or_default();
    Ok(from_history(&history, version))
}

/// The signature of the entry that the version was made of; where that cannot be told, of the only one.
fn from_history(history: &[Value], version: &Version) -> Option<Signature> {
    let wanted = |entry: &&Value| {
        let id = version
            .model_id
            .as_deref()
            .is_some_and(|id| entry["model_id"] == id);
        let path = entry["artifact_path"].as_str().unwrap_or_default();
        let tail = format!("/{}", path.trim_matches('/'));
        id || (!path.is_empty() && version.source.trim_end_matches('/').ends_with(&tail))
    };
    let named = history.iter().rev().find(wanted);
    let entry = named.or(match history {
        [only] => Some(only),
        _ => None,
    })?;
    from_mlflow(&entry["signature"])
}

/// MLflow's signature: `inputs` and `outputs` are JSON in a text.
pub(super) fn from_mlflow(signature: &Value) -> Option<Signature> {
    let fields = |name: &str| -> Vec<Field> {
        let parsed = match &signature[name] {
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            other => other.clone(),
        };
        parsed
            .as_array()
            .into_iter()
            .flatten()
            .map(mlflow_field)
            .collect()
    };
    signature.is_object().then(|| Signature {
        inputs: fields("inputs"),
        outputs: fields("outputs"),
    })
}

fn mlflow_field(column: &Value) -> Field {
    let kind = match column["type"].as_str() {
        Some("tensor") => format!(
            "tensor({}, {})",
            column["tensor-spec"]["dtype"].as_str().unwrap_or("?"),
            column["tensor-spec"]["shape"]
        ),
        Some(scalar) if column.get("items").is_some() => format!("{scalar} of {}", column["items"]),
        Some(scalar) if column.get("properties").is_some() => format!("{scalar} {}", column["properties"]),
        Some(scalar) => scalar.to_owned(),
        None => column["type"].to_string(),
    };
    Field {
        name: column["name"].as_str().unwrap_or("-").to_owned(),
        r#type: kind,
        required: column["required"].as_bool().unwrap_or(true),
    }
}

/// The loop's: features, a task and its classes.
fn from_loop(signature: &Value) -> Option<Signature> {
    let features = signature["features"]["features"]
        .as_array()
        .or_else(|| signature["features"].as_array())?;
    let inputs = features
        .iter()
        .map(|feature| Field {
            name: feature["name"].as_str().unwrap_or("-").to_owned(),
            r#type: feature["kind"].as_str().unwrap_or("?").to_owned(),
            required: true,
        })
        .collect();
    let task = signature["task"].as_str().unwrap_or("?");
    let classes: Vec<&str> = signature["classes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let kind = if classes.is_empty() {
        task.to_owned()
    } else {
        format!("{task} of {}", classes.join(", "))
    };
    let output = Field {
        name: "prediction".to_owned(),
        r#type: kind,
        required: true,
    };
    Some(Signature {
        inputs,
        outputs: vec![output],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn signatures_of_mlflow_and_of_the_loop_read_alike() {
        let mlflow = json!({
            "inputs": r#"[{"name": "a", "type": "double", "required": false}, {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]"#,
            "outputs": null,
        });
        let read = from_mlflow(&mlflow).unwrap();
        assert_eq!(read.inputs[0].r#type, "double");
        assert!(!read.inputs[0].required);
        assert_eq!(read.inputs[1].r#type, "tensor(float32, [-1,3])");
        assert!(read.outputs.is_empty());
        assert_eq!(from_mlflow(&Value::Null), None);
        // As PyYAML folds long lines.
        let file = "artifact_path: model\nflavors:\n  python_function:\n    env: {conda: conda.yaml}\n    python_version: 3.11.2\n\
            mlflow_version: 3.10.1\nsignature:\n  inputs: '[{\"type\": \"double\", \"name\": \"a\", \"required\": false}, {\"type\": \"tensor\",\n    \
            \"tensor-spec\": {\"dtype\": \"float32\", \"shape\": [-1, 3]}}]'\n  outputs: null\n  params: null\n";
        assert_eq!(from_mlmodel(file).as_ref(), Some(&read));
        for text in ["flavors: {}\n", "signature: null\n", "", "[", "a: &a [*a"] {
            assert_eq!(from_mlmodel(text), None, "{text}");
        }
        let own = json!({"features": {"features": [{"name": "x", "kind": "numeric"}]}, "task": "binary", "classes": []});
        let read = from_loop(&own).unwrap();
        assert_eq!(
            (read.inputs[0].r#type.as_str(), read.outputs[0].r#type.as_str()),
            ("numeric", "binary")
        );
    }
}
