//! `POST /endpoints/{name}/invocations-response-stream`: the answer in AWS's event-stream frames, a part each.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::json;
use tidemill_core::ids::EndpointName;
use tidemill_core::servable::Payload;
use tidemill_serving::{CallAnswer, ServeError};

use super::{ATTRIBUTES, INVOKED, answer, scored, scoring, target, text, value};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::Inflated;
use crate::infer::Target;
use crate::infer::forms::reply;
use crate::infer::score;

/// Answers part by part.
pub(crate) async fn invoke(
    State(app): State<App>,
    Path(name): Path<EndpointName>,
    headers: HeaderMap,
    Inflated(bytes): Inflated,
) -> Result<Response, ApiError> {
    let target = target(&app, &name, &headers)?;
    let content_type = text(&headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let accept = text(&headers, "x-amzn-sagemaker-accept").unwrap_or_default();
    let asked = scoring(&headers, content_type, bytes);
    let (variant, kind, frames): (String, String, BoxStream<'static, Bytes>) = match target {
        Target::Table(_) => {
            let (variant, scored) = scored(&app, target, asked).await?;
            let (kind, body) = answer(scored, accept)?;
            (variant, kind, futures::stream::iter([part(&body)]).boxed())
        }
        Target::Hosted(hosted) => {
            let mut answers = score::stream(&app, hosted, asked).await?;
            // The first answer says what they are, and whether there is one at all.
            let first = match answers.next().await {
                Some(first) => Some(first?),
                None => None,
            };
            let variant = first
                .as_ref()
                .map_or_else(String::new, |one| one.version.to_string());
            let kind = match first.as_ref().map(|one| &one.payload) {
                Some(Payload::Body { content_type, .. }) => content_type.clone(),
                _ => "application/jsonlines".to_owned(),
            };
            let all = futures::stream::iter(first.map(Ok)).chain(answers);
            (variant, kind, all.map(frame_of).boxed())
        }
    };
    let mut response = Response::new(Body::from_stream(frames.map(Ok::<_, std::convert::Infallible>)));
    let said = response.headers_mut();
    said.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/vnd.amazon.eventstream"),
    );
    said.insert("x-amzn-sagemaker-content-type", value(&kind));
    said.insert(INVOKED, value(&variant));
    if let Some(attributes) = headers.get(ATTRIBUTES) {
        said.insert(ATTRIBUTES, attributes.clone());
    }
    Ok(response)
}

fn frame_of(answer: Result<CallAnswer, ServeError>) -> Bytes {
    let body = answer
        .map_err(ApiError::from)
        .and_then(|answer| match answer.payload {
            Payload::Body { bytes, .. } => Ok(bytes),
            payload @ Payload::Tensors(_) => Ok(format!("{}\n", reply::whole(&payload)?).into()),
        });
    match body {
        Ok(bytes) => part(&bytes),
        Err(error) => {
            let body = json!({ "Message": error.message, "ErrorCode": error.code }).to_string();
            frame(
                &[
                    (":exception-type", "ModelStreamError"),
                    (":content-type", "application/json"),
                    (":message-type", "exception"),
                ],
                body.as_bytes(),
            )
        }
    }
}

fn part(payload: &[u8]) -> Bytes {
    frame(
        &[
            (":event-type", "PayloadPart"),
            (":content-type", "application/octet-stream"),
            (":message-type", "event"),
        ],
        payload,
    )
}

/// A message of AWS's event-stream encoding: lengths and their checksum, headers, payload, checksum of all; integers big-endian.
fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    /// Says that a header's value is a text.
    const TEXT: u8 = 7;
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(name.len() as u8);
        head.extend_from_slice(name.as_bytes());
        head.push(TEXT);
        head.extend_from_slice(&(value.len() as u16).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let total = 16 + head.len() + payload.len();
    let mut message = Vec::with_capacity(total);
    message.extend_from_slice(&(total as u32).to_be_bytes());
    message.extend_from_slice(&(head.len() as u32).to_be_bytes());
    message.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
    message.extend_from_slice(&head);
    message.extend_from_slice(payload);
    message.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
    message.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_without_headers_and_payload_has_the_known_checksums() {
        // The smallest message of the encoding's own test vectors.
        let expected = [
            0, 0, 0, 16, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff,
        ];
        assert_eq!(frame(&[], &[])[..], expected);
    }
}
