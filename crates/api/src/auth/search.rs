//! Searches that hold what the sender may look at, and nothing else.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tidemill_control::tracking::Caller;
use tidemill_control::users::{EXPERIMENT, Need, Principal, REGISTERED_MODEL};

use super::rules::Search;
use super::subjects::permission_of;
use super::{Asked, Refused, set_length};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::BODY_LIMIT;

/// A page is filled up by asking again, so often at most; a short page with a token is right too.
const ROUNDS: usize = 64;

/// Runs a search for its sender.
pub(super) async fn limited(
    app: &App,
    what: Search,
    known: &Arc<Principal>,
    caller: &Caller,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    if known.reads_all_of(&caller.workspace) {
        return Ok(next.run(request).await);
    }
    let asked = Asked::read(request).await?;
    match what {
        Search::InExperiments => in_experiments(app, known, caller, asked, next).await,
        Search::Experiments => filtered(what, "experiments", 1000, known, caller, asked, next).await,
        Search::Models => filtered(what, "registered_models", 100, known, caller, asked, next).await,
        Search::Versions => filtered(what, "model_versions", 10_000, known, caller, asked, next).await,
    }
}

/// The body of a request as an object, under the names that it came with.
fn object(body: &Bytes) -> Map<String, Value> {
    let parsed = match serde_json::from_slice(body) {
        Ok(Value::String(inner)) => serde_json::from_str(&inner).unwrap_or(Value::Null),
        Ok(parsed) => parsed,
        Err(_) => Value::Null,
    };
    match parsed {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn with_body(mut parts: Parts, map: &Map<String, Value>) -> Request {
    let body = Bytes::from(serde_json::to_vec(map).unwrap_or_default());
    set_length(&mut parts, body.len());
    Request::from_parts(parts, Body::from(body))
}

/// Takes experiments that may not be looked at out of the question.
async fn in_experiments(
    app: &App,
    known: &Principal,
    caller: &Caller,
    asked: Asked,
    next: Next,
) -> Result<Response, Refused> {
    let ids = asked.fields.texts("experiment_ids")?;
    let mut readable = Vec::new();
    for id in &ids {
        let permission = permission_of(app, known, EXPERIMENT, id, &caller.workspace).await?;
        if permission.allows(Need::Read) {
            readable.push(id.clone());
        }
    }
    if readable.len() == ids.len() {
        return Ok(next.run(asked.into_request()).await);
    }
    if readable.is_empty() {
        return Ok(axum::Json(json!({})).into_response());
    }
    let mut map = object(&asked.body);
    map.remove("experimentIds");
    map.insert("experiment_ids".to_owned(), json!(readable));
    Ok(next.run(with_body(asked.parts, &map)).await)
}

/// Takes what may not be looked at out of the answer, and asks for more until the page is full.
async fn filtered(
    what: Search,
    list: &str,
    default_size: i64,
    known: &Principal,
    caller: &Caller,
    asked: Asked,
    next: Next,
) -> Result<Response, Refused> {
    let size = asked.fields.integer("max_results")?.unwrap_or(default_size);
    let readable = |item: &Value| {
        let (kind, field) = match what {
            Search::Experiments => (EXPERIMENT, "experiment_id"),
            _ => (REGISTERED_MODEL, "name"),
        };
        let id = item[field].as_str().unwrap_or_default();
        known.on(kind, id, &caller.workspace).allows(Need::Read)
    };
    let (mut kept, mut token): (Vec<Value>, Option<String>) = (Vec::new(), None);
    for round in 0..ROUNDS {
        let missing = size - kept.len() as i64;
        // The first question goes on as it came: what is wrong in it is for the handler to say.
        let request = match &token {
            None if round == 0 => Request::from_parts(asked.parts.clone(), Body::from(asked.body.clone())),
            None => break,
            Some(token) => following(&asked, missing, token),
        };
        let response = next.clone().run(request).await;
        if response.status() != StatusCode::OK {
            return Ok(response);
        }
        let mut answer = read(response).await?;
        token = answer
            .remove("next_page_token")
            .and_then(|token| token.as_str().map(str::to_owned))
            .filter(|token| !token.is_empty());
        if let Some(Value::Array(items)) = answer.remove(list) {
            kept.extend(items.into_iter().filter(readable));
        }
        if kept.len() as i64 >= size {
            break;
        }
    }
    let mut answer = Map::new();
    if !kept.is_empty() {
        answer.insert(list.to_owned(), Value::Array(kept));
    }
    if let Some(token) = token {
        answer.insert("next_page_token".to_owned(), Value::String(token));
    }
    Ok(axum::Json(Value::Object(answer)).into_response())
}

/// The same question about what follows a page.
fn following(asked: &Asked, size: i64, token: &str) -> Request {
    let mut parts = asked.parts.clone();
    if parts.method != Method::GET {
        let mut map = object(&asked.body);
        map.remove("maxResults");
        map.remove("pageToken");
        map.insert("max_results".to_owned(), json!(size));
        map.insert("page_token".to_owned(), json!(token));
        return with_body(parts, &map);
    }
    let query = parts.uri.query().unwrap_or_default();
    let mut pairs = crate::mlflow::tracking::form_pairs(query);
    pairs.retain(|(name, _)| name != "max_results" && name != "page_token");
    pairs.push(("max_results".to_owned(), size.to_string()));
    pairs.push(("page_token".to_owned(), token.to_owned()));
    let query = serde_urlencoded::to_string(pairs).unwrap_or_default();
    let path = parts.uri.path();
    if let Ok(uri) = format!("{path}?{query}").parse() {
        parts.uri = uri;
    }
    Request::from_parts(parts, Body::empty())
}

async fn read(response: Response) -> Result<Map<String, Value>, ApiError> {
    let body = axum::body::to_bytes(response.into_body(), BODY_LIMIT).await;
    let body = body.map_err(|error| {
        ApiError::internal(
            "internal",
            format!("an answer could not be read to be filtered: {error}"),
        )
    })?;
    Ok(object(&body))
}
