//! Roles: what several users are permitted alike (MLflow 3.17's).

use tidemill_store::users::{self as rows, Assignment, Role, RolePermission};
use tidemill_store::{ReadTx, StoreError};

use super::{EVERY, EXPERIMENT, Outcome, Permission, REGISTERED_MODEL, WORKSPACE, must, user_row};
use crate::tracking::{Result, Tracking, TrackingError};

/// The types of resource that something can be granted on, and whether on a single one.
const RESOURCE_TYPES: [(&str, bool); 18] = [
    ("assessment", false),
    ("experiment", true),
    ("gateway_endpoint", true),
    ("gateway_model_definition", true),
    ("gateway_secret", true),
    ("logged_model", false),
    ("mcp_server", true),
    ("mcp_server_version", false),
    ("prompt", true),
    ("prompt_version", false),
    ("registered_model", true),
    ("registered_model_version", false),
    ("review_queue", false),
    ("run", false),
    ("scorer", true),
    ("scorer_version", false),
    ("trace", false),
    ("workspace", false),
];
/// Those by which is decided what a user may do.
const DECIDING: [&str; 3] = [EXPERIMENT, REGISTERED_MODEL, WORKSPACE];
/// Names of roles that begin so are one user's own.
const OWN: &str = "__user_";

/// A role with what it permits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoleInfo {
    /// The role.
    pub role: Role,
    /// What it permits.
    pub permissions: Vec<RolePermission>,
}

fn info(tx: &ReadTx<'_>, role: Role) -> std::result::Result<RoleInfo, StoreError> {
    let permissions = rows::permissions_of(tx, role.id)?;
    Ok(RoleInfo { role, permissions })
}

fn role_row(tx: &ReadTx<'_>, id: i64) -> Outcome<Role> {
    let found = rows::role(tx, id)?;
    Ok(found.ok_or_else(|| TrackingError::not_found(format!("Role with id={id} not found"))))
}

fn permission_row(tx: &ReadTx<'_>, id: i64) -> Outcome<RolePermission> {
    let found = rows::permission(tx, id)?;
    Ok(found.ok_or_else(|| TrackingError::not_found(format!("Role permission with id={id} not found"))))
}

fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(TrackingError::invalid("Role name cannot be empty."));
    }
    if name.starts_with(OWN) {
        return Err(TrackingError::invalid(format!(
            "Role name '{name}' uses the reserved '__user_' prefix, which is held for the per-user permission \
             representation. Choose a different name."
        )));
    }
    Ok(())
}

/// Refuses a grant that means nothing.
pub(super) fn check_grant(resource_type: &str, pattern: &str, permission: Permission) -> Result<()> {
    let Some((_, single)) = RESOURCE_TYPES.iter().find(|(name, _)| *name == resource_type) else {
        let names: Vec<String> = RESOURCE_TYPES
            .iter()
            .map(|(name, _)| format!("'{name}'"))
            .collect();
        return Err(TrackingError::invalid(format!(
            "Invalid resource type '{resource_type}'. Valid resource types are: ({})",
            names.join(", ")
        )));
    };
    if !single && pattern != EVERY {
        return Err(TrackingError::invalid(format!(
            "Invalid resource_pattern '{pattern}' for resource_type='{resource_type}'. This resource type supports only \
             wildcard ('*') grants."
        )));
    }
    let word = permission.as_str();
    if resource_type == WORKSPACE && !matches!(permission, Permission::Use | Permission::Manage) {
        return Err(TrackingError::invalid(format!(
            "Invalid permission '{word}' for resource_type='workspace'. Workspace-wide grants accept only: ('MANAGE', 'USE')."
        )));
    }
    // What is decided by nothing here permits nothing, which is safe to store; that it forbids nothing is not.
    if permission == Permission::Deny && !DECIDING.contains(&resource_type) {
        return Err(TrackingError::invalid(format!(
            "Invalid permission 'DENY' for resource_type='{resource_type}': this server decides by experiments and registered \
             models (prompts among them), so it would not be heard. Deny those instead."
        )));
    }
    if permission == Permission::NoPermissions {
        return Err(TrackingError::invalid(format!(
            "Invalid permission '{word}' for resource_type='{resource_type}'. Resource-level grants accept only: \
             ('DENY', 'EDIT', 'MANAGE', 'READ', 'USE')."
        )));
    }
    Ok(())
}

impl Tracking {
    /// Adds a role that permits nothing yet.
    pub async fn create_role(
        &self,
        workspace: &str,
        name: &str,
        description: Option<&str>,
    ) -> Result<RoleInfo> {
        check_name(name)?;
        if workspace.trim().is_empty() {
            return Err(TrackingError::invalid("Workspace cannot be empty."));
        }
        let (workspace, name) = (workspace.to_owned(), name.to_owned());
        let description = description.map(str::to_owned);
        self.change_users(move |tx| {
            let id = rows::create_role(tx, &workspace, &name, description.as_deref())?;
            let id = must!(id.ok_or_else(|| {
                TrackingError::AlreadyExists(format!(
                    "Role (name={name}, workspace={workspace}) already exists."
                ))
            }));
            let role = must!(role_row(tx, id)?);
            info(tx, role).map(Ok)
        })
        .await
    }

    /// A role.
    pub async fn role(&self, id: i64) -> Result<RoleInfo> {
        let found = self.store().read(move |tx| -> Outcome<RoleInfo> {
            let role = must!(role_row(tx, id)?);
            info(tx, role).map(Ok)
        });
        found.await?
    }

    /// The role that a permission belongs to.
    pub async fn role_of_permission(&self, id: i64) -> Result<RoleInfo> {
        let found = self.store().read(move |tx| -> Outcome<RoleInfo> {
            let permission = must!(permission_row(tx, id)?);
            let role = must!(role_row(tx, permission.role)?);
            info(tx, role).map(Ok)
        });
        found.await?
    }

    /// The roles of some workspaces; of all where none is named.
    pub async fn list_roles(&self, workspaces: Vec<String>) -> Result<Vec<RoleInfo>> {
        let list = self.store().read(move |tx| {
            let mut found = Vec::new();
            if workspaces.is_empty() {
                found = rows::roles(tx, None)?;
            }
            for workspace in &workspaces {
                found.extend(rows::roles(tx, Some(workspace))?);
            }
            found.into_iter().map(|role| info(tx, role)).collect()
        });
        Ok(list.await?)
    }

    /// Gives a role another name or description.
    pub async fn update_role(
        &self,
        id: i64,
        name: Option<String>,
        description: Option<String>,
    ) -> Result<RoleInfo> {
        if name.is_none() && description.is_none() {
            return Err(TrackingError::invalid(
                "At least one of 'name' or 'description' must be provided to update a role.",
            ));
        }
        if let Some(name) = &name {
            check_name(name)?;
        }
        self.change_users(move |tx| {
            let mut role = must!(shared(role_row(tx, id)?));
            role.name = name.unwrap_or(role.name);
            role.description = description.or(role.description);
            if !rows::update_role(tx, id, &role.name, role.description.as_deref())? {
                return Ok(Err(TrackingError::AlreadyExists(format!(
                    "Role with name={} already exists in workspace={}",
                    role.name, role.workspace
                ))));
            }
            info(tx, role).map(Ok)
        })
        .await
    }

    /// Removes a role, also from those who have it.
    pub async fn delete_role(&self, id: i64) -> Result<()> {
        self.change_users(move |tx| {
            must!(shared(role_row(tx, id)?));
            rows::delete_role(tx, id)?;
            Ok(Ok(()))
        })
        .await
    }

    /// Lets a role permit something.
    pub async fn add_role_permission(
        &self,
        role: i64,
        resource_type: &str,
        pattern: &str,
        permission: &str,
    ) -> Result<RolePermission> {
        let permission: Permission = permission.parse()?;
        check_grant(resource_type, pattern, permission)?;
        let (kind, pattern) = (resource_type.to_owned(), pattern.to_owned());
        self.change_users(move |tx| {
            must!(role_row(tx, role)?);
            let id = rows::add_permission(tx, role, &kind, &pattern, permission.as_str())?;
            let id = must!(id.ok_or_else(|| {
                TrackingError::AlreadyExists(format!(
                    "Role permission (role_id={role}, resource_type={kind}, resource_pattern={pattern}) already exists."
                ))
            }));
            permission_row(tx, id)
        })
        .await
    }

    /// What a role permits.
    pub async fn list_role_permissions(&self, role: i64) -> Result<Vec<RolePermission>> {
        Ok(self.role(role).await?.permissions)
    }

    /// Lets a role permit more or less on what it speaks of.
    pub async fn update_role_permission(&self, id: i64, permission: &str) -> Result<RolePermission> {
        let permission: Permission = permission.parse()?;
        self.change_users(move |tx| {
            let before = must!(permission_row(tx, id)?);
            must!(check_grant(
                &before.resource_type,
                &before.resource_pattern,
                permission
            ));
            rows::change_permission(tx, id, permission.as_str())?;
            permission_row(tx, id)
        })
        .await
    }

    /// Lets a role no longer speak of something.
    pub async fn remove_role_permission(&self, id: i64) -> Result<()> {
        self.change_users(move |tx| {
            must!(permission_row(tx, id)?);
            rows::remove_permission(tx, id)?;
            Ok(Ok(()))
        })
        .await
    }

    /// Gives a user a role.
    pub async fn assign_role(&self, user: &str, role: i64) -> Result<Assignment> {
        let user = user.to_owned();
        self.change_users(move |tx| {
            let user = must!(user_row(tx, &user)?);
            must!(shared(role_row(tx, role)?));
            Ok(rows::assign(tx, user.id, role)?.ok_or_else(|| {
                TrackingError::AlreadyExists(format!(
                    "User role assignment (user_id={}, role_id={role}) already exists",
                    user.id
                ))
            }))
        })
        .await
    }

    /// Takes a role from a user.
    pub async fn unassign_role(&self, user: &str, role: i64) -> Result<()> {
        let user = user.to_owned();
        self.change_users(move |tx| {
            let user = must!(user_row(tx, &user)?);
            if !rows::unassign(tx, user.id, role)? {
                return Ok(Err(TrackingError::not_found(format!(
                    "User role assignment (user_id={}, role_id={role}) not found",
                    user.id
                ))));
            }
            Ok(Ok(()))
        })
        .await
    }

    /// The roles that a user has.
    pub async fn roles_of_user(&self, user: &str) -> Result<Vec<RoleInfo>> {
        let user = user.to_owned();
        let found = self.store().read(move |tx| -> Outcome<Vec<RoleInfo>> {
            let user = must!(user_row(tx, &user)?);
            let roles = rows::roles_of(tx, user.id)?;
            let roles: std::result::Result<_, StoreError> =
                roles.into_iter().map(|role| info(tx, role)).collect();
            roles.map(Ok)
        });
        found.await?
    }

    /// Who has a role.
    pub async fn users_of_role(&self, role: i64) -> Result<Vec<Assignment>> {
        let found = self.store().read(move |tx| -> Outcome<Vec<Assignment>> {
            must!(role_row(tx, role)?);
            rows::assignments(tx, role).map(Ok)
        });
        found.await?
    }

    /// Refuses a general grant to one user that means nothing.
    pub fn check_user_grant(&self, resource_type: &str, resource: &str, permission: &str) -> Result<()> {
        if resource_type == WORKSPACE {
            return Err(TrackingError::invalid(
                "resource_type 'workspace' is not supported by the per-user permission convenience APIs.",
            ));
        }
        check_grant(resource_type, resource, permission.parse()?)
    }
}

/// A role that is one user's own is changed by granting, not by editing.
fn shared(role: Result<Role>) -> Result<Role> {
    match role {
        Ok(role) if role.owner.is_some() => Err(TrackingError::invalid(format!(
            "Role with id={} holds what one user is granted and is not changed by hand",
            role.id
        ))),
        role => role,
    }
}
