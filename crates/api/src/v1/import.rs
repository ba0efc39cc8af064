//! What an import from another tracking server brings. Every call may be repeated.

use axum::Json as Written;
use axum::extract::State;
use serde_json::{Value, json};
use tidemill_control::tracking::import::{
    Experiments, Known, Marks, ModelOutcomes, Models, RunOutcomes, Runs,
};

use crate::control_plane::App;
use crate::extract::Json;
use crate::mlflow::tracking::Called;
use crate::v1::Answer;

/// `POST /api/v1/tracking/import/known`
pub(crate) async fn known(
    State(app): State<App>,
    Called(caller): Called,
    Json(asked): Json<Marks>,
) -> Answer<Known> {
    Ok(Written(app.tracking().known_imports(&caller, asked).await?))
}

/// `POST /api/v1/tracking/import/marks`
pub(crate) async fn mark(State(app): State<App>, Called(caller): Called, Json(done): Json<Marks>) -> Answer {
    app.tracking().mark_imports(&caller, done).await?;
    Ok(Written(json!({})))
}

/// `POST /api/v1/tracking/import/experiments`
pub(crate) async fn experiments(
    State(app): State<App>,
    Called(caller): Called,
    Json(sent): Json<Experiments>,
) -> Answer<Value> {
    let placed = app.tracking().import_experiments(&caller, sent).await?;
    Ok(Written(json!({ "experiments": placed })))
}

/// `POST /api/v1/tracking/import/runs`
pub(crate) async fn runs(
    State(app): State<App>,
    Called(caller): Called,
    Json(sent): Json<Runs>,
) -> Answer<RunOutcomes> {
    Ok(Written(app.tracking().import_runs(&caller, sent).await?))
}

/// `POST /api/v1/tracking/import/models`
pub(crate) async fn models(
    State(app): State<App>,
    Called(caller): Called,
    Json(sent): Json<Models>,
) -> Answer<ModelOutcomes> {
    Ok(Written(app.tracking().import_models(&caller, sent).await?))
}
