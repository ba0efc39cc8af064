//! Webhooks.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use tidemill_control::tracking::webhooks::{WebhookFields, event_name};
use tidemill_control::tracking::{self, TrackingError};
use tidemill_store::webhooks::Webhook;

use super::{Called, Fields};
use crate::control_plane::App;
use crate::error::ApiError;

type Answer = Result<Json<Value>, ApiError>;

/// MLflow's entities and actions by their numbers, which protocol buffers' JSON takes as well.
const ENTITIES: [&str; 10] = [
    "ENTITY_UNSPECIFIED",
    "REGISTERED_MODEL",
    "MODEL_VERSION",
    "MODEL_VERSION_TAG",
    "MODEL_VERSION_ALIAS",
    "PROMPT",
    "PROMPT_VERSION",
    "PROMPT_TAG",
    "PROMPT_VERSION_TAG",
    "PROMPT_ALIAS",
];
const ACTIONS: [&str; 5] = ["ACTION_UNSPECIFIED", "CREATED", "UPDATED", "DELETED", "SET"];

fn word(event: &Value, field: &str, words: &[&str]) -> tracking::Result<String> {
    let found = match &event[field] {
        Value::String(word) => Some(word.clone()),
        Value::Number(number) => number
            .as_u64()
            .and_then(|number| words.get(usize::try_from(number).ok()?))
            .map(|word| (*word).to_owned()),
        _ => None,
    };
    found.ok_or_else(|| {
        TrackingError::invalid(format!(
            "Invalid value {event} for parameter 'events' supplied: `{field}` must be one of {}",
            words[1..].join(", ")
        ))
    })
}

/// An event, as `{"entity": "MODEL_VERSION", "action": "CREATED"}`.
fn event(value: &Value) -> tracking::Result<String> {
    event_name(
        &word(value, "entity", &ENTITIES)?,
        &word(value, "action", &ACTIONS)?,
    )
}

/// A text that counts as not given where it is empty.
fn text(fields: &Fields, name: &str) -> tracking::Result<Option<String>> {
    Ok(fields.text(name)?.filter(|text| !text.is_empty()))
}

fn read(fields: &Fields) -> tracking::Result<WebhookFields> {
    let events: Vec<String> = fields
        .list("events")?
        .iter()
        .map(event)
        .collect::<tracking::Result<_>>()?;
    Ok(WebhookFields {
        name: text(fields, "name")?,
        description: text(fields, "description")?,
        url: text(fields, "url")?,
        events: Some(events).filter(|events| !events.is_empty()),
        secret: text(fields, "secret")?,
        status: match fields.value("status") {
            Some(Value::Number(number)) if number.as_i64() == Some(1) => Some("ACTIVE".to_owned()),
            Some(Value::Number(number)) if number.as_i64() == Some(2) => Some("DISABLED".to_owned()),
            _ => text(fields, "status")?,
        },
    })
}

fn message(webhook: &Webhook) -> Value {
    let events: Vec<Value> = webhook
        .events
        .iter()
        .filter_map(|event| event.split_once('.'))
        .map(|(entity, action)| json!({ "entity": entity.to_uppercase(), "action": action.to_uppercase() }))
        .collect();
    let mut message = json!({
        "webhook_id": webhook.id,
        "name": webhook.name,
        "url": webhook.url,
        "events": events,
        "status": webhook.status,
        "creation_timestamp": webhook.created_at.as_millis(),
        "last_updated_timestamp": webhook.updated_at.as_millis(),
    });
    if let Some(description) = &webhook.description {
        message["description"] = json!(description);
    }
    message
}

/// `POST webhooks`
pub(crate) async fn create(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    fields.required_text("name")?;
    // Blank is another error than absent, so that only the latter is found here.
    if fields.value("url").is_none_or(|url| url == "") {
        fields.required_text("url")?;
    }
    if fields.list("events")?.is_empty() {
        Fields::of(json!({})).required_text("events")?;
    }
    let created = app.tracking().create_webhook(&caller, read(&fields)?).await?;
    Ok(Json(json!({ "webhook": message(&created) })))
}

/// `GET webhooks`
pub(crate) async fn list(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let offset = match text(&fields, "page_token")? {
        None => 0,
        Some(token) => token
            .parse()
            .ok()
            .filter(|offset| *offset >= 0)
            .ok_or_else(|| TrackingError::invalid("Invalid page token, could not base64-decode"))?,
    };
    let (page, next) = app
        .tracking()
        .list_webhooks(&caller, fields.integer("max_results")?, offset)
        .await?;
    let mut answer = json!({ "webhooks": page.iter().map(message).collect::<Vec<_>>() });
    if let Some(next) = next {
        answer["next_page_token"] = json!(next.to_string());
    }
    Ok(Json(answer))
}

/// `GET webhooks/{webhook_id}`
pub(crate) async fn get(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let id = fields.required_text("webhook_id")?;
    let found = app.tracking().get_webhook(&caller, id).await?;
    Ok(Json(json!({ "webhook": message(&found) })))
}

/// `PATCH webhooks/{webhook_id}`
pub(crate) async fn update(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let id = fields.required_text("webhook_id")?;
    let updated = app.tracking().update_webhook(&caller, id, read(&fields)?).await?;
    Ok(Json(json!({ "webhook": message(&updated) })))
}

/// `DELETE webhooks/{webhook_id}`
pub(crate) async fn delete(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let id = fields.required_text("webhook_id")?;
    app.tracking().delete_webhook(&caller, id).await?;
    Ok(Json(json!({})))
}

/// `POST webhooks/{webhook_id}/test`
pub(crate) async fn test(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let id = fields.required_text("webhook_id")?;
    let event = fields.value("event").map(event).transpose()?;
    let result = app.tracking().test_webhook(&caller, id, event).await?;
    let mut answer = json!({ "success": result.success });
    if let Some(status) = result.response_status {
        answer["response_status"] = json!(status);
    }
    if let Some(body) = result.response_body {
        answer["response_body"] = json!(body);
    }
    if let Some(error) = result.error_message {
        answer["error_message"] = json!(error);
    }
    Ok(Json(json!({ "result": answer })))
}
