//! `/graphql`, which two protocols share: W&B's client names its operations, and what is none of those is MLflow's.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};

use crate::auth;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{Body, media_type};
use crate::mlflow::tracking::{Called, Fields, graphql, require_json};
use crate::wandb;

/// `POST /graphql`
pub(crate) async fn answer(
    State(app): State<App>,
    Called(caller): Called,
    known: auth::Caller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    require_json(media_type(&headers).as_deref())?;
    if let Some(answer) = wandb::http::graphql(&app, &caller, known.0.as_deref(), &headers, &body).await {
        return Ok(answer);
    }
    let answer = graphql::answer(State(app), Called(caller), known, Fields::of_body(&body)?).await?;
    Ok(answer.into_response())
}
