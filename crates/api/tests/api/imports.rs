use serde_json::{Value, json};

use crate::fake::App;

fn run(experiment: &Value) -> Value {
    json!({
        "run_id": "a".repeat(32), "experiment": experiment, "name": "n", "user_id": "me", "status": "FINISHED",
        "lifecycle": "active", "start_ms": 1, "end_ms": 2, "params": [["p", "1"]], "tags": [["t", "1"]],
    })
}

async fn experiment(app: &App) -> Value {
    let body = json!({"source": "s", "experiments": [{"id": "77", "name": "e", "lifecycle": "active", "tags": [["k", "v"]]}]});
    let reply = app.post("/api/v1/tracking/import/experiments", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["experiments"][0]["experiment"], 77);
    reply.json()["experiments"][0]["experiment"].clone()
}

#[tokio::test]
async fn what_an_import_sends_is_here_as_clients_know_it_and_sending_it_again_changes_nothing() {
    let app = App::new();
    let experiment = experiment(&app).await;
    let points = json!([
        {"key": "m", "step": 1, "at_ms": 5, "value": 0.5, "is_nan": false},
        {"key": "m", "step": 2, "at_ms": 6, "value": 0.0, "is_nan": true},
    ]);
    let body = json!({
        "source": "s", "runs": [run(&experiment)],
        "metrics": [{"run_id": "a".repeat(32), "metrics": points}],
    });
    let first = app
        .post("/api/v1/tracking/import/runs", body.clone())
        .await
        .json();
    assert_eq!(first["runs"][0]["outcome"], "created");
    assert_eq!(first["metrics"], 2);
    let again = app.post("/api/v1/tracking/import/runs", body).await.json();
    assert_eq!(
        (&again["runs"][0]["outcome"], &again["metrics"]),
        (&json!("present"), &json!(0))
    );

    let path = format!("/api/2.0/mlflow/runs/get?run_id={}", "a".repeat(32));
    let told = app.get(&path).await.json();
    let uri = format!("mlflow-artifacts:/77/{}/artifacts", "a".repeat(32));
    assert_eq!(told["run"]["info"]["artifact_uri"], uri);
    assert_eq!(told["run"]["data"]["metrics"][0]["value"], "NaN");

    let mark = json!({"id": "r", "target": "a".repeat(32), "fingerprint": "f", "counts": {"metrics": 2}});
    let marks = json!({"source": "s", "kind": "run", "things": [mark]});
    assert_eq!(
        app.post("/api/v1/tracking/import/marks", marks.clone())
            .await
            .status,
        200
    );
    let known = app.post("/api/v1/tracking/import/known", marks).await.json();
    assert_eq!(known["known"], json!([mark]));
}

#[tokio::test]
async fn an_import_cannot_point_at_files_of_the_server_or_out_of_a_folder() {
    let app = App::new();
    let experiment = experiment(&app).await;
    for (field, value) in [
        ("run_id", "../../etc"),
        ("artifact_uri", "file:///etc"),
        ("artifact_uri", "/etc"),
        ("status", "DONE"),
    ] {
        let mut run = run(&experiment);
        run[field] = json!(value);
        let body = json!({"source": "s", "runs": [run]});
        let reply = app.post("/api/v1/tracking/import/runs", body).await.json();
        assert_eq!(reply["runs"][0]["outcome"], "refused", "{field} {value}");
    }
    for source in [
        "/etc",
        "file:///etc/passwd",
        "runs:/x/../../y",
        "mlflow-artifacts:/a/%2e%2e/b",
    ] {
        let version = json!({"version": 1, "source": source, "stage": "None", "status": "READY"});
        let body =
            json!({"source": "s", "registered_models": [{"model": {"name": "m"}, "versions": [version]}]});
        let reply = app.post("/api/v1/tracking/import/models", body).await.json();
        let outcome = &reply["registered_models"][0]["versions"][0]["outcome"];
        assert_eq!(outcome, "refused", "{source}: {reply}");
    }
}
