//! Weights & Biases' offline runs as a source: a folder each, with a log of records and the run's files.

mod log;
mod message;
mod run;

use std::path::{Path, PathBuf};

use anyhow::Result;
use async_trait::async_trait;
use serde_json::json;
use tidemill_control::tracking::import::{Experiment, Metric, RegisteredModelWithVersions};
use tokio::sync::mpsc::Sender;

use super::source::{Broken, Page, Place, Source, SourceModel, SourceRun, fingerprint};
use crate::exit::bad_input;

/// The project of a run that names none, as W&B calls it.
const NO_PROJECT: &str = "uncategorized";

/// The source.
pub struct Wandb {
    root: PathBuf,
    /// Folder, its log, and its project or why the log cannot be read.
    runs: Vec<(PathBuf, PathBuf, Result<String, String>)>,
}

impl Wandb {
    /// Finds the runs in a folder, or takes the folder as one.
    pub fn open(folder: &Path) -> Result<Self> {
        let Ok(root) = folder.canonicalize() else {
            bad_input!("there is no folder {}", folder.display());
        };
        let mut found = Vec::new();
        for parent in [root.clone(), root.join("wandb")] {
            let entries = std::fs::read_dir(&parent).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| entry.path()).filter(|path| {
                let is_link = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                // `latest-run` is a link to one of the others.
                !is_link && name.is_some_and(|n| n.starts_with("offline-run-") || n.starts_with("run-"))
            }));
        }
        found.push(root.clone());
        found.sort();
        let runs: Vec<_> = found
            .into_iter()
            .filter_map(|folder| Some((log_in(&folder)?, folder)))
            .map(|(log, folder)| {
                let project = run::project_of(&log).map_err(|error| format!("{error:#}"));
                (folder, log, project)
            })
            .collect();
        if runs.is_empty() {
            bad_input!(
                "{} has no W&B runs: expected folders `offline-run-*` with a `run-*.wandb` in them",
                root.display()
            );
        }
        Ok(Self { root, runs })
    }
}

fn log_in(folder: &Path) -> Option<PathBuf> {
    std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_file() && path.extension().is_some_and(|extension| extension == "wandb"))
}

#[async_trait]
impl Source for Wandb {
    fn name(&self) -> String {
        format!("wandb:{}", self.root.display())
    }

    async fn run_count(&self) -> Option<u64> {
        Some(self.runs.len() as u64)
    }

    async fn left_out(&self) -> Result<Vec<(String, u64, String)>> {
        let (mut artifacts, mut alerts) = (0, 0);
        tokio::task::block_in_place(|| {
            for (_, log, _) in self.runs.iter().filter(|run| run.2.is_ok()) {
                // What is wrong with it is told with the run.
                if let Ok(read) = run::read(log) {
                    artifacts += read.artifacts;
                    alerts += read.alerts;
                }
            }
        });
        let left = [
            (
                "W&B artifacts",
                artifacts,
                "their files lie in W&B's staging folder, not with the run; `wandb sync` to this server brings them",
            ),
            (
                "W&B alerts",
                alerts,
                "they have been sent, or are of no use any more",
            ),
        ];
        Ok(left
            .into_iter()
            .filter(|(_, count, _)| *count > 0)
            .map(|(what, count, why)| (what.to_owned(), count, why.to_owned()))
            .collect())
    }

    async fn experiments(&self) -> Result<Page<Experiment>> {
        let mut page = Page::last(Vec::new());
        let mut projects: Vec<&String> = self.runs.iter().filter_map(|run| run.2.as_ref().ok()).collect();
        projects.sort();
        projects.dedup();
        for project in projects {
            page.items.push(Experiment {
                id: project.clone(),
                name: project.clone(),
                lifecycle: "active".to_owned(),
                ..Experiment::default()
            });
        }
        for (folder, _, project) in &self.runs {
            if let Err(reason) = project {
                page.broken.push(Broken {
                    kind: "runs",
                    id: folder.display().to_string(),
                    reason: reason.clone(),
                });
            }
        }
        Ok(page)
    }

    async fn runs(&self, experiment: &str, _from: Option<String>) -> Result<Page<SourceRun>> {
        let mut page = Page::last(Vec::new());
        let of_project = |project: &Result<String, String>| project.as_deref() == Ok(experiment);
        for (folder, log, _) in self.runs.iter().filter(|run| of_project(&run.2)) {
            match tokio::task::block_in_place(|| run::read(log)) {
                Ok(read) => {
                    let size = std::fs::metadata(log).map_or(0, |meta| meta.len());
                    let files = folder.join("files");
                    page.items.push(SourceRun {
                        fingerprint: fingerprint(&json!([read.run, size])),
                        metric_keys: Vec::new(),
                        folder: Some(log.clone()),
                        files: if files.is_dir() {
                            Place::Folder(files)
                        } else {
                            Place::Nowhere
                        },
                        run: read.run,
                    });
                }
                Err(error) => page.broken.push(Broken {
                    kind: "runs",
                    id: folder.display().to_string(),
                    reason: format!("{error:#}"),
                }),
            }
        }
        Ok(page)
    }

    async fn history(&self, run: &SourceRun, pages: Sender<Vec<Metric>>) -> Result<()> {
        let Some(log) = run.folder.clone() else {
            return Ok(());
        };
        // On a thread of its own: it waits for the pages to be taken.
        tokio::task::spawn_blocking(move || run::send_history(&log, &pages)).await?
    }

    async fn logged_models(&self, _experiment: &str, _from: Option<String>) -> Result<Page<SourceModel>> {
        Ok(Page::last(Vec::new()))
    }

    async fn registered_models(&self) -> Result<Page<RegisteredModelWithVersions>> {
        Ok(Page::last(Vec::new()))
    }
}
