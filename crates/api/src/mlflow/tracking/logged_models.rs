//! `logged-models/…`: models that runs write.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use tidemill_control::tracking::{self, CreateLoggedModel, TrackingError};
use tidemill_store::tracking::logged_models::{LoggedModel, LoggedModelMetric, LoggedModelStatus};

use super::{Called, Fields};
use crate::control_plane::App;
use crate::error::ApiError;

/// MLflow's message of a logged model.
pub(crate) fn model_json(model: &LoggedModel) -> Value {
    let mut info = json!({
        "model_id": model.model_id,
        "experiment_id": model.experiment.to_string(),
        "name": model.name,
        "creation_timestamp_ms": model.created_ms,
        "last_updated_timestamp_ms": model.updated_ms,
        "artifact_uri": model.artifact_location,
        "status": model.status.message_name(),
        "model_type": model.model_type,
        "source_run_id": model.source_run_id,
    });
    if let Some(message) = &model.status_message {
        info["status_message"] = json!(message);
    }
    if !model.tags.is_empty() {
        info["tags"] = pairs_json(&model.tags);
    }
    let mut data = json!({});
    if !model.params.is_empty() {
        data["params"] = pairs_json(&model.params);
    }
    if !model.metrics.is_empty() {
        let metrics = model.metrics.iter();
        data["metrics"] = metrics
            .map(|metric| metric_json(&model.model_id, metric))
            .collect();
    }
    json!({ "info": info, "data": data })
}

fn pairs_json(pairs: &[(String, String)]) -> Value {
    pairs
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect()
}

fn metric_json(model_id: &str, metric: &LoggedModelMetric) -> Value {
    let value = match metric.value {
        nan if nan.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        finite => json!(finite),
    };
    let mut message = json!({
        "key": metric.key,
        "value": value,
        "timestamp": metric.at_ms,
        "step": metric.step,
        "model_id": model_id,
    });
    let optional = [
        ("run_id", &metric.run_id),
        ("dataset_name", &metric.dataset_name),
        ("dataset_digest", &metric.dataset_digest),
    ];
    for (name, text) in optional {
        if !text.is_empty() {
            message[name] = json!(text);
        }
    }
    message
}

fn answer(model: &LoggedModel) -> Json<Value> {
    Json(json!({ "model": model_json(model) }))
}

/// `POST logged-models`
pub(crate) async fn create(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let request = CreateLoggedModel {
        experiment_id: fields.required_text("experiment_id")?,
        name: fields.text("name")?.filter(|name| !name.is_empty()),
        model_type: fields.text("model_type")?.unwrap_or_default(),
        source_run_id: fields.text("source_run_id")?.unwrap_or_default(),
        params: fields.pairs("params")?,
        tags: fields.pairs("tags")?,
    };
    let model = app.tracking().create_logged_model(&caller, request).await?;
    Ok(answer(&model))
}

/// `GET logged-models/{model_id}`
pub(crate) async fn get(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let deleted_too = fields
        .text("allow_deleted")?
        .is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let id = fields.required_text("model_id")?;
    let model = app.tracking().logged_model(&caller, &id, deleted_too).await?;
    Ok(answer(&model))
}

/// A status by its number or by its name.
fn status(fields: &Fields) -> tracking::Result<LoggedModelStatus> {
    let named = fields
        .value("status")
        .and_then(Value::as_str)
        .and_then(LoggedModelStatus::of_message_name);
    if let Some(status) = named {
        return Ok(status);
    }
    let number = fields.required_integer("status")?;
    LoggedModelStatus::of_number(number)
        .ok_or_else(|| TrackingError::invalid(format!("Unknown model status: {number}")))
}

/// `PATCH logged-models/{model_id}`
pub(crate) async fn finalize(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("model_id")?;
    let status = status(&fields)?;
    let model = app.tracking().finalize_logged_model(&caller, &id, status).await?;
    Ok(answer(&model))
}

/// `DELETE logged-models/{model_id}`
pub(crate) async fn delete(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("model_id")?;
    app.tracking().delete_logged_model(&caller, &id).await?;
    Ok(Json(json!({})))
}

/// `PATCH logged-models/{model_id}/tags`
pub(crate) async fn set_tags(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("model_id")?;
    let tags = fields.pairs("tags")?;
    let model = app.tracking().set_logged_model_tags(&caller, &id, tags).await?;
    Ok(answer(&model))
}

/// `DELETE logged-models/{model_id}/tags/{tag_key}`
pub(crate) async fn delete_tag(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("model_id")?;
    let key = fields.required_text("tag_key")?;
    app.tracking().delete_logged_model_tag(&caller, &id, &key).await?;
    Ok(Json(json!({})))
}

/// `POST logged-models/{model_id}/params`
pub(crate) async fn log_params(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("model_id")?;
    let params = fields.pairs("params")?;
    app.tracking()
        .log_logged_model_params(&caller, &id, params)
        .await?;
    Ok(Json(json!({})))
}
