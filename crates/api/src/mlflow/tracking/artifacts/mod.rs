//! Artifacts: the proxy (`mlflow-artifacts/…`), what runs, versions and logged models keep, uploads in parts.

mod content_type;
pub(crate) mod direct;
pub(crate) mod multipart;
pub(crate) mod of_runs;

mod reply;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tidemill_store::objects::Entry;

use super::{Called, Fields};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::interrupted;

/// MLflow's message of what is in a folder; `folder` stands in front of each name.
fn files_json(entries: &[Entry], folder: &str) -> Value {
    let files = entries.iter().map(|entry| {
        let path = if folder.is_empty() {
            entry.name.clone()
        } else {
            format!("{folder}/{}", entry.name)
        };
        match entry.size {
            Some(size) => json!({ "path": path, "is_dir": false, "file_size": size }),
            None => json!({ "path": path, "is_dir": true }),
        }
    });
    files.collect()
}

/// `PUT mlflow-artifacts/artifacts/{*path}`
pub(crate) async fn put(
    State(app): State<App>,
    Called(caller): Called,
    Path(path): Path<String>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let mut upload = app.tracking().upload_artifact(&caller, &path).await?;
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        upload.write(piece.map_err(|error| interrupted(&error))?).await?;
    }
    upload.finish().await?;
    Ok(Json(json!({})))
}

/// `GET mlflow-artifacts/artifacts/{*path}`
pub(crate) async fn get(
    State(app): State<App>,
    Called(caller): Called,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let artifact = app.tracking().artifact(&caller, &path).await?;
    reply::file(artifact, &headers, reply::As::Download)
}

/// `DELETE mlflow-artifacts/artifacts/{*path}`
pub(crate) async fn delete(
    State(app): State<App>,
    Called(caller): Called,
    Path(path): Path<String>,
) -> Result<Json<Value>, ApiError> {
    app.tracking().delete_artifact(&caller, &path).await?;
    Ok(Json(json!({})))
}

/// `GET mlflow-artifacts/artifacts`
pub(crate) async fn list(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let path = fields.text("path")?.unwrap_or_default();
    let entries = app.tracking().list_artifacts(&caller, &path).await?;
    let mut answer = json!({});
    if !entries.is_empty() {
        answer["files"] = files_json(&entries, "");
    }
    Ok(Json(answer))
}
