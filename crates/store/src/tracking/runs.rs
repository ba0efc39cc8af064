//! Runs: their heads, and whole runs with everything that was logged of them.

use std::collections::HashMap;

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tracking::Lifecycle;
use crate::tracking::datasets::{self, DatasetInput};
use crate::tracking::metrics::{self, Metric};
use crate::tx::{ReadTx, Tx};

text_enum! {
    /// How far a run is.
    RunStatus {
        /// It runs.
        Running = "RUNNING",
        /// It waits.
        Scheduled = "SCHEDULED",
        /// It ended well.
        Finished = "FINISHED",
        /// It failed.
        Failed = "FAILED",
        /// Somebody stopped it.
        Killed = "KILLED",
    }
}

impl RunStatus {
    /// Whether a run in it has ended, well or not.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Killed)
    }
}

text_enum! {
    /// What a run did with a logged model.
    ModelDirection {
        /// It read the model.
        Input = "input",
        /// It wrote the model.
        Output = "output",
    }
}

/// A run without what was logged of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunHead {
    /// Its number in the database.
    pub number: i64,
    /// Its id: 32 hexadecimal digits.
    pub run_id: String,
    /// The experiment it belongs to.
    pub experiment: i64,
    /// Its name.
    pub name: String,
    /// Who started it.
    pub user_id: String,
    /// How far it is.
    pub status: RunStatus,
    /// Active or deleted.
    pub lifecycle: Lifecycle,
    /// When it started, in milliseconds, as its client told.
    pub start_ms: i64,
    /// When it ended.
    pub end_ms: Option<i64>,
    /// When it was deleted.
    pub deleted_ms: Option<i64>,
    /// Where its artifacts are.
    pub artifact_uri: String,
}

/// A logged model that a run wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelOutput {
    /// The model.
    pub model_id: String,
    /// At which step.
    pub step: i64,
}

/// A whole run. Histories of metrics are not part of it.
#[derive(Clone, PartialEq, Debug)]
pub struct TrackedRun {
    /// The run itself.
    pub head: RunHead,
    /// The latest point of each metric.
    pub metrics: Vec<Metric>,
    /// Parameters, by key.
    pub params: Vec<(String, String)>,
    /// Tags, by key.
    pub tags: Vec<(String, String)>,
    /// Datasets it read, in the order in which they were logged.
    pub datasets: Vec<DatasetInput>,
    /// Models it read.
    pub model_inputs: Vec<String>,
    /// Models it wrote.
    pub model_outputs: Vec<ModelOutput>,
}

impl TrackedRun {
    /// A run of which nothing was logged.
    pub fn of(head: RunHead) -> Self {
        Self {
            head,
            metrics: Vec::new(),
            params: Vec::new(),
            tags: Vec::new(),
            datasets: Vec::new(),
            model_inputs: Vec::new(),
            model_outputs: Vec::new(),
        }
    }
}

/// What a write to a run has to know of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunKey {
    /// Its number in the database.
    pub number: i64,
    /// The experiment it belongs to.
    pub experiment: i64,
    /// Active or deleted.
    pub lifecycle: Lifecycle,
}

const COLUMNS: &str = "number, run_id, experiment, name, user_id, status, lifecycle, start_ms, end_ms, deleted_ms, artifact_uri";

fn read(row: &Row<'_>) -> rusqlite::Result<RunHead> {
    let mut fields = Fields::of(row);
    Ok(RunHead {
        number: fields.next()?,
        run_id: fields.next()?,
        experiment: fields.next()?,
        name: fields.next()?,
        user_id: fields.next()?,
        status: fields.next()?,
        lifecycle: fields.next()?,
        start_ms: fields.next()?,
        end_ms: fields.next()?,
        deleted_ms: fields.next()?,
        artifact_uri: fields.next()?,
    })
}

/// Looks a run of a workspace up by its id.
pub fn find(tx: &ReadTx<'_>, workspace: &str, run_id: &str) -> Result<Option<RunKey>, StoreError> {
    let sql = "SELECT r.number, r.experiment, r.lifecycle FROM tracked_runs r
               JOIN experiments e ON e.id = r.experiment WHERE r.run_id = ?1 AND e.workspace = ?2";
    tx.first(sql, bind![run_id, workspace], |row| {
        let mut fields = Fields::of(row);
        Ok(RunKey {
            number: fields.next()?,
            experiment: fields.next()?,
            lifecycle: fields.next()?,
        })
    })
}

/// The numbers of these runs of a workspace, with their ids, in the given order. Unknown ids are left out.
pub fn numbers(
    tx: &ReadTx<'_>,
    workspace: &str,
    run_ids: &[String],
) -> Result<Vec<(String, i64)>, StoreError> {
    let mut found = Vec::with_capacity(run_ids.len());
    for run_id in run_ids {
        if let Some(key) = find(tx, workspace, run_id)? {
            found.push((run_id.clone(), key.number));
        }
    }
    Ok(found)
}

/// The heads of these runs, in the given order. Unknown numbers are left out.
pub fn heads(tx: &ReadTx<'_>, numbers: &[i64]) -> Result<Vec<RunHead>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM tracked_runs WHERE number IN");
    let mut found: HashMap<i64, RunHead> = HashMap::with_capacity(numbers.len());
    tx.each_in(&sql, numbers, "", |row| {
        let head = read(row)?;
        found.insert(head.number, head);
        Ok(())
    })?;
    Ok(numbers.iter().filter_map(|number| found.remove(number)).collect())
}

/// These runs as a whole, in the given order, with few queries however many they are. Unknown numbers are left out.
pub fn load(tx: &ReadTx<'_>, numbers: &[i64]) -> Result<Vec<TrackedRun>, StoreError> {
    let mut runs: Vec<TrackedRun> = heads(tx, numbers)?.into_iter().map(TrackedRun::of).collect();
    let places: HashMap<i64, usize> = runs
        .iter()
        .enumerate()
        .map(|(place, run)| (run.head.number, place))
        .collect();
    metrics::each_latest(tx, numbers, |number, metric| {
        if let Some(place) = places.get(&number) {
            runs[*place].metrics.push(metric);
        }
    })?;
    each_pair(tx, "run_params", numbers, |number, pair| {
        if let Some(place) = places.get(&number) {
            runs[*place].params.push(pair);
        }
    })?;
    each_pair(tx, "run_tags", numbers, |number, pair| {
        if let Some(place) = places.get(&number) {
            runs[*place].tags.push(pair);
        }
    })?;
    datasets::each_of_runs(tx, numbers, |number, input| {
        if let Some(place) = places.get(&number) {
            runs[*place].datasets.push(input);
        }
    })?;
    let sql = "SELECT run, direction, model_id, step FROM run_models WHERE run IN";
    tx.each_in(
        sql,
        numbers,
        "ORDER BY run, direction, position, model_id",
        |row| {
            let mut fields = Fields::of(row);
            let number: i64 = fields.next()?;
            if let Some(place) = places.get(&number) {
                let run = &mut runs[*place];
                match fields.next::<ModelDirection>()? {
                    ModelDirection::Input => run.model_inputs.push(fields.next()?),
                    ModelDirection::Output => run.model_outputs.push(ModelOutput {
                        model_id: fields.next()?,
                        step: fields.next()?,
                    }),
                }
            }
            Ok(())
        },
    )?;
    Ok(runs)
}

fn each_pair(
    tx: &ReadTx<'_>,
    table: &str,
    numbers: &[i64],
    mut take: impl FnMut(i64, (String, String)),
) -> Result<(), StoreError> {
    let sql = format!("SELECT run, key, value FROM {table} WHERE run IN");
    tx.each_in(&sql, numbers, "ORDER BY run, key", |row| {
        let mut fields = Fields::of(row);
        take(fields.next()?, (fields.next()?, fields.next()?));
        Ok(())
    })
}

/// Adds a run; the number of `head` is ignored. Returns its number.
pub fn insert(tx: &mut Tx<'_>, head: &RunHead) -> Result<i64, StoreError> {
    let sql = "INSERT INTO tracked_runs (run_id, experiment, name, user_id, status, lifecycle, start_ms, end_ms, deleted_ms, artifact_uri)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) RETURNING number";
    let params = bind![
        head.run_id,
        head.experiment,
        head.name,
        head.user_id,
        head.status,
        head.lifecycle,
        head.start_ms,
        head.end_ms,
        head.deleted_ms,
        head.artifact_uri
    ];
    tx.one(sql, params, |row| Fields::of(row).next())
}

/// What an update changes; `None` leaves it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RunChange {
    /// How far it is.
    pub status: Option<RunStatus>,
    /// When it ended.
    pub end_ms: Option<i64>,
    /// Its name.
    pub name: Option<String>,
}

/// Changes a run's head.
pub fn update(tx: &mut Tx<'_>, number: i64, change: &RunChange) -> Result<(), StoreError> {
    let sql = "UPDATE tracked_runs SET status = coalesce(?1, status), end_ms = coalesce(?2, end_ms), name = coalesce(?3, name)
               WHERE number = ?4";
    tx.execute(sql, bind![change.status, change.end_ms, change.name, number])?;
    Ok(())
}

/// Deletes or restores a run.
pub fn set_lifecycle(
    tx: &mut Tx<'_>,
    number: i64,
    lifecycle: Lifecycle,
    at_ms: i64,
) -> Result<(), StoreError> {
    let deleted_ms = (lifecycle == Lifecycle::Deleted).then_some(at_ms);
    let sql = "UPDATE tracked_runs SET lifecycle = ?1, deleted_ms = ?2 WHERE number = ?3";
    tx.execute(sql, bind![lifecycle, deleted_ms, number])?;
    Ok(())
}

/// Says that a run read or wrote a logged model. What is told twice keeps its first place.
pub fn add_model(
    tx: &mut Tx<'_>,
    number: i64,
    direction: ModelDirection,
    output: &ModelOutput,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO run_models (run, model_id, direction, step, position)
               SELECT ?1, ?2, ?3, ?4, coalesce(max(position) + 1, 0) FROM run_models WHERE run = ?5 AND direction = ?6
               ON CONFLICT (run, direction, model_id) DO UPDATE SET step = excluded.step";
    let params = bind![number, output.model_id, direction, output.step, number, direction];
    tx.execute(sql, params)?;
    Ok(())
}
