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
    /// The version that gave the answer; known by the prediction where that is recorded.
    #[serde(default)]
    version: Option<u32>,
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
    let version = match (told.version, &told.prediction_id) {
        (Some(version), _) => VersionNumber(version),
        (None, Some(id)) => answered(&app, &name, id).await?,
        (None, None) => {
            let message = "say which answer turned out so: expected `prediction_id`, or `version`";
            return Err(ApiError::bad_request("invalid_parameter_value", message)
                .with_details(json!({ "field": "prediction_id" })));
        }
    };
    let deployments = app.deployments();
    let learnt = deployments
        .tell_outcome(&name, version, told.outcome, told.prediction_id)
        .await?;
    Ok(Written(
        json!({ "counted": learnt.counted, "bandit": learnt.bandit }),
    ))
}

/// The version that gave a recorded answer.
async fn answered(app: &App, name: &EndpointName, id: &PredictionId) -> Result<VersionNumber, ApiError> {
    let recorded = app.prediction(id).await?;
    let by = recorded["answered_by"].as_str().or(recorded["endpoint"].as_str());
    let version = recorded["version"]
        .as_u64()
        .and_then(|version| u32::try_from(version).ok());
    match version {
        Some(version) if by == Some(name.as_str()) => Ok(VersionNumber(version)),
        _ => {
            let by = by.unwrap_or("nobody");
            let message = format!("prediction `{id}` was answered by `{by}`, not by `{name}`");
            Err(ApiError::bad_request("invalid_parameter_value", message)
                .with_details(json!({ "field": "prediction_id", "value": id })))
        }
    }
}

/// The schema of the body, for the OpenAPI document.
pub(crate) fn schema() -> (&'static str, Value) {
    let schema = json!({
        "type": "object",
        "required": ["outcome"],
        "properties": {
            "version": { "type": "integer", "description": "The version that gave the answer; known by the prediction where that is recorded" },
            "prediction_id": { "type": "string", "description": "The prediction that it was: its outcome counts once" },
            "outcome": { "type": "number", "minimum": 0, "maximum": 1, "description": "How it turned out, from 0, the worst, to 1" },
        },
    });
    ("Outcome", schema)
}
