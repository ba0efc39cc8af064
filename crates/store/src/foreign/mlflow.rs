//! MLflow's tracking tables, as its `SqlAlchemyStore` has made them since 1.3; see [`Mlflow::open`].

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::types::ToSql;

use crate::column::{Fields, bind};
use crate::db::{Connection, Dialect, ForeignPlace, Row, open_foreign};
use crate::error::StoreError;
use crate::tracking::import::{Dataset, Metric, ModelOutput, Pair, Run};

/// The schema's revisions that were tried: those of MLflow 3.10 and 3.17.
const TRIED: [&str; 2] = ["1b5f0d9ad7c1", "dc11669786a5"];

/// What has to be there. All of it is since MLflow 1.3; what came later is read where it is.
const NEEDED: [(&str, &[&str]); 6] = [
    (
        "experiments",
        &["experiment_id", "name", "artifact_location", "lifecycle_stage"],
    ),
    ("experiment_tags", &["experiment_id", "key", "value"]),
    (
        "runs",
        &[
            "run_uuid",
            "name",
            "user_id",
            "status",
            "start_time",
            "end_time",
            "lifecycle_stage",
            "artifact_uri",
            "experiment_id",
        ],
    ),
    (
        "metrics",
        &["run_uuid", "key", "value", "timestamp", "step", "is_nan"],
    ),
    ("params", &["run_uuid", "key", "value"]),
    ("tags", &["run_uuid", "key", "value"]),
];

/// A database of an MLflow server.
pub struct Mlflow {
    conn: Mutex<Connection>,
    name: String,
    revision: String,
    columns: HashMap<&'static str, Vec<String>>,
}

/// An experiment, and where its artifacts are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ForeignExperiment {
    /// The experiment.
    pub experiment: crate::tracking::import::Experiment,
    /// Where its artifacts are.
    pub artifact_location: String,
}

/// A run, and the latest point of each of its metrics. Its `experiment` is not set.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ForeignRun {
    /// The run; `artifact_uri` is the source's.
    pub run: Run,
    /// By key.
    pub latest: Vec<Metric>,
}

impl Mlflow {
    /// Opens `sqlite:///path` or `postgresql://…`, with or without SQLAlchemy's `+driver`. The tables and columns that MLflow has
    /// had since 1.3 must be there, and what came since is read where it is there.
    pub fn open(uri: &str) -> Result<Self, StoreError> {
        let place = place_of(uri)?;
        if let ForeignPlace::Sqlite(path) = &place
            && !path.is_file()
        {
            return Err(StoreError::not_found("database file", path.display()));
        }
        let conn = open_foreign(&place)?;
        let mut columns = HashMap::new();
        for table in [
            "experiments",
            "experiment_tags",
            "runs",
            "metrics",
            "latest_metrics",
            "params",
            "tags",
            "datasets",
            "inputs",
            "input_tags",
            "logged_models",
            "logged_model_params",
            "logged_model_tags",
            "logged_model_metrics",
            "registered_models",
            "registered_model_tags",
            "registered_model_aliases",
            "model_versions",
            "model_version_tags",
            "trace_info",
        ] {
            columns.insert(table, conn.columns(table)?);
        }
        let revision = if conn.columns("alembic_version")?.is_empty() {
            None
        } else {
            conn.first("SELECT version_num FROM alembic_version", &[], |row| {
                Fields::of(row).next::<String>()
            })?
        };
        let Some(revision) = revision else {
            return Err(StoreError::conflict(
                "database",
                format!(
                    "`{}` has no `alembic_version`: it is no database of MLflow's",
                    place.name()
                ),
            ));
        };
        for (table, needed) in NEEDED {
            let missing: Vec<&str> = needed
                .iter()
                .copied()
                .filter(|column| !columns[table].iter().any(|c| c == column))
                .collect();
            if !missing.is_empty() {
                return Err(StoreError::conflict(
                    "database",
                    format!(
                        "`{}` has schema {revision}, in which `{table}` lacks {}: this reads MLflow 1.3 and later; bring it up with `mlflow db upgrade`",
                        place.name(),
                        missing.join(", ")
                    ),
                ));
            }
        }
        Ok(Self {
            conn: Mutex::new(conn),
            name: place.name(),
            revision,
            columns,
        })
    }

    /// What messages call the database. Without its password.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The revision of its schema, and whether that one was tried.
    pub fn revision(&self) -> (&str, bool) {
        (&self.revision, TRIED.contains(&self.revision.as_str()))
    }

    pub(super) fn conn(&self) -> MutexGuard<'_, Connection> {
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a table.
    pub(super) fn has(&self, table: &str) -> bool {
        self.columns.get(table).is_some_and(|columns| !columns.is_empty())
    }

    /// A column, or what stands for it where this database has none.
    pub(super) fn column(&self, table: &str, column: &str, otherwise: &str) -> String {
        let there = self
            .columns
            .get(table)
            .is_some_and(|columns| columns.iter().any(|c| c == column));
        if there {
            column.to_owned()
        } else {
            otherwise.to_owned()
        }
    }

    /// A condition that leaves out what belongs to other workspaces than the default one.
    pub(super) fn own(&self, table: &str) -> String {
        format!("{} = 'default'", self.column(table, "workspace", "'default'"))
    }

    /// What is not read, with how much there is of it.
    pub fn left_out(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let mut left = Vec::new();
        let mut count = |what, table: &str, condition: String| -> Result<(), StoreError> {
            if self.has(table) {
                let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
                let found = self.conn().first(&sql, &[], |row| Fields::of(row).next())?;
                if let Some(found @ 1..) = found {
                    left.push((what, found));
                }
            }
            Ok(())
        };
        count("traces", "trace_info", "1 = 1".to_owned())?;
        let others = |table| format!("NOT ({})", self.own(table));
        count(
            "experiments of other workspaces",
            "experiments",
            others("experiments"),
        )?;
        count(
            "registered models of other workspaces",
            "registered_models",
            others("registered_models"),
        )?;
        Ok(left)
    }

    /// All experiments of the default workspace, deleted ones too.
    pub fn experiments(&self) -> Result<Vec<ForeignExperiment>, StoreError> {
        let created = self.column("experiments", "creation_time", "0");
        let updated = self.column("experiments", "last_update_time", "0");
        let sql = format!(
            "SELECT experiment_id, name, artifact_location, lifecycle_stage, coalesce({created}, 0), coalesce({updated}, 0) \
             FROM experiments WHERE {} ORDER BY experiment_id",
            self.own("experiments")
        );
        let conn = self.conn();
        let mut found = conn.rows(&sql, &[], |row| {
            let mut fields = Fields::of(row);
            let id: i64 = fields.next()?;
            let name = fields.next()?;
            let artifact_location: Option<String> = fields.next()?;
            Ok(ForeignExperiment {
                experiment: crate::tracking::import::Experiment {
                    id: id.to_string(),
                    name,
                    lifecycle: fields.next::<Option<String>>()?.unwrap_or_else(active),
                    created_ms: fields.next()?,
                    updated_ms: fields.next()?,
                    tags: Vec::new(),
                },
                artifact_location: artifact_location.unwrap_or_default(),
            })
        })?;
        let sql = "SELECT experiment_id, key, value FROM experiment_tags ORDER BY experiment_id, key";
        let mut tags: HashMap<String, Vec<Pair>> = HashMap::new();
        conn.rows(sql, &[], |row| {
            let mut fields = Fields::of(row);
            let id: i64 = fields.next()?;
            let pair = (
                fields.next()?,
                fields.next::<Option<String>>()?.unwrap_or_default(),
            );
            tags.entry(id.to_string()).or_default().push(pair);
            Ok(())
        })?;
        for each in &mut found {
            each.experiment.tags = tags.remove(&each.experiment.id).unwrap_or_default();
        }
        Ok(found)
    }

    /// How many runs all experiments of the default workspace have.
    pub fn run_count(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM runs";
        Ok(self
            .conn()
            .first(sql, &[], |row| Fields::of(row).next())?
            .unwrap_or_default())
    }

    /// Runs of an experiment with an id above `after`, in the order of their ids.
    pub fn runs(&self, experiment: i64, after: &str, limit: u32) -> Result<Vec<ForeignRun>, StoreError> {
        let deleted = self.column("runs", "deleted_time", "NULL");
        let sql = format!(
            "SELECT run_uuid, coalesce(name, ''), coalesce(user_id, ''), coalesce(status, 'RUNNING'), coalesce(lifecycle_stage, 'active'), \
             coalesce(start_time, 0), end_time, CAST({deleted} AS BIGINT), coalesce(artifact_uri, '') \
             FROM runs WHERE experiment_id = ?1 AND run_uuid > ?2 ORDER BY run_uuid LIMIT {limit}"
        );
        let conn = self.conn();
        let mut found: BTreeMap<String, ForeignRun> = BTreeMap::new();
        conn.rows(&sql, bind![experiment, after], |row| {
            let run = read_run(row)?;
            let id = run.run_id.clone();
            found.insert(
                id,
                ForeignRun {
                    run,
                    latest: Vec::new(),
                },
            );
            Ok(())
        })?;
        self.belongings(&conn, &mut found)?;
        Ok(found.into_values().collect())
    }

    fn belongings(
        &self,
        conn: &Connection,
        runs: &mut BTreeMap<String, ForeignRun>,
    ) -> Result<(), StoreError> {
        let ids: Vec<String> = runs.keys().cloned().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let values: Vec<&dyn ToSql> = ids.iter().map(|id| id as &dyn ToSql).collect();
        let marks = vec!["?"; ids.len()].join(", ");
        for (table, is_tags) in [("params", false), ("tags", true)] {
            let sql = format!(
                "SELECT run_uuid, key, coalesce(value, '') FROM {table} WHERE run_uuid IN ({marks}) ORDER BY run_uuid, key"
            );
            conn.rows(&sql, &values, |row| {
                let mut fields = Fields::of(row);
                if let Some(found) = runs.get_mut(&fields.next::<String>()?) {
                    let pair = (fields.next()?, fields.next()?);
                    if is_tags {
                        found.run.tags.push(pair);
                    } else {
                        found.run.params.push(pair);
                    }
                }
                Ok(())
            })?;
        }
        if self.has("latest_metrics") {
            let sql = format!(
                "SELECT run_uuid, key, step, coalesce(timestamp, 0), value, is_nan FROM latest_metrics WHERE run_uuid IN ({marks}) ORDER BY run_uuid, key"
            );
            conn.rows(&sql, &values, |row| {
                let mut fields = Fields::of(row);
                if let Some(found) = runs.get_mut(&fields.next::<String>()?) {
                    found.latest.push(read_metric(&mut fields)?);
                }
                Ok(())
            })?;
        }
        if self.has("datasets") && self.has("inputs") && self.has("input_tags") {
            datasets(conn, &marks, &values, runs)?;
            self.models(conn, &marks, &values, runs)?;
        }
        Ok(())
    }

    /// Inputs go from the run to the model, outputs too; the words of the types tell them apart.
    fn models(
        &self,
        conn: &Connection,
        marks: &str,
        values: &[&dyn ToSql],
        runs: &mut BTreeMap<String, ForeignRun>,
    ) -> Result<(), StoreError> {
        let step = self.column("inputs", "step", "0");
        let sql = format!(
            "SELECT source_type, source_id, destination_id, {step} FROM inputs \
             WHERE source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND source_id IN ({marks}) ORDER BY source_id, {step}, destination_id"
        );
        conn.rows(&sql, values, |row| {
            let mut fields = Fields::of(row);
            let kind: String = fields.next()?;
            if let Some(found) = runs.get_mut(&fields.next::<String>()?) {
                let model_id: String = fields.next()?;
                if kind == "RUN_OUTPUT" {
                    let step = fields.next()?;
                    found.run.model_outputs.push(ModelOutput { model_id, step });
                } else {
                    found.run.model_inputs.push(model_id);
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Gives every point of a run's metrics to `take`, so many at a time, until it answers `false`.
    pub fn history(
        &self,
        run_id: &str,
        page: usize,
        mut take: impl FnMut(Vec<Metric>) -> bool,
    ) -> Result<(), StoreError> {
        // As text in the statement: PostgreSQL's cursors take no parameters.
        let literal = run_id.replace('\'', "''");
        let query =
            format!("SELECT key, step, timestamp, value, is_nan FROM metrics WHERE run_uuid = '{literal}'");
        let conn = self.conn();
        if conn.dialect() == Dialect::Postgres {
            let _view = conn.begin_read()?;
            conn.batch(&format!("DECLARE history NO SCROLL CURSOR FOR {query}"))?;
            loop {
                let rows = conn.rows(&format!("FETCH {page} FROM history"), &[], |row| {
                    read_metric(&mut Fields::of(row))
                })?;
                if rows.is_empty() || !take(rows) {
                    return Ok(());
                }
            }
        }
        let mut held = Vec::new();
        let mut wanted = true;
        // The rows are unit: nothing but the page is held.
        conn.rows(&query, &[], |row| {
            if wanted {
                held.push(read_metric(&mut Fields::of(row))?);
                if held.len() >= page {
                    wanted = take(std::mem::take(&mut held));
                }
            }
            Ok(())
        })?;
        if wanted && !held.is_empty() {
            take(held);
        }
        Ok(())
    }
}

fn datasets(
    conn: &Connection,
    marks: &str,
    values: &[&dyn ToSql],
    runs: &mut BTreeMap<String, ForeignRun>,
) -> Result<(), StoreError> {
    let of_runs =
        format!("i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND i.destination_id IN ({marks})");
    let sql = format!(
        "SELECT i.input_uuid, t.name, t.value FROM input_tags t JOIN inputs i ON i.input_uuid = t.input_uuid WHERE {of_runs} ORDER BY t.name"
    );
    let mut tags: HashMap<String, Vec<Pair>> = HashMap::new();
    conn.rows(&sql, values, |row| {
        let mut fields = Fields::of(row);
        let input = fields.next()?;
        tags.entry(input)
            .or_default()
            .push((fields.next()?, fields.next()?));
        Ok(())
    })?;
    let sql = format!(
        "SELECT i.input_uuid, i.destination_id, d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_schema, d.dataset_profile \
         FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id WHERE {of_runs} ORDER BY i.destination_id, d.name, d.digest"
    );
    conn.rows(&sql, values, |row| {
        let mut fields = Fields::of(row);
        let input: String = fields.next()?;
        if let Some(found) = runs.get_mut(&fields.next::<String>()?) {
            found.run.datasets.push(Dataset {
                name: fields.next()?,
                digest: fields.next()?,
                source_type: fields.next()?,
                source: fields.next()?,
                schema: fields.next()?,
                profile: fields.next()?,
                tags: tags.remove(&input).unwrap_or_default(),
            });
        }
        Ok(())
    })?;
    Ok(())
}

fn place_of(uri: &str) -> Result<ForeignPlace, StoreError> {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Err(StoreError::conflict("database", format!("`{uri}` is no URI")));
    };
    match scheme.split('+').next() {
        Some("sqlite") => {
            // SQLAlchemy: three slashes begin a relative path, four an absolute one.
            let path = rest.strip_prefix('/').unwrap_or(rest);
            let path = path.split('?').next().unwrap_or(path);
            Ok(ForeignPlace::Sqlite(PathBuf::from(path)))
        }
        Some("postgres" | "postgresql") => Ok(ForeignPlace::Postgres(format!("postgresql://{rest}"))),
        _ => Err(StoreError::conflict(
            "database",
            format!(
                "`{scheme}` databases are not read: expected `sqlite:///path` or `postgresql://…`; of others, give the URL of an MLflow server over them"
            ),
        )),
    }
}

fn active() -> String {
    "active".to_owned()
}

fn read_run(row: &Row<'_>) -> rusqlite::Result<Run> {
    let mut fields = Fields::of(row);
    Ok(Run {
        run_id: fields.next()?,
        name: fields.next()?,
        user_id: fields.next()?,
        status: fields.next()?,
        lifecycle: fields.next()?,
        start_ms: fields.next()?,
        end_ms: fields.next()?,
        deleted_ms: fields.next()?,
        artifact_uri: fields.next()?,
        ..Run::default()
    })
}

fn read_metric(fields: &mut Fields<'_>) -> rusqlite::Result<Metric> {
    Ok(Metric {
        key: fields.next()?,
        step: fields.next()?,
        at_ms: fields.next()?,
        value: fields.next()?,
        is_nan: fields.next()?,
    })
}
