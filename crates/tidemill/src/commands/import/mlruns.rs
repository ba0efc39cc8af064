//! MLflow's folder `mlruns` as a source: `meta.yaml` files, and a file for each metric, parameter and tag.

mod experiments;
mod files;
mod registry;
mod runs;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use tidemill_control::tracking::import::{Experiment, Metric, RegisteredModelWithVersions};
use tokio::sync::mpsc::Sender;

use super::source::{Page, Place, Source, SourceModel, SourceRun, local_path, place_of};
use crate::exit::bad_input;

/// Runs in a page.
const RUNS_PAGE: usize = 200;
/// Where deleted experiments lie.
const TRASH: &str = ".trash";
/// Where registered models lie.
const MODELS: &str = "models";

/// The source.
pub struct Mlruns {
    root: PathBuf,
    /// The folder that a server's proxy keeps artifacts in, if artifacts are behind one.
    proxied: Option<PathBuf>,
}

impl Mlruns {
    /// Looks whether there is such a folder.
    pub fn open(root: &Path, proxied: Option<&Path>) -> Result<Self> {
        let root = root
            .canonicalize()
            .with_context(|| format!("there is no folder {}", root.display()));
        let Ok(root) = root else {
            bad_input!("{:#}", root.err().unwrap_or_else(|| anyhow::anyhow!("no folder")));
        };
        let this = Self {
            root,
            proxied: proxied.map(Path::to_owned),
        };
        if this.experiment_folders().is_empty() && !this.root.join(MODELS).is_dir() {
            bad_input!(
                "{} holds no experiments: expected folders with a `meta.yaml`, as in MLflow's `mlruns`",
                this.root.display()
            );
        }
        Ok(this)
    }

    /// The folders of experiments, deleted ones too, in the order of their names.
    fn experiment_folders(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for parent in [self.root.clone(), self.root.join(TRASH)] {
            found.extend(files::folders(&parent).into_iter().filter(|folder| {
                let name = files::name(folder);
                name != TRASH && name != MODELS && !name.starts_with('.')
            }));
        }
        found.sort_by_key(|folder| files::name(folder));
        found
    }

    fn experiment_folder(&self, id: &str) -> PathBuf {
        let folder = self.root.join(id);
        if folder.is_dir() {
            folder
        } else {
            self.root.join(TRASH).join(id)
        }
    }

    /// Where the artifacts of the run or model in `folder` are. Each has a folder for them, which is empty if they go elsewhere.
    fn place(&self, uri: &str, folder: &Path) -> Place {
        let named = place_of(uri, false, self.proxied.as_deref());
        if matches!(named, Place::Folder(_) | Place::Remote(_)) {
            return named;
        }
        let own = folder.join("artifacts");
        let used = std::fs::read_dir(&own).is_ok_and(|mut entries| entries.next().is_some());
        // The folder may have been moved since its URIs were written.
        let tail: PathBuf = own
            .iter()
            .rev()
            .take(3)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let meant = local_path(uri).is_some_and(|path| path.ends_with(tail));
        if used || meant { Place::Folder(own) } else { named }
    }

    /// The run folders of an experiment.
    fn run_folders(&self, id: &str) -> Vec<PathBuf> {
        let others = ["tags", "datasets", MODELS, "traces"];
        files::folders(&self.experiment_folder(id))
            .into_iter()
            .filter(|folder| !others.contains(&files::name(folder).as_str()))
            .collect()
    }
}

#[async_trait]
impl Source for Mlruns {
    fn name(&self) -> String {
        format!("file://{}", self.root.display())
    }

    async fn run_count(&self) -> Option<u64> {
        tokio::task::block_in_place(|| {
            let folders = self.experiment_folders();
            let runs = folders
                .iter()
                .map(|f| self.run_folders(&files::name(f)).len() as u64);
            Some(runs.sum())
        })
    }

    async fn left_out(&self) -> Result<Vec<(String, u64, String)>> {
        let traces: usize = self
            .experiment_folders()
            .iter()
            .map(|folder| files::folders(&folder.join("traces")).len())
            .sum();
        Ok(if traces > 0 {
            vec![(
                "traces".to_owned(),
                traces as u64,
                "traces are not kept here".to_owned(),
            )]
        } else {
            Vec::new()
        })
    }

    async fn experiments(&self) -> Result<Page<Experiment>> {
        tokio::task::block_in_place(|| Ok(self.read_experiments()))
    }

    async fn runs(&self, experiment: &str, from: Option<String>) -> Result<Page<SourceRun>> {
        tokio::task::block_in_place(|| Ok(self.read_runs(experiment, from.as_deref())))
    }

    async fn history(&self, run: &SourceRun, pages: Sender<Vec<Metric>>) -> Result<()> {
        let Some(folder) = run.folder.clone() else {
            return Ok(());
        };
        // On a thread of its own: it waits for the pages to be taken.
        tokio::task::spawn_blocking(move || runs::send_history(&folder, &pages)).await?
    }

    async fn logged_models(&self, experiment: &str, _from: Option<String>) -> Result<Page<SourceModel>> {
        tokio::task::block_in_place(|| Ok(self.read_logged_models(experiment)))
    }

    async fn registered_models(&self) -> Result<Page<RegisteredModelWithVersions>> {
        tokio::task::block_in_place(|| Ok(self.read_registered_models()))
    }
}
