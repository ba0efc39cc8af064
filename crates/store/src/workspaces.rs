//! Workspaces: each has names of its own for experiments and models.

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// A workspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workspace {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Where artifacts of its new experiments go, if not where the server puts them.
    pub default_artifact_root: Option<String>,
}

const SELECT: &str = "SELECT name, description, default_artifact_root FROM workspaces";

/// The tables whose rows belong to a workspace, in the order in which messages name them.
pub const TABLES: [&str; 3] = ["models", "experiments", EVAL_DATASETS];

/// Several of them may have the same name.
const EVAL_DATASETS: &str = "eval_datasets";

fn read(row: &Row<'_>) -> rusqlite::Result<Workspace> {
    let mut fields = Fields::of(row);
    Ok(Workspace {
        name: fields.next()?,
        description: fields.next()?,
        default_artifact_root: fields.next()?,
    })
}

/// Adds a workspace; whether the name was free.
pub fn create(tx: &mut Tx<'_>, workspace: &Workspace, now_ms: i64) -> Result<bool, StoreError> {
    tx.insert_new(
        "workspaces",
        "name, description, default_artifact_root, created_ms",
        bind![
            workspace.name,
            workspace.description,
            workspace.default_artifact_root,
            now_ms
        ],
    )
}

/// The workspace of this name.
pub fn find(tx: &ReadTx<'_>, name: &str) -> Result<Option<Workspace>, StoreError> {
    tx.first(&format!("{SELECT} WHERE name = ?1"), bind![name], read)
}

/// All workspaces by name.
pub fn list(tx: &ReadTx<'_>) -> Result<Vec<Workspace>, StoreError> {
    tx.rows(&format!("{SELECT} ORDER BY name"), &[], read)
}

/// Changes what is said of a workspace.
pub fn update(tx: &mut Tx<'_>, workspace: &Workspace) -> Result<(), StoreError> {
    let sql = "UPDATE workspaces SET description = ?1, default_artifact_root = ?2 WHERE name = ?3";
    tx.execute(
        sql,
        bind![
            workspace.description,
            workspace.default_artifact_root,
            workspace.name
        ],
    )?;
    Ok(())
}

/// How many rows of one of [`TABLES`] belong to a workspace.
pub fn count(tx: &ReadTx<'_>, table: &str, workspace: &str) -> Result<i64, StoreError> {
    let sql = format!("SELECT count(*) FROM {table} WHERE workspace = ?1");
    tx.one(&sql, bind![workspace], |row| Fields::of(row).next())
}

/// Names of one of [`TABLES`] that two workspaces have both, where a workspace has each but once.
pub fn shared_names(tx: &ReadTx<'_>, table: &str, one: &str, other: &str) -> Result<Vec<String>, StoreError> {
    if table == EVAL_DATASETS {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT a.name FROM {table} a JOIN {table} b ON b.name = a.name WHERE a.workspace = ?1 AND b.workspace = ?2 ORDER BY a.name"
    );
    tx.rows(&sql, bind![one, other], |row| Fields::of(row).next())
}

/// Gives everything in a workspace to another.
pub fn reassign(tx: &mut Tx<'_>, from: &str, to: &str) -> Result<(), StoreError> {
    for table in TABLES {
        tx.execute(
            &format!("UPDATE {table} SET workspace = ?1 WHERE workspace = ?2"),
            bind![to, from],
        )?;
    }
    Ok(())
}

/// Removes an empty workspace.
pub fn delete(tx: &mut Tx<'_>, name: &str) -> Result<(), StoreError> {
    tx.execute("DELETE FROM workspaces WHERE name = ?1", bind![name])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::temp_store;

    #[test]
    fn a_workspace_is_there_until_it_is_deleted() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                let team = Workspace {
                    name: "team-a".into(),
                    description: Some("A".into()),
                    default_artifact_root: None,
                };
                assert!(create(tx, &team, 1)?);
                assert!(!create(tx, &team, 1)?);
                assert_eq!(find(tx, "team-a")?, Some(team));
                assert_eq!(list(tx)?.len(), 2);
                assert_eq!(count(tx, "experiments", "team-a")?, 0);
                assert!(shared_names(tx, "models", "team-a", "default")?.is_empty());
                reassign(tx, "team-a", "default")?;
                delete(tx, "team-a")?;
                assert_eq!(list(tx)?.len(), 1);
                Ok(())
            })
            .unwrap();
    }
}
