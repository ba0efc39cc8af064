//! Experiments.

use tidemill_store::tracking::Lifecycle;
use tidemill_store::tracking::experiments::{self, Experiment, NewExperiment};
use tidemill_store::{ReadTx, StoreError, Tx};

use crate::users::{EXPERIMENT, give_to_creator};

use super::validate::{self, MAX_EXPERIMENT_TAG_VALUE, MAX_KEY};
use super::{Caller, DEFAULT_WORKSPACE, Result, Tracking, TrackingError, locations};

/// What a client says of an experiment that it creates.
#[derive(Clone, Debug, Default)]
pub struct CreateExperiment {
    /// Its name.
    pub name: String,
    /// Where its artifacts go; the server's default where nothing is said.
    pub artifact_location: Option<String>,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

pub(super) fn no_experiment(id: i64) -> TrackingError {
    TrackingError::not_found(format!("No Experiment with id={id} exists"))
}

pub(super) fn not_active(experiment: &Experiment) -> Option<TrackingError> {
    (experiment.lifecycle != Lifecycle::Active).then(|| {
        TrackingError::invalid(format!(
            "The experiment {} must be in the 'active' state. Current state is {}.",
            experiment.id, experiment.lifecycle
        ))
    })
}

/// What a closure given to the store gives: the store's own failures outside, refusals inside.
pub(super) type Outcome<T> = std::result::Result<Result<T>, StoreError>;

fn whole(tx: &ReadTx<'_>, id: i64) -> Outcome<Experiment> {
    let found = experiments::load(tx, &[id])?.pop();
    Ok(found.ok_or_else(|| no_experiment(id)))
}

impl Tracking {
    /// Makes sure of the experiment that is always there. A store that cannot be written to stays as it is.
    pub(super) fn ensure_default_experiment(&self) {
        let location = locations::append(&self.options().default_artifact_root, "0");
        let now_ms = self.now_ms();
        let ensured = self
            .store()
            .write_blocking(move |tx| experiments::ensure_default(tx, DEFAULT_WORKSPACE, &location, now_ms));
        match ensured {
            Ok(_) | Err(StoreError::ReadOnly) => {}
            Err(error) => tracing::warn!(%error, "could not create the default experiment"),
        }
    }

    /// Creates an experiment.
    pub async fn create_experiment(&self, caller: &Caller, request: CreateExperiment) -> Result<i64> {
        validate::experiment_name(&request.name)?;
        let location = match request.artifact_location.filter(|text| !text.is_empty()) {
            Some(location) => Some(locations::checked(&location)?),
            None => None,
        };
        for (key, value) in &request.tags {
            validate::length("key", MAX_KEY, key)?;
            validate::length("value", MAX_EXPERIMENT_TAG_VALUE, value)?;
        }
        let root = self.options().default_artifact_root.clone();
        let (workspace, created_ms) = (caller.workspace.clone(), self.now_ms());
        let creator = self.creator(caller).map(str::to_owned);
        let created = self
            .store()
            .write(move |tx| {
                let new = NewExperiment {
                    workspace: &workspace,
                    name: &request.name,
                    created_ms,
                };
                let place = |id: i64| location.unwrap_or_else(|| locations::append(&root, &id.to_string()));
                let Some(id) = experiments::insert(tx, &new, place)? else {
                    return Ok(Err(name_taken(&request.name)));
                };
                for (key, value) in &request.tags {
                    experiments::set_tag(tx, id, key, value)?;
                }
                give_to_creator(tx, creator.as_deref(), &workspace, EXPERIMENT, &id.to_string())?;
                Ok(Ok(id))
            })
            .await?;
        self.users().changed();
        created
    }

    /// An experiment, deleted or not.
    pub async fn experiment(&self, caller: &Caller, id: &str) -> Result<Experiment> {
        let id = validate::experiment_id(id)?;
        let workspace = caller.workspace.clone();
        self.store()
            .read(move |tx| match experiments::head(tx, &workspace, id)? {
                Some(_) => whole(tx, id),
                None => Ok(Err(no_experiment(id))),
            })
            .await?
    }

    /// An experiment by its name, deleted or not.
    pub async fn experiment_by_name(&self, caller: &Caller, name: &str) -> Result<Experiment> {
        let (workspace, name) = (caller.workspace.clone(), name.to_owned());
        self.store()
            .read(move |tx| match experiments::id_by_name(tx, &workspace, &name)? {
                Some(id) => whole(tx, id),
                None => Ok(Err(TrackingError::not_found(format!(
                    "Could not find experiment with name '{name}'"
                )))),
            })
            .await?
    }

    /// Deletes an experiment and its runs; both can be restored.
    pub async fn delete_experiment(&self, caller: &Caller, id: &str) -> Result<()> {
        self.move_experiment(caller, id, Lifecycle::Active, Lifecycle::Deleted)
            .await
    }

    /// Restores a deleted experiment and its runs.
    pub async fn restore_experiment(&self, caller: &Caller, id: &str) -> Result<()> {
        self.move_experiment(caller, id, Lifecycle::Deleted, Lifecycle::Active)
            .await
    }

    async fn move_experiment(&self, caller: &Caller, id: &str, from: Lifecycle, to: Lifecycle) -> Result<()> {
        let now_ms = self.now_ms();
        self.change_experiment(caller, id, move |tx, experiment| {
            if experiment.lifecycle != from {
                return Ok(Err(no_experiment(experiment.id)));
            }
            experiments::set_lifecycle(tx, experiment.id, to, now_ms).map(Ok)
        })
        .await
    }

    /// Gives an experiment another name.
    pub async fn rename_experiment(&self, caller: &Caller, id: &str, name: &str) -> Result<()> {
        validate::experiment_name(name)?;
        let (name, now_ms) = (name.to_owned(), self.now_ms());
        self.change_experiment(caller, id, move |tx, experiment| {
            if experiment.lifecycle != Lifecycle::Active {
                return Ok(Err(TrackingError::InvalidState(
                    "Cannot rename a non-active experiment.".to_owned(),
                )));
            }
            match experiments::id_by_name(tx, &experiment.workspace, &name)? {
                Some(id) if id != experiment.id => Ok(Err(name_taken(&name))),
                _ => experiments::rename(tx, experiment.id, &name, now_ms).map(Ok),
            }
        })
        .await
    }

    /// Sets a tag of an experiment.
    pub async fn set_experiment_tag(&self, caller: &Caller, id: &str, key: &str, value: &str) -> Result<()> {
        validate::key(key, "key")?;
        validate::length("key", MAX_KEY, key)?;
        validate::length("value", MAX_EXPERIMENT_TAG_VALUE, value)?;
        let (key, value) = (key.to_owned(), value.to_owned());
        self.change_experiment(caller, id, move |tx, experiment| {
            if let Some(refusal) = not_active(experiment) {
                return Ok(Err(refusal));
            }
            experiments::set_tag(tx, experiment.id, &key, &value).map(Ok)
        })
        .await
    }

    /// Deletes a tag of an experiment.
    pub async fn delete_experiment_tag(&self, caller: &Caller, id: &str, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.change_experiment(caller, id, move |tx, experiment| {
            if let Some(refusal) = not_active(experiment) {
                return Ok(Err(refusal));
            }
            if experiments::delete_tag(tx, experiment.id, &key)? {
                return Ok(Ok(()));
            }
            Ok(Err(TrackingError::not_found(format!(
                "No tag with name: {key} in experiment with id {}",
                experiment.id
            ))))
        })
        .await
    }

    async fn change_experiment<T: Send + 'static>(
        &self,
        caller: &Caller,
        id: &str,
        change: impl FnOnce(&mut Tx<'_>, &Experiment) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let id = validate::experiment_id(id)?;
        let workspace = caller.workspace.clone();
        self.store()
            .write(move |tx| match experiments::head(tx, &workspace, id)? {
                Some(experiment) => change(tx, &experiment),
                None => Ok(Err(no_experiment(id))),
            })
            .await?
    }
}

fn name_taken(name: &str) -> TrackingError {
    TrackingError::AlreadyExists(format!(
        "Experiment(name={name}) already exists. A deleted experiment keeps its name until it is purged."
    ))
}
