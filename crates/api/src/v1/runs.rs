//! Pipeline runs, and starting one by hand.

use axum::Json as Written;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, lists};
use crate::control_plane::{App, ListQuery, Noun};
use crate::error::ApiError;
use crate::extract::{Json, Params};

/// `GET /api/v1/runs`
pub(crate) async fn list(State(app): State<App>, Params(query): Params<ListQuery>) -> Answer {
    lists::list(&app, Noun::Runs, query).await
}

/// `GET /api/v1/runs/{id}`
pub(crate) async fn show(State(app): State<App>, Path(id): Path<String>) -> Answer {
    app.get(Noun::Runs, &id).await.map(Written)
}

/// Why a run is wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    #[serde(default = "by_hand")]
    reason: String,
}

fn by_hand() -> String {
    "started by hand".to_owned()
}

/// `POST /api/v1/runs`: queued, not yet done.
pub(crate) async fn start(
    State(app): State<App>,
    Json(body): Json<Start>,
) -> Result<(StatusCode, Written<Value>), ApiError> {
    let run = app.start_run(body.reason).await?;
    Ok((StatusCode::CREATED, Written(json!({ "run_id": run }))))
}
