//! Registered models and model versions as MLflow's JSON.

use serde_json::{Map, Value, json};
use tidemill_store::registry::{Model, Version};

fn tags(pairs: &[(String, String)]) -> Value {
    pairs
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect()
}

/// A list that is left out where it is empty.
fn put_list(message: &mut Map<String, Value>, name: &str, list: Value) {
    if list.as_array().is_some_and(|items| !items.is_empty()) {
        message.insert(name.to_owned(), list);
    }
}

/// A text that is left out where it is empty.
fn put_text(message: &mut Map<String, Value>, name: &str, text: Option<&str>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        message.insert(name.to_owned(), Value::String(text.to_owned()));
    }
}

/// `RegisteredModel`
pub(crate) fn model_message(model: &Model) -> Value {
    let mut message = Map::new();
    message.insert("name".to_owned(), json!(model.name));
    message.insert(
        "creation_timestamp".to_owned(),
        json!(model.created_at.as_millis()),
    );
    message.insert(
        "last_updated_timestamp".to_owned(),
        json!(model.updated_at.as_millis()),
    );
    put_text(&mut message, "description", Some(&model.description));
    let latest = model.latest.iter().map(version_message).collect();
    put_list(&mut message, "latest_versions", latest);
    put_list(&mut message, "tags", tags(&model.tags));
    let aliases = model
        .aliases
        .iter()
        .map(|(alias, version)| json!({ "alias": alias, "version": version.to_string() }))
        .collect();
    put_list(&mut message, "aliases", aliases);
    Value::Object(message)
}

/// `ModelVersion`
pub(crate) fn version_message(version: &Version) -> Value {
    let mut message = Map::new();
    message.insert("name".to_owned(), json!(version.name));
    message.insert("version".to_owned(), json!(version.version.to_string()));
    message.insert(
        "creation_timestamp".to_owned(),
        json!(version.created_at.as_millis()),
    );
    message.insert(
        "last_updated_timestamp".to_owned(),
        json!(version.updated_at.as_millis()),
    );
    put_text(&mut message, "user_id", Some(&version.user_id));
    message.insert("current_stage".to_owned(), json!(version.stage));
    // Also where it is empty: clients tell that from one that was never given.
    message.insert("description".to_owned(), json!(version.description));
    put_text(&mut message, "source", Some(&version.source));
    put_text(&mut message, "run_id", version.run_id.as_deref());
    message.insert("status".to_owned(), json!(version.status));
    put_text(&mut message, "status_message", version.status_message.as_deref());
    put_list(&mut message, "tags", tags(&version.tags));
    put_text(&mut message, "run_link", version.run_link.as_deref());
    put_list(&mut message, "aliases", json!(version.aliases));
    put_text(&mut message, "model_id", version.model_id.as_deref());
    Value::Object(message)
}
