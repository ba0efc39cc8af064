//! What an import sends, piece by piece: `tidemill import` is the client, and anybody else may be.
//!
//! Every call may be repeated: what has come stays as it is. Each thing has its own outcome, and one that is refused does not
//! keep the others back.

use serde::{Deserialize, Serialize};
use tidemill_store::tracking::import::{self as stored, Origin, Pair, Put};

use super::{Caller, Result, Tracking, TrackingError};

pub use stored::{
    Dataset as RunDataset, Experiment, LoggedModel, Mark, Metric, ModelMetric, ModelOutput as RunModel,
    RegisteredModel, Run, Version,
};

/// So many things are taken at once.
const MAX_THINGS: usize = 10_000;
/// So many points of metrics are taken at once.
const MAX_METRICS: usize = 50_000;

/// Schemes of artifact stores that clients reach by themselves: what lies there may stay there.
const REMOTE: [&str; 17] = [
    "s3", "s3a", "s3n", "gs", "wasb", "wasbs", "abfs", "abfss", "adl", "dbfs", "hdfs", "viewfs", "r2", "b2",
    "oss", "ftp", "sftp",
];

/// Things of one kind, to be asked for or remembered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marks {
    /// Where they come from, in the importer's words.
    pub source: String,
    /// `run`, `logged_model` or `registered_model`.
    pub kind: String,
    /// The things.
    pub things: Vec<Mark>,
}

/// Which of the things that were asked for have come whole.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Known {
    /// As they were remembered.
    pub known: Vec<Mark>,
}

/// Experiments.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiments {
    /// Where they come from.
    pub source: String,
    /// The experiments.
    pub experiments: Vec<Experiment>,
}

/// Where an experiment came to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlacedExperiment {
    /// Its id in the source.
    pub source_id: String,
    /// Its id here.
    pub experiment: i64,
    /// `created`, `renumbered` (its own id was another's), `joined` (one of that name was here), `present`.
    pub outcome: String,
}

/// Runs, and further points of runs that have come.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    /// Where they come from.
    pub source: String,
    /// A run, with the first part of its metrics. Its `artifact_uri` is empty, or that of a store that clients reach by themselves.
    #[serde(default)]
    pub runs: Vec<Run>,
    /// Points of runs that are here or among `runs`.
    #[serde(default)]
    pub metrics: Vec<RunMetrics>,
}

/// Points of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunMetrics {
    /// The run.
    pub run_id: String,
    /// The points.
    pub metrics: Vec<Metric>,
}

/// What became of one thing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Its id or name.
    pub id: String,
    /// `created`, `updated`, `present` or `refused`.
    pub outcome: String,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where its artifacts are here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<String>,
}

/// What became of runs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RunOutcomes {
    /// One for each run, in order.
    pub runs: Vec<Outcome>,
    /// How many points were new.
    pub metrics: usize,
}

/// Logged models and registered models.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// Where they come from.
    pub source: String,
    /// Logged models; their `artifact_location` is as [`Runs::runs`]' `artifact_uri`.
    #[serde(default)]
    pub logged_models: Vec<LoggedModel>,
    /// Registered models.
    #[serde(default)]
    pub registered_models: Vec<RegisteredModelWithVersions>,
}

/// A registered model with what belongs to it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisteredModelWithVersions {
    /// The model.
    pub model: RegisteredModel,
    /// Its versions.
    #[serde(default)]
    pub versions: Vec<Version>,
    /// Alias and version.
    #[serde(default)]
    pub aliases: Vec<(String, i64)>,
}

/// What became of models.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ModelOutcomes {
    /// One for each logged model, in order.
    pub logged_models: Vec<Outcome>,
    /// One for each registered model, in order.
    pub registered_models: Vec<ModelOutcome>,
}

/// What became of a registered model and what belongs to it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ModelOutcome {
    /// The model.
    pub model: Outcome,
    /// One for each version, in order.
    pub versions: Vec<Outcome>,
    /// One for each alias, in order.
    pub aliases: Vec<Outcome>,
}

impl Tracking {
    fn origin(&self, caller: &Caller, source: &str) -> Result<Origin> {
        if source.is_empty() || source.len() > 1_000 {
            return Err(TrackingError::invalid(
                "`source` must have 1 to 1000 characters: it tells imports apart",
            ));
        }
        Ok(Origin {
            workspace: caller.workspace.clone(),
            source: source.to_owned(),
            at_ms: self.now_ms(),
        })
    }

    /// Which of these things have come whole, with the fingerprint that they have now.
    pub async fn known_imports(&self, caller: &Caller, asked: Marks) -> Result<Known> {
        limit(asked.things.len(), MAX_THINGS, "things")?;
        let origin = self.origin(caller, &asked.source)?;
        let things: Vec<Pair> = asked
            .things
            .into_iter()
            .map(|mark| (mark.id, mark.fingerprint.unwrap_or_default()))
            .collect();
        let read = move |tx: &tidemill_store::ReadTx<'_>| stored::known(tx, &origin, &asked.kind, &things);
        let known = self.store().read(read).await?;
        Ok(Known { known })
    }

    /// Remembers that things have come whole.
    pub async fn mark_imports(&self, caller: &Caller, done: Marks) -> Result<()> {
        limit(done.things.len(), MAX_THINGS, "things")?;
        let origin = self.origin(caller, &done.source)?;
        let change = move |tx: &mut tidemill_store::Tx<'_>| {
            for mark in &done.things {
                stored::mark(tx, &origin, &done.kind, mark)?;
            }
            Ok(())
        };
        Ok(self.store().write(change).await?)
    }

    /// Puts experiments in their places.
    pub async fn import_experiments(
        &self,
        caller: &Caller,
        sent: Experiments,
    ) -> Result<Vec<PlacedExperiment>> {
        limit(sent.experiments.len(), MAX_THINGS, "experiments")?;
        for experiment in &sent.experiments {
            if experiment.name.is_empty() {
                let id = &experiment.id;
                return Err(TrackingError::invalid(format!("experiment `{id}` has no name")));
            }
            word(&experiment.lifecycle, &["active", "deleted"], "lifecycle")?;
        }
        let origin = self.origin(caller, &sent.source)?;
        let change = move |tx: &mut tidemill_store::Tx<'_>| {
            let mut placed = Vec::with_capacity(sent.experiments.len());
            for experiment in &sent.experiments {
                let place = stored::put_experiment(tx, &origin, experiment, experiment_location)?;
                let outcome = match place {
                    stored::Placed::Created(_) => "created",
                    stored::Placed::Renumbered(_) => "renumbered",
                    stored::Placed::Present(_) => "present",
                    stored::Placed::Joined(_) => "joined",
                };
                placed.push(PlacedExperiment {
                    source_id: experiment.id.clone(),
                    experiment: place.id(),
                    outcome: outcome.to_owned(),
                });
            }
            Ok(placed)
        };
        Ok(self.store().write(change).await?)
    }

    /// Puts runs and points of their metrics in their places, all in one transaction.
    pub async fn import_runs(&self, caller: &Caller, sent: Runs) -> Result<RunOutcomes> {
        limit(sent.runs.len(), MAX_THINGS, "runs")?;
        let points = sent.metrics.iter().map(|part| part.metrics.len()).sum();
        limit(points, MAX_METRICS, "points")?;
        let origin = self.origin(caller, &sent.source)?;
        let change = move |tx: &mut tidemill_store::Tx<'_>| {
            let mut outcomes = RunOutcomes::default();
            let mut refused: Vec<String> = Vec::new();
            for mut run in sent.runs {
                let outcome = match check_run(&run) {
                    Err(reason) => Put::Refused(reason),
                    Ok(()) => {
                        if run.artifact_uri.is_empty() {
                            run.artifact_uri = run_artifacts(run.experiment, &run.run_id);
                        }
                        stored::put_run(tx, &origin.workspace, &run)?
                    }
                };
                if matches!(outcome, Put::Refused(_)) {
                    refused.push(run.run_id.clone());
                }
                outcomes
                    .runs
                    .push(Outcome::new(run.run_id, outcome).at(run.artifact_uri));
            }
            for part in &sent.metrics {
                if refused.contains(&part.run_id) {
                    continue;
                }
                // Whose run is not here was refused in an earlier call, or is gone since.
                outcomes.metrics +=
                    stored::append_metrics(tx, &origin.workspace, &part.run_id, &part.metrics)?.unwrap_or(0);
            }
            Ok(outcomes)
        };
        Ok(self.store().write(change).await?)
    }

    /// Puts logged and registered models in their places, all in one transaction.
    pub async fn import_models(&self, caller: &Caller, sent: Models) -> Result<ModelOutcomes> {
        limit(sent.logged_models.len(), MAX_THINGS, "logged models")?;
        limit(sent.registered_models.len(), MAX_THINGS, "registered models")?;
        let origin = self.origin(caller, &sent.source)?;
        let change = move |tx: &mut tidemill_store::Tx<'_>| {
            let mut outcomes = ModelOutcomes::default();
            for mut model in sent.logged_models {
                let outcome = match check_logged_model(&model) {
                    Err(reason) => Put::Refused(reason),
                    Ok(()) => {
                        if model.artifact_location.is_empty() {
                            model.artifact_location = model_artifacts(model.experiment, &model.model_id);
                        }
                        stored::put_logged_model(tx, &origin.workspace, &model)?
                    }
                };
                outcomes
                    .logged_models
                    .push(Outcome::new(model.model_id, outcome).at(model.artifact_location));
            }
            for sent in &sent.registered_models {
                outcomes
                    .registered_models
                    .push(put_registered(tx, &origin, sent)?);
            }
            Ok(outcomes)
        };
        Ok(self.store().write(change).await?)
    }
}

fn put_registered(
    tx: &mut tidemill_store::Tx<'_>,
    origin: &Origin,
    sent: &RegisteredModelWithVersions,
) -> std::result::Result<ModelOutcome, tidemill_store::StoreError> {
    let name = &sent.model.name;
    if name.trim().is_empty() || name.contains(['/', ':']) {
        let reason = "a registered model's name is not empty and has neither `/` nor `:`".to_owned();
        return Ok(ModelOutcome {
            model: Outcome::new(name.clone(), Put::Refused(reason)),
            ..ModelOutcome::default()
        });
    }
    let (number, put) = stored::put_model(tx, origin, &sent.model)?;
    let mut outcome = ModelOutcome {
        model: Outcome::new(name.clone(), put),
        ..ModelOutcome::default()
    };
    for version in &sent.versions {
        let put = match check_version(version) {
            Err(reason) => Put::Refused(reason),
            Ok(()) => stored::put_version(tx, origin, (number, name), version)?,
        };
        outcome
            .versions
            .push(Outcome::new(format!("{name}/{}", version.version), put));
    }
    for (alias, version) in &sent.aliases {
        let put = stored::put_alias(tx, origin, (number, name), alias, *version)?;
        outcome.aliases.push(Outcome::new(format!("{name}@{alias}"), put));
    }
    Ok(outcome)
}

impl Outcome {
    fn new(id: String, put: Put) -> Self {
        let (outcome, reason) = match put {
            Put::Created => ("created", None),
            Put::Updated => ("updated", None),
            Put::Present => ("present", None),
            Put::Refused(reason) => ("refused", Some(reason)),
        };
        Self {
            id,
            outcome: outcome.to_owned(),
            reason,
            artifacts: None,
        }
    }

    fn at(mut self, artifacts: String) -> Self {
        self.artifacts = (self.outcome != "refused").then_some(artifacts);
        self
    }
}

/// Imported artifacts lie in the server's own store, wherever those of new experiments go: that is where an importer can put them.
fn experiment_location(experiment: i64) -> String {
    format!("mlflow-artifacts:/{experiment}")
}

/// Where the artifacts of an imported run are.
pub fn run_artifacts(experiment: i64, run_id: &str) -> String {
    format!("{}/{run_id}/artifacts", experiment_location(experiment))
}

/// Where the files of an imported logged model are.
pub fn model_artifacts(experiment: i64, model_id: &str) -> String {
    format!("{}/models/{model_id}/artifacts", experiment_location(experiment))
}

fn limit(found: usize, most: usize, what: &str) -> Result<()> {
    if found > most {
        return Err(TrackingError::invalid(format!(
            "{found} {what} are too many at once: send at most {most}"
        )));
    }
    Ok(())
}

fn word(found: &str, known: &[&str], what: &str) -> Result<()> {
    known_word(found, known, what).map_err(TrackingError::invalid)
}

fn known_word(found: &str, known: &[&str], what: &str) -> std::result::Result<(), String> {
    if known.contains(&found) {
        return Ok(());
    }
    Err(format!("{what} `{found}` is not one of {}", known.join(", ")))
}

/// An id becomes part of a path.
fn check_id(id: &str) -> std::result::Result<(), String> {
    let fits = !id.is_empty()
        && id.len() <= 250
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if fits {
        return Ok(());
    }
    Err(format!(
        "`{id}` is no id: expected up to 250 letters, digits, `-` and `_`"
    ))
}

fn check_location(uri: &str) -> std::result::Result<(), String> {
    let scheme = uri
        .split_once("://")
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    let remote = scheme.is_some_and(|scheme| REMOTE.contains(&scheme.as_str()));
    if uri.is_empty() || remote && !uri.contains('#') {
        return Ok(());
    }
    Err(format!(
        "artifacts cannot stay at `{uri}`: only stores such as `s3://` are reached by everybody"
    ))
}

/// Whether artifacts at this URI may stay there, because clients reach them by themselves.
pub fn stays_where_it_is(uri: &str) -> bool {
    !uri.is_empty() && check_location(uri).is_ok()
}

fn check_run(run: &Run) -> std::result::Result<(), String> {
    check_id(&run.run_id)?;
    let statuses = ["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"];
    known_word(&run.status, &statuses, "status")?;
    known_word(&run.lifecycle, &["active", "deleted"], "lifecycle")?;
    check_location(&run.artifact_uri)
}

fn check_logged_model(model: &LoggedModel) -> std::result::Result<(), String> {
    check_id(&model.model_id)?;
    let statuses = ["UNSPECIFIED", "PENDING", "READY", "FAILED"];
    known_word(&model.status, &statuses, "status")?;
    known_word(&model.lifecycle, &["active", "deleted"], "lifecycle")?;
    check_location(&model.artifact_location)
}

/// A version's files are read by whoever may read the version: it must not name a file of the server's own disk.
fn check_version(version: &Version) -> std::result::Result<(), String> {
    if version.version < 1 {
        return Err(format!("version {} is not above 0", version.version));
    }
    let stages = ["None", "Staging", "Production", "Archived"];
    known_word(&version.stage, &stages, "stage")?;
    for place in [Some(&version.source), version.storage_location.as_ref()]
        .into_iter()
        .flatten()
    {
        let scheme = place.split(':').next().unwrap_or_default();
        let here = place.contains(':') && matches!(scheme, "runs" | "models" | "mlflow-artifacts");
        if !here && check_location(place).is_err()
            || place.contains("..")
            || place.contains('#')
            || place.to_ascii_lowercase().contains("%2e")
        {
            return Err(format!(
                "its files are at `{place}`, which is neither among what was imported nor a store that everybody reaches"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_artifacts_that_everybody_reaches_stay_where_they_are() {
        for uri in ["s3://bucket/1/x/artifacts", "GS://b", "dbfs://x", "abfss://c@a/x"] {
            assert!(stays_where_it_is(uri), "{uri}");
        }
        for uri in [
            "",
            "/srv/mlruns/1",
            "file:///etc",
            "mlflow-artifacts:/1",
            "http://x/y",
            "s3",
        ] {
            assert!(!stays_where_it_is(uri), "{uri}");
        }
        assert!(check_location("file:///etc/passwd").is_err());
    }

    #[test]
    fn an_id_cannot_lead_out_of_its_folder() {
        for id in ["", "..", "a/b", "a b", "é", "a%2fb"] {
            assert!(check_id(id).is_err(), "{id}");
        }
        for id in ["0123456789abcdef0123456789abcdef", "m-0a", "my_run-1"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
    }
}
