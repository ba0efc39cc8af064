//! What each input contributed to an answer of a deployment, or of an endpoint of the loop.

use axum::Json as Written;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_serving::{ExplainOptions, Explanation};

use super::Answer;
use crate::control_plane::App;
use crate::extract::{Inflated, Params, parse_json};
use crate::infer::Target;
use crate::infer::explain::{self, Explained};
use crate::infer::score::{Kind, Scoring};

/// Which version.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Which {
    version: Option<u32>,
}

/// What stands beside the rows.
#[derive(Deserialize)]
struct Wishes {
    #[serde(default)]
    explain: ExplainOptions,
}

/// `POST /api/v1/deployments/{name}/explain` and `POST /api/v1/endpoints/{endpoint}/explain`
pub(crate) async fn explain(
    State(app): State<App>,
    Path(name): Path<EndpointName>,
    Params(which): Params<Which>,
    Inflated(bytes): Inflated,
) -> Answer {
    let target = Target::of(&app, &name, which.version.map(VersionNumber))?;
    target.check_version(&app)?;
    let Wishes { explain: options } = parse_json(&bytes)?;
    let scoring = Scoring {
        only_floats: false,
        kind: Kind::Json { bare: false },
        content_type: "application/json".to_owned(),
        bytes,
        id: None,
        timeout: None,
        parameters: Map::new(),
    };
    let explained = explain::explain(&app, target, scoring, options).await?;
    Ok(Written(written(&name, &explained)))
}

fn written(name: &EndpointName, explained: &Explained) -> Value {
    let explanation: &Explanation = &explained.explanation;
    let of_row = |row: usize| -> Value {
        let of_output = |output: usize| {
            let (_, base) = explanation.of(row, output);
            let mut one = Map::new();
            one.insert("output".to_owned(), json!(output));
            if let Some(label) = explain::label(explanation, output) {
                one.insert("label".to_owned(), json!(label));
            }
            one.insert("base".to_owned(), json!(base));
            one.insert(
                "value".to_owned(),
                json!(explain::whole(explanation, row, output)),
            );
            one.insert(
                "attributions".to_owned(),
                Value::Object(explain::by_input(explanation, row, output)),
            );
            one.insert(
                "error".to_owned(),
                json!(explain::error(explanation, row, output)),
            );
            Value::Object(one)
        };
        (0..explanation.outputs).map(of_output).collect()
    };
    json!({
        "name": name,
        "version": explained.version,
        "method": explanation.method,
        "explains": if explanation.raw { "raw" } else { "answer" },
        "output": explanation.output,
        "explanations": (0..explanation.rows()).map(of_row).collect::<Value>(),
    })
}

/// The schema of the body, for the OpenAPI document.
pub(crate) fn schema() -> (&'static str, Value) {
    let schema = json!({
        "type": "object",
        "description": "Exactly one of the first four, as for predictions",
        "properties": {
            "dataframe_split": { "type": "object" },
            "dataframe_records": { "type": "array" },
            "inputs": { "type": ["object", "array"] },
            "instances": { "type": "array" },
            "explain": {
                "type": "object",
                "properties": {
                    "method": { "enum": ["auto", "exact", "sampling"] },
                    "output": { "type": "string", "description": "Where the model does not explain itself: the output that is explained" },
                    "baseline": { "type": "object", "description": "What each input is when it says nothing" },
                    "samples": { "type": "integer", "minimum": 1, "maximum": 4096, "description": "Orders a row, each also backwards" },
                    "seed": { "type": "integer" },
                },
            },
        },
    });
    ("Explain", schema)
}
