//! Runs: their life, apart from what is logged of them.

use tidemill_core::ids;
use tidemill_store::tracking::runs::{self, RunChange, RunHead, RunKey, RunStatus, TrackedRun};
use tidemill_store::tracking::{Lifecycle, experiments, tags};
use tidemill_store::{ReadTx, Tx};

use super::automations::{self, Event};
use super::experiments::{Outcome, no_experiment, not_active};
use super::validate::{self, MAX_KEY, MAX_TAG_VALUE};
use super::{Caller, Result, Tracking, TrackingError, locations, run_names};

/// The tag that always says the run's name.
pub(super) const RUN_NAME_TAG: &str = "mlflow.runName";

/// What a client says of a run that it starts.
#[derive(Clone, Debug, Default)]
pub struct CreateRun {
    /// The experiment; empty for the default one.
    pub experiment_id: String,
    /// Who starts it.
    pub user_id: String,
    /// Its name; one is made up where none is given.
    pub name: String,
    /// When it started, in milliseconds.
    pub start_ms: i64,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

pub(super) fn no_run(run_id: &str) -> TrackingError {
    TrackingError::not_found(format!("Run with id={run_id} not found"))
}

impl Tracking {
    /// Starts a run.
    pub async fn create_run(&self, caller: &Caller, mut request: CreateRun) -> Result<TrackedRun> {
        let experiment = validate::experiment_id(&request.experiment_id)?;
        let named = request.tags.iter().find(|(key, _)| key == RUN_NAME_TAG);
        let tagged = named.map(|(_, value)| value.clone()).unwrap_or_default();
        if !request.name.is_empty() && !tagged.is_empty() && request.name != tagged {
            return Err(TrackingError::invalid(format!(
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values \
                 (run_name='{}', mlflow.runName='{tagged}').",
                request.name
            )));
        }
        let run_id = ids::fresh(self.now());
        let name = [request.name, tagged].into_iter().find(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| run_names::of(&run_id));
        for (key, value) in &mut request.tags {
            validate::length("key", MAX_KEY, key)?;
            validate::cut("value", MAX_TAG_VALUE, value);
        }
        request.tags.retain(|(key, _)| key != RUN_NAME_TAG);
        request.tags.push((RUN_NAME_TAG.to_owned(), name.clone()));
        let user_id = if request.user_id.is_empty() {
            caller.user.clone()
        } else {
            request.user_id
        };
        let workspace = caller.workspace.clone();
        self.store()
            .write(move |tx| {
                let Some(experiment) = experiments::head(tx, &workspace, experiment)? else {
                    return Ok(Err(no_experiment(experiment)));
                };
                if let Some(refusal) = not_active(&experiment) {
                    return Ok(Err(refusal));
                }
                let artifact_uri =
                    locations::append(&experiment.artifact_location, &format!("{run_id}/artifacts"));
                let mut head = RunHead {
                    number: 0,
                    run_id,
                    experiment: experiment.id,
                    name,
                    user_id,
                    status: RunStatus::Running,
                    lifecycle: Lifecycle::Active,
                    start_ms: request.start_ms,
                    end_ms: None,
                    deleted_ms: None,
                    artifact_uri,
                };
                head.number = runs::insert(tx, &head)?;
                let pairs: Vec<(&str, &str)> = request
                    .tags
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str()))
                    .collect();
                tags::set(tx, head.number, &pairs)?;
                let mut run = TrackedRun::of(head);
                run.tags = request.tags;
                Ok(Ok(run))
            })
            .await?
    }

    /// A run with everything that was logged of it, deleted or not.
    pub async fn run(&self, caller: &Caller, run_id: &str) -> Result<TrackedRun> {
        let (workspace, run_id) = (caller.workspace.clone(), run_id.to_owned());
        self.store()
            .read(move |tx| {
                let found = match runs::find(tx, &workspace, &run_id)? {
                    Some(key) => runs::load(tx, &[key.number])?.pop(),
                    None => None,
                };
                Ok(found.ok_or_else(|| no_run(&run_id)))
            })
            .await?
    }

    /// Changes how far a run is, when it ended, or its name.
    pub async fn update_run(&self, caller: &Caller, run_id: &str, mut change: RunChange) -> Result<RunHead> {
        change.name = change.name.filter(|name| !name.is_empty());
        let (id, workspace) = (run_id.to_owned(), caller.workspace.clone());
        let ends = change.status.is_some_and(RunStatus::has_ended) && self.awaits(Event::RunFinished);
        let changed = self
            .change_active_run(caller, run_id, move |tx, run| {
                if ends
                    && let Some(status) = change.status
                    && let Some(before) = runs::heads(tx, &[run.number])?.pop()
                    && !before.status.has_ended()
                {
                    let end_ms = change.end_ms.or(before.end_ms);
                    automations::fire_finished(tx, &workspace, (run, &id), status.as_str(), end_ms)?;
                }
                runs::update(tx, run.number, &change)?;
                if let Some(name) = &change.name {
                    tags::set(tx, run.number, &[(RUN_NAME_TAG, name)])?;
                }
                let head = runs::heads(tx, &[run.number])?.pop();
                Ok(head.ok_or_else(|| no_run(&id)))
            })
            .await?;
        if ends {
            self.webhooks_written();
        }
        Ok(changed)
    }

    /// Deletes a run; it can be restored.
    pub async fn delete_run(&self, caller: &Caller, run_id: &str) -> Result<()> {
        let now_ms = self.now_ms();
        self.change_run(caller, run_id, move |tx, run| {
            runs::set_lifecycle(tx, run.number, Lifecycle::Deleted, now_ms).map(Ok)
        })
        .await
    }

    /// Restores a deleted run.
    pub async fn restore_run(&self, caller: &Caller, run_id: &str) -> Result<()> {
        let now_ms = self.now_ms();
        self.change_run(caller, run_id, move |tx, run| {
            runs::set_lifecycle(tx, run.number, Lifecycle::Active, now_ms).map(Ok)
        })
        .await
    }

    /// One transaction on a run. What `change` refuses it must refuse before it writes.
    pub(super) async fn change_run<T: Send + 'static>(
        &self,
        caller: &Caller,
        run_id: &str,
        change: impl FnOnce(&mut Tx<'_>, RunKey) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let (workspace, run_id) = (caller.workspace.clone(), run_id.to_owned());
        self.store()
            .write(move |tx| match runs::find(tx, &workspace, &run_id)? {
                Some(run) => change(tx, run),
                None => Ok(Err(no_run(&run_id))),
            })
            .await?
    }

    /// [`Tracking::change_run`], which a deleted run refuses.
    pub(super) async fn change_active_run<T: Send + 'static>(
        &self,
        caller: &Caller,
        run_id: &str,
        change: impl FnOnce(&mut Tx<'_>, RunKey) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let id = run_id.to_owned();
        self.change_run(caller, run_id, move |tx, run| {
            if run.lifecycle != Lifecycle::Active {
                return Ok(Err(TrackingError::invalid(format!(
                    "The run {id} must be in the 'active' state. Current state is {}.",
                    run.lifecycle
                ))));
            }
            change(tx, run)
        })
        .await
    }

    /// One view on a run.
    pub(super) async fn read_run<T: Send + 'static>(
        &self,
        caller: &Caller,
        run_id: &str,
        query: impl FnOnce(&ReadTx<'_>, RunKey) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let (workspace, run_id) = (caller.workspace.clone(), run_id.to_owned());
        self.store()
            .read(move |tx| match runs::find(tx, &workspace, &run_id)? {
                Some(run) => query(tx, run),
                None => Ok(Err(no_run(&run_id))),
            })
            .await?
    }
}
