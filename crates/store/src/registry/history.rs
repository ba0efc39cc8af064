//! Moves of aliases and stages, and what else befell a model. Only ever appended to.

use serde::Serialize;
use serde_json::{Value, json};
use tidemill_core::clock::Timestamp;

use super::{Model, Who, models, versions};
use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// An alias or a stage of a model is about to move.
#[derive(Debug)]
pub struct Move<'a> {
    /// Of which model.
    pub model: &'a Model,
    /// Which alias or stage.
    pub target: &'a str,
    /// The decision record or approval behind it.
    pub decision: Option<String>,
}

/// Points an alias at a version, or removes it; whether that changed anything. The version must exist.
pub fn move_alias(
    tx: &mut Tx<'_>,
    change: &Move<'_>,
    to: Option<i64>,
    who: &Who,
) -> Result<bool, StoreError> {
    let number = change.model.number;
    if versions::alias_target(tx, number, change.target)? == to {
        return Ok(false);
    }
    match to {
        Some(version) => {
            let values = bind![number, change.target, version, who.at];
            tx.upsert("aliases", "model, alias, version, set_at", "model, alias", values)?;
        }
        None => {
            let sql = "DELETE FROM aliases WHERE model = ?1 AND alias = ?2";
            tx.execute(sql, bind![number, change.target])?;
        }
    }
    let values = bind![
        change.model.workspace,
        change.model.name,
        number,
        change.target,
        to,
        who.at,
        who.by,
        who.why,
        change.decision
    ];
    let columns = "workspace, model, number, alias, version, at, changed_by, why, decision";
    tx.insert("alias_history", columns, values)?;
    Ok(true)
}

/// Puts a version into a stage. Being there already is written down as well.
pub fn move_stage(
    tx: &mut Tx<'_>,
    change: &Move<'_>,
    version: i64,
    from: &str,
    who: &Who,
) -> Result<(), StoreError> {
    let number = change.model.number;
    let sql = "UPDATE model_versions SET stage = ?3, updated_at = ?4 WHERE model = ?1 AND version = ?2";
    tx.execute(sql, bind![number, version, change.target, who.at])?;
    models::touch(tx, number, who.at)?;
    let values = bind![
        change.model.workspace,
        change.model.name,
        number,
        version,
        from,
        change.target,
        who.at,
        who.by,
        who.why,
        change.decision
    ];
    let columns = "workspace, model, number, version, from_stage, to_stage, at, changed_by, why, decision";
    tx.insert("stage_history", columns, values)
}

/// Something else that befell a model.
#[derive(Clone, Debug)]
pub struct Happened {
    /// Where its name is looked up.
    pub workspace: String,
    /// Its name at that time.
    pub model: String,
    /// Its number.
    pub number: i64,
    /// The version, where it is about one.
    pub version: Option<i64>,
    /// What: `created`, `renamed`, `deleted`, `version_deleted`, `requested`, `approved`, `rejected`.
    pub kind: String,
    /// More, as JSON.
    pub detail: Value,
}

impl Happened {
    /// Without a version and details.
    pub fn new(workspace: &str, model: &str, number: i64, kind: &str) -> Self {
        Self {
            workspace: workspace.to_owned(),
            model: model.to_owned(),
            number,
            version: None,
            kind: kind.to_owned(),
            detail: json!({}),
        }
    }
}

/// Appends to the history.
pub fn note(tx: &mut Tx<'_>, happened: &Happened, who: &Who) -> Result<(), StoreError> {
    let values = bind![
        happened.workspace,
        happened.model,
        happened.number,
        happened.version,
        happened.kind,
        happened.detail,
        who.at,
        who.by,
        who.why
    ];
    let columns = "workspace, model, number, version, kind, detail, at, changed_by, why";
    tx.insert("registry_history", columns, values)
}

/// One line of a model's history.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Entry {
    /// `alias_moved`, `stage_moved`, or as in [`Happened::kind`].
    pub kind: String,
    /// The model's name at that time.
    pub model: String,
    /// The version, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// What moved and how, by kind.
    pub detail: Value,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// The decision record behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
}

const OF_MODEL: &str = "((workspace = ?1 AND model = ?2) OR number = ?3 OR number IN \
     (SELECT number FROM registry_history WHERE workspace = ?1 AND model = ?2))";

/// Everything that befell the models that have or had this name, under all of their names; oldest first.
pub fn audit(
    tx: &ReadTx<'_>,
    workspace: &str,
    name: &str,
    number: Option<i64>,
) -> Result<Vec<Entry>, StoreError> {
    let number = number.unwrap_or(-1);
    let mut entries = tx.rows(
        &format!(
            "SELECT model, version, alias, at, changed_by, why, decision FROM alias_history \
         WHERE {OF_MODEL} ORDER BY seq"
        ),
        bind![workspace, name, number],
        |row| {
            let mut fields = Fields::of(row);
            let (model, version) = (fields.next()?, fields.next()?);
            Ok(Entry {
                kind: "alias_moved".to_owned(),
                model,
                version,
                detail: json!({ "alias": fields.next::<String>()? }),
                at: fields.next()?,
                by: fields.next()?,
                why: fields.next()?,
                decision: fields.next()?,
            })
        },
    )?;
    entries.extend(tx.rows(
        &format!(
            "SELECT model, version, from_stage, to_stage, at, changed_by, why, decision FROM stage_history \
         WHERE {OF_MODEL} ORDER BY seq"
        ),
        bind![workspace, name, number],
        |row| {
            let mut fields = Fields::of(row);
            let (model, version) = (fields.next()?, fields.next()?);
            let (from, to) = (fields.next::<String>()?, fields.next::<String>()?);
            Ok(Entry {
                kind: "stage_moved".to_owned(),
                model,
                version: Some(version),
                detail: json!({ "from": from, "to": to }),
                at: fields.next()?,
                by: fields.next()?,
                why: fields.next()?,
                decision: fields.next()?,
            })
        },
    )?);
    entries.extend(tx.rows(
        &format!(
            "SELECT model, version, kind, detail, at, changed_by, why FROM registry_history \
         WHERE {OF_MODEL} ORDER BY seq"
        ),
        bind![workspace, name, number],
        |row| {
            let mut fields = Fields::of(row);
            let (model, version) = (fields.next()?, fields.next()?);
            Ok(Entry {
                kind: fields.next()?,
                model,
                version,
                detail: fields.next()?,
                at: fields.next()?,
                by: fields.next()?,
                why: fields.next()?,
                decision: None,
            })
        },
    )?);
    // Stable: what happened at the same moment stays in the order of its table.
    entries.sort_by_key(|entry| entry.at);
    Ok(entries)
}
