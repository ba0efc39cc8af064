//! XGBoost's files and scikit-learn's trees: answers without any Python at hand, and files that are damaged or hostile.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod common;

use std::sync::Arc;

use common::{frame, manifest_dir};
use proptest::prelude::*;
use serde_json::{Value, json};
use tidemill_core::frame::{Column, Frame, Scores};
use tidemill_core::ports::{ModelBundle, ModelRuntime, PortError};
use tidemill_models::Runtime;

fn data(name: &str) -> Vec<u8> {
    std::fs::read(manifest_dir().join("tests/data/formats").join(name)).unwrap()
}

const FILES: [(&str, &str); 3] = [
    ("xgboost", "xgboost.json"),
    ("xgboost", "xgboost.ubj"),
    ("sklearn_trees", "sklearn.json"),
];

fn bundle(format: &str, file: Vec<u8>) -> ModelBundle {
    let manifest = json!({"format": format, "file": "m"});
    ModelBundle::from([
        ("model.json".to_owned(), serde_json::to_vec(&manifest).unwrap()),
        ("m".to_owned(), file),
    ])
}

fn rows() -> (Frame, Value) {
    let read: Value = serde_json::from_slice(&data("rows.json")).unwrap();
    let values = |name: &str| read["columns"][name].as_array().unwrap().clone();
    let numbers = |name: &str| {
        let values = values(name);
        Column::Numeric(
            values
                .iter()
                .map(|value| value.as_f64().unwrap_or(f64::NAN))
                .collect(),
        )
    };
    let colours = values("colour");
    let colours = Column::Categorical(
        colours
            .iter()
            .map(|value| value.as_str().map(Arc::from))
            .collect(),
    );
    let rows = frame(vec![
        ("a", numbers("a")),
        ("b", numbers("b")),
        ("colour", colours),
    ]);
    (rows, read["expected"].clone())
}

#[test]
fn saved_models_answer_raw_columns_as_their_libraries_do() {
    let (rows, expected) = rows();
    for (format, file) in FILES {
        let model = Runtime.load(&bundle(format, data(file))).unwrap();
        let Scores::Multiclass { probabilities, .. } = model.predict(&rows).unwrap() else {
            panic!("{file}: three classes");
        };
        let library = file.split('.').next().unwrap();
        let expected = expected[library].as_array().unwrap().iter();
        let expected: Vec<f64> = expected
            .flat_map(|row| row.as_array().unwrap())
            .map(|number| number.as_f64().unwrap())
            .collect();
        for (got, expected) in probabilities.iter().zip(&expected) {
            let same = if library == "xgboost" {
                got == expected
            } else {
                (got - expected).abs() < 1e-15
            };
            assert!(same, "{file}: {got:?} is not {expected:?}");
        }
        assert_eq!(probabilities.len(), expected.len());
    }
}

#[test]
fn contributions_add_up_to_the_answer_and_the_columns_of_a_feature_are_one() {
    let (rows, _) = rows();
    let model = Runtime
        .load(&bundle("sklearn_trees", data("sklearn.json")))
        .unwrap();
    let answers = model.predict(&rows).unwrap();
    let contributions = model.contributions(&rows).unwrap().unwrap();
    // Three sums, of two numbers and one colour, which the forest reads as three columns.
    assert_eq!(contributions.outputs, 3);
    assert_eq!(contributions.values.len(), rows.rows() * 3 * 4);
    for (parts, answer) in contributions.values.chunks(4).zip(answers.values()) {
        assert!((parts.iter().sum::<f64>() - answer).abs() < 1e-12);
    }
    assert!(contributions.values.chunks(4).any(|parts| parts[2].abs() > 1e-3));
}

fn refused(format: &str, file: Vec<u8>) -> PortError {
    Runtime.load(&bundle(format, file)).unwrap_err()
}

#[test]
fn a_broken_file_is_refused_with_what_is_wrong() {
    let text = String::from_utf8(data("xgboost.json")).unwrap();
    let sklearn = String::from_utf8(data("sklearn.json")).unwrap();
    let cases = [
        (
            "xgboost",
            text.replace("\"gbtree\"", "\"gblinear\""),
            "`gradient_booster` is `gblinear`",
        ),
        (
            "xgboost",
            text.replace("multi:softprob", "own"),
            "`objective` is `own`",
        ),
        (
            "xgboost",
            text.replace("\"num_feature\":\"3\"", "\"num_feature\":\"1\""),
            "of 1",
        ),
        (
            "xgboost",
            text.replace("\"num_class\":\"3\"", "\"num_class\":\"4000000000\""),
            "`num_class` is 4000000000",
        ),
        (
            "xgboost",
            text.replace("\"tree_info\":[0,", "\"tree_info\":[9,"),
            "`tree_info` of tree 0 is 9",
        ),
        (
            "xgboost",
            "{\"learner\": 1}".to_owned(),
            "a model as `Booster.save_model` writes it",
        ),
        (
            "sklearn_trees",
            sklearn.replace("\"version\": 1", "\"version\": 7"),
            "`version` is 7",
        ),
        (
            "sklearn_trees",
            sklearn.replace("\"equals\"", "\"exec\""),
            "makes no sense",
        ),
        (
            "sklearn_trees",
            sklearn.replacen("\"left\": [1,", "\"left\": [0,", 1),
            "reaches a node or a leaf twice",
        ),
        (
            "sklearn_trees",
            sklearn.replacen("\"left\": [1,", "\"left\": [99,", 1),
            "has a child 99 that is not there",
        ),
    ];
    for (format, file, expected) in cases {
        let error = refused(format, file.into_bytes());
        assert_eq!(error.code, "model_broken", "{error}");
        assert!(
            error.message.contains(expected),
            "{error}\nshould say: {expected}"
        );
    }
    // A pickle is no model file here, whatever the manifest calls it.
    let error = refused(
        "sklearn_trees",
        b"\x80\x04\x95\x10\0\0\0\0\0\0\0cos\nsystem\n.".to_vec(),
    );
    assert_eq!(error.code, "model_broken", "{error}");
}

/// A mutated file either is refused or answers; it never panics, loops or fills the memory.
fn survives(case: usize, file: Vec<u8>) {
    let (format, _) = FILES[case];
    if let Ok(model) = Runtime.load(&bundle(format, file)) {
        let (rows, _) = rows();
        let _ = model.predict(&rows);
        let _ = model.contributions(&rows);
    }
}

proptest! {
    #[test]
    fn a_mutated_file_never_panics(
        case in 0_usize..FILES.len(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..4, prop_oneof![
                "[0-9,\\[\\]\"{}.-]{0,3}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..3),
            ]),
            1..5,
        ),
    ) {
        let mut file = data(FILES[case].1);
        for (at, removed, inserted) in edits {
            let start = at.index(file.len());
            let end = (start + removed).min(file.len());
            file.splice(start..end, inserted);
        }
        survives(case, file);
    }

    #[test]
    fn a_file_that_is_cut_off_never_panics(case in 0_usize..FILES.len(), at in any::<prop::sample::Index>()) {
        let file = data(FILES[case].1);
        survives(case, file[..at.index(file.len())].to_vec());
    }
}
