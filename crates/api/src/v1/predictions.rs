//! What is recorded of predictions, and their replay.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;
use tidemill_control::predictions::Replay;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, PredictionId};

use super::Answer;
use crate::control_plane::{App, ListQuery};
use crate::error::ApiError;
use crate::extract::Params;

/// Which predictions are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PredictionsQuery {
    endpoint: Option<EndpointName>,
    since: Option<Timestamp>,
    limit: Option<u32>,
}

/// `GET /api/v1/predictions`
pub(crate) async fn list(State(app): State<App>, Params(query): Params<PredictionsQuery>) -> Answer {
    let limit = query.limit.unwrap_or(ListQuery::DEFAULT_LIMIT);
    if limit == 0 || limit > ListQuery::MAX_LIMIT {
        let message = format!("`limit` is `{limit}`, expected 1 to {}", ListQuery::MAX_LIMIT);
        let details = json!({ "field": "limit", "value": limit });
        return Err(ApiError::bad_request("bad_query", message).with_details(details));
    }
    let named = query.endpoint.or_else(|| app.default_endpoint());
    let endpoint = named.ok_or_else(|| {
        let message = "say whose predictions: `?endpoint=NAME`, an endpoint or a deployment";
        ApiError::bad_request("bad_query", message).with_details(json!({ "field": "endpoint" }))
    })?;
    app.predictions(&endpoint, query.since, limit).await.map(Json)
}

/// `GET /api/v1/predictions/{id}`
pub(crate) async fn show(State(app): State<App>, Path(id): Path<PredictionId>) -> Answer {
    app.prediction(&id).await.map(Json)
}

/// `POST /api/v1/predictions/{id}/replay`
pub(crate) async fn replay(State(app): State<App>, Path(id): Path<PredictionId>) -> Answer<Replay> {
    app.replay(&id).await.map(Json)
}
