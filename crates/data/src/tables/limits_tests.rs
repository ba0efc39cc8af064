//! What is refused, bounded or ended: hostile questions and files.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tidemill_core::clock::{Stopwatch, real_sleep};
use tidemill_core::ports::{
    ByteSource, NamedTable, PortError, RowsFormat, TableEngine, TableFormat, TablePage,
};

use super::Tables;
use super::tables_tests::{Held, Sink, all, ask, convert, many, rows, table};

#[tokio::test]
async fn deep_sql_is_refused_and_what_is_just_short_enough_is_answered() {
    let found = many().await;
    let refused = async |sql: String| {
        let error = match Tables::default().tables_in(&sql) {
            Err(error) => error,
            Ok(_) => ask(&found, &sql).await.map(|rows| rows.body).unwrap_err(),
        };
        assert_eq!(error.code, "query_invalid", "{}", error.message);
    };
    for (piece, times) in [("+1", 30_000), ("+1", 800), ("*i", 800)] {
        refused(format!("SELECT i{} FROM t", piece.repeat(times))).await;
    }
    refused(format!("SELECT i FROM t WHERE {}i = 1", "NOT ".repeat(16_000))).await;
    refused(format!("SELECT {}1{}", "(".repeat(700), ")".repeat(700))).await;
    refused("SELECT i FROM t UNION ALL ".repeat(1_000) + "SELECT i FROM t").await;
    let filtered = async |filter: String| {
        let page = TablePage {
            filter: Some(filter),
            limit: 1,
            ..TablePage::default()
        };
        Tables::default()
            .page(found.clone(), page, RowsFormat::Json)
            .await
    };
    let error = filtered(format!("i{} > 0", "+1".repeat(30_000)))
        .await
        .unwrap_err();
    assert_eq!(error.code, "query_invalid", "{}", error.message);
    let deep = "+i".repeat(100);
    let answered = ask(&found, &format!("SELECT i{deep} FROM t WHERE i = 1"))
        .await
        .unwrap();
    assert_eq!(rows(&answered), json!([[101]]));
    assert_eq!(filtered(format!("i{deep} = 101")).await.unwrap().total, Some(1));
    // Nothing overflows; whether it is answered in time is another thing.
    let sql = format!("SELECT i{} FROM t WHERE i = 1", "+i".repeat(740));
    let deepest = limited(Duration::from_secs(2))
        .query(vec![found], &sql, 1, RowsFormat::Json)
        .await;
    assert!(
        deepest
            .as_ref()
            .map_or_else(|error| error.code == "query_limit", |found| found.rows == 1)
    );
}

#[tokio::test]
async fn only_functions_that_make_nothing_large_are_called() {
    let found = many().await;
    for (sql, said) in [
        (
            "SELECT replace(replace(key, 'k', 'kkkk'), 'k', 'kkkk') FROM t",
            "`replace`",
        ),
        ("SELECT concat(key, key) FROM t", "`concat`"),
        (
            "SELECT regexp_replace(key, 'k', 'kk', 'g') FROM t",
            "`regexp_replace`",
        ),
        ("SELECT key || key FROM t", "`||`"),
        (
            "WITH a AS (SELECT key || key x FROM t), b AS (SELECT x || x y FROM a) SELECT y FROM b",
            "`||`",
        ),
        (
            "SELECT array_to_string([key, key], ',') FROM t",
            "`array_to_string`",
        ),
        ("SELECT [key, key] FROM t", "`make_array`"),
        ("SELECT named_struct('a', i) FROM t", "`named_struct`"),
        ("SELECT array_agg(i) FROM t", "`array_agg`"),
        ("SELECT string_agg(key, ',') FROM t", "`string_agg`"),
        ("SELECT array_agg(i) OVER () FROM t", "`array_agg`"),
        ("SELECT unnest([1, 2]) FROM t", "not answered here"),
        (
            "SELECT i FROM t WHERE i IN (SELECT length(concat(key, key)) FROM t)",
            "`concat`",
        ),
        ("SELECT i FROM t ORDER BY concat(key, 'x')", "`concat`"),
        (
            "WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n) SELECT x FROM n",
            "recursive",
        ),
    ] {
        let error = ask(&found, sql).await.map(|rows| rows.body).expect_err(sql);
        assert_eq!(error.code, "query_invalid", "{sql}: {}", error.message);
        assert!(error.message.contains(said), "{sql}: {}", error.message);
    }
    let error = ask(&found, "SELECT variance(i) FROM t").await.unwrap_err();
    assert!(
        error.message.contains("'variance'") && error.message.contains("stddev"),
        "{}",
        error.message
    );
    let error = ask(&found, "SELECT repeat(key, 9) FROM t").await.unwrap_err();
    assert!(
        error.message.contains("lower") && error.message.contains("round"),
        "{}",
        error.message
    );
    for sql in [
        "SELECT round(avg(\"Score\"), 2), median(i), stddev(i), var_samp(i), corr(i, \"Score\"), approx_distinct(key) FROM t",
        "SELECT approx_percentile_cont(i, 0.5), min(i), max(i), sum(i), count(DISTINCT key) FROM t",
        "SELECT upper(trim(key)), substr(key, 1, 1), left(key, 1), length(key), strpos(key, 'k'), starts_with(key, 'k') FROM t",
        "SELECT coalesce(nullif(i, 0), 1), power(i, 2), floor(\"Score\"), abs(i), i % 2, CASE WHEN i > 1 THEN 1 ELSE 0 END FROM t",
        "SELECT date_part('year', to_timestamp(i)), date_trunc('day', to_timestamp(i)), EXTRACT(year FROM to_timestamp(i)) FROM t",
        "SELECT row_number() OVER (ORDER BY i), rank() OVER (PARTITION BY key ORDER BY i), lag(i) OVER (ORDER BY i), sum(i) OVER (ORDER BY i) FROM t",
        "SELECT key FROM t WHERE key LIKE 'k%' AND i BETWEEN 1 AND 2 AND key IN ('k1', 'k2')",
    ] {
        ask(&found, sql).await.expect(sql);
    }
}

fn limited(longest: Duration) -> Tables {
    Tables {
        longest,
        ..Tables::default()
    }
}

const CROSS: &str = "SELECT count(*) FROM t a CROSS JOIN (SELECT b.i x, y FROM t b CROSS JOIN (SELECT c.i y FROM t c)) WHERE a.i+x+y < -1";

#[tokio::test]
async fn a_long_computation_ends_at_its_time_and_its_turn_with_it() {
    let (found, tables) = (many().await, limited(Duration::from_secs(1)));
    let watch = Stopwatch::start();
    let error = tables
        .query(vec![found], CROSS, 10, RowsFormat::Json)
        .await
        .unwrap_err();
    assert_eq!(error.code, "query_limit", "{}", error.message);
    assert!(watch.elapsed() < Duration::from_secs(8), "{:?}", watch.elapsed());
    for _ in 0..1_000 {
        if tables.turns.available_permits() == super::AT_ONCE {
            break;
        }
        real_sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(tables.turns.available_permits(), super::AT_ONCE);
    assert!(watch.elapsed() < Duration::from_secs(10), "{:?}", watch.elapsed());
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_ends_and_keeps_its_turn_until_then() {
    let (found, tables) = (many().await, limited(Duration::from_mins(10)));
    let asked = tables.query(vec![found], CROSS, 10, RowsFormat::Json);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), asked)
            .await
            .is_err()
    );
    let watch = Stopwatch::start();
    while tables.turns.available_permits() < super::AT_ONCE {
        real_sleep(Duration::from_millis(10)).await;
        assert!(watch.elapsed() < Duration::from_secs(10), "the work goes on");
    }
}

/// The numbers below 20,000 and one of three keys each, in row groups of 3,000.
fn in_groups() -> NamedTable {
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    let numbers = Int64Array::from_iter_values(0..20_000);
    let keys = StringArray::from_iter_values((0..20_000).map(|i| format!("k{}", i * 7 % 3)));
    let batch = RecordBatch::try_from_iter([
        ("i", Arc::new(numbers) as arrow::array::ArrayRef),
        ("row", Arc::new(keys)),
    ])
    .unwrap();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(3_000))
        .build();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    NamedTable {
        name: "t".to_owned(),
        parquet: Arc::new(Held(writer.into_inner().unwrap())),
    }
}

#[tokio::test]
async fn pages_in_an_order_with_equal_keys_have_each_row_once() {
    let found = in_groups();
    for downwards in [false, true] {
        let mut seen = Vec::new();
        for offset in (0..20_000).step_by(1_900) {
            let page = TablePage {
                columns: vec!["i".to_owned()],
                order: vec![("row".to_owned(), downwards)],
                offset,
                limit: 1_900,
                ..TablePage::default()
            };
            let page = Tables::default()
                .page(found.clone(), page, RowsFormat::Json)
                .await
                .unwrap();
            assert_eq!(page.total, Some(20_000));
            let part = rows(&page);
            seen.extend(
                part.as_array()
                    .unwrap()
                    .iter()
                    .map(|row| row[0].as_i64().unwrap()),
            );
        }
        assert_eq!(seen.len(), 20_000);
        seen.sort_unstable();
        assert!(seen.iter().enumerate().all(|(at, i)| at as i64 == *i));
    }
    let page = TablePage {
        offset: 5_999,
        limit: 2,
        ..TablePage::default()
    };
    let across = Tables::default()
        .page(found, page, RowsFormat::Json)
        .await
        .unwrap();
    assert_eq!(rows(&across), json!([[5_999, "k2"], [6_000, "k0"]]));
}

/// A file whose store fails after some bytes.
struct Failing;

#[async_trait]
impl ByteSource for Failing {
    fn size(&self) -> u64 {
        8 << 20
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, PortError> {
        if range.start > 0 {
            return Err(PortError::upstream("object_store", "the store is away"));
        }
        let mut text = b"{\"columns\": [\"a\"], \"data\": [[1]".to_vec();
        text.resize(range.end as usize, b' ');
        Ok(text)
    }
}

#[tokio::test]
async fn a_store_that_fails_is_no_broken_table() {
    for format in [TableFormat::JsonRows, TableFormat::Separated(',')] {
        let error = Tables::default()
            .to_parquet("t", Arc::new(Failing), format, &mut Sink::default())
            .await
            .unwrap_err();
        assert_eq!(error.code, "object_store", "{}", error.message);
        assert_eq!(error.blame, tidemill_core::ports::Blame::Upstream);
        assert!(error.message.contains("the store is away"));
    }
}

#[tokio::test]
async fn texts_of_a_dictionary_are_unfolded_a_few_at_a_time() {
    use arrow::array::{RecordBatch, StringArray};
    let long = "x".repeat(4 << 20);
    let texts = StringArray::from_iter_values((0..200).map(|_| long.as_str()));
    let batch = RecordBatch::try_from_iter([("s", Arc::new(texts) as arrow::array::ArrayRef)]).unwrap();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_dictionary_page_size_limit(64 << 20)
        .build();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    assert!(bytes.len() < 16 << 20, "{} bytes", bytes.len());
    let table = NamedTable {
        name: "t".to_owned(),
        parquet: Arc::new(Held(bytes)),
    };
    let open = super::provider::ParquetTable::open(table).await.unwrap();
    let stream = open.read(&[0], 0, None).unwrap();
    let batches: Vec<_> = futures::TryStreamExt::try_collect(stream).await.unwrap();
    let sizes: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 200);
    assert!(sizes.iter().all(|rows| *rows <= 128), "{sizes:?}");
}

#[tokio::test]
async fn integers_that_readers_of_json_would_round_are_texts() {
    let big = 9_007_199_254_740_993_i64;
    let (found, _) = table(&json!({ "columns": ["i"], "data": [[big], [7], [-big], [big - 1]] })).await;
    assert_eq!(
        all(&found).await,
        json!([
            ["9007199254740993"],
            [7],
            ["-9007199254740993"],
            [9_007_199_254_740_992_i64]
        ])
    );
    let page = TablePage {
        filter: Some(format!("i = '{big}'")),
        limit: 10,
        ..TablePage::default()
    };
    let page = Tables::default()
        .page(found, page, RowsFormat::Json)
        .await
        .unwrap();
    assert_eq!(rows(&page), json!([["9007199254740993"]]));
}

#[tokio::test]
async fn lines_with_too_many_values_are_no_table() {
    let text = format!("a,b\n1,2\n{}\n", "1,".repeat(100_000));
    let error = convert(&text, TableFormat::Separated(','))
        .await
        .map(|(_, shape)| shape)
        .unwrap_err();
    assert_eq!(error.code, "table_invalid");
    assert!(error.message.contains("4096"), "{}", error.message);
}

/// A large file, and how often it is read.
#[derive(Default)]
struct Endless(std::sync::atomic::AtomicU64);

#[async_trait]
impl ByteSource for Endless {
    fn size(&self) -> u64 {
        1 << 40
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, PortError> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(b"1,2\n".repeat((range.end - range.start) as usize / 4))
    }
}

#[tokio::test]
async fn a_conversion_that_nobody_waits_for_ends() {
    let file = Arc::new(Endless::default());
    let (source, mut sink) = (Arc::clone(&file), Sink::default());
    let tables = Tables::default();
    let converting = tables.to_parquet("t", source, TableFormat::Separated(','), &mut sink);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), converting)
            .await
            .is_err()
    );
    let watch = Stopwatch::start();
    while Arc::strong_count(&file) > 1 {
        real_sleep(Duration::from_millis(10)).await;
        assert!(watch.elapsed() < Duration::from_mins(1), "it is still read");
    }
}
