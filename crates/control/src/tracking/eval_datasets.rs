//! Evaluation datasets, as `mlflow.genai.datasets` keeps them: records of inputs and of what is expected of them.

use serde_json::{Map, Value, json};
use tidemill_core::digest::Digest;
use tidemill_core::ids;
use tidemill_store::tracking::eval_datasets::{self, EvalDataset, EvalRecord};
use tidemill_store::tracking::experiments;
use tidemill_store::{ReadTx, Tx};

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
/// Where records come from.
const SOURCES: [&str; 5] = ["UNSPECIFIED", "TRACE", "HUMAN", "DOCUMENT", "CODE"];

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

/// JSON that is the same for the same inputs, in whatever order their fields are.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_unstable_by_key(|(key, _)| *key);
            let sorted = pairs
                .into_iter()
                .map(|(key, value)| (key.clone(), canonical(value)));
            Value::Object(sorted.collect())
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

/// A record as a client sends it.
struct NewRecord {
    inputs: Value,
    digest: String,
    /// `None` where nothing is said, which leaves what is there.
    outputs: Option<Value>,
    expectations: Option<Map<String, Value>>,
    tags: Option<Map<String, Value>>,
    source: Option<(Value, String, Option<String>)>,
    user: Option<String>,
}

impl NewRecord {
    fn read(value: Value) -> Result<Self> {
        let Value::Object(mut map) = value else {
            return Err(TrackingError::invalid("Each record must be a dictionary"));
        };
        let mut part = |name: &str| match map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(part)) => Ok(Some(part)),
            Some(_) => Err(TrackingError::invalid(format!(
                "Invalid record: '{name}' must be a dictionary"
            ))),
        };
        let inputs = Value::Object(part("inputs")?.unwrap_or_default());
        let (expectations, tags, source) = (part("expectations")?, part("tags")?, part("source")?);
        let user = tags
            .as_ref()
            .and_then(|tags| tags.get(USER_TAG))
            .and_then(Value::as_str);
        Ok(Self {
            digest: Digest::of(canonical(&inputs).to_string().as_bytes()).to_string(),
            inputs,
            outputs: map.remove("outputs"),
            expectations,
            user: user.map(str::to_owned),
            tags,
            source: source
                .filter(|source| !source.is_empty())
                .map(read_source)
                .transpose()?,
        })
    }

    /// The record that this makes, where there is none of its inputs.
    fn into_record(self, record_id: String, now_ms: i64) -> EvalRecord {
        let (source, source_type, source_id) = match self.source {
            Some((source, kind, id)) => (Some(source.to_string()), Some(kind), id),
            None => (None, None, None),
        };
        EvalRecord {
            record_id,
            input_digest: self.digest,
            inputs: self.inputs.to_string(),
            outputs: match self.outputs {
                None => Some("{}".to_owned()),
                Some(outputs) => text_of(outputs),
            },
            expectations: self.expectations.map(|map| Value::Object(map).to_string()),
            tags: self.tags.map(|map| Value::Object(map).to_string()),
            source,
            source_id,
            source_type,
            created_ms: now_ms,
            updated_ms: now_ms,
            created_by: self.user.clone(),
            updated_by: self.user,
        }
    }

    /// Merges this into the record of the same inputs.
    fn merge_into(self, record: &mut EvalRecord, now_ms: i64) {
        if let Some(outputs) = self.outputs {
            record.outputs = text_of(outputs);
        }
        record.expectations = merged(record.expectations.take(), self.expectations);
        record.tags = merged(record.tags.take(), self.tags);
        record.updated_ms = now_ms;
        record.updated_by = self.user.or(record.updated_by.take());
    }
}

fn text_of(value: Value) -> Option<String> {
    (!value.is_null()).then(|| value.to_string())
}

/// What stands in `new` counts; the rest stays.
fn merged(old: Option<String>, new: Option<Map<String, Value>>) -> Option<String> {
    let Some(new) = new.filter(|new| !new.is_empty()) else {
        return old;
    };
    let mut map = match old.and_then(|old| serde_json::from_str(&old).ok()) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    map.extend(new);
    Some(Value::Object(map).to_string())
}

/// A source, its type and the id of what it is.
fn read_source(source: Map<String, Value>) -> Result<(Value, String, Option<String>)> {
    let named = source
        .get("source_type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let kind = named.to_ascii_uppercase();
    if !SOURCES.contains(&kind.as_str()) {
        let valid: Vec<String> = SOURCES.iter().map(|name| format!("'{name}'")).collect();
        return Err(TrackingError::invalid(format!(
            "Invalid dataset record source type: {kind}. Valid source types: [{}]",
            valid.join(", ")
        )));
    }
    let data = match source.get("source_data") {
        None | Some(Value::Null) => json!({}),
        Some(data) => data.clone(),
    };
    let id = data.get(if kind == "TRACE" { "trace_id" } else { "source_id" });
    let id = id.and_then(Value::as_str).map(str::to_owned);
    Ok((json!({ "source_type": kind, "source_data": data }), kind, id))
}

/// What Python calls the type of a value in a schema.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The schema with the fields of new records; a field keeps the type that it had first.
fn schema_with(old: Option<&str>, records: &[NewRecord]) -> Value {
    let mut schema = match old.and_then(|old| serde_json::from_str(old).ok()) {
        Some(schema @ Value::Object(_)) => schema,
        _ => json!({"inputs": {}, "outputs": {}, "expectations": {}, "version": "1.0"}),
    };
    for record in records {
        add_fields(&mut schema["inputs"], &record.inputs);
        if let Some(outputs) = record.outputs.as_ref().filter(|outputs| !outputs.is_null()) {
            match outputs {
                Value::Object(_) => add_fields(&mut schema["outputs"], outputs),
                other if schema["outputs"] == json!({}) => schema["outputs"] = json!(type_of(other)),
                _ => {}
            }
        }
        if let Some(expectations) = &record.expectations {
            for (key, value) in expectations {
                add_field(&mut schema["expectations"], key, value);
            }
        }
    }
    schema
}

fn add_fields(known: &mut Value, of: &Value) {
    for (key, value) in of.as_object().into_iter().flatten() {
        add_field(known, key, value);
    }
}

fn add_field(known: &mut Value, key: &str, value: &Value) {
    if let Value::Object(known) = known
        && !known.contains_key(key)
    {
        known.insert(key.to_owned(), json!(type_of(value)));
    }
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
        let Ok(Value::Array(items)) = serde_json::from_str(text) else {
            return Err(TrackingError::invalid(
                "Invalid value for parameter 'records' supplied: expected a JSON list as text.",
            ));
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_the_same_inputs_have_the_same_digest_in_whatever_order() {
        let digest = |value| NewRecord::read(json!({ "inputs": value })).unwrap().digest;
        assert_eq!(
            digest(json!({"a": 1, "b": {"x": [1], "y": 2}})),
            digest(json!({"b": {"y": 2, "x": [1]}, "a": 1}))
        );
        assert_ne!(digest(json!({"a": 1})), digest(json!({"a": 1.0})));
    }

    #[test]
    fn what_a_record_says_again_is_merged_and_the_rest_stays() {
        let read = |value| NewRecord::read(value).unwrap();
        let first = json!({"inputs": {"q": 1}, "expectations": {"a": 1, "b": 2}, "source": {"source_type": "trace",
            "source_data": {"trace_id": "tr-1"}}});
        let mut record = read(first).into_record("dr-1".to_owned(), 5);
        assert_eq!(
            (record.source_type.as_deref(), record.source_id.as_deref()),
            (Some("TRACE"), Some("tr-1"))
        );
        assert_eq!(record.outputs.as_deref(), Some("{}"));
        let again = json!({"inputs": {"q": 1}, "outputs": "yes", "expectations": {"b": 3}, "tags": {"mlflow.user": "ada"}});
        read(again).merge_into(&mut record, 9);
        assert_eq!(record.expectations.as_deref(), Some(r#"{"a":1,"b":3}"#));
        assert_eq!(record.outputs.as_deref(), Some("\"yes\""));
        assert_eq!((record.created_ms, record.updated_ms), (5, 9));
        assert_eq!(record.updated_by.as_deref(), Some("ada"));
        assert!(NewRecord::read(json!({"inputs": [1]})).is_err());
        assert!(NewRecord::read(json!({"inputs": {}, "source": {"source_type": "ORACLE"}})).is_err());
    }

    #[test]
    fn a_schema_names_each_field_with_the_type_it_had_first() {
        let records = [
            json!({"inputs": {"q": "a", "n": 1}, "outputs": 1.5}),
            json!({"inputs": {"q": 1}, "outputs": {"x": null}}),
        ];
        let records: Vec<NewRecord> = records.into_iter().map(|r| NewRecord::read(r).unwrap()).collect();
        let schema = schema_with(None, &records);
        assert_eq!(
            schema,
            json!({"inputs": {"q": "string", "n": "integer"}, "outputs": "float", "expectations": {}, "version": "1.0"})
        );
        assert_eq!(schema_with(Some(&schema.to_string()), &[]), schema);
    }
}
