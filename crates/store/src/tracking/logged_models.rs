//! Logged models: a model that a run wrote, with its parameters, tags and what was measured of it.

use std::collections::HashMap;

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// How far a model's files have come. The words are those of MLflow's filters.
    LoggedModelStatus {
        /// Nothing is said.
        Unspecified = "UNSPECIFIED",
        /// Its files are being written.
        Pending = "PENDING",
        /// Its files are there.
        Ready = "READY",
        /// Its files could not be written.
        Failed = "FAILED",
    }
);

impl LoggedModelStatus {
    /// Its number in MLflow's messages.
    pub fn of_number(number: i64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Its name in MLflow's messages.
    pub const fn message_name(self) -> &'static str {
        match self {
            Self::Unspecified => "LOGGED_MODEL_STATUS_UNSPECIFIED",
            Self::Pending => "LOGGED_MODEL_PENDING",
            Self::Ready => "LOGGED_MODEL_READY",
            Self::Failed => "LOGGED_MODEL_UPLOAD_FAILED",
        }
    }

    /// The status of that name in MLflow's messages.
    pub fn of_message_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|status| status.message_name() == name)
    }
}

/// What a run measured of a model.
#[derive(Clone, PartialEq, Debug)]
pub struct LoggedModelMetric {
    /// Its name.
    pub key: String,
    /// NaN where that was measured.
    pub value: f64,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    /// The run's own count.
    pub step: i64,
    /// Which run measured it; empty where the run is gone.
    pub run_id: String,
    /// On which dataset; empty where none was named.
    pub dataset_name: String,
    /// The dataset's digest; empty where none was named.
    pub dataset_digest: String,
}

/// A logged model.
#[derive(Clone, PartialEq, Debug)]
pub struct LoggedModel {
    /// Stands for it in other tables.
    pub number: i64,
    /// `m-` and 32 hexadecimal digits.
    pub model_id: String,
    /// Which experiment it belongs to.
    pub experiment: i64,
    /// Not unique.
    pub name: String,
    /// The client's own word, or empty.
    pub model_type: String,
    /// The run that wrote it, or empty.
    pub source_run_id: String,
    /// Where its files are.
    pub artifact_location: String,
    /// How far its files have come.
    pub status: LoggedModelStatus,
    /// Why, where something went wrong.
    pub status_message: Option<String>,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
    /// Milliseconds since the epoch.
    pub updated_ms: i64,
    /// By key.
    pub tags: Vec<(String, String)>,
    /// By key.
    pub params: Vec<(String, String)>,
    /// By key, step and time.
    pub metrics: Vec<LoggedModelMetric>,
}

/// A model to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewLoggedModel {
    /// `m-` and 32 hexadecimal digits.
    pub model_id: String,
    /// Which experiment it belongs to.
    pub experiment: i64,
    /// Not unique.
    pub name: String,
    /// The client's own word, or empty.
    pub model_type: String,
    /// The run that writes it, or empty.
    pub source_run_id: String,
    /// Where its files go.
    pub artifact_location: String,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
    /// Each key once.
    pub tags: Vec<(String, String)>,
    /// Each key once.
    pub params: Vec<(String, String)>,
}

const COLUMNS: &str = "number, model_id, experiment, name, model_type, source_run_id, artifact_location, status, \
                       status_message, lifecycle, created_ms, updated_ms";

fn read(row: &Row<'_>) -> rusqlite::Result<LoggedModel> {
    let mut fields = Fields::of(row);
    Ok(LoggedModel {
        number: fields.next()?,
        model_id: fields.next()?,
        experiment: fields.next()?,
        name: fields.next()?,
        model_type: fields.next()?,
        source_run_id: fields.next()?,
        artifact_location: fields.next()?,
        status: fields.next()?,
        status_message: fields.next()?,
        deleted: fields.next::<String>()? == "deleted",
        created_ms: fields.next()?,
        updated_ms: fields.next()?,
        tags: Vec::new(),
        params: Vec::new(),
        metrics: Vec::new(),
    })
}

/// Adds a model, as `PENDING`; returns its number.
pub fn insert(tx: &mut Tx<'_>, model: &NewLoggedModel) -> Result<i64, StoreError> {
    let columns = "model_id, experiment, name, model_type, source_run_id, artifact_location, status, lifecycle, \
                   created_ms, updated_ms";
    let values = bind![
        model.model_id,
        model.experiment,
        model.name,
        model.model_type,
        model.source_run_id,
        model.artifact_location,
        LoggedModelStatus::Pending,
        "active",
        model.created_ms,
        model.created_ms
    ];
    tx.insert("logged_models", columns, values)?;
    let number = tx.one(
        "SELECT number FROM logged_models WHERE model_id = ?1",
        bind![model.model_id],
        |row| Fields::of(row).next(),
    )?;
    set_tags(tx, number, &model.tags)?;
    add_params(tx, number, &model.params)?;
    Ok(number)
}

/// The number of a model that belongs to a workspace, and whether it was deleted.
pub fn find(tx: &ReadTx<'_>, workspace: &str, model_id: &str) -> Result<Option<(i64, bool)>, StoreError> {
    let sql = "SELECT m.number, m.lifecycle FROM logged_models m JOIN experiments e ON e.id = m.experiment
        WHERE m.model_id = ?1 AND e.workspace = ?2";
    tx.first(sql, bind![model_id, workspace], |row| {
        let mut fields = Fields::of(row);
        Ok((fields.next()?, fields.next::<String>()? == "deleted"))
    })
}

/// Where a model of a workspace keeps its files.
pub fn location(tx: &ReadTx<'_>, workspace: &str, model_id: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT m.artifact_location FROM logged_models m JOIN experiments e ON e.id = m.experiment
        WHERE m.model_id = ?1 AND e.workspace = ?2";
    tx.first(sql, bind![model_id, workspace], |row| Fields::of(row).next())
}

/// A model, whole.
pub fn get(tx: &ReadTx<'_>, number: i64) -> Result<LoggedModel, StoreError> {
    load(tx, &[number])?
        .pop()
        .ok_or_else(|| StoreError::not_found("logged model", number))
}

/// Models, whole, in the order of `numbers`, with few queries however many they are; those that are gone are left out.
pub fn load(tx: &ReadTx<'_>, numbers: &[i64]) -> Result<Vec<LoggedModel>, StoreError> {
    let mut found: HashMap<i64, LoggedModel> = HashMap::with_capacity(numbers.len());
    let sql = format!("SELECT {COLUMNS} FROM logged_models WHERE number IN");
    tx.each_in(&sql, numbers, "", |row| {
        let model = read(row)?;
        found.insert(model.number, model);
        Ok(())
    })?;
    let pairs = [("logged_model_tags", true), ("logged_model_params", false)];
    for (table, tags) in pairs {
        let sql = format!("SELECT model, key, value FROM {table} WHERE model IN");
        tx.each_in(&sql, numbers, "ORDER BY model, key", |row| {
            let mut fields = Fields::of(row);
            if let Some(model) = found.get_mut(&fields.next::<i64>()?) {
                let pair = (fields.next()?, fields.next()?);
                if tags {
                    model.tags.push(pair);
                } else {
                    model.params.push(pair);
                }
            }
            Ok(())
        })?;
    }
    let sql = "SELECT m.model, k.name, m.value, m.is_nan, m.at_ms, m.step, coalesce(r.run_id, ''), m.dataset_name, m.dataset_digest
        FROM logged_model_metrics m JOIN metric_keys k ON k.number = m.key LEFT JOIN tracked_runs r ON r.number = m.run
        WHERE m.model IN";
    tx.each_in(sql, numbers, "ORDER BY m.model, k.name, m.step, m.at_ms", |row| {
        let mut fields = Fields::of(row);
        if let Some(model) = found.get_mut(&fields.next::<i64>()?) {
            model.metrics.push(read_metric(&mut fields)?);
        }
        Ok(())
    })?;
    Ok(numbers.iter().filter_map(|number| found.remove(number)).collect())
}

fn read_metric(fields: &mut Fields<'_>) -> rusqlite::Result<LoggedModelMetric> {
    let key = fields.next()?;
    let value: f64 = fields.next()?;
    let is_nan: bool = fields.next()?;
    Ok(LoggedModelMetric {
        key,
        value: if is_nan { f64::NAN } else { value },
        at_ms: fields.next()?,
        step: fields.next()?,
        run_id: fields.next()?,
        dataset_name: fields.next()?,
        dataset_digest: fields.next()?,
    })
}

/// Says how far a model's files have come.
pub fn set_status(
    tx: &mut Tx<'_>,
    number: i64,
    status: LoggedModelStatus,
    now_ms: i64,
) -> Result<(), StoreError> {
    let sql = "UPDATE logged_models SET status = ?2, updated_ms = ?3 WHERE number = ?1";
    tx.execute(sql, bind![number, status, now_ms])?;
    Ok(())
}

/// Marks a model as deleted. It stays until it is purged.
pub fn delete(tx: &mut Tx<'_>, number: i64, now_ms: i64) -> Result<(), StoreError> {
    let sql =
        "UPDATE logged_models SET lifecycle = 'deleted', updated_ms = ?2, deleted_ms = ?2 WHERE number = ?1";
    tx.execute(sql, bind![number, now_ms])?;
    Ok(())
}

/// Sets tags.
pub fn set_tags(tx: &mut Tx<'_>, number: i64, tags: &[(String, String)]) -> Result<(), StoreError> {
    for (key, value) in tags {
        tx.upsert(
            "logged_model_tags",
            "model, key, value",
            "model, key",
            bind![number, key, value],
        )?;
    }
    Ok(())
}

/// Removes a tag; whether it was there.
pub fn delete_tag(tx: &mut Tx<'_>, number: i64, key: &str) -> Result<bool, StoreError> {
    let sql = "DELETE FROM logged_model_tags WHERE model = ?1 AND key = ?2";
    Ok(tx.execute(sql, bind![number, key])? > 0)
}

/// Adds parameters, each key once. What is written stays: returns the first that has another value already, with that value, and
/// then adds none.
pub fn add_params(
    tx: &mut Tx<'_>,
    number: i64,
    params: &[(String, String)],
) -> Result<Option<(String, String)>, StoreError> {
    let mut fresh = Vec::with_capacity(params.len());
    for (key, value) in params {
        let sql = "SELECT value FROM logged_model_params WHERE model = ?1 AND key = ?2";
        let there: Option<String> = tx.first(sql, bind![number, key], |row| Fields::of(row).next())?;
        match there {
            None => fresh.push((key, value)),
            Some(there) if there == *value => {}
            Some(there) => return Ok(Some((key.clone(), there))),
        }
    }
    for (key, value) in fresh {
        tx.insert(
            "logged_model_params",
            "model, key, value",
            bind![number, key, value],
        )?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::temp_store;

    fn model(id: &str) -> NewLoggedModel {
        NewLoggedModel {
            model_id: id.to_owned(),
            experiment: 1,
            name: "forest".to_owned(),
            model_type: String::new(),
            source_run_id: "r".to_owned(),
            artifact_location: format!("mlflow-artifacts:/1/models/{id}/artifacts"),
            created_ms: 5,
            tags: vec![("a".to_owned(), "1".to_owned())],
            params: vec![("depth".to_owned(), "3".to_owned())],
        }
    }

    #[test]
    fn models_come_back_whole_and_in_the_order_that_was_asked_for() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                let columns = "workspace, name, artifact_location, lifecycle, created_ms, updated_ms";
                let values = bind!["default", "e", "mlflow-artifacts:/1", "active", 1i64, 1i64];
                tx.insert("experiments", columns, values)?;
                let experiment: i64 = tx.one("SELECT max(id) FROM experiments", bind![], |row| {
                    Fields::of(row).next()
                })?;
                let mut numbers = Vec::new();
                for id in ["m-a", "m-b", "m-c"] {
                    let model = NewLoggedModel {
                        experiment,
                        ..model(id)
                    };
                    numbers.push(insert(tx, &model)?);
                }
                tx.insert("metric_keys", "number, name", bind![7i64, "auc"])?;
                let columns = "model, key, dataset_name, dataset_digest, run, step, at_ms, value, is_nan";
                let values = bind![numbers[1], 7i64, "", "", 99i64, 2i64, 3i64, 0.0f64, true];
                tx.insert("logged_model_metrics", columns, values)?;

                assert_eq!(find(tx, "default", "m-b")?, Some((numbers[1], false)));
                assert_eq!(find(tx, "other", "m-b")?, None);
                assert_eq!(
                    add_params(tx, numbers[0], &[("depth".to_owned(), "3".to_owned())])?,
                    None
                );
                assert_eq!(
                    add_params(tx, numbers[0], &[("depth".to_owned(), "4".to_owned())])?,
                    Some(("depth".to_owned(), "3".to_owned()))
                );
                set_tags(tx, numbers[0], &[("a".to_owned(), "2".to_owned())])?;
                assert!(delete_tag(tx, numbers[2], "a")?);
                assert!(!delete_tag(tx, numbers[2], "a")?);
                set_status(tx, numbers[0], LoggedModelStatus::Ready, 8)?;
                delete(tx, numbers[2], 9)?;
                assert_eq!(find(tx, "default", "m-c")?, Some((numbers[2], true)));

                let loaded = load(tx, &[numbers[2], numbers[0], 1_000_000, numbers[1]])?;
                let ids: Vec<&str> = loaded.iter().map(|model| model.model_id.as_str()).collect();
                assert_eq!(ids, ["m-c", "m-a", "m-b"]);
                assert!(loaded[0].tags.is_empty() && loaded[0].deleted);
                assert_eq!(loaded[1].tags, [("a".to_owned(), "2".to_owned())]);
                assert_eq!(loaded[1].params, [("depth".to_owned(), "3".to_owned())]);
                assert_eq!(
                    (loaded[1].status, loaded[1].updated_ms),
                    (LoggedModelStatus::Ready, 8)
                );
                assert!(loaded[2].metrics[0].value.is_nan());
                assert_eq!(loaded[2].metrics[0].key, "auc");
                assert_eq!(get(tx, numbers[1])?.model_id, "m-b");
                assert!(load(tx, &[])?.is_empty());
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_status_has_the_number_and_the_name_of_mlflows_messages() {
        for (number, status) in LoggedModelStatus::ALL.iter().enumerate() {
            assert_eq!(LoggedModelStatus::of_number(number as i64), Some(*status));
            assert_eq!(
                LoggedModelStatus::of_message_name(status.message_name()),
                Some(*status)
            );
        }
        assert_eq!(LoggedModelStatus::of_number(4), None);
        assert_eq!(LoggedModelStatus::of_number(-1), None);
    }
}
