//! The addresses that W&B's client prints, `/entity/project/runs/id` and the like: each leads to our page of the same thing.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tidemill_control::tracking::Caller;
use tidemill_control::tracking::wandb::{WandbPlace, name_of};
use tidemill_control::users::{EXPERIMENT, Need, Principal};

use crate::auth::permission_of;
use crate::control_plane::App;
use crate::error::ApiError;

/// What our own pages and files begin with; an entity of such a name has its pages, but not under W&B's address.
const OURS: &[&str] = &[
    "endpoints",
    "experiments",
    "models",
    "runs",
    "decisions",
    "predictions",
    "src",
    "vendor",
];

/// A redirect to the page of what a path of W&B names; none if it names nothing that is here and that the user may look at.
pub(crate) async fn lead(
    app: &App,
    caller: &Caller,
    known: Option<&Principal>,
    path: &str,
) -> Result<Option<Response>, ApiError> {
    let parts: Vec<String> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(decoded)
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let Some(place) = place(app, caller, &parts).await? else {
        return Ok(None);
    };
    if let Some(known) = known {
        let id = place.experiment.to_string();
        let permission = permission_of(app, known, EXPERIMENT, &id, &caller.workspace).await?;
        if !permission.allows(Need::Read) {
            return Ok(None);
        }
    }
    Ok(Some(
        (StatusCode::FOUND, [(header::LOCATION, address(&place))]).into_response(),
    ))
}

async fn place(app: &App, caller: &Caller, parts: &[&str]) -> Result<Option<WandbPlace>, ApiError> {
    let [entity, project, rest @ ..] = parts else {
        return Ok(None);
    };
    if OURS.contains(entity) {
        return Ok(None);
    }
    let named = |name: &str| name_of(caller, Some(entity), Some(project), name);
    let tracking = app.tracking();
    Ok(match rest {
        ["runs", run, ..] => tracking.wandb_run_place(named(run)).await?,
        ["sweeps", sweep, ..] => tracking.wandb_sweep_place(named(sweep)).await?,
        ["artifacts", _, name] => tracking.wandb_artifact_place(caller, named(""), name).await?,
        ["artifacts", _, name, version, ..] => {
            let full = format!("{name}:{version}");
            tracking.wandb_artifact_place(caller, named(""), &full).await?
        }
        [] | ["workspace" | "table" | "overview" | "runs" | "sweeps" | "artifacts" | "jobs"] => {
            tracking.wandb_project_place(named("")).await?
        }
        _ => None,
    })
}

fn decoded(part: &str) -> String {
    // A plus is a plus in a path.
    let text = format!("x={}", part.replace('+', "%2B").replace('&', "%26"));
    let read: Option<Vec<(String, String)>> = serde_urlencoded::from_str(&text).ok();
    read.and_then(|mut pairs| pairs.pop())
        .map_or_else(|| part.to_owned(), |(_, value)| value)
}

fn address(place: &WandbPlace) -> String {
    let experiment = place.experiment;
    match (&place.run_id, &place.sweep) {
        (Some(run_id), _) => format!("/experiments/{experiment}/runs/{run_id}"),
        (None, Some(sweep)) => {
            let filter = format!("tags.`wandb.sweep` = '{sweep}'");
            let query = serde_urlencoded::to_string([("filter", filter)]).unwrap_or_default();
            format!("/experiments/{experiment}?{query}")
        }
        (None, None) => format!("/experiments/{experiment}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_path_is_read_as_it_was_written() {
        assert_eq!(decoded("my%20project%2Fa+b&c=d"), "my project/a+b&c=d");
    }

    #[test]
    fn places_have_addresses() {
        let place = WandbPlace {
            experiment: 3,
            run_id: None,
            sweep: Some("s1".to_owned()),
        };
        assert_eq!(
            address(&place),
            "/experiments/3?filter=tags.%60wandb.sweep%60+%3D+%27s1%27"
        );
    }
}
