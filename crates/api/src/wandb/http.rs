//! The HTTP of W&B's client.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidemill_control::tracking::wandb::{Chunk, FileStream, name_of};
use tidemill_control::tracking::{Caller, TrackingError};
use tidemill_control::users::Principal;

use super::{Tracks, name_in};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{Body as Bytes, interrupted, parse_json};
use crate::mlflow::tracking::{Called, Fields};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GraphQl {
    #[serde(default)]
    operation_name: Option<String>,
    #[serde(default)]
    query: String,
    #[serde(default)]
    variables: Option<Map<String, Value>>,
}

/// What is answered to an operation of W&B's client; none if the body holds no such operation. Its client is told in GraphQL's way
/// of what is not known here: MLflow's errors are texts, which it cannot read.
pub(crate) async fn graphql(
    app: &App,
    caller: &Caller,
    known: Option<&Principal>,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<Response> {
    let asked: GraphQl = serde_json::from_slice(body).ok()?;
    let name = asked
        .operation_name
        .as_deref()
        .filter(|name| !name.is_empty())
        .or_else(|| name_in(&asked.query))?;
    let variables = asked.variables.unwrap_or_default();
    let answered = if super::may_track(known, &caller.workspace) {
        super::graphql(app, caller, &origin(headers), (name, &asked.query), &variables).await
    } else {
        is_wandb(headers).then(|| super::failed(name, &super::denied(&caller.workspace)))
    };
    let (status, answer) = match answered {
        Some(answered) => answered,
        None if is_wandb(headers) => {
            tracing::debug!(operation = name, "unknown operation of W&B's client");
            let message = format!("the operation `{name}` is not known here");
            (200, json!({ "data": null, "errors": [{ "message": message }] }))
        }
        None => return None,
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Some((status, Json(answer)).into_response())
}

/// Whether W&B's client asks: all of it sends this header, be it empty.
fn is_wandb(headers: &HeaderMap) -> bool {
    headers.contains_key("x-wandb-username")
}

/// Scheme and host by which the client reached us: the URLs that it is given must lead the same way.
fn origin(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = text("x-forwarded-proto").unwrap_or("http");
    let host = text("x-forwarded-host")
        .or_else(|| text("host"))
        .unwrap_or("localhost");
    format!("{scheme}://{host}")
}

#[derive(Deserialize)]
struct Sent {
    #[serde(default)]
    files: Option<Map<String, Value>>,
    #[serde(default)]
    complete: Option<bool>,
    #[serde(default)]
    exitcode: Option<i64>,
}

/// `POST /files/{entity}/{project}/{run}/file_stream`
pub(crate) async fn file_stream(
    State(app): State<App>,
    Tracks(caller): Tracks,
    Path((entity, project, run)): Path<(String, String, String)>,
    Bytes(body): Bytes,
) -> Result<Json<Value>, ApiError> {
    let sent: Sent = parse_json(&body)?;
    let mut chunks = Vec::new();
    for (file, chunk) in sent.files.into_iter().flatten() {
        let lines = chunk
            .get("content")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        chunks.push(Chunk {
            file,
            offset: chunk.get("offset").and_then(Value::as_i64).unwrap_or(0).max(0),
            lines: lines
                .filter_map(|line| line.as_str().map(str::to_owned))
                .collect(),
        });
    }
    let stream = FileStream {
        chunks,
        complete: sent.complete.unwrap_or(false),
        exit_code: sent.exitcode,
    };
    let at = name_of(&caller, Some(&entity), Some(&project), &run);
    let answer = app.tracking().wandb_stream(at, stream).await?;
    Ok(Json(
        json!({ "exitcode": null, "limits": {}, "stopped": answer.stopped }),
    ))
}

/// `PUT /wandb/upload/{token}`
pub(crate) async fn upload(
    State(app): State<App>,
    Path(token): Path<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let mut upload = app.tracking().wandb_upload(&token).await?;
    let mut pieces = request.into_body().into_data_stream();
    while let Some(piece) = pieces.next().await {
        upload.write(piece.map_err(|error| interrupted(&error))?).await?;
    }
    app.tracking().wandb_keep(upload).await?;
    Ok(StatusCode::OK)
}

/// `GET /wandb/download/{token}`
pub(crate) async fn download(
    State(app): State<App>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut bytes = app.tracking().wandb_read(&token).await?;
    let size = bytes.size();
    let mut response_headers = HeaderMap::new();
    let mut set = |name, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response_headers.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, "application/octet-stream".to_owned());
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    let (mut status, mut length) = (StatusCode::OK, size);
    if let Some((from, to)) = range(&headers, size) {
        bytes.only(from, to);
        set(header::CONTENT_RANGE, format!("bytes {from}-{}/{size}", to - 1));
        (status, length) = (StatusCode::PARTIAL_CONTENT, to - from);
    }
    set(header::CONTENT_LENGTH, length.to_string());
    let pieces = futures::stream::unfold(bytes, |mut bytes| async move {
        match bytes.next().await {
            Ok(Some(piece)) => Some((Ok(piece), bytes)),
            Ok(None) => None,
            Err(error) => Some((Err(error), bytes)),
        }
    });
    Ok((status, response_headers, Body::from_stream(pieces)).into_response())
}

/// The bytes that a `Range` header asks for, its end not among them; none where it asks for all, or for what is not there.
fn range(headers: &HeaderMap, size: u64) -> Option<(u64, u64)> {
    let asked = headers
        .get(header::RANGE)?
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?;
    let (from, to) = asked.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let to = if to.is_empty() {
        size
    } else {
        to.parse::<u64>().ok()?.saturating_add(1).min(size)
    };
    (from < to).then_some((from, to))
}

/// `GET /api/v1/tracking/artifact-lineage`
pub(crate) async fn artifact_lineage(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let run_id = fields.required_text("run_id")?;
    let lineage = app.tracking().artifact_lineage(&caller, &run_id).await?;
    let side = |views: &[(tidemill_control::tracking::wandb::ArtifactView, Vec<String>)],
                name: &str|
     -> Vec<Value> {
        let listed = views.iter().map(|(view, runs)| {
            let mut shown = view.to_json();
            shown[name] = json!(runs);
            shown
        });
        listed.collect()
    };
    Ok(Json(json!({
        "run_id": run_id,
        "inputs": side(&lineage.inputs, "written_by"),
        "outputs": side(&lineage.outputs, "read_by"),
    })))
}

/// `GET /api/v1/tracking/console`: what a run of W&B's client printed, from a line on.
pub(crate) async fn console(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    const PAGE: i64 = 1_000;
    let run_id = fields.required_text("run_id")?;
    let from = fields.integer("from")?.unwrap_or(0);
    let limit = fields.integer("limit")?.unwrap_or(PAGE);
    if !(1..=10_000).contains(&limit) {
        return Err(TrackingError::invalid("`limit` must lie between 1 and 10000").into());
    }
    let lines = app
        .tracking()
        .wandb_console(&caller, &run_id, from, limit as u32)
        .await?;
    let lines: Vec<Value> = lines
        .into_iter()
        .map(|(line, text)| json!({ "line": line, "text": text }))
        .collect();
    Ok(Json(json!({ "run_id": run_id, "lines": lines })))
}
