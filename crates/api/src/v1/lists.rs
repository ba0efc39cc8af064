//! The nouns that are only read: a list each, and one by its id.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::json;

use super::Answer;
use crate::control_plane::{App, ListQuery, Noun};
use crate::error::ApiError;
use crate::extract::Params;

/// Lists a noun, with its limit checked.
pub(crate) async fn list(app: &App, noun: Noun, query: ListQuery) -> Answer {
    let limit = query.limit();
    if limit == 0 || limit > ListQuery::MAX_LIMIT {
        return Err(ApiError::bad_request(
            "bad_query",
            format!("`limit` is `{limit}`, expected 1 to {}", ListQuery::MAX_LIMIT),
        )
        .with_details(json!({ "field": "limit", "value": limit })));
    }
    app.list(noun, query).await.map(Json)
}

/// `GET /api/v1/snapshots`
pub(crate) async fn snapshots(State(app): State<App>, Params(query): Params<ListQuery>) -> Answer {
    list(&app, Noun::Snapshots, query).await
}

/// `GET /api/v1/snapshots/{digest}`
pub(crate) async fn snapshot(State(app): State<App>, Path(digest): Path<String>) -> Answer {
    app.get(Noun::Snapshots, &digest).await.map(Json)
}

/// `GET /api/v1/decisions`
pub(crate) async fn decisions(State(app): State<App>, Params(query): Params<ListQuery>) -> Answer {
    list(&app, Noun::Decisions, query).await
}

/// `GET /api/v1/decisions/{id}`
pub(crate) async fn decision(State(app): State<App>, Path(id): Path<String>) -> Answer {
    app.get(Noun::Decisions, &id).await.map(Json)
}

/// `GET /api/v1/rollouts`
pub(crate) async fn rollouts(State(app): State<App>, Params(query): Params<ListQuery>) -> Answer {
    list(&app, Noun::Rollouts, query).await
}

/// `GET /api/v1/rollouts/{id}`
pub(crate) async fn rollout(State(app): State<App>, Path(id): Path<String>) -> Answer {
    app.get(Noun::Rollouts, &id).await.map(Json)
}

/// `GET /api/v1/alerts`
pub(crate) async fn alerts(State(app): State<App>, Params(query): Params<ListQuery>) -> Answer {
    list(&app, Noun::Alerts, query).await
}

/// `GET /api/v1/windows`
pub(crate) async fn windows(State(app): State<App>, Params(query): Params<ListQuery>) -> Answer {
    list(&app, Noun::Windows, query).await
}
