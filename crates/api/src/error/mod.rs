//! Errors at the edge: what went wrong, free of any protocol, and the one place where each protocol gives it its own shape.

mod kind;
mod protocol;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tidemill_control::ControlError;
use tidemill_control::tracking::TrackingError;
use tidemill_core::ports::{Blame, PortError};
use tidemill_serving::ServeError;
use tidemill_store::StoreError;
use tidemill_store::objects::BucketFault;

pub use kind::Kind;
pub(crate) use protocol::Protocol;

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Who has to act.
    pub blame: Blame,
    /// What sort of error it is.
    pub kind: Kind,
    /// A stable code, one page each under `/docs/errors/`.
    pub code: &'static str,
    /// What happened, where, and what to do.
    pub message: String,
    /// The same for machines, where there is more to say.
    pub details: Option<Value>,
}

impl ApiError {
    fn caller(kind: Kind, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            blame: Blame::Caller,
            kind,
            code,
            message: message.into(),
            details: None,
        }
    }

    /// The request itself is wrong.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::caller(Kind::BadRequest, code, message)
    }

    /// What the request names is not there.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::caller(Kind::NotFound, code, message)
    }

    /// The request contradicts what is stored.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::caller(Kind::Conflict, code, message)
    }

    /// The body has a type that is not read here.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::caller(Kind::UnsupportedMediaType, "unsupported_media_type", message)
    }

    /// The body is larger than [`crate::extract::BODY_LIMIT`].
    pub(crate) fn too_large(limit: usize) -> Self {
        let megabytes = limit / (1024 * 1024);
        Self::caller(
            Kind::TooLarge,
            "body_too_large",
            format!("the body is larger than {megabytes} MiB: send fewer rows at a time"),
        )
    }

    /// No route has this path.
    pub(crate) fn unknown_route(method: &str, path: &str) -> Self {
        Self::caller(
            Kind::NoRoute,
            "unknown_route",
            format!("there is no `{method} {path}`: every route is listed at `/api/v1/openapi.json`"),
        )
    }

    /// A route has this path, but not with this method.
    pub(crate) fn method_not_allowed(method: &str, path: &str) -> Self {
        Self::caller(
            Kind::MethodNotAllowed,
            "method_not_allowed",
            format!("`{path}` does not take `{method}`: the `Allow` header says what it takes"),
        )
    }

    /// A fault of ours.
    pub fn internal(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            blame: Blame::Us,
            kind: Kind::Internal,
            code,
            message: message.into(),
            details: None,
        }
    }

    /// Not now.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            blame: Blame::Us,
            kind: Kind::Unavailable,
            code,
            message: message.into(),
            details: None,
        }
    }

    /// Where in the model's own code it was raised: MLflow's scoring protocol has a place for that.
    fn stack_trace(&self) -> Option<&str> {
        self.details.as_ref()?["stack_trace"].as_str()
    }

    /// Adds what machines may want to know.
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }
}

impl From<PortError> for ApiError {
    fn from(error: PortError) -> Self {
        // A port's error may have been the store's or the log's: the code still says which.
        let kind = match error.code {
            "not_found" | "unknown_endpoint" | "unknown_version" => Kind::NotFound,
            "conflict" | "stale_lease" => Kind::Conflict,
            "store_disk_full" | "log_full" => Kind::InsufficientStorage,
            "store_bucket_denied" | "store_bucket_missing" => Kind::FailedDependency,
            "store_closed" | "log_closed" => Kind::Unavailable,
            "worker_timeout" => Kind::Timeout,
            "bundle_too_large" => Kind::TooLarge,
            _ => match error.blame {
                Blame::Caller => Kind::BadRequest,
                Blame::Us => Kind::Internal,
                Blame::Upstream => Kind::Unavailable,
            },
        };
        Self {
            blame: error.blame,
            kind,
            code: error.code,
            message: error.message,
            details: None,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::NotFound { .. } => Kind::NotFound,
            StoreError::Conflict { .. } | StoreError::StaleLease { .. } | StoreError::ReadOnly => {
                Kind::Conflict
            }
            StoreError::DiskFull { .. } => Kind::InsufficientStorage,
            StoreError::Bucket(trouble) => match trouble.fault {
                BucketFault::Denied | BucketFault::Missing => Kind::FailedDependency,
                BucketFault::Unreachable | BucketFault::Failed => Kind::Unavailable,
            },
            StoreError::Io { .. }
            | StoreError::Objects { .. }
            | StoreError::Locked { .. }
            | StoreError::Closed => Kind::Unavailable,
            _ => Kind::Internal,
        };
        Self {
            blame: error.blame(),
            kind,
            code: error.code(),
            message: error.to_string(),
            details: None,
        }
    }
}

impl From<TrackingError> for ApiError {
    fn from(error: TrackingError) -> Self {
        let details = match error {
            TrackingError::TooManyLogins { wait_s } => Some(json!({ RETRY_AFTER_S: wait_s })),
            _ => None,
        };
        let (kind, code, message) = match error {
            TrackingError::Store(error) => return error.into(),
            TrackingError::Port(error) => return error.into(),
            TrackingError::Invalid(message) => (Kind::InvalidParameter, "invalid_parameter_value", message),
            TrackingError::NotFound(message) => (Kind::NotFound, "resource_does_not_exist", message),
            TrackingError::AlreadyExists(message) => {
                (Kind::AlreadyExists, "resource_already_exists", message)
            }
            TrackingError::InvalidState(message) => (Kind::InvalidState, "invalid_state", message),
            TrackingError::Conflict(message) => (Kind::Conflict, "resource_conflict", message),
            TrackingError::Denied(message) => (Kind::Denied, "permission_denied", message),
            TrackingError::Unauthenticated(message) => (Kind::Unauthenticated, "unauthenticated", message),
            TrackingError::TooManyLogins { .. } => (Kind::TooMany, "too_many_logins", error.to_string()),
            TrackingError::NotImplemented(message) => (Kind::NotImplemented, "not_implemented", message),
            TrackingError::Internal(message) => (Kind::Internal, "internal", message),
        };
        Self {
            blame: Blame::Caller,
            kind,
            code,
            message,
            details,
        }
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Store(error) => error.into(),
            ControlError::Port(error) => error.into(),
            ControlError::Serve(error) => error.into(),
            other => {
                let (code, message) = (other.code(), other.to_string());
                match &other {
                    ControlError::NotFound { .. } => Self::not_found(code, message),
                    ControlError::Conflict { .. } => Self::conflict(code, message),
                    ControlError::Refused { .. } => Self::bad_request(code, message),
                    _ => Self::internal(code, message),
                }
            }
        }
    }
}

impl From<ServeError> for ApiError {
    fn from(error: ServeError) -> Self {
        let kind = match &error {
            ServeError::UnknownEndpoint { .. } | ServeError::UnknownVersion { .. } => Kind::NotFound,
            ServeError::Schema(_) | ServeError::Payload { .. } => Kind::BadRequest,
            ServeError::Overloaded { .. } => Kind::TooMany,
            ServeError::DeadlinePassed { .. } => Kind::Timeout,
            ServeError::Model { source, .. } if source.code == "worker_timeout" => Kind::Timeout,
            ServeError::Model { source, .. } if source.code == "invalid_parameter_value" => {
                Kind::InvalidParameter
            }
            ServeError::Load { source, .. } | ServeError::Model { source, .. } => match source.blame {
                Blame::Caller => Kind::BadRequest,
                Blame::Us => Kind::Internal,
                Blame::Upstream => Kind::Unavailable,
            },
            ServeError::Unloaded { .. }
            | ServeError::SchemaChanged { .. }
            | ServeError::NoModel { .. }
            | ServeError::AllFailed { .. }
            | ServeError::Log { .. }
            | ServeError::Closed => Kind::Unavailable,
            ServeError::LogFull { .. } => Kind::InsufficientStorage,
            ServeError::Corrupt { .. } | ServeError::Internal(_) => Kind::Internal,
        };
        let details = match &error {
            ServeError::Schema(schema) => Some(json!(schema)),
            _ => None,
        };
        Self {
            blame: error.blame(),
            kind,
            code: error.code(),
            message: error.to_string(),
            details,
        }
    }
}

impl From<ApiError> for tonic::Status {
    fn from(error: ApiError) -> Self {
        let mut status = Self::new(error.kind.grpc_code(), error.message);
        let code = tonic::metadata::MetadataValue::from_static(error.code);
        status.metadata_mut().insert("x-tidemill-error", code);
        status
    }
}

/// In an error's details: after so many seconds it is worth trying again. The header `Retry-After` says the same.
const RETRY_AFTER_S: &str = "retry_after_s";

/// The bare status, with the error as an extension: [`crate::edge`] gives it the shape of the protocol that was spoken.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        let wait_s = self
            .details
            .as_ref()
            .and_then(|details| details[RETRY_AFTER_S].as_u64());
        if let Some(wait_s) = wait_s {
            response.headers_mut().insert(header::RETRY_AFTER, wait_s.into());
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::ids::{EndpointName, VersionNumber};
    use tidemill_serving::SchemaError;

    #[test]
    fn an_error_from_below_keeps_its_code_and_gets_its_kind() {
        let endpoint = || EndpointName::new("x");
        let (dir, path) = (|| "d".into(), || "p".into());
        let version = VersionNumber(1);
        let (noun, key) = ("run", || "r".to_owned());
        let from_serving = [
            (
                ServeError::UnknownEndpoint {
                    name: endpoint(),
                    known: vec![],
                },
                Kind::NotFound,
            ),
            (
                ServeError::UnknownVersion {
                    endpoint: endpoint(),
                    version,
                    loaded: vec![],
                },
                Kind::NotFound,
            ),
            (ServeError::Schema(SchemaError::default()), Kind::BadRequest),
            (
                ServeError::SchemaChanged { endpoint: endpoint() },
                Kind::Unavailable,
            ),
            (ServeError::NoModel { endpoint: endpoint() }, Kind::Unavailable),
            (
                ServeError::AllFailed {
                    endpoint: endpoint(),
                    reasons: key(),
                },
                Kind::Unavailable,
            ),
            (ServeError::LogFull { dir: dir() }, Kind::InsufficientStorage),
            (
                ServeError::Corrupt {
                    path: path(),
                    offset: 0,
                    reason: key(),
                },
                Kind::Internal,
            ),
            (ServeError::Closed, Kind::Unavailable),
            (ServeError::Internal(key()), Kind::Internal),
        ];
        for (error, kind) in from_serving {
            let (code, blame, message) = (error.code(), error.blame(), error.to_string());
            let api = ApiError::from(error);
            assert_eq!(
                (api.kind, api.code, api.blame, api.message),
                (kind, code, blame, message)
            );
        }
        let from_store = [
            (StoreError::NotFound { noun, key: key() }, Kind::NotFound),
            (StoreError::Conflict { noun, message: key() }, Kind::Conflict),
            (StoreError::DiskFull { what: key() }, Kind::InsufficientStorage),
            (StoreError::Closed, Kind::Unavailable),
            (StoreError::Panicked { message: key() }, Kind::Internal),
        ];
        for (error, kind) in from_store {
            // A store's error that came through a port has the same kind.
            let by_port = ApiError::from(PortError::from(error.clone()));
            let api = ApiError::from(error);
            assert_eq!((api.kind, api.code), (kind, by_port.code));
            assert_eq!(by_port.kind, kind, "{}", by_port.code);
        }
        let caller = ApiError::from(PortError::caller("default_answer", "no"));
        assert_eq!((caller.kind, caller.code), (Kind::BadRequest, "default_answer"));
        assert_eq!(
            ApiError::from(PortError::upstream("x", "no")).kind,
            Kind::Unavailable
        );
    }
}
