//! W&B's versions by hand: made at the same time, with an end, held by aliases and portfolios; and long histories.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::future::join_all;
use serde_json::{Value, json};

use tidemill_api::ControlPlane as _;

use crate::fake::App;

/// Of `hello`.
const MD5: &str = "XUFAKrxLKna5cZ2REBfFkg==";

async fn post(app: &App, name: &str, variables: Value) -> Value {
    let query = format!("query {name} {{ x }}");
    let reply = app
        .post("/graphql", json!({ "query": query, "variables": variables }))
        .await;
    reply.json()
}

async fn ask(app: &App, name: &str, variables: Value) -> Value {
    let answer = post(app, name, variables).await;
    assert!(answer.get("errors").is_none(), "{answer}");
    answer["data"].clone()
}

async fn put(app: &App, url: &Value, body: String) {
    let url = url.as_str().unwrap();
    let request = Request::put(url[url.find("/wandb/").unwrap()..].to_owned());
    let reply = app.send(request.body(Body::from(body)).unwrap()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
}

async fn create(app: &App, digest: &str, ttl: Option<i64>) -> Value {
    let input = json!({ "input": {
        "projectName": "p", "runName": "r", "artifactTypeName": "t", "artifactCollectionName": "a", "digest": digest, "clientID": digest,
        "aliases": [], "ttlDurationSeconds": ttl,
    }});
    ask(app, "CreateArtifact", input).await["createArtifact"]["artifact"].clone()
}

/// Sends the manifest of a version to be.
async fn fill(app: &App, made: &Value, kind: &str, files: &[&str]) {
    assert_eq!(made["state"], "PENDING");
    let base = &made["artifactSequence"]["latestArtifact"]["id"];
    let named = json!({ "artifactID": made["id"], "manifestType": kind, "baseArtifactID": base });
    let manifest = ask(app, "CreateArtifactManifest", named).await;
    let contents: serde_json::Map<String, Value> = files
        .iter()
        .map(|file| ((*file).to_owned(), json!({ "digest": MD5, "size": 5 })))
        .collect();
    let url = &manifest["createArtifactManifest"]["artifactManifest"]["file"]["uploadUrl"];
    put(
        app,
        url,
        json!({ "version": 1, "contents": contents }).to_string(),
    )
    .await;
    let file = json!([{ "artifactID": made["id"], "name": files[0], "md5": MD5 }]);
    let sent = ask(
        app,
        "CreateArtifactFiles",
        json!({ "input": { "artifactFiles": file } }),
    )
    .await;
    let url = &sent["createArtifactFiles"]["files"]["edges"][0]["node"]["uploadUrl"];
    if !url.is_null() {
        put(app, url, "hello".to_owned()).await;
    }
}

async fn commit(app: &App, made: &Value) -> Value {
    ask(app, "CommitArtifact", json!({ "artifactID": made["id"] })).await;
    // As the client does, which goes on with the id that it was told first.
    ask(app, "ArtifactByID", json!({ "id": made["id"] })).await["artifact"].clone()
}

async fn log(app: &App, digest: &str, kind: &str, files: &[&str]) -> Value {
    let made = create(app, digest, None).await;
    fill(app, &made, kind, files).await;
    commit(app, &made).await
}

async fn files(app: &App, alias: &str) -> Vec<String> {
    let asked = json!({ "project": "p", "collection": "a", "alias": alias });
    let found = ask(app, "GetArtifactMembershipFileUrls", asked).await;
    let edges = &found["project"]["artifactCollection"]["artifactMembership"]["files"]["edges"];
    let edges = edges.as_array().unwrap();
    edges
        .iter()
        .map(|edge| edge["node"]["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn started() -> App {
    let app = App::new();
    ask(&app, "UpsertBucket", json!({ "name": "r", "project": "p" })).await;
    app
}

#[tokio::test]
async fn versions_that_are_added_to_at_the_same_time_keep_each_others_files() {
    let app = started().await;
    log(&app, "base", "FULL", &["a"]).await;
    let mut begun = Vec::new();
    for name in ["b", "c", "d", "e", "f"] {
        let made = create(&app, name, None).await;
        fill(&app, &made, "INCREMENTAL", &[name]).await;
        begun.push(made);
    }
    let committed = join_all(begun.iter().map(|made| commit(&app, made))).await;
    assert!(committed.iter().all(|one| one["state"] == "COMMITTED"));
    assert_eq!(files(&app, "v5").await, ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(files(&app, "latest").await.len(), 6);
}

#[tokio::test]
async fn an_older_version_that_is_named_is_added_to() {
    let app = started().await;
    let first = log(&app, "1", "FULL", &["a"]).await;
    log(&app, "2", "FULL", &["b"]).await;
    app.fake
        .advance("2031-01-01T00:00:00Z".parse().unwrap())
        .await
        .unwrap();
    let mut made = create(&app, "3", None).await;
    made["artifactSequence"]["latestArtifact"]["id"] = first["id"].clone();
    fill(&app, &made, "INCREMENTAL", &["c"]).await;
    commit(&app, &made).await;
    assert_eq!(files(&app, "v2").await, ["a", "c"]);
}

#[tokio::test]
async fn a_version_is_known_by_all_its_files_and_not_by_those_that_were_added() {
    let app = started().await;
    let first = log(&app, "a", "FULL", &["a"]).await;
    let second = log(&app, "b", "INCREMENTAL", &["b"]).await;
    assert_eq!(files(&app, "v1").await, ["a", "b"]);
    // The same file once more: nothing is new, and the newest version has it.
    let again = log(&app, "a", "INCREMENTAL", &["a"]).await;
    assert_eq!((&again["id"], &again["versionIndex"]), (&second["id"], &json!(1)));
    // By itself it is the first version.
    let alone = log(&app, "a", "FULL", &["a"]).await;
    assert_eq!((&alone["id"], &alone["versionIndex"]), (&first["id"], &json!(0)));
    assert_eq!(files(&app, "v0").await, ["a"]);
    let next = log(&app, "c", "FULL", &["c"]).await;
    assert_eq!(next["versionIndex"], 2);
}

#[tokio::test]
async fn a_ttl_said_before_logging_holds_but_not_against_an_alias() {
    let app = started().await;
    let made = create(&app, "d", Some(60)).await;
    fill(&app, &made, "FULL", &["x"]).await;
    let whole = commit(&app, &made).await;
    assert_eq!(whole["ttlDurationSeconds"], 60);
    let alias =
        json!({ "artifactID": made["id"], "aliases": [{ "alias": "prod", "artifactCollectionName": "a" }] });
    ask(&app, "AddAliases", alias.clone()).await;
    app.fake
        .advance("2031-01-01T00:00:00Z".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(app.fake.tracking().wandb_end_artifacts().await.unwrap(), 0);
    ask(&app, "DeleteAliases", alias).await;
    assert_eq!(app.fake.tracking().wandb_end_artifacts().await.unwrap(), 1);
    let gone = post(&app, "ArtifactByID", json!({ "id": made["id"] })).await;
    assert!(gone.get("errors").is_some(), "{gone}");
}

#[tokio::test]
async fn of_a_long_history_only_what_is_asked_for_is_read() {
    let app = started().await;
    let lines: Vec<String> = (0..50)
        .map(|step| match step % 2 {
            0 => format!(r#"{{"_step": {step}, "loss": 1, "x": {step}}}"#),
            _ => format!(r#"{{"_step": {step}, "loss": 1}}"#),
        })
        .collect();
    let body = json!({ "files": { "wandb-history.jsonl": { "offset": 0, "content": lines } } });
    app.post("/files/tidemill/p/r/file_stream", body).await;
    let steps = |rows: &Value| -> Vec<i64> {
        let read = |row: &Value| match row.as_str() {
            Some(text) => serde_json::from_str::<Value>(text).unwrap()["_step"]
                .as_i64()
                .unwrap(),
            None => row["_step"].as_i64().unwrap(),
        };
        rows.as_array().unwrap().iter().map(read).collect()
    };
    let asked = json!({ "project": "p", "run": "r", "samples": 5 });
    let found = ask(&app, "RunFullHistory", asked).await;
    assert_eq!(steps(&found["project"]["run"]["history"]), [0, 12, 24, 36, 49]);
    let asked = json!({ "project": "p", "run": "r", "minStep": 10, "maxStep": 40, "pageSize": 4 });
    let found = ask(&app, "HistoryPage", asked).await;
    let rows = &found["project"]["run"]["history"];
    assert_eq!(steps(rows), [10, 11, 12, 13]);
    assert!(rows[0].as_str().unwrap().contains(r#""x":10"#) && !rows[1].as_str().unwrap().contains("\"x\""));
    let spec =
        json!({ "keys": ["_step", "x", "loss"], "minStep": 4, "maxStep": 20, "samples": 3 }).to_string();
    let asked = json!({ "project": "p", "run": "r", "spec": spec });
    let found = ask(&app, "SampledHistoryPage", asked).await;
    let rows = &found["project"]["run"]["sampledHistory"][0];
    assert_eq!(steps(rows), [4, 12, 20]);
    assert_eq!(rows[1], json!({ "_step": 12, "x": 12.0, "loss": 1.0 }));
    let spec = json!({ "keys": ["nothing"] }).to_string();
    let found = ask(
        &app,
        "SampledHistoryPage",
        json!({ "project": "p", "run": "r", "spec": spec }),
    )
    .await;
    assert_eq!(found["project"]["run"]["sampledHistory"], json!([[]]));
}

#[tokio::test]
async fn a_version_that_a_portfolio_holds_is_deleted_only_with_its_aliases() {
    let app = started().await;
    let mut logged = Vec::new();
    for digest in ["1", "2"] {
        let made = log(&app, digest, "FULL", &[digest]).await;
        let link = json!({ "input": {
            "artifactID": made["id"], "projectName": "registry", "artifactPortfolioName": "best",
            "aliases": if digest == "2" { json!([{ "alias": "prod", "artifactCollectionName": "best" }]) } else { json!([]) },
        }});
        ask(&app, "LinkArtifact", link).await;
        logged.push(made);
    }
    let delete = |with: bool| json!({ "input": { "artifactID": logged[1]["id"], "deleteAliases": with } });
    let refused = post(&app, "DeleteArtifact", delete(false)).await;
    let said = refused["errors"][0]["message"].as_str().unwrap();
    assert!(
        said.contains("best:prod") && said.contains("delete_aliases"),
        "{said}"
    );
    ask(&app, "DeleteArtifact", delete(true)).await;
    for name in ["best:latest", "best:v0"] {
        let asked = json!({ "project": "registry", "name": name });
        let found = ask(&app, "ArtifactMembershipByName", asked).await;
        let artifact = &found["project"]["artifactCollectionMembership"]["artifact"];
        assert_eq!(artifact["id"], logged[0]["id"], "{name}: {found}");
    }
}
