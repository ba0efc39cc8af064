//! The database of an MLflow server as a source.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use serde_json::json;
use tidemill_control::tracking::import::{Experiment, Metric, RegisteredModelWithVersions};
use tidemill_store::foreign::{ForeignRun, Mlflow};
use tokio::sync::mpsc::Sender;

use super::source::{METRICS_PAGE, Page, Source, SourceModel, SourceRun, fingerprint, place_of};

const RUNS_PAGE: u32 = 200;
const MODELS_PAGE: u32 = 50;

/// The source.
pub struct MlflowSql {
    database: Arc<Mlflow>,
    /// The folder that the server's proxy keeps artifacts in, if artifacts are behind one.
    proxied: Option<PathBuf>,
}

impl MlflowSql {
    /// Opens the database and looks whether it can be read.
    pub async fn open(uri: &str, proxied: Option<&Path>) -> Result<Self> {
        let uri = uri.to_owned();
        let database = tokio::task::spawn_blocking(move || Mlflow::open(&uri)).await??;
        Ok(Self {
            database: Arc::new(database),
            proxied: proxied.map(Path::to_owned),
        })
    }

    /// The database's driver must not be called by a task.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mlflow) -> Result<T, tidemill_store::StoreError> + Send + 'static,
    ) -> Result<T> {
        let database = Arc::clone(&self.database);
        Ok(tokio::task::spawn_blocking(move || work(&database)).await??)
    }

    fn run(&self, found: ForeignRun) -> SourceRun {
        SourceRun {
            fingerprint: fingerprint(&json!([found.run, found.latest])),
            metric_keys: found.latest.iter().map(|metric| metric.key.clone()).collect(),
            folder: None,
            files: place_of(&found.run.artifact_uri, false, self.proxied.as_deref()),
            run: found.run,
        }
    }
}

#[async_trait]
impl Source for MlflowSql {
    fn name(&self) -> String {
        self.database.name().to_owned()
    }

    fn remark(&self) -> Option<String> {
        match self.database.revision() {
            (_, true) => None,
            (revision, false) => Some(format!(
                "schema {revision} has not been tried (those of MLflow 3.10 and 3.17 have); every column that is needed is there"
            )),
        }
    }

    async fn run_count(&self) -> Option<u64> {
        self.call(Mlflow::run_count).await.ok()
    }

    async fn left_out(&self) -> Result<Vec<(String, u64, String)>> {
        let left = self.call(Mlflow::left_out).await?;
        let reason = |what: &str| match what {
            "traces" => "traces are not kept here",
            _ => "only the default workspace is read",
        };
        Ok(left
            .into_iter()
            .map(|(what, count)| (what.to_owned(), count, reason(what).to_owned()))
            .collect())
    }

    async fn experiments(&self) -> Result<Page<Experiment>> {
        let found = self.call(Mlflow::experiments).await?;
        Ok(Page::last(
            found.into_iter().map(|each| each.experiment).collect(),
        ))
    }

    async fn runs(&self, experiment: &str, from: Option<String>) -> Result<Page<SourceRun>> {
        let id: i64 = experiment.parse()?;
        let after = from.unwrap_or_default();
        let found = self.call(move |db| db.runs(id, &after, RUNS_PAGE)).await?;
        let full = found.len() == RUNS_PAGE as usize;
        let next = found.last().filter(|_| full).map(|last| last.run.run_id.clone());
        let mut page = Page::last(found.into_iter().map(|run| self.run(run)).collect());
        page.next = next;
        Ok(page)
    }

    async fn history(&self, run: &SourceRun, pages: Sender<Vec<Metric>>) -> Result<()> {
        let run_id = run.run.run_id.clone();
        self.call(move |db| db.history(&run_id, METRICS_PAGE, |page| pages.blocking_send(page).is_ok()))
            .await
    }

    async fn logged_models(&self, experiment: &str, from: Option<String>) -> Result<Page<SourceModel>> {
        let id: i64 = experiment.parse()?;
        let after = from.unwrap_or_default();
        let found = self
            .call(move |db| db.logged_models(id, &after, MODELS_PAGE))
            .await?;
        let full = found.len() == MODELS_PAGE as usize;
        let next = found.last().filter(|_| full).map(|last| last.model_id.clone());
        let items = found.into_iter().map(|model| SourceModel {
            files: place_of(&model.artifact_location, false, self.proxied.as_deref()),
            model,
        });
        let mut page = Page::last(items.collect());
        page.next = next;
        Ok(page)
    }

    async fn registered_models(&self) -> Result<Page<RegisteredModelWithVersions>> {
        let found = self.call(Mlflow::registered_models).await?;
        let items = found.into_iter().map(|each| RegisteredModelWithVersions {
            model: each.model,
            versions: each.versions,
            aliases: each.aliases,
        });
        Ok(Page::last(items.collect()))
    }
}
