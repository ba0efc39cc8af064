//! The registry and webhooks as MLflow's client speaks to them, and what Tidemill adds.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tidemill_core::ids::VersionNumber;
use tidemill_store::endpoints::{self, EndpointRow};

use crate::fake::{App, Reply};

const API: &str = "/api/2.0/mlflow";

async fn call(app: &App, method: Method, path: &str, body: Value) -> Reply {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    app.send(request).await
}

async fn post(app: &App, path: &str, body: Value) -> Reply {
    call(app, Method::POST, &format!("{API}/{path}"), body).await
}

#[track_caller]
fn ok(reply: Reply) -> Value {
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    reply.json()
}

#[track_caller]
fn refused(reply: &Reply, status: u16, code: &str, text: &str) {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.text);
    let body = reply.json();
    assert_eq!(body["error_code"], code, "{body}");
    assert!(body["message"].as_str().unwrap().contains(text), "{body}");
}

async fn with_version(app: &App) {
    ok(post(
        app,
        "registered-models/create",
        json!({"name": "m", "tags": [{"key": "a", "value": "1"}]}),
    )
    .await);
    ok(post(
        app,
        "model-versions/create",
        json!({"name": "m", "source": "s3://bucket/model", "description": "first"}),
    )
    .await);
}

#[tokio::test]
async fn a_model_and_its_versions_live_as_mlflows_client_expects() {
    let app = App::new();
    with_version(&app).await;
    refused(
        &post(&app, "registered-models/create", json!({"name": "m"})).await,
        400,
        "RESOURCE_ALREADY_EXISTS",
        "Registered Model (name=m) already exists.",
    );
    ok(post(
        &app,
        "model-versions/create",
        json!({"name": "m", "source": "models:/m/1"}),
    )
    .await);
    ok(post(
        &app,
        "registered-models/alias",
        json!({"name": "m", "alias": "best", "version": "2"}),
    )
    .await);
    ok(post(
        &app,
        "model-versions/set-tag",
        json!({"name": "m", "version": "2", "key": "k", "value": "v"}),
    )
    .await);
    let moved =
        json!({"name": "m", "version": "1", "stage": "production", "archive_existing_versions": true});
    let version = ok(post(&app, "model-versions/transition-stage", moved).await);
    assert_eq!(version["model_version"]["current_stage"], "Production");
    let model = ok(app.get(&format!("{API}/registered-models/get?name=m")).await)["registered_model"].clone();
    assert_eq!(model["aliases"], json!([{"alias": "best", "version": "2"}]));
    assert_eq!(model["latest_versions"].as_array().unwrap().len(), 2);
    let by_alias = ok(app
        .get(&format!("{API}/registered-models/alias?name=m&alias=best"))
        .await);
    assert_eq!(
        by_alias["model_version"]["tags"],
        json!([{"key": "k", "value": "v"}])
    );
    let uri = ok(app
        .get(&format!("{API}/model-versions/get-download-uri?name=m&version=2"))
        .await);
    assert_eq!(uri["artifact_uri"], "s3://bucket/model");
    let latest = ok(post(
        &app,
        "registered-models/get-latest-versions",
        json!({"name": "m", "stages": ["None"]}),
    )
    .await);
    assert_eq!(latest["model_versions"][0]["version"], "2");

    let gone = json!({"name": "m", "version": "2"});
    ok(call(
        &app,
        Method::DELETE,
        &format!("{API}/model-versions/delete"),
        gone,
    )
    .await);
    refused(
        &app.get(&format!("{API}/model-versions/get?name=m&version=2"))
            .await,
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "Model Version (name=m, version=2) not found",
    );
    refused(
        &app.get(&format!("{API}/registered-models/alias?name=m&alias=best"))
            .await,
        400,
        "INVALID_PARAMETER_VALUE",
        "Registered model alias best not found.",
    );
    let next = ok(post(
        &app,
        "model-versions/create",
        json!({"name": "m", "source": "s3://b/x"}),
    )
    .await);
    assert_eq!(next["model_version"]["version"], "3", "numbers do not come back");

    ok(post(
        &app,
        "registered-models/rename",
        json!({"name": "m", "new_name": "n"}),
    )
    .await);
    ok(call(
        &app,
        Method::DELETE,
        &format!("{API}/registered-models/delete"),
        json!({"name": "n"}),
    )
    .await);
    refused(
        &app.get(&format!("{API}/registered-models/get?name=n")).await,
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "Registered Model with name=n not found",
    );
    let history = ok(app.get("/api/v1/models/n/audit").await);
    let kinds: Vec<&str> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["kind"].as_str().unwrap())
        .collect();
    for kind in [
        "created",
        "alias_moved",
        "stage_moved",
        "version_deleted",
        "renamed",
        "deleted",
    ] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
}

#[tokio::test]
async fn what_a_client_asks_wrongly_is_said_in_mlflows_words() {
    let app = App::new();
    with_version(&app).await;
    let invalid = "INVALID_PARAMETER_VALUE";
    for (path, body, text) in [
        (
            "registered-models/create",
            json!({}),
            "Missing value for required parameter 'name'",
        ),
        (
            "registered-models/alias",
            json!({"name": "m", "alias": "latest", "version": "1"}),
            "'latest' alias name",
        ),
        (
            "registered-models/alias",
            json!({"name": "m", "alias": "v3", "version": "1"}),
            "Version alias name 'v3' is reserved.",
        ),
        (
            "registered-models/alias",
            json!({"name": "m", "alias": "a b", "version": "1"}),
            "Invalid alias name: 'a b'.",
        ),
        (
            "registered-models/alias",
            json!({"name": "m", "alias": "a", "version": "x"}),
            "Parameter 'version' must be an integer, got 'x'.",
        ),
        (
            "model-versions/transition-stage",
            json!({"name": "m", "version": "1", "stage": "live"}),
            "Invalid Model Version stage: live.",
        ),
        (
            "model-versions/set-tag",
            json!({"name": "m", "version": "1", "key": "../a", "value": ""}),
            "Names may be treated as files",
        ),
        (
            "model-versions/create",
            json!({"name": "m", "source": "/etc/passwd"}),
            "To use a local path as a model version source",
        ),
        (
            "model-versions/create",
            json!({"name": "m", "source": "mlflow-artifacts:/a/%2e%2e/%2e%2e/b"}),
            "Invalid model version source",
        ),
        (
            "model-versions/create",
            json!({"name": "m", "source": "models:/m/9"}),
            "Unable to fetch model from model URI",
        ),
    ] {
        refused(&post(&app, path, body).await, 400, invalid, text);
    }
}

#[tokio::test]
async fn the_loops_own_aliases_and_versions_move_with_their_endpoint_only() {
    let app = App::new();
    with_version(&app).await;
    let row = EndpointRow {
        name: "m".into(),
        model: "m".into(),
        champion: Some(VersionNumber(1)),
        previous: None,
        baseline: None,
        canary: None,
        canary_share: 0.0,
        salt: String::new(),
        shadows: Vec::new(),
        generation: 0,
        updated_at: crate::fake::NOW.parse().unwrap(),
        first_served_at: None,
        default_answer: Value::Null,
    };
    let store = tidemill_api::ControlPlane::tracking(&*app.fake).store().clone();
    store.write(move |tx| endpoints::upsert(tx, &row)).await.unwrap();
    let alias = json!({"name": "m", "alias": "champion", "version": "1"});
    let invalid = "INVALID_PARAMETER_VALUE";
    refused(
        &post(&app, "registered-models/alias", alias).await,
        400,
        invalid,
        "/api/v1/endpoints/m/promote",
    );
    let version = json!({"name": "m", "version": "1"});
    let delete = format!("{API}/model-versions/delete");
    refused(
        &call(&app, Method::DELETE, &delete, version).await,
        400,
        invalid,
        "is the champion of endpoint `m`",
    );
    let rename = json!({"name": "m", "new_name": "n"});
    refused(
        &post(&app, "registered-models/rename", rename).await,
        400,
        invalid,
        "cannot be renamed",
    );
    ok(post(
        &app,
        "registered-models/alias",
        json!({"name": "m", "alias": "best", "version": "1"}),
    )
    .await);
}

#[tokio::test]
async fn a_model_that_requires_approval_moves_by_request_and_the_card_says_so() {
    let app = App::new();
    with_version(&app).await;
    ok(post(
        &app,
        "registered-models/set-tag",
        json!({"name": "m", "key": "tidemill.approval", "value": "required"}),
    )
    .await);
    let alias = json!({"name": "m", "alias": "live", "version": "1"});
    refused(
        &post(&app, "registered-models/alias", alias).await,
        403,
        "PERMISSION_DENIED",
        "/api/v1/models/m/versions/1/requests",
    );
    let requests = "/api/v1/models/m/versions/1/requests";
    let empty = call(&app, Method::POST, requests, json!({"to": {"alias": "live"}})).await;
    assert_eq!(empty.status, StatusCode::BAD_REQUEST, "{}", empty.text);
    let body = json!({"to": {"alias": "live"}, "why": "better on <b>holdout</b>"});
    let asked = ok(call(&app, Method::POST, requests, body).await);
    assert_eq!(asked["state"], "open");
    let path = format!("{requests}/{}/approve", asked["id"]);
    let approved = ok(call(&app, Method::POST, &path, json!({"comment": "seen"})).await);
    assert_eq!(approved["state"], "approved");
    let again = call(&app, Method::POST, &path, json!({})).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text);
    let found = ok(app
        .get(&format!("{API}/registered-models/alias?name=m&alias=live"))
        .await);
    assert_eq!(found["model_version"]["version"], "1");
    assert_eq!(ok(app.get(requests).await)["items"].as_array().unwrap().len(), 1);
    let card = app.get("/api/v1/models/m/versions/1/card").await;
    assert_eq!(card.status, StatusCode::OK);
    for text in [
        "# m version 1",
        "first",
        "got alias live",
        "approved",
        "&lt;b&gt;",
    ] {
        assert!(card.text.contains(text), "{text} in {}", card.text);
    }
    assert!(!card.text.contains("<b>"), "{}", card.text);
}

#[tokio::test]
async fn two_versions_are_compared_by_what_was_logged_of_them() {
    let app = App::new();
    ok(post(&app, "registered-models/create", json!({"name": "m"})).await);
    let experiment =
        ok(post(&app, "experiments/create", json!({"name": "e"})).await)["experiment_id"].clone();
    for (value, inputs) in [
        ("0.1", r#"[{"name": "x", "type": "double", "required": true}]"#),
        (
            "0.2",
            r#"[{"name": "x", "type": "double", "required": true}, {"name": "y", "type": "long", "required": true}]"#,
        ),
    ] {
        let run = ok(post(&app, "runs/create", json!({"experiment_id": experiment})).await);
        let id = run["run"]["info"]["run_id"].clone();
        ok(post(
            &app,
            "runs/log-parameter",
            json!({"run_id": id, "key": "rate", "value": value}),
        )
        .await);
        let history = json!([{"artifact_path": "model", "signature": {"inputs": inputs, "outputs": null}}]);
        let tag = json!({"run_id": id, "key": "mlflow.log-model.history", "value": history.to_string()});
        ok(post(&app, "runs/set-tag", tag).await);
        let source = format!("runs:/{}/model", id.as_str().unwrap());
        ok(post(
            &app,
            "model-versions/create",
            json!({"name": "m", "source": source, "run_id": id}),
        )
        .await);
    }
    let first = ok(app
        .get(&format!("{API}/model-versions/get?name=m&version=1"))
        .await)["model_version"]
        .clone();
    let second = ok(app
        .get(&format!("{API}/model-versions/get?name=m&version=2"))
        .await)["model_version"]
        .clone();
    let mixed = json!({"name": "m", "source": first["source"], "run_id": second["run_id"]});
    let text = "must identify the resource that contains the source";
    refused(
        &post(&app, "model-versions/create", mixed).await,
        400,
        "INVALID_PARAMETER_VALUE",
        text,
    );
    let found = ok(app.get("/api/v1/models/m/versions/1/compare/2").await);
    assert_eq!(found["params"], json!({"rate": {"a": "0.1", "b": "0.2"}}));
    assert_eq!(found["signature"]["inputs"]["added"], json!(["y"]));
    assert_eq!(found["compatible"], false);
    assert_eq!(found["reasons"], json!(["input `y` is new and required"]));
    let back = ok(app.get("/api/v1/models/m/versions/2/compare/1").await);
    assert_eq!(back["compatible"], true);
}

#[tokio::test]
async fn webhooks_are_kept_without_showing_their_secret() {
    let app = App::new();
    let event = json!({"entity": "MODEL_VERSION", "action": "CREATED"});
    let body =
        json!({"name": "hook", "url": "https://93.184.216.34/x", "events": [event], "secret": "s3cret"});
    let created = post(&app, "webhooks", body.clone()).await;
    assert!(!created.text.contains("s3cret"));
    let hook = ok(created)["webhook"].clone();
    assert_eq!(hook["events"], json!([event]));
    assert_eq!(hook["status"], "ACTIVE");
    let path = format!("{API}/webhooks/{}", hook["webhook_id"].as_str().unwrap());
    let changed = ok(call(&app, Method::PATCH, &path, json!({"status": "DISABLED"})).await);
    assert_eq!(changed["webhook"]["status"], "DISABLED");
    assert_eq!(
        ok(app.get(&format!("{API}/webhooks")).await)["webhooks"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let invalid = "INVALID_PARAMETER_VALUE";
    for (field, value, text) in [
        (
            "url",
            json!("http://93.184.216.34"),
            "Invalid webhook URL scheme: 'http'",
        ),
        (
            "url",
            json!("https://127.0.0.1"),
            "must not resolve to a non-public IP address",
        ),
        ("url", json!("   "), "cannot be empty or just whitespace"),
        ("name", json!("-x"), "Webhook name '-x' is invalid."),
        (
            "events",
            json!([]),
            "Missing value for required parameter 'events'",
        ),
        (
            "events",
            json!([{"entity": "MODEL_VERSION", "action": "DELETED"}]),
            "Invalid action 'deleted' for entity 'model_version'",
        ),
    ] {
        let mut wrong = body.clone();
        wrong[field] = value;
        refused(&post(&app, "webhooks", wrong).await, 400, invalid, text);
    }
    ok(call(&app, Method::DELETE, &path, json!({})).await);
    refused(&app.get(&path).await, 404, "RESOURCE_DOES_NOT_EXIST", "not found");
}
