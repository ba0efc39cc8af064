//! What the registry asks of runs and logged models.

use serde_json::{Value, json};

use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// Where a run keeps its artifacts; `None` if there is no such run.
pub fn run_artifacts(tx: &ReadTx<'_>, workspace: &str, run_id: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT r.artifact_uri FROM tracked_runs r JOIN experiments e ON e.id = r.experiment \
         WHERE r.run_id = ?1 AND e.workspace = ?2";
    tx.first(sql, bind![run_id, workspace], |row| Fields::of(row).next())
}

/// A logged model, as far as the registry asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoggedModel {
    /// Stands for it in other tables.
    pub number: i64,
    /// Where its files are.
    pub artifact_location: String,
    /// The run that logged it; empty if none did.
    pub source_run_id: String,
}

/// A logged model that is not deleted.
pub fn logged_model(
    tx: &ReadTx<'_>,
    workspace: &str,
    model_id: &str,
) -> Result<Option<LoggedModel>, StoreError> {
    let sql = "SELECT l.number, l.artifact_location, l.source_run_id FROM logged_models l JOIN experiments e ON e.id = l.experiment \
         WHERE l.model_id = ?1 AND e.workspace = ?2 AND l.lifecycle = 'active'";
    tx.first(sql, bind![model_id, workspace], |row| {
        let mut fields = Fields::of(row);
        Ok(LoggedModel {
            number: fields.next()?,
            artifact_location: fields.next()?,
            source_run_id: fields.next()?,
        })
    })
}

/// The logged model's tag in which MLflow lists the versions made of it.
const VERSIONS_TAG: &str = "mlflow.modelVersions";

/// Adds a version to those that a logged model says were made of it.
pub fn add_version_to_logged_model(
    tx: &mut Tx<'_>,
    number: i64,
    name: &str,
    version: i64,
) -> Result<(), StoreError> {
    let sql = "SELECT value FROM logged_model_tags WHERE model = ?1 AND key = ?2";
    let stored: Option<String> = tx.first(sql, bind![number, VERSIONS_TAG], |row| Fields::of(row).next())?;
    let mut list: Vec<Value> = stored
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let entry = json!({ "name": name, "version": version });
    if !list.contains(&entry) {
        list.push(entry);
    }
    // Spaced as Python writes JSON: clients compare the text.
    let entries: Vec<String> = list
        .iter()
        .map(|entry| {
            format!(
                "{{\"name\": {}, \"version\": {}}}",
                entry["name"], entry["version"]
            )
        })
        .collect();
    let value = format!("[{}]", entries.join(", "));
    let values = bind![number, VERSIONS_TAG, value];
    tx.upsert("logged_model_tags", "model, key, value", "model, key", values)
}

/// What a run says of itself, for a model card: `{"name", "status", "user", "start_ms", "params": {}, "metrics": {}, "tags": {},
/// "datasets": [{"name", "digest", "context"}]}`; null if there is no such run.
pub fn run_facts(tx: &ReadTx<'_>, workspace: &str, run_id: &str) -> Result<Value, StoreError> {
    let sql = "SELECT r.number, r.name, r.status, r.user_id, r.start_ms, e.name FROM tracked_runs r \
         JOIN experiments e ON e.id = r.experiment WHERE r.run_id = ?1 AND e.workspace = ?2";
    let found = tx.first(sql, bind![run_id, workspace], |row| {
        let mut fields = Fields::of(row);
        let number: i64 = fields.next()?;
        let facts = json!({
            "name": fields.next::<String>()?,
            "status": fields.next::<String>()?,
            "user": fields.next::<String>()?,
            "start_ms": fields.next::<i64>()?,
            "experiment": fields.next::<String>()?,
        });
        Ok((number, facts))
    })?;
    let Some((number, mut facts)) = found else {
        return Ok(Value::Null);
    };
    let texts = |sql: &str| -> Result<serde_json::Map<String, Value>, StoreError> {
        let pairs = tx.rows(sql, bind![number], |row| {
            let mut fields = Fields::of(row);
            Ok((fields.next::<String>()?, Value::String(fields.next()?)))
        })?;
        Ok(pairs.into_iter().collect())
    };
    facts["params"] = texts("SELECT key, value FROM run_params WHERE run = ?1 ORDER BY key")?.into();
    facts["tags"] = texts("SELECT key, value FROM run_tags WHERE run = ?1 ORDER BY key")?.into();
    let metrics = tx.rows(
        "SELECT k.name, l.value, l.is_nan FROM latest_metrics l JOIN metric_keys k ON k.number = l.key WHERE l.run = ?1 ORDER BY k.name",
        bind![number],
        |row| {
            let mut fields = Fields::of(row);
            let (key, value, is_nan) = (fields.next::<String>()?, fields.next::<f64>()?, fields.next::<bool>()?);
            Ok((key, if is_nan { json!("NaN") } else { json!(value) }))
        },
    )?;
    facts["metrics"] = Value::Object(metrics.into_iter().collect());
    let datasets = tx.rows(
        "SELECT d.name, d.digest, i.context FROM run_datasets i JOIN datasets d ON d.number = i.dataset WHERE i.run = ?1 \
         ORDER BY i.position",
        bind![number],
        |row| {
            let mut fields = Fields::of(row);
            Ok(json!({
                "name": fields.next::<String>()?,
                "digest": fields.next::<String>()?,
                "context": fields.next::<Option<String>>()?,
            }))
        },
    )?;
    facts["datasets"] = Value::Array(datasets);
    Ok(facts)
}
