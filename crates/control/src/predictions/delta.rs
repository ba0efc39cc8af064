//! The Parquet files of an endpoint's log as a Delta table, for whoever reads such tables: an entry of the table's log for each time that
//! files come to it. There is one writer, this one; entries are written only where there is none, so a second one could not harm it.
//!
//! Format: <https://github.com/delta-io/delta/blob/master/PROTOCOL.md>, reader version 1, writer version 2, without checkpoints.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{self, EndpointName};
use tidemill_store::StoreError;
use tidemill_store::objects::ObjectKey;
use tidemill_store::predictions::{self as index, PredictionFile, PredictionTable};

use super::Predictions;
use super::reading::key_of;
use crate::error::{ControlError, Result};

/// Files that are brought to their tables at a time.
const PAGE: u32 = 1_000;

/// The column by which files are told apart without looking into them.
const PARTITION: &str = "day";

impl Predictions {
    /// Brings the files that are new to the tables of their endpoints. After a crash it is done again, and the table is the same: a file
    /// that is added twice is there once.
    pub(crate) async fn tell_tables(&self) -> Result<()> {
        loop {
            let files = self.store().read(|tx| index::outside_tables(tx, PAGE)).await?;
            if files.is_empty() {
                return Ok(());
            }
            let mut by_endpoint: BTreeMap<EndpointName, Vec<PredictionFile>> = BTreeMap::new();
            for file in files {
                by_endpoint.entry(file.endpoint.clone()).or_default().push(file);
            }
            let mut failed = None;
            for (endpoint, files) in by_endpoint {
                if let Err(error) = self.tell_table(endpoint, files).await {
                    failed.get_or_insert(error);
                }
            }
            // The others have gone on; these would only fail again now.
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    async fn tell_table(&self, endpoint: EndpointName, files: Vec<PredictionFile>) -> Result<()> {
        let now = self.inner.clock.now();
        let name = endpoint.clone();
        let stored = self.store().read(move |tx| index::table(tx, &name)).await?;
        let mut table = stored.unwrap_or_else(|| PredictionTable {
            endpoint,
            id: uuid_of(&ids::fresh(now)),
            version: -1,
            columns: json!([]),
        });
        let before = table.columns.clone();
        let (mut adds, mut inside, mut unfit) = (Vec::new(), Vec::new(), Vec::new());
        for file in files {
            let told = self.whole(&file).await?.and_then(|bytes| {
                let told = self.inner.codec.delta_columns(&bytes);
                let (rows, columns) = told.map_err(|error| error.to_string())?;
                Ok((rows, merged(&table.columns, columns)?))
            });
            match told {
                Ok((rows, columns)) => {
                    table.columns = columns;
                    adds.push(add(&file, rows));
                    inside.push(file.id);
                }
                Err(reason) => {
                    tracing::warn!(endpoint = %table.endpoint, file = %file.digest, reason, "a file of the prediction log is left out of its Delta table");
                    unfit.push(file.id);
                }
            }
        }
        if !adds.is_empty() {
            let mut lines = Vec::new();
            if table.version < 0 {
                lines.push(json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } }));
            }
            if table.version < 0 || before != table.columns {
                lines.push(meta_data(&table, now));
            }
            lines.extend(adds);
            lines.push(json!({ "commitInfo": {
                "timestamp": now.as_millis(), "operation": "WRITE", "operationParameters": { "mode": "Append" },
                "engineInfo": concat!("tidemill/", env!("CARGO_PKG_VERSION")),
            } }));
            table.version = self.write_entry(&table, &lines).await?;
        }
        self.store()
            .write(move |tx| index::note_table(tx, &table, &inside, &unfit))
            .await?;
        Ok(())
    }

    /// A file's bytes, or why it can never be had: it is gone, or not what was stored. Other errors pass.
    async fn whole(&self, file: &PredictionFile) -> Result<std::result::Result<Bytes, String>> {
        let (objects, key) = (self.store().objects(), key_of(file));
        match objects.get(&key).await {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(damage @ StoreError::Corrupt { .. }) => Ok(Err(damage.to_string())),
            Err(_) if objects.head(&key).await?.is_none() => Ok(Err("it is gone".to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the next entry and returns its number. An entry that is there already was written before a crash; the new one follows it.
    async fn write_entry(&self, table: &PredictionTable, lines: &[Value]) -> Result<i64> {
        let mut text = String::new();
        for line in lines {
            text.push_str(&line.to_string());
            text.push('\n');
        }
        let mut version = table.version + 1;
        loop {
            let key = ObjectKey::PredictionTableEntry {
                endpoint: table.endpoint.clone(),
                version: u64::try_from(version).map_err(ControlError::internal)?,
            };
            let objects = self.store().objects();
            if objects.put_new(&key, text.clone().into()).await? {
                return Ok(version);
            }
            version += 1;
        }
    }
}

/// `0190…` as `0190…-…`.
fn uuid_of(id: &str) -> String {
    let part = |from: usize, until: usize| id.get(from..until).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

/// The columns of the table with those of another file.
fn merged(columns: &Value, more: Vec<(String, Value)>) -> std::result::Result<Value, String> {
    let mut all = columns.as_array().cloned().unwrap_or_default();
    for (name, data_type) in more {
        if name == PARTITION || name.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']) {
            return Err(format!("the name `{name}` cannot be a column's"));
        }
        // Names that differ only in case are one name to Delta.
        let known = all.iter().find(|known| {
            known[0]
                .as_str()
                .is_some_and(|known| known.eq_ignore_ascii_case(&name))
        });
        match known {
            Some(known) if known[0] == json!(name) && known[1] == data_type => {}
            Some(known) => return Err(format!("column `{name}` is {data_type}, and was {}", known[1])),
            None => all.push(json!([name, data_type])),
        }
    }
    Ok(Value::Array(all))
}

fn meta_data(table: &PredictionTable, now: Timestamp) -> Value {
    let field = |name: &Value, data_type: &Value| json!({ "name": name, "type": data_type, "nullable": true, "metadata": {} });
    let mut fields: Vec<Value> = table
        .columns
        .as_array()
        .into_iter()
        .flatten()
        .map(|column| field(&column[0], &column[1]))
        .collect();
    fields.push(field(&json!(PARTITION), &json!("date")));
    let schema = json!({ "type": "struct", "fields": fields });
    json!({ "metaData": {
        "id": table.id,
        "name": format!("predictions of {}", table.endpoint),
        "format": { "provider": "parquet", "options": {} },
        "schemaString": schema.to_string(),
        "partitionColumns": [PARTITION],
        "configuration": {},
        "createdTime": now.as_millis(),
    } })
}

fn add(file: &PredictionFile, rows: u64) -> Value {
    // Statistics are to the millisecond: the largest is rounded up.
    let last = Timestamp::from_micros(file.until_at.as_micros().div_euclid(1_000) * 1_000 + 1_000);
    let first = Timestamp::from_micros(file.from_at.as_micros().div_euclid(1_000) * 1_000);
    let bound = |at: Timestamp| Map::from_iter([("at".to_owned(), json!(at.to_string()))]);
    let stats = json!({
        "numRecords": rows, "minValues": bound(first), "maxValues": bound(last), "nullCount": { "at": 0 },
    });
    json!({ "add": {
        "path": format!("{}/{}.parquet", file.day, file.digest),
        "partitionValues": { PARTITION: file.day },
        "size": file.size,
        "modificationTime": file.created_at.as_millis(),
        "dataChange": true,
        "stats": stats.to_string(),
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_to_a_table_and_never_change_their_type() {
        let column = |name: &str, data_type: &str| (name.to_owned(), json!(data_type));
        let first = merged(&json!([]), vec![column("a", "long")]).unwrap();
        let second = merged(&first, vec![column("a", "long"), column("b", "string")]).unwrap();
        assert_eq!(second, json!([["a", "long"], ["b", "string"]]));
        for bad in [
            column("a", "string"),
            column("A", "long"),
            column("x y", "long"),
            column("day", "date"),
        ] {
            merged(&second, vec![bad]).unwrap_err();
        }
    }
}
