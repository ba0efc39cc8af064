//! Requests that a version gets an alias or a stage.

use serde::Serialize;
use tidemill_core::clock::Timestamp;

use super::Who;
use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum! {
    /// How far a request is.
    RequestState {
        /// Nobody has decided.
        Open = "open",
        /// Granted, and done.
        Approved = "approved",
        /// Refused.
        Rejected = "rejected",
    }
}

/// A request that a version gets an alias or a stage.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Request {
    /// Its number.
    pub id: i64,
    /// The version.
    pub version: i64,
    /// `alias` or `stage`.
    pub kind: String,
    /// Which alias or stage.
    pub target: String,
    /// Why, as the one who asks says.
    pub why: String,
    /// Who asks.
    pub requested_by: String,
    /// When.
    pub requested_at: Timestamp,
    /// How far it is.
    pub state: RequestState,
    /// Who decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// What the one who decided said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

const COLUMNS: &str =
    "id, version, kind, target, why, requested_by, requested_at, state, decided_by, decided_at, comment";

fn read(row: &Row<'_>) -> rusqlite::Result<Request> {
    let mut fields = Fields::of(row);
    Ok(Request {
        id: fields.next()?,
        version: fields.next()?,
        kind: fields.next()?,
        target: fields.next()?,
        why: fields.next()?,
        requested_by: fields.next()?,
        requested_at: fields.next()?,
        state: fields.next()?,
        decided_by: fields.next()?,
        decided_at: fields.next()?,
        comment: fields.next()?,
    })
}

/// Writes a request down; its number.
pub fn ask(
    tx: &mut Tx<'_>,
    (model, version): (i64, i64),
    (kind, target): (&str, &str),
    who: &Who,
) -> Result<i64, StoreError> {
    tx.one(
        "INSERT INTO approval_requests (model, version, kind, target, why, requested_by, requested_at, state) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING id",
        bind![model, version, kind, target, who.why, who.by, who.at, RequestState::Open],
        |row| Fields::of(row).next(),
    )
}

/// A request about a version, by its number.
pub fn find_request(
    tx: &ReadTx<'_>,
    (model, version): (i64, i64),
    id: i64,
) -> Result<Option<Request>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM approval_requests WHERE model = ?1 AND version = ?2 AND id = ?3");
    tx.first(&sql, bind![model, version, id], read)
}

/// The requests about a version, oldest first.
pub fn list_requests(tx: &ReadTx<'_>, (model, version): (i64, i64)) -> Result<Vec<Request>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM approval_requests WHERE model = ?1 AND version = ?2 ORDER BY id");
    tx.rows(&sql, bind![model, version], read)
}

/// Writes down what was decided; `who.why` is the comment.
pub fn decide(tx: &mut Tx<'_>, id: i64, state: RequestState, who: &Who) -> Result<(), StoreError> {
    let sql = "UPDATE approval_requests SET state = ?2, decided_by = ?3, decided_at = ?4, comment = ?5 WHERE id = ?1";
    tx.execute(sql, bind![id, state, who.by, who.at, who.why])?;
    Ok(())
}
