//! Model versions.

use std::collections::HashMap;

use tidemill_core::clock::Timestamp;

use super::{Happened, Model, Version, Who, history, marks, models, padded, refs};
use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

const CHUNK: usize = 128;

const COLUMNS: &str = "v.model, m.name, v.version, v.created_at, v.updated_at, v.description, v.user_id, v.source, \
     v.storage_location, v.tracked_run, v.run_link, v.model_id, v.stage, v.status, v.status_message, v.bundle, v.snapshot, \
     v.signature, v.metrics";

/// A version that has no number yet.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct NewVersion {
    /// [`Version::user_id`].
    pub user_id: String,
    /// [`Version::source`].
    pub source: String,
    /// [`Version::storage_location`].
    pub storage_location: Option<String>,
    /// [`Version::run_id`].
    pub run_id: Option<String>,
    /// [`Version::run_link`].
    pub run_link: Option<String>,
    /// [`Version::model_id`].
    pub model_id: Option<String>,
    /// [`Version::description`].
    pub description: String,
    /// [`Version::tags`].
    pub tags: Vec<(String, String)>,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Version> {
    let mut fields = Fields::of(row);
    Ok(Version {
        model: fields.next()?,
        name: fields.next()?,
        version: fields.next()?,
        created_at: fields.next()?,
        updated_at: fields.next()?,
        description: fields.next()?,
        user_id: fields.next()?,
        source: fields.next()?,
        storage_location: fields.next()?,
        run_id: fields.next()?,
        run_link: fields.next()?,
        model_id: fields.next()?,
        stage: fields.next()?,
        status: fields.next()?,
        status_message: fields.next()?,
        bundle: fields.next()?,
        snapshot: fields.next()?,
        signature: fields.next()?,
        metrics: fields.next()?,
        tags: Vec::new(),
        aliases: Vec::new(),
    })
}

/// `(model = ?1 AND version = ?2) OR …` for so many pairs.
fn any_of(prefix: &str, pairs: usize) -> String {
    let terms: Vec<String> = (0..pairs)
        .map(|i| {
            format!(
                "({prefix}model = ?{} AND {prefix}version = ?{})",
                2 * i + 1,
                2 * i + 2
            )
        })
        .collect();
    terms.join(" OR ")
}

/// Versions by (model's number, version), in the order asked for, with tags and aliases. What is not there is left out.
pub fn load_versions(tx: &ReadTx<'_>, keys: &[(i64, i64)]) -> Result<Vec<Version>, StoreError> {
    let mut found: HashMap<(i64, i64), Version> = HashMap::with_capacity(keys.len());
    for chunk in keys.chunks(CHUNK) {
        let mut pairs = chunk.to_vec();
        if let Some(last) = chunk.last() {
            pairs.resize(chunk.len().next_power_of_two(), *last);
        }
        let values: Vec<i64> = pairs
            .iter()
            .flat_map(|(model, version)| [*model, *version])
            .collect();
        let sql = format!(
            "SELECT {COLUMNS} FROM model_versions v JOIN models m ON m.number = v.model WHERE {}",
            any_of("v.", pairs.len())
        );
        let rows = tx.rows(&sql, &refs(&values), read)?;
        found.extend(rows.into_iter().map(|v| ((v.model, v.version), v)));
        let wanted = any_of("", pairs.len());
        let sql = format!(
            "SELECT model, version, key, value FROM model_version_tags WHERE {wanted} ORDER BY model, version, key"
        );
        for (model, version, key, value) in tx.rows(&sql, &refs(&values), |row| {
            let mut fields = Fields::of(row);
            Ok((
                fields.next::<i64>()?,
                fields.next::<i64>()?,
                fields.next()?,
                fields.next()?,
            ))
        })? {
            if let Some(version) = found.get_mut(&(model, version)) {
                version.tags.push((key, value));
            }
        }
        let sql = format!("SELECT model, version, alias FROM aliases WHERE {wanted} ORDER BY model, alias");
        for (model, version, alias) in tx.rows(&sql, &refs(&values), |row| {
            let mut fields = Fields::of(row);
            Ok((fields.next::<i64>()?, fields.next::<i64>()?, fields.next()?))
        })? {
            if let Some(version) = found.get_mut(&(model, version)) {
                version.aliases.push(alias);
            }
        }
    }
    Ok(keys.iter().filter_map(|key| found.remove(key)).collect())
}

/// The version of a model that has a number, with tags and aliases.
pub fn find_version(tx: &ReadTx<'_>, model: i64, version: i64) -> Result<Option<Version>, StoreError> {
    Ok(load_versions(tx, &[(model, version)])?.pop())
}

/// The highest version of each stage of each of these models, by model and version.
pub fn latest_versions(tx: &ReadTx<'_>, models: &[i64]) -> Result<Vec<Version>, StoreError> {
    let mut keys = Vec::new();
    for chunk in models.chunks(CHUNK) {
        let values = padded(chunk);
        let sql = format!(
            "SELECT model, max(version) FROM model_versions WHERE model IN ({}) GROUP BY model, stage ORDER BY 1, 2",
            marks(values.len())
        );
        keys.extend(tx.rows(&sql, &refs(&values), |row| {
            let mut fields = Fields::of(row);
            Ok((fields.next::<i64>()?, fields.next::<i64>()?))
        })?);
    }
    load_versions(tx, &keys)
}

/// The versions of a model that are in a stage.
pub fn versions_in_stage(tx: &ReadTx<'_>, model: i64, stage: &str) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT version FROM model_versions WHERE model = ?1 AND stage = ?2 ORDER BY version";
    tx.rows(sql, bind![model, stage], |row| Fields::of(row).next())
}

/// The version that an alias names.
pub fn alias_target(tx: &ReadTx<'_>, model: i64, alias: &str) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT version FROM aliases WHERE model = ?1 AND alias = ?2";
    tx.first(sql, bind![model, alias], |row| Fields::of(row).next())
}

/// Registers a version under the next number, which no version of the model ever had; that number.
pub fn create_version(tx: &mut Tx<'_>, model: i64, new: &NewVersion, who: &Who) -> Result<i64, StoreError> {
    let version: i64 = tx.one(
        "UPDATE models SET next_version = next_version + 1, updated_at = ?2 WHERE number = ?1 RETURNING next_version - 1",
        bind![model, who.at],
        |row| Fields::of(row).next(),
    )?;
    let values = bind![
        model,
        version,
        serde_json::Value::Null,
        serde_json::Value::Null,
        who.at,
        who.at,
        new.description,
        new.user_id,
        new.source,
        new.storage_location,
        new.run_id,
        new.run_link,
        new.model_id,
        "None",
        "READY"
    ];
    let columns = "model, version, signature, metrics, created_at, updated_at, description, user_id, source, storage_location, \
         tracked_run, run_link, model_id, stage, status";
    tx.insert("model_versions", columns, values)?;
    for (key, value) in &new.tags {
        set_version_tag(tx, model, version, key, value)?;
    }
    Ok(version)
}

/// Sets what a version is.
pub fn describe_version(
    tx: &mut Tx<'_>,
    (model, version): (i64, i64),
    description: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    let sql = "UPDATE model_versions SET description = ?3, updated_at = ?4 WHERE model = ?1 AND version = ?2";
    tx.execute(sql, bind![model, version, description, at])?;
    Ok(())
}

/// Removes a version. Its number does not come back, and what befell it stays in the history.
pub fn delete_version(
    tx: &mut Tx<'_>,
    model: &Model,
    version: &Version,
    who: &Who,
) -> Result<(), StoreError> {
    for alias in &version.aliases {
        let change = history::Move {
            model,
            target: alias,
            decision: None,
        };
        history::move_alias(tx, &change, None, who)?;
    }
    let happened = Happened {
        version: Some(version.version),
        detail: serde_json::json!({ "source": version.source, "run_id": version.run_id }),
        ..Happened::new(&model.workspace, &model.name, model.number, "version_deleted")
    };
    history::note(tx, &happened, who)?;
    let sql = "DELETE FROM model_versions WHERE model = ?1 AND version = ?2";
    tx.execute(sql, bind![model.number, version.version])?;
    models::touch(tx, model.number, who.at)
}

/// Sets a tag.
pub fn set_version_tag(
    tx: &mut Tx<'_>,
    model: i64,
    version: i64,
    key: &str,
    value: &str,
) -> Result<(), StoreError> {
    let values = bind![model, version, key, value];
    tx.upsert(
        "model_version_tags",
        "model, version, key, value",
        "model, version, key",
        values,
    )
}

/// Removes a tag, if it is there.
pub fn delete_version_tag(tx: &mut Tx<'_>, model: i64, version: i64, key: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM model_version_tags WHERE model = ?1 AND version = ?2 AND key = ?3";
    tx.execute(sql, bind![model, version, key])?;
    Ok(())
}
