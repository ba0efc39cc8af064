//! Registered models.

use std::collections::HashMap;

use tidemill_core::clock::Timestamp;

use super::{Happened, Model, Who, history, marks, padded, refs, versions};
use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// How many things one statement asks for.
const CHUNK: usize = 256;

/// The number of the model that has a name.
pub fn find(tx: &ReadTx<'_>, workspace: &str, name: &str) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT number FROM models WHERE workspace = ?1 AND name = ?2";
    tx.first(sql, bind![workspace, name], |row| Fields::of(row).next())
}

/// Models by their numbers, in the order asked for, with tags, aliases and the latest version of each stage. What is not there is
/// left out.
pub fn load_models(tx: &ReadTx<'_>, numbers: &[i64]) -> Result<Vec<Model>, StoreError> {
    let mut found: HashMap<i64, Model> = HashMap::with_capacity(numbers.len());
    for chunk in numbers.chunks(CHUNK) {
        let values = padded(chunk);
        let list = marks(values.len());
        let sql = format!(
            "SELECT number, workspace, name, description, created_at, updated_at FROM models WHERE number IN ({list})"
        );
        let rows = tx.rows(&sql, &refs(&values), |row| {
            let mut fields = Fields::of(row);
            Ok(Model {
                number: fields.next()?,
                workspace: fields.next()?,
                name: fields.next()?,
                description: fields.next()?,
                created_at: fields.next()?,
                updated_at: fields.next()?,
                tags: Vec::new(),
                aliases: Vec::new(),
                latest: Vec::new(),
            })
        })?;
        found.extend(rows.into_iter().map(|model| (model.number, model)));
        let sql =
            format!("SELECT model, key, value FROM model_tags WHERE model IN ({list}) ORDER BY model, key");
        for (model, key, value) in tx.rows(&sql, &refs(&values), |row| {
            let mut fields = Fields::of(row);
            Ok((fields.next::<i64>()?, fields.next()?, fields.next()?))
        })? {
            if let Some(model) = found.get_mut(&model) {
                model.tags.push((key, value));
            }
        }
        let sql = format!(
            "SELECT model, alias, version FROM aliases WHERE model IN ({list}) ORDER BY model, alias"
        );
        for (model, alias, version) in tx.rows(&sql, &refs(&values), |row| {
            let mut fields = Fields::of(row);
            Ok((fields.next::<i64>()?, fields.next()?, fields.next()?))
        })? {
            if let Some(model) = found.get_mut(&model) {
                model.aliases.push((alias, version));
            }
        }
        for version in versions::latest_versions(tx, chunk)? {
            if let Some(model) = found.get_mut(&version.model) {
                model.latest.push(version);
            }
        }
    }
    Ok(numbers.iter().filter_map(|number| found.remove(number)).collect())
}

/// Registers a model under a name that is free; its number.
pub fn create(
    tx: &mut Tx<'_>,
    workspace: &str,
    name: &str,
    description: &str,
    tags: &[(String, String)],
    who: &Who,
) -> Result<i64, StoreError> {
    let number: i64 = tx.one(
        "INSERT INTO models (workspace, name, description, created_at, updated_at, next_version) VALUES (?1, ?2, ?3, ?4, ?5, 1) \
         RETURNING number",
        bind![workspace, name, description, who.at, who.at],
        |row| Fields::of(row).next(),
    )?;
    for (key, value) in tags {
        set_tag(tx, number, key, value)?;
    }
    let happened = Happened::new(workspace, name, number, "created");
    history::note(tx, &happened, who)?;
    Ok(number)
}

/// Sets what a model is for.
pub fn describe(tx: &mut Tx<'_>, number: i64, description: &str, at: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE models SET description = ?2, updated_at = ?3 WHERE number = ?1";
    tx.execute(sql, bind![number, description, at])?;
    Ok(())
}

pub(super) fn touch(tx: &mut Tx<'_>, number: i64, at: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE models SET updated_at = ?2 WHERE number = ?1";
    tx.execute(sql, bind![number, at])?;
    Ok(())
}

/// Gives a model a name that is free.
pub fn rename(tx: &mut Tx<'_>, model: &Model, new_name: &str, who: &Who) -> Result<(), StoreError> {
    let sql = "UPDATE models SET name = ?2, updated_at = ?3 WHERE number = ?1";
    tx.execute(sql, bind![model.number, new_name, who.at])?;
    let sql = "UPDATE model_versions SET updated_at = ?2 WHERE model = ?1";
    tx.execute(sql, bind![model.number, who.at])?;
    let happened = Happened {
        detail: serde_json::json!({ "from": model.name, "to": new_name }),
        ..Happened::new(&model.workspace, &model.name, model.number, "renamed")
    };
    history::note(tx, &happened, who)
}

/// Removes a model and all of its versions. What it was named and what befell it stays in the history.
pub fn delete(tx: &mut Tx<'_>, model: &Model, who: &Who) -> Result<(), StoreError> {
    let count: i64 = tx.one(
        "SELECT count(*) FROM model_versions WHERE model = ?1",
        bind![model.number],
        |row| Fields::of(row).next(),
    )?;
    let happened = Happened {
        detail: serde_json::json!({ "versions": count, "description": model.description }),
        ..Happened::new(&model.workspace, &model.name, model.number, "deleted")
    };
    history::note(tx, &happened, who)?;
    tx.execute("DELETE FROM models WHERE number = ?1", bind![model.number])?;
    Ok(())
}

/// Sets a tag.
pub fn set_tag(tx: &mut Tx<'_>, number: i64, key: &str, value: &str) -> Result<(), StoreError> {
    tx.upsert(
        "model_tags",
        "model, key, value",
        "model, key",
        bind![number, key, value],
    )
}

/// Removes a tag, if it is there.
pub fn delete_tag(tx: &mut Tx<'_>, number: i64, key: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM model_tags WHERE model = ?1 AND key = ?2";
    tx.execute(sql, bind![number, key])?;
    Ok(())
}
