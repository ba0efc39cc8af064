//! The server at a glance, and the way from a prediction to everything behind it.

use axum::Json;
use axum::extract::{Path, State};
use tidemill_control::view;
use tidemill_core::ids::PredictionId;

use super::Answer;
use crate::control_plane::App;

/// `GET /api/v1/status`
pub(crate) async fn status(State(app): State<App>) -> Answer<view::Status> {
    app.status().await.map(Json)
}

/// `GET /api/v1/lineage/predictions/{id}`
pub(crate) async fn lineage(State(app): State<App>, Path(id): Path<PredictionId>) -> Answer<view::Lineage> {
    app.lineage(&id).await.map(Json)
}
