//! The generate extension: a prediction of a deployment without tensors. A function that takes a body of its own gets it; for a model of
//! tensors each field of the body is an input of its name, and the rest are parameters.

use std::convert::Infallible;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Map, Value, json};
use tidemill_core::servable::Payload;
use tidemill_serving::{Call, CallAnswer};

use super::ModelPath;
use crate::control_plane::App;
use crate::error::{ApiError, Protocol};
use crate::extract::{Inflated, parse_json};
use crate::infer::Target;
use crate::infer::ask::call_of;
use crate::infer::forms::Form;
use crate::infer::forms::reply::{flat, nested};

/// `POST /v2/models/{model}[/versions/{version}]/generate`
pub(crate) async fn generate(
    State(app): State<App>,
    Path(path): Path<ModelPath>,
    Inflated(body): Inflated,
) -> Result<Response, ApiError> {
    let call = asked(&app, &path, body).await?;
    let mut answers = app.serving().hosting().stream(call).await?;
    let one = answers.next().await;
    let more = answers.next().await;
    match (one, more) {
        (Some(answer), None) => Ok(Json(written(&path, answer?)?).into_response()),
        (Some(Err(error)), Some(_)) => Err(error.into()),
        (one, _) => Err(ApiError::bad_request(
            "not_one_answer",
            format!(
                "`generate` is for one answer, and the model gave {}: ask `generate_stream`",
                if one.is_some() { "several" } else { "none" }
            ),
        )),
    }
}

/// `POST /v2/models/{model}[/versions/{version}]/generate_stream`
pub(crate) async fn generate_stream(
    State(app): State<App>,
    Path(path): Path<ModelPath>,
    Inflated(body): Inflated,
) -> Result<Response, ApiError> {
    let call = asked(&app, &path, body).await?;
    let answers = app.serving().hosting().stream(call).await?;
    let events = answers.map(move |answer| {
        let written = answer
            .map_err(ApiError::from)
            .and_then(|answer| written(&path, answer));
        let value = written.unwrap_or_else(|error| Protocol::OpenInference.error_body(&error));
        Ok::<_, Infallible>(Event::default().data(value.to_string()))
    });
    Ok(Sse::new(events).into_response())
}

async fn asked(app: &App, path: &ModelPath, body: Bytes) -> Result<Call, ApiError> {
    let hosted = match path.target(app)? {
        Target::Hosted(hosted) => hosted,
        Target::Table(_) => {
            return Err(ApiError::bad_request(
                "no_generation",
                format!(
                    "endpoint `{}` is a model of tables: ask it by `POST /v2/models/{0}/infer`",
                    path.model
                ),
            ));
        }
    };
    let hosting = app.serving().hosting();
    let (_, interface) = hosting.interface(&hosted.name, hosted.version).await?;
    let mut fields: Map<String, Value> = parse_json(&body)?;
    let id = match fields.get("id") {
        Some(Value::String(id)) => Some(id.clone()),
        _ => None,
    };
    // A function that has declared tensors is asked by them, as over every other protocol.
    if interface.body && interface.inputs.is_empty() {
        let payload = Payload::Body {
            content_type: "application/json".to_owned(),
            bytes: body,
        };
        return call_of(&hosted, payload, id, Map::new(), None);
    }
    let mut parameters = match fields.shift_remove("parameters") {
        Some(Value::Object(parameters)) => parameters,
        _ => Map::new(),
    };
    let mut columns = Map::new();
    for (name, value) in fields {
        if interface.inputs.iter().any(|spec| spec.name == name) {
            let value = if value.is_array() { value } else { json!([value]) };
            columns.insert(name, value);
        } else if name != "id" {
            parameters.insert(name, value);
        }
    }
    let payload = Payload::Tensors(Form::Columns(columns).into_tensors(&interface)?);
    call_of(&hosted, payload, id, parameters, None)
}

/// Tensors of one element are bare values, as Triton writes them.
fn written(path: &ModelPath, answer: CallAnswer) -> Result<Value, ApiError> {
    let tensors = match answer.payload {
        Payload::Tensors(tensors) => tensors,
        Payload::Body { content_type, bytes } => {
            if content_type.contains("json") {
                return parse_json(&bytes).map_err(|error| ApiError::internal("model_broken", error.message));
            }
            return Ok(json!({ "text_output": String::from_utf8_lossy(&bytes) }));
        }
    };
    let mut object = Map::new();
    object.insert("model_name".to_owned(), json!(path.model));
    object.insert("model_version".to_owned(), json!(answer.version.to_string()));
    for tensor in &tensors {
        let value = if tensor.elements() == 1 {
            flat(tensor).pop().unwrap_or_default()
        } else {
            nested(tensor)
        };
        object.insert(tensor.name.clone(), value);
    }
    Ok(Value::Object(object))
}
