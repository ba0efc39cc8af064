//! The Open Inference Protocol v2 over JSON: <https://github.com/kserve/open-inference-protocol>. A model is an endpoint; a version
//! is one that is loaded behind it; a tensor is a feature column.

mod outputs;
mod tensors;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_core::frame::{FeatureKind, Task};
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_serving::{Route, ServeError};

use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{Body, media_type, parse_json, version_number};
use crate::infer::{self, Call, Reading};

/// `GET /v2`
pub(crate) async fn server_metadata() -> Json<Value> {
    Json(json!({ "name": "tidemill", "version": env!("CARGO_PKG_VERSION"), "extensions": [] }))
}

/// `GET /v2/health/live`
pub(crate) async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// `GET /v2/health/ready`
pub(crate) async fn ready(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    if !app.ready() {
        return Err(ApiError::unavailable(
            "not_ready",
            "the server is starting or stopping; try again shortly",
        ));
    }
    Ok(Json(json!({ "ready": true })))
}

/// Which model, and which version of it, a path names.
#[derive(Deserialize)]
pub(crate) struct ModelPath {
    model: EndpointName,
    #[serde(default)]
    version: Option<String>,
}

impl ModelPath {
    fn version(&self) -> Result<Option<VersionNumber>, ApiError> {
        self.version.as_deref().map(version_number).transpose()
    }
}

/// `GET /v2/models/{model}[/versions/{version}]`
pub(crate) async fn model_metadata(
    State(app): State<App>,
    Path(path): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let route = infer::route(&app, &path.model)?;
    check_loaded(&route, path.version()?)?;
    let versions: Vec<String> = route.versions().iter().map(ToString::to_string).collect();
    let inputs: Vec<Value> = route
        .schema
        .features
        .iter()
        .map(|feature| {
            let datatype = match feature.kind {
                FeatureKind::Numeric => "FP64",
                FeatureKind::Categorical => "BYTES",
            };
            json!({ "name": feature.name, "datatype": datatype, "shape": [-1] })
        })
        .collect();
    Ok(Json(json!({
        "name": path.model,
        "versions": versions,
        "platform": "tidemill",
        "inputs": inputs,
        "outputs": outputs::described(&route),
    })))
}

/// `GET /v2/models/{model}[/versions/{version}]/ready`
pub(crate) async fn model_ready(
    State(app): State<App>,
    Path(path): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let route = infer::route(&app, &path.model)?;
    let version = path.version()?;
    check_loaded(&route, version)?;
    let answers = route.champion.is_some() || route.previous.is_some() || route.default.is_some();
    if version.is_none() && !answers {
        let endpoint = path.model;
        return Err(ServeError::NoModel { endpoint }.into());
    }
    Ok(Json(json!({ "name": path.model, "ready": true })))
}

fn check_loaded(route: &Route, version: Option<VersionNumber>) -> Result<(), ApiError> {
    let loaded = route.versions();
    match version {
        Some(version) if !loaded.contains(&version) => {
            let endpoint = route.endpoint.clone();
            Err(ServeError::UnknownVersion {
                endpoint,
                version,
                loaded,
            }
            .into())
        }
        _ => Ok(()),
    }
}

/// `POST /v2/models/{model}[/versions/{version}]/infer`
pub(crate) async fn infer(
    State(app): State<App>,
    Path(path): Path<ModelPath>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<Value>, ApiError> {
    check_encoding(&headers)?;
    let call = Call::to(&app, &path.model, path.version()?)?;
    let answer = infer::predict(&app, call, body.len(), move |call| {
        let request: tensors::Request = parse_json(&body)?;
        let (request_id, wanted) = (request.id.clone(), request.requested_outputs());
        outputs::check_requested(&wanted, call.route.task)?;
        let columns = request.into_columns(call)?;
        Ok(Reading {
            columns,
            request_id,
            rest: wanted,
        })
    })
    .await?;
    Ok(Json(outputs::response(
        &answer.route,
        &answer.response,
        &answer.rest,
    )))
}

fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key("inference-header-content-length") {
        return Err(ApiError::unsupported_media_type(
            "binary tensor data is not read here: send JSON (tritonclient: `set_data_from_numpy(…, binary_data=False)`)",
        ));
    }
    match media_type(headers).as_deref() {
        None | Some("application/json" | "") => Ok(()),
        Some(other) => Err(ApiError::unsupported_media_type(format!(
            "the content type is `{other}`: send `application/json`"
        ))),
    }
}

/// The name of the output that carries the answer itself.
fn answer_name(task: Task) -> &'static str {
    match task {
        Task::Binary => "probability",
        Task::Multiclass => "probabilities",
        Task::Regression => "prediction",
    }
}
