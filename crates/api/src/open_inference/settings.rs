//! Settings of tracing and logging, which Triton lets clients change: here they are the operator's, given at the start. They are told,
//! and a change to what they are already is accepted.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};
use tidemill_core::ids::EndpointName;

use super::optional_object;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::Inflated;
use crate::infer::Target;
use crate::infer::settings::{Setting, TRACE, fixed, log};

fn trace_settings() -> Map<String, Value> {
    let setting = |(name, values): (&str, &[&str])| {
        let value = match values {
            [one] if name != "trace_level" => json!(one),
            many => json!(many),
        };
        (name.to_owned(), value)
    };
    TRACE.into_iter().map(setting).collect()
}

fn log_settings() -> Map<String, Value> {
    let setting = |(name, value): (&str, Setting)| {
        let value = match value {
            Setting::Flag(flag) => json!(flag),
            Setting::Level(level) => json!(level),
            Setting::Text(text) => json!(text),
        };
        (name.to_owned(), value)
    };
    log().into_iter().map(setting).collect()
}

/// Null asks for what the server's own setting is.
fn unchanged(asked: &Map<String, Value>, settings: Map<String, Value>) -> Result<Json<Value>, ApiError> {
    for (name, value) in asked {
        let same = settings.get(name) == Some(value) || (value.is_null() && settings.contains_key(name));
        if !same {
            return Err(fixed(name));
        }
    }
    Ok(Json(Value::Object(settings)))
}

/// `GET /v2/trace/setting`
pub(crate) async fn trace() -> Json<Value> {
    Json(Value::Object(trace_settings()))
}

/// `POST /v2/trace/setting`
pub(crate) async fn set_trace(Inflated(body): Inflated) -> Result<Json<Value>, ApiError> {
    unchanged(&optional_object(&body)?, trace_settings())
}

/// `GET /v2/models/{model}/trace/setting`
pub(crate) async fn model_trace(
    State(app): State<App>,
    Path(model): Path<EndpointName>,
) -> Result<Json<Value>, ApiError> {
    Target::of(&app, &model, None)?;
    Ok(trace().await)
}

/// `POST /v2/models/{model}/trace/setting`
pub(crate) async fn set_model_trace(
    State(app): State<App>,
    Path(model): Path<EndpointName>,
    body: Inflated,
) -> Result<Json<Value>, ApiError> {
    Target::of(&app, &model, None)?;
    set_trace(body).await
}

/// `GET /v2/logging`
pub(crate) async fn logging() -> Json<Value> {
    Json(Value::Object(log_settings()))
}

/// `POST /v2/logging`
pub(crate) async fn set_logging(Inflated(body): Inflated) -> Result<Json<Value>, ApiError> {
    unchanged(&optional_object(&body)?, log_settings())
}
