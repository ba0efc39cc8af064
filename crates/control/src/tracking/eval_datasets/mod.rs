//! Evaluation datasets, as `mlflow.genai.datasets` keeps them: records of inputs and of what is expected of them.

mod record;

use serde_json::{Map, Value, json};
use tidemill_core::digest::Digest;
use tidemill_core::ids;
use tidemill_store::tracking::eval_datasets::{self, EvalDataset, EvalRecord};
use tidemill_store::tracking::experiments;
use tidemill_store::{ReadTx, Tx};

use self::record::{NewRecord, schema_with};
use super::experiments::Outcome;
use super::{Caller, Result, Tracking, TrackingError, validate};

/// The longest name of a dataset and the longest key of its tags.
const MAX_NAME: usize = 255;
/// The longest value of a dataset's tag.
const MAX_TAG_VALUE: usize = 5_000;
/// How many records a page has at most.
const MAX_PAGE: i64 = 50_000;
/// The tag that says who did something.
const USER_TAG: &str = "mlflow.user";

/// What a client says of a dataset that it creates.
#[derive(Clone, Debug, Default)]
pub struct CreateEvalDataset {
    /// Its name.
    pub name: String,
    /// The experiments it shall belong to.
    pub experiments: Vec<String>,
    /// Tags, as a JSON object; empty for none.
    pub tags: String,
}

/// A page of records.
#[derive(Clone, PartialEq, Debug)]
pub struct EvalRecords {
    /// In the order in which they were added.
    pub records: Vec<EvalRecord>,
    /// Asks for the next page, if there is one.
    pub next_page_token: Option<String>,
}

/// How many records were new, and how many were there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Upserted {
    /// New ones.
    pub inserted: u64,
    /// Others.
    pub updated: u64,
}

fn not_there(dataset_id: &str) -> TrackingError {
    TrackingError::not_found(format!("Evaluation dataset with id '{dataset_id}' not found"))
}

/// Changes with every change of a dataset.
fn digest(name: &str, at_ms: i64) -> String {
    let digits = Digest::of(format!("{name}:{at_ms}").as_bytes()).to_string();
    let bare = digits.rsplit(':').next().unwrap_or(&digits);
    bare.chars().take(8).collect()
}

fn object(text: &str, what: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(TrackingError::invalid(format!(
            "Invalid value for parameter '{what}' supplied: expected a JSON object as text."
        ))),
    }
}

/// Tags as a JSON object; those without a value are left out.
fn tags(text: &str) -> Result<Vec<(String, String)>> {
    let mut tags = Vec::new();
    for (key, value) in object(text, "tags")? {
        let value = match value {
            Value::Null => continue,
            Value::String(text) => text,
            other => other.to_string(),
        };
        validate::length("key", MAX_NAME, &key)?;
        validate::length("value", MAX_TAG_VALUE, &value)?;
        tags.push((key, value));
    }
    Ok(tags)
}

fn profile(count: i64) -> Option<String> {
    (count > 0).then(|| json!({ "num_records": count }).to_string())
}

/// The numbers of experiments that are all there.
fn experiment_numbers(tx: &ReadTx<'_>, workspace: &str, ids: &[i64]) -> Outcome<Vec<i64>> {
    let found = experiments::of_workspace(tx, workspace, ids)?;
    match ids.iter().find(|id| !found.contains(id)) {
        Some(id) => Ok(Err(TrackingError::not_found(format!(
            "No Experiment with id={id}"
        )))),
        None => Ok(Ok(found)),
    }
}

fn numbers(ids: &[String]) -> Result<Vec<i64>> {
    ids.iter().map(|id| validate::experiment_id(id)).collect()
}

impl Tracking {
    /// Creates a dataset without records.
    pub async fn create_eval_dataset(
        &self,
        caller: &Caller,
        request: CreateEvalDataset,
    ) -> Result<EvalDataset> {
        validate::length("name", MAX_NAME, &request.name)?;
        let tags = match request.tags.as_str() {
            "" => Vec::new(),
            text => tags(text)?,
        };
        let ids = numbers(&request.experiments)?;
        let user = tags
            .iter()
            .find(|(key, _)| key == USER_TAG)
            .map(|(_, user)| user.clone());
        let now_ms = self.now_ms();
        let new = EvalDataset {
            dataset_id: format!("d-{}", ids::fresh(self.now())),
            workspace: caller.workspace.clone(),
            digest: digest(&request.name, now_ms),
            name: request.name,
            created_ms: now_ms,
            updated_ms: now_ms,
            created_by: user.clone(),
            updated_by: user,
            tags,
            ..EvalDataset::default()
        };
        self.store()
            .write(move |tx| {
                let experiments = match experiment_numbers(tx, &new.workspace, &ids)? {
                    Ok(experiments) => experiments,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let mut dataset = EvalDataset { experiments, ..new };
                dataset.number = eval_datasets::insert(tx, &dataset)?;
                Ok(Ok(dataset))
            })
            .await?
    }

    /// A dataset without its records.
    pub async fn eval_dataset(&self, caller: &Caller, dataset_id: &str) -> Result<EvalDataset> {
        let (workspace, id) = (caller.workspace.clone(), dataset_id.to_owned());
        let found = self
            .store()
            .read(move |tx| eval_datasets::find(tx, &workspace, &id));
        found.await?.ok_or_else(|| not_there(dataset_id))
    }

    /// The workspace and the experiments of a dataset.
    pub async fn place_of_eval_dataset(&self, dataset_id: &str) -> Result<Option<(String, Vec<i64>)>> {
        let id = dataset_id.to_owned();
        Ok(self.store().read(move |tx| eval_datasets::place(tx, &id)).await?)
    }

    async fn change_eval_dataset<T: Send + 'static>(
        &self,
        caller: &Caller,
        dataset_id: &str,
        missing: impl FnOnce() -> Result<T> + Send + 'static,
        change: impl FnOnce(&mut Tx<'_>, EvalDataset) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let (workspace, id) = (caller.workspace.clone(), dataset_id.to_owned());
        self.store()
            .write(move |tx| match eval_datasets::find(tx, &workspace, &id)? {
                Some(dataset) => change(tx, dataset),
                None => Ok(missing()),
            })
            .await?
    }

    /// Deletes a dataset with its records, if it is there.
    pub async fn delete_eval_dataset(&self, caller: &Caller, dataset_id: &str) -> Result<()> {
        self.change_eval_dataset(
            caller,
            dataset_id,
            || Ok(()),
            |tx, dataset| eval_datasets::delete(tx, dataset.number).map(Ok),
        )
        .await
    }

    /// Sets tags of a dataset, given as a JSON object; others stay.
    pub async fn set_eval_dataset_tags(&self, caller: &Caller, dataset_id: &str, text: &str) -> Result<()> {
        let tags = tags(text)?;
        let missing = format!("Could not find evaluation dataset with ID {dataset_id}");
        self.change_eval_dataset(
            caller,
            dataset_id,
            || Err(TrackingError::not_found(missing)),
            move |tx, dataset| eval_datasets::set_tags(tx, dataset.number, &tags).map(Ok),
        )
        .await
    }

    /// Deletes a tag of a dataset, if both are there.
    pub async fn delete_eval_dataset_tag(&self, caller: &Caller, dataset_id: &str, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.change_eval_dataset(
            caller,
            dataset_id,
            || Ok(()),
            move |tx, dataset| eval_datasets::delete_tag(tx, dataset.number, &key).map(Ok),
        )
        .await
    }

    /// Adds a dataset to experiments or takes it out of them.
    pub async fn move_eval_dataset(
        &self,
        caller: &Caller,
        dataset_id: &str,
        ids: &[String],
        into: bool,
    ) -> Result<EvalDataset> {
        let (ids, now_ms, workspace) = (numbers(ids)?, self.now_ms(), caller.workspace.clone());
        let missing = format!("Dataset '{dataset_id}' not found");
        self.change_eval_dataset(
            caller,
            dataset_id,
            || Err(TrackingError::not_found(missing)),
            move |tx, mut dataset| {
                if into {
                    match experiment_numbers(tx, &workspace, &ids)? {
                        Ok(found) => eval_datasets::add_experiments(tx, dataset.number, &found)?,
                        Err(refusal) => return Ok(Err(refusal)),
                    }
                } else {
                    eval_datasets::remove_experiments(tx, dataset.number, &ids)?;
                }
                if into || dataset.experiments.iter().any(|id| ids.contains(id)) {
                    dataset.updated_ms = now_ms;
                    eval_datasets::update(tx, &dataset)?;
                }
                Ok(Ok(eval_datasets::load(tx, &[dataset.number])?
                    .pop()
                    .unwrap_or(dataset)))
            },
        )
        .await
    }

    /// Adds records, given as a JSON list; one whose inputs are there already is merged into that.
    pub async fn upsert_eval_records(
        &self,
        caller: &Caller,
        dataset_id: &str,
        text: &str,
    ) -> Result<Upserted> {
        let items = record::list(text)?;
        let records = items
            .into_iter()
            .map(NewRecord::read)
            .collect::<Result<Vec<_>>>()?;
        let record_ids: Vec<String> = records
            .iter()
            .map(|_| format!("dr-{}", ids::fresh(self.now())))
            .collect();
        let (now_ms, id) = (self.now_ms(), dataset_id.to_owned());
        let change = move |tx: &mut Tx<'_>, mut dataset: EvalDataset| {
            let number = dataset.number;
            let mut counts = Upserted::default();
            dataset.schema = match (&dataset.schema, records.is_empty()) {
                (None, true) => None,
                (old, _) => Some(schema_with(old.as_deref(), &records).to_string()),
            };
            dataset.updated_by = records.iter().rev().find_map(|record| record.user.clone());
            for (record, record_id) in records.into_iter().zip(record_ids) {
                if let Some((known, mut old)) = eval_datasets::record_of(tx, number, &record.digest)? {
                    record.merge_into(&mut old, now_ms);
                    eval_datasets::update_record(tx, known, &old)?;
                    counts.updated += 1;
                } else {
                    eval_datasets::insert_record(tx, number, &record.into_record(record_id, now_ms))?;
                    counts.inserted += 1;
                }
            }
            dataset.profile = profile(eval_datasets::count_records(tx, number)?);
            dataset.digest = digest(&dataset.name, now_ms);
            dataset.updated_ms = now_ms;
            eval_datasets::update(tx, &dataset)?;
            Ok(Ok(counts))
        };
        self.change_eval_dataset(caller, dataset_id, move || Err(not_there(&id)), change)
            .await
    }

    /// A page of a dataset's records.
    pub async fn eval_records(
        &self,
        caller: &Caller,
        dataset_id: &str,
        max_results: Option<i64>,
        page_token: Option<&str>,
    ) -> Result<EvalRecords> {
        let limit = match max_results.unwrap_or(0) {
            0 => 1_000,
            asked if (1..=MAX_PAGE).contains(&asked) => asked as u32,
            asked => {
                return Err(TrackingError::invalid(format!(
                    "Invalid value {asked} for parameter 'max_results' supplied. It must be between 1 and {MAX_PAGE}"
                )));
            }
        };
        let after = match page_token.filter(|token| !token.is_empty()) {
            None => 0,
            Some(token) => token
                .parse()
                .map_err(|_| TrackingError::invalid(format!("Invalid page token `{token}`")))?,
        };
        let number = self.eval_dataset(caller, dataset_id).await?.number;
        let mut found = self
            .store()
            .read(move |tx| eval_datasets::records(tx, number, after, limit + 1))
            .await?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        Ok(EvalRecords {
            next_page_token: found
                .last()
                .filter(|_| more)
                .map(|(number, _)| number.to_string()),
            records: found.into_iter().map(|(_, record)| record).collect(),
        })
    }

    /// Deletes records; how many of them there were.
    pub async fn delete_eval_records(
        &self,
        caller: &Caller,
        dataset_id: &str,
        record_ids: Vec<String>,
    ) -> Result<usize> {
        let id = dataset_id.to_owned();
        let change = move |tx: &mut Tx<'_>, mut dataset: EvalDataset| {
            let deleted = eval_datasets::delete_records(tx, dataset.number, &record_ids)?;
            if deleted > 0 {
                dataset.profile = profile(eval_datasets::count_records(tx, dataset.number)?);
                eval_datasets::update(tx, &dataset)?;
            }
            Ok(Ok(deleted))
        };
        self.change_eval_dataset(caller, dataset_id, move || Err(not_there(&id)), change)
            .await
    }
}
