//! The server's clock; a replay moves it.

use axum::Json as Written;
use axum::extract::State;
use serde::Deserialize;
use serde_json::json;
use tidemill_core::clock::Timestamp;

use super::Answer;
use crate::control_plane::App;
use crate::extract::Json;

/// `GET /api/v1/clock`
pub(crate) async fn show(State(app): State<App>) -> Answer {
    let status = app.status().await?;
    Ok(Written(
        json!({ "now": app.now(), "virtual": status.virtual_clock }),
    ))
}

/// Where the clock is to stand.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Advance {
    to: Timestamp,
}

/// `POST /api/v1/clock/advance`
pub(crate) async fn advance(State(app): State<App>, Json(body): Json<Advance>) -> Answer {
    let now = app.advance(body.to).await?;
    Ok(Written(json!({ "now": now, "virtual": true })))
}
