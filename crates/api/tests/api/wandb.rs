//! W&B's protocol by hand; its own client is in `tests/clients/test_wandb.py`.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use tidemill_api::ControlPlane as _;

use crate::fake::App;

async fn ask(app: &App, name: &str, variables: Value) -> Value {
    let query = format!("query {name} {{ x }}");
    let reply = app
        .post("/graphql", json!({ "query": query, "variables": variables }))
        .await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    let answer = reply.json();
    assert!(answer.get("errors").is_none(), "{answer}");
    answer["data"].clone()
}

async fn start(app: &App, name: &str) -> Value {
    let variables = json!({
        "name": name, "project": "p", "entity": null, "config": "{\"lr\": {\"value\": 0.1}}", "tags": ["a"],
    });
    ask(app, "UpsertBucket", variables).await["upsertBucket"]["bucket"].clone()
}

async fn stream(app: &App, run: &str, body: Value) -> Value {
    let reply = app
        .post(&format!("/files/tidemill/p/{run}/file_stream"), body)
        .await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    reply.json()
}

fn lines(file: &str, offset: usize, content: &[&str]) -> Value {
    json!({ "files": { file: { "offset": offset, "content": content } } })
}

async fn tracked(app: &App, run_id: &Value) -> Value {
    let path = format!("/api/2.0/mlflow/runs/get?run_id={}", run_id.as_str().unwrap());
    let reply = app.get(&path).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    reply.json()["run"].clone()
}

async fn points(app: &App, run_id: &Value, key: &str) -> Vec<(i64, Value)> {
    let path = format!(
        "/api/2.0/mlflow/metrics/get-history?run_id={}&metric_key={key}",
        run_id.as_str().unwrap()
    );
    let reply = app.get(&path).await.json();
    let metrics = reply["metrics"].as_array().cloned().unwrap_or_default();
    metrics
        .iter()
        .map(|m| (m["step"].as_i64().unwrap(), m["value"].clone()))
        .collect()
}

#[tokio::test]
async fn a_chunk_that_comes_again_writes_nothing_twice() {
    let app = App::new();
    let run = start(&app, "r").await;
    let first = lines(
        "wandb-history.jsonl",
        0,
        &[r#"{"_step": 0, "x": 1}"#, r#"{"_step": 1, "x": NaN}"#],
    );
    stream(&app, "r", first.clone()).await;
    stream(&app, "r", first).await;
    let overlapping = [r#"{"_step": 1, "x": 7}"#, r#"{"_step": 2, "x": 3}"#];
    stream(&app, "r", lines("wandb-history.jsonl", 1, &overlapping)).await;
    assert_eq!(
        points(&app, &run["id"], "x").await,
        [(0, json!(1.0)), (1, json!("NaN")), (2, json!(3.0))]
    );
    let status = ask(&app, "RunResumeStatus", json!({ "name": "r", "project": "p" })).await;
    assert_eq!(status["model"]["bucket"]["historyLineCount"], 3);
}

#[tokio::test]
async fn a_run_ends_as_its_exit_code_says_and_can_be_stopped() {
    let app = App::new();
    for (name, code, status) in [("good", 0, "FINISHED"), ("bad", 1, "FAILED")] {
        let run = start(&app, name).await;
        stream(&app, name, json!({ "complete": true, "exitcode": code })).await;
        assert_eq!(tracked(&app, &run["id"]).await["info"]["status"], status);
    }
    let run = start(&app, "long").await;
    ask(&app, "StopRun", json!({ "id": run["id"] })).await;
    let answer = stream(&app, "long", lines("output.log", 0, &["a line"])).await;
    assert_eq!(answer["stopped"], true);
    stream(&app, "long", json!({ "complete": true, "exitcode": 255 })).await;
    assert_eq!(tracked(&app, &run["id"]).await["info"]["status"], "KILLED");
}

#[tokio::test]
async fn a_run_that_falls_silent_has_crashed_until_it_speaks_again() {
    let app = App::new();
    let run = start(&app, "r").await;
    app.fake
        .advance("2013-05-17T10:10:00Z".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(app.fake.tracking().wandb_expire().await.unwrap(), 1);
    assert_eq!(app.fake.tracking().wandb_expire().await.unwrap(), 0);
    assert_eq!(tracked(&app, &run["id"]).await["info"]["status"], "FAILED");
    stream(&app, "r", lines("output.log", 0, &["still here"])).await;
    assert_eq!(tracked(&app, &run["id"]).await["info"]["status"], "RUNNING");
}

#[tokio::test]
async fn a_summary_adds_only_what_no_history_has() {
    let app = App::new();
    let run = start(&app, "r").await;
    stream(
        &app,
        "r",
        lines("wandb-history.jsonl", 0, &[r#"{"_step": 0, "x": 1}"#]),
    )
    .await;
    for _ in 0..2 {
        let summary = r#"{"x": 1, "best": 0.5, "word": "yes", "_step": 0, "table": {"_type": "table-file"}}"#;
        stream(&app, "r", lines("wandb-summary.json", 0, &[summary])).await;
    }
    stream(
        &app,
        "r",
        lines(
            "wandb-summary.json",
            0,
            &[r#"{"x": 1, "best": 0.25, "_step": 4}"#],
        ),
    )
    .await;
    assert_eq!(points(&app, &run["id"], "x").await.len(), 1);
    assert_eq!(
        points(&app, &run["id"], "best").await,
        [(0, json!(0.5)), (4, json!(0.25))]
    );
    let run = tracked(&app, &run["id"]).await;
    let tags = run["data"]["tags"].as_array().unwrap();
    assert!(
        tags.iter()
            .any(|tag| tag["key"] == "wandb.summary.word" && tag["value"] == "yes")
    );
}

#[tokio::test]
async fn a_url_allows_one_upload_and_nothing_else() {
    let app = App::new();
    let run = start(&app, "r").await;
    let made = ask(
        &app,
        "CreateRunFiles",
        json!({ "project": "p", "run": "r", "files": ["a/b.txt"] }),
    )
    .await;
    let url = made["createRunFiles"]["files"][0]["uploadUrl"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = &url[url.find("/wandb/").unwrap()..];
    let put = |path: String| Request::put(path).body(Body::from("hello")).unwrap();
    assert_eq!(app.send(put(path.to_owned())).await.status, StatusCode::OK);
    assert_eq!(
        app.send(put(format!("{path}0"))).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        app.get(&path.replace("upload", "download")).await.status,
        StatusCode::FORBIDDEN
    );
    let listed = app
        .get(&format!(
            "/api/2.0/mlflow/artifacts/list?run_id={}&path=a",
            run["id"].as_str().unwrap()
        ))
        .await;
    assert!(listed.text.contains("a/b.txt"), "{}", listed.text);
    let out = json!({ "query": "mutation CreateRunFiles { x }", "variables": { "project": "p", "run": "r", "files": ["../x"] } });
    let refused = app.post("/graphql", out).await.json();
    assert!(
        refused["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("leads out")
    );
}

#[tokio::test]
async fn an_artifact_is_committed_only_with_all_its_bytes() {
    let app = App::new();
    start(&app, "r").await;
    let input = json!({ "input": {
        "projectName": "p", "runName": "r", "artifactTypeName": "t", "artifactCollectionNames": ["a"], "digest": "d",
        "clientID": "c", "aliases": [{ "alias": "best", "artifactCollectionName": "a" }],
    }});
    let made = ask(&app, "CreateArtifact", input.clone()).await;
    let id = made["createArtifact"]["artifact"]["id"].clone();
    let md5 = "XUFAKrxLKna5cZ2REBfFkg=="; // of `hello`
    let contents = json!({ "version": 1, "contents": { "x.txt": { "digest": md5, "size": 5 } } });
    let manifest = ask(
        &app,
        "CreateArtifactManifest",
        json!({ "artifactID": id, "manifestType": "FULL" }),
    )
    .await;
    let url = manifest["createArtifactManifest"]["artifactManifest"]["file"]["uploadUrl"]
        .as_str()
        .unwrap();
    let put = |url: &str, body: String| {
        Request::put(url[url.find("/wandb/").unwrap()..].to_owned())
            .body(Body::from(body))
            .unwrap()
    };
    assert_eq!(
        app.send(put(url, contents.to_string())).await.status,
        StatusCode::OK
    );
    let early = json!({ "query": "mutation CommitArtifact { x }", "variables": { "artifactID": id } });
    let early = app.post("/graphql", early).await.json();
    assert!(
        early["errors"][0]["message"].as_str().unwrap().contains("x.txt"),
        "{early}"
    );

    let files = json!({ "input": { "artifactFiles": [{ "artifactID": id, "name": "x.txt", "md5": md5 }] } });
    let made = ask(&app, "CreateArtifactFiles", files.clone()).await;
    let url = made["createArtifactFiles"]["files"]["edges"][0]["node"]["uploadUrl"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        app.send(put(&url, "other".to_owned())).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        app.send(put(&url, "hello".to_owned())).await.status,
        StatusCode::OK
    );
    let again = ask(&app, "CreateArtifactFiles", files).await;
    assert_eq!(
        again["createArtifactFiles"]["files"]["edges"][0]["node"]["uploadUrl"],
        Value::Null
    );
    ask(&app, "CommitArtifact", json!({ "artifactID": id })).await;

    let found = ask(
        &app,
        "ArtifactMembershipByName",
        json!({ "project": "p", "name": "a:best" }),
    )
    .await;
    let artifact = &found["project"]["artifactCollectionMembership"]["artifact"];
    assert_eq!(
        (&artifact["versionIndex"], &artifact["size"]),
        (&json!(0), &json!(5))
    );
    let same = ask(&app, "CreateArtifact", input).await;
    assert_eq!(same["createArtifact"]["artifact"]["state"], "COMMITTED");
    assert_eq!(same["createArtifact"]["artifact"]["id"], id);
    let urls = ask(
        &app,
        "GetArtifactMembershipFileUrls",
        json!({ "project": "p", "collection": "a", "alias": "v0" }),
    )
    .await;
    let url =
        urls["project"]["artifactCollection"]["artifactMembership"]["files"]["edges"][0]["node"]["directUrl"]
            .clone();
    let url = url.as_str().unwrap();
    assert_eq!(app.get(&url[url.find("/wandb/").unwrap()..]).await.text, "hello");
}

#[tokio::test]
async fn hyperband_stops_a_trial_by_the_agents_heartbeat() {
    let app = App::new();
    let config = r"
method: random
metric: {name: loss, goal: minimize}
parameters: {lr: {min: 0.0, max: 1.0}}
early_terminate: {type: hyperband, min_iter: 2, eta: 2}
";
    let made = ask(
        &app,
        "UpsertSweep",
        json!({ "config": config, "projectName": "p" }),
    )
    .await;
    let sweep = made["upsertSweep"]["sweep"]["name"].clone();
    let mut runs = Vec::new();
    for worse in [0.0, 5.0] {
        let agent = ask(&app, "CreateAgent", json!({ "sweep": sweep, "host": "h" })).await["createAgent"]["agent"]["id"].clone();
        let beat = |states: String| json!({ "id": agent, "runState": states });
        let told = ask(&app, "Heartbeat", beat("{}".to_owned())).await;
        let commands: Value =
            serde_json::from_str(told["agentHeartbeat"]["commands"].as_str().unwrap()).unwrap();
        assert_eq!(commands[0]["type"], "run");
        let name = commands[0]["run_id"].as_str().unwrap().to_owned();
        assert!(commands[0]["args"]["lr"]["value"].is_number());
        ask(
            &app,
            "UpsertBucket",
            json!({ "name": name, "project": "p", "sweep": sweep }),
        )
        .await;
        let line = |step: i32| format!(r#"{{"_step": {step}, "loss": {}}}"#, worse + 1.0);
        let content = json!([line(0), line(1)]);
        stream(
            &app,
            &name,
            json!({ "files": { "wandb-history.jsonl": { "offset": 0, "content": content } } }),
        )
        .await;
        let told = ask(&app, "Heartbeat", beat(json!({ &name: true }).to_string())).await;
        runs.push((
            name,
            told["agentHeartbeat"]["commands"].as_str().unwrap().to_owned(),
        ));
    }
    assert_eq!(runs[0].1, "[]");
    assert_eq!(
        serde_json::from_str::<Value>(&runs[1].1).unwrap(),
        json!([{ "type": "stop", "run_id": runs[1].0 }])
    );
    let gone = json!({ "query": "mutation Heartbeat { x }", "variables": { "id": "nobody" } });
    assert_eq!(app.post("/graphql", gone).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_unknown_operation_is_refused_in_graphqls_way() {
    let app = App::new();
    let request = Request::post("/graphql")
        .header("content-type", "application/json")
        .header("x-wandb-username", "")
        .body(Body::from(json!({ "query": "query Nothing { x }" }).to_string()));
    let reply = app.send(request.unwrap()).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.json()["data"], Value::Null);
    assert!(
        reply.json()["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("Nothing")
    );
}
