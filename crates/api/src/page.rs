//! The page: static files from `ui/`, and `index.html` for every address that the page itself understands.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::auth;
use crate::control_plane::App;
use crate::error::{ApiError, Protocol};
use crate::mlflow::tracking::Called;
use crate::wandb::addresses;

#[derive(RustEmbed)]
#[folder = "../../ui/"]
struct Files;

const POLICY: &str = "default-src 'self'";

/// Every path that no route has: a file, the page, or an error in the shape of the protocol that the path belongs to.
pub(crate) async fn fallback(
    State(app): State<App>,
    Called(caller): Called,
    known: auth::Caller,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let path = uri.path();
    if Protocol::of_path(path).is_some() {
        return Err(ApiError::unknown_route(method.as_str(), path));
    }
    if method != Method::GET && method != Method::HEAD {
        return Err(ApiError::method_not_allowed(method.as_str(), path));
    }
    let name = path.trim_start_matches('/');
    if let Some((file, kind)) = file(name) {
        return Ok(file_response(&file, kind, &headers));
    }
    // A script or a style that is not there must not come back as a page.
    if content_type(name).is_some() {
        return Err(ApiError::not_found(
            "unknown_file",
            format!("there is no file `{path}`"),
        ));
    }
    if let Some(page) = addresses::lead(&app, &caller, known.0.as_deref(), path).await? {
        return Ok(page);
    }
    match file("index.html") {
        Some((index, kind)) => Ok(file_response(&index, kind, &headers)),
        None => Err(ApiError::not_found(
            "no_page",
            "this build carries no page: the API is at `/api/v1`",
        )),
    }
}

fn file(name: &str) -> Option<(EmbeddedFile, &'static str)> {
    // Only what the page is made of: notes and settings beside it are nobody's business.
    let kind = content_type(name)?;
    Some((Files::get(name)?, kind))
}

fn content_type(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    Some(match ending {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "webmanifest" => "application/manifest+json",
        _ => return None,
    })
}

fn file_response(file: &EmbeddedFile, kind: &'static str, request: &HeaderMap) -> Response {
    let tag = etag(file);
    let known = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|candidate| candidate.trim().trim_start_matches("W/") == tag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        file.data.clone().into_owned().into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // The names do not change with the content, so a browser asks each time and mostly hears 304.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn etag(file: &EmbeddedFile) -> String {
    let mut tag = String::from("\"");
    for byte in file.metadata.sha256_hash().iter().take(16) {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}
