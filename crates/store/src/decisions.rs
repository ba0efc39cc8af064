//! Decision records: inputs, verdict and the digest of the configuration, so that each can be replayed.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids::DecisionId;

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// What was decided.
    Verdict {
        /// The challenger may go on.
        Pass = "pass",
        /// It may not.
        Fail = "fail",
        /// Not enough data to say.
        Inconclusive = "inconclusive",
        /// The rollout takes its next step.
        Advance = "advance",
        /// The rollout stays where it is.
        Hold = "hold",
        /// The endpoint goes back.
        Rollback = "rollback",
        /// The challenger becomes the champion.
        Promote = "promote",
    }
);

/// A decision and everything that it was based on. Never changed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Names it.
    pub id: DecisionId,
    /// `gate`, `rollout`, `rollback`, …
    pub kind: String,
    /// What it is about: a model version, a rollout, an endpoint.
    pub subject: String,
    /// What was decided.
    pub verdict: Verdict,
    /// When.
    pub at: Timestamp,
    /// What was known.
    pub inputs: Value,
    /// What was measured, and why that gives the verdict.
    pub result: Value,
    /// The configuration that it was decided under.
    pub config_digest: Digest,
    /// Who decided: a part of the loop, or a person.
    pub actor: String,
}

const COLUMNS: &str = "id, kind, subject, verdict, at, inputs, result, config_digest, actor";

fn read(row: &Row<'_>) -> rusqlite::Result<DecisionRecord> {
    let mut fields = Fields::of(row);
    Ok(DecisionRecord {
        id: fields.next()?,
        kind: fields.next()?,
        subject: fields.next()?,
        verdict: fields.next()?,
        at: fields.next()?,
        inputs: fields.next()?,
        result: fields.next()?,
        config_digest: fields.next()?,
        actor: fields.next()?,
    })
}

/// Keeps a decision. The same record again changes nothing, another one under its id is a conflict.
pub fn insert(tx: &mut Tx<'_>, decision: &DecisionRecord) -> Result<(), StoreError> {
    let values = bind![
        decision.id,
        decision.kind,
        decision.subject,
        decision.verdict,
        decision.at,
        decision.inputs,
        decision.result,
        decision.config_digest,
        decision.actor
    ];
    if !tx.insert_new("decisions", COLUMNS, values)? && get(tx, &decision.id)? != *decision {
        let message = format!("`{}` is there already and says something else", decision.id);
        return Err(StoreError::conflict("decision", message));
    }
    Ok(())
}

/// A decision.
pub fn get(tx: &ReadTx<'_>, id: &DecisionId) -> Result<DecisionRecord, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM decisions WHERE id = ?1");
    tx.first(&sql, bind![id], read)?
        .ok_or_else(|| StoreError::not_found("decision", id))
}

/// The latest `limit` decisions, latest first; of one kind or of all.
pub fn list(tx: &ReadTx<'_>, kind: Option<&str>, limit: u32) -> Result<Vec<DecisionRecord>, StoreError> {
    let Some(kind) = kind else {
        let sql = format!("SELECT {COLUMNS} FROM decisions ORDER BY at DESC, id DESC LIMIT ?1");
        return tx.rows(&sql, bind![limit], read);
    };
    let sql = format!("SELECT {COLUMNS} FROM decisions WHERE kind = ?2 ORDER BY at DESC, id DESC LIMIT ?1");
    tx.rows(&sql, bind![limit, kind], read)
}

/// The decisions about a subject, latest first.
pub fn by_subject(tx: &ReadTx<'_>, subject: &str) -> Result<Vec<DecisionRecord>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM decisions WHERE subject = ?1 ORDER BY at DESC, id DESC");
    tx.rows(&sql, bind![subject], read)
}
