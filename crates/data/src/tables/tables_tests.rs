//! Tables as clients write them, good and hostile: what becomes of them, and what may be asked.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tidemill_core::ports::{
    ByteSink, ByteSource, NamedTable, PortError, RowsFormat, TableEngine, TableFormat, TablePage, TableRows,
    TableShape,
};

use super::Tables;

pub(super) struct Held(pub(super) Vec<u8>);

#[async_trait]
impl ByteSource for Held {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, PortError> {
        let wanted = range.start as usize..range.end as usize;
        let bytes = self.0.get(wanted).map(<[u8]>::to_vec);
        bytes.ok_or_else(|| PortError::upstream("object_store", "out of range"))
    }
}

#[derive(Default)]
pub(super) struct Sink(pub(super) Vec<u8>);

#[async_trait]
impl ByteSink for Sink {
    async fn write(&mut self, piece: Vec<u8>) -> Result<(), PortError> {
        self.0.extend_from_slice(&piece);
        Ok(())
    }
}

pub(super) async fn convert(text: &str, format: TableFormat) -> Result<(NamedTable, TableShape), PortError> {
    let (file, mut sink) = (Arc::new(Held(text.as_bytes().to_vec())), Sink::default());
    let shape = Tables::default().to_parquet("t", file, format, &mut sink).await?;
    let table = NamedTable {
        name: "t".to_owned(),
        parquet: Arc::new(Held(sink.0)),
    };
    Ok((table, shape))
}

pub(super) async fn table(value: &Value) -> (NamedTable, TableShape) {
    convert(&value.to_string(), TableFormat::JsonRows).await.unwrap()
}

fn types(shape: &TableShape) -> Vec<(&str, &str)> {
    shape
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.data_type.as_str()))
        .collect()
}

pub(super) fn rows(found: &TableRows) -> Value {
    serde_json::from_slice(&found.body).unwrap()
}

pub(super) async fn all(table: &NamedTable) -> Value {
    let page = TablePage {
        limit: 100,
        ..TablePage::default()
    };
    rows(
        &Tables::default()
            .page(table.clone(), page, RowsFormat::Json)
            .await
            .unwrap(),
    )
}

pub(super) async fn ask(table: &NamedTable, sql: &str) -> Result<TableRows, PortError> {
    Tables::default()
        .query(vec![table.clone()], sql, 100, RowsFormat::Json)
        .await
}

#[tokio::test]
async fn columns_have_the_types_that_their_values_show() {
    let types_of =
        json!({ "wb_type": "typedDict", "params": { "type_map": { "at": { "wb_type": "timestamp" } } } });
    let (found, shape) = table(&json!({
        "columns": ["i", "f", "b", "s", "n", "at", "none", "mixed"],
        "data": [
            [1, 1, true, "a", { "k": [1] }, 1_700_000_000_000_i64, null, 1],
            [2, 1.5, null, "b", null, null, null, "x"],
            [null, null, false, null, [1, 2], 1_700_000_000_500_i64, null, true],
        ],
        "column_types": types_of,
    }))
    .await;
    assert_eq!(
        types(&shape),
        [
            ("i", "integer"),
            ("f", "float"),
            ("b", "boolean"),
            ("s", "text"),
            ("n", "json"),
            ("at", "timestamp"),
            ("none", "text"),
            ("mixed", "text")
        ]
    );
    assert_eq!(
        all(&found).await,
        json!([
            [
                1,
                1.0,
                true,
                "a",
                "{\"k\":[1]}",
                "2023-11-14T22:13:20Z",
                null,
                "1"
            ],
            [2, 1.5, null, "b", null, null, null, "x"],
            [
                null,
                null,
                false,
                null,
                "[1,2]",
                "2023-11-14T22:13:20.500Z",
                null,
                "true"
            ],
        ])
    );
    // What the file says of itself is what the Parquet says.
    let again = Tables::default().shape(found).await.unwrap();
    assert_eq!(again, shape);
}

#[tokio::test]
async fn ragged_rows_and_odd_names_lose_nothing() {
    let (found, shape) = table(&json!({
        "columns": ["a", "a", "", "a"],
        "data": [[1], [1, 2, 3, 4, 5], []],
    }))
    .await;
    let names: Vec<_> = shape
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.title.as_deref()))
        .collect();
    assert_eq!(
        names,
        [
            ("a", None),
            ("a_2", Some("a")),
            ("column_3", Some("")),
            ("a_3", Some("a")),
            ("column_5", Some(""))
        ]
    );
    assert_eq!(
        all(&found).await,
        json!([
            [1, null, null, null, null],
            [1, 2, 3, 4, 5],
            [null, null, null, null, null]
        ])
    );
}

#[tokio::test]
async fn numbers_that_json_has_not_come_through() {
    let text = r#"{"columns": ["x", "big"], "data": [[NaN, 18446744073709551615], [-Infinity, 1], [1, 2]]}"#;
    let (found, shape) = convert(text, TableFormat::JsonRows).await.unwrap();
    assert_eq!(types(&shape), [("x", "float"), ("big", "float")]);
    assert_eq!(
        all(&found).await,
        json!([
            ["NaN", 18_446_744_073_709_552_000.0_f64],
            ["-Infinity", 1.0],
            [1.0, 2.0]
        ])
    );
    let counted = ask(&found, "SELECT count(*) FROM t WHERE isnan(x)")
        .await
        .unwrap();
    assert_eq!(rows(&counted), json!([[1]]));
}

#[tokio::test]
async fn a_table_without_rows_has_its_columns() {
    let (found, shape) = table(&json!({ "columns": ["a", "b"], "data": [] })).await;
    assert_eq!((shape.rows, shape.columns.len()), (0, 2));
    assert_eq!(all(&found).await, json!([]));
    assert_eq!(
        rows(&ask(&found, "SELECT count(*) FROM t").await.unwrap()),
        json!([[0]])
    );
}

#[tokio::test]
async fn long_texts_come_whole_a_few_at_a_time() {
    let long = "x".repeat(10 << 20);
    let (found, shape) =
        table(&json!({ "columns": ["id", "text"], "data": [[1, long], [2, long], [3, "y"]] })).await;
    assert_eq!(shape.rows, 3);
    let page = TablePage {
        limit: 3,
        ..TablePage::default()
    };
    let first = Tables::default()
        .page(found.clone(), page.clone(), RowsFormat::Json)
        .await
        .unwrap();
    assert_eq!((first.rows, first.more, first.total), (1, true, Some(3)));
    assert_eq!(rows(&first)[0][1].as_str().unwrap().len(), 10 << 20);
    let last = TablePage { offset: 2, ..page };
    let last = Tables::default()
        .page(found, last, RowsFormat::Json)
        .await
        .unwrap();
    assert_eq!((rows(&last), last.more), (json!([[3, "y"]]), false));
}

#[tokio::test]
async fn what_is_no_table_says_why() {
    let cases = [
        ("[]", "an object with `columns` and `data`"),
        (r#"{"columns": ["a"]}"#, "no `data`"),
        (r#"{"columns": [], "data": []}"#, "no columns"),
        (r#"{"columns": ["a"], "data": [[1], 7]}"#, "after row 1"),
        (r#"{"columns": ["a"], "data": [[1]"#, "EOF"),
        ("", "EOF"),
    ];
    for (text, why) in cases {
        let error = convert(text, TableFormat::JsonRows)
            .await
            .map(|(_, shape)| shape)
            .unwrap_err();
        assert_eq!(error.code, "table_invalid", "{text}");
        assert!(
            error.message.contains("`t`") && error.message.contains(why),
            "{}",
            error.message
        );
    }
    let wide = json!({ "columns": [], "data": [vec![0; 5_000]] }).to_string();
    let error = convert(&wide, TableFormat::JsonRows)
        .await
        .map(|(_, shape)| shape)
        .unwrap_err();
    assert!(error.message.contains("4096"), "{}", error.message);
    let table = NamedTable {
        name: "damaged.parquet".to_owned(),
        parquet: Arc::new(Held(b"PAR1 and nothing else PAR1".to_vec())),
    };
    let error = Tables::default().shape(table).await.unwrap_err();
    assert_eq!(error.code, "table_invalid");
    assert!(error.message.contains("damaged.parquet"), "{}", error.message);
}

#[tokio::test]
async fn lines_of_values_are_a_table_too() {
    let text = "id,name,score,id\n1,a,0.5,x\n2,\"b, c\",NA,y\n3,,1,\n";
    let (found, shape) = convert(text, TableFormat::Separated(',')).await.unwrap();
    assert_eq!(
        types(&shape),
        [
            ("id", "integer"),
            ("name", "text"),
            ("score", "float"),
            ("id_2", "text")
        ]
    );
    assert_eq!(
        all(&found).await,
        json!([[1, "a", 0.5, "x"], [2, "b, c", null, "y"], [3, null, 1.0, null]])
    );
    let (_, shape) = convert("a\tb\n1\t2\n", TableFormat::Separated('\t'))
        .await
        .unwrap();
    assert_eq!(types(&shape), [("a", "integer"), ("b", "integer")]);
}

/// 20,000 rows: some row groups' worth of batches.
pub(super) async fn many() -> NamedTable {
    let data: Vec<Value> = (0..20_000)
        .map(|i| json!([i, f64::from(i % 7) / 2.0, format!("k{}", i % 3)]))
        .collect();
    table(&json!({ "columns": ["i", "Score", "key"], "data": data }))
        .await
        .0
}

#[tokio::test]
async fn pages_are_chosen_filtered_and_ordered() {
    let found = many().await;
    let page = TablePage {
        columns: vec!["key".to_owned(), "i".to_owned()],
        offset: 19_998,
        limit: 10,
        ..TablePage::default()
    };
    let last = Tables::default()
        .page(found.clone(), page, RowsFormat::Json)
        .await
        .unwrap();
    assert_eq!(rows(&last), json!([["k0", 19_998], ["k1", 19_999]]));
    assert_eq!((last.total, last.more), (Some(20_000), false));
    let page = TablePage {
        filter: Some("\"Score\" = 3.0 AND key = 'k1'".to_owned()),
        order: vec![("i".to_owned(), true)],
        limit: 2,
        ..TablePage::default()
    };
    let best = Tables::default()
        .page(found.clone(), page, RowsFormat::Json)
        .await
        .unwrap();
    assert_eq!(rows(&best), json!([[19_984, 3.0, "k1"], [19_963, 3.0, "k1"]]));
    assert_eq!((best.total, best.more), (Some(952), true));
    for (page, code, said) in [
        (
            TablePage {
                columns: vec!["scoer".to_owned()],
                limit: 1,
                ..TablePage::default()
            },
            "column_not_found",
            "`Score`",
        ),
        (
            TablePage {
                order: vec![("k".to_owned(), false)],
                limit: 1,
                ..TablePage::default()
            },
            "column_not_found",
            "`t`",
        ),
        (
            TablePage {
                filter: Some("score > 1".to_owned()),
                limit: 1,
                ..TablePage::default()
            },
            "column_not_found",
            "`score`",
        ),
        (
            TablePage {
                filter: Some("i >".to_owned()),
                limit: 1,
                ..TablePage::default()
            },
            "query_invalid",
            "i >",
        ),
        (
            TablePage {
                filter: Some("i + 1".to_owned()),
                limit: 1,
                ..TablePage::default()
            },
            "query_invalid",
            "i + 1",
        ),
    ] {
        let error = Tables::default()
            .page(found.clone(), page, RowsFormat::Json)
            .await
            .unwrap_err();
        assert_eq!(error.code, code, "{}", error.message);
        assert!(error.message.contains(said), "{}", error.message);
    }
}

#[tokio::test]
async fn sql_joins_groups_and_says_when_there_is_more() {
    let found = many().await;
    let grouped = ask(
        &found,
        "SELECT key, count(*) AS n, max(i) AS top FROM t GROUP BY key ORDER BY key",
    )
    .await
    .unwrap();
    assert_eq!(
        rows(&grouped),
        json!([["k0", 6667, 19_998], ["k1", 6667, 19_999], ["k2", 6666, 19_997]])
    );
    assert!(!grouped.more);
    let cut = ask(&found, "SELECT i FROM t ORDER BY i").await.unwrap();
    assert_eq!((cut.rows, cut.more), (100, true));
    let exact = ask(&found, "SELECT i FROM t LIMIT 100").await.unwrap();
    assert_eq!((exact.rows, exact.more), (100, false));
    let other = NamedTable {
        name: "media/other.json".to_owned(),
        ..found.clone()
    };
    let sql = "WITH few AS (SELECT i FROM t WHERE i < 3) SELECT sum(o.i) FROM few JOIN \"media/other.json\" o ON o.i = few.i";
    let mut named = Tables::default().tables_in(sql).unwrap();
    named.sort();
    assert_eq!(named, ["media/other.json", "t"]);
    let joined = Tables::default()
        .query(vec![found, other], sql, 10, RowsFormat::Json)
        .await
        .unwrap();
    assert_eq!(rows(&joined), json!([[3]]));
}

#[tokio::test]
async fn answers_come_as_arrow_and_parquet() {
    let found = many().await;
    let arrow = Tables::default()
        .query(
            vec![found.clone()],
            "SELECT i, key FROM t LIMIT 5",
            10,
            RowsFormat::Arrow,
        )
        .await
        .unwrap();
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.body.as_slice(), None).unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!(
        batches
            .iter()
            .map(arrow::array::RecordBatch::num_rows)
            .sum::<usize>(),
        5
    );
    let parquet = Tables::default()
        .query(
            vec![found],
            "SELECT i, key FROM t LIMIT 5",
            10,
            RowsFormat::Parquet,
        )
        .await
        .unwrap();
    let again = NamedTable {
        name: "again".to_owned(),
        parquet: Arc::new(Held(parquet.body)),
    };
    assert_eq!(Tables::default().shape(again).await.unwrap().rows, 5);
}

#[tokio::test]
async fn sql_that_does_more_than_read_is_refused() {
    let (found, _) = table(&json!({ "columns": ["a"], "data": [[1]] })).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    for sql in [
        "INSERT INTO t VALUES (2)".to_owned(),
        "DELETE FROM t".to_owned(),
        "DROP TABLE t".to_owned(),
        "CREATE TABLE x AS SELECT * FROM t".to_owned(),
        format!("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{path}'"),
        format!("COPY t TO '{path}' STORED AS CSV"),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "SHOW TABLES".to_owned(),
        "EXPLAIN SELECT * FROM t".to_owned(),
        "SELECT 1; SELECT 2".to_owned(),
        "SELECT a INTO x FROM t".to_owned(),
        format!("SELECT * FROM '{path}'"),
        format!("SELECT * FROM \"{path}\""),
        format!("SELECT * FROM read_csv('{path}')"),
        "SELECT * FROM information_schema.tables".to_owned(),
        "SELECT * FROM generate_series(1, 1000000000)".to_owned(),
        "SELECT repeat('x', 2000000000)".to_owned(),
        "SELECT lpad('x', 2000000000)".to_owned(),
        "SELECT nothing_like_it(a) FROM t".to_owned(),
        "SELEC 1".to_owned(),
        String::new(),
    ] {
        // As a server does: first what it names, then the answer.
        let named = Tables::default().tables_in(&sql);
        let error = match named {
            Err(error) => error,
            Ok(_) => ask(&found, &sql).await.map(|rows| rows.body).expect_err(&sql),
        };
        assert_eq!(error.code, "query_invalid", "{sql}: {}", error.message);
        assert_eq!(error.blame, tidemill_core::ports::Blame::Caller, "{sql}");
    }
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "");
    let error = ask(&found, "SELECT b FROM t").await.unwrap_err();
    assert_eq!(error.code, "column_not_found");
    assert!(
        error.message.contains("`b`") && error.message.contains("`t`"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn a_question_that_needs_too_much_memory_is_refused() {
    let found = many().await;
    let sql = "SELECT a.i, b.i, count(*) FROM t a CROSS JOIN t b GROUP BY a.i, b.i";
    let error = ask(&found, sql).await.unwrap_err();
    assert_eq!(error.code, "query_limit", "{}", error.message);
}
