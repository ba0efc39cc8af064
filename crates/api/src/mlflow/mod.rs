//! MLflow's protocols: scoring as `mlflow models serve` speaks it, here; tracking and registry in [`tracking`].
//! <https://mlflow.org/docs/latest/genai/serving/>

mod csv_body;
mod json_body;
pub(crate) mod tracking;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};
use tidemill_core::ids::EndpointName;
use tidemill_serving::InferResponse;

use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{Body, media_type};
use crate::infer::{self, Call, Reading, any_degraded, labels};

/// `GET /ping`
pub(crate) async fn ping(State(app): State<App>) -> Result<&'static str, ApiError> {
    if !app.ready() {
        return Err(ApiError::unavailable(
            "not_ready",
            "the server is starting or stopping; try again shortly",
        ));
    }
    Ok("\n")
}

/// `POST /invocations`
pub(crate) async fn invoke_default(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let Some(endpoint) = app.default_endpoint() else {
        return Err(ApiError::bad_request(
            "endpoint_required",
            "this server has no single endpoint: name one, as in `/invocations/<endpoint>`",
        ));
    };
    invoke(State(app), Path(endpoint), headers, body).await
}

/// `POST /invocations/{endpoint}`
pub(crate) async fn invoke(
    State(app): State<App>,
    Path(endpoint): Path<EndpointName>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<Value>, ApiError> {
    let format = Format::of(&headers)?;
    let header_id = headers
        .get("x-request-id")
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let call = Call::to(&app, &endpoint, None)?;
    let answer = infer::predict(&app, call, body.len(), move |call| {
        let (columns, own_id) = match format {
            Format::Json => json_body::read(&body, call)?,
            Format::Csv => (csv_body::read(&body, call)?, None),
        };
        Ok(Reading {
            columns,
            request_id: own_id.or(header_id),
            rest: (),
        })
    })
    .await?;
    Ok(Json(predictions(&answer.response)))
}

/// How the body is written.
#[derive(Clone, Copy)]
enum Format {
    Json,
    Csv,
}

impl Format {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        match media_type(headers).as_deref() {
            Some("application/json") => Ok(Self::Json),
            Some("text/csv") => Ok(Self::Csv),
            other => Err(ApiError::unsupported_media_type(format!(
                "the content type is `{}`: send `application/json` or `text/csv`",
                other.unwrap_or_default()
            ))),
        }
    }
}

/// What pyfunc would give: probabilities, numbers, or the classes with their probabilities beside them.
fn predictions(response: &InferResponse) -> Value {
    let scores = &response.scores;
    let mut answer = Map::new();
    match labels(scores) {
        None => {
            answer.insert("predictions".to_owned(), json!(scores.values()));
        }
        Some(labels) => {
            let rows: Vec<&[f64]> = (0..scores.rows()).map(|row| scores.row(row)).collect();
            answer.insert("predictions".to_owned(), json!(labels));
            answer.insert("probabilities".to_owned(), json!(rows));
            if let tidemill_core::frame::Scores::Multiclass { classes, .. } = scores {
                answer.insert("classes".to_owned(), json!(classes));
            }
        }
    }
    answer.insert("prediction_ids".to_owned(), json!(response.ids));
    answer.insert("model_versions".to_owned(), json!(response.versions));
    if any_degraded(response) {
        answer.insert("degraded".to_owned(), json!(response.degraded));
    }
    Value::Object(answer)
}
