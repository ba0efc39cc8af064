//! The index of the prediction log: which files there are, and of which time. Files are objects, and so are the ids that each of them
//! holds: a row here stands for a file, never for a prediction. (Before migration 11 each prediction had a row; those rows are only read.)

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, PredictionId};

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// What a file of the prediction log holds.
    FileKind {
        /// Rows that an endpoint of the loop answered.
        Rows = "rows",
        /// Calls that a deployment answered.
        Calls = "calls",
    }
);

/// A file of the prediction log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PredictionFile {
    /// Its number; ignored when it is recorded.
    pub id: i64,
    /// Which endpoint served what it holds.
    pub endpoint: EndpointName,
    /// What it holds.
    pub kind: FileKind,
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
}

const COLUMNS: &str = "id, endpoint, kind, day, segment, digest, size, rows, from_at, until_at, created_at";

fn read(row: &Row<'_>) -> rusqlite::Result<PredictionFile> {
    let mut fields = Fields::of(row);
    Ok(PredictionFile {
        id: fields.next()?,
        endpoint: fields.next()?,
        kind: fields.next()?,
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

/// Records a file whose ids stand in an object beside it. A segment is recorded once: after a crash it may be made into a file again.
pub fn record_file(tx: &mut Tx<'_>, file: &PredictionFile) -> Result<RecordedFile, StoreError> {
    let stored = tx.first(
        "SELECT id FROM prediction_files WHERE segment = ?1",
        bind![file.segment],
        |row| Fields::of(row).next(),
    )?;
    if let Some(id) = stored {
        return Ok(RecordedFile { id, created: false });
    }
    let id = tx.one(
        "INSERT INTO prediction_files (endpoint, kind, day, segment, digest, size, rows, from_at, until_at, created_at, indexed) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1) RETURNING id",
        bind![
            file.endpoint,
            file.kind,
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
    Ok(RecordedFile { id, created: true })
}

/// The file that was made from a segment.
pub fn file_of_segment(tx: &ReadTx<'_>, segment: &str) -> Result<Option<PredictionFile>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM prediction_files WHERE segment = ?1");
    tx.first(&sql, bind![segment], read)
}

/// The number of the newest file; 0 if there is none.
pub fn newest(tx: &ReadTx<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT coalesce(max(id), 0) FROM prediction_files";
    tx.one(sql, bind![], |row| Fields::of(row).next())
}

/// The files of an endpoint that may hold predictions with a time in `[from, until)`, by time.
pub fn files_between(
    tx: &ReadTx<'_>,
    endpoint: &EndpointName,
    kind: FileKind,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<PredictionFile>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM prediction_files WHERE endpoint = ?1 AND kind = ?4 AND from_at < ?3 AND until_at >= ?2 \
         ORDER BY from_at, id"
    );
    tx.rows(&sql, bind![endpoint, from, until, kind], read)
}

/// The files that may hold an id of the millisecond `at` (an id tells its own), oldest first: those that were recorded after the file
/// `after`. A file holds one day, so few are looked at.
pub fn files_at(tx: &ReadTx<'_>, at: Timestamp, after: i64) -> Result<Vec<PredictionFile>, StoreError> {
    let last = Timestamp::from_micros(at.as_micros() + 999);
    let files = |when: &str| {
        format!(
            "SELECT {COLUMNS} FROM prediction_files WHERE {when} AND from_at <= ?1 AND id > ?2 AND indexed = 1 ORDER BY id"
        )
    };
    // An id tells no time before 1970.
    if at.as_micros() <= 0 {
        return tx.rows(&files("day <= '1970-01-01'"), bind![last, after], read);
    }
    let sql = files("day = ?3 AND until_at >= ?4");
    tx.rows(&sql, bind![last, after, at.day(), at], read)
}

/// The file that holds a prediction, by the rows that were written for each prediction before files had their ids beside them.
pub fn file_by_row(tx: &ReadTx<'_>, prediction: &PredictionId) -> Result<Option<PredictionFile>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM prediction_files WHERE id = (SELECT file FROM predictions WHERE prediction_id = ?1)"
    );
    tx.first(&sql, bind![prediction], read)
}

/// A Delta table of the prediction log.
#[derive(Clone, PartialEq, Debug)]
pub struct PredictionTable {
    /// Whose predictions it holds.
    pub endpoint: EndpointName,
    /// Its own id.
    pub id: String,
    /// The newest entry of its log; -1 if there is none.
    pub version: i64,
    /// Its columns: `[[name, type], …]`.
    pub columns: Value,
}

/// The Delta table of an endpoint, if it has one.
pub fn table(tx: &ReadTx<'_>, endpoint: &EndpointName) -> Result<Option<PredictionTable>, StoreError> {
    let sql = "SELECT endpoint, id, version, columns FROM prediction_tables WHERE endpoint = ?1";
    tx.first(sql, bind![endpoint], |row| {
        let mut fields = Fields::of(row);
        Ok(PredictionTable {
            endpoint: fields.next()?,
            id: fields.next()?,
            version: fields.next()?,
            columns: fields.next()?,
        })
    })
}

/// The files that were not brought to the Delta table of their endpoint yet, oldest first, at most `limit`.
pub fn outside_tables(tx: &ReadTx<'_>, limit: u32) -> Result<Vec<PredictionFile>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM prediction_files WHERE delta = 0 ORDER BY id LIMIT ?1");
    tx.rows(&sql, bind![limit], read)
}

/// Remembers what a table's log holds now: these files are in it, and those do not fit.
pub fn note_table(
    tx: &mut Tx<'_>,
    table: &PredictionTable,
    inside: &[i64],
    unfit: &[i64],
) -> Result<(), StoreError> {
    let values = bind![table.endpoint, table.id, table.version, table.columns];
    tx.upsert(
        "prediction_tables",
        "endpoint, id, version, columns",
        "endpoint",
        values,
    )?;
    for (files, mark) in [(inside, 1_i64), (unfit, 2)] {
        for file in files {
            tx.execute(
                "UPDATE prediction_files SET delta = ?2 WHERE id = ?1",
                bind![file, mark],
            )?;
        }
    }
    Ok(())
}

/// How many predictions or calls of an endpoint are in files.
pub fn count(tx: &ReadTx<'_>, endpoint: &EndpointName) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(sum(rows), 0) FROM prediction_files WHERE endpoint = ?1";
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
            kind: FileKind::Rows,
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
    fn a_segment_is_recorded_once_and_a_file_is_found_by_endpoint_kind_and_time() {
        let (_dir, store) = temp_store();
        let (first, again, second, calls) = store
            .write_blocking(|tx| {
                let calls = PredictionFile {
                    kind: FileKind::Calls,
                    ..file("s2/calls", 2, 9)
                };
                Ok((
                    record_file(tx, &file("s1", 1, 2))?,
                    record_file(tx, &file("s1", 1, 2))?,
                    record_file(tx, &file("s2", 2, 9))?,
                    record_file(tx, &calls)?,
                ))
            })
            .unwrap();
        assert_eq!((first.created, again.created), (true, false));
        assert_eq!(first.id, again.id);
        assert!(second.created && calls.created);
        store
            .read_blocking(|tx| {
                let endpoint = "delay".into();
                assert_eq!(count(tx, &endpoint)?, 6);
                assert_eq!(newest(tx)?, calls.id);
                // The bounds are half open, and a file counts with the times of its first and last prediction.
                let segments = |from, until| -> Result<Vec<String>, StoreError> {
                    let files = files_between(tx, &endpoint, FileKind::Rows, at(from), at(until))?;
                    Ok(files.into_iter().map(|f| f.segment).collect())
                };
                assert_eq!(segments(0, 1)?, Vec::<String>::new());
                assert_eq!(segments(2, 3)?, ["s1", "s2"]);
                assert_eq!(segments(9, 10)?, ["s2"]);
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn an_id_leads_by_its_millisecond_to_the_files_that_may_hold_it() {
        let (_dir, store) = temp_store();
        let micros = |at: i64| Timestamp::from_micros(at);
        let of = move |segment: &str, from: i64, until: i64| PredictionFile {
            from_at: micros(from),
            until_at: micros(until),
            ..file(segment, 0, 0)
        };
        store
            .write_blocking(move |tx| {
                record_file(tx, &of("a", 1_500, 2_500))?;
                record_file(tx, &of("b", 2_999, 9_000))?;
                let other_day = PredictionFile {
                    day: "1970-01-02".to_owned(),
                    ..of("c", 2_000, 2_000)
                };
                record_file(tx, &other_day)
            })
            .unwrap();
        let found = |at: i64, after: i64| -> Vec<String> {
            let files = store.read_blocking(|tx| files_at(tx, micros(at), after)).unwrap();
            files.into_iter().map(|file| file.segment).collect()
        };
        assert_eq!(found(0, 0), Vec::<String>::new());
        assert_eq!(found(1_000, 0), ["a"]);
        assert_eq!(found(2_000, 0), ["a", "b"]);
        assert_eq!(found(2_000, 1), ["b"]);
        assert_eq!(found(10_000, 0), Vec::<String>::new());
    }

    #[test]
    fn a_prediction_that_had_a_row_of_its_own_is_found_by_it_still() {
        let (_dir, store) = temp_store();
        let found = store
            .write_blocking(|tx| {
                let id = record_file(tx, &file("old", 1, 2))?.id;
                // As files were before migration 11.
                tx.execute("UPDATE prediction_files SET indexed = 0 WHERE id = ?1", bind![id])?;
                let row = bind!["p", 1_i64, at(1), id];
                tx.insert("predictions", "prediction_id, endpoint, at, file", row)?;
                assert_eq!(files_at(tx, at(1), 0)?, []);
                assert_eq!(file_by_row(tx, &"q".into())?, None);
                file_by_row(tx, &"p".into())
            })
            .unwrap();
        assert_eq!(found.unwrap().segment, "old");
    }

    #[test]
    fn a_file_is_brought_to_its_table_once() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                let inside = record_file(tx, &file("a", 1, 2))?.id;
                let unfit = record_file(tx, &file("b", 1, 2))?.id;
                let left = record_file(tx, &file("c", 1, 2))?.id;
                let table = PredictionTable {
                    endpoint: "delay".into(),
                    id: "t".to_owned(),
                    version: 3,
                    columns: serde_json::json!([["x", "long"]]),
                };
                assert_eq!(super::table(tx, &"delay".into())?, None);
                note_table(tx, &table, &[inside], &[unfit])?;
                assert_eq!(super::table(tx, &"delay".into())?, Some(table));
                let outside = outside_tables(tx, 9)?;
                assert_eq!(outside.iter().map(|file| file.id).collect::<Vec<_>>(), [left]);
                Ok(())
            })
            .unwrap();
    }
}
