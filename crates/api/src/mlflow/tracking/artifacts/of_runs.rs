//! What runs, model versions and logged models keep, by their ids.

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde_json::{Value, json};
use tidemill_control::tracking::{TrackingError, safe_name, safe_path};

use super::{Called, Fields, files_json, reply};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::mlflow::tracking::form_pairs;

/// The largest file that the page uploads.
const MAX_UPLOAD: usize = 10 * 1024 * 1024;

/// A run's id, under its present or its old name.
fn run_id(fields: &Fields) -> Result<String, ApiError> {
    match fields.text("run_id")?.filter(|id| !id.is_empty()) {
        Some(id) => Ok(id),
        None => match fields.text("run_uuid")?.filter(|id| !id.is_empty()) {
            Some(id) => Ok(id),
            None => Ok(fields.required_text("run_id")?),
        },
    }
}

/// Beyond MLflow: with `inline=true` a browser shows the file in a frame instead of saving it.
fn taken(fields: &Fields) -> Result<reply::As, ApiError> {
    Ok(match fields.text("inline")?.as_deref() {
        Some("true") => reply::As::Preview,
        _ => reply::As::Download,
    })
}

/// `GET artifacts/list`
pub(crate) async fn list(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let path = safe_path(&fields.text("path")?.unwrap_or_default())?;
    let root = app
        .tracking()
        .artifact_root_of_run(&caller, &run_id(&fields)?)
        .await?;
    let entries = app.tracking().artifacts_of(&caller, &root, &path).await?;
    Ok(Json(listing(&root, &entries, &path)))
}

fn listing(root: &str, entries: &[tidemill_store::objects::Entry], path: &str) -> Value {
    let mut answer = json!({ "root_uri": root });
    if !entries.is_empty() {
        answer["files"] = files_json(entries, path);
    }
    answer
}

/// `GET /get-artifact`
pub(crate) async fn get(
    State(app): State<App>,
    Called(caller): Called,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, ApiError> {
    let path = safe_name(&fields.required_text("path")?)?;
    let root = app
        .tracking()
        .artifact_root_of_run(&caller, &run_id(&fields)?)
        .await?;
    let artifact = app.tracking().artifact_of(&caller, &root, &path).await?;
    reply::file(artifact, &headers, taken(&fields)?)
}

/// `GET /model-versions/get-artifact`
pub(crate) async fn get_of_version(
    State(app): State<App>,
    Called(caller): Called,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, ApiError> {
    let path = safe_name(&fields.required_text("path")?)?;
    let (name, version) = (fields.required_text("name")?, fields.required_text("version")?);
    let root = app
        .tracking()
        .artifact_root_of_version(&caller, &name, &version)
        .await?;
    let artifact = app.tracking().artifact_of(&caller, &root, &path).await?;
    reply::file(artifact, &headers, taken(&fields)?)
}

/// `GET logged-models/{model_id}/artifacts/files`
pub(crate) async fn get_of_model(
    State(app): State<App>,
    Called(caller): Called,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, ApiError> {
    let Some(path) = fields.text("artifact_file_path")?.filter(|path| !path.is_empty()) else {
        return Err(ApiError::bad_request(
            "bad_query",
            "Request must include the \"artifact_file_path\" query parameter.",
        ));
    };
    let path = safe_name(&path)?;
    let id = fields.required_text("model_id")?;
    let model = app.tracking().logged_model(&caller, &id, false).await?;
    let artifact = app
        .tracking()
        .artifact_of(&caller, &model.artifact_location, &path)
        .await?;
    reply::file(artifact, &headers, taken(&fields)?)
}

/// `GET logged-models/{model_id}/artifacts/directories`
pub(crate) async fn list_of_model(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let path = safe_path(&fields.text("artifact_directory_path")?.unwrap_or_default())?;
    let id = fields.required_text("model_id")?;
    let model = app.tracking().logged_model(&caller, &id, false).await?;
    let root = &model.artifact_location;
    let entries = app.tracking().artifacts_of(&caller, root, &path).await?;
    Ok(Json(listing(root, &entries, &path)))
}

/// A page of another site may send a body of any simple type without asking; a browser says so.
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(host)) = (text(header::ORIGIN), text(header::HOST)) else {
        return Ok(());
    };
    let authority = origin
        .split_once("://")
        .map_or(origin, |(_, authority)| authority);
    if authority.eq_ignore_ascii_case(host) {
        return Ok(());
    }
    Err(ApiError::from(TrackingError::Denied(format!(
        "a page of `{origin}` may not upload artifacts here"
    ))))
}

/// `POST upload-artifact`
pub(crate) async fn upload(
    State(app): State<App>,
    Called(caller): Called,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    refuse_other_sites(&headers)?;
    let pairs = form_pairs(query.as_deref().unwrap_or_default());
    let argument = |name: &str| {
        let given = pairs.iter().find(|(key, value)| key == name && !value.is_empty());
        let value = given.map(|(_, value)| value.as_str());
        value.ok_or_else(|| TrackingError::invalid(format!("Request must specify {name}.")))
    };
    let run = argument("run_uuid")?;
    let path = safe_name(argument("path")?)?;
    let Ok(data) = axum::body::to_bytes(body, MAX_UPLOAD).await else {
        return Err(TrackingError::invalid("Artifact size is too large. Max size is 10MB.").into());
    };
    if data.is_empty() {
        return Err(TrackingError::invalid("Request must specify data.").into());
    }
    let root = app.tracking().artifact_root_of_run(&caller, run).await?;
    let mut upload = app.tracking().upload_artifact_of(&caller, &root, &path).await?;
    upload.write(data).await?;
    upload.finish().await?;
    Ok(Json(json!({})))
}
