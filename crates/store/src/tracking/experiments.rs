//! Experiments.

use std::collections::HashMap;

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tracking::Lifecycle;
use crate::tx::{ReadTx, Tx};

/// The experiment that runs belong to where nobody names one. It is always there.
pub const DEFAULT_ID: i64 = 0;

/// An experiment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Experiment {
    /// Its id.
    pub id: i64,
    /// The workspace it belongs to.
    pub workspace: String,
    /// Its name, unique in its workspace.
    pub name: String,
    /// Where the artifacts of its runs go.
    pub artifact_location: String,
    /// Active or deleted.
    pub lifecycle: Lifecycle,
    /// When it was created, in milliseconds.
    pub created_ms: i64,
    /// When it was last changed, in milliseconds.
    pub updated_ms: i64,
    /// Its tags, by key.
    pub tags: Vec<(String, String)>,
}

/// An experiment to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewExperiment<'a> {
    /// The workspace it belongs to.
    pub workspace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// When, in milliseconds.
    pub created_ms: i64,
}

const COLUMNS: &str = "id, workspace, name, artifact_location, lifecycle, created_ms, updated_ms";

fn read(row: &Row<'_>) -> rusqlite::Result<Experiment> {
    let mut fields = Fields::of(row);
    Ok(Experiment {
        id: fields.next()?,
        workspace: fields.next()?,
        name: fields.next()?,
        artifact_location: fields.next()?,
        lifecycle: fields.next()?,
        created_ms: fields.next()?,
        updated_ms: fields.next()?,
        tags: Vec::new(),
    })
}

/// The experiments of these ids with their tags, in the order of the ids. Unknown ids are left out.
pub fn load(tx: &ReadTx<'_>, ids: &[i64]) -> Result<Vec<Experiment>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM experiments WHERE id IN");
    let mut found: HashMap<i64, Experiment> = HashMap::with_capacity(ids.len());
    tx.each_in(&sql, ids, "", |row| {
        let experiment = read(row)?;
        found.insert(experiment.id, experiment);
        Ok(())
    })?;
    let sql = "SELECT experiment, key, value FROM experiment_tags WHERE experiment IN";
    tx.each_in(sql, ids, "ORDER BY experiment, key", |row| {
        let mut fields = Fields::of(row);
        let id: i64 = fields.next()?;
        if let Some(experiment) = found.get_mut(&id) {
            experiment.tags.push((fields.next()?, fields.next()?));
        }
        Ok(())
    })?;
    Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
}

/// An experiment without its tags.
pub fn head(tx: &ReadTx<'_>, workspace: &str, id: i64) -> Result<Option<Experiment>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM experiments WHERE id = ?1 AND workspace = ?2");
    tx.first(&sql, bind![id, workspace], read)
}

/// The id of the experiment of this name, deleted ones included.
pub fn id_by_name(tx: &ReadTx<'_>, workspace: &str, name: &str) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT id FROM experiments WHERE workspace = ?1 AND name = ?2";
    tx.first(sql, bind![workspace, name], |row| Fields::of(row).next())
}

/// Which of these experiments the workspace has, in ascending order.
pub fn of_workspace(tx: &ReadTx<'_>, workspace: &str, ids: &[i64]) -> Result<Vec<i64>, StoreError> {
    let mut found = Vec::with_capacity(ids.len());
    tx.each_in(
        "SELECT id, workspace FROM experiments WHERE id IN",
        ids,
        "",
        |row| {
            let mut fields = Fields::of(row);
            let id: i64 = fields.next()?;
            if fields.next::<String>()? == workspace {
                found.push(id);
            }
            Ok(())
        },
    )?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Adds an experiment whose artifacts go where `location` says for its id. `None` if the name is taken.
pub fn insert(
    tx: &mut Tx<'_>,
    new: &NewExperiment<'_>,
    location: impl FnOnce(i64) -> String,
) -> Result<Option<i64>, StoreError> {
    let sql =
        "INSERT INTO experiments (workspace, name, artifact_location, lifecycle, created_ms, updated_ms)
               VALUES (?1, ?2, '', ?3, ?4, ?5) ON CONFLICT DO NOTHING RETURNING id";
    let params = bind![
        new.workspace,
        new.name,
        Lifecycle::Active,
        new.created_ms,
        new.created_ms
    ];
    let id: Option<i64> = tx.first(sql, params, |row| Fields::of(row).next())?;
    if let Some(id) = id {
        let sql = "UPDATE experiments SET artifact_location = ?1 WHERE id = ?2";
        tx.execute(sql, bind![location(id), id])?;
    }
    Ok(id)
}

/// Adds the experiment that is always there, unless it is there. Returns whether it did.
pub fn ensure_default(
    tx: &mut Tx<'_>,
    workspace: &str,
    artifact_location: &str,
    created_ms: i64,
) -> Result<bool, StoreError> {
    tx.insert_new(
        "experiments",
        "id, workspace, name, artifact_location, lifecycle, created_ms, updated_ms",
        bind![
            DEFAULT_ID,
            workspace,
            "Default",
            artifact_location,
            Lifecycle::Active,
            created_ms,
            created_ms
        ],
    )
}

/// Deletes or restores an experiment, and its runs with it.
pub fn set_lifecycle(tx: &mut Tx<'_>, id: i64, lifecycle: Lifecycle, at_ms: i64) -> Result<(), StoreError> {
    let sql = "UPDATE experiments SET lifecycle = ?1, updated_ms = ?2 WHERE id = ?3";
    tx.execute(sql, bind![lifecycle, at_ms, id])?;
    let deleted_ms = (lifecycle == Lifecycle::Deleted).then_some(at_ms);
    let sql = "UPDATE tracked_runs SET lifecycle = ?1, deleted_ms = ?2 WHERE experiment = ?3";
    tx.execute(sql, bind![lifecycle, deleted_ms, id])?;
    Ok(())
}

/// Renames an experiment. The name must be free.
pub fn rename(tx: &mut Tx<'_>, id: i64, name: &str, at_ms: i64) -> Result<(), StoreError> {
    let sql = "UPDATE experiments SET name = ?1, updated_ms = ?2 WHERE id = ?3";
    tx.execute(sql, bind![name, at_ms, id])?;
    Ok(())
}

/// Sets a tag.
pub fn set_tag(tx: &mut Tx<'_>, id: i64, key: &str, value: &str) -> Result<(), StoreError> {
    tx.upsert(
        "experiment_tags",
        "experiment, key, value",
        "experiment, key",
        bind![id, key, value],
    )
}

/// Deletes a tag; returns whether it was there.
pub fn delete_tag(tx: &mut Tx<'_>, id: i64, key: &str) -> Result<bool, StoreError> {
    let sql = "DELETE FROM experiment_tags WHERE experiment = ?1 AND key = ?2";
    Ok(tx.execute(sql, bind![id, key])? > 0)
}
