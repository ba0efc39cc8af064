//! What runs read and wrote: datasets and logged models.

use tidemill_store::tracking::datasets::{self, DatasetInput, DatasetSummary};
use tidemill_store::tracking::experiments;
use tidemill_store::tracking::runs::{self, ModelDirection, ModelOutput};

use super::validate;
use super::{Caller, Result, Tracking, TrackingError};

/// The longest texts of a dataset.
const MAX_NAME: usize = 500;
const MAX_DIGEST: usize = 36;
const MAX_SOURCE: usize = 65_535;
const MAX_SCHEMA: usize = 1_048_575;
const MAX_PROFILE: usize = 16_777_215;
const MAX_INPUT_TAG_KEY: usize = 255;
const MAX_INPUT_TAG_VALUE: usize = 500;
/// How many experiments a search for datasets names at most, and how many it answers.
const MAX_EXPERIMENTS: usize = 20;
const MAX_SUMMARIES: u32 = 1_000;

impl Tracking {
    /// Says which datasets and models a run read.
    pub async fn log_inputs(
        &self,
        caller: &Caller,
        run_id: &str,
        inputs: Vec<DatasetInput>,
        models: Vec<String>,
    ) -> Result<()> {
        validate::run_id(run_id)?;
        for input in &inputs {
            check(input)?;
        }
        self.change_active_run(caller, run_id, move |tx, run| {
            for input in &inputs {
                datasets::add_input(tx, run.number, run.experiment, input)?;
            }
            for model_id in models {
                let model = ModelOutput { model_id, step: 0 };
                runs::add_model(tx, run.number, ModelDirection::Input, &model)?;
            }
            Ok(Ok(()))
        })
        .await
    }

    /// Says which models a run wrote.
    pub async fn log_outputs(&self, caller: &Caller, run_id: &str, models: Vec<ModelOutput>) -> Result<()> {
        self.change_active_run(caller, run_id, move |tx, run| {
            for model in &models {
                runs::add_model(tx, run.number, ModelDirection::Output, model)?;
            }
            Ok(Ok(()))
        })
        .await
    }

    /// The datasets that runs of these experiments read.
    pub async fn search_datasets(&self, caller: &Caller, ids: &[String]) -> Result<Vec<DatasetSummary>> {
        if ids.is_empty() {
            return Err(TrackingError::invalid(
                "SearchDatasets request must specify at least one experiment_id.",
            ));
        }
        if ids.len() > MAX_EXPERIMENTS {
            return Err(TrackingError::invalid(format!(
                "SearchDatasets request cannot specify more than {MAX_EXPERIMENTS} experiment_ids. Received {} experiment_ids.",
                ids.len()
            )));
        }
        let ids = ids
            .iter()
            .map(|id| validate::experiment_id(id))
            .collect::<Result<Vec<i64>>>()?;
        let workspace = caller.workspace.clone();
        let found = self
            .store()
            .read(move |tx| {
                let ids = experiments::of_workspace(tx, &workspace, &ids)?;
                datasets::summaries(tx, &ids, MAX_SUMMARIES)
            })
            .await?;
        Ok(found)
    }
}

fn check(input: &DatasetInput) -> Result<()> {
    let dataset = &input.dataset;
    validate::length("name", MAX_NAME, &dataset.name)?;
    validate::length("digest", MAX_DIGEST, &dataset.digest)?;
    validate::length("source", MAX_SOURCE, &dataset.source)?;
    validate::length(
        "schema",
        MAX_SCHEMA,
        dataset.schema.as_deref().unwrap_or_default(),
    )?;
    validate::length(
        "profile",
        MAX_PROFILE,
        dataset.profile.as_deref().unwrap_or_default(),
    )?;
    for tag in &input.tags {
        validate::length("key", MAX_INPUT_TAG_KEY, &tag.key)?;
        validate::length("value", MAX_INPUT_TAG_VALUE, &tag.value)?;
    }
    Ok(())
}
