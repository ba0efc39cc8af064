//! `/api/2.0/mlflow/runs/…`: the life of runs.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tidemill_control::tracking::{self, CreateRun};
use tidemill_store::tracking::runs::{RunChange, RunStatus};

use super::{Called, Fields, messages};
use crate::control_plane::App;
use crate::error::ApiError;

/// The id of a run; old clients call it `run_uuid`.
pub(super) fn run_id(fields: &Fields) -> tracking::Result<String> {
    match fields.text("run_id")? {
        Some(run_id) if !run_id.is_empty() => Ok(run_id),
        None if fields.value("run_uuid").is_some() => fields.required_text("run_uuid"),
        _ => fields.required_text("run_id"),
    }
}

/// `POST /api/2.0/mlflow/runs/create`
pub(crate) async fn create(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    let request = CreateRun {
        experiment_id: experiment_id(&fields)?,
        user_id: fields.text("user_id")?.unwrap_or_default(),
        name: fields.text("run_name")?.unwrap_or_default(),
        start_ms: fields.integer("start_time")?.unwrap_or(0),
        tags: fields.pairs("tags")?,
    };
    let run = app.tracking().create_run(&caller, request).await?;
    Ok(Json(json!({ "run": messages::run(&run) })).into_response())
}

/// Ids of experiments once were numbers.
fn experiment_id(fields: &Fields) -> tracking::Result<String> {
    match fields.value("experiment_id") {
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => Ok(fields.text("experiment_id")?.unwrap_or_default()),
    }
}

/// `GET /api/2.0/mlflow/runs/get`
pub(crate) async fn get(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    let run = app.tracking().run(&caller, &run_id(&fields)?).await?;
    Ok(Json(json!({ "run": messages::run(&run) })).into_response())
}

/// `POST /api/2.0/mlflow/runs/update`
pub(crate) async fn update(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    let run_id = run_id(&fields)?;
    let change = RunChange {
        end_ms: fields.integer("end_time")?,
        status: status(&fields)?,
        name: fields.text("run_name")?,
    };
    let head = app.tracking().update_run(&caller, &run_id, change).await?;
    Ok(Json(json!({ "run_info": messages::run_info(&head) })).into_response())
}

/// An enum of protocol buffers: its name or its number.
fn status(fields: &Fields) -> tracking::Result<Option<RunStatus>> {
    let Some(value) = fields.value("status") else {
        return Ok(None);
    };
    let found = match value {
        Value::String(name) => name.parse().ok(),
        value => super::as_integer(value)
            .and_then(|number| usize::try_from(number - 1).ok())
            .and_then(|place| RunStatus::ALL.get(place).copied()),
    };
    found
        .map(Some)
        .ok_or_else(|| super::request::wrong("status", value))
}

/// `POST /api/2.0/mlflow/runs/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    app.tracking().delete_run(&caller, &run_id(&fields)?).await?;
    Ok(Json(json!({})))
}

/// `POST /api/2.0/mlflow/runs/restore`
pub(crate) async fn restore(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    app.tracking().restore_run(&caller, &run_id(&fields)?).await?;
    Ok(Json(json!({})))
}
