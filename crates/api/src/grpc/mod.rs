//! gRPC: the Open Inference Protocol v2 with Triton's calls (`inference.GRPCInferenceService`), and gRPC's own health protocol. They are
//! routes beside those of HTTP, on the same port, behind the same layers.
//!
//! - [`service`]: every call but predictions; [`infer`]: predictions, one by one and as a stream; [`convert`]: messages from what we know.

mod convert;
mod health;
mod infer;
mod service;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use tonic::codec::CompressionEncoding;
use tower::ServiceExt as _;

use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{BODY_LIMIT, media_type};
use crate::server::Stopping;

/// Made from `proto/inference.proto`.
#[allow(clippy::all, clippy::pedantic, dead_code, missing_docs)]
pub(crate) mod proto {
    tonic::include_proto!("inference");
}

/// Made from `proto/health.proto`.
#[allow(clippy::all, clippy::pedantic, dead_code, missing_docs)]
pub(crate) mod health_proto {
    tonic::include_proto!("grpc.health.v1");
}

use health_proto::health_server::HealthServer;
use proto::grpc_inference_service_server::GrpcInferenceServiceServer;

/// The first part of the paths of the Open Inference Protocol.
pub(crate) const INFERENCE: &str = "inference.GRPCInferenceService";
/// The first part of the paths of the health protocol.
pub(crate) const HEALTH: &str = "grpc.health.v1.Health";

/// What needs a rule of its own, by its name; everything else has the one of predictions.
const WITH_RULES: [&str; 6] = [
    "ServerLive",
    "ServerReady",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
];

/// The paths of all calls.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    let own = WITH_RULES.iter().map(|name| format!("/{INFERENCE}/{name}"));
    own.chain([format!("/{INFERENCE}/{{call}}"), format!("/{HEALTH}/{{call}}")])
}

/// Answers a call.
pub(crate) async fn call(State(app): State<App>, request: Request) -> Response {
    let grpc = media_type(request.headers()).is_some_and(|kind| kind.starts_with("application/grpc"));
    if !grpc {
        return ApiError::unsupported_media_type("this path is gRPC's: send `application/grpc` over HTTP/2")
            .into_response();
    }
    let health = request.uri().path().starts_with("/grpc.health");
    let compressed = compression(request.headers());
    let response = if health {
        HealthServer::new(health::Health(app)).oneshot(request).await
    } else {
        let mut server = GrpcInferenceServiceServer::new(service::Service(app))
            .max_decoding_message_size(BODY_LIMIT)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        // Every client says that it takes compressed answers; only one that compresses itself is likely to want them.
        if let Some(encoding) = compressed {
            server = server.send_compressed(encoding);
        }
        server.oneshot(request).await
    };
    match response {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

fn compression(headers: &HeaderMap) -> Option<CompressionEncoding> {
    match headers.get("grpc-encoding")?.to_str().ok()? {
        "gzip" => Some(CompressionEncoding::Gzip),
        "deflate" => Some(CompressionEncoding::Deflate),
        _ => None,
    }
}

/// Ready once the server wants to stop; where none listens, never.
fn stopping(extensions: &tonic::Extensions) -> impl Future<Output = ()> + Send + 'static {
    let stopping = extensions.get::<Stopping>().cloned();
    async move {
        match stopping {
            Some(stopping) => stopping.wait().await,
            None => std::future::pending().await,
        }
    }
}

/// How long the caller waits, by the header `grpc-timeout`.
fn timeout(metadata: &tonic::metadata::MetadataMap) -> Option<std::time::Duration> {
    use std::time::Duration;
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount.checked_mul(3600)?),
        "M" => Duration::from_secs(amount.checked_mul(60)?),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_timeout_is_read_in_every_unit() {
        let read = |text: &str| {
            let mut metadata = tonic::metadata::MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            timeout(&metadata)
        };
        assert_eq!(read("2H"), Some(Duration::from_hours(2)));
        assert_eq!(read("3M"), Some(Duration::from_mins(3)));
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("7u"), Some(Duration::from_micros(7)));
        for bad in ["", "m", "1", "x1m", "1x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
