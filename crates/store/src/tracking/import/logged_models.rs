//! Logged models that come from elsewhere.

use super::runs::key_number;
use super::{Pair, Put};
use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tx::Tx;
use serde::{Deserialize, Serialize};

/// A logged model as the source has it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggedModel {
    /// Its id, which it keeps.
    pub model_id: String,
    /// The id that its experiment has here.
    pub experiment: i64,
    /// Its name.
    pub name: String,
    /// The client's own word, or empty.
    pub model_type: String,
    /// The run that wrote it, or empty.
    pub source_run_id: String,
    /// Where its files are here.
    pub artifact_location: String,
    /// `READY` and the like.
    pub status: String,
    /// Why, where something went wrong.
    pub status_message: Option<String>,
    /// `active` or `deleted`.
    pub lifecycle: String,
    /// When it was created, in milliseconds.
    pub created_ms: i64,
    /// When it was last changed, in milliseconds.
    pub updated_ms: i64,
    /// Its parameters.
    pub params: Vec<Pair>,
    /// Its tags.
    pub tags: Vec<Pair>,
    /// What runs measured of it.
    pub metrics: Vec<ModelMetric>,
}

/// What a run measured of a model.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelMetric {
    /// The point.
    pub metric: super::Metric,
    /// Which run measured it.
    pub run_id: String,
    /// On which dataset; empty where none was named.
    pub dataset_name: String,
    /// The dataset's digest; empty where none was named.
    pub dataset_digest: String,
}

/// Puts a logged model in its place, or brings the one of its id up to date.
pub fn put_logged_model(tx: &mut Tx<'_>, workspace: &str, model: &LoggedModel) -> Result<Put, StoreError> {
    let sql = "SELECT l.number, l.experiment, e.workspace FROM logged_models l JOIN experiments e ON e.id = l.experiment
               WHERE l.model_id = ?1";
    let found: Option<(i64, i64, String)> = tx.first(sql, bind![model.model_id], |row| {
        let mut fields = Fields::of(row);
        Ok((fields.next()?, fields.next()?, fields.next()?))
    })?;
    let (number, mut put) = match found {
        Some((_, _, elsewhere)) if elsewhere != workspace => {
            return Ok(Put::Refused(
                "a logged model of this id is in another workspace".to_owned(),
            ));
        }
        Some((_, experiment, _)) if experiment != model.experiment => {
            return Ok(Put::Refused(format!(
                "a logged model of this id is in experiment {experiment}"
            )));
        }
        Some((number, _, _)) => {
            let changed = refresh(tx, number, model)?;
            (number, if changed { Put::Updated } else { Put::Present })
        }
        None => (insert(tx, model)?, Put::Created),
    };
    if belongings(tx, number, model)? && put == Put::Present {
        put = Put::Updated;
    }
    Ok(put)
}

fn insert(tx: &mut Tx<'_>, model: &LoggedModel) -> Result<i64, StoreError> {
    let deleted_ms = (model.lifecycle == "deleted").then_some(model.updated_ms);
    let sql = "INSERT INTO logged_models (model_id, experiment, name, model_type, source_run_id, artifact_location, status,
                   status_message, lifecycle, created_ms, updated_ms, deleted_ms)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) RETURNING number";
    let params = bind![
        model.model_id,
        model.experiment,
        model.name,
        model.model_type,
        model.source_run_id,
        model.artifact_location,
        model.status,
        model.status_message,
        model.lifecycle,
        model.created_ms,
        model.updated_ms,
        deleted_ms
    ];
    tx.one(sql, params, |row| Fields::of(row).next())
}

fn refresh(tx: &mut Tx<'_>, number: i64, model: &LoggedModel) -> Result<bool, StoreError> {
    let sql = "UPDATE logged_models SET status = ?1, status_message = ?2, updated_ms = ?3
               WHERE number = ?4 AND updated_ms < ?3";
    let params = bind![model.status, model.status_message, model.updated_ms, number];
    Ok(tx.execute(sql, params)? > 0)
}

fn belongings(tx: &mut Tx<'_>, number: i64, model: &LoggedModel) -> Result<bool, StoreError> {
    let mut changed = 0;
    for (key, value) in &model.params {
        let values = bind![number, key, value];
        changed += usize::from(tx.insert_new("logged_model_params", "model, key, value", values)?);
    }
    for (key, value) in &model.tags {
        let sql = "INSERT INTO logged_model_tags (model, key, value) VALUES (?1, ?2, ?3)
                   ON CONFLICT (model, key) DO UPDATE SET value = excluded.value
                   WHERE logged_model_tags.value <> excluded.value";
        changed += tx.execute(sql, bind![number, key, value])?;
    }
    for measured in &model.metrics {
        let sql = "SELECT number FROM tracked_runs WHERE run_id = ?1";
        let run: Option<i64> = tx.first(sql, bind![measured.run_id], |row| Fields::of(row).next())?;
        // The run may have been left out.
        let Some(run) = run else { continue };
        let metric = &measured.metric;
        let key = key_number(tx, &metric.key)?;
        let columns = "model, key, dataset_name, dataset_digest, run, step, at_ms, value, is_nan";
        let values = bind![
            number,
            key,
            measured.dataset_name,
            measured.dataset_digest,
            run,
            metric.step,
            metric.at_ms,
            metric.value,
            metric.is_nan
        ];
        changed += usize::from(tx.insert_new("logged_model_metrics", columns, values)?);
    }
    Ok(changed > 0)
}
