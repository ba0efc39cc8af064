//! Runs that come from elsewhere, with the whole history of their metrics.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::HashMap;

use rusqlite::types::ToSql;

use super::{Pair, Put};
use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tracking::datasets;
use crate::tx::Tx;

/// A run as the source has it, without its metrics.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// Its id, which it keeps.
    pub run_id: String,
    /// The id that its experiment has here.
    pub experiment: i64,
    /// Its name.
    pub name: String,
    /// Who ran it.
    pub user_id: String,
    /// `FINISHED` and the like.
    pub status: String,
    /// `active` or `deleted`.
    pub lifecycle: String,
    /// When it began, in milliseconds.
    pub start_ms: i64,
    /// When it ended.
    pub end_ms: Option<i64>,
    /// When it was deleted, if it was.
    pub deleted_ms: Option<i64>,
    /// Where its artifacts are here.
    pub artifact_uri: String,
    /// Its parameters.
    pub params: Vec<Pair>,
    /// Its tags.
    pub tags: Vec<Pair>,
    /// The datasets it read.
    pub datasets: Vec<Dataset>,
    /// The logged models it read.
    pub model_inputs: Vec<String>,
    /// The logged models it wrote.
    pub model_outputs: Vec<ModelOutput>,
}

/// A dataset that a run read.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// The digest of its content.
    pub digest: String,
    /// What kind of thing `source` is.
    pub source_type: String,
    /// Where it comes from.
    pub source: String,
    /// Its schema.
    pub schema: Option<String>,
    /// Statistics of it.
    pub profile: Option<String>,
    /// What the run says of it.
    pub tags: Vec<Pair>,
}

/// A logged model that a run wrote.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelOutput {
    /// The model.
    pub model_id: String,
    /// At which step of the run.
    pub step: i64,
}

/// A point of a metric. NaN has the value 0 and `is_nan`; infinities are the largest finite numbers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// The metric's name.
    pub key: String,
    /// At which step of the training.
    pub step: i64,
    /// When, in milliseconds.
    pub at_ms: i64,
    /// The value.
    pub value: f64,
    /// Whether it is NaN.
    pub is_nan: bool,
}

impl Metric {
    fn order(&self, other: &Self) -> Ordering {
        (self.step, self.at_ms)
            .cmp(&(other.step, other.at_ms))
            .then(self.value.total_cmp(&other.value))
            .then(self.is_nan.cmp(&other.is_nan))
    }
}

/// Puts a run in its place, or brings the one of its id up to date.
pub fn put_run(tx: &mut Tx<'_>, workspace: &str, run: &Run) -> Result<Put, StoreError> {
    let sql = "SELECT r.number, r.experiment, e.workspace FROM tracked_runs r JOIN experiments e ON e.id = r.experiment
               WHERE r.run_id = ?1";
    let found: Option<(i64, i64, String)> = tx.first(sql, bind![run.run_id], |row| {
        let mut fields = Fields::of(row);
        Ok((fields.next()?, fields.next()?, fields.next()?))
    })?;
    let (number, mut put) = match found {
        Some((_, _, elsewhere)) if elsewhere != workspace => {
            return Ok(Put::Refused(
                "a run of this id is in another workspace".to_owned(),
            ));
        }
        Some((_, experiment, _)) if experiment != run.experiment => {
            return Ok(Put::Refused(format!(
                "a run of this id is in experiment {experiment}"
            )));
        }
        Some((number, _, _)) => (
            number,
            if refresh(tx, number, run)? {
                Put::Updated
            } else {
                Put::Present
            },
        ),
        None => (insert(tx, run)?, Put::Created),
    };
    if belongings(tx, number, run)? && put == Put::Present {
        put = Put::Updated;
    }
    Ok(put)
}

fn insert(tx: &mut Tx<'_>, run: &Run) -> Result<i64, StoreError> {
    let sql = "INSERT INTO tracked_runs (run_id, experiment, name, user_id, status, lifecycle, start_ms, end_ms, deleted_ms, artifact_uri)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) RETURNING number";
    let params = bind![
        run.run_id,
        run.experiment,
        run.name,
        run.user_id,
        run.status,
        run.lifecycle,
        run.start_ms,
        run.end_ms,
        run.deleted_ms,
        run.artifact_uri
    ];
    tx.one(sql, params, |row| Fields::of(row).next())
}

/// A run that went on in the source goes on here. Where its artifacts are stays.
fn refresh(tx: &mut Tx<'_>, number: i64, run: &Run) -> Result<bool, StoreError> {
    let sql = "UPDATE tracked_runs SET name = ?1, status = ?2, lifecycle = ?3, end_ms = ?4, deleted_ms = ?5
               WHERE number = ?6 AND NOT (name = ?1 AND status = ?2 AND lifecycle = ?3 AND coalesce(end_ms, -1) = coalesce(?4, CAST(-1 AS BIGINT)))";
    let params = bind![
        run.name,
        run.status,
        run.lifecycle,
        run.end_ms,
        run.deleted_ms,
        number
    ];
    Ok(tx.execute(sql, params)? > 0)
}

fn belongings(tx: &mut Tx<'_>, number: i64, run: &Run) -> Result<bool, StoreError> {
    let mut changed = 0;
    for (key, value) in &run.params {
        let columns = "run, key, value";
        changed += usize::from(tx.insert_new("run_params", columns, bind![number, key, value])?);
    }
    for (key, value) in &run.tags {
        let sql = "INSERT INTO run_tags (run, key, value) VALUES (?1, ?2, ?3)
                   ON CONFLICT (run, key) DO UPDATE SET value = excluded.value WHERE run_tags.value <> excluded.value";
        changed += tx.execute(sql, bind![number, key, value])?;
    }
    for dataset in &run.datasets {
        changed += usize::from(add_dataset(tx, number, run.experiment, dataset)?);
    }
    for (position, model_id) in run.model_inputs.iter().enumerate() {
        let output = ModelOutput {
            model_id: model_id.clone(),
            step: 0,
        };
        changed += usize::from(add_model(tx, number, "input", position, &output)?);
    }
    for (position, output) in run.model_outputs.iter().enumerate() {
        changed += usize::from(add_model(tx, number, "output", position, output)?);
    }
    Ok(changed > 0)
}

fn add_dataset(tx: &mut Tx<'_>, run: i64, experiment: i64, dataset: &Dataset) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM run_datasets i JOIN datasets d ON d.number = i.dataset
               WHERE i.run = ?1 AND d.name = ?2 AND d.digest = ?3";
    if tx.exists(sql, bind![run, dataset.name, dataset.digest])? {
        return Ok(false);
    }
    let tag = |(key, value): &Pair| datasets::InputTag {
        key: key.clone(),
        value: value.clone(),
    };
    let input = datasets::DatasetInput {
        dataset: datasets::Dataset {
            name: dataset.name.clone(),
            digest: dataset.digest.clone(),
            source_type: dataset.source_type.clone(),
            source: dataset.source.clone(),
            schema: dataset.schema.clone(),
            profile: dataset.profile.clone(),
        },
        tags: dataset.tags.iter().map(tag).collect(),
    };
    datasets::add_input(tx, run, experiment, &input)?;
    Ok(true)
}

fn add_model(
    tx: &mut Tx<'_>,
    run: i64,
    direction: &str,
    position: usize,
    model: &ModelOutput,
) -> Result<bool, StoreError> {
    let position = i64::try_from(position).unwrap_or(i64::MAX);
    let values = bind![run, model.model_id, direction, model.step, position];
    tx.insert_new("run_models", "run, model_id, direction, step, position", values)
}

/// Adds points to a run; how many were new. `None` if there is no such run.
pub fn append_metrics(
    tx: &mut Tx<'_>,
    workspace: &str,
    run_id: &str,
    metrics: &[Metric],
) -> Result<Option<usize>, StoreError> {
    let sql = "SELECT r.number FROM tracked_runs r JOIN experiments e ON e.id = r.experiment
               WHERE r.run_id = ?1 AND e.workspace = ?2";
    let run: Option<i64> = tx.first(sql, bind![run_id, workspace], |row| Fields::of(row).next())?;
    let Some(run) = run else { return Ok(None) };

    let mut keys: HashMap<&str, i64> = HashMap::new();
    let mut rows = Vec::with_capacity(metrics.len());
    for metric in metrics {
        let key = match keys.get(metric.key.as_str()) {
            Some(key) => *key,
            None => {
                let key = key_number(tx, &metric.key)?;
                keys.insert(&metric.key, key);
                key
            }
        };
        rows.push((run, key, metric));
    }
    rows.sort_by(|a, b| a.1.cmp(&b.1).then(a.2.order(b.2)));
    rows.dedup();
    let columns = "run, key, step, at_ms, value, is_nan";
    let tail = " ON CONFLICT DO NOTHING";
    let added = tx.insert_rows_counted("metrics", columns, tail, &rows, bind_point)?;

    // Each metric's last row is its latest.
    let mut latest: Vec<(i64, i64, &Metric)> = Vec::with_capacity(keys.len());
    for row in rows {
        match latest.last_mut() {
            Some(last) if last.1 == row.1 => *last = row,
            _ => latest.push(row),
        }
    }
    let tail = " ON CONFLICT (run, key) DO UPDATE SET step = excluded.step, at_ms = excluded.at_ms, \
                value = excluded.value, is_nan = excluded.is_nan \
                WHERE (excluded.step, excluded.at_ms, excluded.value, excluded.is_nan) \
                > (latest_metrics.step, latest_metrics.at_ms, latest_metrics.value, latest_metrics.is_nan)";
    tx.insert_rows("latest_metrics", columns, tail, &latest, bind_point)?;
    Ok(Some(added))
}

fn bind_point<'r>((run, key, metric): &'r (i64, i64, &Metric), out: &mut Vec<&'r dyn ToSql>) {
    out.extend_from_slice(&[
        run,
        key,
        &metric.step,
        &metric.at_ms,
        &metric.value,
        &metric.is_nan,
    ]);
}

/// The number of a metric's name, which is given one if it has none.
pub(super) fn key_number(tx: &mut Tx<'_>, name: &str) -> Result<i64, StoreError> {
    tx.insert_new("metric_keys", "name", bind![name])?;
    let sql = "SELECT number FROM metric_keys WHERE name = ?1";
    tx.one(sql, bind![name], |row| Fields::of(row).next())
}
