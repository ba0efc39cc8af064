//! Errors at the edge: what went wrong, free of any protocol, and the one place where each protocol gives it its own shape.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tidemill_control::ControlError;
use tidemill_control::tracking::TrackingError;
use tidemill_core::ports::{Blame, PortError};
use tidemill_serving::ServeError;
use tidemill_store::StoreError;
use tidemill_store::objects::BucketFault;

/// What sort of error it is, which decides the status.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// 400: the request itself is wrong.
    BadRequest,
    /// 400: a value of the request is wrong (MLflow tells this from a request that cannot be read).
    InvalidParameter,
    /// 400: the name is taken (MLflow's status for it).
    AlreadyExists,
    /// 401: the caller has not said who they are.
    Unauthenticated,
    /// 403: the caller may not do this.
    Denied,
    /// 404: what the request names is not there.
    NotFound,
    /// 404: no route has this path.
    NoRoute,
    /// 405: the path is there, but not with this method.
    MethodNotAllowed,
    /// 409: the request contradicts what is stored.
    Conflict,
    /// 413: the body is too large.
    TooLarge,
    /// 415: the body has a type that is not read here.
    UnsupportedMediaType,
    /// 424: what this server depends on refuses it, and does so until somebody has changed its settings. MLflow's clients try no 4xx
    /// again, and would try a 5xx for minutes.
    FailedDependency,
    /// 429: too many requests.
    TooMany,
    /// 500: not in the state that the thing is in (MLflow's status for it).
    InvalidState,
    /// 500: a fault of ours.
    Internal,
    /// 501: this server does not do that.
    NotImplemented,
    /// 503: not now.
    Unavailable,
    /// 504: it took too long.
    Timeout,
    /// 507: there is no room to store it.
    InsufficientStorage,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::BadRequest,
        Self::InvalidParameter,
        Self::AlreadyExists,
        Self::Unauthenticated,
        Self::Denied,
        Self::NotFound,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::FailedDependency,
        Self::TooMany,
        Self::InvalidState,
        Self::Internal,
        Self::NotImplemented,
        Self::Unavailable,
        Self::Timeout,
        Self::InsufficientStorage,
    ];

    /// The HTTP status, the same in every protocol.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::InvalidParameter | Self::AlreadyExists => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::NotFound | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::FailedDependency => StatusCode::FAILED_DEPENDENCY,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::InvalidState | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::InsufficientStorage => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    /// gRPC's code for it.
    fn grpc_code(self) -> tonic::Code {
        use tonic::Code;
        match self {
            Self::BadRequest | Self::InvalidParameter | Self::UnsupportedMediaType => Code::InvalidArgument,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Denied => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::NoRoute | Self::MethodNotAllowed | Self::NotImplemented => Code::Unimplemented,
            Self::Conflict => Code::Aborted,
            Self::TooLarge | Self::TooMany | Self::InsufficientStorage => Code::ResourceExhausted,
            Self::FailedDependency | Self::InvalidState => Code::FailedPrecondition,
            Self::Internal => Code::Internal,
            Self::Unavailable => Code::Unavailable,
            Self::Timeout => Code::DeadlineExceeded,
        }
    }

    /// Google's word for it (`google.rpc.Code`).
    fn google_status(self) -> &'static str {
        use tonic::Code;
        match self.grpc_code() {
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::Unauthenticated => "UNAUTHENTICATED",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::NotFound => "NOT_FOUND",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Aborted => "ABORTED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Unavailable => "UNAVAILABLE",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            _ => "INTERNAL",
        }
    }

    /// The SageMaker runtime's status and name of an error. What is wrong with a body is the model's error there: only a container reads
    /// bodies.
    fn sagemaker(self, code: &str) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthenticated | Self::Denied => (StatusCode::FORBIDDEN, "AccessDeniedException"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "ThrottlingException"),
            Self::Unavailable if matches!(code, "no_model" | "unloaded" | "load_failed") => {
                (StatusCode::TOO_MANY_REQUESTS, "ModelNotReadyException")
            }
            Self::Unavailable | Self::InsufficientStorage => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable")
            }
            Self::NotFound | Self::NoRoute | Self::MethodNotAllowed | Self::Conflict | Self::TooLarge => {
                (StatusCode::BAD_REQUEST, "ValidationError")
            }
            _ if matches!(
                code,
                "bad_request_header" | "bad_request_id" | "bad_encoding" | "body_interrupted"
            ) =>
            {
                (StatusCode::BAD_REQUEST, "ValidationError")
            }
            _ => (StatusCode::FAILED_DEPENDENCY, MODEL_ERROR),
        }
    }

    /// MLflow's own word for it (`mlflow.protos.databricks_pb2.ErrorCode`).
    fn mlflow_code(self) -> &'static str {
        match self {
            Self::BadRequest | Self::MethodNotAllowed | Self::TooLarge | Self::UnsupportedMediaType => {
                "BAD_REQUEST"
            }
            Self::InvalidParameter => "INVALID_PARAMETER_VALUE",
            Self::AlreadyExists => "RESOURCE_ALREADY_EXISTS",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Denied => "PERMISSION_DENIED",
            Self::NotFound => "RESOURCE_DOES_NOT_EXIST",
            Self::NoRoute => "ENDPOINT_NOT_FOUND",
            Self::TooMany => "REQUEST_LIMIT_EXCEEDED",
            Self::InvalidState => "INVALID_STATE",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::Conflict => "RESOURCE_CONFLICT",
            Self::Internal | Self::FailedDependency => "INTERNAL_ERROR",
            Self::Unavailable | Self::InsufficientStorage => "TEMPORARILY_UNAVAILABLE",
            Self::Timeout => "DEADLINE_EXCEEDED",
        }
    }
}

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

/// The bare status, with the error as an extension: [`crate::edge`] gives it the shape of the protocol that was spoken.
/// In an error's details: after so many seconds it is worth trying again. The header `Retry-After` says the same.
const RETRY_AFTER_S: &str = "retry_after_s";

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

/// SageMaker's name of an error of the model.
const MODEL_ERROR: &str = "ModelError";

/// Whether a path below `/endpoints` is a call of the SageMaker runtime; the page has others there.
fn is_invocation(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    matches!(
        last,
        "invocations" | "async-invocations" | "invocations-response-stream"
    )
}

/// The protocols, told apart by path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    /// The Open Inference Protocol.
    OpenInference,
    /// MLflow's scoring protocol.
    Mlflow,
    /// MLflow's tracking and registry.
    MlflowRest,
    /// The SageMaker runtime.
    SageMaker,
    /// Vertex AI's prediction service.
    Vertex,
    /// gRPC, whose errors stand in headers under a status of 200.
    Grpc,
    /// Our own.
    V1,
}

impl Protocol {
    /// The protocol that a path belongs to; `None` for paths of the page.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or("");
        match first {
            "v2" => Some(Self::OpenInference),
            crate::grpc::INFERENCE | crate::grpc::HEALTH => Some(Self::Grpc),
            "invocations" | "ping" | "health" | "version" => Some(Self::Mlflow),
            "endpoints" if is_invocation(path) => Some(Self::SageMaker),
            "v1" if path.trim_start_matches('/').starts_with("v1/projects/") => Some(Self::Vertex),
            "ajax-api" | "get-artifact" | "model-versions" | "graphql" => Some(Self::MlflowRest),
            "api" if !path.trim_start_matches('/').starts_with("api/v1") => Some(Self::MlflowRest),
            "api" | "metrics" | "docs" => Some(Self::V1),
            _ => None,
        }
    }

    /// An error's body in this protocol.
    pub(crate) fn error_body(self, error: &ApiError) -> Value {
        match self {
            Self::OpenInference => json!({ "error": error.message }),
            Self::Mlflow => json!({
                "error_code": error.kind.mlflow_code(),
                "message": error.message,
                "stack_trace": null,
            }),
            Self::MlflowRest => json!({
                "error_code": error.kind.mlflow_code(),
                "message": error.message,
            }),
            Self::SageMaker => {
                let mut body = json!({ "Message": error.message, "message": error.message });
                if error.kind.sagemaker(error.code).1 == MODEL_ERROR {
                    body["OriginalStatusCode"] = json!(error.kind.status().as_u16());
                    body["OriginalMessage"] = json!(error.message);
                    body["LogStreamArn"] = json!("");
                }
                body
            }
            Self::Vertex => json!({
                "error": {
                    "code": error.kind.status().as_u16(),
                    "message": error.message,
                    "status": error.kind.google_status(),
                    "details": [],
                }
            }),
            Self::Grpc | Self::V1 => json!({
                "error": {
                    "code": error.code,
                    "message": error.message,
                    "details": error.details,
                    "docs": format!("/docs/errors/{}", error.code),
                }
            }),
        }
    }

    /// Writes an error into the response that carried it, keeping headers such as `Allow`.
    pub(crate) fn render(self, error: &ApiError, mut response: Response) -> Response {
        if self == Self::Grpc {
            return tonic::Status::from(error.clone()).into_http();
        }
        let body = self.error_body(error).to_string();
        if self == Self::SageMaker {
            let (status, name) = error.kind.sagemaker(error.code);
            *response.status_mut() = status;
            let name = HeaderValue::from_static(name);
            response.headers_mut().insert("x-amzn-errortype", name);
        }
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-tidemill-error", HeaderValue::from_static(error.code));
        if error.kind == Kind::Unavailable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        *response.body_mut() = Body::from(body);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::ids::{EndpointName, VersionNumber};
    use tidemill_serving::SchemaError;

    /// Every kind, its status, and its shape in every protocol.
    #[test]
    fn every_kind_of_error_has_its_status_and_its_shape_in_every_protocol() {
        use tonic::Code;
        let table = [
            (Kind::BadRequest, 400, "BAD_REQUEST", Code::InvalidArgument),
            (
                Kind::InvalidParameter,
                400,
                "INVALID_PARAMETER_VALUE",
                Code::InvalidArgument,
            ),
            (
                Kind::AlreadyExists,
                400,
                "RESOURCE_ALREADY_EXISTS",
                Code::AlreadyExists,
            ),
            (
                Kind::Unauthenticated,
                401,
                "UNAUTHENTICATED",
                Code::Unauthenticated,
            ),
            (Kind::Denied, 403, "PERMISSION_DENIED", Code::PermissionDenied),
            (Kind::NotFound, 404, "RESOURCE_DOES_NOT_EXIST", Code::NotFound),
            (Kind::NoRoute, 404, "ENDPOINT_NOT_FOUND", Code::Unimplemented),
            (Kind::MethodNotAllowed, 405, "BAD_REQUEST", Code::Unimplemented),
            (Kind::Conflict, 409, "RESOURCE_CONFLICT", Code::Aborted),
            (Kind::TooLarge, 413, "BAD_REQUEST", Code::ResourceExhausted),
            (
                Kind::UnsupportedMediaType,
                415,
                "BAD_REQUEST",
                Code::InvalidArgument,
            ),
            (
                Kind::FailedDependency,
                424,
                "INTERNAL_ERROR",
                Code::FailedPrecondition,
            ),
            (
                Kind::TooMany,
                429,
                "REQUEST_LIMIT_EXCEEDED",
                Code::ResourceExhausted,
            ),
            (Kind::InvalidState, 500, "INVALID_STATE", Code::FailedPrecondition),
            (Kind::Internal, 500, "INTERNAL_ERROR", Code::Internal),
            (Kind::NotImplemented, 501, "NOT_IMPLEMENTED", Code::Unimplemented),
            (
                Kind::Unavailable,
                503,
                "TEMPORARILY_UNAVAILABLE",
                Code::Unavailable,
            ),
            (Kind::Timeout, 504, "DEADLINE_EXCEEDED", Code::DeadlineExceeded),
            (
                Kind::InsufficientStorage,
                507,
                "TEMPORARILY_UNAVAILABLE",
                Code::ResourceExhausted,
            ),
        ];
        assert_eq!(table.map(|row| row.0), Kind::ALL);
        for (kind, status, mlflow, grpc) in table {
            let error = ApiError {
                blame: Blame::Caller,
                kind,
                code: "some_code",
                message: "`x` is wrong".into(),
                details: Some(json!({"field": "x"})),
            };
            assert_eq!(kind.status().as_u16(), status);
            let over_grpc = tonic::Status::from(error.clone());
            assert_eq!((over_grpc.code(), over_grpc.message()), (grpc, "`x` is wrong"));
            let rendered = Protocol::Grpc.render(&error, kind.status().into_response());
            assert_eq!(rendered.status(), StatusCode::OK);
            assert_eq!(rendered.headers()["grpc-status"], (grpc as i32).to_string());
            assert_eq!(
                Protocol::OpenInference.error_body(&error),
                json!({"error": "`x` is wrong"})
            );
            assert_eq!(
                Protocol::Mlflow.error_body(&error),
                json!({"error_code": mlflow, "message": "`x` is wrong", "stack_trace": null})
            );
            assert_eq!(
                Protocol::Vertex.error_body(&error)["error"]["code"],
                json!(status)
            );
            let rendered = Protocol::SageMaker.render(&error, kind.status().into_response());
            let name = rendered.headers()["x-amzn-errortype"]
                .to_str()
                .unwrap()
                .to_owned();
            assert_eq!(name == "ModelError", rendered.status() == 424, "{kind:?}");
            assert_eq!(Protocol::SageMaker.error_body(&error)["Message"], "`x` is wrong");
            assert_eq!(
                Protocol::MlflowRest.error_body(&error),
                json!({"error_code": mlflow, "message": "`x` is wrong"})
            );
            assert_eq!(
                Protocol::V1.error_body(&error),
                json!({"error": {
                    "code": "some_code",
                    "message": "`x` is wrong",
                    "details": {"field": "x"},
                    "docs": "/docs/errors/some_code",
                }})
            );
        }
    }

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

    #[test]
    fn a_path_tells_its_protocol() {
        assert_eq!(
            Protocol::of_path("/v2/models/x/infer"),
            Some(Protocol::OpenInference)
        );
        assert_eq!(Protocol::of_path("/invocations/x"), Some(Protocol::Mlflow));
        assert_eq!(Protocol::of_path("/api/v1/nothing"), Some(Protocol::V1));
        assert_eq!(
            Protocol::of_path("/api/2.0/mlflow/runs/get"),
            Some(Protocol::MlflowRest)
        );
        assert_eq!(
            Protocol::of_path("/ajax-api/2.0/mlflow/runs/get"),
            Some(Protocol::MlflowRest)
        );
        let path = "/endpoints/flights/invocations";
        assert_eq!(Protocol::of_path(path), Some(Protocol::SageMaker));
        let path = "/v1/projects/p/locations/l/endpoints/flights:predict";
        assert_eq!(Protocol::of_path(path), Some(Protocol::Vertex));
        let path = "/inference.GRPCInferenceService/ModelInfer";
        assert_eq!(Protocol::of_path(path), Some(Protocol::Grpc));
        assert_eq!(Protocol::of_path("/endpoints/flights"), None);
        assert_eq!(Protocol::of_path("/runs/1"), None);
        assert_eq!(Protocol::of_path("/v2x"), None);
    }
}
