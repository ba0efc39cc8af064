//! The project's spec, and the JSON Schema that it follows.

use axum::Json;
use axum::extract::State;

use super::Answer;
use crate::control_plane::{App, Noun};

/// `GET /api/v1/spec`
pub(crate) async fn spec(State(app): State<App>) -> Answer {
    app.get(Noun::Spec, "").await.map(Json)
}

/// `GET /api/v1/spec/schema`
pub(crate) async fn schema() -> Answer {
    Ok(Json(tidemill_core::spec::json_schema()))
}
