//! Great Expectations' own cases, kept where its 1.24.1 still agrees, against our validation. They are read from outside the project
//! (`$TIDEMILL_CONFORMANCE`, else `../shared/conformance` beside the workspace); without them this test says so and passes.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of a test, which may fail loudly

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, NullArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use serde_json::{Map, Value, json};
use tidemill_core::clock::Timestamp;
use tidemill_core::spec::{ExpectationSpec, Severity};
use tidemill_data::expectations::{EXPECTATIONS, ValidationOptions, validate_table};

const PK: &str = "pk_index";

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: Vec<String>,
    not_implemented: Vec<String>,
}

fn cases() -> Option<Vec<Value>> {
    let folder = std::env::var_os("TIDEMILL_CONFORMANCE").map_or_else(
        || manifest_dir().join("../../../shared/conformance"),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(folder.join("great_expectations/cases.jsonl")).ok()?;
    // Python writes NaN and Infinity, which JSON does not know: the former is a missing value there, the latter a very large number.
    let parse =
        |line: &str| serde_json::from_str(&line.replace("NaN", "null").replace("Infinity", "1e308")).unwrap();
    Some(text.lines().map(parse).collect())
}

/// Some engine's type of a column says what JSON cannot.
fn declared(case: &Value, column: &str) -> String {
    ["pandas", "spark", "postgresql", "sqlite"]
        .iter()
        .find_map(|engine| case["schemas"][engine][column].as_str())
        .unwrap_or_default()
        .to_lowercase()
}

fn array(values: &[Value], declared: &str) -> Option<ArrayRef> {
    let present: Vec<&Value> = values.iter().filter(|v| !v.is_null()).collect();
    if present.is_empty() {
        return Some(if declared.contains("str") {
            Arc::new(StringArray::from(vec![None::<&str>; values.len()]))
        } else {
            Arc::new(NullArray::new(values.len()))
        });
    }
    Some(if present.iter().all(|v| v.is_boolean()) {
        Arc::new(values.iter().map(Value::as_bool).collect::<BooleanArray>())
    } else if present.iter().all(|v| v.is_i64()) {
        Arc::new(values.iter().map(Value::as_i64).collect::<Int64Array>())
    } else if present.iter().all(|v| v.is_number()) {
        Arc::new(values.iter().map(Value::as_f64).collect::<Float64Array>())
    } else if present.iter().all(|v| v.is_string()) && declared.contains("time") {
        let mut times = Vec::new();
        for value in values {
            times.push(match value.as_str() {
                Some(text) => Some(string_to_timestamp_nanos(text).ok()? / 1_000),
                None => None,
            });
        }
        Arc::new(TimestampMicrosecondArray::from(times))
    } else if present.iter().all(|v| v.is_string()) {
        Arc::new(values.iter().map(Value::as_str).collect::<StringArray>())
    } else {
        return None;
    })
}

fn table(case: &Value, with_pk: bool) -> Option<RecordBatch> {
    let data = case["data"].as_object()?;
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let tested = case["kwargs"]["column"].as_str();
    for (name, values) in data {
        match array(values.as_array()?, &declared(case, name)) {
            Some(array) => columns.push((name.clone(), array)),
            // A column that mixes types has no Arrow type; it only matters where it is tested or named.
            None if tested == Some(name) || case["kwargs"]["row_condition"].to_string().contains(name) => {
                return None;
            }
            None => {}
        }
    }
    if with_pk {
        let rows = columns.first()?.1.len() as i64;
        columns.push((
            PK.to_owned(),
            Arc::new((0..rows).map(Some).collect::<Int64Array>()),
        ));
    }
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .ok()
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            let (x, y) = (x.as_f64().unwrap(), y.as_f64().unwrap());
            (x - y).abs() <= 1e-7 * y.abs().max(1e-12)
        }
        (Value::String(x), Value::String(y)) => x == y || x.replace('T', " ") == y.replace('T', " "),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

fn same_multiset(got: &Value, wanted: &Value) -> bool {
    let (Some(got), Some(wanted)) = (got.as_array(), wanted.as_array()) else {
        return false;
    };
    let mut left: Vec<&Value> = got.iter().collect();
    wanted.iter().all(|w| match left.iter().position(|g| same(g, w)) {
        Some(i) => {
            left.remove(i);
            true
        }
        None => false,
    }) && left.is_empty()
}

fn without_row(index: &Value) -> Value {
    let entries = index.as_array().cloned().unwrap_or_default();
    entries
        .into_iter()
        .map(|mut entry| {
            entry.as_object_mut().map(|o| o.remove("row"));
            entry
        })
        .collect()
}

/// What differs between our result and the case's expectation.
fn differences(case: &Value, got: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, wanted) in case["expect"].as_object().unwrap() {
        let result = &got["result"];
        let fits = match key.as_str() {
            "success" => got["success"] == *wanted,
            "unexpected_list" => same_multiset(&result["unexpected_list"], wanted),
            "unexpected_index_list" => same_multiset(&without_row(&result["unexpected_index_list"]), wanted),
            "observed_value" => match (result["observed_value"].as_f64(), wanted.as_f64()) {
                (Some(a), Some(b)) => {
                    (a - b).abs() <= case["tolerance"].as_f64().unwrap_or(5e-2) + 1e-7 * b.abs()
                }
                _ => same(&result["observed_value"], wanted),
            },
            "result" => wanted
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, value)| same(&result[name], value)),
            "traceback_substring" => got["exception_info"]["raised_exception"] == json!(true),
            other => {
                wrong.push(format!("key `{other}` is not compared"));
                true
            }
        };
        if !fits {
            wrong.push(format!("{key}: wanted {wanted}, got {got}"));
        }
    }
    wrong
}

#[tokio::test]
async fn great_expectations_cases_of_the_implemented_types_pass() {
    let Some(cases) = cases() else {
        println!("the conformance cases are not here: nothing was checked");
        return;
    };
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for case in &cases {
        let kind = case["type"].as_str().unwrap();
        if !EXPECTATIONS.iter().any(|e| e.name == kind) || case["expect"].as_object().unwrap().is_empty() {
            continue;
        }
        let tally = tallies.entry(kind).or_default();
        let id = case["id"].as_str().unwrap();
        let kwargs: Map<String, Value> = case["kwargs"].as_object().unwrap().clone();
        if kwargs.values().any(|v| v.get("$PARAMETER").is_some()) {
            tally.not_implemented.push(format!("{id}: suite parameter"));
            continue;
        }
        let Some(rows) = table(case, !kind.contains("columns_to_match")) else {
            tally.not_implemented.push(format!("{id}: a column mixes types"));
            continue;
        };
        let spec = ExpectationSpec {
            kind: kind.to_owned(),
            kwargs,
            severity: Severity::Critical,
            meta: Map::new(),
        };
        let options = ValidationOptions {
            suite: "conformance".to_owned(),
            run_time: Timestamp::from_micros(0),
            index_columns: vec![PK.to_owned()],
            limit: 1_000,
        };
        let result = validate_table(rows, &[spec], &options).await.unwrap();
        let wrong = differences(case, &result["results"][0]);
        if wrong.is_empty() {
            tally.passed += 1;
        } else {
            tally.failed.push(format!("{id}: {}", wrong.join("; ")));
        }
    }
    let mut bad = Vec::new();
    for (kind, tally) in &tallies {
        let attempted = tally.passed + tally.failed.len() as u32;
        println!(
            "{kind}: {attempted} checked, {} failed, {} not implemented",
            tally.failed.len(),
            tally.not_implemented.len()
        );
        for line in tally.failed.iter().chain(&tally.not_implemented) {
            println!("    {line}");
        }
        if f64::from(tally.passed) < 0.9 * f64::from(attempted) {
            bad.push(*kind);
        }
    }
    assert!(bad.is_empty(), "less than 90 % of the cases pass for {bad:?}");
}

/// This crate's folder: asked for when the tests run, since a target folder that several clones share may hold a binary built in another.
fn manifest_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}
