//! Endpoints: what they serve, their whole life, and moving them by hand.

use axum::Json as Written;
use axum::extract::{Path, State};
use serde::Deserialize;
use tidemill_control::view;
use tidemill_core::ids::{EndpointName, VersionNumber};

use super::{Answer, lists};
use crate::control_plane::{App, ListQuery, Noun};
use crate::extract::{Json, Params};

/// `GET /api/v1/endpoints`
pub(crate) async fn list(State(app): State<App>, Params(query): Params<ListQuery>) -> Answer {
    lists::list(&app, Noun::Endpoints, query).await
}

/// `GET /api/v1/endpoints/{endpoint}`
pub(crate) async fn show(State(app): State<App>, Path(endpoint): Path<String>) -> Answer {
    app.get(Noun::Endpoints, &endpoint).await.map(Written)
}

/// `GET /api/v1/endpoints/{endpoint}/timeline`
pub(crate) async fn timeline(
    State(app): State<App>,
    Path(endpoint): Path<EndpointName>,
) -> Answer<view::Timeline> {
    app.timeline(&endpoint).await.map(Written)
}

/// Which version is to take over, why, and who says so.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Promote {
    version: VersionNumber,
    why: String,
    #[serde(default = "api")]
    by: String,
}

/// Why the latest change is to be taken back, and who says so.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rollback {
    why: String,
    #[serde(default = "api")]
    by: String,
}

fn api() -> String {
    "api".to_owned()
}

/// `POST /api/v1/endpoints/{endpoint}/promote`
pub(crate) async fn promote(
    State(app): State<App>,
    Path(endpoint): Path<EndpointName>,
    Json(body): Json<Promote>,
) -> Answer {
    let done = app.promote(&endpoint, body.version, body.why, body.by).await?;
    Ok(Written(done))
}

/// `POST /api/v1/endpoints/{endpoint}/rollback`
pub(crate) async fn rollback(
    State(app): State<App>,
    Path(endpoint): Path<EndpointName>,
    Json(body): Json<Rollback>,
) -> Answer {
    let done = app.rollback(&endpoint, body.why, body.by).await?;
    Ok(Written(done))
}
