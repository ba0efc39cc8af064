//! A training run as clients of MLflow see it: the same id, in an experiment of the project's name. Written in the transactions of
//! the run itself, so that the two never say different things.

use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::VersionNumber;
use tidemill_core::snapshot::SnapshotManifest;
use tidemill_store::runs::RunRow;
use tidemill_store::tracking::datasets::{CONTEXT_TAG, Dataset, DatasetInput, InputTag, add_input};
use tidemill_store::tracking::experiments::{self, NewExperiment};
use tidemill_store::tracking::metrics::{self, KnownKeys, NewMetric, Point};
use tidemill_store::tracking::runs::{self, RunChange, RunHead, RunKey, RunStatus};
use tidemill_store::tracking::{Lifecycle, params, tags};
use tidemill_store::{StoreError, Tx};

use crate::tracking::{DEFAULT_WORKSPACE, automations};

type Result<T> = std::result::Result<T, StoreError>;

/// MLflow's limit on the digest of a dataset, in characters.
const DATASET_DIGEST: usize = 36;

/// The run begins, perhaps once more.
pub(super) fn begin(tx: &mut Tx<'_>, project: &str, run: &RunRow, now: Timestamp) -> Result<()> {
    let name = format!("{} {}", run.trigger_kind, now.day());
    let said = [
        ("tidemill.trigger", run.trigger_kind.as_str()),
        ("tidemill.reason", run.trigger_reason.as_str()),
    ];
    start(tx, project, (run.id.as_str(), &name), &said, now)
}

/// A trial of the training's sweep begins, perhaps once more: a run below the training's own.
pub(super) fn begin_trial(
    tx: &mut Tx<'_>,
    project: &str,
    parent: &str,
    (run_id, sweep, number): (&str, &str, i64),
    now: Timestamp,
) -> Result<()> {
    let said = [("mlflow.parentRunId", parent), ("tidemill.sweep", sweep)];
    start(tx, project, (run_id, &format!("trial {number}")), &said, now)
}

/// A run of the project begins, under this id and name and with these tags beside the usual ones; one that is there goes on.
fn start(
    tx: &mut Tx<'_>,
    project: &str,
    (run_id, name): (&str, &str),
    said: &[(&str, &str)],
    now: Timestamp,
) -> Result<()> {
    if let Some(known) = runs::find(tx, DEFAULT_WORKSPACE, run_id)? {
        return runs::update(tx, known.number, &status(RunStatus::Running, None));
    }
    let experiment = experiment(tx, project, now)?;
    let head = RunHead {
        number: 0,
        run_id: run_id.to_owned(),
        experiment,
        name: name.to_owned(),
        user_id: "tidemill".to_owned(),
        status: RunStatus::Running,
        lifecycle: Lifecycle::Active,
        start_ms: now.as_millis(),
        end_ms: None,
        deleted_ms: None,
        artifact_uri: format!("mlflow-artifacts:/{experiment}/{run_id}/artifacts"),
    };
    let number = runs::insert(tx, &head)?;
    let usual = [
        ("mlflow.runName", name),
        ("mlflow.user", "tidemill"),
        ("mlflow.source.name", project),
        ("mlflow.source.type", "PROJECT"),
    ];
    tags::set(tx, number, &[&usual, said].concat())
}

/// A trial ended: measured, or with the reason why not.
pub(super) fn end_trial(
    tx: &mut Tx<'_>,
    run_id: &str,
    told: &Value,
    (metric, measured): (&str, std::result::Result<f64, String>),
    now: Timestamp,
) -> Result<()> {
    let Some(known) = runs::find(tx, DEFAULT_WORKSPACE, run_id)? else {
        return Ok(());
    };
    insert_params(tx, known, told)?;
    match measured {
        Ok(value) => {
            log_metrics(tx, (known, run_id), &serde_json::json!({ metric: value }), now)?;
            end(tx, (known, run_id), RunStatus::Finished, now)
        }
        Err(error) => fail(tx, run_id, &error, now),
    }
}

/// What a run that ended leaves behind.
pub(super) struct Outcome<'a> {
    pub params: &'a Value,
    pub metrics: &'a Value,
    pub manifest: &'a SnapshotManifest,
    pub version: VersionNumber,
    pub verdict: &'static str,
}

/// The run ended well.
pub(super) fn finish(tx: &mut Tx<'_>, run: &str, outcome: &Outcome<'_>, now: Timestamp) -> Result<()> {
    let Some(known) = runs::find(tx, DEFAULT_WORKSPACE, run)? else {
        // It began before runs were tracked.
        return Ok(());
    };
    insert_params(tx, known, outcome.params)?;
    log_metrics(tx, (known, run), outcome.metrics, now)?;
    let input = dataset_of(outcome.manifest);
    add_input(tx, known.number, known.experiment, &input)?;
    let version = outcome.version.to_string();
    let said = [
        ("tidemill.version", version.as_str()),
        ("tidemill.gate", outcome.verdict),
    ];
    tags::set(tx, known.number, &said)?;
    end(tx, (known, run), RunStatus::Finished, now)
}

/// The run failed.
pub(super) fn fail(tx: &mut Tx<'_>, run: &str, error: &str, now: Timestamp) -> Result<()> {
    let Some(known) = runs::find(tx, DEFAULT_WORKSPACE, run)? else {
        return Ok(());
    };
    tags::set(tx, known.number, &[("tidemill.error", error)])?;
    end(tx, (known, run), RunStatus::Failed, now)
}

fn end(tx: &mut Tx<'_>, (known, run): (RunKey, &str), as_: RunStatus, now: Timestamp) -> Result<()> {
    runs::update(tx, known.number, &status(as_, Some(now)))?;
    let ended = Some(now.as_millis());
    automations::fire_finished(tx, DEFAULT_WORKSPACE, (known, run), as_.as_str(), ended)
}

fn status(status: RunStatus, ended: Option<Timestamp>) -> RunChange {
    RunChange {
        status: Some(status),
        end_ms: ended.map(Timestamp::as_millis),
        name: None,
    }
}

fn experiment(tx: &mut Tx<'_>, project: &str, now: Timestamp) -> Result<i64> {
    if let Some(id) = experiments::id_by_name(tx, DEFAULT_WORKSPACE, project)? {
        return Ok(id);
    }
    let new = NewExperiment {
        workspace: DEFAULT_WORKSPACE,
        name: project,
        created_ms: now.as_millis(),
    };
    let created = experiments::insert(tx, &new, |id| format!("mlflow-artifacts:/{id}"))?;
    created.ok_or_else(|| StoreError::conflict("experiment", format!("`{project}` appeared meanwhile")))
}

fn insert_params(tx: &mut Tx<'_>, run: RunKey, told: &Value) -> Result<()> {
    let told = texts(told);
    let told: Vec<(&str, &str)> = told
        .iter()
        .map(|(key, text)| (key.as_str(), text.as_str()))
        .collect();
    params::insert(tx, run.number, &told)
}

fn log_metrics(tx: &mut Tx<'_>, run: (RunKey, &str), values: &Value, now: Timestamp) -> Result<()> {
    let points: Vec<NewMetric> = values
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| {
            Some(NewMetric {
                key: key.clone(),
                point: Point::new(0, now.as_millis(), value.as_f64()?),
                model_id: None,
                dataset_name: None,
                dataset_digest: None,
            })
        })
        .collect();
    automations::fire_metrics(tx, DEFAULT_WORKSPACE, run, &points)?;
    metrics::log(tx, run.0, &points, &KnownKeys::default())?;
    Ok(())
}

/// The settings of a training by their dotted names.
fn texts(value: &Value) -> Vec<(String, String)> {
    fn walk(name: &str, value: &Value, found: &mut Vec<(String, String)>) {
        match value {
            Value::Null => {}
            Value::Object(map) => {
                for (key, value) in map {
                    let name = if name.is_empty() {
                        key.clone()
                    } else {
                        format!("{name}.{key}")
                    };
                    walk(&name, value, found);
                }
            }
            Value::String(text) => found.push((name.to_owned(), text.clone())),
            other => found.push((name.to_owned(), other.to_string())),
        }
    }
    let mut found = Vec::new();
    walk("", value, &mut found);
    found
}

fn dataset_of(manifest: &SnapshotManifest) -> DatasetInput {
    let digest = manifest.digest.to_string();
    let columns: Vec<Value> = manifest
        .features
        .features
        .iter()
        .map(|feature| serde_json::json!({ "name": feature.name, "type": feature.kind }))
        .collect();
    DatasetInput {
        dataset: Dataset {
            name: manifest.dataset.clone(),
            digest: digest.chars().take(DATASET_DIGEST).collect(),
            source_type: "tidemill".to_owned(),
            source: serde_json::json!({ "snapshot": digest }).to_string(),
            schema: Some(serde_json::json!({ "columns": columns, "label": manifest.label }).to_string()),
            profile: Some(serde_json::json!({ "num_rows": manifest.rows }).to_string()),
        },
        tags: vec![InputTag {
            key: CONTEXT_TAG.to_owned(),
            value: "training".to_owned(),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_told_by_their_dotted_names() {
        let told = texts(&json!({"budget": 0.5, "trainer": {"kind": "built-in", "cap": null}}));
        assert_eq!(
            told,
            [
                ("budget".to_owned(), "0.5".to_owned()),
                ("trainer.kind".to_owned(), "built-in".to_owned())
            ]
        );
    }
}
