//! Roles and what they permit. A grant to one user is a permission of a role that is theirs alone.

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// A role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Role {
    /// Its number.
    pub id: i64,
    /// Where it counts.
    pub workspace: String,
    /// Its name, unique in its workspace.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// The user whose own grants it holds.
    pub owner: Option<i64>,
}

/// What a role permits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RolePermission {
    /// Its number.
    pub id: i64,
    /// Of which role.
    pub role: i64,
    /// Such as `experiment`.
    pub resource_type: String,
    /// An id or a name; `*` for every one.
    pub resource_pattern: String,
    /// Such as `EDIT`.
    pub permission: String,
}

/// What a user is permitted through one of their roles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The role.
    pub role: i64,
    /// The role's name.
    pub role_name: String,
    /// The role's workspace.
    pub workspace: String,
    /// Whether the role is the user's own.
    pub own: bool,
    /// Such as `experiment`.
    pub resource_type: String,
    /// An id or a name; `*` for every one.
    pub resource_pattern: String,
    /// Such as `EDIT`.
    pub permission: String,
}

/// That a user has a role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// Its number.
    pub id: i64,
    /// Who.
    pub user: i64,
    /// Which role.
    pub role: i64,
}

const ROLE: &str = "SELECT r.id, r.workspace, r.name, r.description, r.owner FROM roles r";
const PERMISSION: &str =
    "SELECT p.id, p.role, p.resource_type, p.resource_pattern, p.permission FROM role_permissions p";

fn read_role(row: &Row<'_>) -> rusqlite::Result<Role> {
    let mut fields = Fields::of(row);
    Ok(Role {
        id: fields.next()?,
        workspace: fields.next()?,
        name: fields.next()?,
        description: fields.next()?,
        owner: fields.next()?,
    })
}

fn read_permission(row: &Row<'_>) -> rusqlite::Result<RolePermission> {
    let mut fields = Fields::of(row);
    Ok(RolePermission {
        id: fields.next()?,
        role: fields.next()?,
        resource_type: fields.next()?,
        resource_pattern: fields.next()?,
        permission: fields.next()?,
    })
}

fn read_assignment(row: &Row<'_>) -> rusqlite::Result<Assignment> {
    let mut fields = Fields::of(row);
    Ok(Assignment {
        id: fields.next()?,
        user: fields.next()?,
        role: fields.next()?,
    })
}

fn read_number(row: &Row<'_>) -> rusqlite::Result<i64> {
    Fields::of(row).next()
}

/// The name of the role that holds what one user is granted alone.
pub fn own_role_name(user: i64) -> String {
    format!("__user_{user}__")
}

/// Adds a role; its number, or `None` if the name is taken.
pub fn create_role(
    tx: &mut Tx<'_>,
    workspace: &str,
    name: &str,
    description: Option<&str>,
) -> Result<Option<i64>, StoreError> {
    let sql = "INSERT INTO roles (workspace, name, description) VALUES (?1, ?2, ?3) \
               ON CONFLICT DO NOTHING RETURNING id";
    tx.first(
        sql,
        bind![workspace, name, description.map(str::to_owned)],
        read_number,
    )
}

/// A role.
pub fn role(tx: &ReadTx<'_>, id: i64) -> Result<Option<Role>, StoreError> {
    tx.first(&format!("{ROLE} WHERE r.id = ?1"), bind![id], read_role)
}

/// The roles of a workspace, or of all, without those that are one user's own.
pub fn roles(tx: &ReadTx<'_>, workspace: Option<&str>) -> Result<Vec<Role>, StoreError> {
    match workspace {
        Some(workspace) => {
            let sql = format!("{ROLE} WHERE r.owner IS NULL AND r.workspace = ?1 ORDER BY r.id");
            tx.rows(&sql, bind![workspace], read_role)
        }
        None => tx.rows(
            &format!("{ROLE} WHERE r.owner IS NULL ORDER BY r.id"),
            &[],
            read_role,
        ),
    }
}

/// The roles that a user has, the user's own among them.
pub fn roles_of(tx: &ReadTx<'_>, user: i64) -> Result<Vec<Role>, StoreError> {
    let sql = format!("{ROLE} JOIN user_roles u ON u.role = r.id WHERE u.owner = ?1 ORDER BY r.id");
    tx.rows(&sql, bind![user], read_role)
}

/// Gives a role a new name and description; `false` if the name is taken.
pub fn update_role(
    tx: &mut Tx<'_>,
    id: i64,
    name: &str,
    description: Option<&str>,
) -> Result<bool, StoreError> {
    let taken = "SELECT 1 FROM roles r JOIN roles o ON o.workspace = r.workspace WHERE r.id = ?1 AND o.name = ?2 AND o.id <> ?1";
    if tx.exists(taken, bind![id, name])? {
        return Ok(false);
    }
    let sql = "UPDATE roles SET name = ?1, description = ?2 WHERE id = ?3";
    tx.execute(sql, bind![name, description.map(str::to_owned), id])?;
    Ok(true)
}

/// Removes a role.
pub fn delete_role(tx: &mut Tx<'_>, id: i64) -> Result<bool, StoreError> {
    Ok(tx.execute("DELETE FROM roles WHERE id = ?1", bind![id])? == 1)
}

/// Removes all roles of a workspace, also those that are a user's own.
pub fn delete_roles_of_workspace(tx: &mut Tx<'_>, workspace: &str) -> Result<(), StoreError> {
    tx.execute("DELETE FROM roles WHERE workspace = ?1", bind![workspace])?;
    Ok(())
}

/// Adds what a role permits; its number, or `None` if the role says something of this resource already.
pub fn add_permission(
    tx: &mut Tx<'_>,
    role: i64,
    resource_type: &str,
    resource_pattern: &str,
    permission: &str,
) -> Result<Option<i64>, StoreError> {
    let sql = "INSERT INTO role_permissions (role, resource_type, resource_pattern, permission) \
               VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING RETURNING id";
    tx.first(
        sql,
        bind![role, resource_type, resource_pattern, permission],
        read_number,
    )
}

/// One permission of a role.
pub fn permission(tx: &ReadTx<'_>, id: i64) -> Result<Option<RolePermission>, StoreError> {
    tx.first(
        &format!("{PERMISSION} WHERE p.id = ?1"),
        bind![id],
        read_permission,
    )
}

/// What a role permits.
pub fn permissions_of(tx: &ReadTx<'_>, role: i64) -> Result<Vec<RolePermission>, StoreError> {
    let sql = format!("{PERMISSION} WHERE p.role = ?1 ORDER BY p.id");
    tx.rows(&sql, bind![role], read_permission)
}

/// Changes one permission of a role.
pub fn change_permission(tx: &mut Tx<'_>, id: i64, permission: &str) -> Result<bool, StoreError> {
    let sql = "UPDATE role_permissions SET permission = ?1 WHERE id = ?2";
    Ok(tx.execute(sql, bind![permission, id])? == 1)
}

/// Removes one permission of a role.
pub fn remove_permission(tx: &mut Tx<'_>, id: i64) -> Result<bool, StoreError> {
    Ok(tx.execute("DELETE FROM role_permissions WHERE id = ?1", bind![id])? == 1)
}

/// Gives a user a role; `None` if they have it.
pub fn assign(tx: &mut Tx<'_>, user: i64, role: i64) -> Result<Option<Assignment>, StoreError> {
    let sql = "INSERT INTO user_roles (owner, role) VALUES (?1, ?2) ON CONFLICT DO NOTHING RETURNING id, owner, role";
    tx.first(sql, bind![user, role], read_assignment)
}

/// Takes a role from a user; whether they had it.
pub fn unassign(tx: &mut Tx<'_>, user: i64, role: i64) -> Result<bool, StoreError> {
    let sql = "DELETE FROM user_roles WHERE owner = ?1 AND role = ?2";
    Ok(tx.execute(sql, bind![user, role])? == 1)
}

/// Who has a role.
pub fn assignments(tx: &ReadTx<'_>, role: i64) -> Result<Vec<Assignment>, StoreError> {
    let sql = "SELECT id, owner, role FROM user_roles WHERE role = ?1 ORDER BY id";
    tx.rows(sql, bind![role], read_assignment)
}

/// All that a user is permitted.
pub fn grants_of(tx: &ReadTx<'_>, user: i64) -> Result<Vec<Grant>, StoreError> {
    let sql = "SELECT r.id, r.name, r.workspace, r.owner, p.resource_type, p.resource_pattern, p.permission \
               FROM user_roles u JOIN roles r ON r.id = u.role JOIN role_permissions p ON p.role = r.id \
               WHERE u.owner = ?1 ORDER BY r.id, p.id";
    tx.rows(sql, bind![user], |row| {
        let mut fields = Fields::of(row);
        Ok(Grant {
            role: fields.next()?,
            role_name: fields.next()?,
            workspace: fields.next()?,
            own: fields.next::<Option<i64>>()?.is_some(),
            resource_type: fields.next()?,
            resource_pattern: fields.next()?,
            permission: fields.next()?,
        })
    })
}

/// Grants one user something, in place of what was granted before.
pub fn grant(
    tx: &mut Tx<'_>,
    user: i64,
    workspace: &str,
    resource_type: &str,
    resource: &str,
    permission: &str,
) -> Result<(), StoreError> {
    let name = own_role_name(user);
    tx.insert_new("roles", "workspace, name, owner", bind![workspace, name, user])?;
    let sql = "SELECT id FROM roles WHERE workspace = ?1 AND name = ?2";
    let role: i64 = tx.one(sql, bind![workspace, name], read_number)?;
    tx.insert_new("user_roles", "owner, role", bind![user, role])?;
    tx.upsert(
        "role_permissions",
        "role, resource_type, resource_pattern, permission",
        "role, resource_type, resource_pattern",
        bind![role, resource_type, resource, permission],
    )
}

/// What one user alone is granted on a resource; without a workspace in any.
pub fn own_grant(
    tx: &ReadTx<'_>,
    user: i64,
    workspace: Option<&str>,
    resource_type: &str,
    resource: &str,
) -> Result<Option<RolePermission>, StoreError> {
    let sql = format!(
        "{PERMISSION} JOIN roles r ON r.id = p.role WHERE r.owner = ?1 AND p.resource_type = ?2 \
         AND p.resource_pattern = ?3 AND (r.workspace = ?4 OR ?4 IS NULL) ORDER BY p.id"
    );
    let workspace = workspace.map(str::to_owned);
    tx.first(
        &sql,
        bind![user, resource_type, resource, workspace],
        read_permission,
    )
}

/// All that one user alone is granted.
pub fn own_grants(tx: &ReadTx<'_>, user: i64) -> Result<Vec<Grant>, StoreError> {
    let mut grants = grants_of(tx, user)?;
    grants.retain(|grant| grant.own);
    Ok(grants)
}

/// Who is granted something on a resource alone, and what.
pub fn owners_of(
    tx: &ReadTx<'_>,
    workspace: &str,
    resource_type: &str,
    resource: &str,
) -> Result<Vec<(i64, String)>, StoreError> {
    let sql = "SELECT r.owner, p.permission FROM role_permissions p JOIN roles r ON r.id = p.role \
               WHERE r.owner IS NOT NULL AND r.workspace = ?1 AND p.resource_type = ?2 AND p.resource_pattern = ?3 \
               ORDER BY r.owner";
    tx.rows(sql, bind![workspace, resource_type, resource], |row| {
        let mut fields = Fields::of(row);
        Ok((fields.next()?, fields.next()?))
    })
}

/// Takes back what one user alone was granted; whether there was something.
pub fn revoke(
    tx: &mut Tx<'_>,
    user: i64,
    workspace: Option<&str>,
    resource_type: &str,
    resource: &str,
) -> Result<bool, StoreError> {
    match own_grant(tx, user, workspace, resource_type, resource)? {
        Some(granted) => remove_permission(tx, granted.id),
        None => Ok(false),
    }
}

/// Forgets what anybody was granted on a resource that is gone: another of its name must not inherit it.
pub fn delete_grants_of_resource(
    tx: &mut Tx<'_>,
    workspace: &str,
    resource_type: &str,
    resource: &str,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM role_permissions WHERE resource_type = ?1 AND resource_pattern = ?2 \
               AND role IN (SELECT id FROM roles WHERE workspace = ?3)";
    tx.execute(sql, bind![resource_type, resource, workspace])?;
    Ok(())
}

/// Moves what anybody was granted along with a resource's name.
pub fn rename_grants_of_resource(
    tx: &mut Tx<'_>,
    workspace: &str,
    resource_type: &str,
    from: &str,
    to: &str,
) -> Result<(), StoreError> {
    if from == to {
        return Ok(());
    }
    // What was left from an earlier resource of the new name gives way.
    delete_grants_of_resource(tx, workspace, resource_type, to)?;
    let sql = "UPDATE role_permissions SET resource_pattern = ?1 WHERE resource_type = ?2 AND resource_pattern = ?3 \
               AND role IN (SELECT id FROM roles WHERE workspace = ?4)";
    tx.execute(sql, bind![to, resource_type, from, workspace])?;
    Ok(())
}
