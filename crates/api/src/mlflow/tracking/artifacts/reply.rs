//! A file as an answer: streamed, whole or in part, and harmless: a page or a picture that somebody uploaded runs no script on our
//! origin.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidemill_control::tracking::Artifact;

use super::content_type;
use crate::error::ApiError;

/// What part of a file is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    All,
    /// From one byte to another, which is not among them.
    Part(u64, u64),
    /// A part that the file does not have.
    Nothing,
}

/// Reads a `Range` header. One that is not understood, or asks for several parts, is as good as none.
fn wanted(range: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = range.and_then(|range| range.trim().strip_prefix("bytes=")) else {
        return Wanted::All;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Wanted::All;
    };
    let (first, last) = (first.trim(), last.trim());
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
        return Wanted::All;
    }
    // Digits alone: what does not fit is larger than every file.
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    if first.is_empty() {
        let count = number(last).min(size);
        return if count == 0 {
            Wanted::Nothing
        } else {
            Wanted::Part(size - count, size)
        };
    }
    let start = number(first);
    let end = if last.is_empty() {
        size
    } else {
        number(last).saturating_add(1).min(size)
    };
    if !last.is_empty() && number(last) < start {
        return Wanted::All;
    }
    if start >= size {
        Wanted::Nothing
    } else {
        Wanted::Part(start, end)
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// How a browser is to take a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum As {
    /// Saved, never shown.
    Download,
    /// Shown where its type allows that, as a page that can do nothing.
    Preview,
}

/// What may be shown: under [`SHOWN`] a page or an SVG runs no script, has no origin and loads nothing.
fn can_be_shown(kind: &str) -> bool {
    kind == "text/html" || kind == "text/plain" || kind.starts_with("image/")
}

/// Styles and pictures that are in the file itself, and nothing else.
const SHOWN: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; sandbox";
const SAVED: &str = "default-src 'none'; sandbox";

/// `filename` as MLflow writes it where that is possible.
fn disposition(how: &str, name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !name.is_empty() && name.bytes().all(plain) {
        return format!("{how}; filename={name}");
    }
    let mut encoded = String::new();
    let mut simple = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    for character in name.chars() {
        let safe = (' '..='~').contains(&character) && !matches!(character, '"' | '\\');
        simple.push(if safe { character } else { '_' });
    }
    format!("{how}; filename=\"{simple}\"; filename*=UTF-8''{encoded}")
}

/// Answers with a file, or the part of it that the request asks for.
pub(super) fn file(artifact: Artifact, request: &HeaderMap, taken: As) -> Result<Response, ApiError> {
    let Artifact {
        name,
        etag,
        mut bytes,
    } = artifact;
    let etag = format!("\"{etag}\"");
    let size = bytes.size();
    let value = |text: &str| {
        HeaderValue::from_str(text)
            .map_err(|_| ApiError::internal("bad_header", format!("`{text}` cannot stand in a header")))
    };
    let kind = content_type::of(&name);
    let (how, policy) = if taken == As::Preview && can_be_shown(kind) {
        ("inline", SHOWN)
    } else {
        ("attachment", SAVED)
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, value(&etag)?);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::CONTENT_DISPOSITION, value(&disposition(how, &name))?);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let known = text(request, header::IF_NONE_MATCH);
    if known.is_some_and(|known| {
        known
            .split(',')
            .any(|one| one.trim() == etag || one.trim() == "*")
    }) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let same = text(request, header::IF_RANGE).is_none_or(|known| known == etag);
    let range = text(request, header::RANGE).filter(|_| same);
    let (status, length) = match wanted(range, size) {
        Wanted::All => (StatusCode::OK, size),
        Wanted::Part(start, end) => {
            bytes.only(start, end);
            let part = format!("bytes {start}-{}/{size}", end - 1);
            headers.insert(header::CONTENT_RANGE, value(&part)?);
            (StatusCode::PARTIAL_CONTENT, end - start)
        }
        Wanted::Nothing => {
            headers.insert(header::CONTENT_RANGE, value(&format!("bytes */{size}"))?);
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response());
        }
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let pieces = futures::stream::unfold(bytes, async |mut bytes| match bytes.next().await {
        Ok(Some(piece)) => Some((Ok(piece), bytes)),
        Ok(None) => None,
        Err(error) => {
            // The client sees a connection that breaks off: the status has long been sent.
            tracing::error!(%error, "an artifact could not be read to its end");
            Some((Err(error), bytes))
        }
    });
    Ok((status, headers, Body::from_stream(pieces)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_http_has_it() {
        let table = [
            (None, Wanted::All),
            (Some("bytes=0-9"), Wanted::Part(0, 10)),
            (Some("bytes=0-0"), Wanted::Part(0, 1)),
            (Some("bytes=90-"), Wanted::Part(90, 100)),
            (Some("bytes=90-500"), Wanted::Part(90, 100)),
            (Some("bytes=-10"), Wanted::Part(90, 100)),
            (Some("bytes=-500"), Wanted::Part(0, 100)),
            (Some("bytes=100-"), Wanted::Nothing),
            (Some("bytes=-0"), Wanted::Nothing),
            (Some("bytes=9-1"), Wanted::All),
            (Some("bytes=0-1,5-6"), Wanted::All),
            (Some("bytes=-"), Wanted::All),
            (Some("lines=0-1"), Wanted::All),
            (Some("bytes=99999999999999999999-"), Wanted::Nothing),
        ];
        for (range, expected) in table {
            assert_eq!(wanted(range, 100), expected, "{range:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Nothing);
    }

    #[test]
    fn a_file_is_saved_under_its_own_name() {
        assert_eq!(disposition("inline", "a.html"), "inline; filename=a.html");
        assert_eq!(
            disposition("attachment", "dog%step%100.png"),
            "attachment; filename=dog%step%100.png"
        );
        assert_eq!(
            disposition("attachment", "a \"b\" ü.txt"),
            "attachment; filename=\"a _b_ _.txt\"; filename*=UTF-8''a%20%22b%22%20%C3%BC.txt"
        );
    }
}
