//! Experiments that come from elsewhere.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Mark, Origin, Pair, mark, target};
use crate::column::{Fields, bind};
use crate::db::Dialect;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// An experiment as the source has it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Experiment {
    /// Its id in the source.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `active` or `deleted`.
    pub lifecycle: String,
    /// When it was created, in milliseconds.
    pub created_ms: i64,
    /// When it was last changed, in milliseconds.
    pub updated_ms: i64,
    /// Its tags.
    pub tags: Vec<Pair>,
}

/// Where an experiment came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placed {
    /// New, under its own id if that can be one here.
    Created(i64),
    /// New, under another id: its own was taken.
    Renumbered(i64),
    /// It was brought before, or is here under the same name and id.
    Present(i64),
    /// Here is one of that name with another id; what belongs to it goes there.
    Joined(i64),
}

impl Placed {
    /// Its id here.
    pub fn id(self) -> i64 {
        match self {
            Self::Created(id) | Self::Renumbered(id) | Self::Present(id) | Self::Joined(id) => id,
        }
    }
}

/// Puts an experiment in its place. `location` says where artifacts of an experiment of that id go.
pub fn put_experiment(
    tx: &mut Tx<'_>,
    origin: &Origin,
    experiment: &Experiment,
    location: impl Fn(i64) -> String,
) -> Result<Placed, StoreError> {
    let placed = place(tx, origin, experiment, location)?;
    let id = placed.id();
    for (key, value) in &experiment.tags {
        let sql = "INSERT INTO experiment_tags (experiment, key, value) VALUES (?1, ?2, ?3)
                   ON CONFLICT (experiment, key) DO UPDATE SET value = excluded.value
                   WHERE experiment_tags.value <> excluded.value";
        tx.execute(sql, bind![id, key, value])?;
    }
    let done = Mark {
        id: experiment.id.clone(),
        target: id.to_string(),
        fingerprint: None,
        counts: json!({}),
    };
    mark(tx, origin, "experiment", &done)?;
    Ok(placed)
}

fn place(
    tx: &mut Tx<'_>,
    origin: &Origin,
    experiment: &Experiment,
    location: impl Fn(i64) -> String,
) -> Result<Placed, StoreError> {
    let own: Option<i64> = experiment.id.parse().ok().filter(|id| *id >= 0);
    if let Some(before) = target(tx, origin, "experiment", &experiment.id)?
        && let Ok(id) = before.parse()
        && is_there(tx, &origin.workspace, id)?
    {
        return Ok(Placed::Present(id));
    }
    let sql = "SELECT id FROM experiments WHERE workspace = ?1 AND name = ?2";
    let same_name: Option<i64> = tx.first(sql, bind![origin.workspace, experiment.name], |row| {
        Fields::of(row).next()
    })?;
    if let Some(id) = same_name {
        return Ok(if own.is_none_or(|own| own == id) {
            Placed::Present(id)
        } else {
            Placed::Joined(id)
        });
    }
    let values = (
        &experiment.name,
        &experiment.lifecycle,
        experiment.created_ms,
        experiment.updated_ms,
    );
    if let Some(id) = own
        && !tx.exists("SELECT 1 FROM experiments WHERE id = ?1", bind![id])?
    {
        tx.insert(
            "experiments",
            "id, workspace, name, artifact_location, lifecycle, created_ms, updated_ms",
            bind![
                id,
                origin.workspace,
                values.0,
                location(id),
                values.1,
                values.2,
                values.3
            ],
        )?;
        go_on_after(tx)?;
        return Ok(Placed::Created(id));
    }
    let sql =
        "INSERT INTO experiments (workspace, name, artifact_location, lifecycle, created_ms, updated_ms)
               VALUES (?1, ?2, '', ?3, ?4, ?5) RETURNING id";
    let params = bind![origin.workspace, values.0, values.1, values.2, values.3];
    let id = tx.one(sql, params, |row| Fields::of(row).next())?;
    let sql = "UPDATE experiments SET artifact_location = ?1 WHERE id = ?2";
    tx.execute(sql, bind![location(id), id])?;
    Ok(if own.is_some() {
        Placed::Renumbered(id)
    } else {
        Placed::Created(id)
    })
}

fn is_there(tx: &ReadTx<'_>, workspace: &str, id: i64) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM experiments WHERE id = ?1 AND workspace = ?2";
    tx.exists(sql, bind![id, workspace])
}

/// The next id that is given out lies above all that are there. SQLite sees to that by itself.
fn go_on_after(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    if tx.dialect() == Dialect::Postgres {
        let sql = "SELECT setval(pg_get_serial_sequence('experiments', 'id'), greatest((SELECT max(id) FROM experiments), 1))";
        tx.one(sql, &[], |_| Ok(()))?;
    }
    Ok(())
}
