//! What users are granted: on experiments, registered models and workspaces, and in the general form of MLflow 3.17.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tidemill_control::users::{EVERY, EXPERIMENT, GrantInfo, Permission, REGISTERED_MODEL};

use super::{Called, Fields};
use crate::auth::{Known, permission_of};
use crate::control_plane::App;
use crate::error::ApiError;

type Answer = Result<Json<Value>, ApiError>;

fn of_experiment(experiment_id: &str, grant: &GrantInfo) -> Json<Value> {
    Json(json!({ "experiment_permission": {
        "experiment_id": experiment_id, "user_id": grant.user_id, "permission": grant.permission,
    }}))
}

fn of_model(workspace: &str, name: &str, grant: &GrantInfo) -> Json<Value> {
    Json(json!({ "registered_model_permission": {
        "workspace": workspace, "name": name, "user_id": grant.user_id, "permission": grant.permission,
    }}))
}

/// An id that may come as a number.
fn experiment_id(fields: &Fields) -> Result<String, ApiError> {
    match fields.value("experiment_id") {
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => Ok(fields.required_text("experiment_id")?),
    }
}

/// `POST /api/2.0/mlflow/experiments/permissions/create`
pub(crate) async fn create_on_experiment(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Answer {
    let (id, user) = (experiment_id(&fields)?, fields.required_text("username")?);
    let permission = fields.required_text("permission")?;
    let grant = app
        .tracking()
        .create_grant(&caller, &user, EXPERIMENT, &id, &permission)
        .await?;
    Ok(of_experiment(&id, &grant))
}

/// `GET /api/2.0/mlflow/experiments/permissions/get`
pub(crate) async fn get_on_experiment(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Answer {
    let (id, user) = (experiment_id(&fields)?, fields.required_text("username")?);
    let grant = app.tracking().own_grant(&caller, &user, EXPERIMENT, &id).await?;
    Ok(of_experiment(&id, &grant))
}

/// `PATCH /api/2.0/mlflow/experiments/permissions/update`
pub(crate) async fn update_on_experiment(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Answer {
    let (id, user) = (experiment_id(&fields)?, fields.required_text("username")?);
    let permission = fields.required_text("permission")?;
    app.tracking()
        .update_grant(&caller, &user, EXPERIMENT, &id, &permission)
        .await?;
    Ok(Json(json!({})))
}

/// `DELETE /api/2.0/mlflow/experiments/permissions/delete`
pub(crate) async fn delete_on_experiment(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Answer {
    let (id, user) = (experiment_id(&fields)?, fields.required_text("username")?);
    app.tracking()
        .delete_grant(&caller, &user, EXPERIMENT, &id)
        .await?;
    Ok(Json(json!({})))
}

/// `POST /api/2.0/mlflow/registered-models/permissions/create`
pub(crate) async fn create_on_model(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Answer {
    let (name, user) = (fields.required_text("name")?, fields.required_text("username")?);
    let permission = fields.required_text("permission")?;
    let grant = app
        .tracking()
        .create_grant(&caller, &user, REGISTERED_MODEL, &name, &permission)
        .await?;
    Ok(of_model(&caller.workspace, &name, &grant))
}

/// `GET /api/2.0/mlflow/registered-models/permissions/get`
pub(crate) async fn get_on_model(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (name, user) = (fields.required_text("name")?, fields.required_text("username")?);
    let grant = app
        .tracking()
        .own_grant(&caller, &user, REGISTERED_MODEL, &name)
        .await?;
    Ok(of_model(&caller.workspace, &name, &grant))
}

/// `PATCH /api/2.0/mlflow/registered-models/permissions/update`
pub(crate) async fn update_on_model(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Answer {
    let (name, user) = (fields.required_text("name")?, fields.required_text("username")?);
    let permission = fields.required_text("permission")?;
    app.tracking()
        .update_grant(&caller, &user, REGISTERED_MODEL, &name, &permission)
        .await?;
    Ok(Json(json!({})))
}

/// `DELETE /api/2.0/mlflow/registered-models/permissions/delete`
pub(crate) async fn delete_on_model(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Answer {
    let (name, user) = (fields.required_text("name")?, fields.required_text("username")?);
    app.tracking()
        .delete_grant(&caller, &user, REGISTERED_MODEL, &name)
        .await?;
    Ok(Json(json!({})))
}

fn of_workspace(workspace: &str, grant: &GrantInfo) -> Value {
    let can_use = grant.permission.parse().is_ok_and(Permission::can_use);
    json!({
        "workspace": workspace, "user_id": grant.user_id, "permission": grant.permission, "can_use": can_use,
    })
}

/// `GET /api/3.0/mlflow/workspaces/{workspace_name}/permissions`
pub(crate) async fn list_on_workspace(State(app): State<App>, fields: Fields) -> Answer {
    let workspace = fields.required_text("workspace_name")?;
    let grants = app.tracking().workspace_grants(&workspace).await?;
    let grants: Vec<Value> = grants
        .iter()
        .map(|grant| of_workspace(&workspace, grant))
        .collect();
    Ok(Json(json!({ "permissions": grants })))
}

/// `POST /api/3.0/mlflow/workspaces/{workspace_name}/permissions`
pub(crate) async fn set_on_workspace(State(app): State<App>, fields: Fields) -> Answer {
    let workspace = fields.required_text("workspace_name")?;
    let (user, permission) = (
        fields.required_text("username")?,
        fields.required_text("permission")?,
    );
    let grant = app
        .tracking()
        .set_workspace_grant(&workspace, &user, &permission)
        .await?;
    Ok(Json(json!({ "permission": of_workspace(&workspace, &grant) })))
}

/// `DELETE /api/3.0/mlflow/workspaces/{workspace_name}/permissions`
pub(crate) async fn delete_on_workspace(
    State(app): State<App>,
    Called(mut caller): Called,
    fields: Fields,
) -> Result<StatusCode, ApiError> {
    caller.workspace = fields.required_text("workspace_name")?;
    let user = fields.required_text("username")?;
    let kind = tidemill_control::users::WORKSPACE;
    app.tracking().delete_grant(&caller, &user, kind, EVERY).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/3.0/mlflow/workspace-permissions`: what a user is granted on workspaces.
pub(crate) async fn list_workspaces_of_user(State(app): State<App>, fields: Fields) -> Answer {
    let name = fields.required_text("username")?;
    let (user, permissions) = app.tracking().permissions_of_user(&name).await?;
    let rows: Vec<Value> = permissions
        .into_iter()
        .filter(|row| row.resource_type == tidemill_control::users::WORKSPACE)
        .map(|row| {
            let grant = GrantInfo {
                user_id: user.id,
                permission: row.permission,
            };
            of_workspace(&row.workspace, &grant)
        })
        .collect();
    Ok(Json(json!({ "permissions": rows })))
}

/// `POST /api/3.0/mlflow/users/permissions/grant`
pub(crate) async fn grant(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (user, kind) = (
        fields.required_text("username")?,
        fields.required_text("resource_type")?,
    );
    let (resource, permission) = (
        fields.required_text("resource_id")?,
        fields.required_text("permission")?,
    );
    app.tracking().check_user_grant(&kind, &resource, &permission)?;
    app.tracking()
        .create_grant(&caller, &user, &kind, &resource, &permission)
        .await?;
    Ok(Json(json!({})))
}

/// `POST /api/3.0/mlflow/users/permissions/revoke`
pub(crate) async fn revoke(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (user, kind) = (
        fields.required_text("username")?,
        fields.required_text("resource_type")?,
    );
    let resource = fields.required_text("resource_id")?;
    app.tracking().check_user_grant(&kind, &resource, "READ")?;
    app.tracking()
        .delete_grant(&caller, &user, &kind, &resource)
        .await?;
    Ok(Json(json!({})))
}

/// `GET /api/3.0/mlflow/users/permissions/get`: what a user may do to a resource, all told.
pub(crate) async fn get(
    State(app): State<App>,
    Called(caller): Called,
    Known(_): Known,
    fields: Fields,
) -> Answer {
    let (user, kind) = (
        fields.required_text("username")?,
        fields.required_text("resource_type")?,
    );
    let resource = fields.required_text("resource_id")?;
    app.tracking().check_user_grant(&kind, &resource, "READ")?;
    let principal = app.tracking().principal(&user).await?;
    let permission = permission_of(&app, &principal, &kind, &resource, &caller.workspace).await?;
    Ok(Json(
        json!({ "allowed": permission.can_use(), "permission": permission.as_str() }),
    ))
}
