//! What sorts of errors there are, and what each protocol calls them.

use axum::http::StatusCode;

/// SageMaker's name of an error of the model.
pub(super) const MODEL_ERROR: &str = "ModelError";

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
    pub(super) fn grpc_code(self) -> tonic::Code {
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
    pub(super) fn google_status(self) -> &'static str {
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
    pub(super) fn sagemaker(self, code: &str) -> (StatusCode, &'static str) {
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

    /// The status and name of an error of SageMaker's control plane.
    pub(super) fn aws_control(self) -> (StatusCode, &'static str) {
        match self {
            Self::NotFound => (StatusCode::BAD_REQUEST, "ResourceNotFound"),
            Self::Conflict | Self::AlreadyExists => (StatusCode::BAD_REQUEST, "ResourceInUse"),
            Self::Unauthenticated | Self::Denied => (StatusCode::BAD_REQUEST, "AccessDeniedException"),
            Self::TooMany => (StatusCode::BAD_REQUEST, "ThrottlingException"),
            Self::NotImplemented => (StatusCode::BAD_REQUEST, "UnknownOperationException"),
            Self::Unavailable | Self::Timeout | Self::InsufficientStorage => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable")
            }
            Self::Internal | Self::InvalidState => (StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure"),
            _ => (StatusCode::BAD_REQUEST, "ValidationException"),
        }
    }

    /// MLflow's own word for it (`mlflow.protos.databricks_pb2.ErrorCode`).
    pub(super) fn mlflow_code(self) -> &'static str {
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
