//! Where on our pages something of W&B is: what its client prints as an address leads there.

use tidemill_store::sweeps;
use tidemill_store::tracking::{experiments, runs as tracked};
use tidemill_store::wandb::runs::{self, WandbName};

use crate::tracking::{Caller, Result, Tracking};

/// A place on our pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WandbPlace {
    /// The experiment that it is in.
    pub experiment: i64,
    /// The tracked run, if it is one.
    pub run_id: Option<String>,
    /// The sweep, if it is one.
    pub sweep: Option<String>,
}

impl Tracking {
    /// The place of a project.
    pub async fn wandb_project_place(&self, at: WandbName) -> Result<Option<WandbPlace>> {
        let place = self
            .store()
            .read(move |tx| {
                if !runs::has_project(tx, &at.workspace, &at.entity, &at.project)? {
                    return Ok(None);
                }
                let experiment = experiments::id_by_name(tx, &at.workspace, &at.project)?;
                Ok(experiment.map(|experiment| WandbPlace {
                    experiment,
                    run_id: None,
                    sweep: None,
                }))
            })
            .await?;
        Ok(place)
    }

    /// The place of a run.
    pub async fn wandb_run_place(&self, at: WandbName) -> Result<Option<WandbPlace>> {
        let place = self
            .store()
            .read(move |tx| {
                let Some(run) = runs::find(tx, &at)? else {
                    return Ok(None);
                };
                let key = tracked::find(tx, &at.workspace, &run.run_id)?;
                Ok(key.map(|key| WandbPlace {
                    experiment: key.experiment,
                    run_id: Some(run.run_id),
                    sweep: None,
                }))
            })
            .await?;
        Ok(place)
    }

    /// The place of a sweep, once it has a run: the runs that it started.
    pub async fn wandb_sweep_place(&self, at: WandbName) -> Result<Option<WandbPlace>> {
        let place = self
            .store()
            .read(move |tx| {
                let Some(sweep) = sweeps::get(tx, &at.workspace, &at.name)? else {
                    return Ok(None);
                };
                let experiment = experiments::id_by_name(tx, &at.workspace, &sweep.project)?;
                Ok(experiment.map(|experiment| WandbPlace {
                    experiment,
                    run_id: None,
                    sweep: Some(sweep.sweep_id),
                }))
            })
            .await?;
        Ok(place)
    }

    /// The place of an artifact: the run that wrote it.
    pub async fn wandb_artifact_place(
        &self,
        caller: &Caller,
        at: WandbName,
        full: &str,
    ) -> Result<Option<WandbPlace>> {
        let Some(view) = self.wandb_find_artifact(at, full).await? else {
            return Ok(None);
        };
        let Some(run_id) = view.artifact.run_id else {
            return Ok(None);
        };
        let (workspace, wanted) = (caller.workspace.clone(), run_id.clone());
        let key = self
            .store()
            .read(move |tx| tracked::find(tx, &workspace, &wanted))
            .await?;
        Ok(key.map(|key| WandbPlace {
            experiment: key.experiment,
            run_id: Some(run_id),
            sweep: None,
        }))
    }
}
