//! What has been brought from where.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// Where things come from, and which workspace they go to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The workspace here.
    pub workspace: String,
    /// The source, as the importer names it.
    pub source: String,
    /// When, in milliseconds.
    pub at_ms: i64,
}

/// A thing that was brought.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// What it is called in the source.
    pub id: String,
    /// What it is called here.
    pub target: String,
    /// Of its content in the source, if it has come whole.
    pub fingerprint: Option<String>,
    /// How much of it came.
    pub counts: Value,
}

/// Remembers a thing.
pub fn mark(tx: &mut Tx<'_>, origin: &Origin, kind: &str, mark: &Mark) -> Result<(), StoreError> {
    tx.upsert(
        "imports",
        "workspace, source, kind, id, target, fingerprint, counts, at_ms",
        "workspace, source, kind, id",
        bind![
            origin.workspace,
            origin.source,
            kind,
            mark.id,
            mark.target,
            mark.fingerprint,
            mark.counts,
            origin.at_ms
        ],
    )
}

/// What a thing is called here, if it was brought.
pub fn target(tx: &ReadTx<'_>, origin: &Origin, kind: &str, id: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT target FROM imports WHERE workspace = ?1 AND source = ?2 AND kind = ?3 AND id = ?4";
    tx.first(sql, bind![origin.workspace, origin.source, kind, id], |row| {
        Fields::of(row).next()
    })
}

/// Which of these things (id, fingerprint) have come whole as they are now, and are still here.
pub fn known(
    tx: &ReadTx<'_>,
    origin: &Origin,
    kind: &str,
    things: &[(String, String)],
) -> Result<Vec<Mark>, StoreError> {
    let mut sql = "SELECT id, target, fingerprint, counts FROM imports
                   WHERE workspace = ?1 AND source = ?2 AND kind = ?3 AND id = ?4 AND fingerprint = ?5"
        .to_owned();
    sql.push_str(match kind {
        "run" => " AND target IN (SELECT run_id FROM tracked_runs)",
        "logged_model" => " AND target IN (SELECT model_id FROM logged_models)",
        "registered_model" => " AND target IN (SELECT name FROM models WHERE workspace = ?1)",
        _ => "",
    });
    let mut found = Vec::new();
    for (id, fingerprint) in things {
        let params = bind![origin.workspace, origin.source, kind, id, fingerprint];
        found.extend(tx.first(&sql, params, |row| {
            let mut fields = Fields::of(row);
            Ok(Mark {
                id: fields.next()?,
                target: fields.next()?,
                fingerprint: fields.next()?,
                counts: fields.next()?,
            })
        })?);
    }
    Ok(found)
}
