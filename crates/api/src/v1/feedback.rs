//! What clients say of predictions, later.

use axum::Json as Written;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tidemill_control::view::{FeedbackInput, FeedbackOutcome};

use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{Json, parse_item};

/// So many pieces of feedback are taken at once.
const MAX_ITEMS: usize = 10_000;

/// `POST /api/v1/feedback`: 201 if anything was stored, 200 if all of it was stored before, 409 if any contradicts what is stored.
pub(crate) async fn record(
    State(app): State<App>,
    Json(body): Json<Value>,
) -> Result<(StatusCode, Written<Value>), ApiError> {
    let inputs = read(body)?;
    let outcomes = app.record_feedback(inputs).await?;

    let conflicts = outcomes.iter().filter(|o| o.outcome == "conflict").count();
    if conflicts > 0 {
        let (total, stored) = (outcomes.len(), outcomes.len() - conflicts);
        return Err(ApiError::conflict(
            "feedback_conflict",
            format!(
                "{conflicts} of {total} have an idempotency key that was used with another body, and were not stored; the other {stored} are stored: see `details.outcomes`, and use a new key for a correction"
            ),
        )
        .with_details(json!({ "outcomes": outcomes })));
    }
    let status = if outcomes.iter().all(repeated) {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Written(json!({ "outcomes": outcomes }))))
}

fn repeated(outcome: &FeedbackOutcome) -> bool {
    outcome.outcome == "repeated"
}

/// A single object, or `{"feedback": […]}`.
fn read(mut body: Value) -> Result<Vec<FeedbackInput>, ApiError> {
    let Some(object) = body.as_object_mut() else {
        return Err(ApiError::bad_request(
            "bad_body",
            "the body is not an object: send one piece of feedback, or `{\"feedback\": […]}`",
        ));
    };
    let Some(items) = object.remove("feedback") else {
        return Ok(vec![parse_item(body, "feedback")?]);
    };
    if let Some(extra) = object.keys().next() {
        return Err(ApiError::bad_request(
            "bad_body",
            format!("`{extra}` stands beside `feedback`: put it into each item"),
        ));
    }
    let Value::Array(items) = items else {
        return Err(ApiError::bad_request("bad_body", "`feedback` is not an array"));
    };
    if items.is_empty() || items.len() > MAX_ITEMS {
        let got = items.len();
        return Err(ApiError::bad_request(
            "bad_body",
            format!("`feedback` has {got} items, expected 1 to {MAX_ITEMS}"),
        )
        .with_details(json!({ "field": "feedback", "value": got })));
    }
    let read_item = |(i, item)| parse_item(item, &format!("feedback[{i}]"));
    items.into_iter().enumerate().map(read_item).collect()
}
