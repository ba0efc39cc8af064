//! Labels: everything said about a prediction later. Rows are only ever appended, so what was known at any time can be read again.

use std::collections::HashMap;

use rusqlite::types::ToSql;
use serde::{Deserialize, Serialize};
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::PredictionId;
use tidemill_core::predictions::LabelValue;

use crate::column::{Bound, Fields, bind, text_enum};
use crate::db::{Row, chunk_of};
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// How far a label can be trusted.
    LabelKind {
        /// What turned out to be true.
        GroundTruth = "ground_truth",
        /// What a person says.
        Human = "human",
        /// Something that goes along with the truth.
        Proxy = "proxy",
        /// What a rule says.
        Weak = "weak",
        /// What a user's behaviour says.
        Implicit = "implicit",
    }
);

/// One thing said about a prediction.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LabelRow {
    /// The feedback's id.
    pub id: String,
    /// About which prediction, served or still unknown.
    pub prediction_id: PredictionId,
    /// Which label, such as `delayed`.
    pub label: String,
    /// Its value.
    pub value: LabelValue,
    /// How far it can be trusted.
    pub kind: LabelKind,
    /// Who says so.
    pub source: String,
    /// Makes a request safe to repeat, within its source.
    pub idempotency_key: Option<String>,
    /// When it became true.
    pub event_time: Timestamp,
    /// When it was told.
    pub ingest_time: Timestamp,
    /// Takes the label back instead of giving one.
    pub retracted: bool,
}

impl LabelRow {
    /// Whether a repeated request says the same. A time that was filled in on arrival is no part of what was said.
    fn says_the_same(&self, other: &Self) -> bool {
        let defaulted = |row: &Self| row.event_time == row.ingest_time;
        self.prediction_id == other.prediction_id
            && self.label == other.label
            && self.value == other.value
            && self.kind == other.kind
            && self.source == other.source
            && self.retracted == other.retracted
            && (self.event_time == other.event_time || (defaulted(self) && defaulted(other)))
    }
}

/// What became of a label.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Kept.
    Created,
    /// Said before; nothing was written.
    Repeated,
    /// Kept, and it changes what was said before.
    Corrected,
    /// Its id or idempotency key stands for something else; nothing was written.
    Conflict,
}

/// The receipt for a label.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// Under which id it is kept: the earlier one's if it was said before.
    pub feedback_id: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// A prediction's label as known at some time.
#[derive(Clone, PartialEq, Debug)]
pub struct KnownLabel {
    /// Which prediction.
    pub prediction_id: PredictionId,
    /// What was true.
    pub value: LabelValue,
    /// When that was told.
    pub ingest_time: Timestamp,
}

const WAITING: &str = "label_id, prediction_id, ingest_time, checked";
const COLUMNS: &str =
    "id, prediction_id, label, value, kind, source, idempotency_key, event_time, ingest_time, retracted";

fn read(row: &Row<'_>) -> rusqlite::Result<LabelRow> {
    let mut fields = Fields::of(row);
    Ok(LabelRow {
        id: fields.next()?,
        prediction_id: fields.next()?,
        label: fields.next()?,
        value: fields.next()?,
        kind: fields.next()?,
        source: fields.next()?,
        idempotency_key: fields.next()?,
        event_time: fields.next()?,
        ingest_time: fields.next()?,
        retracted: fields.next()?,
    })
}

/// Records labels in order, one receipt each.
pub fn record(tx: &mut Tx<'_>, rows: &[LabelRow]) -> Result<Vec<Recorded>, StoreError> {
    rows.iter().map(|row| record_one(tx, row)).collect()
}

fn record_one(tx: &mut Tx<'_>, row: &LabelRow) -> Result<Recorded, StoreError> {
    let by = |condition: &str| format!("SELECT {COLUMNS} FROM labels WHERE {condition}");
    let answer = |feedback_id: &str, outcome| {
        Ok(Recorded {
            feedback_id: feedback_id.to_owned(),
            outcome,
        })
    };
    if let LabelValue::Number(number) = row.value
        && !number.is_finite()
    {
        // JSON has no word for it, so it could be written but not read back.
        let message = format!(
            "`{}` has the value `{number}`: expected a finite number, a text, true or false",
            row.id
        );
        return Err(StoreError::conflict("label", message));
    }
    if let Some(key) = &row.idempotency_key
        && let Some(stored) = tx.first(
            &by("source = ?1 AND idempotency_key = ?2"),
            bind![row.source, key],
            read,
        )?
    {
        let same = stored.says_the_same(row);
        let outcome = if same {
            Outcome::Repeated
        } else {
            Outcome::Conflict
        };
        return answer(&stored.id, outcome);
    }
    let earlier = tx.rows(
        &by("prediction_id = ?1 AND label = ?2 ORDER BY ingest_time DESC, seq DESC"),
        bind![row.prediction_id, row.label],
        read,
    )?;
    if let Some(own) = earlier.iter().find(|stored| stored.source == row.source)
        && own.value == row.value
        && own.retracted == row.retracted
    {
        return answer(&own.id, Outcome::Repeated);
    }
    let values = bind![
        row.id,
        row.prediction_id,
        row.label,
        row.value,
        row.kind,
        row.source,
        row.idempotency_key,
        row.event_time,
        row.ingest_time,
        row.retracted
    ];
    if !tx.insert_new("labels", COLUMNS, values)? {
        let Some(stored) = tx.first(&by("id = ?1"), bind![row.id], read)? else {
            return Err(StoreError::conflict(
                "label",
                format!("`{}` cannot be kept", row.id),
            ));
        };
        let same = stored.says_the_same(row);
        let outcome = if same {
            Outcome::Repeated
        } else {
            Outcome::Conflict
        };
        return answer(&stored.id, outcome);
    }
    let changes = earlier
        .first()
        .is_some_and(|standing| standing.value != row.value || standing.retracted != row.retracted);
    answer(
        &row.id,
        if changes {
            Outcome::Corrected
        } else {
            Outcome::Created
        },
    )
}

/// The label of each of `ids` that has one, as known at `as_of`: of each prediction the latest that was told by then, unless that one took
/// it back; in the order of `ids`, and also of predictions that are not recorded.
pub fn labels_of(
    tx: &ReadTx<'_>,
    ids: &[PredictionId],
    label: &str,
    as_of: Timestamp,
) -> Result<Vec<KnownLabel>, StoreError> {
    let mut latest: HashMap<PredictionId, Option<(LabelValue, Timestamp)>> = HashMap::new();
    let mut rest = ids;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(chunk_of(rest.len()));
        let marks: Vec<String> = (3..chunk.len() + 3).map(|mark| format!("?{mark}")).collect();
        let sql = format!(
            "SELECT prediction_id, value, ingest_time, retracted FROM labels \
             WHERE label = ?1 AND ingest_time <= ?2 AND prediction_id IN ({}) ORDER BY prediction_id, ingest_time, seq",
            marks.join(", ")
        );
        let wanted: Vec<Bound<'_, PredictionId>> = chunk.iter().map(Bound).collect();
        let (label, as_of) = (Bound(&label), Bound(&as_of));
        let mut params: Vec<&dyn ToSql> = vec![&label, &as_of];
        params.extend(wanted.iter().map(|id| id as &dyn ToSql));
        tx.each(&sql, &params, |row| {
            let mut fields = Fields::of(row);
            let id = fields.next()?;
            let told = (fields.next()?, fields.next()?);
            let retracted: bool = fields.next()?;
            // Later rows come later.
            latest.insert(id, (!retracted).then_some(told));
            Ok(())
        })?;
        rest = after;
    }
    let known = |id: &PredictionId| {
        let (value, ingest_time) = latest.get(id)?.clone()?;
        Some(KnownLabel {
            prediction_id: id.clone(),
            value,
            ingest_time,
        })
    };
    Ok(ids.iter().filter_map(known).collect())
}

/// How many labels of this name were told, corrections included.
pub fn count(tx: &ReadTx<'_>, label: &str) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM labels WHERE label = ?1";
    tx.one(sql, bind![label], |row| Fields::of(row).next())
}

/// How many labels of this name were told after `ingest_time`, corrections included.
pub fn count_since(tx: &ReadTx<'_>, label: &str, ingest_time: Timestamp) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM labels WHERE label = ?1 AND ingest_time > ?2";
    tx.one(sql, bind![label, ingest_time], |row| Fields::of(row).next())
}

/// A label whose prediction is not known yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaitingLabel {
    /// The label's id.
    pub label_id: String,
    /// The prediction that it is about.
    pub prediction_id: PredictionId,
    /// When it was told.
    pub ingest_time: Timestamp,
    /// The newest file of the prediction log that was looked into for it.
    pub checked: i64,
}

/// Remembers that the predictions of these labels are not known yet.
pub fn wait(tx: &mut Tx<'_>, waiting: &[WaitingLabel]) -> Result<(), StoreError> {
    for label in waiting {
        let values = bind![
            label.label_id,
            label.prediction_id,
            label.ingest_time,
            label.checked
        ];
        tx.upsert("labels_waiting", WAITING, "label_id", values)?;
    }
    Ok(())
}

/// Labels whose predictions are not known yet and that were not looked for in all files up to `newest`, at most `limit` of them.
pub fn waiting(tx: &ReadTx<'_>, newest: i64, limit: u32) -> Result<Vec<WaitingLabel>, StoreError> {
    let sql = format!("SELECT {WAITING} FROM labels_waiting WHERE checked < ?1 ORDER BY label_id LIMIT ?2");
    tx.rows(&sql, bind![newest, limit], |row| {
        let mut fields = Fields::of(row);
        Ok(WaitingLabel {
            label_id: fields.next()?,
            prediction_id: fields.next()?,
            ingest_time: fields.next()?,
            checked: fields.next()?,
        })
    })
}

/// The predictions of these labels are known now.
pub fn found(tx: &mut Tx<'_>, label_ids: &[String]) -> Result<(), StoreError> {
    for id in label_ids {
        tx.execute("DELETE FROM labels_waiting WHERE label_id = ?1", bind![id])?;
    }
    Ok(())
}

/// How many labels told before `older_than` are about a prediction that is not known.
pub fn unmatched(tx: &ReadTx<'_>, older_than: Timestamp) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM labels_waiting WHERE ingest_time < ?1";
    tx.one(sql, bind![older_than], |row| Fields::of(row).next())
}

/// Everything said about a prediction, in the order in which it was told.
pub fn history_of(tx: &ReadTx<'_>, prediction: &PredictionId) -> Result<Vec<LabelRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM labels WHERE prediction_id = ?1 ORDER BY ingest_time, seq");
    tx.rows(&sql, bind![prediction], read)
}

#[cfg(test)]
#[path = "labels_tests.rs"]
mod tests;
