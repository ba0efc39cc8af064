//! How requests find their way in a deployment or a graph, and what came of their answers.

use axum::Json as Written;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_core::ids::{EndpointName, PredictionId, VersionNumber};

use super::Answer;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::Json;

/// How an answer turned out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Told {
    /// The version that gave the answer.
    version: u32,
    /// From 0, the worst, to 1.
    outcome: f64,
    /// The prediction that it was: its outcome counts once.
    #[serde(default)]
    prediction_id: Option<PredictionId>,
}

/// `GET /api/v1/deployments/{name}/routing`
pub(crate) async fn show(State(app): State<App>, Path(name): Path<EndpointName>) -> Answer {
    let hosting = app.serving().hosting();
    // Names those that there are, if there is none.
    let spec = hosting.spec(&name)?;
    let routing = hosting.routing_statistics(Some(&name)).pop();
    let nodes = hosting
        .part_statistics(Some(&name))
        .pop()
        .map(|(_, _, nodes)| nodes);
    Ok(Written(json!({
        "name": name,
        "routing": spec.routing,
        "fallback": spec.fallback,
        "statistics": routing,
        "nodes": nodes,
    })))
}

/// `POST /api/v1/deployments/{name}/outcomes`
pub(crate) async fn tell(
    State(app): State<App>,
    Path(name): Path<EndpointName>,
    Json(told): Json<Told>,
) -> Answer {
    if !(0.0..=1.0).contains(&told.outcome) {
        let message = format!(
            "`{}` is no outcome: expected a number from 0, the worst, to 1",
            told.outcome
        );
        return Err(ApiError::bad_request("invalid_parameter_value", message)
            .with_details(json!({ "field": "outcome", "value": told.outcome })));
    }
    let version = VersionNumber(told.version);
    let deployments = app.deployments();
    let learnt = deployments
        .tell_outcome(&name, version, told.outcome, told.prediction_id)
        .await?;
    Ok(Written(
        json!({ "counted": learnt.counted, "bandit": learnt.bandit }),
    ))
}

/// The schema of the body, for the OpenAPI document.
pub(crate) fn schema() -> (&'static str, Value) {
    let schema = json!({
        "type": "object",
        "required": ["version", "outcome"],
        "properties": {
            "version": { "type": "integer", "description": "The version that gave the answer" },
            "prediction_id": { "type": "string", "description": "The prediction that it was: its outcome counts once" },
            "outcome": { "type": "number", "minimum": 0, "maximum": 1, "description": "How it turned out, from 0, the worst, to 1" },
        },
    });
    ("Outcome", schema)
}
