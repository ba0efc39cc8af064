//! Sweeps by our own API: any program can ask for trials and report what it measured.

use axum::Json as Written;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use tidemill_control::tracking::TrackingError;
use tidemill_control::tracking::sweeps::{Report, SweepChange};
use tidemill_control::tracking::wandb::{NO_PROJECT, default_entity};
use tidemill_store::sweeps::{Sweep, Trial};

use super::Answer;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::mlflow::tracking::{Called, Fields};
use crate::wandb::Tracks;

fn sweep(of: &Sweep) -> Value {
    json!({
        "sweep_id": of.sweep_id, "project": of.project, "name": of.display_name, "state": of.state, "seed": of.seed,
        "config": of.config, "created_ms": of.created_ms, "updated_ms": of.updated_ms,
    })
}

fn trial(of: &Trial) -> Value {
    json!({
        "number": of.number, "run": of.run_name, "params": of.params, "state": of.state, "value": of.objective,
        "created_ms": of.created_ms, "updated_ms": of.updated_ms,
    })
}

/// `POST /api/v1/sweeps`
pub(crate) async fn create(
    State(app): State<App>,
    Tracks(caller): Tracks,
    fields: Fields,
) -> Result<(StatusCode, Written<Value>), ApiError> {
    let change = SweepChange {
        sweep_id: None,
        entity: default_entity(&caller),
        project: fields.text("project")?.unwrap_or_else(|| NO_PROJECT.to_owned()),
        config: fields.value("config").cloned(),
        display_name: fields.text("name")?,
        state: None,
    };
    let made = app.tracking().put_sweep(&caller, change).await?;
    Ok((StatusCode::CREATED, Written(sweep(&made))))
}

/// `GET /api/v1/sweeps`
pub(crate) async fn list(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let listed = app
        .tracking()
        .list_sweeps(&caller, fields.text("project")?)
        .await?;
    let items: Vec<Value> = listed.iter().map(sweep).collect();
    Ok(Written(json!({ "items": items })))
}

/// `GET /api/v1/sweeps/{id}`
pub(crate) async fn show(State(app): State<App>, Called(caller): Called, Path(id): Path<String>) -> Answer {
    let (found, trials) = app.tracking().get_sweep(&caller, &id).await?;
    let mut shown = sweep(&found);
    shown["trials"] = trials.iter().map(trial).collect();
    Ok(Written(shown))
}

/// `PATCH /api/v1/sweeps/{id}`: its name or state, such as `PAUSED`.
pub(crate) async fn change(
    State(app): State<App>,
    Tracks(caller): Tracks,
    Path(id): Path<String>,
    fields: Fields,
) -> Answer {
    let change = SweepChange {
        sweep_id: Some(id),
        display_name: fields.text("name")?,
        state: fields.text("state")?,
        ..SweepChange::default()
    };
    Ok(Written(sweep(&app.tracking().put_sweep(&caller, change).await?)))
}

/// `POST /api/v1/sweeps/{id}/next`: the next trial, or null when there are no more.
pub(crate) async fn next(State(app): State<App>, Tracks(caller): Tracks, Path(id): Path<String>) -> Answer {
    let next = app.tracking().next_trial(&caller, &id).await?;
    Ok(Written(json!({ "trial": next.as_ref().map(trial) })))
}

/// `POST /api/v1/sweeps/{id}/trials/{number}/report`
pub(crate) async fn report(
    State(app): State<App>,
    Tracks(caller): Tracks,
    Path((id, number)): Path<(String, String)>,
    fields: Fields,
) -> Answer {
    let Ok(number) = number.parse() else {
        return Err(TrackingError::invalid(format!("`{number}` is no trial's number")).into());
    };
    let ended = match fields.text("state")?.as_deref() {
        None | Some("running") => None,
        Some(word) => Some(
            word.parse()
                .map_err(|e: tidemill_store::UnknownWord| TrackingError::invalid(e.to_string()))?,
        ),
    };
    let report = Report {
        value: fields.number("value")?,
        step: fields.integer("step")?,
        ended,
    };
    let stop = app.tracking().report_trial(&caller, &id, number, report).await?;
    Ok(Written(json!({ "stop": stop })))
}

/// The schemas of this noun's bodies.
pub(crate) fn schemas() -> Vec<(&'static str, Value)> {
    let (text, number) = (json!({ "type": "string" }), json!({ "type": "number" }));
    let object = |properties: Value| json!({ "type": "object", "properties": properties });
    vec![
        (
            "NewSweep",
            object(json!({ "project": text, "name": text, "config": { "type": ["object", "string"] } })),
        ),
        ("SweepChange", object(json!({ "name": text, "state": text }))),
        (
            "TrialReport",
            object(json!({ "value": number, "step": { "type": "integer" }, "state": text })),
        ),
    ]
}
