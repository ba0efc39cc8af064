//! The model repository extension: what there is, and loading and unloading of deployments.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_core::ids::EndpointName;

use super::optional_object;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::Inflated;
use crate::infer::describe::{check_load_parameters, index as listed, set_loaded};

/// Which deployment a path names. It may name a repository too: there is one here, whatever clients call it.
#[derive(Deserialize)]
pub(crate) struct Named {
    model: EndpointName,
}

/// `POST /v2/repository[/{repository}]/index`
pub(crate) async fn index(State(app): State<App>, Inflated(body): Inflated) -> Result<Json<Value>, ApiError> {
    let asked = optional_object(&body)?;
    let ready = asked.get("ready").and_then(Value::as_bool).unwrap_or(false);
    let entry = |one: crate::infer::describe::Listed| json!({ "name": one.name, "version": one.version, "state": one.state.name(), "reason": one.reason });
    Ok(Json(listed(&app, ready).into_iter().map(entry).collect()))
}

/// `POST /v2/repository[/{repository}]/models/{model}/load`
pub(crate) async fn load(
    State(app): State<App>,
    Path(Named { model }): Path<Named>,
    Inflated(body): Inflated,
) -> Result<StatusCode, ApiError> {
    let asked = optional_object(&body)?;
    let parameters = asked.get("parameters").and_then(Value::as_object);
    check_load_parameters(
        parameters
            .into_iter()
            .flat_map(|map| map.keys().map(String::as_str)),
    )?;
    set_loaded(&app, &model, true).await?;
    Ok(StatusCode::OK)
}

/// `POST /v2/repository[/{repository}]/models/{model}/unload`
pub(crate) async fn unload(
    State(app): State<App>,
    Path(Named { model }): Path<Named>,
    Inflated(body): Inflated,
) -> Result<StatusCode, ApiError> {
    // `unload_dependents` changes nothing: nothing here depends on a deployment by being loaded.
    optional_object(&body)?;
    set_loaded(&app, &model, false).await?;
    Ok(StatusCode::OK)
}
