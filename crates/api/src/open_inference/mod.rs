//! The Open Inference Protocol v2 over HTTP, <https://github.com/kserve/open-inference-protocol>, with what Triton adds to it: binary
//! tensors, classification, statistics, the repository, configurations, shared memory, generation. A model is an endpoint of the loop or a
//! deployment; a version is one that is loaded behind it; for an endpoint of the loop a tensor is a feature column.
//!
//! - [`infer`]: a prediction; [`reading`], [`raw`] and [`writing`]: its request and its answer.
//! - [`generate`]: a prediction without tensors, in one piece or as a stream.
//! - [`about`]: health, metadata, configuration, statistics; [`repository`], [`settings`], [`memory`]: the extensions of these names.

pub(crate) mod about;
pub(crate) mod generate;
pub(crate) mod infer;
pub(crate) mod memory;
mod raw;
mod reading;
pub(crate) mod repository;
pub(crate) mod settings;
mod writing;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use tidemill_core::ids::{EndpointName, VersionNumber};

use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{media_type, parse_json, version_number};
use crate::infer::Target;

/// Says how much of a body is JSON, where the bytes of tensors follow it.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Which model, and which version of it, a path names.
#[derive(Deserialize)]
pub(crate) struct ModelPath {
    model: EndpointName,
    #[serde(default)]
    version: Option<String>,
}

impl ModelPath {
    fn version(&self) -> Result<Option<VersionNumber>, ApiError> {
        self.version.as_deref().map(version_number).transpose()
    }

    fn target(&self, app: &App) -> Result<Target, ApiError> {
        Target::of(app, &self.model, self.version()?)
    }
}

/// How much of the body is JSON, where the client says so. None of it: the body is the only tensor of the model.
fn header_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(value) = headers.get(HEADER_LENGTH) else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    match length {
        Some(length) => Ok(Some(length)),
        None => Err(ApiError::bad_request(
            "bad_tensor",
            format!(
                "`Inference-Header-Content-Length` is `{}`, expected how many bytes of the body are JSON",
                value.to_str().unwrap_or_default()
            ),
        )),
    }
}

/// JSON is read under its own type, without any (as clients of Triton send it), and as bytes that say how much of them is JSON.
fn check_type(headers: &HeaderMap, binary: bool) -> Result<(), ApiError> {
    let json = |value: &HeaderValue| value.as_bytes() == b"application/json";
    if binary || headers.get(header::CONTENT_TYPE).is_none_or(json) {
        return Ok(());
    }
    match media_type(headers).as_deref() {
        None | Some("application/json" | "") => Ok(()),
        // curl names this type by itself, as does tritonclient for a compressed body.
        Some("application/octet-stream" | "application/x-www-form-urlencoded") => Ok(()),
        Some(other) => Err(ApiError::unsupported_media_type(format!(
            "the content type is `{other}`: send `application/json`"
        ))),
    }
}

/// An object that may be left out.
fn optional_object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    parse_json(body)
}
