//! Batch jobs, with an engine that knows files of JSON lines.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tidemill_core::batches::{BatchEngine, BatchFiles, BatchPart, BatchParts};
use tidemill_core::clock::real_sleep;
use tidemill_core::digest::Digest;
use tidemill_core::ports::PortError;
use tidemill_core::spec::DataFormat;

use crate::fake::{ADMIN_PASSWORD, App};
use crate::rights::{done, experiment, grant, promoted};
use crate::users::{house, user};

/// Knows one file of JSON lines at a time.
#[derive(Debug)]
pub struct Lines;

struct OneFile(Vec<PathBuf>);

struct Some {
    rows: Vec<Value>,
}

#[async_trait]
impl BatchEngine for Lines {
    async fn open(&self, root: &Path, pattern: &str) -> Result<Arc<dyn BatchFiles>, PortError> {
        let path = root.join(pattern);
        if !path.is_file() {
            return Err(PortError::caller(
                "source_missing",
                format!("`{}` is not there", path.display()),
            ));
        }
        Ok(Arc::new(OneFile(vec![path])))
    }
}

impl BatchFiles for OneFile {
    fn files(&self) -> &[PathBuf] {
        &self.0
    }
    fn format(&self) -> DataFormat {
        DataFormat::Jsonl
    }
    fn digest(&self) -> Result<Digest, PortError> {
        Ok(Digest::of(self.0[0].display().to_string().as_bytes()))
    }
    fn parts(&self, file: usize, rows: usize) -> Result<BatchParts, PortError> {
        let text = std::fs::read_to_string(&self.0[file]).unwrap();
        let all: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let parts: Vec<_> = all
            .chunks(rows)
            .map(|rows| Ok(Box::new(Some { rows: rows.to_vec() }) as Box<dyn BatchPart>))
            .collect();
        Ok(Box::new(parts.into_iter()))
    }
}

impl BatchPart for Some {
    fn rows(&self) -> usize {
        self.rows.len()
    }
    fn columns(&self) -> Vec<String> {
        self.rows[0].as_object().unwrap().keys().cloned().collect()
    }
    fn json(&self, from: usize, until: usize) -> Result<String, PortError> {
        let rows: Vec<Vec<&Value>> = self.rows[from..until]
            .iter()
            .map(|row| row.as_object().unwrap().values().collect())
            .collect();
        Ok(json!(rows).to_string())
    }
    fn write(&self, path: &Path, _: DataFormat, answers: &[(String, Vec<Value>)]) -> Result<(), PortError> {
        let mut text = String::new();
        for (i, row) in self.rows.iter().enumerate() {
            let mut row = row.clone();
            for (name, values) in answers {
                row[name] = values[i].clone();
            }
            writeln!(text, "{row}").unwrap();
        }
        std::fs::write(path, text).unwrap();
        Ok(())
    }
}

/// The job once it has ended.
pub async fn ended(app: &App, id: &str) -> Value {
    for _ in 0..2_000 {
        let job = app.get(&format!("/api/v1/batch-jobs/{id}")).await.json();
        if matches!(
            job["state"].as_str(),
            Option::Some("succeeded" | "failed" | "cancelled")
        ) {
            return job;
        }
        real_sleep(Duration::from_millis(5)).await;
    }
    panic!("job {id} does not end");
}

fn write(app: &App, name: &str, lines: &[Value]) {
    let path = app.fake.batches().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{line}").unwrap();
    }
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn a_file_is_predicted_into_a_folder_of_its_own() {
    let app = App::new();
    let working = app.fake.work();
    let rows: Vec<Value> = (0..7).map(|i| json!({ "a": i, "b": 1 })).collect();
    write(&app, "in.jsonl", &rows);
    let asked = json!({ "endpoint": "prices", "input": "in.jsonl", "output": "out", "part_rows": 3, "name": "first" });
    let reply = app.post("/api/v1/batch-jobs", asked.clone()).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
    let job = reply.json();
    assert_eq!(
        (job["kind"].as_str(), job["name"].as_str()),
        (Option::Some("rows"), Option::Some("first"))
    );
    let job = ended(&app, job["id"].as_str().unwrap()).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(
        job["progress"],
        json!({ "rows": 7, "parts": 3, "parts_found": 0, "files_done": 1, "files": 1 })
    );
    let second = std::fs::read_to_string(app.fake.batches().join("out/part-00000-00001.jsonl")).unwrap();
    let lines: Vec<Value> = second
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let twice: Vec<f64> = lines
        .iter()
        .map(|line| line["prediction"].as_f64().unwrap())
        .collect();
    assert_eq!(twice, [6.0, 8.0, 10.0]);
    assert!(app.fake.batches().join("out/_SUCCESS").is_file());

    // A name is a job's own, and so is a folder.
    let again = app.post("/api/v1/batch-jobs", asked.clone()).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text);
    let mut other = asked;
    other["name"] = json!("second");
    let other = app.post("/api/v1/batch-jobs", other).await.json();
    let other = ended(&app, other["id"].as_str().unwrap()).await;
    assert_eq!(
        (&other["state"], &other["error"]["code"]),
        (&json!("failed"), &json!("batch_output_taken"))
    );
    // The clock stands still here, so neither is the newer one.
    let listed = app.get("/api/v1/batch-jobs?kind=rows").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    let page = app.get("/api/v1/batch-jobs?limit=1").await.json();
    let after = page["items"][0]["id"].as_str().unwrap().to_owned();
    let rest = app.get(&format!("/api/v1/batch-jobs?after={after}")).await.json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert_ne!(rest["items"][0]["id"], after);

    let id = job["id"].as_str().unwrap();
    let gone = axum::http::Request::delete(format!("/api/v1/batch-jobs/{id}"));
    let gone = app.send(gone.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(
        app.get(&format!("/api/v1/batch-jobs/{id}")).await.status,
        StatusCode::NOT_FOUND
    );
    working.abort();
}

#[tokio::test]
async fn a_bad_row_is_named_with_its_file_and_field() {
    let app = App::new();
    let working = app.fake.work();
    let mut rows: Vec<Value> = (0..5).map(|i| json!({ "a": i, "b": 1 })).collect();
    rows[4]["b"] = json!("much");
    write(&app, "in.jsonl", &rows);
    let asked = json!({ "endpoint": "prices", "input": "in.jsonl", "output": "out", "part_rows": 2 });
    let job = app.post("/api/v1/batch-jobs", asked).await.json();
    let job = ended(&app, job["id"].as_str().unwrap()).await;
    let error = &job["error"];
    assert_eq!(
        (&job["state"], &error["field"], &error["row"]),
        (&json!("failed"), &json!("b"), &json!(4))
    );
    assert!(error["file"].as_str().unwrap().ends_with("in.jsonl"), "{error}");
    assert!(error["message"].as_str().unwrap().contains("`much`"), "{error}");
    assert_eq!(job["progress"]["rows"], 4, "what was right is there");
    assert!(!app.fake.batches().join("out/_SUCCESS").exists());
    working.abort();
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_before_it_is_a_job() {
    let app = App::new();
    for (asked, status, code) in [
        (
            json!({ "endpoint": "nobody", "input": "a", "output": "b" }),
            404,
            "unknown_endpoint",
        ),
        (
            json!({ "endpoint": "prices", "version": 9, "input": "a", "output": "b" }),
            404,
            "unknown_version",
        ),
        (
            json!({ "endpoint": "prices", "input": "/etc/passwd", "output": "b" }),
            403,
            "batch_place_denied",
        ),
        (
            json!({ "endpoint": "prices", "input": "a", "output": "../b" }),
            403,
            "batch_place_denied",
        ),
        (
            json!({ "endpoint": "prices", "input": "a", "output": "ftp://x/b" }),
            400,
            "bad_batch_job",
        ),
        (
            json!({ "endpoint": "prices", "input": "a", "output": "b", "part_rows": 0 }),
            400,
            "bad_batch_job",
        ),
        (
            json!({ "endpoint": "prices", "model": "prices", "input": "a", "output": "b" }),
            400,
            "bad_batch_job",
        ),
        (
            json!({ "endpoint": "prices", "input": "a", "output": "b", "speed": 1 }),
            400,
            "bad_body",
        ),
    ] {
        let reply = app.post("/api/v1/batch-jobs", asked.clone()).await;
        assert_eq!(reply.status.as_u16(), status, "{asked}: {}", reply.text);
        assert_eq!(reply.json()["error"]["code"], code, "{asked}");
    }
    assert_eq!(app.get("/api/v1/batch-jobs").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once_and_never_worked_on() {
    let app = App::new();
    write(&app, "in.jsonl", &[json!({ "a": 1, "b": 1 })]);
    let asked = json!({ "endpoint": "prices", "input": "in.jsonl", "output": "out" });
    let job = app.post("/api/v1/batch-jobs", asked).await.json();
    let path = format!("/api/v1/batch-jobs/{}", job["id"].as_str().unwrap());
    let cancelled = app.post(&format!("{path}/cancel"), json!({})).await.json();
    assert_eq!(cancelled["state"], "cancelled");
    let working = app.fake.work();
    real_sleep(Duration::from_millis(50)).await;
    assert!(!app.fake.batches().join("out").exists());
    assert_eq!(app.get(&path).await.json()["attempt"], 0);
    working.abort();
}

#[tokio::test]
async fn only_editors_have_to_do_with_jobs() {
    let app = App::with_users("READ").await;
    let plain = app.get("/api/v1/batch-jobs").await;
    assert_eq!(plain.status, StatusCode::UNAUTHORIZED);
    let basic = format!("admin:{ADMIN_PASSWORD}");
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, basic);
    let request =
        axum::http::Request::get("/api/v1/batch-jobs").header("authorization", format!("Basic {basic}"));
    let reply = app.send(request.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test]
async fn a_job_reads_and_writes_only_the_artifacts_that_its_sender_may() {
    const API: &str = "/api/2.0/mlflow";
    let app = house("READ", &["ed"]).await;
    promoted(&app, "ed", "editor").await;
    let (ed, admin) = (user(&app, "ed"), user(&app, "admin"));
    let mut runs = Vec::new();
    for name in ["open", "closed"] {
        let id = experiment(&app, "admin", name).await;
        let run = json!({ "experiment_id": id });
        let run = done(&admin.post(&format!("{API}/runs/create"), run).await);
        let run = run["run"]["info"]["run_id"].as_str().unwrap().to_owned();
        runs.push((id, run));
    }
    let [(open, mine), (closed, others)] = &runs[..] else {
        panic!("{runs:?}")
    };
    grant(&app, "ed", "experiment", closed, "DENY").await;
    let within = |id: &str, run: &str| {
        [
            format!("runs:/{run}/data.jsonl"),
            format!("mlflow-artifacts:/{id}/{run}/artifacts/data.jsonl"),
        ]
    };
    let ask = async |input: &str, output: &str| {
        let asked = json!({ "endpoint": "prices", "input": input, "output": output });
        ed.post("/api/v1/batch-jobs", asked).await
    };
    let hidden = within(closed, others);
    for place in hidden.iter().chain(&[
        "mlflow-artifacts:/".to_owned(),
        "runs:/00000000000000000000000000000000/x".to_owned(),
    ]) {
        for (input, output) in [(place.as_str(), "out"), ("in.jsonl", place)] {
            let reply = ask(input, output).await;
            assert!(
                matches!(reply.status.as_u16(), 400 | 403),
                "{input} {output}: {}",
                reply.text
            );
        }
    }
    let reply = ask(&hidden[0], "out").await;
    assert_eq!(
        reply.json()["error"]["code"],
        "batch_place_denied",
        "{}",
        reply.text
    );
    for place in within(open, mine) {
        let reply = ask(&place, &format!("{place}-out")).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{place}: {}", reply.text);
    }
    // A prefix takes files of others too.
    let asked = json!({
        "model": "projects/p/locations/l/models/prices",
        "inputConfig": { "instancesFormat": "jsonl", "gcsSource": { "uris": [hidden[0].as_str()] } },
        "outputConfig": { "predictionsFormat": "jsonl", "gcsDestination": { "outputUriPrefix": "out" } },
    });
    let reply = ed
        .post("/v1/projects/p/locations/l/batchPredictionJobs", asked)
        .await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN, "{}", reply.text);
    assert_eq!(ask("in.jsonl", "out").await.status, StatusCode::CREATED);
}
