//! The caller's API tokens.

use axum::Json as Written;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Answer;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::Json;
use crate::mlflow::tracking::Called;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What a token is for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    #[serde(default)]
    name: String,
    /// For how many days it counts; without it until it is revoked.
    expires_in_days: Option<u32>,
}

/// `POST /api/v1/tokens`: the token is in this answer and nowhere else.
pub(crate) async fn create(
    State(app): State<App>,
    Called(caller): Called,
    Json(body): Json<Create>,
) -> Result<(StatusCode, Written<Value>), ApiError> {
    let lifetime_ms = body.expires_in_days.map(|days| i64::from(days) * DAY_MS);
    let new = app
        .tracking()
        .create_token(&caller, &body.name, lifetime_ms)
        .await?;
    let answer = json!({ "id": new.id, "name": body.name, "token": new.token, "expires_ms": new.expires_ms });
    Ok((StatusCode::CREATED, Written(answer)))
}

/// `GET /api/v1/tokens`
pub(crate) async fn list(State(app): State<App>, Called(caller): Called) -> Answer {
    let tokens = app.tracking().list_tokens(&caller).await?;
    let tokens: Vec<Value> = tokens
        .into_iter()
        .map(|token| {
            json!({
                "id": token.id, "name": token.name, "created_ms": token.created_ms, "expires_ms": token.expires_ms,
            })
        })
        .collect();
    Ok(Written(json!({ "tokens": tokens })))
}

/// `DELETE /api/v1/tokens/{id}`
pub(crate) async fn revoke(
    State(app): State<App>,
    Called(caller): Called,
    Path(id): Path<i64>,
) -> Result<StatusCode, ApiError> {
    app.tracking().revoke_token(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
