//! `LightGBM` text models: answers equal `LightGBM`'s to the last bit, and broken files are told by line.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the tests themselves

mod common;

use common::{frame, frame_of_rows, lightgbm_bundle, manifest_dir, numeric_schema, texts};
use proptest::prelude::*;
use serde_json::{Value, json};
use tidemill_core::frame::{Column, Frame, Scores, Task};
use tidemill_core::ports::{Blame, ModelBundle, ModelRuntime, PortError};
use tidemill_models::Runtime;

fn data(path: &str) -> Vec<u8> {
    let path = manifest_dir().join("tests/data").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json_data(path: &str) -> Value {
    serde_json::from_slice(&data(path)).unwrap()
}

/// The numbers of a JSON answer, row-major.
fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn assert_same_bits(got: &[f64], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (position, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(
            a.to_bits() == b.to_bits(),
            "{what}, number {position}: {a:?} is not {b:?}"
        );
    }
}

fn refused(bundle: &ModelBundle) -> PortError {
    Runtime.load(bundle).unwrap_err()
}

#[test]
fn real_models_answer_as_lightgbm_does_to_the_last_bit() {
    for (name, task) in [
        ("flights", Task::Binary),
        ("diabetes", Task::Regression),
        ("wine", Task::Multiclass),
    ] {
        let manifest = json_data(&format!("{name}/model.json"));
        let rows = json_data(&format!("{name}/rows.json"));
        let rows = frame_of_rows(&manifest, rows.as_array().unwrap());
        let expected = flat(&json_data(&format!("{name}/expected.json")));
        let model = Runtime
            .load(&lightgbm_bundle(&manifest, data(&format!("{name}/model.txt"))))
            .unwrap();
        let scores = model.predict(&rows).unwrap();
        assert_eq!(scores.task(), task, "{name}");
        assert_same_bits(scores.values(), &expected, name);

        // One by one, and so many that threads share the work, the answers are the same.
        let width = scores.width();
        for row in 0..rows.rows() {
            let one = model.predict(&rows.take(&[row])).unwrap();
            assert_same_bits(one.values(), &expected[row * width..(row + 1) * width], name);
        }
        let often: Vec<usize> = (0..2000).map(|index| index % rows.rows()).collect();
        assert_eq!(
            model.predict(&rows.take(&often)).unwrap(),
            scores.take(&often),
            "{name}"
        );
    }
}

#[test]
fn every_objective_and_missing_type_answers_as_lightgbm_does_to_the_last_bit() {
    let edge = json_data("edge.json");
    let names = ["a", "b", "c", "d", "e"];
    let columns = (0..names.len()).map(|column| {
        let rows = edge["rows"].as_array().unwrap().iter();
        Column::Numeric(rows.map(|row| row[column].as_f64().unwrap_or(f64::NAN)).collect())
    });
    let rows = Frame::new(numeric_schema(&names), columns.collect()).unwrap();
    let features: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "kind": "numeric"}))
        .collect();
    for case in edge["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let manifest = json!({"format": "lightgbm", "file": "model.txt", "features": features});
        let model = Runtime
            .load(&lightgbm_bundle(&manifest, case["model"].as_str().unwrap()))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let scores = model
            .predict(&rows)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_same_bits(scores.values(), &flat(&case["expected"]), name);
    }
}

#[test]
fn columns_may_come_in_another_order_and_more_may_come() {
    let manifest = json_data("flights/model.json");
    let rows = json_data("flights/rows.json");
    let rows = frame_of_rows(&manifest, rows.as_array().unwrap());
    let model = Runtime
        .load(&lightgbm_bundle(&manifest, data("flights/model.txt")))
        .unwrap();
    let names = rows.schema().features.iter().map(|feature| feature.name.as_str());
    let mut columns: Vec<(&str, Column)> = names.zip(rows.columns().iter().cloned()).collect();
    columns.reverse();
    columns.insert(3, ("tail_number", texts(&vec!["N1"; rows.rows()])));
    assert_eq!(
        model.predict(&frame(columns)).unwrap(),
        model.predict(&rows).unwrap()
    );
}

#[test]
fn rows_without_a_feature_or_with_another_kind_are_refused_by_name() {
    let model = small();
    let error = model.predict(&frame(vec![("level", texts(&["1"]))])).unwrap_err();
    assert_eq!(error.code, "features_mismatch");
    assert_eq!(error.blame, Blame::Caller);
    assert!(
        error
            .message
            .contains("`age` is not there, `level` is categorical, expected numeric"),
        "{error}"
    );
}

const SMALL: &str = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=1\nobjective=regression\n\
                     feature_names=age level\n\nTree=0\nnum_leaves=2\nnum_cat=0\nsplit_feature=0\nthreshold=30.5\n\
                     decision_type=8\nleft_child=-1\nright_child=-2\nleaf_value=1.5 2.5\nis_linear=0\nshrinkage=1\n\n\n\
                     end of trees\n";

fn small_manifest() -> Value {
    json!({"format": "lightgbm", "file": "model.txt", "features": [
        {"name": "age", "kind": "numeric"}, {"name": "level", "kind": "numeric"}]})
}

fn small() -> std::sync::Arc<dyn tidemill_core::ports::Model> {
    Runtime.load(&lightgbm_bundle(&small_manifest(), SMALL)).unwrap()
}

#[test]
fn a_small_model_answers_and_a_frame_of_no_rows_too() {
    let rows = |ages: &[f64]| {
        let levels = vec![0.0; ages.len()];
        let columns = vec![Column::Numeric(ages.to_vec()), Column::Numeric(levels)];
        Frame::new(numeric_schema(&["age", "level"]), columns).unwrap()
    };
    let answers = small().predict(&rows(&[30.5, 30.6, f64::NAN])).unwrap();
    assert_eq!(answers, Scores::Regression(vec![1.5, 2.5, 2.5]));
    assert_eq!(small().predict(&rows(&[])).unwrap(), Scores::Regression(vec![]));
}

#[test]
fn a_broken_file_is_told_by_line() {
    let cases = [
        (
            SMALL.replace("end of trees\n", ""),
            "ends; expected `end of trees`",
        ),
        (
            SMALL.replace("leaf_value=1.5 2.5", "leaf_value=1.5"),
            "line 17: `leaf_value` holds 1 values; expected 2",
        ),
        (
            SMALL.replace("leaf_value=1.5 2.5", "leaf_value=1.5 x"),
            "line 17: `leaf_value` has `x`; expected a number",
        ),
        (
            SMALL.replace("leaf_value=1.5 2.5", "leaf_value=1.5 inf"),
            "line 17: `leaf_value` has `inf`",
        ),
        (
            SMALL.replace("left_child=-1", "left_child=0"),
            "line 15: `left_child` of split 0 is 0; expected",
        ),
        (
            SMALL.replace("split_feature=0", "split_feature=2"),
            "line 12: `split_feature` has 2; expected less than 2",
        ),
        (
            SMALL.replace("decision_type=8", "decision_type=12"),
            "line 14: `decision_type` 12 has missing type 3",
        ),
        (
            SMALL.replace("decision_type=8", "decision_type=9"),
            "the number of a category set, less than 0",
        ),
        (
            SMALL.replace("is_linear=0", "is_linear=1"),
            "train with `linear_tree=false`",
        ),
        (
            SMALL.replace("num_leaves=2\n", ""),
            "line 9: the section that starts here is short; expected a line `num_leaves=`",
        ),
        (
            SMALL.replace("version=v4", "version=v9"),
            "line 2: `version` is `v9`",
        ),
        (
            SMALL.replace("tree\nversion", "shrub\nversion"),
            "line 1: the first line is `shrub`; expected `tree`",
        ),
        (
            SMALL.replace("num_tree_per_iteration=1", "num_tree_per_iteration=3"),
            "num_tree_per_iteration",
        ),
    ];
    for (text, expected) in cases {
        let error = refused(&lightgbm_bundle(&small_manifest(), text));
        assert_eq!((error.code, error.blame), ("model_broken", Blame::Caller));
        assert!(
            error.message.contains(expected),
            "{error}\nshould say: {expected}"
        );
    }
    let binary = refused(&lightgbm_bundle(
        &small_manifest(),
        [SMALL.as_bytes(), b"\xff\xfe"].concat(),
    ));
    assert!(
        binary.message.contains("line 23: the file is not text"),
        "{binary}"
    );
}

#[test]
fn a_manifest_that_does_not_fit_is_told() {
    let with = |key: &str, value: Value| {
        let mut manifest = small_manifest();
        manifest[key] = value;
        refused(&lightgbm_bundle(&manifest, SMALL))
    };
    let cases = [
        (
            with("format", json!("pickle")),
            "model_unknown_format",
            "format `pickle`",
        ),
        (
            with("file", json!("booster.txt")),
            "model_file_missing",
            "only `model.json`, `model.txt`",
        ),
        (
            with("task", json!("binary")),
            "model_mismatch",
            "its objective answers Regression",
        ),
        (
            with("features", json!([{"name": "age", "kind": "numeric"}])),
            "model_mismatch",
            "reads 2 features",
        ),
        (
            with("features", json!([{"name": "age", "kind": "text"}])),
            "model_manifest",
            "unknown variant `text`",
        ),
        (
            with(
                "features",
                json!([{"name": "level", "kind": "numeric"}, {"name": "age", "kind": "numeric"}]),
            ),
            "model_mismatch",
            "in the order age, level",
        ),
        (
            with(
                "features",
                json!([{"name": "age", "kind": "numeric"}, {"name": "age", "kind": "numeric"}]),
            ),
            "model_manifest",
            "`age` is listed twice",
        ),
    ];
    for (error, code, expected) in cases {
        assert_eq!(error.code, code, "{error}");
        assert!(
            error.message.contains(expected),
            "{error}\nshould say: {expected}"
        );
    }
    let nothing = refused(&ModelBundle::new());
    assert_eq!(
        nothing.message,
        "the bundle has no file `model.json`, only nothing; write it beside `model.json`"
    );
    let custom = refused(&lightgbm_bundle(
        &small_manifest(),
        SMALL.replace("objective=regression\n", ""),
    ));
    assert!(
        custom
            .message
            .contains("`task` is missing; save the model with a built-in objective"),
        "{custom}"
    );
}

#[test]
fn an_answer_that_is_not_finite_is_refused() {
    let text = SMALL
        .replace("objective=regression", "objective=poisson")
        .replace("leaf_value=1.5 2.5", "leaf_value=1.5 1e308");
    let model = Runtime.load(&lightgbm_bundle(&small_manifest(), text)).unwrap();
    let columns = vec![Column::Numeric(vec![1.0, 99.0]), Column::Numeric(vec![0.0, 0.0])];
    let error = model
        .predict(&Frame::new(numeric_schema(&["age", "level"]), columns).unwrap())
        .unwrap_err();
    assert_eq!((error.code, error.blame), ("model_non_finite", Blame::Us));
    assert!(
        error.message.starts_with("the model answered `inf` for row 1;"),
        "{error}"
    );
}

/// A mutated model either is refused or answers; it never panics and never loops.
fn survives(text: Vec<u8>) {
    let manifest = json_data("edge_manifest.json");
    if let Ok(model) = Runtime.load(&lightgbm_bundle(&manifest, text)) {
        let columns = (0..5).map(|column| Column::Numeric(vec![f64::from(column), f64::NAN, -1e300, 40.0]));
        let rows = Frame::new(numeric_schema(&["a", "b", "c", "d", "e"]), columns.collect()).unwrap();
        let _ = model.predict(&rows);
    }
}

proptest! {
    #[test]
    fn a_mutated_model_never_panics(
        case in 0_usize..19,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..4, "[0-9 =.\n-]{0,3}|[a-z]{1,3}"), 1..6),
    ) {
        let edge = json_data("edge.json");
        let mut text = edge["cases"][case]["model"].as_str().unwrap().as_bytes().to_vec();
        for (at, removed, inserted) in edits {
            let start = at.index(text.len());
            let end = (start + removed).min(text.len());
            text.splice(start..end, inserted.bytes());
        }
        survives(text);
    }

    #[test]
    fn a_model_that_is_cut_off_never_panics(case in 0_usize..19, at in any::<prop::sample::Index>()) {
        let edge = json_data("edge.json");
        let text = edge["cases"][case]["model"].as_str().unwrap();
        survives(text.as_bytes()[..at.index(text.len())].to_vec());
    }
}
