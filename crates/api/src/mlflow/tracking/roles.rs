//! MLflow 3.17's roles.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use tidemill_control::users::RoleInfo;
use tidemill_store::users::{Assignment, RolePermission};

use super::Fields;
use crate::auth::Known;
use crate::control_plane::App;
use crate::error::ApiError;

type Answer = Result<Json<Value>, ApiError>;

fn of_permission(permission: &RolePermission) -> Value {
    json!({
        "id": permission.id, "role_id": permission.role, "resource_type": permission.resource_type,
        "resource_pattern": permission.resource_pattern, "permission": permission.permission,
    })
}

fn of_role(info: &RoleInfo) -> Value {
    let permissions: Vec<Value> = info.permissions.iter().map(of_permission).collect();
    json!({
        "id": info.role.id, "name": info.role.name, "workspace": info.role.workspace,
        "description": info.role.description, "permissions": permissions,
    })
}

fn of_assignment(assignment: &Assignment) -> Value {
    json!({ "id": assignment.id, "user_id": assignment.user, "role_id": assignment.role })
}

/// `POST /api/3.0/mlflow/roles/create`
pub(crate) async fn create(State(app): State<App>, fields: Fields) -> Answer {
    let (workspace, name) = (fields.required_text("workspace")?, fields.required_text("name")?);
    let description = fields.text("description")?;
    let role = app
        .tracking()
        .create_role(&workspace, &name, description.as_deref())
        .await?;
    Ok(Json(json!({ "role": of_role(&role) })))
}

/// `GET /api/3.0/mlflow/roles/get`
pub(crate) async fn get(State(app): State<App>, fields: Fields) -> Answer {
    let role = app.tracking().role(fields.required_integer("role_id")?).await?;
    Ok(Json(json!({ "role": of_role(&role) })))
}

/// `GET /api/3.0/mlflow/roles/list`
pub(crate) async fn list(State(app): State<App>, fields: Fields) -> Answer {
    let roles = app.tracking().list_roles(fields.texts("workspace")?).await?;
    let roles: Vec<Value> = roles.iter().map(of_role).collect();
    Ok(Json(json!({ "roles": roles })))
}

/// `PATCH /api/3.0/mlflow/roles/update`
pub(crate) async fn update(State(app): State<App>, fields: Fields) -> Answer {
    let id = fields.required_integer("role_id")?;
    let (name, description) = (fields.text("name")?, fields.text("description")?);
    let role = app.tracking().update_role(id, name, description).await?;
    Ok(Json(json!({ "role": of_role(&role) })))
}

/// `DELETE /api/3.0/mlflow/roles/delete`
pub(crate) async fn delete(State(app): State<App>, fields: Fields) -> Answer {
    app.tracking()
        .delete_role(fields.required_integer("role_id")?)
        .await?;
    Ok(Json(json!({})))
}

/// `POST /api/3.0/mlflow/roles/permissions/add`
pub(crate) async fn add_permission(State(app): State<App>, fields: Fields) -> Answer {
    let role = fields.required_integer("role_id")?;
    let (kind, pattern) = (
        fields.required_text("resource_type")?,
        fields.required_text("resource_pattern")?,
    );
    let permission = fields.required_text("permission")?;
    let added = app
        .tracking()
        .add_role_permission(role, &kind, &pattern, &permission)
        .await?;
    Ok(Json(json!({ "role_permission": of_permission(&added) })))
}

/// `DELETE /api/3.0/mlflow/roles/permissions/remove`
pub(crate) async fn remove_permission(State(app): State<App>, fields: Fields) -> Answer {
    let id = fields.required_integer("role_permission_id")?;
    app.tracking().remove_role_permission(id).await?;
    Ok(Json(json!({})))
}

/// `GET /api/3.0/mlflow/roles/permissions/list`
pub(crate) async fn list_permissions(State(app): State<App>, fields: Fields) -> Answer {
    let role = fields.required_integer("role_id")?;
    let permissions = app.tracking().list_role_permissions(role).await?;
    let permissions: Vec<Value> = permissions.iter().map(of_permission).collect();
    Ok(Json(json!({ "role_permissions": permissions })))
}

/// `PATCH /api/3.0/mlflow/roles/permissions/update`
pub(crate) async fn update_permission(State(app): State<App>, fields: Fields) -> Answer {
    let id = fields.required_integer("role_permission_id")?;
    let permission = fields.required_text("permission")?;
    let updated = app.tracking().update_role_permission(id, &permission).await?;
    Ok(Json(json!({ "role_permission": of_permission(&updated) })))
}

/// `POST /api/3.0/mlflow/roles/assign`
pub(crate) async fn assign(State(app): State<App>, fields: Fields) -> Answer {
    let (user, role) = (
        fields.required_text("username")?,
        fields.required_integer("role_id")?,
    );
    let assignment = app.tracking().assign_role(&user, role).await?;
    Ok(Json(json!({ "assignment": of_assignment(&assignment) })))
}

/// `DELETE /api/3.0/mlflow/roles/unassign`
pub(crate) async fn unassign(State(app): State<App>, fields: Fields) -> Answer {
    let (user, role) = (
        fields.required_text("username")?,
        fields.required_integer("role_id")?,
    );
    app.tracking().unassign_role(&user, role).await?;
    Ok(Json(json!({})))
}

/// `GET /api/3.0/mlflow/users/roles/list`: others than the user and administrators see roles of workspaces they govern.
pub(crate) async fn of_user(State(app): State<App>, Known(known): Known, fields: Fields) -> Answer {
    let name = fields.required_text("username")?;
    let all = known.name == name || known.is_admin();
    let roles = app.tracking().roles_of_user(&name).await?;
    let roles: Vec<Value> = roles
        .iter()
        .filter(|info| all || known.governs(&info.role.workspace))
        .map(of_role)
        .collect();
    Ok(Json(json!({ "roles": roles })))
}

/// `GET /api/3.0/mlflow/roles/users/list`
pub(crate) async fn users(State(app): State<App>, fields: Fields) -> Answer {
    let role = fields.required_integer("role_id")?;
    let assignments = app.tracking().users_of_role(role).await?;
    let assignments: Vec<Value> = assignments.iter().map(of_assignment).collect();
    Ok(Json(json!({ "assignments": assignments })))
}
