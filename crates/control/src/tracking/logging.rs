//! What runs log: metrics, parameters and tags, one at a time or in batches.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};
use tidemill_store::tracking::logged_models;
use tidemill_store::tracking::metrics::{self, NewMetric};
use tidemill_store::tracking::runs::{self, RunChange, RunKey};
use tidemill_store::tracking::{params, tags};
use tidemill_store::{ReadTx, StoreError, Tx};

use super::automations::{self, Event};
use super::runs::RUN_NAME_TAG;
use super::validate::{
    self, MAX_ENTITIES_PER_BATCH, MAX_METRICS_PER_BATCH, MAX_PARAMS_TAGS_PER_BATCH, python_repr,
};
use super::{Caller, Result, Tracking, TrackingError};

/// The tag in which old clients keep the models of a run.
const LOGGED_MODELS_TAG: &str = "mlflow.log-model.history";

/// What a batch logs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Points of metrics.
    pub metrics: Vec<NewMetric>,
    /// Parameters.
    pub params: Vec<(String, String)>,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

impl Tracking {
    /// Logs a point of a metric.
    pub async fn log_metric(&self, caller: &Caller, run_id: &str, metric: NewMetric) -> Result<()> {
        validate::metric(&metric, "")?;
        self.log_metrics_alone(caller, run_id, vec![metric]).await
    }

    async fn log_metrics_alone(&self, caller: &Caller, run_id: &str, metrics: Vec<NewMetric>) -> Result<()> {
        let known = Arc::clone(self.metric_keys());
        let waits = self.waits(caller, run_id);
        let fires = waits.metrics;
        let found = self
            .change_active_run(caller, run_id, move |tx, run| {
                if let Some(refusal) = unknown_model(tx, &waits.workspace, &metrics)? {
                    return Ok(Err(refusal));
                }
                waits.tell(tx, run, &metrics, &[])?;
                metrics::log(tx, run, &metrics, &known).map(Ok)
            })
            .await?;
        self.metric_keys().remember(found);
        if fires {
            self.webhooks_written();
        }
        Ok(())
    }

    /// Logs a parameter. Another value for it is refused afterwards.
    pub async fn log_param(&self, caller: &Caller, run_id: &str, key: &str, value: &str) -> Result<()> {
        let mut param = (key.to_owned(), value.to_owned());
        validate::param(&mut param, "key")?;
        let id = run_id.to_owned();
        self.change_active_run(caller, run_id, move |tx, run| {
            let (key, value) = (param.0.as_str(), param.1.as_str());
            match params::values(tx, run.number, &[key])?.get(key) {
                None => params::insert(tx, run.number, &[(key, value)]).map(Ok),
                Some(held) if held == value => Ok(Ok(())),
                Some(held) => Ok(Err(TrackingError::invalid(format!(
                    "Changing param values is not allowed. Param with key='{key}' was already logged with value='{held}' for \
                     run ID='{id}'. Attempted logging new value '{value}'."
                )))),
            }
        })
        .await
    }

    /// Sets a tag.
    pub async fn set_tag(&self, caller: &Caller, run_id: &str, key: &str, value: &str) -> Result<()> {
        let mut tag = (key.to_owned(), value.to_owned());
        validate::tag(&mut tag, "key")?;
        let waits = self.waits(caller, run_id);
        let fires = waits.tags;
        self.change_active_run(caller, run_id, move |tx, run| {
            let tags = [tag];
            waits.tell(tx, run, &[], &tags)?;
            write_tags(tx, run, &tags).map(Ok)
        })
        .await?;
        if fires {
            self.webhooks_written();
        }
        Ok(())
    }

    /// Deletes a tag.
    pub async fn delete_tag(&self, caller: &Caller, run_id: &str, key: &str) -> Result<()> {
        let (id, key) = (run_id.to_owned(), key.to_owned());
        self.change_active_run(caller, run_id, move |tx, run| {
            if tags::delete(tx, run.number, &key)? {
                return Ok(Ok(()));
            }
            Ok(Err(TrackingError::not_found(format!(
                "No tag with name: {key} in run with id {id}"
            ))))
        })
        .await
    }

    /// Logs all of a batch, or nothing of it.
    pub async fn log_batch(&self, caller: &Caller, run_id: &str, mut batch: Batch) -> Result<()> {
        validate::run_id(run_id)?;
        check(&mut batch)?;
        if batch.params.is_empty() && batch.tags.is_empty() {
            return self.log_metrics_alone(caller, run_id, batch.metrics).await;
        }
        let id = run_id.to_owned();
        let known = Arc::clone(self.metric_keys());
        let waits = self.waits(caller, run_id);
        let fires = waits.metrics || waits.tags;
        let found = self
            .change_active_run(caller, run_id, move |tx, run| {
                let keys: Vec<&str> = batch.params.iter().map(|(key, _)| key.as_str()).collect();
                let held = params::values(tx, run.number, &keys)?;
                let mut new = Vec::with_capacity(batch.params.len());
                let mut changed = Vec::new();
                for (key, value) in &batch.params {
                    match held.get(key) {
                        None => new.push((key.as_str(), value.as_str())),
                        Some(held) if held == value => {}
                        Some(held) => changed.push(format!(
                            "{{'key': {}, 'old_value': {}, 'new_value': {}}}",
                            python_repr(key),
                            python_repr(held),
                            python_repr(value)
                        )),
                    }
                }
                if !changed.is_empty() {
                    return Ok(Err(TrackingError::invalid(format!(
                        "Changing param values is not allowed. Params were already logged='[{}]' for run ID='{id}'.",
                        changed.join(", ")
                    ))));
                }
                if let Some(refusal) = unknown_model(tx, &waits.workspace, &batch.metrics)? {
                    return Ok(Err(refusal));
                }
                params::insert(tx, run.number, &new)?;
                waits.tell(tx, run, &batch.metrics, &batch.tags)?;
                let found = metrics::log(tx, run, &batch.metrics, &known)?;
                write_tags(tx, run, &batch.tags)?;
                Ok(Ok(found))
            })
            .await?;
        self.metric_keys().remember(found);
        if fires {
            self.webhooks_written();
        }
        Ok(())
    }

    fn waits(&self, caller: &Caller, run_id: &str) -> Waits {
        Waits {
            metrics: self.awaits(Event::MetricThreshold),
            tags: self.awaits(Event::TagSet),
            workspace: caller.workspace.clone(),
            run_id: run_id.to_owned(),
        }
    }

    /// Notes a model that an old client has logged, in the tag that such clients read it from.
    pub async fn log_model(&self, caller: &Caller, run_id: &str, model_json: &str) -> Result<()> {
        let Ok(Value::Object(model)) = serde_json::from_str(model_json) else {
            return Err(TrackingError::invalid(format!(
                "Malformed model info. \n {model_json} \n is not a valid JSON."
            )));
        };
        let missing: Vec<String> = ["artifact_path", "flavors", "utc_time_created", "run_id"]
            .into_iter()
            .filter(|field| !model.contains_key(*field))
            .map(python_repr)
            .collect();
        if !missing.is_empty() {
            return Err(TrackingError::invalid(format!(
                "Model json is missing mandatory fields: {{{}}}",
                missing.join(", ")
            )));
        }
        let entry = history_entry(model);
        self.change_active_run(caller, run_id, move |tx, run| {
            let held = tags::value(tx, run.number, LOGGED_MODELS_TAG)?;
            let mut history: Vec<Value> = held
                .and_then(|text| serde_json::from_str(&text).ok())
                .unwrap_or_default();
            history.push(entry);
            let mut tag = (LOGGED_MODELS_TAG.to_owned(), Value::Array(history).to_string());
            if let Err(refusal) = validate::length("value", validate::MAX_TAG_VALUE, &tag.1) {
                return Ok(Err(refusal));
            }
            if let Err(refusal) = validate::tag(&mut tag, "key") {
                return Ok(Err(refusal));
            }
            write_tags(tx, run, &[tag]).map(Ok)
        })
        .await
    }
}

/// What refuses points of a logged model that is not in the run's workspace.
fn unknown_model(
    tx: &ReadTx<'_>,
    workspace: &str,
    metrics: &[NewMetric],
) -> std::result::Result<Option<TrackingError>, StoreError> {
    let mut known: Option<&str> = None;
    for model_id in metrics.iter().filter_map(|metric| metric.model_id.as_deref()) {
        // Most batches are about one model.
        if known == Some(model_id) {
            continue;
        }
        if logged_models::find(tx, workspace, model_id)?.is_none() {
            return Ok(Some(super::logged_models::not_found(model_id)));
        }
        known = Some(model_id);
    }
    Ok(None)
}

/// Whether automations may wait for what is logged: where none does, logging asks nothing more of the store.
struct Waits {
    metrics: bool,
    tags: bool,
    workspace: String,
    run_id: String,
}

impl Waits {
    /// Tells of what is about to be logged.
    fn tell(
        &self,
        tx: &mut Tx<'_>,
        run: RunKey,
        metrics: &[NewMetric],
        tags: &[(String, String)],
    ) -> std::result::Result<(), StoreError> {
        if self.metrics && !metrics.is_empty() {
            automations::fire_metrics(tx, &self.workspace, (run, &self.run_id), metrics)?;
        }
        if self.tags {
            automations::fire_run_tags(tx, &self.workspace, (run, &self.run_id), tags)?;
        }
        Ok(())
    }
}

/// What the history keeps of a model: no configuration of its flavors.
fn history_entry(mut model: Map<String, Value>) -> Value {
    let mut entry = Map::new();
    for field in ["run_id", "artifact_path", "utc_time_created", "model_uuid"] {
        if let Some(value) = model.remove(field) {
            entry.insert(field.to_owned(), value);
        }
    }
    let mut flavors = model.remove("flavors").unwrap_or_default();
    if let Value::Object(flavors) = &mut flavors {
        for flavor in flavors.values_mut() {
            if let Value::Object(config) = flavor {
                config.shift_remove("config");
            }
        }
    }
    entry.insert("flavors".to_owned(), flavors);
    Value::Object(entry)
}

/// Checks a batch as a whole before anything of it is written.
fn check(batch: &mut Batch) -> Result<()> {
    for (index, metric) in batch.metrics.iter().enumerate() {
        if validate::metric(metric, "").is_err() {
            validate::metric(metric, &format!("metrics[{index}]"))?;
        }
    }
    for (index, param) in batch.params.iter_mut().enumerate() {
        validate::param(param, &format!("params[{index}].key"))?;
    }
    for (index, tag) in batch.tags.iter_mut().enumerate() {
        validate::tag(tag, &format!("tags[{index}].key"))?;
    }
    let (metrics, params, tags) = (batch.metrics.len(), batch.params.len(), batch.tags.len());
    validate::batch_limit("metrics", MAX_METRICS_PER_BATCH, metrics)?;
    validate::batch_limit("params", MAX_PARAMS_TAGS_PER_BATCH, params)?;
    validate::batch_limit("tags", MAX_PARAMS_TAGS_PER_BATCH, tags)?;
    validate::batch_limit(
        "metrics, params, and tags",
        MAX_ENTITIES_PER_BATCH,
        metrics + params + tags,
    )?;
    let mut seen = HashSet::new();
    let repeated: Vec<String> = batch
        .params
        .iter()
        .filter(|(key, _)| !seen.insert(key.as_str()))
        .map(|(key, _)| python_repr(key))
        .collect();
    if repeated.is_empty() {
        return Ok(());
    }
    Err(TrackingError::invalid(format!(
        "Duplicate parameter keys have been submitted: [{}]. Please ensure the request contains only one param value per param \
         key.",
        repeated.join(", ")
    )))
}

/// Sets tags; the one that is the run's name renames the run, and says nothing if it is empty.
fn write_tags(
    tx: &mut Tx<'_>,
    run: RunKey,
    tags: &[(String, String)],
) -> std::result::Result<(), StoreError> {
    let named = tags
        .iter()
        .rev()
        .find(|(key, value)| key == RUN_NAME_TAG && !value.is_empty());
    if let Some((_, name)) = named {
        let change = RunChange {
            name: Some(name.clone()),
            ..RunChange::default()
        };
        runs::update(tx, run.number, &change)?;
    }
    let pairs: Vec<(&str, &str)> = tags
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .filter(|(key, value)| *key != RUN_NAME_TAG || !value.is_empty())
        .collect();
    tags::set(tx, run.number, &pairs)
}
