//! Users, their tokens, and what they are granted.

mod grants;
mod tokens;

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

pub use grants::{
    Assignment, Grant, Role, RolePermission, add_permission, assign, assignments, change_permission,
    create_role, delete_grants_of_resource, delete_role, delete_roles_of_workspace, grant, grants_of,
    own_grant, own_grants, own_role_name, owners_of, permission, permissions_of, remove_permission,
    rename_grants_of_resource, revoke, role, roles, roles_of, unassign, update_role,
};
pub use tokens::{Token, create_token, list_tokens, revoke_token, token_owner};

/// A user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The number that grants hang on.
    pub id: i64,
    /// The name.
    pub name: String,
    /// What a password is checked against.
    pub password: String,
    /// What the user may do everywhere: `viewer`, `editor`, `manager` or `admin`.
    pub role: String,
    /// Since when, in milliseconds since the epoch.
    pub created_ms: i64,
}

const COLUMNS: &str = "id, name, password, role, created_ms";

fn read(row: &Row<'_>) -> rusqlite::Result<User> {
    let mut fields = Fields::of(row);
    Ok(User {
        id: fields.next()?,
        name: fields.next()?,
        password: fields.next()?,
        role: fields.next()?,
        created_ms: fields.next()?,
    })
}

/// Adds a user; `None` if the name is taken.
pub fn create(
    tx: &mut Tx<'_>,
    name: &str,
    password: &str,
    role: &str,
    now_ms: i64,
) -> Result<Option<User>, StoreError> {
    let new = tx.insert_new(
        "users",
        "name, password, role, created_ms",
        bind![name, password, role, now_ms],
    )?;
    if new { find(tx, name) } else { Ok(None) }
}

/// The user of this name.
pub fn find(tx: &ReadTx<'_>, name: &str) -> Result<Option<User>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM users WHERE name = ?1");
    tx.first(&sql, bind![name], read)
}

/// The user of this number.
pub fn find_by_id(tx: &ReadTx<'_>, id: i64) -> Result<Option<User>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM users WHERE id = ?1");
    tx.first(&sql, bind![id], read)
}

/// All users, in the order in which they were added.
pub fn list(tx: &ReadTx<'_>) -> Result<Vec<User>, StoreError> {
    tx.rows(&format!("SELECT {COLUMNS} FROM users ORDER BY id"), &[], read)
}

/// Sets what a password is checked against; whether there is such a user.
pub fn set_password(tx: &mut Tx<'_>, name: &str, password: &str) -> Result<bool, StoreError> {
    let sql = "UPDATE users SET password = ?1 WHERE name = ?2";
    Ok(tx.execute(sql, bind![password, name])? == 1)
}

/// Sets what the user may do everywhere; whether there is such a user.
pub fn set_role(tx: &mut Tx<'_>, name: &str, role: &str) -> Result<bool, StoreError> {
    let sql = "UPDATE users SET role = ?1 WHERE name = ?2";
    Ok(tx.execute(sql, bind![role, name])? == 1)
}

/// Removes a user with tokens and grants; whether there was one.
pub fn delete(tx: &mut Tx<'_>, name: &str) -> Result<bool, StoreError> {
    Ok(tx.execute("DELETE FROM users WHERE name = ?1", bind![name])? == 1)
}

/// The experiment of a run, with its workspace.
pub fn experiment_of_run(tx: &ReadTx<'_>, run_id: &str) -> Result<Option<(i64, String)>, StoreError> {
    let sql = "SELECT e.id, e.workspace FROM tracked_runs r JOIN experiments e ON e.id = r.experiment WHERE r.run_id = ?1";
    tx.first(sql, bind![run_id], read_experiment)
}

/// The experiment of a logged model, with its workspace.
pub fn experiment_of_model(tx: &ReadTx<'_>, model_id: &str) -> Result<Option<(i64, String)>, StoreError> {
    let sql = "SELECT e.id, e.workspace FROM logged_models m JOIN experiments e ON e.id = m.experiment WHERE m.model_id = ?1";
    tx.first(sql, bind![model_id], read_experiment)
}

/// An experiment's workspace.
pub fn workspace_of_experiment(tx: &ReadTx<'_>, id: i64) -> Result<Option<String>, StoreError> {
    let sql = "SELECT workspace FROM experiments WHERE id = ?1";
    tx.first(sql, bind![id], |row| Fields::of(row).next())
}

/// Changes whenever an experiment comes or goes: their number, and the largest of theirs.
pub fn experiments_stamp(tx: &ReadTx<'_>) -> Result<(i64, i64), StoreError> {
    let sql = "SELECT count(*), coalesce(max(id), 0) FROM experiments";
    let read = |row: &Row<'_>| {
        let mut fields = Fields::of(row);
        Ok((fields.next()?, fields.next()?))
    };
    Ok(tx.first(sql, bind![], read)?.unwrap_or_default())
}

/// Where things keep their artifacts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The experiment, or the one that a run or a logged model is in.
    pub experiment: i64,
    /// The experiment's workspace.
    pub workspace: String,
    /// Where.
    pub uri: String,
}

fn read_kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let mut fields = Fields::of(row);
    Ok(Kept {
        experiment: fields.next()?,
        workspace: fields.next()?,
        uri: fields.next()?,
    })
}

/// Where every experiment keeps its artifacts, deleted or not.
pub fn locations(tx: &ReadTx<'_>) -> Result<Vec<Kept>, StoreError> {
    let sql = "SELECT id, workspace, artifact_location FROM experiments ORDER BY id";
    tx.rows(sql, bind![], read_kept)
}

/// Where the runs and the logged models of these ids keep their artifacts, those of them that are there.
pub fn kept_by(tx: &ReadTx<'_>, ids: &[String]) -> Result<Vec<Kept>, StoreError> {
    let mut kept = Vec::new();
    for ids in ids.chunks(100) {
        let marks: Vec<String> = (1..=ids.len()).map(|n| format!("?{n}")).collect();
        let marks = marks.join(", ");
        let values: Vec<&dyn rusqlite::types::ToSql> =
            ids.iter().map(|id| id as &dyn rusqlite::types::ToSql).collect();
        for (table, id, uri) in [
            ("tracked_runs", "run_id", "artifact_uri"),
            ("logged_models", "model_id", "artifact_location"),
        ] {
            let sql = format!(
                "SELECT e.id, e.workspace, t.{uri} FROM {table} t JOIN experiments e ON e.id = t.experiment WHERE t.{id} IN ({marks})"
            );
            kept.extend(tx.rows(&sql, &values, read_kept)?);
        }
    }
    Ok(kept)
}

/// The experiment of this name.
pub fn experiment_by_name(tx: &ReadTx<'_>, workspace: &str, name: &str) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT id FROM experiments WHERE workspace = ?1 AND name = ?2";
    tx.first(sql, bind![workspace, name], |row| Fields::of(row).next())
}

/// The numbers of the registered models of these names, those of them that are there.
pub fn models_by_name(tx: &ReadTx<'_>, workspace: &str, names: &[String]) -> Result<Vec<i64>, StoreError> {
    let mut numbers = Vec::with_capacity(names.len());
    for names in names.chunks(500) {
        let marks: Vec<String> = (2..names.len() + 2).map(|n| format!("?{n}")).collect();
        let sql = format!(
            "SELECT number FROM models WHERE workspace = ?1 AND name IN ({})",
            marks.join(", ")
        );
        let mut values: Vec<&dyn rusqlite::types::ToSql> = vec![&workspace];
        values.extend(names.iter().map(|name| name as &dyn rusqlite::types::ToSql));
        numbers.extend(tx.rows(&sql, &values, |row| Fields::of(row).next::<i64>())?);
    }
    Ok(numbers)
}

fn read_experiment(row: &Row<'_>) -> rusqlite::Result<(i64, String)> {
    let mut fields = Fields::of(row);
    Ok((fields.next()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::temp_store;

    #[test]
    fn a_users_tokens_and_grants_go_with_the_user() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                let ada = create(tx, "ada", "hash", "viewer", 1)?.unwrap();
                assert!(
                    create(tx, "ada", "other", "viewer", 2)?.is_none(),
                    "the name is taken"
                );
                create_token(tx, ada.id, "laptop", "digest", 1, Some(100))?;
                grant(tx, ada.id, "default", "experiment", "7", "EDIT")?;
                grant(tx, ada.id, "default", "experiment", "7", "MANAGE")?;
                let team = create_role(tx, "default", "team", Some("ours"))?.unwrap();
                add_permission(tx, team, "registered_model", "*", "READ")?.unwrap();
                assign(tx, ada.id, team)?.unwrap();
                assert_eq!(grants_of(tx, ada.id)?.len(), 2);
                assert_eq!(token_owner(tx, "digest", 99)?.unwrap().0.name, "ada");
                assert!(token_owner(tx, "digest", 100)?.is_none(), "it has expired");
                assert!(delete(tx, "ada")?);
                assert!(!delete(tx, "ada")?);
                assert!(token_owner(tx, "digest", 99)?.is_none());
                assert_eq!(roles(tx, None)?.len(), 1, "the team's role stays");
                assert!(assignments(tx, team)?.is_empty());
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn where_everything_is_kept_is_told() {
        use crate::tracking::{experiments, runs};
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                let before = experiments_stamp(tx)?;
                let new = experiments::NewExperiment {
                    workspace: "default",
                    name: "e",
                    created_ms: 1,
                };
                let experiment = experiments::insert(tx, &new, |id| format!("s3://b/{id}"))?.unwrap();
                assert_ne!(experiments_stamp(tx)?, before);
                let run = runs::RunHead {
                    number: 0,
                    run_id: "r".into(),
                    experiment,
                    name: "r".into(),
                    user_id: String::new(),
                    status: runs::RunStatus::Running,
                    lifecycle: crate::tracking::Lifecycle::Active,
                    start_ms: 1,
                    end_ms: None,
                    deleted_ms: None,
                    artifact_uri: "s3://b/r".into(),
                };
                runs::insert(tx, &run)?;
                let kept = |uri: &str| Kept {
                    experiment,
                    workspace: "default".into(),
                    uri: uri.into(),
                };
                assert_eq!(locations(tx)?.pop(), Some(kept(&format!("s3://b/{experiment}"))));
                let mut ids: Vec<String> = (0..150).map(|number| number.to_string()).collect();
                assert!(kept_by(tx, &ids)?.is_empty() && kept_by(tx, &[])?.is_empty());
                ids.push("r".into());
                assert_eq!(kept_by(tx, &ids)?, [kept("s3://b/r")]);
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_resource_that_is_renamed_or_removed_takes_its_grants_along() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                let ada = create(tx, "ada", "hash", "viewer", 1)?.unwrap();
                grant(tx, ada.id, "default", "registered_model", "m", "READ")?;
                grant(tx, ada.id, "other", "registered_model", "m", "READ")?;
                rename_grants_of_resource(tx, "default", "registered_model", "m", "n")?;
                assert!(own_grant(tx, ada.id, Some("default"), "registered_model", "m")?.is_none());
                assert!(own_grant(tx, ada.id, Some("default"), "registered_model", "n")?.is_some());
                assert!(own_grant(tx, ada.id, Some("other"), "registered_model", "m")?.is_some());
                rename_grants_of_resource(tx, "default", "registered_model", "n", "n")?;
                assert!(own_grant(tx, ada.id, Some("default"), "registered_model", "n")?.is_some());
                delete_grants_of_resource(tx, "default", "registered_model", "n")?;
                assert_eq!(own_grants(tx, ada.id)?.len(), 1);
                Ok(())
            })
            .unwrap();
    }
}
