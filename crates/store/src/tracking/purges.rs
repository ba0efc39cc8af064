//! Deletion for good, in pieces: first a thing is no longer there and stands in `purges`, then its rows go, a few at a time.

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// What is deleted for good.
    PurgeKind {
        /// A run.
        Run = "run",
        /// A logged model.
        Model = "model",
    }
);

/// Something that is no longer there, and whose rows and artifacts have yet to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Purge {
    /// Names this entry.
    pub seq: i64,
    /// What it was.
    pub kind: PurgeKind,
    /// Its number in other tables.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// Which workspace it belonged to.
    pub workspace: String,
    /// Where its artifacts are.
    pub artifact_uri: String,
}

/// A run, a logged model or an experiment that may be purged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// Where its artifacts are.
    pub artifact_uri: String,
}

fn read_candidate(row: &Row<'_>) -> rusqlite::Result<Candidate> {
    let mut fields = Fields::of(row);
    Ok(Candidate {
        number: fields.next()?,
        id: fields.next()?,
        artifact_uri: fields.next()?,
    })
}

impl PurgeKind {
    /// Table, id and location.
    const fn columns(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Run => ("tracked_runs", "run_id", "artifact_uri"),
            Self::Model => ("logged_models", "model_id", "artifact_location"),
        }
    }
}

/// What was deleted at or before `cutoff_ms` in a workspace, after the number `after`, but for what goes with its experiment
/// ([`deleted_experiments`]).
pub fn deleted(
    tx: &ReadTx<'_>,
    kind: PurgeKind,
    workspace: &str,
    cutoff_ms: i64,
    after: i64,
    limit: u32,
) -> Result<Vec<Candidate>, StoreError> {
    let (table, id, location) = kind.columns();
    let sql = format!(
        "SELECT t.number, t.{id}, t.{location} FROM {table} t JOIN experiments e ON e.id = t.experiment
         WHERE e.workspace = ?1 AND t.lifecycle = 'deleted' AND t.deleted_ms <= ?2 AND t.number > ?3
         AND NOT (e.lifecycle = 'deleted' AND e.updated_ms <= ?2)
         ORDER BY t.number LIMIT ?4"
    );
    tx.rows(&sql, bind![workspace, cutoff_ms, after, limit], read_candidate)
}

/// A run or a logged model of a workspace, and whether it was deleted.
pub fn find(
    tx: &ReadTx<'_>,
    kind: PurgeKind,
    workspace: &str,
    id: &str,
) -> Result<Option<(Candidate, bool)>, StoreError> {
    let (table, id_column, location) = kind.columns();
    let sql = format!(
        "SELECT t.number, t.{id_column}, t.{location}, t.lifecycle FROM {table} t JOIN experiments e ON e.id = t.experiment
         WHERE e.workspace = ?1 AND t.{id_column} = ?2"
    );
    tx.first(&sql, bind![workspace, id], |row| {
        let mut fields = Fields::of(row);
        let candidate = Candidate {
            number: fields.next()?,
            id: fields.next()?,
            artifact_uri: fields.next()?,
        };
        Ok((candidate, fields.next::<String>()? == "deleted"))
    })
}

/// What an experiment holds, deleted or not, after the number `after`.
pub fn of_experiment(
    tx: &ReadTx<'_>,
    kind: PurgeKind,
    experiment: i64,
    after: i64,
    limit: u32,
) -> Result<Vec<Candidate>, StoreError> {
    let (table, id, location) = kind.columns();
    let sql = format!(
        "SELECT number, {id}, {location} FROM {table} WHERE experiment = ?1 AND number > ?2 ORDER BY number LIMIT ?3"
    );
    tx.rows(&sql, bind![experiment, after, limit], read_candidate)
}

/// Experiments of a workspace that were deleted at or before `cutoff_ms`.
pub fn deleted_experiments(
    tx: &ReadTx<'_>,
    workspace: &str,
    cutoff_ms: i64,
) -> Result<Vec<Candidate>, StoreError> {
    let sql = "SELECT id, name, artifact_location FROM experiments
        WHERE workspace = ?1 AND lifecycle = 'deleted' AND updated_ms <= ?2 ORDER BY id";
    tx.rows(sql, bind![workspace, cutoff_ms], read_candidate)
}

/// Takes runs or logged models away: from now on they are not there, whatever their rows. Those that were restored meanwhile stay,
/// unless `whatever` they are. Returns how many were taken.
pub fn take(
    tx: &mut Tx<'_>,
    kind: PurgeKind,
    workspace: &str,
    candidates: &[Candidate],
    whatever: bool,
) -> Result<u64, StoreError> {
    let (table, _, _) = kind.columns();
    let guard = if whatever {
        ""
    } else {
        " AND lifecycle = 'deleted'"
    };
    let sql = format!("DELETE FROM {table} WHERE number = ?1{guard}");
    let mut taken = 0;
    for candidate in candidates {
        if tx.execute(&sql, bind![candidate.number])? == 1 {
            let values = bind![
                kind,
                candidate.number,
                candidate.id,
                workspace,
                candidate.artifact_uri
            ];
            tx.insert("purges", "kind, number, id, workspace, artifact_uri", values)?;
            taken += 1;
        }
    }
    Ok(taken)
}

/// What is still to be cleared away in a workspace.
pub fn pending(tx: &ReadTx<'_>, workspace: &str, limit: u32) -> Result<Vec<Purge>, StoreError> {
    let sql = "SELECT seq, kind, number, id, workspace, artifact_uri FROM purges WHERE workspace = ?1 ORDER BY seq LIMIT ?2";
    tx.rows(sql, bind![workspace, limit], |row| {
        let mut fields = Fields::of(row);
        Ok(Purge {
            seq: fields.next()?,
            kind: fields.next()?,
            number: fields.next()?,
            id: fields.next()?,
            workspace: fields.next()?,
            artifact_uri: fields.next()?,
        })
    })
}

/// Points of logged models that a run measured, which may be models of other runs.
const OF_MODELS: &str = "DELETE FROM logged_model_metrics WHERE (model, key, dataset_name, dataset_digest, run, at_ms, step) IN
    (SELECT model, key, dataset_name, dataset_digest, run, at_ms, step FROM logged_model_metrics WHERE run = ?1 LIMIT ?2)";

/// Clears at most `limit` points of what was taken away; whether nothing is left of it.
pub fn clear_some(tx: &mut Tx<'_>, purge: &Purge, limit: u32) -> Result<bool, StoreError> {
    let number = purge.number;
    let points = match purge.kind {
        PurgeKind::Run => {
            "DELETE FROM metrics WHERE (run, key, at_ms, step, value, is_nan) IN
                (SELECT run, key, at_ms, step, value, is_nan FROM metrics WHERE run = ?1 LIMIT ?2)"
        }
        PurgeKind::Model => {
            "DELETE FROM logged_model_metrics WHERE (model, key, dataset_name, dataset_digest, run, at_ms, step) IN
                (SELECT model, key, dataset_name, dataset_digest, run, at_ms, step FROM logged_model_metrics
                 WHERE model = ?1 LIMIT ?2)"
        }
    };
    if tx.execute(points, bind![number, limit])? >= limit as usize {
        return Ok(false);
    }
    if purge.kind == PurgeKind::Run && tx.execute(OF_MODELS, bind![number, limit])? >= limit as usize {
        return Ok(false);
    }
    let rest: &[&str] = match purge.kind {
        PurgeKind::Run => &[
            "DELETE FROM latest_metrics WHERE run = ?1",
            "DELETE FROM run_params WHERE run = ?1",
            "DELETE FROM run_tags WHERE run = ?1",
            "DELETE FROM run_datasets WHERE run = ?1",
            "DELETE FROM run_models WHERE run = ?1",
        ],
        PurgeKind::Model => &[
            "DELETE FROM logged_model_params WHERE model = ?1",
            "DELETE FROM logged_model_tags WHERE model = ?1",
        ],
    };
    for sql in rest {
        tx.execute(sql, bind![number])?;
    }
    if purge.kind == PurgeKind::Model {
        tx.execute("DELETE FROM run_models WHERE model_id = ?1", bind![purge.id])?;
    }
    tx.execute("DELETE FROM purges WHERE seq = ?1", bind![purge.seq])?;
    Ok(true)
}

/// Removes an experiment that holds no runs and no logged models any more, and frees its name. Whether it did: one that was restored
/// meanwhile stays, unless `whatever` it is.
pub fn remove_experiment(tx: &mut Tx<'_>, experiment: i64, whatever: bool) -> Result<bool, StoreError> {
    let filled = "SELECT 1 FROM tracked_runs WHERE experiment = ?1
        UNION ALL SELECT 1 FROM logged_models WHERE experiment = ?2 LIMIT 1";
    if tx.exists(filled, bind![experiment, experiment])? {
        return Ok(false);
    }
    let guard = if whatever {
        ""
    } else {
        " AND lifecycle = 'deleted'"
    };
    let sql = format!("SELECT 1 FROM experiments WHERE id = ?1{guard}");
    if !tx.exists(&sql, bind![experiment])? {
        return Ok(false);
    }
    tx.execute("DELETE FROM datasets WHERE experiment = ?1", bind![experiment])?;
    tx.execute("DELETE FROM experiments WHERE id = ?1", bind![experiment])?;
    // An import may bring another of its number.
    tx.execute(
        "DELETE FROM role_permissions WHERE resource_type = 'experiment' AND resource_pattern = ?1",
        bind![experiment.to_string()],
    )?;
    Ok(true)
}

/// How many rows there are of each table in which a run, a logged model or an experiment leaves rows. For tests.
pub fn count_rows(tx: &ReadTx<'_>) -> Result<Vec<(&'static str, u64)>, StoreError> {
    let tables = [
        "experiments",
        "experiment_tags",
        "tracked_runs",
        "metrics",
        "latest_metrics",
        "run_params",
        "run_tags",
        "datasets",
        "run_datasets",
        "logged_models",
        "logged_model_params",
        "logged_model_tags",
        "logged_model_metrics",
        "run_models",
        "eval_dataset_experiments",
        "artifacts",
        "purges",
    ];
    let mut counts = Vec::with_capacity(tables.len());
    for table in tables {
        let sql = format!("SELECT count(*) FROM {table}");
        counts.push((table, tx.one(&sql, bind![], |row| Fields::of(row).next())?));
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::temp_store;
    use crate::tracking::Lifecycle;
    use crate::tracking::experiments::{self, NewExperiment};
    use crate::tracking::logged_models::{self, NewLoggedModel};
    use crate::tracking::metrics::{self, KnownKeys, NewMetric, Point};
    use crate::tracking::runs::{self, RunHead, RunKey, RunStatus};

    fn run(tx: &mut Tx<'_>, experiment: i64, run_id: &str) -> Result<RunKey, StoreError> {
        let head = RunHead {
            number: 0,
            run_id: run_id.to_owned(),
            experiment,
            name: run_id.to_owned(),
            user_id: String::new(),
            status: RunStatus::Running,
            lifecycle: Lifecycle::Active,
            start_ms: 1,
            end_ms: None,
            deleted_ms: None,
            artifact_uri: format!("mlflow-artifacts:/{experiment}/{run_id}"),
        };
        Ok(RunKey {
            number: runs::insert(tx, &head)?,
            experiment,
            lifecycle: Lifecycle::Active,
        })
    }

    /// Five points of the model `m`.
    fn log(tx: &mut Tx<'_>, run: RunKey) -> Result<(), StoreError> {
        let points: Vec<NewMetric> = (0..5)
            .map(|step| NewMetric {
                key: "auc".to_owned(),
                point: Point::new(step, step, 0.5),
                model_id: Some("m".to_owned()),
                dataset_name: None,
                dataset_digest: None,
            })
            .collect();
        metrics::log(tx, run, &points, &KnownKeys::default())?;
        Ok(())
    }

    fn count(tx: &ReadTx<'_>, table: &str) -> u64 {
        let counts = count_rows(tx).unwrap();
        counts.into_iter().find(|(name, _)| *name == table).unwrap().1
    }

    #[test]
    fn a_run_goes_in_pieces_with_its_points_of_a_model_that_stays() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                let new = NewExperiment {
                    workspace: "default",
                    name: "e",
                    created_ms: 5,
                };
                let e = experiments::insert(tx, &new, |id| format!("mlflow-artifacts:/{id}"))?.unwrap();
                let model = NewLoggedModel {
                    model_id: "m".to_owned(),
                    experiment: e,
                    name: "m".to_owned(),
                    model_type: String::new(),
                    source_run_id: "a".to_owned(),
                    artifact_location: "mlflow-artifacts:/m".to_owned(),
                    created_ms: 5,
                    tags: Vec::new(),
                    params: Vec::new(),
                };
                logged_models::insert(tx, &model)?;
                let (a, b) = (run(tx, e, "a")?, run(tx, e, "b")?);
                log(tx, a)?;
                log(tx, b)?;
                runs::set_lifecycle(tx, b.number, Lifecycle::Deleted, 10)?;
                assert!(deleted(tx, PurgeKind::Run, "default", 9, 0, 10)?.is_empty());
                let found = deleted(tx, PurgeKind::Run, "default", 10, 0, 10)?;
                assert_eq!(found.iter().map(|run| run.id.as_str()).collect::<Vec<_>>(), ["b"]);
                assert_eq!(take(tx, PurgeKind::Run, "default", &found, false)?, 1);
                let purge = pending(tx, "default", 10)?.remove(0);
                let mut steps = 1;
                while !clear_some(tx, &purge, 2)? {
                    steps += 1;
                }
                assert!((5..=7).contains(&steps), "{steps}");
                for (table, left) in [
                    ("metrics", 5),
                    ("logged_model_metrics", 5),
                    ("latest_metrics", 1),
                    ("purges", 0),
                ] {
                    assert_eq!(count(tx, table), left, "{table}");
                }

                // What was deleted with its experiment goes with it, and is not counted beside it.
                experiments::set_lifecycle(tx, e, Lifecycle::Deleted, 20)?;
                assert!(deleted(tx, PurgeKind::Run, "default", 20, 0, 10)?.is_empty());
                assert_eq!(deleted_experiments(tx, "default", 20)?.len(), 1);
                assert!(!remove_experiment(tx, e, false)?);
                for kind in [PurgeKind::Run, PurgeKind::Model] {
                    let found = of_experiment(tx, kind, e, 0, 10)?;
                    take(tx, kind, "default", &found, true)?;
                }
                for purge in pending(tx, "default", 10)? {
                    while !clear_some(tx, &purge, 3)? {}
                }
                assert!(remove_experiment(tx, e, false)?);
                for table in ["experiments", "metrics", "logged_models", "logged_model_metrics"] {
                    assert_eq!(count(tx, table), 0, "{table}");
                }
                Ok(())
            })
            .unwrap();
    }
}
