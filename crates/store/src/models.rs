//! Registered models, their versions, their aliases, and who moved an alias when and why.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{DecisionId, ModelName, RunId, VersionNumber};

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// A registered model.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RegisteredModel {
    /// Its name.
    pub name: ModelName,
    /// When it was first registered.
    pub created_at: Timestamp,
    /// What it is for.
    pub description: String,
}

/// A version of a registered model.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ModelVersion {
    /// Of which model.
    pub model: ModelName,
    /// Its number, from 1.
    pub version: VersionNumber,
    /// The run that made it.
    pub run: RunId,
    /// Its files.
    pub bundle: Digest,
    /// What it was trained on.
    pub snapshot: Digest,
    /// `ModelSignature` as JSON.
    pub signature: Value,
    /// What its run measured.
    pub metrics: Value,
    /// When it was registered.
    pub created_at: Timestamp,
    /// For people.
    pub description: String,
}

/// A version that has no number yet.
#[derive(Clone, PartialEq, Debug)]
pub struct NewVersion {
    /// [`ModelVersion::model`].
    pub model: ModelName,
    /// [`ModelVersion::run`].
    pub run: RunId,
    /// [`ModelVersion::bundle`].
    pub bundle: Digest,
    /// [`ModelVersion::snapshot`].
    pub snapshot: Digest,
    /// [`ModelVersion::signature`].
    pub signature: Value,
    /// [`ModelVersion::metrics`].
    pub metrics: Value,
    /// [`ModelVersion::created_at`].
    pub created_at: Timestamp,
    /// [`ModelVersion::description`].
    pub description: String,
}

/// A name for one version of a model.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Alias {
    /// Of which model.
    pub model: ModelName,
    /// Such as `champion`.
    pub alias: String,
    /// The version it names.
    pub version: VersionNumber,
    /// Since when.
    pub set_at: Timestamp,
}

/// One entry of the history of aliases.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AliasChange {
    /// Of which model.
    pub model: ModelName,
    /// Which alias.
    pub alias: String,
    /// The version it named from then on; `None` if it was removed.
    pub version: Option<VersionNumber>,
    /// When.
    pub at: Timestamp,
    /// Who: a person, or the part of the loop.
    pub by: String,
    /// Why, for people.
    pub why: String,
    /// The decision behind it.
    pub decision: Option<DecisionId>,
}

/// The loop works in the default workspace, and on versions that it can load: those with a bundle. Versions that clients
/// registered without one are not among them.
const VERSIONS: &str = "SELECT m.name, v.version, v.run, v.bundle, v.snapshot, v.signature, v.metrics, v.created_at, v.description \
     FROM model_versions v JOIN models m ON m.number = v.model \
     WHERE m.workspace = 'default' AND v.run IS NOT NULL AND v.bundle IS NOT NULL AND v.snapshot IS NOT NULL";
const ALIASES: &str = "SELECT m.name, a.alias, a.version, a.set_at FROM aliases a JOIN models m ON m.number = a.model \
     WHERE m.workspace = 'default'";
const CHANGE_COLUMNS: &str = "model, alias, version, at, changed_by, why, decision";

fn read_model(row: &Row<'_>) -> rusqlite::Result<RegisteredModel> {
    let mut fields = Fields::of(row);
    Ok(RegisteredModel {
        name: fields.next()?,
        created_at: fields.next()?,
        description: fields.next()?,
    })
}

fn read_version(row: &Row<'_>) -> rusqlite::Result<ModelVersion> {
    let mut fields = Fields::of(row);
    Ok(ModelVersion {
        model: fields.next()?,
        version: fields.next()?,
        run: fields.next()?,
        bundle: fields.next()?,
        snapshot: fields.next()?,
        signature: fields.next()?,
        metrics: fields.next()?,
        created_at: fields.next()?,
        description: fields.next()?,
    })
}

fn read_alias(row: &Row<'_>) -> rusqlite::Result<Alias> {
    let mut fields = Fields::of(row);
    Ok(Alias {
        model: fields.next()?,
        alias: fields.next()?,
        version: fields.next()?,
        set_at: fields.next()?,
    })
}

fn read_change(row: &Row<'_>) -> rusqlite::Result<AliasChange> {
    let mut fields = Fields::of(row);
    Ok(AliasChange {
        model: fields.next()?,
        alias: fields.next()?,
        version: fields.next()?,
        at: fields.next()?,
        by: fields.next()?,
        why: fields.next()?,
        decision: fields.next()?,
    })
}

/// Registers a model; whether it is new.
pub fn ensure_model(tx: &mut Tx<'_>, model: &RegisteredModel) -> Result<bool, StoreError> {
    let values = bind![
        "default",
        model.name,
        model.created_at,
        model.created_at,
        model.description,
        1_i64
    ];
    let columns = "workspace, name, created_at, updated_at, description, next_version";
    tx.insert_new("models", columns, values)
}

/// A registered model.
pub fn get_model(tx: &ReadTx<'_>, name: &ModelName) -> Result<RegisteredModel, StoreError> {
    let sql = "SELECT name, created_at, description FROM models WHERE workspace = 'default' AND name = ?1";
    tx.first(sql, bind![name], read_model)?
        .ok_or_else(|| StoreError::not_found("model", name))
}

/// All registered models by name.
pub fn list_models(tx: &ReadTx<'_>) -> Result<Vec<RegisteredModel>, StoreError> {
    let sql = "SELECT name, created_at, description FROM models WHERE workspace = 'default' ORDER BY name";
    tx.rows(sql, bind![], read_model)
}

/// The number that stands for a model in the tables of versions.
fn number_of(tx: &ReadTx<'_>, name: &ModelName) -> Result<i64, StoreError> {
    let sql = "SELECT number FROM models WHERE workspace = 'default' AND name = ?1";
    tx.first(sql, bind![name], |row| Fields::of(row).next())?
        .ok_or_else(|| StoreError::not_found("model", name))
}

/// Registers a version under the next number, and the model if it is new. A run registers at most one version of a model: asking
/// again returns the one it has, and another bundle of the same run is a conflict.
pub fn register_version(tx: &mut Tx<'_>, new: NewVersion) -> Result<ModelVersion, StoreError> {
    if let Some(registered) = version_of_run(tx, &new.model, &new.run)? {
        if registered.bundle != new.bundle {
            let message = format!(
                "run `{}` registered version {} of `{}` with other files",
                new.run, registered.version, new.model
            );
            return Err(StoreError::conflict("model version", message));
        }
        return Ok(registered);
    }
    let model = RegisteredModel {
        name: new.model.clone(),
        created_at: new.created_at,
        description: String::new(),
    };
    ensure_model(tx, &model)?;
    let number = number_of(tx, &new.model)?;
    let version: VersionNumber = tx.one(
        "UPDATE models SET next_version = next_version + 1, updated_at = ?2 WHERE number = ?1 RETURNING next_version - 1",
        bind![number, new.created_at],
        |row| Fields::of(row).next(),
    )?;
    let values = bind![
        number,
        version,
        new.run,
        new.bundle,
        new.snapshot,
        new.signature,
        new.metrics,
        new.created_at,
        new.created_at,
        new.description,
        "tidemill",
        format!("runs:/{}/model", new.run),
        new.run,
        "None",
        "READY"
    ];
    let columns = "model, version, run, bundle, snapshot, signature, metrics, created_at, updated_at, description, \
         user_id, source, tracked_run, stage, status";
    tx.insert("model_versions", columns, values)?;
    get_version(tx, &new.model, version)
}

/// A version of a model.
pub fn get_version(
    tx: &ReadTx<'_>,
    model: &ModelName,
    version: VersionNumber,
) -> Result<ModelVersion, StoreError> {
    let sql = format!("{VERSIONS} AND m.name = ?1 AND v.version = ?2");
    tx.first(&sql, bind![model, version], read_version)?
        .ok_or_else(|| StoreError::not_found("model version", format!("{model}/{version}")))
}

/// The version that a run registered.
pub fn version_of_run(
    tx: &ReadTx<'_>,
    model: &ModelName,
    run: &RunId,
) -> Result<Option<ModelVersion>, StoreError> {
    let sql = format!("{VERSIONS} AND m.name = ?1 AND v.run = ?2");
    tx.first(&sql, bind![model, run], read_version)
}

/// The versions of a model, latest first.
pub fn list_versions(tx: &ReadTx<'_>, model: &ModelName) -> Result<Vec<ModelVersion>, StoreError> {
    let sql = format!("{VERSIONS} AND m.name = ?1 ORDER BY v.version DESC");
    tx.rows(&sql, bind![model], read_version)
}

/// Points an alias at a version, or removes it, and appends to its history. Setting what is set already changes nothing; returns
/// whether anything changed.
pub fn set_alias(tx: &mut Tx<'_>, change: &AliasChange) -> Result<bool, StoreError> {
    let current = get_alias(tx, &change.model, &change.alias)?.map(|alias| alias.version);
    if current == change.version {
        return Ok(false);
    }
    let number = number_of(tx, &change.model)?;
    match change.version {
        Some(version) => {
            get_version(tx, &change.model, version)?;
            let values = bind![number, change.alias, version, change.at];
            tx.upsert("aliases", "model, alias, version, set_at", "model, alias", values)?;
        }
        None => {
            let sql = "DELETE FROM aliases WHERE model = ?1 AND alias = ?2";
            tx.execute(sql, bind![number, change.alias])?;
        }
    }
    let values = bind![
        "default",
        number,
        change.model,
        change.alias,
        change.version,
        change.at,
        change.by,
        change.why,
        change.decision
    ];
    tx.insert(
        "alias_history",
        &format!("workspace, number, {CHANGE_COLUMNS}"),
        values,
    )?;
    Ok(true)
}

/// What an alias names.
pub fn get_alias(tx: &ReadTx<'_>, model: &ModelName, alias: &str) -> Result<Option<Alias>, StoreError> {
    let sql = format!("{ALIASES} AND m.name = ?1 AND a.alias = ?2");
    tx.first(&sql, bind![model, alias], read_alias)
}

/// The aliases of a model by name.
pub fn list_aliases(tx: &ReadTx<'_>, model: &ModelName) -> Result<Vec<Alias>, StoreError> {
    let sql = format!("{ALIASES} AND m.name = ?1 ORDER BY a.alias");
    tx.rows(&sql, bind![model], read_alias)
}

/// Every change of a model's aliases, oldest first.
pub fn history(tx: &ReadTx<'_>, model: &ModelName) -> Result<Vec<AliasChange>, StoreError> {
    let sql = format!(
        "SELECT {CHANGE_COLUMNS} FROM alias_history WHERE workspace = 'default' AND model = ?1 ORDER BY seq"
    );
    tx.rows(&sql, bind![model], read_change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, digest, temp_store};

    fn version(run: &str) -> NewVersion {
        NewVersion {
            model: "delay".into(),
            run: run.into(),
            bundle: digest(run),
            snapshot: digest("snapshot"),
            signature: Value::Null,
            metrics: serde_json::json!({"auc": 0.75}),
            created_at: at(1),
            description: String::new(),
        }
    }

    fn change(version: Option<u32>, time: i64) -> AliasChange {
        AliasChange {
            model: "delay".into(),
            alias: "champion".to_owned(),
            version: version.map(VersionNumber),
            at: at(time),
            by: "test".to_owned(),
            why: "because".to_owned(),
            decision: None,
        }
    }

    #[test]
    fn a_run_registers_one_version_however_often_it_asks() {
        let (_dir, store) = temp_store();
        let numbers = store
            .write_blocking(|tx| {
                let first = register_version(tx, version("a"))?.version;
                let second = register_version(tx, version("b"))?.version;
                let again = register_version(tx, version("a"))?.version;
                Ok((first, second, again))
            })
            .unwrap();
        assert_eq!(numbers, (VersionNumber(1), VersionNumber(2), VersionNumber(1)));
        let other_files = NewVersion {
            bundle: digest("z"),
            ..version("a")
        };
        let error = store
            .write_blocking(move |tx| register_version(tx, other_files))
            .unwrap_err();
        assert_eq!(error.code(), "conflict");
        assert_eq!(
            store
                .read_blocking(|tx| list_versions(tx, &"delay".into()))
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn an_alias_keeps_its_whole_history_and_names_only_what_exists() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                register_version(tx, version("a"))?;
                register_version(tx, version("b"))?;
                assert!(set_alias(tx, &change(Some(1), 1))?);
                assert!(!set_alias(tx, &change(Some(1), 2))?);
                assert!(set_alias(tx, &change(Some(2), 3))?);
                assert!(set_alias(tx, &change(None, 4))?);
                assert!(set_alias(tx, &change(Some(9), 5)).unwrap_err().is_not_found());
                Ok(())
            })
            .unwrap();
        let changes = store.read_blocking(|tx| history(tx, &"delay".into())).unwrap();
        let versions: Vec<_> = changes.iter().map(|c| c.version.map(|v| v.0)).collect();
        assert_eq!(versions, [Some(1), Some(2), None]);
        assert!(
            store
                .read_blocking(|tx| list_aliases(tx, &"delay".into()))
                .unwrap()
                .is_empty()
        );
    }
}
