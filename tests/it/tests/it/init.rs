//! A stranger's data: `init` on a CSV file, then the whole life by editing one file. The data sets ship inside scikit-learn.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::util::{Project, Server, eventually, output, python, repository, texts};

/// A data set as text.
struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn column(&self, name: &str) -> usize {
        self.header.iter().position(|h| h == name).unwrap()
    }

    /// The features of some rows, as pandas' `orient="split"` writes them.
    fn split(&self, features: &[String], rows: std::ops::Range<usize>) -> Value {
        let places: Vec<usize> = features.iter().map(|f| self.column(f)).collect();
        let data: Vec<Vec<f64>> = self.rows[rows]
            .iter()
            .map(|row| places.iter().map(|&i| row[i].parse().unwrap()).collect())
            .collect();
        json!({ "dataframe_split": { "columns": features, "data": data } })
    }

    /// The same as Open Inference tensors, with the key.
    fn tensors(&self, features: &[String], rows: std::ops::Range<usize>) -> Value {
        let n = rows.len();
        let mut inputs: Vec<Value> = features
            .iter()
            .map(|f| {
                let place = self.column(f);
                let data: Vec<f64> = self.rows[rows.clone()]
                    .iter()
                    .map(|row| row[place].parse().unwrap())
                    .collect();
                json!({ "name": f, "shape": [n], "datatype": "FP64", "data": data })
            })
            .collect();
        let keys: Vec<&str> = self.rows[rows].iter().map(|row| row[0].as_str()).collect();
        inputs.push(json!({ "name": "id", "shape": [n], "datatype": "BYTES", "data": keys }));
        json!({ "inputs": inputs })
    }
}

/// A project folder with one of the data sets in it.
fn dataset(name: &str) -> (Project, Table) {
    let project = Project::empty();
    let made = Command::new(python())
        .arg(repository().join("tests/clients/make_datasets.py"))
        .arg(project.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = std::fs::read_to_string(project.path().join(name)).unwrap();
    let mut lines = text
        .lines()
        .map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().unwrap();
    (
        project,
        Table {
            header,
            rows: lines.collect(),
        },
    )
}

/// `init`, `validate`, `train`: gives the features and what `train --json` said.
fn begin(project: &Project, source: &str, task: &str) -> (Vec<String>, Value) {
    let written = project.run(&["init", source, "--json"]).code(0).json();
    assert_eq!(written["task"], task, "{written}");
    let again = project.run(&["init", source]);
    assert_ne!(again.code, 0, "an existing spec is not overwritten");

    let validated = project.run(&["validate", "--json"]).code(0).json();
    assert_eq!(validated["quarantined"], false, "{validated}");
    assert_eq!(validated["validation"]["success"], true, "{validated}");

    // The one edit: the data set is too small for the windows' usual minimum.
    project.change(
        "performance: {window: 7d, max_drop: 0.05}",
        "performance: {window: 3d, max_drop: 0.05, min_labels: 20}",
    );
    project.change("share: 0.3, window: 7d}", "share: 0.3, window: 3d, min_rows: 20}");

    let trained = project.run(&["train", "--json"]).code(0).json();
    assert_eq!(trained["run"]["state"], "succeeded", "{trained}");
    assert_eq!(trained["run"]["model_version"], 1, "{trained}");
    assert_eq!(trained["decision"]["verdict"], "pass", "{trained}");

    let spec = std::fs::read_to_string(project.spec()).unwrap();
    let features: Vec<String> = spec
        .lines()
        .skip_while(|line| *line != "features:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(|line| line.trim().split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(written["features"], features.len(), "{spec}");
    (features, trained)
}

/// What every project must show once it has answered, been told the truth of these answers, and been replayed.
fn is_monitored(
    project: &Project,
    server: Server,
    name: &str,
    table: &Table,
    ids: &[String],
    truth: &[Value],
) {
    let feedback: Vec<Value> = ids
        .iter()
        .zip(truth)
        .map(|(id, value)| json!({ "prediction_id": id, "value": value }))
        .collect();
    let told = server.post("/api/v1/feedback", &json!({ "feedback": feedback }));
    let outcomes = told["outcomes"].as_array().unwrap();
    assert!(
        outcomes
            .iter()
            .all(|o| o["outcome"] == "created" && o["joined"] == true),
        "{told}"
    );
    let (status, again) = server.tell("/api/v1/feedback", &json!({ "feedback": feedback }));
    assert_eq!(status, 200, "feedback told twice is stored once: {again}");

    let played = project
        .run(&["replay", "--url", server.url(), "--json"])
        .code(0)
        .json();
    let rows = table.rows.len();
    assert_eq!(played["predictions"], rows, "{played}");
    assert_eq!(played["labels"], rows);

    let status = server.get("/api/v1/status");
    assert_eq!(status["predictions"], rows + ids.len(), "{status}");
    assert_eq!(status["labels"], rows + ids.len(), "{status}");
    assert_eq!(status["endpoints"][0]["champion"], 1, "{status}");

    let windows = server.get(&format!("/api/v1/windows?endpoint={name}&limit=1000"));
    let of = |monitor: &str| -> Vec<&Value> {
        windows
            .as_array()
            .unwrap()
            .iter()
            .filter(|w| w["monitor"] == monitor)
            .collect()
    };
    for monitor in ["quality", "drift", "performance"] {
        assert!(
            of(monitor).len() >= 5,
            "{} windows of {monitor}: {windows}",
            of(monitor).len()
        );
    }
    let judged = of("performance")
        .iter()
        .filter(|w| w["signals"]["served"]["value"].is_number())
        .count();
    assert!(judged >= 3, "performance signals: {windows}");
    let timeline = server.get(&format!("/api/v1/endpoints/{name}/timeline"));
    assert!(
        timeline["performance"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["champion"].is_number()),
        "{timeline}"
    );

    // One id leads everywhere.
    let id = &ids[0];
    let lineage = server.get(&format!("/api/v1/lineage/predictions/{id}"));
    assert_eq!(lineage["version"]["version"], 1, "{lineage}");
    assert_eq!(lineage["run"]["id"], lineage["version"]["run"], "{lineage}");
    let digest = lineage["snapshot"]["digest"].as_str().unwrap();
    assert_eq!(lineage["version"]["snapshot"], digest);
    assert_eq!(lineage["validation"]["success"], true, "{lineage}");
    assert_eq!(lineage["labels"].as_array().unwrap().len(), 1, "{lineage}");
    assert!(
        !lineage["code"].is_null() && !lineage["decisions"].as_array().unwrap().is_empty(),
        "{lineage}"
    );
    let snapshot = server.get(&format!("/api/v1/snapshots/{digest}"));
    assert_eq!(snapshot["rows"], rows, "{snapshot}");
    let shown = project
        .run(&["lineage", id, "--url", server.url(), "--json"])
        .code(0)
        .json();
    assert_eq!(shown["snapshot"]["digest"], digest);

    assert!(server.stop().success(), "SIGTERM is a clean end");
    let again = project
        .run(&["reproduce", &format!("{name}/1"), "--json"])
        .code(0)
        .json();
    assert_eq!(again["identical"], true, "{again}");
    assert!(again["digests"].as_array().unwrap().len() >= 3, "{again}");
}

#[test]
fn a_regression_from_another_csv_trains_serves_and_is_monitored() {
    let (project, table) = dataset("diabetes.csv");
    let (features, trained) = begin(&project, "diabetes.csv", "regression");
    let r2 = trained["run"]["metrics"]["r2"].as_f64().unwrap();
    assert!(r2 > 0.1, "the model has learnt something: {trained}");

    let server = project.up(&["--virtual-clock", "2024-01-01"]);
    let truth: Vec<f64> = table
        .rows
        .iter()
        .map(|row| row[table.column("target")].parse().unwrap())
        .collect();
    let (low, high) = truth
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
            (l.min(*v), h.max(*v))
        });

    let scored = server.post("/invocations/diabetes", &table.split(&features, 0..100));
    let predictions: Vec<f64> = scored["predictions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p.as_f64().unwrap())
        .collect();
    let margin = 0.25 * (high - low);
    assert!(
        predictions
            .iter()
            .all(|p| (low - margin..high + margin).contains(p)),
        "{predictions:?}"
    );
    let mean = truth[..100].iter().sum::<f64>() / 100.0;
    let error = |guess: &dyn Fn(usize) -> f64| (0..100).map(|i| (truth[i] - guess(i)).powi(2)).sum::<f64>();
    assert!(
        error(&|i| predictions[i]) < 0.8 * error(&|_| mean),
        "better than the mean on rows it was trained on"
    );

    let inferred = server.post("/v2/models/diabetes/infer", &table.tensors(&features, 0..100));
    let same: Vec<f64> = output(&inferred, "prediction")
        .iter()
        .map(|p| p.as_f64().unwrap())
        .collect();
    assert_eq!(same, predictions, "both protocols give the same answer");
    let ids = [
        texts(&scored["prediction_ids"]),
        texts(&json!(output(&inferred, "prediction_id"))),
    ]
    .concat();
    let truth: Vec<Value> = truth[..100].repeat(2).into_iter().map(|v| json!(v)).collect();
    is_monitored(&project, server, "diabetes", &table, &ids, &truth);
}

#[test]
fn a_three_class_problem_from_another_csv_trains_serves_and_is_monitored() {
    let (project, table) = dataset("wine.csv");
    let (features, trained) = begin(&project, "wine.csv", "multiclass");
    assert!(
        trained["run"]["metrics"]["accuracy"].as_f64().unwrap() > 0.8,
        "{trained}"
    );

    let server = project.up(&["--virtual-clock", "2024-01-01"]);
    eventually("ready", Duration::from_secs(5), || {
        (server.ask("/v2/health/ready").0 == 200).then_some(())
    });
    let metadata = server.get("/v2/models/wine");
    assert_eq!(
        metadata["inputs"].as_array().unwrap().len(),
        features.len(),
        "{metadata}"
    );

    let rows = 142; // without the hold-out, which is the last fifth
    let truth: Vec<&str> = table.rows[..rows]
        .iter()
        .map(|row| row[table.column("cultivar")].as_str())
        .collect();
    let scored = server.post("/invocations/wine", &table.split(&features, 0..rows));
    let labels = texts(&scored["predictions"]);
    let right = labels.iter().zip(&truth).filter(|(a, b)| a == b).count();
    assert!(
        right as f64 / rows as f64 > 0.9,
        "{right} of {rows} training rows are right"
    );
    let mut classes = texts(&scored["classes"]);
    classes.sort();
    assert_eq!(classes, ["barbera", "barolo", "grignolino"]);
    for row in scored["probabilities"].as_array().unwrap() {
        let sum: f64 = row.as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "probabilities sum to 1: {row}");
    }

    let inferred = server.post("/v2/models/wine/infer", &table.tensors(&features, 0..rows));
    assert_eq!(
        texts(&json!(output(&inferred, "label"))),
        labels,
        "both protocols give the same answer"
    );
    let seen = labels
        .iter()
        .fold(HashMap::<&str, usize>::new(), |mut seen, label| {
            *seen.entry(label).or_default() += 1;
            seen
        });
    assert_eq!(seen.len(), 3, "every class is predicted: {seen:?}");

    let ids = [
        texts(&scored["prediction_ids"]),
        texts(&json!(output(&inferred, "prediction_id"))),
    ]
    .concat();
    let truth: Vec<Value> = truth.repeat(2).into_iter().map(|v| json!(v)).collect();
    is_monitored(&project, server, "wine", &table, &ids, &truth);
}
