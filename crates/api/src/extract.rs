//! Bodies, queries and path segments, with errors that name the place.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidemill_core::ids::VersionNumber;

use crate::error::ApiError;

/// The largest body that is read.
pub(crate) const BODY_LIMIT: usize = 64 * 1024 * 1024;

/// The body of a request, at most [`BODY_LIMIT`] long.
pub(crate) struct Body(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        Self::read(request.into_body()).await
    }
}

impl Body {
    /// Reads a body to its end.
    pub(crate) async fn read(body: axum::body::Body) -> Result<Self, ApiError> {
        match axum::body::to_bytes(body, BODY_LIMIT).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(error) if is_length_limit(&error) => Err(ApiError::too_large(BODY_LIMIT)),
            Err(error) => Err(interrupted(&error)),
        }
    }
}

/// A body whose client went away, or paused too long.
pub(crate) fn interrupted(error: &axum::Error) -> ApiError {
    ApiError::bad_request(
        "body_interrupted",
        format!("the body could not be read to its end: {error}"),
    )
}

/// The body of a request as it was before it was compressed, by gzip or deflate (zlib's form): at most [`BODY_LIMIT`] long, however
/// small it came.
pub(crate) struct Inflated(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Inflated {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let coding = request.headers().get(header::CONTENT_ENCODING).cloned();
        let body = Body::from_request(request, state).await?;
        Self::of(body, coding.as_ref()).await
    }
}

impl Inflated {
    /// What a body was, by the header that says how it was compressed.
    pub(crate) async fn of(
        Body(bytes): Body,
        coding: Option<&header::HeaderValue>,
    ) -> Result<Self, ApiError> {
        let Some(coding) = coding else {
            return Ok(Self(bytes));
        };
        let coding = coding.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        let inflate = move || inflated(&coding, bytes);
        // A small body may hold a large one.
        tokio::task::spawn_blocking(inflate)
            .await
            .map_err(|error| ApiError::internal("internal", format!("inflating the body failed: {error}")))?
            .map(Self)
    }
}

fn inflated(coding: &str, bytes: Bytes) -> Result<Bytes, ApiError> {
    let mut whole = Vec::new();
    // One more than may be, to tell what is too long.
    let most = BODY_LIMIT as u64 + 1;
    let read = match coding {
        "" | "identity" => return Ok(bytes),
        "gzip" | "x-gzip" => flate2::read::MultiGzDecoder::new(&bytes[..])
            .take(most)
            .read_to_end(&mut whole),
        "deflate" => flate2::read::ZlibDecoder::new(&bytes[..])
            .take(most)
            .read_to_end(&mut whole),
        other => {
            return Err(ApiError::unsupported_media_type(format!(
                "the content encoding is `{other}`: send `gzip`, `deflate` or none"
            )));
        }
    };
    if whole.len() > BODY_LIMIT {
        return Err(ApiError::too_large(BODY_LIMIT));
    }
    match read {
        Ok(_) => Ok(whole.into()),
        Err(error) => Err(ApiError::bad_request(
            "bad_encoding",
            format!("the body says it is `{coding}`, and cannot be read as that: {error}"),
        )),
    }
}

/// Answers shorter than this are not compressed: it would cost more than it saves.
const WORTH_COMPRESSING: usize = 1024;

/// The body of an answer, compressed where it pays and the client takes it, with the name of how.
pub(crate) fn deflated(request: &HeaderMap, body: Vec<u8>) -> (Option<&'static str>, Vec<u8>) {
    if body.len() < WORTH_COMPRESSING {
        return (None, body);
    }
    let Some(accepted) = request
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
    else {
        return (None, body);
    };
    let takes = |wanted: &str| {
        accepted.split(',').any(|one| {
            let (name, quality) = one.split_once(';').unwrap_or((one, ""));
            name.trim().eq_ignore_ascii_case(wanted) && quality.trim() != "q=0"
        })
    };
    let level = flate2::Compression::fast();
    let capacity = body.len() / 2;
    let written = if takes("gzip") {
        let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(capacity), level);
        encoder
            .write_all(&body)
            .and_then(|()| encoder.finish())
            .map(|bytes| ("gzip", bytes))
    } else if takes("deflate") {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::with_capacity(capacity), level);
        encoder
            .write_all(&body)
            .and_then(|()| encoder.finish())
            .map(|bytes| ("deflate", bytes))
    } else {
        return (None, body);
    };
    match written {
        Ok((name, bytes)) => (Some(name), bytes),
        // Writing into memory does not fail.
        Err(_) => (None, body),
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if inner.to_string().contains("length limit") {
            return true;
        }
        source = inner.source();
    }
    false
}

/// A JSON body of our own protocol. The content type must say so: a browser then asks before a foreign page may send it.
pub(crate) struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let media_type = media_type(request.headers());
        if media_type.as_deref() != Some("application/json") {
            return Err(ApiError::unsupported_media_type(format!(
                "the content type is `{}`: send `application/json`",
                media_type.unwrap_or_default()
            )));
        }
        let Body(bytes) = Body::from_request(request, state).await?;
        parse_json(&bytes).map(Self)
    }
}

/// A query string; unknown and ill-typed parameters are refused by name.
pub(crate) struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Query::<T>::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|rejection| {
                let reason = std::error::Error::source(&rejection)
                    .map_or_else(|| rejection.body_text(), ToString::to_string);
                ApiError::bad_request("bad_query", format!("the query string does not fit: {reason}"))
            })
    }
}

/// The content type without its parameters, in lower case; `None` where none is given.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let bare = value.split(';').next().unwrap_or(value);
    Some(bare.trim().to_ascii_lowercase())
}

/// Parses JSON; an error says line and column, and what was expected there.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::bad_request(
            "malformed_json",
            "the body is empty: send a JSON object",
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| json_error(&error, bytes))
}

fn json_error(error: &serde_json::Error, bytes: &[u8]) -> ApiError {
    let (line, column) = (error.line(), error.column());
    let details = json!({ "line": line, "column": column });
    let full = error.to_string();
    let suffix = format!(" at line {line} column {column}");
    let reason = full.strip_suffix(&suffix).unwrap_or(&full);
    let place = format!("line {line}, column {column}");
    if error.is_data() {
        return ApiError::bad_request("bad_body", format!("the body does not fit at {place}: {reason}"))
            .with_details(details);
    }
    let mut message = format!("the body is not valid JSON at {place}: {reason}");
    if let Some(word) = python_constant(bytes, line, column) {
        // Python's json.dumps writes these, and they are the commonest cause.
        let _ = write!(message, " (`{word}` is not JSON: a missing value is `null`)");
    }
    ApiError::bad_request("malformed_json", message).with_details(details)
}

/// The constant at an error's place that Python writes and JSON does not know.
fn python_constant(bytes: &[u8], line: usize, column: usize) -> Option<&'static str> {
    let text = bytes.split(|&b| b == b'\n').nth(line.checked_sub(1)?)?;
    // serde_json points at the last byte it has read, which lies within the word.
    let from = column.saturating_sub(2).min(text.len());
    ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| {
        text[from..].starts_with(word.as_bytes())
            || text[from..]
                .get(1..)
                .is_some_and(|rest| rest.starts_with(word.as_bytes()))
    })
}

/// A version's number in a path.
pub(crate) fn version_number(text: &str) -> Result<VersionNumber, ApiError> {
    text.parse().map(VersionNumber).map_err(|_| {
        ApiError::bad_request(
            "bad_version",
            format!("version `{text}` is not a number: expected one such as `3`"),
        )
    })
}

/// Reads one item of a list; the error says which.
pub(crate) fn parse_item<T: DeserializeOwned>(item: Value, place: &str) -> Result<T, ApiError> {
    serde_json::from_value(item).map_err(|error| {
        ApiError::bad_request("bad_body", format!("`{place}` does not fit: {error}"))
            .with_details(json!({ "field": place }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_json_is_reported_with_its_place() {
        let error = parse_json::<Value>(b"{\"a\": 1,\n \"b\": }").unwrap_err();
        assert_eq!(error.code, "malformed_json");
        assert_eq!(
            error.message,
            "the body is not valid JSON at line 2, column 7: expected value"
        );
        assert_eq!(error.details, Some(json!({"line": 2, "column": 7})));
    }

    #[test]
    fn pythons_nan_gets_a_hint() {
        for body in ["[1.0, NaN]", "[NaN]", "[1,Infinity]", "[-Infinity]"] {
            let error = parse_json::<Value>(body.as_bytes()).unwrap_err();
            assert!(
                error.message.contains("missing value is `null`"),
                "{body}: {error}"
            );
        }
    }
}
