//! What the registry has beyond MLflow: requests and their approval, the whole history, model cards, comparisons.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_control::tracking::registry::Target;

use super::Answer;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{self, version_number};
use crate::mlflow::tracking::Called;

/// What a version is to get, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MoveRequest {
    to: Target,
    #[serde(default)]
    why: String,
}

/// What the one who decides has to say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Comment {
    #[serde(default)]
    comment: String,
}

fn version(text: &str) -> Result<i64, ApiError> {
    Ok(i64::from(version_number(text)?.0))
}

fn to_value(value: impl serde::Serialize) -> Answer {
    serde_json::to_value(value)
        .map(Json)
        .map_err(|error| ApiError::internal("internal", format!("an answer could not be written: {error}")))
}

/// `GET /api/v1/models/{model}/audit`
pub(crate) async fn audit(
    State(app): State<App>,
    Called(caller): Called,
    Path(model): Path<String>,
) -> Answer {
    let entries = app.tracking().audit(&caller, model).await?;
    Ok(Json(json!({ "items": to_value(entries)?.0 })))
}

/// `POST /api/v1/models/{model}/versions/{version}/requests`
pub(crate) async fn request(
    State(app): State<App>,
    Called(caller): Called,
    Path((model, number)): Path<(String, String)>,
    extract::Json(body): extract::Json<MoveRequest>,
) -> Answer {
    let key = (model, version(&number)?);
    let request = app
        .tracking()
        .request_move(&caller, key, body.to, &body.why)
        .await?;
    to_value(request)
}

/// `GET /api/v1/models/{model}/versions/{version}/requests`
pub(crate) async fn requests(
    State(app): State<App>,
    Called(caller): Called,
    Path((model, number)): Path<(String, String)>,
) -> Answer {
    let found = app
        .tracking()
        .list_requests(&caller, model, version(&number)?)
        .await?;
    Ok(Json(json!({ "items": to_value(found)?.0 })))
}

/// `POST /api/v1/models/{model}/versions/{version}/requests/{id}/approve`
pub(crate) async fn approve(
    state: State<App>,
    called: Called,
    path: Path<(String, String, String)>,
    body: extract::Json<Comment>,
) -> Answer {
    decide(state, called, path, body, true).await
}

/// `POST /api/v1/models/{model}/versions/{version}/requests/{id}/reject`
pub(crate) async fn reject(
    state: State<App>,
    called: Called,
    path: Path<(String, String, String)>,
    body: extract::Json<Comment>,
) -> Answer {
    decide(state, called, path, body, false).await
}

async fn decide(
    State(app): State<App>,
    Called(caller): Called,
    Path((model, number, id)): Path<(String, String, String)>,
    extract::Json(body): extract::Json<Comment>,
    approve: bool,
) -> Answer {
    let id: i64 = id.parse().map_err(|_| {
        ApiError::bad_request(
            "bad_path",
            format!("request `{id}` is not a number: expected one such as `3`"),
        )
    })?;
    let key = (model, version(&number)?, id);
    let decided = app
        .tracking()
        .decide_request(&caller, key, approve, &body.comment)
        .await?;
    to_value(decided)
}

/// `GET /api/v1/models/{model}/versions/{version}/card`
pub(crate) async fn card(
    State(app): State<App>,
    Called(caller): Called,
    Path((model, number)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let card = app
        .tracking()
        .model_card(&caller, model, version(&number)?)
        .await?;
    let headers = [
        (header::CONTENT_TYPE, "text/markdown; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, card).into_response())
}

/// `GET /api/v1/models/{model}/versions/{version}/compare/{other}`
pub(crate) async fn compare(
    State(app): State<App>,
    Called(caller): Called,
    Path((model, a, b)): Path<(String, String, String)>,
) -> Answer {
    let compared = app
        .tracking()
        .compare_versions(&caller, model, version(&a)?, version(&b)?)
        .await?;
    to_value(compared)
}

/// The schemas of the bodies, for the OpenAPI document.
pub(crate) fn schemas() -> Vec<(&'static str, Value)> {
    let text = json!({ "type": "string" });
    vec![
        (
            "MoveRequest",
            json!({
                "type": "object",
                "required": ["to", "why"],
                "properties": {
                    "to": {
                        "oneOf": [
                            { "type": "object", "required": ["alias"], "properties": { "alias": text } },
                            { "type": "object", "required": ["stage"], "properties": { "stage": text } },
                        ],
                    },
                    "why": text,
                },
            }),
        ),
        (
            "Comment",
            json!({ "type": "object", "properties": { "comment": text } }),
        ),
    ]
}
