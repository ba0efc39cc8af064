//! Runs of a folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::json;
use tidemill_control::tracking::import::{Metric, Run, RunDataset, RunModel};
use tokio::sync::mpsc::Sender;

use super::files::{self, Integer};
use super::{Mlruns, RUNS_PAGE};
use crate::commands::import::source::{Broken, METRICS_PAGE, Page, SourceRun, fingerprint, metric};

#[derive(Deserialize)]
struct RunMeta {
    #[serde(default)]
    run_name: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    user_id: Option<String>,
    /// A number; its name in very old ones.
    status: String,
    start_time: Integer,
    #[serde(default)]
    end_time: Integer,
    #[serde(default)]
    deleted_time: Integer,
    #[serde(default)]
    lifecycle_stage: Option<String>,
    #[serde(default)]
    artifact_uri: Option<String>,
}

#[derive(Deserialize)]
struct InputMeta {
    source_type: String,
    source_id: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    step: Integer,
}

#[derive(Deserialize)]
struct DatasetMeta {
    name: String,
    digest: String,
    #[serde(default)]
    source_type: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    profile: Option<String>,
}

impl Mlruns {
    pub(super) fn read_runs(&self, experiment: &str, from: Option<&str>) -> Page<SourceRun> {
        let after = from.unwrap_or_default();
        let mut folders = self.run_folders(experiment);
        folders.retain(|folder| files::name(folder).as_str() > after);
        let more = folders.len() > RUNS_PAGE;
        folders.truncate(RUNS_PAGE);
        let mut page = Page::last(Vec::new());
        if more {
            page.next = folders.last().map(|folder| files::name(folder));
        }
        for folder in folders {
            match self.read_run(experiment, &folder) {
                Ok(run) => page.items.push(run),
                Err(error) => page.broken.push(Broken {
                    kind: "runs",
                    id: files::name(&folder),
                    reason: format!("{error:#}"),
                }),
            }
        }
        page
    }

    fn read_run(&self, experiment: &str, folder: &Path) -> Result<SourceRun> {
        let meta: RunMeta = files::meta(folder)?;
        let tags = files::pairs(&folder.join("tags"))?;
        let artifact_uri = meta.artifact_uri.unwrap_or_default();
        let named = tags.iter().find(|(key, _)| key == "mlflow.runName");
        let name = meta
            .run_name
            .or(meta.name)
            .filter(|name| !name.is_empty())
            .or_else(|| named.map(|(_, value)| value.clone()));
        let mut run = Run {
            // The folder's name: MLflow finds the run by it.
            run_id: files::name(folder),
            name: name.unwrap_or_default(),
            user_id: meta.user_id.unwrap_or_default(),
            status: status(&meta.status)
                .with_context(|| format!("{}", folder.join("meta.yaml").display()))?
                .to_owned(),
            lifecycle: meta.lifecycle_stage.unwrap_or_else(|| "active".to_owned()),
            start_ms: meta.start_time.0.unwrap_or(0),
            end_ms: meta.end_time.0.filter(|at| *at > 0),
            deleted_ms: meta.deleted_time.0,
            params: files::pairs(&folder.join("params"))?,
            tags,
            artifact_uri,
            ..Run::default()
        };
        self.read_inputs(experiment, folder, &mut run)?;
        let place = self.place(&run.artifact_uri, folder);
        let metrics: Vec<(String, u64)> = files::keyed_files(&folder.join("metrics"))?
            .into_iter()
            .map(|(key, path)| (key, std::fs::metadata(path).map_or(0, |meta| meta.len())))
            .collect();
        Ok(SourceRun {
            fingerprint: fingerprint(&json!([run, metrics])),
            metric_keys: metrics.into_iter().map(|(key, _)| key).collect(),
            folder: Some(folder.to_owned()),
            files: place,
            run,
        })
    }

    fn read_inputs(&self, experiment: &str, folder: &Path, run: &mut Run) -> Result<()> {
        for input in files::folders(&folder.join("inputs")) {
            let meta: InputMeta = files::meta(&input)?;
            if meta.source_type != "DATASET" {
                run.model_inputs.push(meta.source_id);
                continue;
            }
            let place = self
                .experiment_folder(experiment)
                .join("datasets")
                .join(&meta.source_id);
            let dataset: DatasetMeta = files::meta(&place)?;
            run.datasets.push(RunDataset {
                name: dataset.name,
                digest: dataset.digest,
                source_type: dataset.source_type.unwrap_or_default(),
                source: dataset.source.unwrap_or_default(),
                schema: dataset.schema,
                profile: dataset.profile,
                tags: meta.tags.into_iter().collect(),
            });
        }
        for output in files::folders(&folder.join("outputs")) {
            let meta: InputMeta = files::meta(&output)?;
            run.model_outputs.push(RunModel {
                // In the folder's name too.
                model_id: files::name(&output),
                step: meta.step.0.unwrap_or(0),
            });
        }
        Ok(())
    }
}

fn status(text: &str) -> Result<&'static str> {
    Ok(match text {
        "1" | "RUNNING" => "RUNNING",
        "2" | "SCHEDULED" => "SCHEDULED",
        "3" | "FINISHED" => "FINISHED",
        "4" | "FAILED" => "FAILED",
        "5" | "KILLED" => "KILLED",
        _ => bail!("status `{text}` is not one of 1 to 5"),
    })
}

/// Sends every point. All lines are looked at before the first is sent, so that of a broken run nothing comes.
pub(super) fn send_history(folder: &Path, pages: &Sender<Vec<Metric>>) -> Result<()> {
    let metrics = files::keyed_files(&folder.join("metrics"))?;
    for (key, path) in &metrics {
        each_point(key, path, |_| true)?;
    }
    let mut held = Vec::new();
    for (key, path) in &metrics {
        let mut wanted = true;
        each_point(key, path, |point| {
            held.push(point);
            if held.len() >= METRICS_PAGE {
                wanted = pages.blocking_send(std::mem::take(&mut held)).is_ok();
            }
            wanted
        })?;
        if !wanted {
            return Ok(());
        }
    }
    if !held.is_empty() {
        // Nobody listens only where the run was refused.
        let _ = pages.blocking_send(held);
    }
    Ok(())
}

fn each_point(key: &str, path: &Path, mut take: impl FnMut(Metric) -> bool) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("{}:{}", path.display(), number + 1))?;
        if line.trim().is_empty() {
            continue;
        }
        let point = point(key, &line).with_context(|| format!("{}:{}", path.display(), number + 1))?;
        if !take(point) {
            return Ok(());
        }
    }
    Ok(())
}

/// `timestamp value [step [dataset_name dataset_digest]]`
fn point(key: &str, line: &str) -> Result<Metric> {
    let parts: Vec<&str> = line.trim().split(' ').collect();
    let (at, value, step) = match parts.as_slice() {
        [at, value] => (*at, *value, "0"),
        [at, value, step] | [at, value, step, _, _] => (*at, *value, *step),
        _ => bail!("`{line}` has {} fields, expected 2, 3 or 5", parts.len()),
    };
    let at: i64 = at
        .parse()
        .map_err(|_| anyhow!("the timestamp `{at}` is no whole number"))?;
    let step: i64 = step
        .parse()
        .map_err(|_| anyhow!("the step `{step}` is no whole number"))?;
    Ok(metric(key, parse_value(value)?, at, step))
}

/// A number as Python writes it.
pub(super) fn parse_value(text: &str) -> Result<f64> {
    text.parse()
        .map_err(|_| anyhow!("the value `{text}` is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_metric_has_two_three_or_five_fields() {
        assert_eq!(point("m", "12 0.5").unwrap(), metric("m", 0.5, 12, 0));
        assert_eq!(point("m", "12 0.5 -3").unwrap(), metric("m", 0.5, 12, -3));
        assert_eq!(
            point("m", "12 1e-3 7 wine acc77b49").unwrap(),
            metric("m", 0.001, 12, 7)
        );
        assert!(point("m", "12 nan 0").unwrap().is_nan);
        assert_eq!(point("m", "12 -inf 0").unwrap().value, f64::MIN);
        let error = point("m", "12 half 0").unwrap_err().to_string();
        assert_eq!(error, "the value `half` is no number");
        assert!(point("m", "12").is_err());
    }
}
