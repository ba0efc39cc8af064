//! The port, end to end on small files.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::Int32Type;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::reader::{FileReader, SerializedFileReader};
use tidemill_core::clock::Timestamp;
use tidemill_core::frame::{Column, Frame, Labels, Scores};
use tidemill_core::ids::{PredictionId, VersionNumber};
use tidemill_core::ports::{Blame, DataEngine, PortError, ServedLabel, SnapshotRequest};
use tidemill_core::predictions::{LabelValue, PredictionBatch, Role};
use tidemill_core::snapshot::SnapshotManifest;
use tidemill_core::spec::Spec;
use tidemill_store::objects::Objects;

use crate::DataFusionEngine;

const FLIGHTS: &str = "\
time,key,dep_delay,carrier,arr_delay,known
2013-01-02T05:00:00Z,b,10,AA,45,2013-01-02T09:00:00Z
2013-01-01T05:00:00Z,a,NA,UA,5,2013-01-01T09:00:00Z
2013-01-03T05:00:00Z,c,-3,,31,2013-01-03T09:00:00Z
2013-01-04T05:00:00Z,d,7,AA,,
2013-01-05T05:00:00Z,e,1,AA,99,2013-02-05T09:00:00Z
";

struct Project {
    dir: tempfile::TempDir,
    engine: DataFusionEngine,
}

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let engine = DataFusionEngine::new(Objects::local(&dir.path().join("objects")).unwrap());
        Self { dir, engine }
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    async fn snapshot(&self, spec: &Spec) -> Result<SnapshotManifest, PortError> {
        self.engine.build_snapshot(self.request(spec)).await
    }

    fn request(&self, spec: &Spec) -> SnapshotRequest {
        SnapshotRequest {
            spec: Arc::new(spec.clone()),
            root: self.root().to_owned(),
            source: Some((None, None)),
            served: Vec::new(),
            labels: Vec::new(),
            as_of: at("2013-01-31"),
        }
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn spec(changes: serde_json::Value) -> Spec {
    let mut base = serde_json::json!({
        "name": "flights",
        "data": {"source": "flights.csv", "time": "time", "key": "key"},
        "label": {
            "name": "late", "expression": "arr_delay > 30", "known_at": "known", "task": "binary"
        },
        "features": {"dep_delay": "numeric", "carrier": "categorical"},
    });
    for (key, value) in changes.as_object().unwrap() {
        base[key] = value.clone();
    }
    serde_json::from_value(base).unwrap()
}

fn plain() -> Spec {
    spec(serde_json::json!({}))
}

#[tokio::test]
async fn a_snapshot_holds_the_rows_whose_label_was_known_sorted_by_time() {
    let project = Project::new(&[("flights.csv", FLIGHTS)]);
    project.engine.check_spec(project.root(), &plain()).await.unwrap();
    let manifest = project.snapshot(&plain()).await.unwrap();
    assert_eq!(manifest.rows, 3);
    assert_eq!(
        manifest.time_range,
        Some((at("2013-01-01T05:00:00Z"), at("2013-01-03T05:00:00Z")))
    );
    let loaded = project.engine.load_snapshot(&manifest).await.unwrap();
    assert_eq!(loaded.labels, Labels::Binary(vec![false, true, true]));
    assert_eq!(loaded.times.len(), 3);
    let Column::Numeric(delays) = &loaded.rows.columns()[0] else {
        panic!("wrong kind");
    };
    assert!(delays[0].is_nan());
    assert_eq!(delays[1..], [10.0, -3.0]);
    let Column::Categorical(carriers) = &loaded.rows.columns()[1] else {
        panic!("wrong kind");
    };
    assert_eq!(
        carriers.iter().map(Option::as_deref).collect::<Vec<_>>(),
        [Some("UA"), Some("AA"), None]
    );
    assert!((manifest.profile["late"]["positive_rate"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(manifest.validation, None);
    let exported = project.engine.export_rows(&manifest, &loaded).await.unwrap();
    assert!(exported.starts_with(b"PAR1"));
}

#[tokio::test]
async fn equal_data_has_an_equal_digest_whenever_it_was_taken() {
    let project = Project::new(&[("flights.csv", FLIGHTS)]);
    let first = project.snapshot(&plain()).await.unwrap();
    let mut later = project.request(&plain());
    later.as_of = at("2013-02-01");
    let second = project.engine.build_snapshot(later).await.unwrap();
    assert_eq!(first.digest, second.digest);
    let mut much_later = project.request(&plain());
    much_later.as_of = at("2014-01-01");
    let third = project.engine.build_snapshot(much_later).await.unwrap();
    assert_eq!(third.rows, 4);
    assert_ne!(first.digest, third.digest);
}

fn served(rows: usize) -> PredictionBatch {
    let schema = Arc::new(plain().feature_schema());
    PredictionBatch {
        endpoint: "flights".into(),
        at: at("2013-01-02T00:00:00Z"),
        request_id: "r".into(),
        ids: (0..rows).map(|i| PredictionId::new(format!("p{i}"))).collect(),
        keys: vec![None; rows],
        versions: vec![VersionNumber(1); rows],
        roles: vec![Role::Champion; rows],
        canary_share: 0.0,
        degraded: vec![None; rows],
        scores: Scores::Binary(vec![0.5; rows]),
        shadows: Vec::new(),
        features: Frame::new(
            schema,
            vec![
                Column::Numeric((0..rows).map(|i| i as f64).collect()),
                Column::Categorical(vec![Some(Arc::from("DL")); rows]),
            ],
        )
        .unwrap(),
        latency_us: 1,
    }
}

fn label(id: &str, value: bool) -> ServedLabel {
    ServedLabel {
        prediction_id: id.into(),
        value: LabelValue::Bool(value),
    }
}

#[tokio::test]
async fn served_rows_with_labels_join_the_rows_of_the_source() {
    let project = Project::new(&[("flights.csv", FLIGHTS)]);
    let mut request = project.request(&plain());
    request.served = vec![Arc::new(served(3))];
    request.labels = vec![label("p0", true), label("p2", false), label("gone", true)];
    let manifest = project.engine.build_snapshot(request).await.unwrap();
    assert_eq!((manifest.rows, manifest.origin.served_rows), (5, 2));
    let loaded = project.engine.load_snapshot(&manifest).await.unwrap();
    assert_eq!(
        loaded.labels,
        Labels::Binary(vec![false, true, false, true, true])
    );
}

#[tokio::test]
async fn expectations_see_source_columns_served_rows_and_say_what_they_skip() {
    let expectations = serde_json::json!({"list": [
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "arr_delay", "max_value": 40}},
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "carrier", "value_set": ["AA", "UA"]}, "severity": "warning"},
    ]});
    let spec = spec(serde_json::json!({ "expectations": expectations }));
    let project = Project::new(&[("flights.csv", FLIGHTS)]);
    project.engine.check_spec(project.root(), &spec).await.unwrap();

    let alone = project.snapshot(&spec).await.unwrap();
    assert!(alone.quarantined);
    let validation = alone.validation.unwrap();
    let result = &validation["results"][0]["result"];
    assert_eq!(result["unexpected_count"], 1);
    assert_eq!(
        result["unexpected_index_list"][0],
        serde_json::json!({"row": 0, "key": "b", "time": "2013-01-02T05:00:00", "arr_delay": 45})
    );
    assert_eq!(validation["results"][1]["success"], true);

    let mut request = project.request(&spec);
    request.served = vec![Arc::new(served(2))];
    request.labels = vec![label("p0", true), label("p1", true)];
    let mixed = project.engine.build_snapshot(request).await.unwrap();
    let validation = mixed.validation.unwrap();
    assert_eq!(validation["results"][0]["result"]["element_count"], 3);
    assert_eq!(validation["results"][1]["result"]["element_count"], 5);
    assert_eq!(validation["results"][1]["result"]["unexpected_count"], 2);
    assert_eq!(
        validation["results"][1]["result"]["unexpected_index_list"][0]["prediction_id"],
        "p0"
    );

    let mut request = project.request(&spec);
    request.source = None;
    request.served = vec![Arc::new(served(2))];
    request.labels = vec![label("p0", true), label("p1", true)];
    let only_served = project.engine.build_snapshot(request).await.unwrap();
    assert!(!only_served.quarantined);
    let validation = only_served.validation.unwrap();
    assert_eq!(validation["results"][0]["success"], serde_json::Value::Null);
    assert_eq!(validation["statistics"]["evaluated_expectations"], 1);
}

#[tokio::test]
async fn a_suite_file_is_read_and_its_mistakes_are_placed() {
    let with_suite = spec(serde_json::json!({"expectations": {"suite": "suite.json"}}));
    let good = r#"{"name":"s","expectations":[{"type":"expect_column_to_exist","kwargs":{"column":"key"}}]}"#;
    let project = Project::new(&[("flights.csv", FLIGHTS), ("suite.json", good)]);
    let manifest = project.snapshot(&with_suite).await.unwrap();
    assert_eq!(manifest.validation.unwrap()["suite_name"], "s");
    let project = Project::new(&[
        ("flights.csv", FLIGHTS),
        (
            "suite.json",
            "{\"name\":\"s\",\n\"expectations\":[{\"kwargs\":{}}]}",
        ),
    ]);
    let error = project
        .engine
        .check_spec(project.root(), &with_suite)
        .await
        .unwrap_err();
    assert!(error.message.contains("suite.json` line 2"), "{error}");
    let unknown = r#"{"name":"s","expectations":[{"type":"expect_column_exists","kwargs":{}}]}"#;
    let project = Project::new(&[("flights.csv", FLIGHTS), ("suite.json", unknown)]);
    let error = project
        .engine
        .check_spec(project.root(), &with_suite)
        .await
        .unwrap_err();
    assert!(
        error.message.contains("did you mean `expect_column_to_exist`"),
        "{error}"
    );
}

#[tokio::test]
async fn mistakes_in_a_spec_name_the_column_the_source_and_the_nearest_name() {
    let project = Project::new(&[("flights.csv", FLIGHTS)]);
    let cases = [
        (
            serde_json::json!({"features": {"dep_dely": "numeric"}}),
            "did you mean `dep_delay`?",
        ),
        (
            serde_json::json!({"features": {"carrier": "numeric"}}),
            "flights.csv` line 2, column `carrier`: `AA` is not a number",
        ),
        (
            serde_json::json!({"data": {"source": "flights.csv", "time": "arr_delay"}}),
            "the time column `arr_delay` is Int64",
        ),
        (
            serde_json::json!({"label": {"name": "late", "expression": "arr_delay >", "task": "binary"}}),
            "`label.expression` `arr_delay >`",
        ),
        (
            serde_json::json!({"label": {"name": "late", "expression": "arr_dely > 3", "task": "binary"}}),
            "arr_dely",
        ),
        (
            serde_json::json!({"label": {"name": "late", "task": "binary"}}),
            "names column `late`",
        ),
        (
            serde_json::json!({"label": {"name": "carrier", "task": "multiclass"}}),
            "both the label and a feature",
        ),
        (
            serde_json::json!({"label": {"name": "y", "expression": "key", "task": "regression"}}),
            "a number for a regression task",
        ),
    ];
    for (changes, expected) in cases {
        let error = project
            .engine
            .check_spec(project.root(), &spec(changes.clone()))
            .await
            .unwrap_err();
        assert!(error.message.contains(expected), "{changes}: {error}");
    }
}

#[tokio::test]
async fn infinite_values_and_unreadable_times_are_placed() {
    let infinite = FLIGHTS.replace("Z,b,10,", "Z,b,1e999,");
    let project = Project::new(&[("flights.csv", &infinite)]);
    let error = project.snapshot(&plain()).await.unwrap_err();
    assert!(
        error
            .message
            .contains("flights.csv` line 2, column `dep_delay`: `inf` is infinite"),
        "{error}"
    );
    let words = FLIGHTS.replace("2013-01-03T05:00:00Z", "yesterday");
    let project = Project::new(&[("flights.csv", &words)]);
    let error = project.snapshot(&plain()).await.unwrap_err();
    assert!(
        error
            .message
            .contains("line 4, column `time`: `yesterday` is not a time"),
        "{error}"
    );
}

#[tokio::test]
async fn a_snapshot_without_rows_is_refused_with_what_was_looked_for() {
    let project = Project::new(&[("flights.csv", FLIGHTS)]);
    let mut request = project.request(&plain());
    request.as_of = at("2012-01-01");
    let error = project.engine.build_snapshot(request).await.unwrap_err();
    assert_eq!(error.code, "snapshot_empty");
    assert!(error.message.contains("arr_delay > 30"), "{error}");
}

#[tokio::test]
async fn a_replay_reads_a_range_in_order_with_labels_and_when_they_were_known() {
    let project = Project::new(&[("flights.csv", FLIGHTS)]);
    let engine = &project.engine;
    let range = engine.time_range(project.root(), &plain()).await.unwrap();
    assert_eq!(
        range,
        Some((at("2013-01-01T05:00:00Z"), at("2013-01-05T05:00:00Z")))
    );
    let chunk = engine
        .read_replay(project.root(), &plain(), at("2013-01-01"), at("2013-01-05"))
        .await
        .unwrap();
    let keys: Vec<_> = chunk.meta.iter().map(|m| m.key.as_deref().unwrap()).collect();
    assert_eq!(keys, ["a", "b", "c", "d"]);
    assert_eq!(chunk.meta[1].label, Some(LabelValue::Bool(true)));
    assert_eq!(chunk.meta[1].label_at, Some(at("2013-01-02T09:00:00Z")));
    assert_eq!(chunk.meta[3].label, None);
    assert_eq!(chunk.rows.rows(), 4);
}

#[tokio::test]
async fn inspecting_a_file_tells_roles_and_examples() {
    let project = Project::new(&[("flights.csv", FLIGHTS)]);
    let summary = project
        .engine
        .inspect(project.root(), "flights.csv")
        .await
        .unwrap();
    assert_eq!(summary.rows, 5);
    let roles: Vec<_> = summary.columns.iter().map(|c| c.role.as_str()).collect();
    assert_eq!(
        roles,
        ["time", "categorical", "numeric", "categorical", "numeric", "time"]
    );
    assert_eq!(summary.columns[2].nulls, 1);
    assert_eq!(summary.columns[2].min.as_deref(), Some("-3"));
    assert_eq!(summary.columns[3].examples, ["AA", "UA"]);
}

#[tokio::test]
async fn json_lines_work_like_csv_and_classes_are_sorted() {
    let rows = "{\"x\":1,\"y\":\"b\"}\n{\"x\":null,\"y\":\"a\"}\n{\"x\":2.5,\"y\":null}\n";
    let spec = spec(serde_json::json!({
        "data": {"source": "rows.jsonl"},
        "label": {"name": "y", "task": "multiclass"},
        "features": {"x": "numeric"},
    }));
    let project = Project::new(&[("rows.jsonl", rows)]);
    let manifest = project.snapshot(&spec).await.unwrap();
    assert_eq!(manifest.classes, ["a", "b"]);
    assert_eq!(manifest.time, None);
    let loaded = project.engine.load_snapshot(&manifest).await.unwrap();
    assert!(loaded.times.is_empty());
    let Labels::Multiclass { indices, .. } = loaded.labels else {
        panic!("wrong task");
    };
    assert_eq!(indices, [1, 0]);
}

fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// As pandas writes them: a zone, nanoseconds, a categorical, and a column that is whole in one file and not in the other.
fn pandas_files(project: &Project, second: f64) {
    let hour = 3_600_000_000_000_i64;
    for (name, start, delays) in [
        ("a.parquet", 0, Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
        (
            "b.parquet",
            2,
            Arc::new(Float64Array::from(vec![0.5, second])) as ArrayRef,
        ),
    ] {
        let times = TimestampNanosecondArray::from(vec![start * hour, (start + 1) * hour])
            .with_timezone("America/New_York");
        let carriers: DictionaryArray<Int32Type> = vec![Some("AA"), None].into_iter().collect();
        parquet(
            &project.root().join(name),
            vec![
                ("When", Arc::new(times)),
                ("dep delay", delays),
                ("carrier", Arc::new(carriers)),
                (
                    "late",
                    Arc::new(BooleanArray::from(vec![Some(true), Some(false)])),
                ),
            ],
        );
    }
}

fn pandas_spec() -> Spec {
    let set = serde_json::json!({"column": "carrier", "value_set": ["AA"]});
    spec(serde_json::json!({
        "data": {"source": "*.parquet", "time": "When"},
        "label": {"name": "late", "task": "binary"},
        "features": {"dep delay": "numeric", "carrier": "categorical"},
        "expectations": {"list": [
            {"type": "expect_column_values_to_be_in_set", "kwargs": set},
            {"type": "expect_column_distinct_values_to_be_in_set", "kwargs": set},
            {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "carrier"}, "severity": "info"},
            {"type": "expect_column_max_to_be_between", "kwargs": {"column": "When", "max_value": "1970-01-01T03:00:00Z"}},
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "dep delay", "mostly": 0.7}},
            {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "carrier", "regex": "^A"}},
            {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "dep delay", "min_value": 1, "max_value": 1.5,
                "row_condition": {"type": "comparison", "column": {"name": "dep delay"}, "operator": ">", "parameter": 0.7}}},
        ]},
    }))
}

#[tokio::test]
async fn parquet_files_of_pandas_are_validated_nan_is_missing_and_infinity_is_placed() {
    let project = Project::new(&[]);
    pandas_files(&project, f64::NAN);
    project
        .engine
        .check_spec(project.root(), &pandas_spec())
        .await
        .unwrap();
    let manifest = project.snapshot(&pandas_spec()).await.unwrap();
    let validation = manifest.validation.as_ref().unwrap();
    let successes: Vec<_> = validation["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["success"].as_bool().unwrap())
        .collect();
    assert_eq!(
        successes,
        [true, true, false, true, true, true, true],
        "{validation:#}"
    );
    assert!(!manifest.quarantined);
    assert_eq!(validation["results"][2]["result"]["unexpected_count"], 2);
    let loaded = project.engine.load_snapshot(&manifest).await.unwrap();
    assert_eq!(loaded.times[3], at("1970-01-01T03:00:00Z"));
    let Column::Numeric(delays) = &loaded.rows.columns()[0] else {
        panic!("wrong kind");
    };
    assert_eq!(delays[..3], [1.0, 2.0, 0.5]);
    assert!(delays[3].is_nan());
    pandas_files(&project, f64::INFINITY);
    let error = project.snapshot(&pandas_spec()).await.unwrap_err();
    assert!(
        error
            .message
            .contains("b.parquet` row 1, column `dep delay`: `inf` is infinite"),
        "{error}"
    );
}

/// Two Parquet files, the second one with the pages of `column` overwritten: its footer is sound.
fn damaged_files(column: usize) -> Project {
    let project = Project::new(&[]);
    let rows = 0..2_000_i64;
    let carriers: Vec<String> = rows.clone().map(|i| format!("c{}", i * 7_919 % 10_007)).collect();
    let times = TimestampNanosecondArray::from_iter_values(rows.clone().map(|i| i * 1_000_000_000));
    let delays = Float64Array::from_iter_values(rows.clone().map(|i| (i * 7_919 % 10_007) as f64));
    let late: BooleanArray = rows.map(|i| Some(i % 3 == 0)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("When", Arc::new(times.with_timezone("UTC"))),
        ("dep delay", Arc::new(delays)),
        ("carrier", Arc::new(StringArray::from_iter_values(carriers))),
        ("late", Arc::new(late)),
    ];
    parquet(&project.root().join("a.parquet"), columns.clone());
    let path = project.root().join("b.parquet");
    parquet(&path, columns);
    let mut bytes = std::fs::read(&path).unwrap();
    let file = SerializedFileReader::new(Bytes::from(bytes.clone())).unwrap();
    let (start, length) = file.metadata().row_group(0).column(column).byte_range();
    bytes[start as usize..(start + length) as usize].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    project
}

fn damaged_spec(features: &serde_json::Value, expected: &[&str]) -> Spec {
    let expectations: Vec<_> = expected
        .iter()
        .map(|column| serde_json::json!({"type": "expect_column_values_to_be_unique", "kwargs": {"column": column}}))
        .collect();
    spec(serde_json::json!({
        "data": {"source": "*.parquet", "time": "When"},
        "label": {"name": "late", "task": "binary"},
        "features": features,
        "expectations": {"list": expectations},
    }))
}

#[track_caller]
fn names_the_damage<T>(result: Result<T, PortError>, column: &str) {
    let error = result.err().unwrap();
    assert_eq!(
        (error.code, error.blame),
        ("source_corrupt", Blame::Caller),
        "{error}"
    );
    let expected = format!("b.parquet` cannot be read as Parquet: column `{column}` is damaged: ");
    assert!(error.message.contains(&expected), "{error}");
}

#[tokio::test]
async fn damaged_pages_of_a_parquet_file_are_named_by_every_query() {
    let all = damaged_spec(
        &serde_json::json!({"dep delay": "numeric", "carrier": "categorical"}),
        &[],
    );
    for (i, column) in ["When", "dep delay", "carrier", "late"].into_iter().enumerate() {
        let project = damaged_files(i);
        let (engine, root) = (&project.engine, project.root());
        engine.check_spec(root, &all).await.unwrap();
        names_the_damage(project.snapshot(&all).await, column);
        names_the_damage(engine.inspect(root, "*.parquet").await, column);
        let replayed = engine
            .read_replay(root, &all, at("1970-01-01"), at("1971-01-01"))
            .await;
        names_the_damage(replayed, column);
    }
    let project = damaged_files(0);
    names_the_damage(project.engine.time_range(project.root(), &all).await, "When");

    let project = damaged_files(2);
    let (engine, root) = (&project.engine, project.root());
    names_the_damage(
        engine.read_features(&root.join("b.parquet"), &all).await,
        "carrier",
    );
    // Only an expectation reads the column, and another expectation can be checked.
    let expecting = damaged_spec(&serde_json::json!({"dep delay": "numeric"}), &["late", "carrier"]);
    names_the_damage(project.snapshot(&expecting).await, "carrier");
}

#[tokio::test]
async fn words_and_infinities_in_a_numeric_csv_column_are_placed() {
    for (word, problem) in [
        ("Infinity", "is infinite"),
        ("-Infinity", "is infinite"),
        ("+inf", "is infinite"),
        ("INF", "is infinite"),
        ("many", "is not a number"),
        ("+5", "sign `+`"),
        ("99999999999999999999", "64 bits"),
    ] {
        let text = FLIGHTS.replace("Z,c,-3,", &format!("Z,c,{word},"));
        let project = Project::new(&[("flights.csv", &text)]);
        let error = project
            .engine
            .check_spec(project.root(), &plain())
            .await
            .unwrap_err();
        let expected = format!("flights.csv` line 4, column `dep_delay`: `{word}` ");
        assert!(
            error.message.contains(&expected) && error.message.contains(problem),
            "{error}"
        );
        assert_eq!(error.code, "source_bad_value");

        let label = FLIGHTS.replace(
            "2013-01-03T05:00:00Z,c,-3,,31,",
            &format!("2013-01-03T05:00:00Z,c,-3,,{word},"),
        );
        let project = Project::new(&[("flights.csv", &label)]);
        let regression = spec(serde_json::json!({"label": {"name": "arr_delay", "task": "regression"}}));
        let error = project
            .engine
            .check_spec(project.root(), &regression)
            .await
            .unwrap_err();
        let expected = format!("flights.csv` line 4, column `arr_delay`: `{word}` ");
        assert!(
            error.message.contains(&expected) && error.message.contains(problem),
            "{error}"
        );
        if word != "+5" {
            // The expression of the label computes with it.
            let error = project.snapshot(&plain()).await.unwrap_err();
            assert!(
                error.message.contains(&expected) && error.message.contains(problem),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn a_csv_with_only_a_header_line_is_empty_whatever_is_asked_of_it() {
    let project = Project::new(&[("flights.csv", FLIGHTS.lines().next().unwrap())]);
    let (engine, root) = (&project.engine, project.root());
    for error in [
        engine.check_spec(root, &plain()).await.unwrap_err(),
        engine.inspect(root, "flights.csv").await.unwrap_err(),
        engine.time_range(root, &plain()).await.unwrap_err(),
        project.snapshot(&plain()).await.unwrap_err(),
    ] {
        assert_eq!(error.code, "source_empty");
        assert!(error.message.contains("flights.csv` is empty"), "{error}");
    }
}
