//! The SageMaker runtime, as `boto3.client("sagemaker-runtime", endpoint_url=…)` speaks it: an endpoint's name is ours, a variant is a
//! version or a role. <https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Operations_Amazon_SageMaker_Runtime.html>
//!
//! - here: what all calls share, and an answer in one piece; [`stream`]: in frames; [`background`]: into a file; [`explain`]: with
//!   explanations; [`control`]: batch transform.
//!
//! What a container of a model answers to SageMaker itself (`/ping`, `/invocations`) is MLflow's protocol, which is the same.

pub(crate) mod background;
pub(crate) mod control;
mod explain;
pub(crate) mod stream;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tidemill_core::ids::{self, EndpointName, VersionNumber};
use tidemill_core::servable::Payload;

use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::Inflated;
use crate::infer::Target;
use crate::infer::explain::no_model_answered;
use crate::infer::forms::csv::Header;
use crate::infer::forms::{parquet, reply};
use crate::infer::score::{Kind, Scored, Scoring, score};

const VARIANT: &str = "x-amzn-sagemaker-target-variant";
const ATTRIBUTES: &str = "x-amzn-sagemaker-custom-attributes";
const INFERENCE_ID: &str = "x-amzn-sagemaker-inference-id";
const SESSION: &str = "x-amzn-sagemaker-session-id";
const INVOKED: &str = "x-amzn-invoked-production-variant";

/// `POST /endpoints/{name}/invocations`
pub(crate) async fn invoke(
    State(app): State<App>,
    Path(name): Path<EndpointName>,
    headers: HeaderMap,
    Inflated(bytes): Inflated,
) -> Result<Response, ApiError> {
    let target = target(&app, &name, &headers)?;
    let accept = text(&headers, header::ACCEPT.as_str()).unwrap_or_default();
    let content_type = text(&headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let scoring = scoring(&headers, content_type, bytes);
    let explained = explain::wanted(&headers)?;
    let again = explained.map(|_| scoring.clone());
    let (variant, scored) = scored(&app, target, scoring).await?;
    let version = explain::version(&scored);
    let (mut kind, mut body) = answer(scored, accept)?;
    if let Some(scoring) = again {
        let target = match explained {
            Some(true) if version == Some(VersionNumber::DEFAULT) => {
                return Err(no_model_answered(name.as_str()));
            }
            Some(true) => Some(Target::of(&app, &name, version)?),
            _ => None,
        };
        body = explain::body(&app, target, scoring, (&kind, &body)).await?;
        "application/json".clone_into(&mut kind);
    }
    let mut response = ([(header::CONTENT_TYPE, kind)], body).into_response();
    let said = response.headers_mut();
    said.insert(INVOKED, value(&variant));
    if let Some(attributes) = headers.get(ATTRIBUTES) {
        said.insert(ATTRIBUTES, attributes.clone());
    }
    match text(&headers, SESSION) {
        Some("NEW_SESSION") => {
            said.insert("x-amzn-sagemaker-new-session-id", value(&ids::fresh(app.now())));
        }
        Some(session) => {
            said.insert(SESSION, value(session));
        }
        None => {}
    }
    Ok(response)
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn wrong(message: String) -> ApiError {
    ApiError::bad_request("bad_request_header", message)
}

/// What is asked: the endpoint, or the variant of it that the request names.
fn target(app: &App, name: &EndpointName, headers: &HeaderMap) -> Result<Target, ApiError> {
    for unknown in [
        "x-amzn-sagemaker-target-model",
        "x-amzn-sagemaker-target-container-hostname",
        "x-amzn-sagemaker-inference-component",
    ] {
        if let Some(asked) = text(headers, unknown) {
            return Err(wrong(format!(
                "`{unknown}: {asked}`: every model here is an endpoint of its own, so name it in the path"
            )));
        }
    }
    let target = Target::of(app, name, None)?;
    let version = match text(headers, VARIANT) {
        None | Some("" | "AllTraffic") => return Ok(target),
        Some(variant) => version(&target, variant)?,
    };
    match version {
        None => Ok(target),
        Some(version) => {
            let target = Target::of(app, name, Some(version))?;
            target.check_version(app)?;
            Ok(target)
        }
    }
}

/// The version that a variant is: its number, or the one in a role.
fn version(target: &Target, variant: &str) -> Result<Option<VersionNumber>, ApiError> {
    if let Ok(number) = variant.parse() {
        return Ok(Some(VersionNumber(number)));
    }
    let role = match target {
        Target::Hosted(_) if variant == "champion" => return Ok(None),
        Target::Hosted(_) => None,
        Target::Table(call) => {
            let route = &call.route;
            match variant {
                "champion" => route.champion.as_ref().map(|deployment| deployment.version),
                "canary" => route.canary.as_ref().map(|canary| canary.deployment.version),
                "previous" => route.previous.as_ref().map(|deployment| deployment.version),
                _ => None,
            }
        }
    };
    role.map(Some).ok_or_else(|| {
        ApiError::not_found(
            "unknown_version",
            format!("there is no variant `{variant}`: name a version's number, `champion`, or `canary` while there is one"),
        )
    })
}

/// How a body of a type is read.
pub(crate) fn kind(content_type: &str, bytes: &[u8]) -> Kind {
    let bare = content_type.split(';').next().unwrap_or_default().trim();
    let header = content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("header")
            .then(|| value.trim().to_owned())
    });
    match bare.to_ascii_lowercase().as_str() {
        // boto3 names this type where nobody says another.
        "" | "application/json" | "application/octet-stream" | "binary/octet-stream"
            if starts_json(bytes) =>
        {
            Kind::Json { bare: true }
        }
        "application/json" => Kind::Json { bare: true },
        "application/jsonlines" | "application/x-jsonlines" => Kind::JsonLines,
        "text/csv" => Kind::Csv(match header.as_deref() {
            Some("present") => Header::There,
            Some("absent") => Header::Absent,
            _ => Header::IfKnown,
        }),
        parquet::MEDIA_TYPE | "application/x-parquet" => Kind::Parquet,
        _ => Kind::Opaque,
    }
}

/// The body, and what travels beside it.
fn scoring(headers: &HeaderMap, content_type: &str, bytes: Bytes) -> Scoring {
    let kind = kind(content_type, &bytes);
    let bare = content_type.split(';').next().unwrap_or_default().trim();
    Scoring {
        only_floats: false,
        kind,
        content_type: if bare.is_empty() {
            "application/octet-stream".to_owned()
        } else {
            content_type.to_owned()
        },
        bytes,
        id: text(headers, INFERENCE_ID).map(str::to_owned),
        timeout: None,
        parameters: parameters(headers),
    }
}

/// What goes to the model beside the body.
fn parameters(headers: &HeaderMap) -> Map<String, Value> {
    let mut parameters = Map::new();
    for (header, name) in [(ATTRIBUTES, "custom_attributes"), (SESSION, "session_id")] {
        if let Some(text) = text(headers, header) {
            parameters.insert(name.to_owned(), json!(text));
        }
    }
    parameters
}

fn starts_json(bytes: &[u8]) -> bool {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, Some(b'{' | b'['))
}

/// Asks; beside the answer the variant that gave it.
async fn scored(app: &App, target: Target, scoring: Scoring) -> Result<(String, Scored), ApiError> {
    let scored = score(app, target, scoring).await?;
    let variant = match &scored {
        Scored::Table { response } => response
            .roles
            .first()
            .map_or_else(String::new, |role| role.name().to_owned()),
        Scored::Hosted { answer, .. } => answer.version.to_string(),
    };
    Ok((variant, scored))
}

/// What is accepted, the most wanted first, without what is not wanted at all.
fn by_preference(accept: &str) -> Vec<&str> {
    let quality_of = |entry: &str| -> f64 {
        let quality = entry
            .split(';')
            .skip(1)
            .find_map(|part| part.trim().strip_prefix("q="));
        quality.and_then(|text| text.trim().parse().ok()).unwrap_or(1.0)
    };
    let mut kinds: Vec<(&str, f64)> = accept
        .split(',')
        .map(|kind| {
            (
                kind.split(';').next().unwrap_or_default().trim(),
                quality_of(kind),
            )
        })
        .filter(|(_, quality)| *quality > 0.0)
        .collect();
    kinds.sort_by(|a, b| b.1.total_cmp(&a.1));
    kinds.into_iter().map(|(kind, _)| kind).collect()
}

/// Whether another way of writing predictions than JSON is wanted.
fn wants_lines(accept: &str) -> bool {
    let known = [
        "text/csv",
        "application/jsonlines",
        "application/x-jsonlines",
        "application/json",
    ];
    let wanted = by_preference(accept)
        .into_iter()
        .find(|kind| known.contains(kind));
    wanted.is_some_and(|kind| kind != "application/json")
}

/// The answer in the type that is accepted: JSON, unless the client wants CSV or lines of JSON.
pub(crate) fn answer(scored: Scored, accept: &str) -> Result<(String, Bytes), ApiError> {
    let (whole, by_row) = match scored {
        Scored::Table { response } => (Value::Object(reply::of_table(&response)), None),
        Scored::Hosted { answer, whole } => match answer.payload {
            Payload::Body { content_type, bytes } if !whole || !wants_lines(accept) => {
                return Ok((content_type, bytes));
            }
            payload @ Payload::Body { .. } => (reply::whole(&payload)?, None),
            payload @ Payload::Tensors(_) => (reply::whole(&payload)?, Some(reply::rows(&payload)?)),
        },
    };
    // A line of an answer is a row of it.
    let predictions = by_row.as_ref().unwrap_or(&whole["predictions"]);
    for kind in by_preference(accept) {
        match kind {
            "text/csv" => return Ok((kind.to_owned(), reply::csv_lines(predictions).into())),
            "application/jsonlines" | "application/x-jsonlines" => {
                return Ok((kind.to_owned(), reply::json_lines(predictions).into()));
            }
            "application/json" => break,
            _ => {}
        }
    }
    Ok(("application/json".to_owned(), whole.to_string().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_comes_by_its_quality_and_then_by_its_place() {
        assert_eq!(
            by_preference("application/json;q=0.2, text/csv; header=absent;q=0.9, a/b;q=0, c/d;q=0.2"),
            ["text/csv", "application/json", "c/d"]
        );
        assert_eq!(by_preference("text/csv"), ["text/csv"]);
    }
}
