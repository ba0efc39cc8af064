//! Datasets that runs read.

use serde::{Deserialize, Serialize};

use crate::column::{Column, Fields, bind, read_json, write_json};
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// The tag of an input that says what the dataset was for, such as `training`.
pub const CONTEXT_TAG: &str = "mlflow.data.context";

/// A dataset: known in its experiment by name and digest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// The digest of its content.
    pub digest: String,
    /// What kind of thing `source` is.
    pub source_type: String,
    /// Where it comes from.
    pub source: String,
    /// Its schema.
    pub schema: Option<String>,
    /// Statistics of it.
    pub profile: Option<String>,
}

/// A tag of an input.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InputTag {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl Column for Vec<InputTag> {
    fn write(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        write_json(self)
    }
    fn read(value: rusqlite::types::ValueRef<'_>) -> Result<Self, rusqlite::types::FromSqlError> {
        read_json(value)
    }
}

/// A dataset as the input of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DatasetInput {
    /// The dataset.
    pub dataset: Dataset,
    /// What the run says of it.
    pub tags: Vec<InputTag>,
}

/// A dataset of an experiment in one context.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatasetSummary {
    /// The experiment.
    pub experiment: i64,
    /// The dataset's name.
    pub name: String,
    /// The digest of its content.
    pub digest: String,
    /// What runs used it for.
    pub context: Option<String>,
}

/// Says that a run read a dataset. What the run has already said of it stays.
pub fn add_input(tx: &mut Tx<'_>, run: i64, experiment: i64, input: &DatasetInput) -> Result<(), StoreError> {
    let dataset = &input.dataset;
    let sql = "SELECT number FROM datasets WHERE experiment = ?1 AND name = ?2 AND digest = ?3";
    let known = tx.first(sql, bind![experiment, dataset.name, dataset.digest], |row| {
        Fields::of(row).next()
    })?;
    let number: i64 = match known {
        Some(number) => number,
        None => {
            let sql = "INSERT INTO datasets (experiment, name, digest, source_type, source, schema, profile)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING number";
            let params = bind![
                experiment,
                dataset.name,
                dataset.digest,
                dataset.source_type,
                dataset.source,
                dataset.schema,
                dataset.profile
            ];
            tx.one(sql, params, |row| Fields::of(row).next())?
        }
    };
    let context = input
        .tags
        .iter()
        .find(|tag| tag.key == CONTEXT_TAG)
        .map(|tag| tag.value.as_str());
    let sql = "INSERT INTO run_datasets (run, dataset, position, context, tags)
               SELECT ?1, ?2, coalesce(max(position) + 1, 0), ?3, ?4 FROM run_datasets WHERE run = ?5
               ON CONFLICT (run, dataset) DO NOTHING";
    tx.execute(sql, bind![run, number, context, input.tags, run])?;
    Ok(())
}

/// The datasets of these runs, in the order in which each run logged them.
pub(super) fn each_of_runs(
    tx: &ReadTx<'_>,
    runs: &[i64],
    mut take: impl FnMut(i64, DatasetInput),
) -> Result<(), StoreError> {
    let sql = "SELECT i.run, d.name, d.digest, d.source_type, d.source, d.schema, d.profile, i.tags
               FROM run_datasets i JOIN datasets d ON d.number = i.dataset WHERE i.run IN";
    tx.each_in(sql, runs, "ORDER BY i.run, i.position, d.number", |row| {
        let mut fields = Fields::of(row);
        let run = fields.next()?;
        let dataset = Dataset {
            name: fields.next()?,
            digest: fields.next()?,
            source_type: fields.next()?,
            source: fields.next()?,
            schema: fields.next()?,
            profile: fields.next()?,
        };
        let tags = fields.next()?;
        take(run, DatasetInput { dataset, tags });
        Ok(())
    })
}

/// The datasets that runs of these experiments read, each with the contexts it was read in.
pub fn summaries(
    tx: &ReadTx<'_>,
    experiments: &[i64],
    limit: u32,
) -> Result<Vec<DatasetSummary>, StoreError> {
    let mut found = Vec::new();
    let sql = "SELECT DISTINCT d.experiment, d.name, d.digest, i.context
               FROM datasets d JOIN run_datasets i ON i.dataset = d.number WHERE d.experiment IN";
    let tail = format!("ORDER BY d.experiment, d.name, d.digest, i.context LIMIT {limit}");
    tx.each_in(sql, experiments, &tail, |row| {
        let mut fields = Fields::of(row);
        found.push(DatasetSummary {
            experiment: fields.next()?,
            name: fields.next()?,
            digest: fields.next()?,
            context: fields.next()?,
        });
        Ok(())
    })?;
    found.truncate(limit as usize);
    Ok(found)
}
