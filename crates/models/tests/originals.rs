//! Models of scikit-learn, LightGBM, XGBoost and ONNX answer as their Python originals do. The originals are trained here, by the
//! Python of `tests/clients/requirements.txt`: `make test` names it in `TIDEMILL_PYTHON`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // helpers of tests

mod common;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use common::{frame, manifest_dir};
use serde_json::Value;
use tidemill_core::frame::{Column, Frame};
use tidemill_core::ports::{Model, ModelBundle, ModelRuntime};
use tidemill_core::servable::{CallContext, Payload, Servable};
use tidemill_core::tensors::{DataType, Tensor};
use tidemill_models::{OnnxModel, Runtime};

/// A trained model, rows, and the answers of its library.
struct Case {
    name: String,
    bundle: ModelBundle,
    rows: Frame,
    expected: Vec<f64>,
    compare: Value,
    contributions: Option<Vec<f64>>,
}

/// The cases whose names begin so; none where there is no Python for the tests.
fn cases(made: &tempfile::TempDir) -> Option<Vec<Case>> {
    let Some(python) = std::env::var_os("TIDEMILL_PYTHON") else {
        eprintln!(
            "skipped: TIDEMILL_PYTHON names no Python with tests/clients/requirements.txt; `make test` does"
        );
        return None;
    };
    let script = manifest_dir().join("tests/originals/make.py");
    let done = Command::new(python)
        .arg(script)
        .arg(made.path())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut cases: Vec<Case> = folders(made.path()).iter().map(|folder| case(folder)).collect();
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        eprintln!("skipped: ONNX models; ORT_DYLIB_PATH names no ONNX Runtime, `make test` does");
        cases.retain(|case| !case.name.starts_with("onnx_"));
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Some(cases)
}

fn folders(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("case.json").exists())
        .collect()
}

fn case(folder: &Path) -> Case {
    let files = std::fs::read_dir(folder.join("bundle")).unwrap();
    let bundle = files.map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    });
    let case: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
    let columns = case["columns"].as_object().unwrap();
    let rows = columns
        .iter()
        .map(|(name, values)| (name.as_str(), column(values.as_array().unwrap())));
    let flat = |rows: &Value| {
        let numbers = rows.as_array().unwrap().iter();
        numbers
            .flat_map(|row| row.as_array().unwrap())
            .map(|number| number.as_f64().unwrap())
            .collect()
    };
    Case {
        name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
        bundle: bundle.collect(),
        rows: frame(rows.collect()),
        expected: flat(&case["expected"]),
        contributions: case.get("contributions").map(flat),
        compare: case["compare"].clone(),
    }
}

fn column(values: &[Value]) -> Column {
    if values.iter().any(Value::is_string) {
        let texts = values.iter().map(|value| value.as_str().map(Arc::from));
        return Column::Categorical(texts.collect());
    }
    let numbers = values.iter().map(|value| value.as_f64().unwrap_or(f64::NAN));
    Column::Numeric(numbers.collect())
}

impl Case {
    /// What is wrong with a model's answers, if anything.
    fn differs(&self, model: &dyn Model, rows: &Frame, expected: &[f64]) -> Option<String> {
        let scores = match model.predict(rows) {
            Ok(scores) => scores,
            Err(error) => return Some(error.to_string()),
        };
        let got = scores.values();
        if got.len() != expected.len() {
            return Some(format!("{} numbers instead of {}", got.len(), expected.len()));
        }
        let same = |a: f64, b: f64| match self.compare.as_f64() {
            Some(tolerance) => (a - b).abs() <= tolerance * b.abs().max(1.0),
            None => a.to_bits() == b.to_bits(),
        };
        let wrong: Vec<usize> = (0..got.len())
            .filter(|&at| !same(got[at], expected[at]))
            .collect();
        let first = *wrong.first()?;
        Some(format!(
            "{} of {} differ; number {first} is {:?}, expected {:?}",
            wrong.len(),
            got.len(),
            got[first],
            expected[first]
        ))
    }
}

/// Contributions equal the library's own: LightGBM counts rows in `double`, XGBoost weighs them in `float`.
fn contributions_differ(case: &Case, model: &dyn Model) -> Option<String> {
    let expected = case.contributions.as_ref()?;
    let tolerance = if case.name.starts_with("lightgbm") {
        1e-9
    } else {
        1e-4
    };
    let Some(got) = model.contributions(&case.rows).unwrap() else {
        return Some(format!("{}: no contributions", case.name));
    };
    let pairs = got.values.iter().zip(expected);
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let same = got.values.len() == expected.len() && worst <= tolerance;
    (!same).then(|| {
        let lengths = (got.values.len(), expected.len());
        format!(
            "{}: contributions differ by {worst}, of {lengths:?} numbers",
            case.name
        )
    })
}

/// ONNX models that have to run on our own engine.
const NATIVE: [&str; 17] = [
    "decision_tree",
    "extra_trees",
    "gradient_boosting",
    "gradient_boosting_multiclass",
    "gradient_boosting_regressor",
    "hist_binary",
    "hist_regressor",
    "lightgbm",
    "lightgbm_multiclass",
    "lightgbm_regressor",
    "random_forest_binary",
    "random_forest_regressor",
    "random_forest_zipmap",
    "scaled_trees",
    "xgboost",
    "xgboost_multiclass",
    "xgboost_regressor",
];

/// Whatever runs an ONNX model, its answers are ONNX Runtime's to the last bit.
fn differs_from_onnx_runtime(case: &Case) -> Option<String> {
    let mut bundle = case.bundle.clone();
    let mut manifest: Value = serde_json::from_slice(&bundle["model.json"]).unwrap();
    manifest["engine"] = "onnxruntime".into();
    bundle.insert("model.json".into(), serde_json::to_vec(&manifest).unwrap());
    let theirs = Runtime.load(&bundle).unwrap();
    let ours = Runtime.load(&case.bundle).unwrap();
    let native = format!("{ours:?}").starts_with("TreeModel");
    if native != NATIVE.contains(&case.name.trim_start_matches("onnx_")) {
        return Some(format!("{}: runs on our own engine: {native}", case.name));
    }
    let (theirs, ours) = (
        theirs.predict(&case.rows).unwrap(),
        ours.predict(&case.rows).unwrap(),
    );
    if theirs != ours {
        return Some(format!(
            "{}: not ONNX Runtime's answers to the last bit",
            case.name
        ));
    }

    // As tensors: labels and scores of all classes.
    let theirs = OnnxModel::load_on_onnx_runtime(&case.bundle, "m.onnx").unwrap();
    let ours = OnnxModel::load(&case.bundle, "m.onnx").unwrap();
    if (ours.interface().platform == "tidemill_trees") != native {
        return Some(format!(
            "{}: as tensors on {}",
            case.name,
            ours.interface().platform
        ));
    }
    let all: Vec<usize> = (0..700).map(|row| row % case.rows.rows()).collect();
    [case.rows.clone(), case.rows.take(&[3]), case.rows.take(&all)]
        .into_iter()
        .find_map(|rows| {
            let (theirs, ours) = (answers(&theirs, &rows), answers(&ours, &rows));
            (theirs != ours).then(|| {
                let rows = rows.rows();
                format!("{}: not ONNX Runtime's tensors, of {rows} rows", case.name)
            })
        })
}

/// The outputs of a graph for the rows of a table.
fn answers(model: &OnnxModel, rows: &Frame) -> Vec<Tensor> {
    let columns = rows.columns();
    let inputs = &model.interface().inputs;
    let tensors = inputs.iter().zip(0..).map(|(input, first)| {
        let width = if inputs.len() == 1 { columns.len() } else { 1 };
        let shape = vec![rows.rows(), width];
        let cells = |row: usize| {
            columns[first..first + width]
                .iter()
                .map(move |column| (column, row))
        };
        let numbers = (0..rows.rows())
            .flat_map(cells)
            .map(|(column, row)| match column {
                Column::Numeric(values) => values[row],
                Column::Categorical(_) => f64::NAN,
            });
        match (input.datatype, &columns[first]) {
            (DataType::Bytes, Column::Categorical(texts)) => {
                let texts = texts
                    .iter()
                    .map(|text| Some(text.as_deref().unwrap().to_owned().into()));
                Tensor::strings(input.name.as_str(), shape, texts.collect()).unwrap()
            }
            (DataType::Int64, _) => {
                let bytes: Vec<u8> = numbers.flat_map(|number| (number as i64).to_le_bytes()).collect();
                Tensor::fixed(input.name.as_str(), DataType::Int64, shape, bytes.into()).unwrap()
            }
            _ => {
                let numbers: Vec<f32> = numbers.map(|number| number as f32).collect();
                Tensor::of_f32(input.name.as_str(), shape, &numbers).unwrap()
            }
        }
    });
    let asked = Payload::Tensors(tensors.collect());
    let context = CallContext::default();
    let mut call = std::pin::pin!(model.call(asked, &context));
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(Payload::Tensors(answers))) => answers,
        other => panic!("{other:?}"),
    }
}

#[test]
fn models_answer_as_their_python_originals_do() {
    let made = tempfile::tempdir().unwrap();
    let Some(cases) = cases(&made) else {
        return;
    };
    let mut failures = Vec::new();
    for case in &cases {
        let model = match Runtime.load(&case.bundle) {
            Ok(model) => model,
            Err(error) => {
                failures.push(format!("{}: {error}", case.name));
                continue;
            }
        };
        if let Some(difference) = case.differs(model.as_ref(), &case.rows, &case.expected) {
            failures.push(format!("{}: {difference}", case.name));
            continue;
        }
        failures.extend(contributions_differ(case, model.as_ref()));
        // Row by row too, which goes another way through the engine.
        let width = case.expected.len() / case.rows.rows();
        let single = (0..case.rows.rows().min(50)).find_map(|row| {
            let expected = &case.expected[row * width..][..width];
            case.differs(model.as_ref(), &case.rows.take(&[row]), expected)
        });
        failures.extend(single.map(|difference| format!("{}, one row: {difference}", case.name)));
    }
    for case in cases.iter().filter(|case| case.name.starts_with("onnx_")) {
        failures.extend(differs_from_onnx_runtime(case));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(cases.len() >= 20, "only {} models", cases.len());
}
