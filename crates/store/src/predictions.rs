//! The index of the prediction log: which file holds which prediction. The files are objects.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, PredictionId};

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// A file of the prediction log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PredictionFile {
    /// Its number; ignored when it is recorded.
    pub id: i64,
    /// Which endpoint served what it holds.
    pub endpoint: EndpointName,
    /// On which UTC day, `2013-05-17`.
    pub day: String,
    /// The segment of the write-ahead log that it was made from: each is recorded once.
    pub segment: String,
    /// Names its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Predictions in it.
    pub rows: u64,
    /// The time of its first prediction.
    pub from_at: Timestamp,
    /// The time of its last prediction.
    pub until_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What became of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordedFile {
    /// Its number.
    pub id: i64,
    /// Whether it is new; otherwise its segment was recorded before, and nothing was written.
    pub created: bool,
    /// Predictions that nobody had recorded before: an id that was served twice counts where it was recorded first.
    pub predictions: u64,
}

const COLUMNS: &str = "id, endpoint, day, segment, digest, size, rows, from_at, until_at, created_at";

fn read(row: &Row<'_>) -> rusqlite::Result<PredictionFile> {
    let mut fields = Fields::of(row);
    Ok(PredictionFile {
        id: fields.next()?,
        endpoint: fields.next()?,
        day: fields.next()?,
        segment: fields.next()?,
        digest: fields.next()?,
        size: fields.next()?,
        rows: fields.next()?,
        from_at: fields.next()?,
        until_at: fields.next()?,
        created_at: fields.next()?,
    })
}

fn endpoint_number(tx: &mut Tx<'_>, endpoint: &EndpointName) -> Result<i64, StoreError> {
    tx.insert_new("prediction_endpoints", "endpoint", bind![endpoint])?;
    let sql = "SELECT number FROM prediction_endpoints WHERE endpoint = ?1";
    tx.one(sql, bind![endpoint], |row| Fields::of(row).next())
}

/// Records a file and the predictions in it. A segment is recorded once: after a crash it may be made into a file again.
pub fn record_file(
    tx: &mut Tx<'_>,
    file: &PredictionFile,
    predictions: &[(PredictionId, Timestamp)],
) -> Result<RecordedFile, StoreError> {
    let stored = tx.first(
        "SELECT id FROM prediction_files WHERE segment = ?1",
        bind![file.segment],
        |row| Fields::of(row).next(),
    )?;
    if let Some(id) = stored {
        return Ok(RecordedFile {
            id,
            created: false,
            predictions: 0,
        });
    }
    let id = tx.one(
        "INSERT INTO prediction_files (endpoint, day, segment, digest, size, rows, from_at, until_at, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id",
        bind![
            file.endpoint,
            file.day,
            file.segment,
            file.digest,
            file.size,
            file.rows,
            file.from_at,
            file.until_at,
            file.created_at
        ],
        |row| Fields::of(row).next::<i64>(),
    )?;
    let endpoint = endpoint_number(tx, &file.endpoint)?;
    let mut recorded = 0;
    for (prediction, at) in predictions {
        let values = bind![prediction, endpoint, at, id];
        recorded += u64::from(tx.insert_new("predictions", "prediction_id, endpoint, at, file", values)?);
    }
    Ok(RecordedFile {
        id,
        created: true,
        predictions: recorded,
    })
}

/// The files of an endpoint that may hold predictions with a time in `[from, until)`, by time.
pub fn files_between(
    tx: &ReadTx<'_>,
    endpoint: &EndpointName,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<PredictionFile>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM prediction_files WHERE endpoint = ?1 AND from_at < ?3 AND until_at >= ?2 ORDER BY from_at, id"
    );
    tx.rows(&sql, bind![endpoint, from, until], read)
}

/// The file that holds a prediction, if it is recorded.
pub fn file_of(tx: &ReadTx<'_>, prediction: &PredictionId) -> Result<Option<PredictionFile>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM prediction_files WHERE id = (SELECT file FROM predictions WHERE prediction_id = ?1)"
    );
    tx.first(&sql, bind![prediction], read)
}

/// When a prediction was served, if it is recorded.
pub fn served_at(tx: &ReadTx<'_>, prediction: &PredictionId) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT at FROM predictions WHERE prediction_id = ?1";
    tx.first(sql, bind![prediction], |row| Fields::of(row).next())
}

/// Which of `ids` are recorded.
pub fn known(tx: &ReadTx<'_>, ids: &[PredictionId]) -> Result<HashSet<PredictionId>, StoreError> {
    let sql = "SELECT at FROM predictions WHERE prediction_id = ?1";
    let mut known = HashSet::with_capacity(ids.len());
    for id in ids {
        if tx.exists(sql, bind![id])? {
            known.insert(id.clone());
        }
    }
    Ok(known)
}

/// How many predictions of an endpoint are in files.
pub fn count(tx: &ReadTx<'_>, endpoint: &EndpointName) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(sum(rows), 0) FROM prediction_files WHERE endpoint = ?1";
    tx.one(sql, bind![endpoint], |row| Fields::of(row).next())
}

/// How many predictions of an endpoint with a time in `[from, until)` are recorded.
pub fn count_between(
    tx: &ReadTx<'_>,
    endpoint: &EndpointName,
    from: Timestamp,
    until: Timestamp,
) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM predictions \
         WHERE endpoint = (SELECT number FROM prediction_endpoints WHERE endpoint = ?1) AND at >= ?2 AND at < ?3";
    tx.one(sql, bind![endpoint, from, until], |row| Fields::of(row).next())
}

/// The time of an endpoint's first prediction in a file.
pub fn first_at(tx: &ReadTx<'_>, endpoint: &EndpointName) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT min(from_at) FROM prediction_files WHERE endpoint = ?1";
    tx.one(sql, bind![endpoint], |row| Fields::of(row).next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, digest, temp_store};

    fn file(segment: &str, from: i64, until: i64) -> PredictionFile {
        PredictionFile {
            id: 0,
            endpoint: "delay".into(),
            day: "1970-01-01".to_owned(),
            segment: segment.to_owned(),
            digest: digest(segment),
            size: 100,
            rows: 2,
            from_at: at(from),
            until_at: at(until),
            created_at: at(until),
        }
    }

    #[test]
    fn a_segment_is_recorded_once_and_a_prediction_where_it_came_first() {
        let (_dir, store) = temp_store();
        let (first, again, second) = store
            .write_blocking(|tx| {
                let first = record_file(tx, &file("s1", 1, 2), &[("a".into(), at(1)), ("b".into(), at(2))])?;
                let again = record_file(tx, &file("s1", 1, 2), &[("a".into(), at(1)), ("b".into(), at(2))])?;
                let second = record_file(tx, &file("s2", 2, 9), &[("b".into(), at(2)), ("c".into(), at(9))])?;
                Ok((first, again, second))
            })
            .unwrap();
        assert_eq!((first.created, first.predictions), (true, 2));
        assert_eq!((again.id, again.created, again.predictions), (first.id, false, 0));
        assert_eq!((second.created, second.predictions), (true, 1));
        store
            .read_blocking(|tx| {
                let endpoint = "delay".into();
                assert_eq!(count(tx, &endpoint)?, 4);
                assert_eq!(count_between(tx, &endpoint, at(0), at(9))?, 2);
                assert_eq!(first_at(tx, &endpoint)?, Some(at(1)));
                assert_eq!(first_at(tx, &"other".into())?, None);
                assert_eq!(file_of(tx, &"b".into())?.unwrap().segment, "s1");
                assert_eq!(file_of(tx, &"z".into())?, None);
                assert_eq!(served_at(tx, &"c".into())?, Some(at(9)));
                assert_eq!(known(tx, &["a".into(), "z".into()])?, HashSet::from(["a".into()]));
                // The bounds are half open, and a file counts with the times of its first and last prediction.
                let segments = |from, until| -> Result<Vec<String>, StoreError> {
                    let files = files_between(tx, &endpoint, at(from), at(until))?;
                    Ok(files.into_iter().map(|f| f.segment).collect())
                };
                assert_eq!(segments(0, 1)?, Vec::<String>::new());
                assert_eq!(segments(2, 3)?, ["s1", "s2"]);
                assert_eq!(segments(9, 10)?, ["s2"]);
                Ok(())
            })
            .unwrap();
    }
}
