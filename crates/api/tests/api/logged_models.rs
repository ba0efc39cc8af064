//! Logged models, from their announcement to their deletion.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::fake::{App, Reply};

const MODELS: &str = "/api/2.0/mlflow/logged-models";

async fn send(app: &App, method: Method, uri: &str, body: Value) -> Reply {
    let request = Request::builder().method(method).uri(uri);
    let request = request.header("content-type", "application/json");
    app.send(request.body(Body::from(body.to_string())).unwrap())
        .await
}

#[tokio::test]
async fn a_model_lives_from_pending_to_deleted() {
    let app = App::new();
    let body = json!({
        "experiment_id": "0",
        "name": "forest",
        "model_type": "classifier",
        "source_run_id": "abc",
        "params": [{"key": "depth", "value": "3"}],
        "tags": [{"key": "a", "value": "1"}],
    });
    let created = app.post(MODELS, body).await;
    assert_eq!(created.status, 200, "{}", created.text);
    let model = created.json()["model"].clone();
    let id = model["info"]["model_id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("m-") && id.len() == 34, "{id}");
    let now = model["info"]["creation_timestamp_ms"].clone();
    assert!(now.is_i64());
    assert_eq!(
        model,
        json!({
            "info": {
                "model_id": id,
                "experiment_id": "0",
                "name": "forest",
                "creation_timestamp_ms": now,
                "last_updated_timestamp_ms": now,
                "artifact_uri": format!("mlflow-artifacts:/0/models/{id}/artifacts"),
                "status": "LOGGED_MODEL_PENDING",
                "model_type": "classifier",
                "source_run_id": "abc",
                "tags": [{"key": "a", "value": "1"}],
            },
            "data": {"params": [{"key": "depth", "value": "3"}]},
        })
    );
    let own = format!("{MODELS}/{id}");
    assert_eq!(app.get(&own).await.json()["model"], model);

    let ready = send(
        &app,
        Method::PATCH,
        &own,
        json!({"model_id": id, "status": "LOGGED_MODEL_READY"}),
    )
    .await;
    assert_eq!(ready.json()["model"]["info"]["status"], "LOGGED_MODEL_READY");
    let failed = send(&app, Method::PATCH, &own, json!({"status": 3})).await;
    assert_eq!(
        failed.json()["model"]["info"]["status"],
        "LOGGED_MODEL_UPLOAD_FAILED"
    );
    let unknown = send(&app, Method::PATCH, &own, json!({"status": 7})).await;
    assert_eq!(unknown.json()["message"], "Unknown model status: 7");
    let missing = send(&app, Method::PATCH, &own, json!({})).await;
    assert!(
        missing.json()["message"]
            .as_str()
            .unwrap()
            .starts_with("Missing value for required parameter 'status'")
    );

    let tags = format!("{own}/tags");
    let set = json!({"tags": [{"key": "a", "value": "2"}, {"key": "b", "value": ""}]});
    assert_eq!(send(&app, Method::PATCH, &tags, set).await.status, 200);
    assert_eq!(
        send(&app, Method::DELETE, &format!("{tags}/a"), json!({}))
            .await
            .status,
        200
    );
    let gone = send(&app, Method::DELETE, &format!("{tags}/a"), json!({})).await;
    assert_eq!(
        gone.json()["message"],
        format!("No tag with key 'a' found for model with ID '{id}'.")
    );

    let params = format!("{own}/params");
    let more = json!({"params": [{"key": "depth", "value": "3"}, {"key": "trees", "value": "9"}]});
    assert_eq!(app.post(&params, more).await.status, 200);
    let changed = app
        .post(&params, json!({"params": [{"key": "depth", "value": "4"}]}))
        .await;
    assert_eq!(changed.json()["error_code"], "INVALID_PARAMETER_VALUE");
    let twice = json!({"params": [{"key": "x", "value": "1"}, {"key": "x", "value": "2"}]});
    assert_eq!(app.post(&params, twice).await.status, 400);
    let now = app.get(&own).await.json()["model"].clone();
    assert_eq!(now["info"]["tags"], json!([{"key": "b", "value": ""}]));
    assert_eq!(
        now["data"]["params"],
        json!([{"key": "depth", "value": "3"}, {"key": "trees", "value": "9"}])
    );

    let metric = json!({"run_id": run(&app).await, "key": "auc", "value": 0.5, "timestamp": 7, "step": 2, "model_id": id});
    assert_eq!(
        app.post("/api/2.0/mlflow/runs/log-metric", metric.clone())
            .await
            .status,
        200
    );
    let measured = app.get(&own).await.json()["model"]["data"]["metrics"][0].clone();
    assert_eq!(
        measured,
        json!({"key": "auc", "value": 0.5, "timestamp": 7, "step": 2, "model_id": id, "run_id": metric["run_id"]})
    );

    assert_eq!(
        send(&app, Method::DELETE, &own, json!({})).await.json(),
        json!({})
    );
    let deleted = app.get(&own).await;
    assert_eq!(deleted.status, 404);
    assert_eq!(
        deleted.json()["message"],
        format!("Logged model with ID '{id}' not found.")
    );
    assert_eq!(app.get(&format!("{own}?allow_deleted=true")).await.status, 200);
    assert_eq!(send(&app, Method::DELETE, &own, json!({})).await.status, 404);
}

async fn run(app: &App) -> String {
    let reply = app
        .post(
            "/api/2.0/mlflow/runs/create",
            json!({"experiment_id": "0", "start_time": 1}),
        )
        .await;
    reply.json()["run"]["info"]["run_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_cannot_be_announced_is_refused_in_mlflows_words() {
    let app = App::new();
    let table = [
        (json!({}), "Missing value for required parameter 'experiment_id'"),
        (
            json!({"experiment_id": "x"}),
            "Invalid experiment ID 'x'. Experiment ID must be a valid integer.",
        ),
        (json!({"experiment_id": "77"}), "No Experiment with id=77 exists"),
        (
            json!({"experiment_id": "0", "name": "a.b"}),
            "Invalid model name ('a.b') provided.",
        ),
    ];
    for (body, message) in table {
        let reply = app.post(MODELS, body).await;
        assert!(
            reply.json()["message"].as_str().unwrap().starts_with(message),
            "{}",
            reply.text
        );
    }
    let unnamed = app.post(MODELS, json!({"experiment_id": "0"})).await.json();
    assert!(!unnamed["model"]["info"]["name"].as_str().unwrap().is_empty());
}
