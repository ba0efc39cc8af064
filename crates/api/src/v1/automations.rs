//! Automations: whom to tell of what happens to runs and models.

use axum::Json as Written;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use tidemill_control::tracking::automations::NewAutomation;
use tidemill_store::automations::Automation;

use super::Answer;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::Json;
use crate::mlflow::tracking::Called;

/// The secret is never shown.
fn shown(automation: &Automation) -> Value {
    let filter: Value = serde_json::from_str(&automation.filter).unwrap_or_default();
    json!({
        "id": automation.id,
        "name": automation.name,
        "on": { "event": automation.event, "filter": filter },
        "do": { "webhook": { "url": automation.url, "signed": automation.secret.is_some() } },
        "created_at": automation.created_at,
    })
}

/// `POST /api/v1/automations`
pub(crate) async fn create(
    State(app): State<App>,
    Called(caller): Called,
    Json(body): Json<NewAutomation>,
) -> Result<(StatusCode, Written<Value>), ApiError> {
    let made = app.tracking().create_automation(&caller, body).await?;
    Ok((StatusCode::CREATED, Written(shown(&made))))
}

/// `GET /api/v1/automations`
pub(crate) async fn list(State(app): State<App>, Called(caller): Called) -> Answer {
    let found = app.tracking().list_automations(&caller).await?;
    let items: Vec<Value> = found.iter().map(shown).collect();
    Ok(Written(json!({ "items": items })))
}

/// `DELETE /api/v1/automations/{id}`
pub(crate) async fn delete(
    State(app): State<App>,
    Called(caller): Called,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    app.tracking().delete_automation(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The schema of the body, for the OpenAPI document.
pub(crate) fn schema() -> (&'static str, Value) {
    let text = json!({ "type": "string" });
    let events = [
        "model_version.stage_transitioned",
        "alias.set",
        "run.finished",
        "metric.threshold",
        "tag.set",
    ];
    let schema = json!({
        "type": "object",
        "required": ["name", "on", "do"],
        "properties": {
            "name": text,
            "on": {
                "type": "object",
                "required": ["event"],
                "properties": {
                    "event": { "type": "string", "enum": events },
                    "filter": {
                        "type": "object",
                        "properties": {
                            "model": text, "experiment_id": text, "alias": text, "stage": text, "status": text, "tag": text,
                            "metric": text, "op": { "type": "string", "enum": [">", ">=", "<", "<="] },
                            "value": { "type": ["number", "string"] },
                        },
                    },
                },
            },
            "do": {
                "type": "object",
                "required": ["webhook"],
                "properties": {
                    "webhook": {
                        "type": "object",
                        "required": ["url"],
                        "properties": { "url": text, "secret": text },
                    },
                },
            },
        },
    });
    ("Automation", schema)
}
