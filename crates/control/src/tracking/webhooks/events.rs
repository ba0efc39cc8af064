//! The events, what is sent of them, and an example of each for testing a receiver.

use serde_json::{Map, Value, json};
use tidemill_core::clock::{Clock as _, Timestamp, WallClock};
use tidemill_core::ids;
use tidemill_store::{Tx, webhooks as stored};

use crate::tracking::{Result, TrackingError};

/// What can happen to what. Prompts are none of ours, but clients may name their events.
const ACTIONS: [(&str, &[&str]); 9] = [
    ("registered_model", &["created"]),
    ("model_version", &["created"]),
    ("model_version_tag", &["deleted", "set"]),
    ("model_version_alias", &["created", "deleted"]),
    ("prompt", &["created"]),
    ("prompt_version", &["created"]),
    ("prompt_tag", &["deleted", "set"]),
    ("prompt_version_tag", &["deleted", "set"]),
    ("prompt_alias", &["created", "deleted"]),
];

/// `model_version.created`, of MLflow's words in any case.
pub fn event_name(entity: &str, action: &str) -> Result<String> {
    let (entity, action) = (entity.to_lowercase(), action.to_lowercase());
    let Some((_, actions)) = ACTIONS.iter().find(|(known, _)| *known == entity) else {
        return Err(TrackingError::invalid(format!(
            "'{entity}' is not a valid WebhookEntity"
        )));
    };
    if !actions.contains(&action.as_str()) {
        return Err(TrackingError::invalid(format!(
            "Invalid action '{action}' for entity '{entity}'. Valid actions are: ['{}']",
            actions.join("', '")
        )));
    }
    Ok(format!("{entity}.{action}"))
}

/// Tags as one object.
pub(in crate::tracking) fn tag_map(tags: &[(String, String)]) -> Value {
    let pairs = tags.iter().map(|(key, value)| (key.clone(), json!(value)));
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// Writes what happened to everybody who wants to know, in the transaction in which it happens.
pub(in crate::tracking) fn tell(tx: &mut Tx<'_>, workspace: &str, event: &str, data: Value) -> Result<()> {
    let interested = stored::interested(tx, workspace, event)?;
    if interested.is_empty() {
        return Ok(());
    }
    let now = WallClock.now();
    let body = body(event, data, now);
    for webhook in interested {
        stored::enqueue(tx, &webhook, &delivery_id(now), event, &body, now)?;
    }
    Ok(())
}

/// What is sent.
pub(super) fn body(event: &str, data: Value, now: Timestamp) -> String {
    let (entity, action) = event.split_once('.').unwrap_or((event, ""));
    let time = now.to_string();
    let timestamp = format!("{}+00:00", time.strip_suffix('Z').unwrap_or(&time));
    json!({ "entity": entity, "action": action, "timestamp": timestamp, "data": data }).to_string()
}

/// A UUID with its dashes.
pub(in crate::tracking) fn delivery_id(now: Timestamp) -> String {
    let id = ids::fresh(now);
    let parts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    let parts: Vec<&str> = parts
        .into_iter()
        .filter_map(|(from, to)| id.get(from..to))
        .collect();
    parts.join("-")
}

/// What an event may look like, as MLflow shows it.
pub(super) fn example(event: &str) -> Value {
    let mut data = json!({});
    let name = if event.starts_with("prompt") {
        "example_prompt"
    } else {
        "example_model"
    };
    data["name"] = json!(name);
    let set = |data: &mut Value, pairs: &[(&str, Value)]| {
        for (key, value) in pairs {
            data[*key] = value.clone();
        }
    };
    let version = ("version", json!("1"));
    let key = ("key", json!("example_key"));
    let alias = ("alias", json!("example_alias"));
    let value = ("value", json!("example_value"));
    let tags = ("tags", json!({ "example_key": "example_value" }));
    let described = |text: &str| ("description", json!(text));
    match event {
        "registered_model.created" => set(&mut data, &[tags, described("An example registered model")]),
        "model_version.created" => set(
            &mut data,
            &[
                version,
                ("source", json!("models:/123")),
                ("run_id", json!("abcd1234abcd5678")),
                tags,
                described("An example model version"),
            ],
        ),
        "model_version_tag.set" | "prompt_version_tag.set" => set(&mut data, &[version, key, value]),
        "model_version_tag.deleted" | "prompt_version_tag.deleted" => set(&mut data, &[version, key]),
        "model_version_alias.created" | "prompt_alias.created" => set(&mut data, &[alias, version]),
        "model_version_alias.deleted" | "prompt_alias.deleted" => set(&mut data, &[alias]),
        "prompt.created" => set(&mut data, &[tags, described("An example prompt")]),
        "prompt_version.created" => set(
            &mut data,
            &[
                version,
                ("template", json!("Hello {{name}}!")),
                tags,
                described("An example prompt version"),
            ],
        ),
        "prompt_tag.set" => set(&mut data, &[key, value]),
        "prompt_tag.deleted" => set(&mut data, &[key]),
        _ => {}
    }
    data
}
