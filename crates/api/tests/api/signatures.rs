//! What a version takes and gives, read from the file `MLmodel` among its files.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::fake::App;

async fn post(app: &App, path: &str, body: Value) -> Value {
    let reply = app.post(&format!("/api/2.0/mlflow/{path}"), body).await;
    assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text);
    reply.json()
}

async fn upload(app: &App, uri: &str, inputs: &str) {
    let text = format!(
        "artifact_path: model\nflavors:\n  python_function: {{loader_module: mlflow.sklearn}}\nsignature:\n  inputs: '{inputs}'\n  \
         outputs: '[{{\"type\": \"tensor\", \"tensor-spec\": {{\"dtype\": \"int64\", \"shape\": [-1]}}}}]'\n  params: null\n"
    );
    let path = uri.strip_prefix("mlflow-artifacts:/").unwrap();
    let path = format!("/api/2.0/mlflow-artifacts/artifacts/{path}/MLmodel");
    let request = Request::builder().method(Method::PUT).uri(path);
    let reply = app.send(request.body(Body::from(text)).unwrap()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
}

#[tokio::test]
async fn signatures_are_read_from_the_files_wherever_the_source_points() {
    let app = App::new();
    post(&app, "registered-models/create", json!({"name": "m"})).await;
    let run = post(&app, "runs/create", json!({"experiment_id": "0"})).await["run"]["info"].clone();
    let id = run["run_id"].as_str().unwrap();
    let root = run["artifact_uri"].as_str().unwrap();
    let model = post(
        &app,
        "logged-models",
        json!({"experiment_id": "0", "name": "l", "source_run_id": id}),
    )
    .await["model"]["info"]
        .clone();
    let a = r#"[{"type": "double", "name": "x", "required": true}]"#;
    let b = r#"[{"type": "double", "name": "x", "required": true}, {"type": "long", "name": "y", "required": true}]"#;
    let c = r#"[{"type": "string", "name": "x", "required": true}]"#;
    upload(&app, &format!("{root}/model"), a).await;
    upload(&app, model["artifact_uri"].as_str().unwrap(), b).await;
    upload(&app, &format!("{root}/third"), c).await;
    for source in [
        format!("runs:/{id}/model"),
        format!("models:/{}", model["model_id"].as_str().unwrap()),
        format!("{root}/third"),
        "s3://elsewhere/model".to_owned(),
    ] {
        post(
            &app,
            "model-versions/create",
            json!({"name": "m", "source": source}),
        )
        .await;
    }

    let compare = async |a: i64, b: i64| {
        let reply = app
            .get(&format!("/api/v1/models/m/versions/{a}/compare/{b}"))
            .await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
        reply.json()
    };
    let grown = compare(1, 2).await;
    assert_eq!(grown["compatible"], false, "{grown}");
    assert_eq!(grown["reasons"], json!(["input `y` is new and required"]));
    assert_eq!(compare(2, 1).await["compatible"], true);
    let retyped = compare(1, 3).await;
    assert_eq!(retyped["reasons"], json!(["input `x` was double and is string"]));
    let unknown = compare(1, 4).await;
    assert_eq!(unknown["compatible"], Value::Null);
    assert_eq!(
        unknown["reasons"],
        json!(["version 4 has no signature that is known here"])
    );

    let card = app.get("/api/v1/models/m/versions/2/card").await;
    for line in [
        "## Inputs",
        "| y | long | yes |",
        "## Outputs",
        "| - | tensor(int64, \\[-1\\]) | yes |",
    ] {
        assert!(card.text.contains(line), "{line}: {}", card.text);
    }
    let bare = app.get("/api/v1/models/m/versions/4/card").await;
    assert!(!bare.text.contains("## Inputs"), "{}", bare.text);
}
