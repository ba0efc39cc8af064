//! What users may do where it is not their route that says so: pages of searches, tags that guard, W&B's client, names that come again.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::fake::{App, Reply};
use crate::users::{As, base64, house, user};

const API: &str = "/api/2.0/mlflow";

pub async fn promoted(app: &App, name: &str, role: &str) {
    let body = json!({ "username": name, "role": role });
    let reply = user(app, "admin")
        .send("PATCH", "/api/3.0/mlflow/users/update-role", Some(body))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

pub fn done(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

pub async fn experiment(app: &App, owner: &str, name: &str) -> String {
    let made = user(app, owner)
        .post(&format!("{API}/experiments/create"), json!({ "name": name }))
        .await;
    done(&made)["experiment_id"].as_str().unwrap().to_owned()
}

pub async fn model(app: &App, owner: &str, name: &str) {
    let made = user(app, owner)
        .post(
            &format!("{API}/registered-models/create"),
            json!({ "name": name }),
        )
        .await;
    done(&made);
}

pub async fn grant(app: &App, who: &str, kind: &str, id: &str, permission: &str) {
    let body = json!({ "username": who, "resource_type": kind, "resource_id": id, "permission": permission });
    let reply = user(app, "admin")
        .post("/api/3.0/mlflow/users/permissions/grant", body)
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

fn names(answer: &Value, list: &str) -> Vec<String> {
    let items = answer[list].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn models_page(sender: &As<'_>, token: Option<&Value>) -> Value {
    let token = token.map_or(String::new(), |token| {
        format!("&page_token={}", token.as_str().unwrap())
    });
    let path = format!("{API}/registered-models/search?max_results=2{token}");
    done(&sender.get(&path).await)
}

#[tokio::test]
async fn pages_of_a_search_are_full_of_what_the_sender_may_look_at_and_hold_nothing_else() {
    for everybody in ["READ", "NO_PERMISSIONS"] {
        let app = house(everybody, &["ada"]).await;
        let ada = user(&app, "ada");
        for number in 1..=6 {
            let name = format!("m{number}");
            model(&app, "admin", &name).await;
            let id = experiment(&app, "admin", &format!("e{number}")).await;
            let permission = if number % 2 == 0 { "READ" } else { "DENY" };
            grant(&app, "ada", "registered_model", &name, permission).await;
            grant(&app, "ada", "experiment", &id, permission).await;
            let run = json!({ "experiment_id": id, "run_name": format!("r{number}") });
            done(&user(&app, "admin").post(&format!("{API}/runs/create"), run).await);
            let version = json!({ "name": name, "source": "mlflow-artifacts:/x" });
            done(
                &user(&app, "admin")
                    .post(&format!("{API}/model-versions/create"), version)
                    .await,
            );
        }
        let first = models_page(&ada, None).await;
        assert_eq!(names(&first, "registered_models"), ["m2", "m4"], "{everybody}");
        let second = models_page(&ada, Some(&first["next_page_token"])).await;
        assert_eq!(names(&second, "registered_models"), ["m6"]);
        assert!(second.get("next_page_token").is_none(), "{second}");
        let mut versions = names(
            &done(&ada.get(&format!("{API}/model-versions/search")).await),
            "model_versions",
        );
        versions.sort();
        assert_eq!(versions, ["m2", "m4", "m6"]);

        let asked = json!({ "max_results": 3, "filter": "name LIKE 'e%'", "order_by": ["name"] });
        let found = done(&ada.post(&format!("{API}/experiments/search"), asked).await);
        assert_eq!(names(&found, "experiments"), ["e2", "e4", "e6"]);
        assert!(found.get("next_page_token").is_none(), "{found}");

        let every: Vec<String> = (0..8).map(|id| id.to_string()).collect();
        for ids in [json!(["ALL"]), json!(every)] {
            let asked = json!({ "experiment_ids": ids });
            let found = done(&ada.post(&format!("{API}/runs/search"), asked).await);
            let mut runs: Vec<&str> = found["runs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|run| run["info"]["run_name"].as_str().unwrap())
                .collect();
            runs.sort_unstable();
            assert_eq!(runs, ["r2", "r4", "r6"], "{everybody}");
        }
        let query =
            r#"query Q { mlflowSearchRuns(input: {experimentIds: ["ALL"]}) { runs { info { runName } } } }"#;
        let found = done(&ada.post("/graphql", json!({ "query": query })).await);
        assert_eq!(
            found["data"]["mlflowSearchRuns"]["runs"]
                .as_array()
                .unwrap()
                .len(),
            3
        );
        let query = "query Q { mlflowSearchModelVersions(input: {}) { modelVersions { name } } }";
        let found = done(&ada.post("/graphql", json!({ "query": query })).await);
        let found = &found["data"]["mlflowSearchModelVersions"];
        assert_eq!(names(found, "modelVersions").len(), 3);
    }
}

#[tokio::test]
async fn an_import_is_for_managers_and_deletion_for_good_for_administrators() {
    let app = house("READ", &["ed", "mo"]).await;
    promoted(&app, "ed", "editor").await;
    promoted(&app, "mo", "manager").await;
    let (ed, mo, admin) = (user(&app, "ed"), user(&app, "mo"), user(&app, "admin"));
    let marks = json!({ "source": "s", "kind": "run", "ids": [] });
    for part in ["known", "marks", "experiments", "runs", "models"] {
        let path = format!("/api/v1/tracking/import/{part}");
        assert_eq!(ed.post(&path, marks.clone()).await.status, 403, "{part}");
        assert_ne!(mo.post(&path, marks.clone()).await.status, 403, "{part}");
    }
    let gc = json!({ "dry_run": true });
    assert_eq!(mo.post("/api/v1/tracking/gc", gc.clone()).await.status, 403);
    assert_eq!(admin.post("/api/v1/tracking/gc", gc).await.status, 200);
    for path in ["/api/v1/tracking/experiments/0", "/api/v1/tracking/runs/x"] {
        assert_eq!(mo.send("DELETE", path, None).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn what_asks_for_approval_is_lifted_by_those_who_manage_and_nobody_approves_their_own_request() {
    let app = house("READ", &["ed", "mo"]).await;
    let admin = user(&app, "admin");
    model(&app, "admin", "m").await;
    let version = json!({ "name": "m", "source": "mlflow-artifacts:/x" });
    done(&admin.post(&format!("{API}/model-versions/create"), version).await);
    grant(&app, "ed", "registered_model", "m", "EDIT").await;
    grant(&app, "mo", "registered_model", "m", "MANAGE").await;
    let (ed, mo) = (user(&app, "ed"), user(&app, "mo"));
    let tag = |value: &str| json!({ "name": "m", "key": "tidemill.approval", "value": value });
    let (set, unset) = (
        format!("{API}/registered-models/set-tag"),
        format!("{API}/registered-models/delete-tag"),
    );
    done(&mo.post(&set, tag("required")).await);
    assert_eq!(ed.post(&set, tag("no")).await.status, 403);
    let key = json!({ "name": "m", "key": "tidemill.approval" });
    assert_eq!(ed.send("DELETE", &unset, Some(key)).await.status, 403);
    done(
        &ed.post(&set, json!({ "name": "m", "key": "team", "value": "a" }))
            .await,
    );

    let alias = json!({ "name": "m", "alias": "live", "version": "1" });
    let moved = ed.post(&format!("{API}/registered-models/alias"), alias).await;
    assert_eq!(moved.status, 403);
    let requests = "/api/v1/models/m/versions/1/requests";
    let ask = || json!({ "to": { "alias": "live" }, "why": "better" });
    let of_ed = ed.post(requests, ask()).await.json()["id"].clone();
    let of_mo = mo.post(requests, ask()).await.json()["id"].clone();
    let approve = |id: &Value| format!("{requests}/{id}/approve");
    assert_eq!(
        ed.post(&approve(&of_ed), json!({ "comment": "" })).await.status,
        403
    );
    let own = mo.post(&approve(&of_mo), json!({ "comment": "" })).await;
    assert_eq!(own.status, 403, "{}", own.text);
    assert!(own.text.contains("somebody else"), "{}", own.text);
    let granted = mo.post(&approve(&of_ed), json!({ "comment": "seen" })).await;
    assert_eq!(granted.status, 200, "{}", granted.text);
    assert_eq!(granted.json()["requested_by"], "ed");
}

/// W&B's client sends its key as the password of a user whose name is always the same.
fn with_key<'a>(app: &'a App, key: &str) -> As<'a> {
    As {
        app,
        authorization: format!("Basic {}", base64(&format!("api:{key}"))),
    }
}

async fn token_of(app: &App, name: &str) -> String {
    let made = user(app, name)
        .post("/api/v1/tokens", json!({ "name": "wandb" }))
        .await;
    made.json()["token"].as_str().unwrap().to_owned()
}

/// An operation of W&B's client: its data, or the errors.
async fn operation(sender: &As<'_>, name: &str, variables: Value) -> Result<Value, Value> {
    let body = json!({ "query": format!("mutation {name} {{ x }}"), "variables": variables });
    let request = Request::post("/graphql")
        .header("authorization", &sender.authorization)
        .header("content-type", "application/json")
        .header("x-wandb-username", "")
        .body(Body::from(body.to_string()))
        .unwrap();
    let answer = done(&sender.app.send(request).await);
    match answer.get("errors") {
        Some(errors) => Err(errors.clone()),
        None => Ok(answer["data"].clone()),
    }
}

#[tokio::test]
async fn wandbs_client_tracks_by_the_token_of_an_editor_and_a_viewer_is_refused() {
    let app = house("READ", &["vi", "ed"]).await;
    promoted(&app, "ed", "editor").await;
    let vi = with_key(&app, &token_of(&app, "vi").await);
    let ed = with_key(&app, &token_of(&app, "ed").await);
    let run = || json!({ "name": "r", "project": "p", "entity": null });
    let sweep = || json!({ "config": "method: random\nparameters: {lr: {min: 0.0, max: 1.0}}\n", "projectName": "p" });
    let line = || json!({ "files": { "wandb-history.jsonl": { "offset": 0, "content": ["{\"_step\": 0, \"x\": 1}"] } } });

    for (name, variables) in [
        ("UpsertBucket", run()),
        ("UpsertSweep", sweep()),
        ("CreateAgent", json!({})),
    ] {
        let errors = operation(&vi, name, variables).await.unwrap_err();
        assert!(errors.to_string().contains("may not change"), "{name}: {errors}");
    }
    let of = |entity: &str| format!("/files/{entity}/p/r/file_stream");
    assert_eq!(vi.post(&of("vi"), line()).await.status, 403);
    let ours = json!({ "project": "p", "config": { "method": "random", "parameters": { "lr": { "min": 0.0, "max": 1.0 } } } });
    assert_eq!(vi.post("/api/v1/sweeps", ours.clone()).await.status, 403);

    let made = operation(&ed, "UpsertBucket", run()).await.unwrap();
    let project = &made["upsertBucket"]["bucket"]["project"];
    let stream = &of(project["entityName"].as_str().unwrap());
    assert_eq!(vi.post(stream, line()).await.status, 403);
    assert_eq!(ed.post(stream, line()).await.status, 200);
    let made = operation(&ed, "UpsertSweep", sweep()).await.unwrap();
    let id = made["upsertSweep"]["sweep"]["name"].as_str().unwrap().to_owned();
    assert_eq!(ed.post("/api/v1/sweeps", ours).await.status, 201);
    let next = format!("/api/v1/sweeps/{id}/next");
    assert_eq!(vi.post(&next, json!({})).await.status, 403);
    assert_eq!(
        vi.send(
            "PATCH",
            &format!("/api/v1/sweeps/{id}"),
            Some(json!({ "state": "STOPPED" }))
        )
        .await
        .status,
        403
    );
    assert_eq!(ed.post(&next, json!({})).await.status, 200);
    assert_eq!(
        vi.get("/api/v1/sweeps").await.status,
        200,
        "everybody may look at what is there"
    );

    grant(&app, "ed", "experiment", "0", "READ").await;
    assert_eq!(
        ed.post(stream, line()).await.status,
        403,
        "one experiment that is kept back closes all"
    );
}

#[tokio::test]
async fn no_workspace_in_a_header_opens_the_models_and_events_of_the_loop() {
    let app = house("NO_PERMISSIONS", &["ada"]).await;
    let admin = user(&app, "admin");
    let workspaces = "/api/3.0/mlflow/workspaces";
    assert_eq!(
        admin.post(workspaces, json!({ "name": "team-a" })).await.status,
        201
    );
    let member = json!({ "username": "ada", "permission": "MANAGE" });
    done(
        &admin
            .post(&format!("{workspaces}/team-a/permissions"), member)
            .await,
    );
    let ada = user(&app, "ada");
    for path in [
        "/api/v1/models/secret",
        "/api/v1/models/secret/versions",
        "/api/v1/models",
        "/api/v1/events",
        "/api/v1/status",
    ] {
        assert_eq!(
            ada.send_in("GET", path, None, "team-a").await.status,
            403,
            "{path}"
        );
    }
    assert_eq!(
        ada.send_in("GET", "/api/v1/sweeps", None, "team-a").await.status,
        200
    );
    assert_eq!(ada.get("/api/v1/sweeps").await.status, 403);
}

#[tokio::test]
async fn grants_go_with_a_models_new_name_and_end_with_a_model_or_an_experiment() {
    let app = house("NO_PERMISSIONS", &["ada"]).await;
    let (ada, admin) = (user(&app, "ada"), user(&app, "admin"));
    model(&app, "admin", "m").await;
    grant(&app, "ada", "registered_model", "m", "READ").await;
    let get = |name: &str| format!("{API}/registered-models/get?name={name}");
    done(&ada.get(&get("m")).await);
    let rename = |from: &str, to: &str| json!({ "name": from, "new_name": to });
    let path = format!("{API}/registered-models/rename");
    done(&admin.post(&path, rename("m", "n")).await);
    done(&ada.get(&get("n")).await);
    assert_eq!(ada.get(&get("m")).await.status, 403);
    done(&admin.post(&path, rename("n", "n")).await);
    done(&ada.get(&get("n")).await);
    let gone = json!({ "name": "n" });
    done(
        &admin
            .send("DELETE", &format!("{API}/registered-models/delete"), Some(gone))
            .await,
    );
    model(&app, "admin", "n").await;
    assert_eq!(ada.get(&get("n")).await.status, 403, "another of the name");

    let id = experiment(&app, "admin", "e").await;
    grant(&app, "ada", "experiment", &id, "READ").await;
    let path = format!("/api/v1/tracking/experiments/{id}");
    assert!(admin.send("DELETE", &path, None).await.status.is_success());
    let listed = admin.get(&format!("{API}/users/get?username=ada")).await;
    assert_eq!(done(&listed)["user"]["experiment_permissions"], json!([]));
}

#[tokio::test]
async fn after_ten_wrong_passwords_a_name_waits_and_tokens_do_not() {
    let app = house("READ", &["ada", "bob"]).await;
    let token = token_of(&app, "ada").await;
    let wrong = As {
        app: &app,
        authorization: format!("Basic {}", base64("ada:not the password")),
    };
    for _ in 0..10 {
        assert_eq!(wrong.get("/api/v1/status").await.status, 401);
    }
    let refused = wrong.get("/api/2.0/mlflow/users/current").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error_code"], "REQUEST_LIMIT_EXCEEDED");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(
        user(&app, "ada").get("/api/v1/status").await.status,
        429,
        "a guess that is right is not told from the others"
    );
    assert_eq!(user(&app, "bob").get("/api/v1/status").await.status, 200);
    let by_token = As {
        app: &app,
        authorization: format!("Bearer {token}"),
    };
    assert_eq!(by_token.get("/api/v1/status").await.status, 200);
}

#[tokio::test]
async fn points_of_a_logged_model_are_logged_by_those_who_may_change_the_model() {
    let app = house("NO_PERMISSIONS", &["ada", "bob"]).await;
    let (ada, bob) = (user(&app, "ada"), user(&app, "bob"));
    let (hers, his) = (
        experiment(&app, "ada", "a").await,
        experiment(&app, "bob", "b").await,
    );
    let model = json!({ "experiment_id": hers, "name": "m" });
    let model = done(&ada.post(&format!("{API}/logged-models"), model).await);
    let model = &model["model"]["info"]["model_id"];
    let run = done(
        &bob.post(&format!("{API}/runs/create"), json!({ "experiment_id": his }))
            .await,
    );
    let run = &run["run"]["info"]["run_id"];
    let point = json!({ "key": "auc", "value": 1, "timestamp": 1, "model_id": model });
    let plain = json!({ "key": "auc", "value": 1, "timestamp": 1 });
    let one = |point: &Value| {
        let mut body = point.clone();
        body["run_id"] = run.clone();
        body
    };
    let many = |points: Value| json!({ "run_id": run, "metrics": points });
    for (path, body, status) in [
        ("log-metric", one(&point), 403),
        ("log-metric", one(&plain), 200),
        ("log-batch", many(json!([plain, point])), 403),
        ("log-batch", many(json!([plain])), 200),
        (
            "log-batch",
            many(json!([{ "key": "auc", "value": 1, "timestamp": 1, "modelId": model }])),
            403,
        ),
        ("log-batch", json!({ "metrics": [plain] }), 400),
    ] {
        let answer = bob.post(&format!("{API}/runs/{path}"), body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
    let id = model.as_str().unwrap();
    let kept = done(&ada.get(&format!("{API}/logged-models/{id}")).await);
    assert!(kept["model"]["data"].get("metrics").is_none(), "{kept}");
    grant(&app, "bob", "experiment", &hers, "EDIT").await;
    done(
        &bob.post(&format!("{API}/runs/log-batch"), many(json!([point])))
            .await,
    );
    // One that is not there is no reason to keep nothing of it.
    let nobodys = json!({ "key": "auc", "value": 1, "timestamp": 1, "model_id": "m-0" });
    let unknown = bob.post(&format!("{API}/runs/log-metric"), one(&nobodys)).await;
    assert_eq!(unknown.status, 404, "{}", unknown.text);
}
