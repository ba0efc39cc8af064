//! What follows for grants from what was done: who adds something owns it.

use axum::body::Body;
use axum::response::Response;
use serde_json::Value;
use tidemill_control::tracking::Caller;
use tidemill_control::users::{EXPERIMENT, Principal, REGISTERED_MODEL};

use super::Kind;
use crate::control_plane::App;
use crate::error::ApiError;

/// Gives what was added to the user who added it.
pub(super) async fn created(
    app: &App,
    known: &Principal,
    caller: &Caller,
    kind: Kind,
    response: Response,
) -> Result<Response, ApiError> {
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.map_err(|error| {
        ApiError::internal(
            "internal",
            format!("an answer could not be read to grant what it says: {error}"),
        )
    })?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (resource_type, id) = match kind {
        Kind::Experiment => (EXPERIMENT, &answer["experiment_id"]),
        Kind::Model => (REGISTERED_MODEL, &answer["registered_model"]["name"]),
    };
    if let Some(id) = id.as_str() {
        app.tracking()
            .grant_to_creator(caller, known.id, resource_type, id)
            .await?;
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}
