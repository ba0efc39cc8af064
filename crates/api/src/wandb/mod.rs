//! Weights & Biases' client: the operations of its GraphQL that it sends while it tracks, its stream of lines, and the URLs by which
//! it sends and fetches bytes.
//!
//! Operations are known by their names: the client's queries are fixed texts, so no query is ever interpreted. What is not known
//! here is answered with GraphQL errors, as an older server of W&B's would, and the client goes on without.

mod accounts;
pub(crate) mod addresses;
mod artifacts;
pub(crate) mod http;
mod links;
mod reads;
mod runs;
mod sweeps;
mod versions;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::{Map, Value, json};
use tidemill_control::tracking::wandb::default_entity;
use tidemill_control::tracking::{Caller, Tracking, TrackingError};
use tidemill_control::users::Principal;

use crate::control_plane::App;
use crate::error::ApiError;
use crate::mlflow::tracking::Called;

/// Whether a user may track in a workspace. W&B's client knows no rights on single experiments: it is all or nothing, so one that the
/// user may not change closes them all.
pub(crate) fn may_track(known: Option<&Principal>, workspace: &str) -> bool {
    known.is_none_or(|known| known.changes_every_experiment_of(workspace))
}

/// A caller who may track in the workspace.
pub(crate) struct Tracks(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for Tracks {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Called(caller) = Called::from_request_parts(parts, state).await?;
        let known = parts.extensions.get::<Arc<Principal>>();
        if may_track(known.map(AsRef::as_ref), &caller.workspace) {
            return Ok(Self(caller));
        }
        Err(denied(&caller.workspace).into())
    }
}

pub(crate) fn denied(workspace: &str) -> TrackingError {
    TrackingError::Denied(format!(
        "the user may not change what is in the workspace `{workspace}`"
    ))
}

/// An operation that was asked for.
pub(crate) struct Operation<'a> {
    tracking: &'a Tracking,
    caller: &'a Caller,
    /// Scheme and host by which the client reaches this server.
    origin: &'a str,
    /// The text of the operation, where its name says too little.
    query: &'a str,
    variables: &'a Map<String, Value>,
}

type Data = Result<Value, TrackingError>;

/// What is answered to an operation of W&B's client, with the HTTP status; none if it is not one.
pub(crate) async fn graphql(
    app: &App,
    caller: &Caller,
    origin: &str,
    (name, query): (&str, &str),
    variables: &Map<String, Value>,
) -> Option<(u16, Value)> {
    let op = Operation {
        tracking: app.tracking(),
        caller,
        origin,
        query,
        variables,
    };
    let data = match accounts::answer(&op, name) {
        Some(data) => Ok(data),
        None => match runs::answer(&op, name).await {
            Some(data) => data,
            None => match artifacts::answer(&op, name).await {
                Some(data) => data,
                None => match reads::answer(&op, name).await {
                    Some(data) => data,
                    None => match versions::answer(&op, name).await {
                        Some(data) => data,
                        None => match links::answer(&op, name).await {
                            Some(data) => data,
                            None => sweeps::answer(&op, name).await?,
                        },
                    },
                },
            },
        },
    };
    Some(match data {
        Ok(data) => (200, json!({ "data": data })),
        Err(error) => failed(name, &error),
    })
}

/// An error in GraphQL's shape. The client tries again what fails with 500 and above, and takes 200 with errors for final.
fn failed(name: &str, error: &TrackingError) -> (u16, Value) {
    let status = match error {
        // An agent whose sweep is gone goes by the status.
        TrackingError::NotFound(_) if name == "Heartbeat" => 404,
        TrackingError::Store(error) if error.blame() != tidemill_core::ports::Blame::Caller => 500,
        _ => 200,
    };
    if status == 500 {
        tracing::error!(%error, operation = name, "failed");
    }
    (
        status,
        json!({ "data": null, "errors": [{ "message": error.to_string(), "path": [name] }] }),
    )
}

/// The name of a query's first operation.
pub(crate) fn name_in(query: &str) -> Option<&str> {
    let start = ["query", "mutation"]
        .into_iter()
        .filter_map(|word| query.find(word).map(|at| at + word.len()))
        .min()?;
    let rest = query[start..].trim_start();
    let end = rest
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

impl Operation<'_> {
    /// A text, if it is given and not empty.
    fn text(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// The object under `input`.
    fn input(&self) -> &Map<String, Value> {
        self.variables
            .get("input")
            .and_then(Value::as_object)
            .unwrap_or(self.variables)
    }

    /// JSON in a text.
    fn json(&self, name: &str) -> Option<Value> {
        self.text(name).and_then(|text| serde_json::from_str(text).ok())
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let listed = self
            .variables
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        listed
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    }

    fn entity(&self) -> String {
        default_entity(self.caller)
    }
}

fn text_of<'m>(map: &'m Map<String, Value>, name: &str) -> &'m str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A project as most answers hold it.
fn project(entity: &str, name: &str) -> Value {
    let id = opaque("Project", &format!("{entity}/{name}"));
    json!({ "id": id, "internalId": id, "name": name, "entityName": entity, "entity": { "id": opaque("Entity", entity), "name": entity } })
}

/// An id as W&B writes one: a kind and a key in base64, which its client takes apart in places.
fn opaque(kind: &str, key: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("{kind}:{key}"))
}

/// The key of an id of a kind.
fn key_of(kind: &str, id: &str) -> Option<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(id).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.strip_prefix(kind)?.strip_prefix(':').map(str::to_owned)
}

/// Milliseconds since the epoch as W&B writes a time.
fn time(ms: i64) -> String {
    tidemill_core::clock::Timestamp::from_micros(ms.saturating_mul(1_000)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_operation_is_found_in_its_text() {
        assert_eq!(name_in("query Viewer {\n\tviewer { id } }"), Some("Viewer"));
        assert_eq!(
            name_in("\n  mutation UpsertSweep(\n $id: ID"),
            Some("UpsertSweep")
        );
        assert_eq!(name_in("{ viewer { id } }"), None);
        assert_eq!(name_in("query { viewer }"), None);
    }

    #[test]
    fn ids_are_taken_apart_again() {
        let id = opaque("Artifact", "12");
        assert_eq!(key_of("Artifact", &id).as_deref(), Some("12"));
        assert_eq!(key_of("Run", &id), None);
        assert_eq!(key_of("Artifact", "%%"), None);
    }
}
