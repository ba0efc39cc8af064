//! Agreement with the peers' own numbers: the vectors under `$TIDEMILL_CONFORMANCE/monitoring` (default
//! `../shared/conformance` beside the workspace). Without that folder the tests say so and count as skipped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "conformance/columns.rs"]
mod columns;

use columns::{Column, Table};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use tidemill_stats::drift::{
    self, Sample, anderson_statistic, by_name, ks_two_sample, mmd2u_evidently, score, score_default,
    tvd_statistic, wasserstein_distance,
};
use tidemill_stats::metrics::binary::{Confusion, auc, log_loss};
use tidemill_stats::metrics::{multiclass, regression};
use tidemill_stats::{Result, StatsError};

fn folder() -> Option<PathBuf> {
    let root = std::env::var_os("TIDEMILL_CONFORMANCE").map_or_else(
        || manifest_dir().join("../../../shared/conformance"),
        PathBuf::from,
    );
    let folder = root.join("monitoring");
    if folder.join("vectors").is_dir() {
        return Some(folder);
    }
    eprintln!(
        "skipped: there are no vectors under {}; set TIDEMILL_CONFORMANCE",
        folder.display()
    );
    None
}

/// What became of the vectors of one method.
#[derive(Default)]
struct Tally {
    checked: u32,
    not_implemented: u32,
    skipped: u32,
    failures: Vec<String>,
}

/// Our answer to a vector: a number, several by name, a typed error, or nothing because the method is not built.
enum Answer {
    Number(Result<f64>),
    Named(BTreeMap<String, f64>),
    NotImplemented,
}

struct Suite {
    folder: PathBuf,
    tables: HashMap<(String, &'static str), Table>,
    tallies: BTreeMap<String, Tally>,
}

impl Suite {
    fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            tables: HashMap::new(),
            tallies: BTreeMap::new(),
        }
    }

    fn vectors(&self) -> Vec<Value> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.folder.join("vectors"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let mut vectors = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let mut document: Value = serde_json::from_str(&text).unwrap();
            vectors.append(document["vectors"].as_array_mut().unwrap());
        }
        vectors
    }

    fn column(&mut self, dataset: &str, part: &'static str, name: &str, kind: &str) -> Column {
        let key = (dataset.to_owned(), part);
        let folder = self.folder.join("data");
        let table = self
            .tables
            .entry(key)
            .or_insert_with(|| Table::open(&folder, dataset, part));
        table.column(name, kind)
    }

    fn check(&mut self, kind: &str, vector: &Value, answer: &Answer) {
        let method = text(vector, "method");
        let tally = self
            .tallies
            .entry(format!("{kind} {}", method.split('[').next().unwrap()))
            .or_default();
        if !vector["degenerate"].is_null() {
            tally.skipped += 1;
            return;
        }
        if matches!(answer, Answer::NotImplemented) {
            tally.not_implemented += 1;
            return;
        }
        tally.checked += 1;
        if let Err(why) = judge(vector, answer) {
            let place = format!(
                "{}.{}",
                text(vector, "dataset"),
                vector["column"].as_str().unwrap_or("-")
            );
            tally
                .failures
                .push(format!("{} {place}: {why}", text(vector, "id")));
        }
    }

    /// Prints the table of counts and fails when a vector of an implemented method does not hold.
    fn finish(self, minimum: u32) {
        println!(
            "{:<38} {:>8} {:>7} {:>16} {:>8}",
            "kind method", "checked", "failed", "not implemented", "skipped"
        );
        let (mut checked, mut failures) = (0, Vec::new());
        for (name, tally) in self.tallies {
            let Tally {
                checked: here,
                not_implemented,
                skipped,
                failures: failed,
            } = tally;
            println!(
                "{name:<38} {here:>8} {:>7} {not_implemented:>16} {skipped:>8}",
                failed.len()
            );
            checked += here;
            failures.extend(failed.into_iter().map(|failure| format!("{name} {failure}")));
        }
        println!("checked {checked}, failed {}", failures.len());
        assert!(
            failures.is_empty(),
            "{} vectors do not hold:\n{}",
            failures.len(),
            failures.join("\n")
        );
        assert!(
            checked >= minimum,
            "only {checked} vectors were checked, expected {minimum} or more"
        );
    }
}

fn text<'a>(vector: &'a Value, field: &str) -> &'a str {
    vector[field]
        .as_str()
        .unwrap_or_else(|| panic!("vector without `{field}`: {vector}"))
}

fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("NaN") => f64::NAN,
        Some("Infinity") => f64::INFINITY,
        Some("-Infinity") => f64::NEG_INFINITY,
        Some(other) => panic!("`{other}` is not a number"),
        None => value
            .as_f64()
            .unwrap_or_else(|| panic!("`{value}` is not a number")),
    }
}

fn judge(vector: &Value, answer: &Answer) -> std::result::Result<(), String> {
    let expected = if vector["peer_defect"].is_null() {
        &vector["value"]
    } else {
        &vector["expected_correct"]
    };
    let near = |got: f64, expected: f64| {
        let tolerance = number(&vector["tol_abs"]) + number(&vector["tol_rel"]) * expected.abs();
        if (got - expected).abs() <= tolerance {
            Ok(())
        } else {
            Err(format!("{got:e} instead of {expected:e}"))
        }
    };
    match answer {
        Answer::NotImplemented => Ok(()),
        Answer::Number(Ok(got)) => match vector["error"].as_str() {
            Some(error) => Err(format!("{got} where the peer raised {error}")),
            None => {
                near(*got, number(expected))?;
                match (vector["drifted"].as_bool(), vector["threshold"].as_f64()) {
                    (Some(drifted), Some(_)) => drift_verdict(vector, *got, drifted),
                    _ => Ok(()),
                }
            }
        },
        // The peer's NaN is our typed error: never a silent NaN.
        Answer::Number(Err(error)) => {
            let undefined = expected.is_string() && !number(expected).is_finite();
            if vector["error"].is_string() || undefined {
                Ok(())
            } else {
                Err(format!("{error}, expected {expected}"))
            }
        }
        Answer::Named(got) => {
            let expected = expected
                .as_object()
                .ok_or_else(|| format!("{expected} is no object"))?;
            for (name, value) in expected {
                near(
                    *got.get(name).ok_or_else(|| format!("no value for `{name}`"))?,
                    number(value),
                )?;
            }
            Ok(())
        }
    }
}

/// The peer's names of methods that differ from those of the registry.
fn registry_name(resolved: &str) -> &str {
    match resolved {
        "K-S p_value" => "ks",
        "chi-square p_value" => "chisquare",
        "Z-test p_value" => "z",
        "Wasserstein distance (normed)" => "wasserstein",
        "Jensen-Shannon distance" => "jensenshannon",
        own => own,
    }
}

fn drift_verdict(vector: &Value, got: f64, drifted: bool) -> std::result::Result<(), String> {
    let method = by_name(registry_name(text(vector, "resolved_method"))).unwrap();
    let threshold = number(&vector["threshold"]);
    if method.default_threshold != threshold {
        return Err(format!(
            "threshold {} instead of {threshold}",
            method.default_threshold
        ));
    }
    if method.direction.drifted(got, threshold) != drifted {
        return Err(format!("drifted is not {drifted} at {got}"));
    }
    Ok(())
}

#[test]
fn drift_methods_give_evidentlys_numbers() {
    let Some(folder) = folder() else { return };
    let mut suite = Suite::new(folder);
    for vector in suite.vectors() {
        let kind = text(&vector, "kind").to_owned();
        if kind != "drift" && kind != "statistic" {
            continue;
        }
        let (dataset, name, column_type) = (
            text(&vector, "dataset"),
            text(&vector, "column"),
            text(&vector, "column_type"),
        );
        let reference = suite.column(dataset, "ref", name, column_type);
        let current = suite.column(dataset, "cur", name, column_type);
        let answer = reference.with_sample(|reference| {
            current.with_sample(|current| drift_answer(&kind, text(&vector, "method"), reference, current))
        });
        suite.check(&kind, &vector, &answer);
    }
    suite.finish(900);
}

fn drift_answer(kind: &str, method: &str, reference: &Sample<'_>, current: &Sample<'_>) -> Answer {
    if kind == "drift" {
        return match (method, by_name(method)) {
            ("default", _) => Answer::Number(score_default(reference, current).map(|s| s.score)),
            (_, Some(found)) => Answer::Number(score(found, reference, current).map(|s| s.score)),
            (_, None) => Answer::NotImplemented,
        };
    }
    let finite = |sample: &Sample<'_>| -> Vec<f64> {
        match sample {
            Sample::Numeric(values) | Sample::Integer(values) => {
                values.iter().copied().filter(|v| v.is_finite()).collect()
            }
            Sample::Categorical(_) => Vec::new(),
        }
    };
    let (a, b) = (finite(reference), finite(current));
    Answer::Number(match method {
        "tvd.statistic" => tvd_statistic(reference, current),
        "wasserstein_distance.statistic" => wasserstein_distance(&a, &b),
        "ks_2samp[asymp].statistic" => ks_two_sample(&a, &b).map(|test| test.statistic),
        "anderson_ksamp.statistic" | "anderson_ksamp" => anderson_statistic(&a, &b),
        // The peer's failures on tiny samples do not bind the free function, which answers correctly there.
        "cvm_2samp.statistic" => {
            drift::cramer_von_mises::cramer_von_mises_test(&a, &b).map(|test| test.statistic)
        }
        "mmd2u_evidently.statistic" => mmd2u_evidently(&a, &b),
        _ => return Answer::NotImplemented,
    })
}

#[test]
fn classification_metrics_give_evidentlys_numbers() {
    let Some(folder) = folder() else { return };
    let mut suite = Suite::new(folder);
    for vector in suite.vectors() {
        if text(&vector, "kind") != "classification" {
            continue;
        }
        let part = if text(&vector, "part") == "ref" {
            "ref"
        } else {
            "cur"
        };
        let method = text(&vector, "method").to_owned();
        let answer = match text(&vector, "dataset") {
            "car_loan" => {
                let labels = suite.column("car_loan", part, "repaid", "num").numbers();
                let scores = suite.column("car_loan", part, "y_pred_proba", "num").numbers();
                let labels: Vec<bool> = labels.iter().map(|label| *label == 1.0).collect();
                binary_answer(&method, &labels, &scores)
            }
            "iris_pred" => {
                let indices =
                    |column: Column| -> Vec<usize> { column.numbers().iter().map(|v| *v as usize).collect() };
                let labels = indices(suite.column("iris_pred", part, "t", "num"));
                let predicted = indices(suite.column("iris_pred", part, "p", "num"));
                label_answer(&method, &labels, &predicted)
            }
            _ => Answer::NotImplemented,
        };
        suite.check("classification", &vector, &answer);
    }
    suite.finish(35);
}

fn binary_answer(method: &str, labels: &[bool], scores: &[f64]) -> Answer {
    let (base, threshold) = match method.split_once("[threshold=") {
        Some((base, rest)) => (base, rest.trim_end_matches(']').parse().unwrap()),
        None => (method, 0.5),
    };
    let counts = Confusion::at_threshold(labels, scores, threshold).unwrap();
    let by_label = |value: fn(&Confusion) -> f64| {
        Answer::Named(BTreeMap::from([
            ("0".to_owned(), value(&counts.swapped())),
            ("1".to_owned(), value(&counts)),
        ]))
    };
    Answer::Number(match base {
        "Accuracy" => Ok(counts.accuracy()),
        "Precision" => Ok(counts.precision()),
        "Recall" | "TPR" => Ok(counts.recall()),
        "F1Score" => Ok(counts.f1()),
        "TNR" => Ok(counts.true_negative_rate()),
        "FPR" => Ok(counts.false_positive_rate()),
        "FNR" => Ok(counts.false_negative_rate()),
        "RocAuc" => auc(labels, scores),
        "LogLoss" => log_loss(labels, scores),
        "PrecisionByLabel" => return by_label(Confusion::precision),
        "RecallByLabel" => return by_label(Confusion::recall),
        "F1ByLabel" => return by_label(Confusion::f1),
        "RocAucByLabel" => {
            let value = auc(labels, scores).unwrap();
            return Answer::Named(["0", "1"].map(|label| (label.to_owned(), value)).into());
        }
        _ => return Answer::NotImplemented,
    })
}

fn label_answer(method: &str, labels: &[usize], predicted: &[usize]) -> Answer {
    let by_label = multiclass::by_label(labels, predicted).unwrap();
    let macro_mean = |value: fn(&multiclass::LabelMetrics) -> f64| {
        Ok::<f64, StatsError>(by_label.iter().map(value).sum::<f64>() / by_label.len() as f64)
    };
    let named = |value: fn(&multiclass::LabelMetrics) -> f64| {
        Answer::Named(by_label.iter().map(|m| (m.label.to_string(), value(m))).collect())
    };
    Answer::Number(match method {
        "Accuracy" => multiclass::accuracy(labels, predicted),
        "Precision" => macro_mean(|m| m.precision),
        "Recall" => macro_mean(|m| m.recall),
        "F1Score" => macro_mean(|m| m.f1),
        "PrecisionByLabel" => return named(|m| m.precision),
        "RecallByLabel" => return named(|m| m.recall),
        "F1ByLabel" => return named(|m| m.f1),
        _ => return Answer::NotImplemented,
    })
}

#[test]
fn regression_metrics_give_evidentlys_numbers() {
    let Some(folder) = folder() else { return };
    let mut suite = Suite::new(folder);
    for vector in suite.vectors() {
        if text(&vector, "kind") != "regression" {
            continue;
        }
        let part = if text(&vector, "part") == "ref" {
            "ref"
        } else {
            "cur"
        };
        let dataset = text(&vector, "dataset");
        let targets = suite.column(dataset, part, "y_true", "num").numbers();
        let predictions = suite.column(dataset, part, "y_pred", "num").numbers();
        let named = |value: Result<regression::MeanStd>| {
            let regression::MeanStd { mean, std } = value.unwrap();
            Answer::Named(BTreeMap::from([
                ("mean".to_owned(), mean),
                ("std".to_owned(), std.unwrap()),
            ]))
        };
        let answer = match text(&vector, "method") {
            "MeanError" => named(regression::mean_error(&targets, &predictions)),
            "MAE" => named(regression::mae(&targets, &predictions)),
            "MAPE" => named(regression::mape(&targets, &predictions)),
            "RMSE" => Answer::Number(regression::rmse(&targets, &predictions)),
            "R2Score" => Answer::Number(regression::r2(&targets, &predictions)),
            "AbsMaxError" => Answer::Number(regression::abs_max_error(&targets, &predictions)),
            "DummyMAE" => Answer::Number(regression::median_baseline_mae(&targets)),
            "DummyRMSE" => Answer::Number(regression::mean_baseline_rmse(&targets)),
            _ => Answer::NotImplemented,
        };
        suite.check("regression", &vector, &answer);
    }
    suite.finish(12);
}

/// This crate's folder: asked for when the tests run, since a target folder that several clones share may hold a binary built in another.
fn manifest_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}
