//! Experiments and logged models of a folder.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tidemill_control::tracking::import::{Experiment, LoggedModel, ModelMetric};

use super::files::{self, Integer};
use super::runs::parse_value;
use super::{Mlruns, TRASH};
use crate::commands::import::source::{Broken, Page, SourceModel, metric};

#[derive(Deserialize)]
struct ExperimentMeta {
    name: String,
    #[serde(default)]
    lifecycle_stage: Option<String>,
    #[serde(default)]
    creation_time: Integer,
    #[serde(default)]
    last_update_time: Integer,
}

#[derive(Deserialize)]
struct ModelMeta {
    model_id: String,
    name: String,
    #[serde(default)]
    artifact_location: Option<String>,
    #[serde(default)]
    creation_timestamp: Integer,
    #[serde(default)]
    last_updated_timestamp: Integer,
    #[serde(default)]
    model_type: Option<String>,
    #[serde(default)]
    source_run_id: Option<String>,
    #[serde(default)]
    status: Integer,
    #[serde(default)]
    status_message: Option<String>,
    #[serde(default)]
    lifecycle_stage: Option<String>,
}

impl Mlruns {
    pub(super) fn read_experiments(&self) -> Page<Experiment> {
        let mut page = Page::last(Vec::new());
        for folder in self.experiment_folders() {
            let trashed = folder.parent().is_some_and(|parent| files::name(parent) == TRASH);
            match read_experiment(&folder, trashed) {
                Ok(experiment) => page.items.push(experiment),
                Err(error) => page.broken.push(Broken {
                    kind: "experiments",
                    id: files::name(&folder),
                    reason: format!("{error:#}"),
                }),
            }
        }
        page
    }

    pub(super) fn read_logged_models(&self, experiment: &str) -> Page<SourceModel> {
        let mut page = Page::last(Vec::new());
        for folder in files::folders(&self.experiment_folder(experiment).join("models")) {
            match self.read_logged_model(&folder) {
                Ok(model) => page.items.push(model),
                Err(error) => page.broken.push(Broken {
                    kind: "logged models",
                    id: files::name(&folder),
                    reason: format!("{error:#}"),
                }),
            }
        }
        page
    }

    fn read_logged_model(&self, folder: &Path) -> Result<SourceModel> {
        let meta: ModelMeta = files::meta(folder)?;
        let artifact_location = meta.artifact_location.unwrap_or_default();
        let mut metrics = Vec::new();
        for (key, path) in files::keyed_files(&folder.join("metrics"))? {
            for (number, line) in files::text(&path)?.lines().enumerate() {
                let point =
                    model_metric(&key, line).with_context(|| format!("{}:{}", path.display(), number + 1))?;
                metrics.push(point);
            }
        }
        Ok(SourceModel {
            files: self.place(&artifact_location, folder),
            model: LoggedModel {
                model_id: meta.model_id,
                experiment: 0,
                name: meta.name,
                model_type: meta.model_type.unwrap_or_default(),
                source_run_id: meta.source_run_id.unwrap_or_default(),
                artifact_location,
                status: match meta.status.0 {
                    Some(1) => "PENDING",
                    Some(2) => "READY",
                    Some(3) => "FAILED",
                    _ => "UNSPECIFIED",
                }
                .to_owned(),
                status_message: meta.status_message,
                lifecycle: meta.lifecycle_stage.unwrap_or_else(|| "active".to_owned()),
                created_ms: meta.creation_timestamp.0.unwrap_or(0),
                updated_ms: meta.last_updated_timestamp.0.unwrap_or(0),
                params: files::pairs(&folder.join("params"))?,
                tags: files::pairs(&folder.join("tags"))?,
                metrics,
            },
        })
    }
}

fn read_experiment(folder: &Path, trashed: bool) -> Result<Experiment> {
    let meta: ExperimentMeta = files::meta(folder)?;
    let lifecycle = match (trashed, meta.lifecycle_stage) {
        (true, _) => "deleted".to_owned(),
        (false, stage) => stage.unwrap_or_else(|| "active".to_owned()),
    };
    Ok(Experiment {
        // The folder's name: MLflow finds the experiment by it.
        id: files::name(folder),
        name: meta.name,
        lifecycle,
        created_ms: meta.creation_time.0.unwrap_or(0),
        updated_ms: meta.last_update_time.0.unwrap_or(0),
        tags: files::pairs(&folder.join("tags"))?,
    })
}

/// `timestamp value step run_id [dataset_name dataset_digest]`
fn model_metric(key: &str, line: &str) -> Result<ModelMetric> {
    let parts: Vec<&str> = line.trim().split(' ').collect();
    let (head, dataset) = match parts.as_slice() {
        [at, value, step, run] => ([*at, *value, *step, *run], ("", "")),
        [at, value, step, run, name, digest] => ([*at, *value, *step, *run], (*name, *digest)),
        _ => bail!("`{line}` has {} fields, expected 4 or 6", parts.len()),
    };
    let [at, value, step, run_id] = head;
    let at: i64 = at
        .parse()
        .with_context(|| format!("the timestamp `{at}` is no whole number"))?;
    let step: i64 = step
        .parse()
        .with_context(|| format!("the step `{step}` is no whole number"))?;
    Ok(ModelMetric {
        metric: metric(key, parse_value(value)?, at, step),
        run_id: run_id.to_owned(),
        dataset_name: dataset.0.to_owned(),
        dataset_digest: dataset.1.to_owned(),
    })
}
