//! Uploads in parts, and URLs that are signed: `mlflow-artifacts/mpu/…`, `…/parts/…`, `…/presigned/…`, `…/signed/…`.

use std::fmt::Write as _;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tidemill_control::tracking::{PartUrl, SignedDownload, safe_path};

use super::{Called, Fields, reply};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::interrupted;
use crate::mlflow::tracking::form_pairs;

/// This server, as the client calls it: a proxy in front of us says how it was called.
fn own_url(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text("x-forwarded-host").or_else(|| text(header::HOST.as_str()));
    let scheme = text("x-forwarded-proto").unwrap_or("http");
    format!("{scheme}://{}", host.unwrap_or("localhost"))
}

/// A path as it stands in a URL.
fn encoded(path: &str) -> String {
    let mut url = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

/// The folder that the path of a request names, and the file that its body names.
fn target(fields: &Fields) -> Result<(String, String), ApiError> {
    let folder = safe_path(&fields.text("artifact_path")?.unwrap_or_default())?;
    Ok((folder, fields.required_text("path")?))
}

/// `POST mlflow-artifacts/mpu/create/{*artifact_path}`
pub(crate) async fn create(
    State(app): State<App>,
    Called(caller): Called,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let (folder, file) = target(&fields)?;
    let parts = fields.integer("num_parts")?.unwrap_or(1);
    let opened = app.tracking().open_upload(&caller, &folder, &file, parts).await?;
    let base = own_url(&headers);
    let credential = |(index, part): (usize, &PartUrl)| {
        let number = index + 1;
        let id = &opened.id;
        let url = match part {
            PartUrl::Here(token) => {
                format!("{base}/api/2.0/mlflow-artifacts/parts/{id}/{number}?token={token}")
            }
            PartUrl::Bucket(url) => url.clone(),
        };
        json!({ "url": url, "part_number": number, "headers": {} })
    };
    let credentials: Vec<Value> = opened.parts.iter().enumerate().map(credential).collect();
    Ok(Json(
        json!({ "upload_id": opened.id, "credentials": credentials }),
    ))
}

/// `PUT mlflow-artifacts/parts/{upload_id}/{number}`: the token says that the client may.
pub(crate) async fn put_part(
    State(app): State<App>,
    Path((upload, number)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Response, ApiError> {
    let token = argument(query.as_deref(), "token");
    let number = number.parse().unwrap_or(0);
    let mut part = app.tracking().upload_part(&upload, number, &token).await?;
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        part.write(piece.map_err(|error| interrupted(&error))?).await?;
    }
    let etag = format!("\"{}\"", part.finish().await?);
    Ok(([(header::ETAG, etag)], Json(json!({}))).into_response())
}

fn argument(query: Option<&str>, name: &str) -> String {
    let pairs = form_pairs(query.unwrap_or_default());
    let found = pairs.into_iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value).unwrap_or_default()
}

/// `POST mlflow-artifacts/mpu/complete/{*artifact_path}`
pub(crate) async fn complete(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let (folder, file) = target(&fields)?;
    let id = fields.required_text("upload_id")?;
    let mut parts = Vec::new();
    for part in fields.list("parts")? {
        let part = Fields::of(part);
        parts.push((
            part.required_integer("part_number")?,
            part.text("etag")?.unwrap_or_default(),
        ));
    }
    app.tracking()
        .complete_upload(&caller, &folder, &file, &id, &parts)
        .await?;
    Ok(Json(json!({})))
}

/// `POST mlflow-artifacts/mpu/abort/{*artifact_path}`
pub(crate) async fn abort(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let (folder, file) = target(&fields)?;
    let id = fields.required_text("upload_id")?;
    app.tracking().abort_upload(&caller, &folder, &file, &id).await?;
    Ok(Json(json!({})))
}

/// `GET mlflow-artifacts/presigned/{*path}`: a URL that opens the file without saying who asks, for an hour.
pub(crate) async fn presign(
    State(app): State<App>,
    Called(caller): Called,
    headers: HeaderMap,
    Path(path): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (size, url) = match app.tracking().sign_download(&caller, &path).await? {
        SignedDownload::Here { size, path, query } => {
            let (base, path) = (own_url(&headers), encoded(&path));
            (
                size,
                format!("{base}/api/2.0/mlflow-artifacts/signed/{path}?{query}"),
            )
        }
        SignedDownload::Bucket { size, url } => (size, url),
    };
    Ok(Json(json!({ "url": url, "headers": {}, "file_size": size })))
}

/// `GET mlflow-artifacts/signed/{*path}`
pub(crate) async fn get_signed(
    State(app): State<App>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let of = |name: &str| argument(query.as_deref(), name);
    let (workspace, until, token) = (of("workspace"), of("until"), of("token"));
    let artifact = app
        .tracking()
        .signed_artifact(&workspace, &path, &until, &token)
        .await?;
    reply::file(artifact, &headers, reply::As::Download)
}
