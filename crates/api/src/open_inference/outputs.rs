//! The tensors of an answer, one function each, in the order in which they are written.

use serde_json::{Map, Value, json};
use tidemill_core::frame::{Scores, Task};
use tidemill_serving::{InferResponse, Route};

use super::answer_name;
use crate::error::ApiError;
use crate::infer::{any_degraded, labels, role_name};

/// The outputs of a task that metadata lists: name, datatype.
fn always(task: Task) -> Vec<(&'static str, &'static str)> {
    let mut outputs = vec![(answer_name(task), "FP64")];
    if task == Task::Multiclass {
        outputs.push(("label", "BYTES"));
    }
    outputs.extend([
        ("prediction_id", "BYTES"),
        ("model_version", "INT32"),
        ("role", "BYTES"),
    ]);
    outputs
}

/// The outputs as metadata shows them.
pub(super) fn described(route: &Route) -> Vec<Value> {
    let describe = |(name, datatype): (&str, &str)| {
        if name == "probabilities" {
            return json!({ "name": name, "datatype": datatype, "shape": [-1, route.classes.len()] });
        }
        json!({ "name": name, "datatype": datatype, "shape": [-1] })
    };
    always(route.task).into_iter().map(describe).collect()
}

/// Refuses outputs that there are not.
pub(super) fn check_requested(names: &[String], task: Task) -> Result<(), ApiError> {
    let known: Vec<&str> = always(task)
        .into_iter()
        .map(|(name, _)| name)
        .chain(["degraded"])
        .collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(ApiError::bad_request(
            "unknown_output",
            format!(
                "there is no output `{name}`: expected one of `{}`",
                known.join("`, `")
            ),
        )
        .with_details(json!({ "field": "outputs", "value": name, "expected": known }))),
    }
}

/// The whole answer; `names` empty means all outputs.
pub(super) fn response(route: &Route, response: &InferResponse, names: &[String]) -> Value {
    let rows = response.ids.len();
    let tensor = |name: &str, datatype: &str, data: Value| {
        json!({
            "name": name,
            "datatype": datatype,
            "shape": [rows],
            "data": data,
        })
    };
    let mut outputs = vec![scores(&response.scores, rows)];
    if let Some(labels) = labels(&response.scores) {
        outputs.push(tensor("label", "BYTES", json!(labels)));
    }
    outputs.push(tensor("prediction_id", "BYTES", json!(response.ids)));
    outputs.push(tensor("model_version", "INT32", json!(response.versions)));
    let roles: Vec<&str> = response.roles.iter().map(|role| role_name(*role)).collect();
    outputs.push(tensor("role", "BYTES", json!(roles)));
    let degraded = any_degraded(response);
    if degraded {
        // A tensor of texts holds no null: the empty text says that nothing went wrong.
        let reasons: Vec<&str> = response
            .degraded
            .iter()
            .map(|d| d.as_deref().unwrap_or(""))
            .collect();
        outputs.push(tensor("degraded", "BYTES", json!(reasons)));
    }
    if !names.is_empty() {
        outputs.retain(|output| names.iter().any(|name| output["name"] == *name));
    }

    let mut parameters = Map::new();
    parameters.insert("at".to_owned(), json!(response.at));
    if degraded {
        parameters.insert("degraded".to_owned(), json!(true));
    }
    let version = response.versions.first().copied().unwrap_or_default();
    json!({
        "model_name": route.endpoint,
        "model_version": version.to_string(),
        "id": response.request_id,
        "parameters": parameters,
        "outputs": outputs,
    })
}

fn scores(scores: &Scores, rows: usize) -> Value {
    let name = answer_name(scores.task());
    match scores {
        Scores::Binary(values) | Scores::Regression(values) => {
            json!({ "name": name, "datatype": "FP64", "shape": [rows], "data": values })
        }
        Scores::Multiclass {
            classes,
            probabilities,
        } => json!({
            "name": name,
            "datatype": "FP64",
            "shape": [rows, classes.len()],
            // The protocol's parameters are texts, numbers or booleans: the classes are a JSON text.
            "parameters": { "classes": json!(classes).to_string() },
            "data": probabilities,
        }),
    }
}
