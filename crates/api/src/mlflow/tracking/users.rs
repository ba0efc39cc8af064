//! MLflow's users, as `AuthServiceClient` speaks of them.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use tidemill_control::tracking::TrackingError;
use tidemill_control::users::{EXPERIMENT, REGISTERED_MODEL, ServerRole, UserInfo, UserPermission};

use super::{Called, Fields};
use crate::auth::Known;
use crate::control_plane::App;
use crate::error::ApiError;

type Answer = Result<Json<Value>, ApiError>;

/// Like MLflow 3.10 with what the user alone is granted; later clients ignore it.
fn message(user: &UserInfo) -> Value {
    let granted = |kind: &'static str| user.own.iter().filter(move |own| own.resource_type == kind);
    let experiments: Vec<Value> = granted(EXPERIMENT)
        .map(|own| {
            json!({ "experiment_id": own.resource_pattern, "user_id": user.id, "permission": own.permission })
        })
        .collect();
    let models: Vec<Value> = granted(REGISTERED_MODEL)
        .map(|own| {
            json!({
                "workspace": own.workspace, "name": own.resource_pattern, "user_id": user.id,
                "permission": own.permission,
            })
        })
        .collect();
    json!({
        "id": user.id,
        "username": user.name,
        "is_admin": user.role == ServerRole::Admin,
        "role": user.role.as_str(),
        "experiment_permissions": experiments,
        "registered_model_permissions": models,
        "scorer_permissions": [],
    })
}

fn brief(user: &UserInfo) -> Value {
    json!({
        "id": user.id, "username": user.name, "is_admin": user.role == ServerRole::Admin, "role": user.role.as_str(),
    })
}

/// `POST /api/2.0/mlflow/users/create`
pub(crate) async fn create(State(app): State<App>, fields: Fields) -> Answer {
    let (name, password) = (
        fields.required_text("username")?,
        fields.required_text("password")?,
    );
    let user = app.tracking().create_user(&name, &password).await?;
    Ok(Json(json!({ "user": message(&user) })))
}

/// `GET /api/2.0/mlflow/users/get`
pub(crate) async fn get(State(app): State<App>, fields: Fields) -> Answer {
    let user = app.tracking().user(&fields.required_text("username")?).await?;
    Ok(Json(json!({ "user": message(&user) })))
}

/// `GET /api/2.0/mlflow/users/list`
pub(crate) async fn list(State(app): State<App>) -> Answer {
    let users = app.tracking().list_users().await?;
    let users: Vec<Value> = users.iter().map(brief).collect();
    Ok(Json(json!({ "users": users })))
}

/// `GET /api/2.0/mlflow/users/current`
pub(crate) async fn current(State(app): State<App>, Known(known): Known) -> Answer {
    let user = app.tracking().user(&known.name).await?;
    Ok(Json(json!({ "user": brief(&user), "is_basic_auth": true })))
}

/// `PATCH /api/2.0/mlflow/users/update-password`
pub(crate) async fn update_password(State(app): State<App>, fields: Fields) -> Answer {
    let (name, password) = (
        fields.required_text("username")?,
        fields.required_text("password")?,
    );
    let current = fields.text("current_password")?;
    app.tracking()
        .set_password(&name, &password, current.as_deref())
        .await?;
    Ok(Json(json!({})))
}

/// `PATCH /api/2.0/mlflow/users/update-admin`
pub(crate) async fn update_admin(State(app): State<App>, fields: Fields) -> Answer {
    let name = fields.required_text("username")?;
    let admin = fields.boolean("is_admin")?.ok_or_else(|| {
        TrackingError::invalid(
            "Missing value for required parameter 'is_admin'. \
             See the API docs for more information about request parameters.",
        )
    })?;
    app.tracking().set_admin(&name, admin).await?;
    Ok(Json(json!({})))
}

/// `PATCH /api/3.0/mlflow/users/update-role`, which is ours: `viewer`, `editor`, `manager` or `admin`.
pub(crate) async fn update_role(State(app): State<App>, fields: Fields) -> Answer {
    let name = fields.required_text("username")?;
    let role: ServerRole = fields.required_text("role")?.parse()?;
    app.tracking().set_server_role(&name, role).await?;
    Ok(Json(json!({})))
}

/// `DELETE /api/2.0/mlflow/users/delete`
pub(crate) async fn delete(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let name = fields.required_text("username")?;
    app.tracking().delete_user(&caller, &name).await?;
    Ok(Json(json!({})))
}

/// `GET /api/3.0/mlflow/users/current/permissions`
pub(crate) async fn current_permissions(State(app): State<App>, Known(known): Known) -> Answer {
    let (user, permissions) = app.tracking().permissions_of_user(&known.name).await?;
    Ok(Json(permissions_message(&user, permissions, |_| true)))
}

/// `GET /api/3.0/mlflow/users/permissions/list`: others than the user and administrators see what is in workspaces they govern.
pub(crate) async fn permissions(State(app): State<App>, Known(known): Known, fields: Fields) -> Answer {
    let name = fields.required_text("username")?;
    let (user, permissions) = app.tracking().permissions_of_user(&name).await?;
    let all = known.name == name || known.is_admin();
    Ok(Json(permissions_message(&user, permissions, |row| {
        all || known.governs(&row.workspace)
    })))
}

fn permissions_message(
    user: &UserInfo,
    permissions: Vec<UserPermission>,
    shown: impl Fn(&UserPermission) -> bool,
) -> Value {
    let rows: Vec<Value> = permissions
        .into_iter()
        .filter(shown)
        .map(|row| {
            json!({
                "role_id": row.role, "role_name": row.role_name, "workspace": row.workspace,
                "resource_type": row.resource_type, "resource_pattern": row.resource_pattern,
                "permission": row.permission,
            })
        })
        .collect();
    json!({ "is_admin": user.role == ServerRole::Admin, "permissions": rows })
}
