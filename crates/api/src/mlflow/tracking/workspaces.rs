//! MLflow's workspaces.

use axum::Json;
use axum::extract::{MatchedPath, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tidemill_store::workspaces::Workspace;

use super::{Fields, form_pairs};
use crate::auth::Caller as Asking;
use crate::control_plane::App;
use crate::error::ApiError;

fn message(workspace: &Workspace) -> Value {
    let mut message = json!({ "name": workspace.name });
    if let Some(description) = &workspace.description {
        message["description"] = json!(description);
    }
    if let Some(root) = &workspace.default_artifact_root {
        message["default_artifact_root"] = json!(root);
    }
    message
}

/// What MLflow answers where workspaces are off.
pub(crate) fn disabled(path: Option<&MatchedPath>) -> Response {
    let path = path.map_or("/api/3.0/mlflow/workspaces", MatchedPath::as_str);
    let text = format!("Endpoint: {path} disabled because the server is running without workspaces support.");
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// Refuses a route of workspaces where they are off.
pub(crate) fn refused(app: &App, request: &Request) -> Option<Response> {
    let path = request.extensions().get::<MatchedPath>();
    let about = path.is_some_and(|path| {
        path.as_str().contains("/mlflow/workspaces") || path.as_str().ends_with("/workspace-permissions")
    });
    (about && !app.tracking().options().workspaces).then(|| disabled(path))
}

/// `GET /api/3.0/mlflow/workspaces`: those that the user may see.
pub(crate) async fn list(State(app): State<App>, Asking(known): Asking) -> Result<Json<Value>, ApiError> {
    let workspaces = app.tracking().list_workspaces().await?;
    let seen = |workspace: &&Workspace| {
        known
            .as_ref()
            .is_none_or(|known| known.sees_workspace(&workspace.name))
    };
    let workspaces: Vec<Value> = workspaces.iter().filter(seen).map(message).collect();
    Ok(Json(json!({ "workspaces": workspaces })))
}

/// `POST /api/3.0/mlflow/workspaces`
pub(crate) async fn create(
    State(app): State<App>,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let workspace = Workspace {
        name: fields.required_text("name")?,
        description: fields.text("description")?,
        default_artifact_root: fields.text("default_artifact_root")?,
    };
    let workspace = app.tracking().create_workspace(workspace).await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({ "workspace": message(&workspace) })),
    ))
}

/// `GET /api/3.0/mlflow/workspaces/{workspace_name}`
pub(crate) async fn get(State(app): State<App>, fields: Fields) -> Result<Json<Value>, ApiError> {
    let workspace = app
        .tracking()
        .workspace(&fields.required_text("workspace_name")?)
        .await?;
    Ok(Json(json!({ "workspace": message(&workspace) })))
}

/// `PATCH /api/3.0/mlflow/workspaces/{workspace_name}`
pub(crate) async fn update(State(app): State<App>, fields: Fields) -> Result<Json<Value>, ApiError> {
    let name = fields.required_text("workspace_name")?;
    let (description, root) = (fields.text("description")?, fields.text("default_artifact_root")?);
    let workspace = app.tracking().update_workspace(&name, description, root).await?;
    Ok(Json(json!({ "workspace": message(&workspace) })))
}

/// `DELETE /api/3.0/mlflow/workspaces/{workspace_name}`
pub(crate) async fn delete(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    fields: Fields,
) -> Result<StatusCode, ApiError> {
    let name = fields.required_text("workspace_name")?;
    // Always in the query, whatever the body is.
    let pairs = form_pairs(&query.unwrap_or_default());
    let mode = pairs
        .into_iter()
        .find(|(key, _)| key == "mode")
        .map(|(_, mode)| mode);
    app.tracking().delete_workspace(&name, mode.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}
