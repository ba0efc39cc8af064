//! Evaluation datasets: records of inputs and of what is expected of them, which several experiments may share.

use std::collections::HashMap;

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// An evaluation dataset without its records.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EvalDataset {
    /// Stands for it in other tables.
    pub number: i64,
    /// Its id.
    pub dataset_id: String,
    /// The workspace it belongs to.
    pub workspace: String,
    /// Its name, which others may have as well.
    pub name: String,
    /// Tells one state of it from another.
    pub digest: String,
    /// The fields of its records and their types, as JSON.
    pub schema: Option<String>,
    /// How many records it has, as JSON.
    pub profile: Option<String>,
    /// When it was created, in milliseconds.
    pub created_ms: i64,
    /// When it or its records last changed, in milliseconds.
    pub updated_ms: i64,
    /// Who created it.
    pub created_by: Option<String>,
    /// Who changed it last.
    pub updated_by: Option<String>,
    /// Its tags, by key.
    pub tags: Vec<(String, String)>,
    /// The experiments it belongs to, in ascending order.
    pub experiments: Vec<i64>,
}

/// A record. What is nested is JSON.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EvalRecord {
    /// Its id.
    pub record_id: String,
    /// The digest of its inputs, which no other record of the dataset has.
    pub input_digest: String,
    /// What is asked.
    pub inputs: String,
    /// What was answered.
    pub outputs: Option<String>,
    /// What should be answered.
    pub expectations: Option<String>,
    /// Its tags.
    pub tags: Option<String>,
    /// Where it comes from.
    pub source: Option<String>,
    /// The id of that.
    pub source_id: Option<String>,
    /// Such as `HUMAN`.
    pub source_type: Option<String>,
    /// When it was created, in milliseconds.
    pub created_ms: i64,
    /// When it last changed, in milliseconds.
    pub updated_ms: i64,
    /// Who created it.
    pub created_by: Option<String>,
    /// Who changed it last.
    pub updated_by: Option<String>,
}

const COLUMNS: &str = "number, dataset_id, workspace, name, digest, schema, profile, created_ms, updated_ms, created_by, updated_by";
const RECORD: &str = "record_id, input_digest, inputs, outputs, expectations, tags, source, source_id, source_type, \
                      created_ms, updated_ms, created_by, updated_by";

fn read(row: &Row<'_>) -> rusqlite::Result<EvalDataset> {
    let mut fields = Fields::of(row);
    Ok(EvalDataset {
        number: fields.next()?,
        dataset_id: fields.next()?,
        workspace: fields.next()?,
        name: fields.next()?,
        digest: fields.next()?,
        schema: fields.next()?,
        profile: fields.next()?,
        created_ms: fields.next()?,
        updated_ms: fields.next()?,
        created_by: fields.next()?,
        updated_by: fields.next()?,
        tags: Vec::new(),
        experiments: Vec::new(),
    })
}

fn read_record(row: &Row<'_>) -> rusqlite::Result<(i64, EvalRecord)> {
    let mut fields = Fields::of(row);
    let number = fields.next()?;
    let record = EvalRecord {
        record_id: fields.next()?,
        input_digest: fields.next()?,
        inputs: fields.next()?,
        outputs: fields.next()?,
        expectations: fields.next()?,
        tags: fields.next()?,
        source: fields.next()?,
        source_id: fields.next()?,
        source_type: fields.next()?,
        created_ms: fields.next()?,
        updated_ms: fields.next()?,
        created_by: fields.next()?,
        updated_by: fields.next()?,
    };
    Ok((number, record))
}

/// The datasets of these numbers, in the order of the numbers. Unknown ones are left out.
pub fn load(tx: &ReadTx<'_>, numbers: &[i64]) -> Result<Vec<EvalDataset>, StoreError> {
    let mut found: HashMap<i64, EvalDataset> = HashMap::with_capacity(numbers.len());
    let sql = format!("SELECT {COLUMNS} FROM eval_datasets WHERE number IN");
    tx.each_in(&sql, numbers, "", |row| {
        let dataset = read(row)?;
        found.insert(dataset.number, dataset);
        Ok(())
    })?;
    let sql = "SELECT dataset, key, value FROM eval_dataset_tags WHERE dataset IN";
    tx.each_in(sql, numbers, "ORDER BY dataset, key", |row| {
        let mut fields = Fields::of(row);
        let number: i64 = fields.next()?;
        if let Some(dataset) = found.get_mut(&number) {
            dataset.tags.push((fields.next()?, fields.next()?));
        }
        Ok(())
    })?;
    let sql = "SELECT dataset, experiment FROM eval_dataset_experiments WHERE dataset IN";
    tx.each_in(sql, numbers, "ORDER BY dataset, experiment", |row| {
        let mut fields = Fields::of(row);
        let number: i64 = fields.next()?;
        if let Some(dataset) = found.get_mut(&number) {
            dataset.experiments.push(fields.next()?);
        }
        Ok(())
    })?;
    Ok(numbers.iter().filter_map(|number| found.remove(number)).collect())
}

/// A dataset of a workspace.
pub fn find(tx: &ReadTx<'_>, workspace: &str, dataset_id: &str) -> Result<Option<EvalDataset>, StoreError> {
    let sql = "SELECT number FROM eval_datasets WHERE dataset_id = ?1 AND workspace = ?2";
    let number = tx.first(sql, bind![dataset_id, workspace], |row| Fields::of(row).next())?;
    Ok(match number {
        Some(number) => load(tx, &[number])?.pop(),
        None => None,
    })
}

/// The workspace and the experiments of a dataset.
pub fn place(tx: &ReadTx<'_>, dataset_id: &str) -> Result<Option<(String, Vec<i64>)>, StoreError> {
    let sql = "SELECT number, workspace FROM eval_datasets WHERE dataset_id = ?1";
    let found: Option<(i64, String)> = tx.first(sql, bind![dataset_id], |row| {
        let mut fields = Fields::of(row);
        Ok((fields.next()?, fields.next()?))
    })?;
    let Some((number, workspace)) = found else {
        return Ok(None);
    };
    let sql = "SELECT experiment FROM eval_dataset_experiments WHERE dataset = ?1 ORDER BY experiment";
    let experiments = tx.rows(sql, bind![number], |row| Fields::of(row).next())?;
    Ok(Some((workspace, experiments)))
}

/// Adds a dataset with its tags and experiments; its number.
pub fn insert(tx: &mut Tx<'_>, new: &EvalDataset) -> Result<i64, StoreError> {
    let sql = "INSERT INTO eval_datasets (dataset_id, workspace, name, digest, created_ms, updated_ms, created_by, updated_by)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING number";
    let params = bind![
        new.dataset_id,
        new.workspace,
        new.name,
        new.digest,
        new.created_ms,
        new.updated_ms,
        new.created_by,
        new.updated_by
    ];
    let number = tx.one(sql, params, |row| Fields::of(row).next())?;
    set_tags(tx, number, &new.tags)?;
    add_experiments(tx, number, &new.experiments)?;
    Ok(number)
}

/// What a change of records makes of their dataset.
pub fn update(tx: &mut Tx<'_>, dataset: &EvalDataset) -> Result<(), StoreError> {
    let sql = "UPDATE eval_datasets SET digest = ?1, schema = ?2, profile = ?3, updated_ms = ?4, updated_by = ?5 WHERE number = ?6";
    let params = bind![
        dataset.digest,
        dataset.schema,
        dataset.profile,
        dataset.updated_ms,
        dataset.updated_by,
        dataset.number
    ];
    tx.execute(sql, params)?;
    Ok(())
}

/// Deletes a dataset with all that is in it.
pub fn delete(tx: &mut Tx<'_>, number: i64) -> Result<(), StoreError> {
    tx.execute("DELETE FROM eval_datasets WHERE number = ?1", bind![number])?;
    Ok(())
}

/// Sets tags; others stay.
pub fn set_tags(tx: &mut Tx<'_>, number: i64, tags: &[(String, String)]) -> Result<(), StoreError> {
    for (key, value) in tags {
        let values = bind![number, key, value];
        tx.upsert("eval_dataset_tags", "dataset, key, value", "dataset, key", values)?;
    }
    Ok(())
}

/// Deletes a tag, if it is there.
pub fn delete_tag(tx: &mut Tx<'_>, number: i64, key: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM eval_dataset_tags WHERE dataset = ?1 AND key = ?2";
    tx.execute(sql, bind![number, key])?;
    Ok(())
}

/// Adds a dataset to experiments, which must be there; those it belongs to already stay.
pub fn add_experiments(tx: &mut Tx<'_>, number: i64, experiments: &[i64]) -> Result<(), StoreError> {
    for experiment in experiments {
        let values = bind![number, *experiment];
        tx.insert_new("eval_dataset_experiments", "dataset, experiment", values)?;
    }
    Ok(())
}

/// Takes a dataset out of experiments.
pub fn remove_experiments(tx: &mut Tx<'_>, number: i64, experiments: &[i64]) -> Result<(), StoreError> {
    let sql = "DELETE FROM eval_dataset_experiments WHERE dataset = ?1 AND experiment = ?2";
    for experiment in experiments {
        tx.execute(sql, bind![number, *experiment])?;
    }
    Ok(())
}

/// The record of these inputs.
pub fn record_of(
    tx: &ReadTx<'_>,
    number: i64,
    input_digest: &str,
) -> Result<Option<(i64, EvalRecord)>, StoreError> {
    let sql =
        format!("SELECT number, {RECORD} FROM eval_dataset_records WHERE dataset = ?1 AND input_digest = ?2");
    tx.first(&sql, bind![number, input_digest], read_record)
}

/// Adds a record.
pub fn insert_record(tx: &mut Tx<'_>, number: i64, record: &EvalRecord) -> Result<(), StoreError> {
    let values = bind![
        number,
        record.record_id,
        record.input_digest,
        record.inputs,
        record.outputs,
        record.expectations,
        record.tags,
        record.source,
        record.source_id,
        record.source_type,
        record.created_ms,
        record.updated_ms,
        record.created_by,
        record.updated_by
    ];
    tx.insert("eval_dataset_records", &format!("dataset, {RECORD}"), values)
}

/// Writes what can change of a record.
pub fn update_record(tx: &mut Tx<'_>, number: i64, record: &EvalRecord) -> Result<(), StoreError> {
    let sql = "UPDATE eval_dataset_records SET outputs = ?1, expectations = ?2, tags = ?3, updated_ms = ?4, updated_by = ?5
               WHERE number = ?6";
    let params = bind![
        record.outputs,
        record.expectations,
        record.tags,
        record.updated_ms,
        record.updated_by,
        number
    ];
    tx.execute(sql, params)?;
    Ok(())
}

/// Records of a dataset after the number `after`, in the order in which they were added, each with its number.
pub fn records(
    tx: &ReadTx<'_>,
    number: i64,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, EvalRecord)>, StoreError> {
    let sql = format!(
        "SELECT number, {RECORD} FROM eval_dataset_records WHERE dataset = ?1 AND number > ?2 ORDER BY number LIMIT ?3"
    );
    tx.rows(&sql, bind![number, after, limit], read_record)
}

/// How many records a dataset has.
pub fn count_records(tx: &ReadTx<'_>, number: i64) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM eval_dataset_records WHERE dataset = ?1";
    tx.one(sql, bind![number], |row| Fields::of(row).next())
}

/// Deletes records; how many there were.
pub fn delete_records(tx: &mut Tx<'_>, number: i64, record_ids: &[String]) -> Result<usize, StoreError> {
    let sql = "DELETE FROM eval_dataset_records WHERE dataset = ?1 AND record_id = ?2";
    let mut deleted = 0;
    for record_id in record_ids {
        deleted += tx.execute(sql, bind![number, record_id])?;
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{self, Query, Visible};
    use crate::testing::temp_store;
    use crate::tracking::experiments::{self, NewExperiment};
    use crate::tracking::purges;

    fn dataset(name: &str, created_ms: i64, experiments: &[i64]) -> EvalDataset {
        EvalDataset {
            dataset_id: format!("d-{name}"),
            workspace: "default".to_owned(),
            name: name.to_owned(),
            digest: "0".to_owned(),
            created_ms,
            updated_ms: created_ms,
            tags: vec![("team".to_owned(), name.to_owned())],
            experiments: experiments.to_vec(),
            ..EvalDataset::default()
        }
    }

    fn record(id: &str) -> EvalRecord {
        EvalRecord {
            record_id: id.to_owned(),
            input_digest: format!("of {id}"),
            inputs: "{}".to_owned(),
            ..EvalRecord::default()
        }
    }

    #[test]
    fn a_dataset_is_found_with_what_belongs_to_it_and_goes_with_it() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                let new = |name| NewExperiment {
                    workspace: "default",
                    name,
                    created_ms: 1,
                };
                let a = experiments::insert(tx, &new("a"), |_| "x".to_owned())?.unwrap();
                let b = experiments::insert(tx, &new("b"), |_| "x".to_owned())?.unwrap();
                let one = insert(tx, &dataset("one", 1, &[b, a]))?;
                let two = insert(tx, &dataset("two", 2, &[b]))?;
                let none = insert(tx, &dataset("none", 3, &[]))?;
                assert_eq!(find(tx, "default", "d-one")?.unwrap().experiments, [a, b]);
                assert_eq!(find(tx, "other", "d-one")?, None);
                assert_eq!(place(tx, "d-two")?, Some(("default".to_owned(), vec![b])));

                for id in ["r1", "r2", "r3"] {
                    insert_record(tx, one, &record(id))?;
                }
                let first = records(tx, one, 0, 2)?;
                assert_eq!((first[0].1.record_id.as_str(), first.len()), ("r1", 2));
                assert_eq!(records(tx, one, first[1].0, 2)?[0].1.record_id, "r3");
                assert!(record_of(tx, one, "of r2")?.is_some());
                assert!(record_of(tx, two, "of r2")?.is_none());
                assert_eq!(delete_records(tx, one, &["r2".to_owned(), "r9".to_owned()])?, 1);
                assert_eq!(count_records(tx, one)?, 2);

                // Seen is what all experiments of are seen.
                let found = |tx: &ReadTx<'_>, visible, within: Option<&[i64]>, lone| {
                    let query = Query {
                        limit: 10,
                        visible,
                        ..Query::default()
                    };
                    search::eval_datasets(tx, "default", within, lone, &query).map(|page| page.items)
                };
                assert_eq!(found(tx, Visible::default(), None, true)?, [none, two, one]);
                assert_eq!(found(tx, Visible::default(), None, false)?, [two, one]);
                assert_eq!(found(tx, Visible::default(), Some(&[a]), false)?, [one]);
                assert_eq!(found(tx, Visible::Only(vec![b]), None, false)?, [two]);
                assert_eq!(found(tx, Visible::Except(vec![a]), None, false)?, [two]);

                remove_experiments(tx, one, &[a])?;
                assert!(purges::remove_experiment(tx, b, true)?);
                assert_eq!(load(tx, &[two, one])?[1].experiments, Vec::<i64>::new());
                delete(tx, one)?;
                assert_eq!(count_records(tx, one)?, 0);
                assert_eq!(load(tx, &[one])?, []);
                Ok(())
            })
            .unwrap();
    }
}
