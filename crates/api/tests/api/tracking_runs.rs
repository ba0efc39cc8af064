//! MLflow's REST API for experiments, runs, what they log, and the histories of their metrics.

use serde_json::{Value, json};

use crate::fake::{App, Reply};

const API: &str = "/api/2.0/mlflow";

async fn post(app: &App, path: &str, body: Value) -> Reply {
    app.post(&format!("{API}/{path}"), body).await
}

async fn ok(app: &App, path: &str, body: Value) -> Value {
    let reply = post(app, path, body).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    reply.json()
}

async fn get(app: &App, path: &str) -> Value {
    let reply = app.get(&format!("{API}/{path}")).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    reply.json()
}

async fn refused(app: &App, path: &str, body: Value, code: &str, says: &str) {
    let reply = post(app, path, body).await;
    let error = reply.json();
    assert_eq!(error["error_code"], code, "{path}: {}", reply.text);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(says), "{path}: {message}");
}

async fn run(app: &App) -> String {
    let made = ok(
        app,
        "runs/create",
        json!({"experiment_id": "0", "start_time": 5, "user_id": "me"}),
    )
    .await;
    made["run"]["info"]["run_id"].as_str().unwrap().to_owned()
}

async fn data(app: &App, run_id: &str) -> Value {
    get(app, &format!("runs/get?run_id={run_id}")).await["run"]["data"].clone()
}

#[tokio::test]
async fn an_empty_server_has_the_default_experiment() {
    let app = App::new();
    let found = get(&app, "experiments/get?experiment_id=0").await["experiment"].clone();
    assert_eq!(found["name"], "Default");
    assert_eq!(found["experiment_id"], "0");
    assert_eq!(found["artifact_location"], "mlflow-artifacts:/0");
    assert_eq!(found["lifecycle_stage"], "active");
    let twin = app
        .get("/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=Default")
        .await;
    assert_eq!(twin.json()["experiment"], found);
}

#[tokio::test]
async fn an_experiment_lives_from_creation_to_restoration() {
    let app = App::new();
    let body = json!({"name": "a", "tags": [{"key": "k", "value": "v"}]});
    let id = ok(&app, "experiments/create", body.clone()).await["experiment_id"].clone();
    assert_eq!(id, "1");
    refused(
        &app,
        "experiments/create",
        body,
        "RESOURCE_ALREADY_EXISTS",
        "already exists",
    )
    .await;
    ok(
        &app,
        "experiments/set-experiment-tag",
        json!({"experiment_id": "1", "key": "x", "value": ""}),
    )
    .await;
    ok(
        &app,
        "experiments/delete-experiment-tag",
        json!({"experiment_id": "1", "key": "k"}),
    )
    .await;
    ok(
        &app,
        "experiments/update",
        json!({"experiment_id": "1", "new_name": "b"}),
    )
    .await;
    let found = get(&app, "experiments/get?experiment_id=1").await["experiment"].clone();
    assert_eq!(found["name"], "b");
    assert_eq!(found["tags"], json!([{"key": "x", "value": ""}]));
    refused(
        &app,
        "experiments/update",
        json!({"experiment_id": "1", "new_name": "Default"}),
        "RESOURCE_ALREADY_EXISTS",
        "already exists",
    )
    .await;

    let made = ok(&app, "runs/create", json!({"experiment_id": "1"})).await;
    let run_id = made["run"]["info"]["run_id"].as_str().unwrap().to_owned();
    ok(&app, "experiments/delete", json!({"experiment_id": "1"})).await;
    refused(
        &app,
        "experiments/delete",
        json!({"experiment_id": "1"}),
        "RESOURCE_DOES_NOT_EXIST",
        "No Experiment with id=1 exists",
    )
    .await;
    let stage = |run: Value| run["run"]["info"]["lifecycle_stage"].clone();
    assert_eq!(
        stage(get(&app, &format!("runs/get?run_id={run_id}")).await),
        "deleted"
    );
    refused(
        &app,
        "runs/create",
        json!({"experiment_id": "1"}),
        "INVALID_PARAMETER_VALUE",
        "must be in the 'active' state",
    )
    .await;
    refused(
        &app,
        "experiments/update",
        json!({"experiment_id": "1", "new_name": "c"}),
        "INVALID_STATE",
        "Cannot rename a non-active experiment.",
    )
    .await;
    ok(&app, "experiments/restore", json!({"experiment_id": "1"})).await;
    assert_eq!(
        stage(get(&app, &format!("runs/get?run_id={run_id}")).await),
        "active"
    );
}

#[tokio::test]
async fn requests_that_cannot_be_are_refused_in_mlflows_words() {
    let app = App::new();
    let run_id = run(&app).await;
    let invalid = "INVALID_PARAMETER_VALUE";
    let long = "x".repeat(501);
    for (path, body, says) in [
        (
            "experiments/create",
            json!({"name": 123}),
            "Invalid value 123 for parameter 'name' supplied",
        ),
        (
            "experiments/create",
            json!({}),
            "Missing value for required parameter 'name'",
        ),
        (
            "experiments/create",
            json!({"name": long}),
            "'name' exceeds the maximum length of 500 characters",
        ),
        (
            "experiments/create",
            json!({"name": "r", "artifact_location": "runs:/a/b"}),
            "Artifact location cannot be a runs:/ URI",
        ),
        (
            "experiments/create",
            json!({"name": "r", "artifact_location": "s3://b/x#y"}),
            "'artifact_location' URL can't include fragments or params.",
        ),
        (
            "experiments/delete",
            json!({"experiment_id": "abc"}),
            "Experiment ID must be a valid integer",
        ),
        (
            "runs/log-metric",
            json!({"run_id": run_id, "key": "a$", "value": 1, "timestamp": 1}),
            "Names may only contain alphanumerics",
        ),
        (
            "runs/log-metric",
            json!({"run_id": run_id, "key": "a", "value": 1, "timestamp": -1}),
            "Timestamp must be a nonnegative long",
        ),
        (
            "runs/log-metric",
            json!({"run_id": run_id, "key": "a", "value": 1}),
            "required parameter 'timestamp'",
        ),
        (
            "runs/log-parameter",
            json!({"run_id": run_id, "key": "../x", "value": "1"}),
            "This name would resolve to '../x'",
        ),
        (
            "runs/set-tag",
            json!({"run_id": run_id, "key": "k", "value": 41}),
            "Invalid value 41 for parameter 'value'",
        ),
        (
            "runs/update",
            json!({"run_id": run_id, "status": "DONE"}),
            "for parameter 'status' supplied",
        ),
        (
            "runs/log-batch",
            json!({"run_id": "no run!"}),
            "Invalid value \"no run!\" for parameter 'run_id' supplied",
        ),
        (
            "runs/outputs",
            json!({"run_id": run_id}),
            "Missing value for required parameter 'models'",
        ),
        (
            "experiments/search-datasets",
            json!({}),
            "must specify at least one experiment_id",
        ),
    ] {
        refused(&app, path, body, invalid, says).await;
    }
    let missing = json!({"run_id": "0123", "key": "a", "value": "b"});
    refused(
        &app,
        "runs/log-parameter",
        missing,
        "RESOURCE_DOES_NOT_EXIST",
        "Run with id=0123 not found",
    )
    .await;
    let plain = app
        .post_as(
            &format!("{API}/experiments/create"),
            "text/plain",
            "{\"name\": \"x\"}",
        )
        .await;
    assert_eq!(plain.status, 400);
    assert!(
        plain
            .text
            .contains("Content-Type must be one of ['application/json']")
    );
}

#[tokio::test]
async fn a_run_has_a_name_a_place_for_artifacts_and_an_end() {
    let app = App::new();
    let made = ok(
        &app,
        "runs/create",
        json!({"start_time": "5", "tags": [{"key": "k", "value": "v"}]}),
    )
    .await;
    let info = &made["run"]["info"];
    let run_id = info["run_id"].as_str().unwrap();
    assert_eq!(run_id.len(), 32);
    assert_eq!(
        info["artifact_uri"],
        format!("mlflow-artifacts:/0/{run_id}/artifacts")
    );
    assert_eq!(
        (&info["status"], &info["start_time"]),
        (&json!("RUNNING"), &json!(5))
    );
    let name = info["run_name"].as_str().unwrap();
    assert_eq!(name.split('-').count(), 3);
    let tags = data(&app, run_id).await["tags"].clone();
    assert_eq!(
        tags,
        json!([{"key": "k", "value": "v"}, {"key": "mlflow.runName", "value": name}])
    );

    let body = json!({"run_id": run_id, "status": "FINISHED", "end_time": 9, "run_name": "mine"});
    let updated = ok(&app, "runs/update", body).await["run_info"].clone();
    assert_eq!(
        (&updated["status"], &updated["end_time"]),
        (&json!("FINISHED"), &json!(9))
    );
    ok(
        &app,
        "runs/set-tag",
        json!({"run_id": run_id, "key": "mlflow.runName", "value": "ours"}),
    )
    .await;
    let found = get(&app, &format!("runs/get?run_id={run_id}")).await;
    assert_eq!(found["run"]["info"]["run_name"], "ours");
    assert_eq!(found["run"]["info"]["status"], "FINISHED");

    ok(&app, "runs/delete", json!({"run_id": run_id})).await;
    refused(
        &app,
        "runs/set-tag",
        json!({"run_id": run_id, "key": "a", "value": "b"}),
        "INVALID_PARAMETER_VALUE",
        "must be in the 'active' state. Current state is deleted.",
    )
    .await;
    ok(&app, "runs/restore", json!({"run_id": run_id})).await;
    ok(&app, "runs/delete-tag", json!({"run_id": run_id, "key": "k"})).await;
    refused(
        &app,
        "runs/delete-tag",
        json!({"run_id": run_id, "key": "k"}),
        "RESOURCE_DOES_NOT_EXIST",
        "No tag with name: k",
    )
    .await;
    refused(
        &app,
        "runs/create",
        json!({"run_name": "a", "tags": [{"key": "mlflow.runName", "value": "b"}]}),
        "INVALID_PARAMETER_VALUE",
        "are specified, but with different values",
    )
    .await;
}

#[tokio::test]
async fn a_batch_is_written_as_a_whole_or_not_at_all() {
    let app = App::new();
    let run_id = run(&app).await;
    let batch = json!({
        "run_id": run_id,
        "metrics": [
            {"key": "loss", "value": 0.5, "timestamp": 1, "step": 1},
            {"key": "loss", "value": "NaN", "timestamp": 2, "step": 2},
            {"key": "best", "value": "Infinity", "timestamp": 2},
        ],
        "params": [{"key": "depth", "value": "3"}, {"key": "empty", "value": ""}],
        "tags": [{"key": "t", "value": "v"}, {"key": "mlflow.runName", "value": "named"}],
    });
    assert_eq!(ok(&app, "runs/log-batch", batch).await, json!({}));
    let before = data(&app, &run_id).await;
    assert_eq!(
        before["metrics"],
        json!([
            {"key": "loss", "value": "NaN", "timestamp": 2, "step": 2},
            {"key": "best", "value": f64::MAX, "timestamp": 2, "step": 0},
        ])
    );
    let param = |key: &str, value: &str| json!({"key": key, "value": value});
    let point = json!({"key": "loss", "value": 9, "timestamp": 9, "step": 9});
    let many: Vec<Value> = (0..1001).map(|_| point.clone()).collect();
    let tags: Vec<Value> = (0..101).map(|i| param(&format!("k{i}"), "v")).collect();
    for (body, says) in [
        (
            json!({"params": [param("new", "1"), param("depth", "4")], "metrics": [point]}),
            "Changing param values is not allowed",
        ),
        (
            json!({"params": [param("new", "1"), param("new", "1")]}),
            "Duplicate parameter keys have been submitted: ['new']",
        ),
        (
            json!({"metrics": [point, {"key": "bad$", "value": 1, "timestamp": 1}]}),
            "parameter 'metrics[1].name' supplied",
        ),
        (
            json!({"metrics": [point], "tags": [param("bad$", "1")]}),
            "parameter 'tags[0].key' supplied",
        ),
        (
            json!({"metrics": many}),
            "can contain at most 1000 metrics. Got 1001 metrics.",
        ),
        (
            json!({"metrics": [point], "tags": tags}),
            "can contain at most 100 tags. Got 101 tags.",
        ),
    ] {
        let mut body = body;
        body["run_id"] = json!(run_id);
        refused(&app, "runs/log-batch", body, "INVALID_PARAMETER_VALUE", says).await;
    }
    assert_eq!(data(&app, &run_id).await, before);
    ok(
        &app,
        "runs/log-batch",
        json!({"run_id": run_id, "params": [param("depth", "3")]}),
    )
    .await;
    refused(
        &app,
        "runs/log-parameter",
        json!({"run_id": run_id, "key": "depth", "value": "4"}),
        "INVALID_PARAMETER_VALUE",
        "Param with key='depth' was already logged with value='3'",
    )
    .await;
    ok(
        &app,
        "runs/log-parameter",
        json!({"run_id": run_id, "key": "long", "value": "x".repeat(7000)}),
    )
    .await;
    let params = data(&app, &run_id).await["params"].clone();
    assert_eq!(params[2]["value"].as_str().unwrap().len(), 6000);
}

async fn points(app: &App, run_id: &str, count: i64) {
    let value = |i: i64| if i == 17 { 1000.0 } else { i as f64 };
    for from in (0..count).step_by(1000) {
        let metrics: Vec<Value> = (from..(from + 1000).min(count))
            .map(|i| json!({"key": "loss", "value": value(i), "timestamp": 100 + i, "step": i}))
            .collect();
        ok(
            app,
            "runs/log-batch",
            json!({"run_id": run_id, "metrics": metrics}),
        )
        .await;
    }
}

#[tokio::test]
async fn a_history_comes_in_pages_in_samples_and_as_a_chart_that_keeps_its_spikes() {
    let app = App::new();
    let run_id = run(&app).await;
    points(&app, &run_id, 100).await;
    let path = format!("metrics/get-history?run_id={run_id}&metric_key=loss");
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = get(&app, &format!("{path}&max_results=30&page_token={token}")).await;
        seen.extend(
            page["metrics"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| m["step"].as_i64().unwrap()),
        );
        match page["next_page_token"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(seen, (0..100).collect::<Vec<i64>>());
    let bad = app.get(&format!("{API}/{path}&page_token=nonsense")).await;
    assert_eq!(bad.json()["error_code"], "INVALID_PARAMETER_VALUE");
    assert_eq!(
        get(
            &app,
            &format!("metrics/get-history?run_id={run_id}&metric_key=none")
        )
        .await,
        json!({})
    );

    let bulk = get(
        &app,
        &format!("metrics/get-history-bulk?run_id={run_id}&run_id=x&metric_key=loss&max_results=2"),
    )
    .await;
    assert_eq!(
        bulk["metrics"],
        json!([
            {"key": "loss", "value": 0.0, "timestamp": 100, "step": 0, "run_id": run_id},
            {"key": "loss", "value": 1.0, "timestamp": 101, "step": 1, "run_id": run_id},
        ])
    );
    let interval = format!("metrics/get-history-bulk-interval?run_ids={run_id}&metric_key=loss");
    let sampled = get(&app, &format!("{interval}&max_results=4")).await;
    let steps: Vec<i64> = sampled["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["step"].as_i64().unwrap())
        .collect();
    assert_eq!(steps, [0, 25, 50, 75, 99]);
    for (query, says) in [
        ("&max_results=0", "max_results must be between 1 and 2500"),
        ("&start_step=1", "both must be specified"),
        (
            "&start_step=2&end_step=1",
            "end_step must be greater than start_step",
        ),
    ] {
        let reply = app.get(&format!("{API}/{interval}{query}")).await;
        assert!(reply.text.contains(says), "{}", reply.text);
    }

    let chart = get(
        &app,
        &format!("metrics/get-history-downsampled?run_id={run_id}&metric_key=loss&points=5"),
    )
    .await;
    let buckets = chart["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), 5);
    assert_eq!(
        buckets[0],
        json!({
            "count": 20, "nan_count": 0,
            "first": {"value": 0.0, "timestamp": 100, "step": 0},
            "last": {"value": 19.0, "timestamp": 119, "step": 19},
            "min": {"value": 0.0, "timestamp": 100, "step": 0},
            "max": {"value": 1000.0, "timestamp": 117, "step": 17},
            "mean": 58.65,
        })
    );
}

#[tokio::test]
async fn a_history_without_a_limit_comes_whole_however_long_it_is() {
    let app = App::new();
    let run_id = run(&app).await;
    points(&app, &run_id, 26_000).await;
    let all = get(
        &app,
        &format!("metrics/get-history?run_id={run_id}&metric_key=loss"),
    )
    .await;
    let steps: Vec<i64> = all["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["step"].as_i64().unwrap())
        .collect();
    assert_eq!(steps, (0..26_000).collect::<Vec<i64>>());
    assert_eq!(all.get("next_page_token"), None);
}

#[tokio::test]
async fn a_run_says_what_it_read_and_wrote() {
    let app = App::new();
    let run_id = run(&app).await;
    let dataset = json!({
        "dataset": {"name": "flights", "digest": "abc", "source_type": "local", "source": "x.csv"},
        "tags": [{"key": "mlflow.data.context", "value": "training"}],
    });
    let body = json!({"run_id": run_id, "datasets": [dataset, dataset], "models": [{"model_id": "m-1"}]});
    ok(&app, "runs/log-inputs", body).await;
    ok(
        &app,
        "runs/outputs",
        json!({"run_id": run_id, "models": [{"model_id": "m-2", "step": 3}]}),
    )
    .await;
    let run = get(&app, &format!("runs/get?run_id={run_id}")).await["run"].clone();
    assert_eq!(
        run["inputs"],
        json!({
            "dataset_inputs": [{
                "tags": [{"key": "mlflow.data.context", "value": "training"}],
                "dataset": {"name": "flights", "digest": "abc", "source_type": "local", "source": "x.csv"},
            }],
            "model_inputs": [{"model_id": "m-1"}],
        })
    );
    assert_eq!(
        run["outputs"]["model_outputs"],
        json!([{"model_id": "m-2", "step": 3}])
    );
    let found = ok(
        &app,
        "experiments/search-datasets",
        json!({"experiment_ids": ["0"]}),
    )
    .await;
    assert_eq!(
        found["dataset_summaries"],
        json!([{"experiment_id": "0", "name": "flights", "digest": "abc", "context": "training"}])
    );
    let wrong =
        json!({"run_id": run_id, "datasets": [{"dataset": {"name": "n".repeat(501), "digest": "d"}}]});
    refused(
        &app,
        "runs/log-inputs",
        wrong,
        "INVALID_PARAMETER_VALUE",
        "'name' exceeds the maximum length of 500",
    )
    .await;
    let model = json!({"run_id": run_id, "model_json": "{\"run_id\": \"x\"}"});
    refused(
        &app,
        "runs/log-model",
        model,
        "INVALID_PARAMETER_VALUE",
        "Model json is missing mandatory fields",
    )
    .await;
}

#[tokio::test]
async fn another_workspace_sees_none_of_it() {
    use axum::body::Body;
    use axum::http::Request;
    let app = App::new();
    let run_id = run(&app).await;
    let request =
        Request::get(format!("{API}/runs/get?run_id={run_id}")).header("x-mlflow-workspace", "other");
    assert_eq!(app.send(request.body(Body::empty()).unwrap()).await.status, 404);
}
