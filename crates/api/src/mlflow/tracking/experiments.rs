//! `/api/2.0/mlflow/experiments/…`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tidemill_control::tracking::CreateExperiment;

use super::{Called, Fields, messages};
use crate::control_plane::App;
use crate::error::ApiError;

/// `POST /api/2.0/mlflow/experiments/create`
pub(crate) async fn create(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let request = CreateExperiment {
        name: fields.required_text("name")?,
        artifact_location: fields.text("artifact_location")?,
        tags: fields.pairs("tags")?,
    };
    let id = app.tracking().create_experiment(&caller, request).await?;
    Ok(Json(json!({ "experiment_id": id.to_string() })))
}

/// `GET /api/2.0/mlflow/experiments/get`
pub(crate) async fn get(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    let id = fields.required_text("experiment_id")?;
    let experiment = app.tracking().experiment(&caller, &id).await?;
    Ok(Json(json!({ "experiment": messages::experiment(&experiment) })).into_response())
}

/// `GET /api/2.0/mlflow/experiments/get-by-name`
pub(crate) async fn get_by_name(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    let name = fields.required_text("experiment_name")?;
    let experiment = app.tracking().experiment_by_name(&caller, &name).await?;
    Ok(Json(json!({ "experiment": messages::experiment(&experiment) })).into_response())
}

/// `POST /api/2.0/mlflow/experiments/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("experiment_id")?;
    app.tracking().delete_experiment(&caller, &id).await?;
    Ok(Json(json!({})))
}

/// `POST /api/2.0/mlflow/experiments/restore`
pub(crate) async fn restore(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("experiment_id")?;
    app.tracking().restore_experiment(&caller, &id).await?;
    Ok(Json(json!({})))
}

/// `POST /api/2.0/mlflow/experiments/update`
pub(crate) async fn update(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("experiment_id")?;
    let name = fields.required_text("new_name")?;
    app.tracking().rename_experiment(&caller, &id, &name).await?;
    Ok(Json(json!({})))
}

/// `POST /api/2.0/mlflow/experiments/set-experiment-tag`
pub(crate) async fn set_tag(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("experiment_id")?;
    let key = fields.required_text("key")?;
    let value = fields.text("value")?.unwrap_or_default();
    app.tracking()
        .set_experiment_tag(&caller, &id, &key, &value)
        .await?;
    Ok(Json(json!({})))
}

/// `POST /api/2.0/mlflow/experiments/delete-experiment-tag`
pub(crate) async fn delete_tag(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("experiment_id")?;
    let key = fields.required_text("key")?;
    app.tracking().delete_experiment_tag(&caller, &id, &key).await?;
    Ok(Json(json!({})))
}
