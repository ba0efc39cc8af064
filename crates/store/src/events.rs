//! The event log: what happened, in the order in which it became durable.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::clock::Timestamp;

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// Something that happened to a subject.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the log, from 1, rising.
    pub seq: i64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened, such as `rollout.advanced`.
    pub kind: String,
    /// The kind of thing that it happened to, such as `rollout`.
    pub subject_kind: String,
    /// The id or name of that thing.
    pub subject: String,
    /// The rest.
    pub payload: Value,
}

const COLUMNS: &str = "seq, at, kind, subject_kind, subject, payload";

fn read(row: &Row<'_>) -> rusqlite::Result<Event> {
    let mut fields = Fields::of(row);
    Ok(Event {
        seq: fields.next()?,
        at: fields.next()?,
        kind: fields.next()?,
        subject_kind: fields.next()?,
        subject: fields.next()?,
        payload: fields.next()?,
    })
}

pub(crate) fn append(
    tx: &mut Tx<'_>,
    at: Timestamp,
    kind: &str,
    subject_kind: &str,
    subject: &str,
    payload: Value,
) -> Result<Event, StoreError> {
    let seq = tx.one(
        "INSERT INTO events (at, kind, subject_kind, subject, payload) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING seq",
        bind![at, kind, subject_kind, subject, payload],
        |row| Fields::of(row).next(),
    )?;
    Ok(Event {
        seq,
        at,
        kind: kind.to_owned(),
        subject_kind: subject_kind.to_owned(),
        subject: subject.to_owned(),
        payload,
    })
}

/// Up to `limit` events after `seq`, oldest first; with `kind_prefix`, only those whose kind starts with it.
pub fn list_after(
    tx: &ReadTx<'_>,
    seq: i64,
    limit: u32,
    kind_prefix: Option<&str>,
) -> Result<Vec<Event>, StoreError> {
    let Some(prefix) = kind_prefix else {
        let sql = format!("SELECT {COLUMNS} FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2");
        return tx.rows(&sql, bind![seq, limit], read);
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM events WHERE seq > ?1 AND kind >= ?3 AND kind < ?4 ORDER BY seq LIMIT ?2"
    );
    let after_prefix = format!("{prefix}{}", char::MAX);
    tx.rows(&sql, bind![seq, limit, prefix, after_prefix], read)
}

/// The latest `limit` events, latest first.
pub fn recent(tx: &ReadTx<'_>, limit: u32) -> Result<Vec<Event>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM events ORDER BY seq DESC LIMIT ?1");
    tx.rows(&sql, bind![limit], read)
}

/// The latest `limit` events of one subject, latest first.
pub fn of_subject(
    tx: &ReadTx<'_>,
    subject_kind: &str,
    subject: &str,
    limit: u32,
) -> Result<Vec<Event>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM events WHERE subject_kind = ?1 AND subject = ?2 ORDER BY seq DESC LIMIT ?3"
    );
    tx.rows(&sql, bind![subject_kind, subject, limit], read)
}

/// The number of the latest event, 0 if there is none.
pub fn last_seq(tx: &ReadTx<'_>) -> Result<i64, StoreError> {
    tx.one("SELECT coalesce(max(seq), 0) FROM events", bind![], |row| {
        Fields::of(row).next()
    })
}
