//! MLflow's protocols: scoring as `mlflow models serve` speaks it, here; tracking and registry in [`tracking`].
//! <https://mlflow.org/docs/latest/genai/serving/>

pub(crate) mod tracking;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Map;
use tidemill_core::ids::EndpointName;
use tidemill_core::servable::Payload;

use crate::control_plane::App;
use crate::error::{ApiError, Kind as ErrorKind};
use crate::extract::{Inflated, media_type};
use crate::infer::Target;
use crate::infer::forms::csv::Header;
use crate::infer::forms::{parquet, reply};
use crate::infer::score::{Kind, Scored, Scoring, score};

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
    body: Inflated,
) -> Result<Response, ApiError> {
    let Some(endpoint) = only_endpoint(&app) else {
        return Err(ApiError::bad_request(
            "endpoint_required",
            "this server has no single endpoint: name one, as in `/invocations/<endpoint>`",
        ));
    };
    invoke(State(app), Path(endpoint), headers, body).await
}

/// The project's endpoint; without a project the only deployment.
fn only_endpoint(app: &App) -> Option<EndpointName> {
    app.default_endpoint().or_else(|| {
        let mut names = app.serving().hosting().names();
        names.pop().filter(|_| names.is_empty())
    })
}

/// `POST /invocations/{endpoint}`
pub(crate) async fn invoke(
    State(app): State<App>,
    Path(endpoint): Path<EndpointName>,
    headers: HeaderMap,
    Inflated(bytes): Inflated,
) -> Result<Response, ApiError> {
    let (kind, content_type) = kind(&headers)?;
    let id = headers
        .get("x-request-id")
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let scoring = Scoring {
        only_floats: false,
        kind,
        content_type,
        bytes,
        id,
        timeout: None,
        parameters: Map::new(),
    };
    let target = Target::of(&app, &endpoint, None)?;
    match score(&app, target, scoring).await.map_err(as_mlflow)? {
        Scored::Table { response } => Ok(Json(reply::of_table(&response)).into_response()),
        Scored::Hosted { answer, whole } => match answer.payload {
            // What is no JSON is the model's to name.
            Payload::Body { content_type, bytes } if whole || !content_type.contains("json") => {
                Ok(([(header::CONTENT_TYPE, content_type)], bytes).into_response())
            }
            payload => Ok(Json(reply::whole(&payload)?).into_response()),
        },
    }
}

/// MLflow's own server takes what a model raises for the caller's fault, and says where it was raised.
fn as_mlflow(error: ApiError) -> ApiError {
    match &error.details {
        Some(details) if error.code == "function_raised" && details["stack_trace"].is_string() => ApiError {
            kind: ErrorKind::BadRequest,
            ..error
        },
        _ => error,
    }
}

/// How the body is written. As MLflow's own server, it takes no other character set than UTF-8.
fn kind(headers: &HeaderMap) -> Result<(Kind, String), ApiError> {
    let whole = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    for parameter in whole.split(';').skip(1) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        let utf8 = value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8");
        if name.trim().eq_ignore_ascii_case("charset") && !utf8 {
            return Err(ApiError::unsupported_media_type(format!(
                "the character set is `{value}`: send UTF-8"
            )));
        }
    }
    let name = media_type(headers).unwrap_or_default();
    let kind = match name.as_str() {
        "application/json" => Kind::Json { bare: false },
        "text/csv" => Kind::Csv(Header::There),
        parquet::MEDIA_TYPE => Kind::Parquet,
        other => {
            return Err(ApiError::unsupported_media_type(format!(
                "the content type is `{other}`: send `application/json`, `text/csv` or `{}`",
                parquet::MEDIA_TYPE
            )));
        }
    };
    Ok((kind, whole.to_owned()))
}
