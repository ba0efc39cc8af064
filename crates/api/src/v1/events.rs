//! The event log: as a list, and live by server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::{Extension, Json};
use futures::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_store::events::Event;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Answer;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::Params;
use crate::server::Stopping;

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;
/// How many stored events are read at a time on the way to the live ones.
const CATCH_UP: u32 = 500;

/// Which part of the log is wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    after: Option<i64>,
    limit: Option<u32>,
}

/// `GET /api/v1/events`
pub(crate) async fn list(State(app): State<App>, Params(page): Params<Page>) -> Answer {
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
    if limit == 0 || limit > MAX_LIMIT {
        return Err(ApiError::bad_request(
            "bad_query",
            format!("`limit` is `{limit}`, expected 1 to {MAX_LIMIT}"),
        ));
    }
    let after = page.after.unwrap_or(0);
    let events = app.events_after(after, limit).await?;
    let next = events.last().map_or(after, |event| event.seq);
    let events: Vec<Value> = events.iter().map(line).collect();
    Ok(Json(json!({ "events": events, "next": next })))
}

/// An event as `view::TimelineEvent` has it, with the payload beside.
fn line(event: &Event) -> Value {
    let mut line = json!(tidemill_control::described(event.clone()));
    line["payload"] = event.payload.clone();
    line
}

/// Where a stream starts, for a client that cannot set `Last-Event-ID`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    after: Option<i64>,
}

/// `GET /api/v1/events/stream`: everything after `Last-Event-ID` (or `?after=`) from the store, then live; without either, only live.
pub(crate) async fn stream(
    State(app): State<App>,
    headers: HeaderMap,
    Params(start): Params<Start>,
    stopping: Option<Extension<Stopping>>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, ApiError> {
    let after = last_event_id(&headers)?.or(start.after);
    let events = Feed::new(app, after)
        .into_stream()
        .map(|event| Ok(written(&event)));
    let stopped = async move {
        match stopping {
            Some(Extension(stopping)) => stopping.wait().await,
            None => std::future::pending().await,
        }
    };
    Ok(Sse::new(events.take_until(stopped)).keep_alive(KeepAlive::default()))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, ApiError> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        ApiError::bad_request(
            "bad_query",
            format!("`Last-Event-ID` is `{text}`, expected an event's number"),
        )
    })
}

fn written(event: &Event) -> sse::Event {
    let data = line(event).to_string();
    // A kind is written by us, without line breaks.
    sse::Event::default()
        .id(event.seq.to_string())
        .event(&event.kind)
        .data(data)
}

/// Events in order and without a gap: what is broadcast is passed on only if it follows what was sent; else the store is read.
struct Feed {
    app: App,
    live: Receiver<Event>,
    /// The number of the last event sent; `None` before the first of a feed that starts live.
    last: Option<i64>,
    ready: VecDeque<Event>,
    /// The store may hold events after `last` that were not read.
    behind: bool,
}

impl Feed {
    fn new(app: App, after: Option<i64>) -> Self {
        // Subscribed before the store is read, so that nothing falls between.
        let live = app.subscribe();
        Self {
            app,
            live,
            last: after,
            ready: VecDeque::new(),
            behind: after.is_some(),
        }
    }

    fn into_stream(self) -> impl Stream<Item = Event> {
        stream::unfold(self, |mut feed| async move {
            let event = feed.next().await?;
            Some((event, feed))
        })
    }

    /// `None` once the house shuts down, or the store cannot be read: the client comes back with the last id it saw.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.last = Some(event.seq);
                return Some(event);
            }
            if self.behind {
                let after = self.last.unwrap_or(0);
                match self.app.events_after(after, CATCH_UP).await {
                    Ok(events) => {
                        self.behind = events.len() >= CATCH_UP as usize;
                        self.ready = events.into();
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an event stream ends, for the store cannot be read");
                        return None;
                    }
                }
                continue;
            }
            match self.live.recv().await {
                Ok(event) => match self.last {
                    Some(last) if event.seq <= last => {}
                    Some(last) if event.seq > last + 1 => self.behind = true,
                    _ => self.ready.push_back(event),
                },
                // What was missed is in the store; a feed that has sent nothing yet has missed nothing.
                Err(RecvError::Lagged(_)) => self.behind = self.last.is_some(),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
