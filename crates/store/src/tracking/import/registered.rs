//! Registered models and their versions that come from elsewhere.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidemill_core::clock::Timestamp;

use super::{Mark, Origin, Pair, Put, mark, target};
use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tx::Tx;

/// A registered model as the source has it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegisteredModel {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// When it was registered, in milliseconds.
    pub created_ms: i64,
    /// When it was last changed, in milliseconds.
    pub updated_ms: i64,
    /// The highest number that a version of it ever had, as far as the source knows.
    pub last_version: i64,
    /// Its tags.
    pub tags: Vec<Pair>,
}

/// A model version as the source has it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Version {
    /// Its number, which it keeps.
    pub version: i64,
    /// For people.
    pub description: String,
    /// When it was registered, in milliseconds.
    pub created_ms: i64,
    /// When it was last changed, in milliseconds.
    pub updated_ms: i64,
    /// Who registered it.
    pub user_id: String,
    /// Where its files came from, as the client said.
    pub source: String,
    /// Where they are here, if that is elsewhere than `source`.
    pub storage_location: Option<String>,
    /// The run behind it.
    pub run_id: Option<String>,
    /// Where that run can be seen.
    pub run_link: Option<String>,
    /// The logged model behind it.
    pub model_id: Option<String>,
    /// `None`, `Staging`, `Production` or `Archived`.
    pub stage: String,
    /// `READY` and the like.
    pub status: String,
    /// More about the status.
    pub status_message: Option<String>,
    /// Its tags.
    pub tags: Vec<Pair>,
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_micros(ms.saturating_mul(1_000))
}

/// Puts a model in its place; its number, and what became of it. What a model of that name says of itself here stays.
pub fn put_model(
    tx: &mut Tx<'_>,
    origin: &Origin,
    model: &RegisteredModel,
) -> Result<(i64, Put), StoreError> {
    let values = bind![
        origin.workspace,
        model.name,
        model.description,
        time(model.created_ms),
        time(model.updated_ms),
        1_i64
    ];
    let columns = "workspace, name, description, created_at, updated_at, next_version";
    let created = tx.insert_new("models", columns, values)?;
    let sql = "SELECT number FROM models WHERE workspace = ?1 AND name = ?2";
    let number = tx.one(sql, bind![origin.workspace, model.name], |row| {
        Fields::of(row).next()
    })?;
    let sql = "UPDATE models SET next_version = ?1 + 1 WHERE number = ?2 AND next_version <= ?1";
    tx.execute(sql, bind![model.last_version, number])?;
    let mut changed = 0;
    if !created && target(tx, origin, "model", &model.name)?.is_some() {
        let sql = "UPDATE models SET description = ?1, updated_at = ?2 WHERE number = ?3 AND updated_at < ?2";
        changed += tx.execute(sql, bind![model.description, time(model.updated_ms), number])?;
    }
    for (key, value) in &model.tags {
        let sql = "INSERT INTO model_tags (model, key, value) VALUES (?1, ?2, ?3)
                   ON CONFLICT (model, key) DO UPDATE SET value = excluded.value WHERE model_tags.value <> excluded.value";
        changed += tx.execute(sql, bind![number, key, value])?;
    }
    if created {
        let done = brought(&model.name, &model.name);
        mark(tx, origin, "model", &done)?;
    }
    let put = match (created, changed) {
        (true, _) => Put::Created,
        (false, 0) => Put::Present,
        (false, _) => Put::Updated,
    };
    Ok((number, put))
}

fn brought(id: &str, target: &str) -> Mark {
    Mark {
        id: id.to_owned(),
        target: target.to_owned(),
        fingerprint: None,
        counts: json!({}),
    }
}

/// Puts a version under its number, unless that number is another version's.
pub fn put_version(
    tx: &mut Tx<'_>,
    origin: &Origin,
    (number, name): (i64, &str),
    version: &Version,
) -> Result<Put, StoreError> {
    let columns = "model, version, signature, metrics, created_at, updated_at, description, user_id, source, storage_location, \
                   tracked_run, run_link, model_id, stage, status, status_message";
    let values = bind![
        number,
        version.version,
        Value::Null,
        Value::Null,
        time(version.created_ms),
        time(version.updated_ms),
        version.description,
        version.user_id,
        version.source,
        version.storage_location,
        version.run_id,
        version.run_link,
        version.model_id,
        version.stage,
        version.status,
        version.status_message
    ];
    let created = tx.insert_new("model_versions", columns, values)?;
    let id = format!("{name}/{}", version.version);
    let mut changed = 0;
    if created {
        let sql = "UPDATE models SET next_version = ?1 + 1 WHERE number = ?2 AND next_version <= ?1";
        tx.execute(sql, bind![version.version, number])?;
        mark(tx, origin, "model_version", &brought(&id, &id))?;
    } else {
        let sql =
            "SELECT source, coalesce(tracked_run, '') FROM model_versions WHERE model = ?1 AND version = ?2";
        let (source, run): (String, String) = tx.one(sql, bind![number, version.version], |row| {
            let mut fields = Fields::of(row);
            Ok((fields.next()?, fields.next()?))
        })?;
        let same = source == version.source && run == version.run_id.clone().unwrap_or_default();
        if !same && target(tx, origin, "model_version", &id)?.is_none() {
            return Ok(Put::Refused(format!(
                "version {} is here already and comes from `{source}`",
                version.version
            )));
        }
        let sql = "UPDATE model_versions SET description = ?1, stage = ?2, status = ?3, status_message = ?4, updated_at = ?5
                   WHERE model = ?6 AND version = ?7 AND updated_at < ?5";
        changed += tx.execute(
            sql,
            bind![
                version.description,
                version.stage,
                version.status,
                version.status_message,
                time(version.updated_ms),
                number,
                version.version
            ],
        )?;
    }
    for (key, value) in &version.tags {
        let sql = "INSERT INTO model_version_tags (model, version, key, value) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (model, version, key) DO UPDATE SET value = excluded.value
                   WHERE model_version_tags.value <> excluded.value";
        changed += tx.execute(sql, bind![number, version.version, key, value])?;
    }
    Ok(match (created, changed) {
        (true, _) => Put::Created,
        (false, 0) => Put::Present,
        (false, _) => Put::Updated,
    })
}

/// Sets an alias, unless somebody has set it here.
pub fn put_alias(
    tx: &mut Tx<'_>,
    origin: &Origin,
    (number, name): (i64, &str),
    alias: &str,
    version: i64,
) -> Result<Put, StoreError> {
    let sql = "SELECT version FROM aliases WHERE model = ?1 AND alias = ?2";
    let here: Option<i64> = tx.first(sql, bind![number, alias], |row| Fields::of(row).next())?;
    let id = format!("{name}@{alias}");
    let put = match here {
        Some(here) if here == version => Put::Present,
        Some(here) => {
            // It may follow the source only where nobody has moved it since.
            if target(tx, origin, "alias", &id)? != Some(here.to_string()) {
                return Ok(Put::Refused(format!(
                    "alias `{alias}` names version {here} here, not {version}"
                )));
            }
            Put::Updated
        }
        None => Put::Created,
    };
    let sql = "SELECT 1 FROM model_versions WHERE model = ?1 AND version = ?2";
    if !tx.exists(sql, bind![number, version])? {
        return Ok(Put::Refused(format!(
            "alias `{alias}` names version {version}, which is not here"
        )));
    }
    if put != Put::Present {
        let at = time(origin.at_ms);
        let values = bind![number, alias, version, at];
        tx.upsert("aliases", "model, alias, version, set_at", "model, alias", values)?;
        let columns = "workspace, model, number, alias, version, at, changed_by, why";
        let why = format!("imported from {}", origin.source);
        let values = bind![origin.workspace, name, number, alias, version, at, "import", why];
        tx.insert("alias_history", columns, values)?;
    }
    mark(tx, origin, "alias", &brought(&id, &version.to_string()))?;
    Ok(put)
}
