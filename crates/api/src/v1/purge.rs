//! Deletion for good of tracked experiments and runs.

use axum::Json as Written;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;
use tidemill_control::tracking::PurgeRequest;

use super::Answer;
use crate::control_plane::App;
use crate::extract::Json;
use crate::mlflow::tracking::Called;

/// What is to be purged.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Purge {
    older_than: Option<String>,
    #[serde(default)]
    experiment_ids: Vec<String>,
    #[serde(default)]
    run_ids: Vec<String>,
    #[serde(default)]
    dry_run: bool,
}

/// `POST /api/v1/tracking/gc`
pub(crate) async fn purge(State(app): State<App>, Called(caller): Called, Json(body): Json<Purge>) -> Answer {
    let request = PurgeRequest {
        older_than: body.older_than,
        experiment_ids: body.experiment_ids,
        run_ids: body.run_ids,
        dry_run: body.dry_run,
    };
    let purged = app.tracking().purge(&caller, &request).await?;
    Ok(Written(json!(purged)))
}

/// `DELETE /api/v1/tracking/experiments/{id}`
pub(crate) async fn experiment(
    State(app): State<App>,
    Called(caller): Called,
    Path(id): Path<String>,
) -> Answer {
    let purged = app.tracking().purge_experiment(&caller, &id).await?;
    Ok(Written(json!(purged)))
}

/// `DELETE /api/v1/tracking/runs/{id}`
pub(crate) async fn run(State(app): State<App>, Called(caller): Called, Path(id): Path<String>) -> Answer {
    let purged = app.tracking().purge_run(&caller, &id).await?;
    Ok(Written(json!(purged)))
}
