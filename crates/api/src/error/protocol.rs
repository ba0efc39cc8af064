//! The protocols, and the one place where each gives an error its own shape.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::kind::MODEL_ERROR;
use super::{ApiError, Kind};

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
    /// SageMaker's control plane.
    SageMakerControl,
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
            "sagemaker" if path == crate::sagemaker::control::PATH => Some(Self::SageMakerControl),
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
                "stack_trace": error.stack_trace(),
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
            Self::SageMakerControl => json!({
                "__type": error.kind.aws_control().1,
                "message": error.message,
                "Message": error.message,
            }),
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
        if self == Self::SageMakerControl {
            let (status, name) = error.kind.aws_control();
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
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use tidemill_core::ports::Blame;

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
            let rendered = Protocol::SageMakerControl.render(&error, kind.status().into_response());
            let body = Protocol::SageMakerControl.error_body(&error);
            assert_eq!(
                body["__type"],
                rendered.headers()["x-amzn-errortype"].to_str().unwrap()
            );
            assert_eq!(
                rendered.status().is_server_error(),
                kind.aws_control().0.is_server_error()
            );
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
