//! Deployments: bundles and registered models that answer under a name.

use axum::Json as Written;
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::http::StatusCode;
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_control::delivery::deployments::{DeployRequest, DeploymentView};
use tidemill_core::ids::EndpointName;

use super::Answer;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{Json, Params, interrupted, media_type};
use crate::mlflow::tracking::Called;

/// What stands in the query where the body is a bundle.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BundleQuery {
    name: Option<String>,
    /// JSON.
    serving: Option<String>,
}

/// Variables that workers are given may be secrets: their names are shown, not their values.
fn shown(view: &DeploymentView) -> Result<Value, ApiError> {
    let mut value =
        serde_json::to_value(view).map_err(|error| ApiError::internal("internal", error.to_string()))?;
    for version in value["versions"].as_array_mut().into_iter().flatten() {
        let environment = version.pointer_mut("/manifest/python/environment");
        let Some(environment) = environment.and_then(Value::as_object_mut) else {
            continue;
        };
        for hidden in environment.values_mut() {
            *hidden = json!("***");
        }
    }
    Ok(value)
}

/// `POST /api/v1/deployments`: a bundle as it is, or JSON that names a registered model.
pub(crate) async fn create(
    State(app): State<App>,
    Called(caller): Called,
    Params(query): Params<BundleQuery>,
    request: Request,
) -> Result<(StatusCode, Written<Value>), ApiError> {
    let kind = media_type(request.headers()).unwrap_or_default();
    let deployments = app.deployments();
    let view = match kind.as_str() {
        "application/json" => {
            let Json(asked) = Json::<DeployRequest>::from_request(request, &()).await?;
            match (&asked.source, &asked.graph) {
                (Some(_), None) => deployments.deploy_model(app.tracking(), &caller, asked).await?,
                (None, Some(_)) => deployments.deploy_graph(asked, &caller.user).await?,
                _ => {
                    return Err(ApiError::bad_request(
                        "invalid_parameter_value",
                        "expected either a `source`, such as `models:/NAME/VERSION`, or a `graph`",
                    ));
                }
            }
        }
        "application/octet-stream" | "application/zstd" => {
            let serving = query.serving.as_deref().map(serde_json::from_str).transpose();
            let asked = DeployRequest {
                name: query.name,
                serving: serving
                    .map_err(|error| {
                        ApiError::bad_request("bad_query", format!("`serving` is no JSON object: {error}"))
                    })?
                    .unwrap_or_default(),
                ..DeployRequest::default()
            };
            let mut upload = deployments.upload().await?;
            let mut pieces = request.into_body().into_data_stream();
            while let Some(piece) = pieces.next().await {
                upload.write(piece.map_err(|error| interrupted(&error))?).await?;
            }
            deployments.deploy(upload, asked, &caller.user).await?
        }
        other => {
            return Err(ApiError::unsupported_media_type(format!(
                "the content type is `{other}`: send a bundle as `application/octet-stream`, or `application/json` with a `source` or a `graph`"
            )));
        }
    };
    Ok((StatusCode::CREATED, Written(shown(&view)?)))
}

/// `GET /api/v1/deployments`
pub(crate) async fn list(State(app): State<App>) -> Answer {
    let found = app.deployments().list().await?;
    let items: Result<Vec<Value>, ApiError> = found.iter().map(shown).collect();
    Ok(Written(json!({ "items": items? })))
}

/// `GET /api/v1/deployments/{name}`
pub(crate) async fn get(State(app): State<App>, Path(name): Path<EndpointName>) -> Answer {
    Ok(Written(shown(&app.deployments().get(&name).await?)?))
}

/// `DELETE /api/v1/deployments/{name}`
pub(crate) async fn delete(
    State(app): State<App>,
    Called(caller): Called,
    Path(name): Path<EndpointName>,
) -> Result<StatusCode, ApiError> {
    app.deployments().delete(&name, &caller.user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The schema of the body, for the OpenAPI document.
pub(crate) fn schema() -> (&'static str, Value) {
    let schema = json!({
        "type": "object",
        "description": "Names a registered model, or is a graph. A bundle is sent as it is instead, as `application/octet-stream`, with `name` and \
                        `serving` in the query.",
        "properties": {
            "graph": { "type": "object", "description": "A graph as in `tidemill.yaml`, instead of a source; its `name` is needed then" },
            "source": { "type": "string", "description": "`models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/m-ID` or `runs:/RUN/PATH`" },
            "python": { "type": "object", "description": "In which Python a source is loaded: `interpreter`, `preload` (a list), `environment` (variables)" },
            "requirements": { "type": "string", "description": "The text of a requirements file from which an environment is made for a source" },
            "name": { "type": "string" },
            "serving": { "type": "object", "description": "Parts of the settings of serving, as in `tidemill.yaml`" },
        },
    });
    ("Deploy", schema)
}
