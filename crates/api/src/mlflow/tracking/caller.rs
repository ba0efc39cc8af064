//! Who calls, and for which workspace.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tidemill_control::tracking::{Caller, DEFAULT_WORKSPACE};

use crate::error::ApiError;

/// The header in which MLflow's client names its workspace.
pub(crate) const WORKSPACE: &str = "x-mlflow-workspace";

/// The user that the authentication layer found, left in the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct User(pub String);

/// The caller of a request.
pub(crate) struct Called(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for Called {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let user = parts.extensions.get::<User>().map(|user| user.0.clone());
        let workspace = parts.headers.get(WORKSPACE).and_then(|name| name.to_str().ok());
        Ok(Self(Caller {
            user: user.unwrap_or_default(),
            workspace: workspace.unwrap_or(DEFAULT_WORKSPACE).to_owned(),
        }))
    }
}
