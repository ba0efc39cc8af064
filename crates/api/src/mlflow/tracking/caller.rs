//! Who calls, and for which workspace.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
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
        let workspace = named_workspace(&parts.headers);
        Ok(Self(Caller {
            user: user.unwrap_or_default(),
            workspace: workspace.unwrap_or(DEFAULT_WORKSPACE).to_owned(),
        }))
    }
}

/// The workspace that a request names, if it names one.
pub(crate) fn named_workspace(headers: &HeaderMap) -> Option<&str> {
    let name = headers.get(WORKSPACE)?.to_str().ok()?.trim();
    (!name.is_empty()).then_some(name)
}
