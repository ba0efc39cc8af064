//! What is deleted for good leaves no row and no file.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};
use tidemill_api::ControlPlane as _;
use tidemill_core::clock::Timestamp;
use tidemill_store::tracking::purges;

use crate::fake::{App, Reply};

const GC: &str = "/api/v1/tracking/gc";

async fn experiment(app: &App, name: &str) -> String {
    let reply = app
        .post("/api/2.0/mlflow/experiments/create", json!({"name": name}))
        .await;
    reply.json()["experiment_id"].as_str().unwrap().to_owned()
}

/// A run with something in every table, and a file of `bytes` bytes.
async fn full_run(app: &App, experiment: &str, bytes: usize) -> String {
    let body = json!({"experiment_id": experiment, "start_time": 1, "tags": [{"key": "t", "value": "1"}]});
    let reply = app.post("/api/2.0/mlflow/runs/create", body).await.json();
    let run = reply["run"]["info"]["run_id"].as_str().unwrap().to_owned();
    let body = json!({"experiment_id": experiment, "source_run_id": run, "params": [{"key": "p", "value": "1"}], "tags": [{"key": "t", "value": "1"}]});
    let model = app.post("/api/2.0/mlflow/logged-models", body).await.json();
    let model = model["model"]["info"]["model_id"].as_str().unwrap().to_owned();
    let metrics: Vec<Value> = (0..50)
        .map(|step| json!({"key": "m", "value": step, "timestamp": step, "step": step, "model_id": model}))
        .collect();
    let params = json!([{"key": "p", "value": "1"}]);
    let batch = json!({"run_id": run, "metrics": metrics, "params": params});
    let inputs = json!({"run_id": run, "datasets": [{"dataset": {"name": "d", "digest": "1", "source_type": "x", "source": "y"}}]});
    let outputs = json!({"run_id": run, "models": [{"model_id": model, "step": 0}]});
    for (route, body) in [("log-batch", batch), ("log-inputs", inputs), ("outputs", outputs)] {
        let reply = app.post(&format!("/api/2.0/mlflow/runs/{route}"), body).await;
        assert_eq!(reply.status, 200, "{route}: {}", reply.text);
    }
    let path = format!("/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/file");
    let request = Request::put(path).body(Body::from(run.repeat(bytes.div_ceil(32))));
    assert_eq!(app.send(request.unwrap()).await.status, 200);
    run
}

async fn rows(app: &App) -> Vec<(&'static str, u64)> {
    let store = app.fake.tracking().store().clone();
    store.read(purges::count_rows).await.unwrap()
}

async fn objects(app: &App) -> usize {
    let objects = app.fake.tracking().store().objects().list("artifacts").await;
    objects.unwrap().len()
}

async fn delete(app: &App, path: &str) -> Reply {
    let request = Request::builder().method(Method::DELETE).uri(path);
    app.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn an_experiment_that_was_deleted_long_enough_ago_goes_without_a_trace() {
    let app = App::new();
    let empty = rows(&app).await;
    let id = experiment(&app, "old").await;
    for _ in 0..3 {
        full_run(&app, &id, 64).await;
    }
    // It stays, without the experiment.
    let dataset = json!({"name": "d", "experiment_ids": [id]});
    let made = app.post("/api/3.0/mlflow/datasets/create", dataset).await;
    assert_eq!(made.status, 200, "{}", made.text);
    assert!(
        rows(&app)
            .await
            .iter()
            .all(|(table, count)| *count > 0 || ["purges", "experiment_tags"].contains(table))
    );
    app.post("/api/2.0/mlflow/experiments/delete", json!({"experiment_id": id}))
        .await;
    // The name is taken as long as the experiment can be restored.
    let taken = app
        .post("/api/2.0/mlflow/experiments/create", json!({"name": "old"}))
        .await;
    assert_eq!(taken.status, 400);
    let nothing = app.post(GC, json!({})).await.json();
    assert_eq!(
        (&nothing["runs"], &nothing["experiments"]),
        (&json!(0), &json!(0))
    );

    let later = app.fake.now().as_micros() + 31 * 86_400 * 1_000_000;
    app.fake.advance(Timestamp::from_micros(later)).await.unwrap();
    let expected =
        json!({"experiments": 1, "runs": 3, "logged_models": 3, "bytes": 192, "artifacts_elsewhere": 0});
    let dry = app.post(GC, json!({"older_than": "30d", "dry_run": true})).await;
    assert_eq!(dry.json(), expected);
    assert_eq!(objects(&app).await, 3);
    let purged = app.post(GC, json!({"older_than": "30d"})).await;
    assert_eq!(purged.json(), expected, "{}", purged.text);
    assert_eq!(rows(&app).await, empty);
    assert_eq!(objects(&app).await, 0);
    let again = experiment(&app, "old").await;
    assert_ne!(again, id, "the number of a purged experiment does not come back");
}

#[tokio::test]
async fn only_the_runs_that_were_named_go_and_shared_bytes_stay() {
    let app = App::new();
    let id = experiment(&app, "e").await;
    let (first, second) = (full_run(&app, &id, 32).await, full_run(&app, &id, 32).await);
    let copy = format!("/api/2.0/mlflow-artifacts/artifacts/{id}/{second}/artifacts/copy");
    let request = Request::put(copy.as_str()).body(Body::from(first.clone()));
    app.send(request.unwrap()).await;
    let active = app.post(GC, json!({"run_ids": [first]})).await;
    assert_eq!(active.status, 400, "{}", active.text);
    assert!(
        active.text.contains("not in `deleted` lifecycle stage"),
        "{}",
        active.text
    );
    app.post("/api/2.0/mlflow/runs/delete", json!({"run_id": first}))
        .await;
    let purged = app.post(GC, json!({"run_ids": [first]})).await.json();
    assert_eq!((&purged["runs"], &purged["bytes"]), (&json!(1), &json!(0)));
    assert_eq!(
        app.get(&format!("/api/2.0/mlflow/runs/get?run_id={first}"))
            .await
            .status,
        404
    );
    assert_eq!(app.get(&copy).await.text, first);

    // For good at once, whether it was deleted before or not.
    let purged = delete(&app, &format!("/api/v1/tracking/runs/{second}"))
        .await
        .json();
    assert_eq!((&purged["runs"], &purged["bytes"]), (&json!(1), &json!(64)));
    assert_eq!(objects(&app).await, 0);
    let purged = delete(&app, &format!("/api/v1/tracking/experiments/{id}"))
        .await
        .json();
    assert_eq!(
        (&purged["experiments"], &purged["logged_models"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        delete(&app, &format!("/api/v1/tracking/experiments/{id}"))
            .await
            .status,
        404
    );
    for body in [
        json!({"older_than": "soon"}),
        json!({"experiment_ids": ["0"]}),
        json!({"run_ids": ["0123"]}),
    ] {
        assert!(
            app.post(GC, body.clone()).await.status.is_client_error(),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_run_takes_its_points_of_other_runs_models_with_it() {
    let app = App::new();
    let id = experiment(&app, "e").await;
    full_run(&app, &id, 32).await;
    let before = rows(&app).await;
    let body = json!({"experiment_id": id, "start_time": 1});
    let other = app.post("/api/2.0/mlflow/runs/create", body).await.json();
    let other = other["run"]["info"]["run_id"].as_str().unwrap().to_owned();
    let body = json!({"experiment_ids": [id]});
    let models = app
        .post("/api/2.0/mlflow/logged-models/search", body)
        .await
        .json();
    let model = &models["models"][0]["info"]["model_id"];
    let metrics = json!([{"key": "m", "value": 1, "timestamp": 1, "step": 1, "model_id": model}]);
    let body = json!({"run_id": other, "metrics": metrics});
    let logged = app.post("/api/2.0/mlflow/runs/log-batch", body).await;
    assert_eq!(logged.status, 200, "{}", logged.text);
    assert_ne!(rows(&app).await, before);
    let purged = delete(&app, &format!("/api/v1/tracking/runs/{other}")).await;
    assert_eq!(purged.status, 200, "{}", purged.text);
    assert_eq!(rows(&app).await, before);
}
