//! Who is told of what, beyond MLflow's webhooks.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tidemill_api::ControlPlane as _;
use tidemill_core::clock::Timestamp;
use tidemill_store::webhooks;

use crate::fake::{ADMIN_PASSWORD, App, Reply};

const AUTOMATIONS: &str = "/api/v1/automations";
const URL: &str = "https://93.184.216.34/hook";

async fn call(app: &App, method: Method, path: &str, body: Value) -> Reply {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "application/json");
    app.send(request.body(Body::from(body.to_string())).unwrap())
        .await
}

async fn mlflow(app: &App, path: &str, body: Value) -> Value {
    let reply = app.post(&format!("/api/2.0/mlflow/{path}"), body).await;
    assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text);
    reply.json()
}

async fn automate(app: &App, event: &str, filter: Value) -> String {
    let body = json!({
        "name": "tell", "on": {"event": event, "filter": filter}, "do": {"webhook": {"url": URL, "secret": "s3cret"}},
    });
    let made = app.post(AUTOMATIONS, body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    made.json()["id"].as_str().unwrap().to_owned()
}

/// The outbox's bodies.
async fn told(app: &App) -> Vec<Value> {
    let store = app.fake.tracking().store().clone();
    let ever = Timestamp::from_micros(i64::MAX);
    let due = store
        .read(move |tx| webhooks::due(tx, ever, 1_000))
        .await
        .unwrap();
    assert!(
        due.iter()
            .all(|message| message.url == URL && message.secret.is_some())
    );
    due.iter()
        .map(|message| serde_json::from_str(&message.body).unwrap())
        .collect()
}

/// What was told since the last time, without what is the same in every message.
async fn news(app: &App, seen: &mut usize) -> Vec<Value> {
    let all = told(app).await;
    let fresh = all[*seen..].iter().map(|body| body["data"].clone()).collect();
    *seen = all.len();
    fresh
}

async fn run(app: &App) -> String {
    let run = mlflow(app, "runs/create", json!({"experiment_id": "0", "start_time": 1})).await;
    run["run"]["info"]["run_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_metric_that_crosses_a_threshold_is_told_of_once() {
    let app = App::new();
    let (early, mut seen) = (run(&app).await, 0);
    let point = |run: &str, step: i64, value: f64| json!({"run_id": run, "key": "auc", "value": value, "timestamp": step, "step": step});
    mlflow(&app, "runs/log-metric", point(&early, 0, 0.95)).await;
    let filter = json!({"metric": "auc", "op": ">=", "value": 0.9});
    let id = automate(&app, "metric.threshold", filter).await;
    automate(
        &app,
        "metric.threshold",
        json!({"metric": "auc", "op": "<", "value": 0.9, "experiment_id": "77"}),
    )
    .await;
    let id_of_run = run(&app).await;
    mlflow(&app, "runs/log-metric", point(&early, 1, 0.96)).await;
    mlflow(&app, "runs/log-metric", point(&id_of_run, 0, 0.5)).await;
    assert_eq!(told(&app).await, [] as [Value; 0]);
    mlflow(&app, "runs/log-metric", point(&id_of_run, 1, 0.9)).await;
    let first = told(&app).await;
    assert_eq!(first.len(), 1);
    assert_eq!(first[0]["event"], "metric.threshold");
    assert_eq!(first[0]["automation"], json!({"id": id, "name": "tell"}));
    assert_eq!(first[0]["workspace"], "default");
    let data = json!({
        "run_id": id_of_run, "experiment_id": "0", "metric": "auc", "op": ">=", "threshold": 0.9, "value": 0.9, "step": 1,
        "timestamp": 1,
    });
    assert_eq!(news(&app, &mut seen).await, [data]);
    // The same again, a point of before, and one more over the threshold.
    for (step, value) in [(1, 0.9), (0, 0.99), (2, 0.99)] {
        mlflow(&app, "runs/log-metric", point(&id_of_run, step, value)).await;
    }
    assert_eq!(news(&app, &mut seen).await, [] as [Value; 0]);
    let points: Vec<Value> = [(3, 0.1), (4, 0.95), (5, 0.99), (6, 0.2)]
        .map(|(step, value)| json!({"key": "auc", "value": value, "timestamp": step, "step": step}))
        .to_vec();
    let batch = json!({"run_id": id_of_run, "metrics": points, "tags": [{"key": "t", "value": "1"}]});
    mlflow(&app, "runs/log-batch", batch).await;
    let again = news(&app, &mut seen).await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0]["step"], 4);
    // What is refused is not told of.
    mlflow(
        &app,
        "runs/log-parameter",
        json!({"run_id": id_of_run, "key": "p", "value": "1"}),
    )
    .await;
    let refused = json!({
        "run_id": id_of_run, "params": [{"key": "p", "value": "2"}],
        "metrics": [{"key": "auc", "value": 1.0, "timestamp": 7, "step": 7}],
    });
    let reply = app.post("/api/2.0/mlflow/runs/log-batch", refused).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(news(&app, &mut seen).await, [] as [Value; 0]);

    // With the automation goes what was not sent yet.
    let path = format!("{AUTOMATIONS}/{id}");
    assert_eq!(
        call(&app, Method::DELETE, &path, json!({})).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        call(&app, Method::DELETE, &path, json!({})).await.status,
        StatusCode::NOT_FOUND
    );
    mlflow(&app, "runs/log-metric", point(&id_of_run, 8, 0.95)).await;
    assert_eq!(told(&app).await, [] as [Value; 0]);
}

#[tokio::test]
async fn ends_of_runs_tags_aliases_and_stages_are_told_of_where_they_fit() {
    let app = App::new();
    let mut seen = 0;
    automate(&app, "run.finished", json!({"status": "FAILED"})).await;
    automate(&app, "tag.set", json!({"tag": "ready", "value": "yes"})).await;
    automate(&app, "alias.set", json!({"model": "m", "alias": "live"})).await;
    automate(
        &app,
        "model_version.stage_transitioned",
        json!({"stage": "archived"}),
    )
    .await;

    let (good, bad) = (run(&app).await, run(&app).await);
    for (id, status) in [
        (&good, "FINISHED"),
        (&bad, "RUNNING"),
        (&bad, "FAILED"),
        (&bad, "FAILED"),
    ] {
        mlflow(
            &app,
            "runs/update",
            json!({"run_id": id, "status": status, "end_time": 9}),
        )
        .await;
    }
    let data = json!({"run_id": bad, "experiment_id": "0", "status": "FAILED", "end_time": 9});
    assert_eq!(news(&app, &mut seen).await, [data]);

    mlflow(&app, "registered-models/create", json!({"name": "m"})).await;
    for _ in 0..2 {
        mlflow(
            &app,
            "model-versions/create",
            json!({"name": "m", "source": "s3://b/m"}),
        )
        .await;
    }
    let tag = |value: &str| json!({"key": "ready", "value": value});
    mlflow(
        &app,
        "runs/set-tag",
        json!({"run_id": good, "key": "ready", "value": "no"}),
    )
    .await;
    mlflow(
        &app,
        "runs/log-batch",
        json!({"run_id": good, "tags": [tag("yes")]}),
    )
    .await;
    let of_model = json!({"name": "m", "key": "ready", "value": "yes"});
    mlflow(&app, "registered-models/set-tag", of_model).await;
    let of_version = json!({"name": "m", "version": "2", "key": "ready", "value": "yes"});
    mlflow(&app, "model-versions/set-tag", of_version).await;
    assert_eq!(
        news(&app, &mut seen).await,
        [
            json!({"of": "run", "run_id": good, "experiment_id": "0", "key": "ready", "value": "yes"}),
            json!({"of": "registered_model", "name": "m", "key": "ready", "value": "yes"}),
            json!({"of": "model_version", "name": "m", "version": "2", "key": "ready", "value": "yes"}),
        ]
    );

    for (alias, version) in [("live", "1"), ("live", "1"), ("other", "1")] {
        let body = json!({"name": "m", "alias": alias, "version": version});
        mlflow(&app, "registered-models/alias", body).await;
    }
    let why = "set through MLflow's API";
    let data = json!({"name": "m", "alias": "live", "version": "1", "by": "anonymous", "reason": why});
    assert_eq!(news(&app, &mut seen).await, [data]);

    for version in ["1", "2"] {
        let body = json!({"name": "m", "version": version, "stage": "Production", "archive_existing_versions": true});
        mlflow(&app, "model-versions/transition-stage", body).await;
    }
    let data = json!({
        "name": "m", "version": "1", "from": "Production", "to": "Archived", "by": "anonymous", "reason": why,
    });
    assert_eq!(news(&app, &mut seen).await, [data]);
}

#[tokio::test]
async fn automations_are_listed_without_their_secret_and_not_among_mlflows_webhooks() {
    let app = App::new();
    let id = automate(&app, "run.finished", json!({"experiment_id": "0"})).await;
    let listed = app.get(AUTOMATIONS).await;
    assert!(!listed.text.contains("s3cret"));
    let item = listed.json()["items"][0].clone();
    assert_eq!(item["id"], json!(id));
    assert_eq!(
        item["on"],
        json!({"event": "run.finished", "filter": {"experiment_id": "0"}})
    );
    assert_eq!(item["do"], json!({"webhook": {"url": URL, "signed": true}}));
    let webhooks = app.get("/api/2.0/mlflow/webhooks").await.json();
    assert!(
        webhooks["webhooks"].as_array().is_none_or(Vec::is_empty),
        "{webhooks}"
    );
    let hidden = app.get(&format!("/api/2.0/mlflow/webhooks/{id}")).await;
    assert_eq!(hidden.status, StatusCode::NOT_FOUND);

    let webhook = json!({"webhook": {"url": URL}});
    for (name, on, what, says) in [
        ("-", json!({"event": "run.finished"}), webhook.clone(), "name"),
        ("a", json!({"event": "run.eaten"}), webhook.clone(), "run.eaten"),
        (
            "a",
            json!({"event": "run.finished", "filter": {"alias": "x"}}),
            webhook.clone(),
            "has no `alias`",
        ),
        (
            "a",
            json!({"event": "metric.threshold"}),
            webhook.clone(),
            "needs a filter",
        ),
        (
            "a",
            json!({"event": "run.finished"}),
            json!({"webhook": {"url": "http://93.184.216.34"}}),
            "scheme",
        ),
        (
            "a",
            json!({"event": "run.finished"}),
            json!({"webhook": {"url": "https://127.0.0.1"}}),
            "non-public",
        ),
    ] {
        let refused = app
            .post(AUTOMATIONS, json!({"name": name, "on": on, "do": what}))
            .await;
        assert!(
            refused.status.is_client_error() && refused.text.contains(says),
            "{says}: {}",
            refused.text
        );
    }
}

#[tokio::test]
async fn who_may_not_manage_webhooks_may_not_automate() {
    let app = App::with_users("MANAGE").await;
    let basic = |user: &str, password: &str| {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        format!("Basic {encoded}")
    };
    let send = async |who: &str, method: Method, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(path);
        let request = request
            .header("authorization", who)
            .header("content-type", "application/json");
        app.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    };
    let admin = basic("admin", ADMIN_PASSWORD);
    let user = json!({"username": "ada", "password": "a long password"});
    let made = send(&admin, Method::POST, "/api/2.0/mlflow/users/create", user).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    let ada = basic("ada", "a long password");
    let body = json!({"name": "a", "on": {"event": "run.finished"}, "do": {"webhook": {"url": URL}}});
    for (method, path) in [(Method::POST, ""), (Method::GET, ""), (Method::DELETE, "/x")] {
        let path = format!("{AUTOMATIONS}{path}");
        let refused = send(&ada, method.clone(), &path, body.clone()).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {}", refused.text);
    }
    let made = send(&admin, Method::POST, AUTOMATIONS, body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
}
