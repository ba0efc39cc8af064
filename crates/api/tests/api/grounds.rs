//! Whose artifacts are: every spelling of a place leads to the rights on what lies there.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tidemill_api::ControlPlane as _;
use tidemill_control::tracking::{Destination, TrackingOptions};
use tidemill_store::tracking::runs::{RunHead, RunStatus};
use tidemill_store::tracking::{Lifecycle, experiments, runs};

use crate::fake::{App, bucket};
use crate::rights::{done, experiment, grant, model};
use crate::users::{add_users, house, user};

const API: &str = "/api/2.0/mlflow";
const PROXY: &str = "/api/2.0/mlflow-artifacts";

/// The status that an experiment at a location is answered with, and its number.
async fn at(app: &App, who: &str, name: &str, location: &str) -> (u16, String) {
    let body = json!({ "name": name, "artifact_location": location });
    let reply = user(app, who)
        .post(&format!("{API}/experiments/create"), body)
        .await;
    // A refusal is no JSON.
    let answer: Value = serde_json::from_str(&reply.text).unwrap_or_default();
    let id = answer["experiment_id"].as_str().unwrap_or_default().to_owned();
    (reply.status.as_u16(), id)
}

async fn run(app: &App, who: &str, experiment: &str) -> String {
    let body = json!({ "experiment_id": experiment });
    let made = done(&user(app, who).post(&format!("{API}/runs/create"), body).await);
    made["run"]["info"]["run_id"].as_str().unwrap().to_owned()
}

async fn version(app: &App, who: &str, model: &str, source: &str) -> u16 {
    let body = json!({ "name": model, "source": source });
    let reply = user(app, who)
        .post(&format!("{API}/model-versions/create"), body)
        .await;
    reply.status.as_u16()
}

fn percent(text: &str) -> String {
    let coded: Vec<String> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    coded.concat()
}

#[tokio::test]
async fn a_source_is_authorised_by_where_it_is_read_however_it_is_spelled() {
    let app = house("NO_PERMISSIONS", &["ada", "bob"]).await;
    let hers = experiment(&app, "ada", "hers").await;
    let its = run(&app, "ada", &hers).await;
    let body = json!({ "experiment_id": hers, "name": "m" });
    let logged = done(
        &user(&app, "ada")
            .post(&format!("{API}/logged-models"), body)
            .await,
    );
    let logged = logged["model"]["info"]["model_id"].as_str().unwrap().to_owned();
    for (who, name) in [
        ("ada", "ada"),
        ("ada", "secret"),
        ("ada", "m-name"),
        ("bob", "bob"),
    ] {
        model(&app, who, name).await;
    }
    let files = format!("mlflow-artifacts:/{hers}/{its}/artifacts/model");
    for name in ["secret", "m-name"] {
        assert_eq!(version(&app, "ada", name, &files).await, 200);
    }
    let alias = json!({ "name": "secret", "alias": "champ", "version": "1" });
    done(
        &user(&app, "ada")
            .post(&format!("{API}/registered-models/alias"), alias)
            .await,
    );
    let (status, hr) = at(&app, "ada", "hr", "s3://shared/root/hr-data").await;
    assert_eq!(status, 200);
    let sources = [
        format!("runs:/{its}/model"),
        format!("runs://x/{its}/model"),
        format!("RUNS:/{its}/model"),
        format!("runs:///{its}"),
        files,
        format!("mlflow-artifacts:/{hers}"),
        format!("mlflow-artifacts://host:80/{hers}/{its}"),
        format!("MLFLOW-ARTIFACTS:/{hers}/{its}/artifacts"),
        format!("Mlflow-Artifacts://x/{hers}/{its}/artifacts"),
        format!("https://h{PROXY}/artifacts/{hers}/{its}/artifacts"),
        format!("HTTP://h/prefix{PROXY}/artifacts/{}/{its}", percent(&hers)),
        format!("mlflow-artifacts:/{}/{its}", percent(&hers)),
        format!("mlflow-artifacts:/{}/{its}", percent(&percent(&hers))),
        format!("mlflow-artifacts://///{hers}"),
        "models:/secret@champ".to_owned(),
        "models:/secret/1".to_owned(),
        "models:/secret/latest".to_owned(),
        "MODELS://x/secret/1".to_owned(),
        "models:/m-name/1".to_owned(),
        format!("models:/{logged}"),
        format!("models://x/{logged}"),
        format!("MODELS:/{logged}"),
        "s3://shared/root/hr-data".to_owned(),
        "s3://shared/root/hr-data/run/artifacts".to_owned(),
        "s3a://shared/root/hr-data/run".to_owned(),
        "S3://shared//root/hr-data/run".to_owned(),
    ];
    for source in &sources {
        assert_eq!(version(&app, "bob", "bob", source).await, 403, "bob {source}");
        assert_eq!(version(&app, "ada", "ada", source).await, 200, "ada {source}");
    }
    for source in [
        // Above what is hers, or nobody's.
        "s3://shared/root",
        "s3://shared/root/hr",
        "s3://shared/root/hr-data-2/run",
        "s3://shared/root/77/run",
        "mlflow-artifacts:/77/run",
        "mlflow-artifacts:/other",
        // It will be somebody's.
        "runs:/0123456789abcdef0123456789abcdef/model",
    ] {
        assert_eq!(version(&app, "bob", "bob", source).await, 403, "bob {source}");
        assert_eq!(version(&app, "ada", "ada", source).await, 403, "ada {source}");
        assert_eq!(version(&app, "admin", "bob", source).await, 200, "admin {source}");
    }
    assert_eq!(version(&app, "bob", "bob", "mlflow-artifacts:/").await, 403);
    for source in [
        format!("mlflow-artifacts:/{hers}#x"),
        format!("runs:/{its}#"),
        "s3://shared/root/hr-data#".to_owned(),
        format!("mlflow-artifacts:/x/../{hers}"),
    ] {
        assert_eq!(version(&app, "bob", "bob", &source).await, 400, "{source}");
    }
    // Clients reach these by themselves.
    for source in ["s3://elsewhere/root/1", "gs://b/x", "https://h/model"] {
        assert_eq!(version(&app, "bob", "bob", source).await, 200, "{source}");
    }
    // Whoever may look there may.
    grant(&app, "bob", "experiment", &hr, "READ").await;
    assert_eq!(
        version(&app, "bob", "bob", "s3://shared/root/hr-data/run").await,
        200
    );
}

#[tokio::test]
async fn a_source_in_a_bucket_belongs_to_the_workspace_and_the_closest_root_of_what_lies_there() {
    let options = TrackingOptions {
        buckets: vec![bucket("s3://b"), bucket("s3://b/x")],
        default_artifact_root: "s3://b/x".to_owned(),
        ..TrackingOptions::default()
    };
    let app = App::with_users_and("READ", options).await;
    add_users(&app, &["bob"]).await;
    let admin = user(&app, "admin");
    let team = json!({ "name": "team" });
    let made = admin.post("/api/3.0/mlflow/workspaces", team).await;
    assert!(made.status.is_success(), "{}", made.text);
    let path = format!("{API}/experiments/create");
    let of_team = json!({ "name": "hr", "artifact_location": "s3://b/root/hr-data" });
    done(&admin.send_in("POST", &path, Some(of_team), "team").await);
    let (_, closed) = at(&app, "admin", "closed", "s3://b/x/closed").await;
    grant(&app, "bob", "experiment", &closed, "DENY").await;
    let open = experiment(&app, "admin", "open").await;
    model(&app, "bob", "bob").await;
    for (source, status) in [
        ("s3://b/root/hr-data/run/artifacts".to_owned(), 403),
        ("s3://b/root".to_owned(), 403),
        ("s3://b/x/closed/run".to_owned(), 403),
        ("s3://b/x".to_owned(), 403),
        (format!("s3://b/x/{open}/run"), 200),
    ] {
        assert_eq!(version(&app, "bob", "bob", &source).await, status, "{source}");
    }
}

#[tokio::test]
async fn a_path_of_the_proxy_is_authorised_as_it_is_read() {
    let app = house("NO_PERMISSIONS", &["ada", "bob"]).await;
    let hers = experiment(&app, "ada", "hers").await;
    let its = run(&app, "ada", &hers).await;
    let once = percent(&hers);
    let twice = once.replace('%', "%25");
    let thrice = twice.replace('%', "%25");
    let rest = format!("{its}/artifacts");
    let (ada, bob) = (user(&app, "ada"), user(&app, "bob"));
    for (who, first, status) in [
        ("ada", "own", 200),
        ("bob", &hers, 403),
        ("bob", &once, 403),
        ("bob", &twice, 403),
        ("bob", &thrice, 403),
        ("bob", &format!("./{hers}"), 403),
        ("bob", &format!("%2E/{hers}"), 403),
        ("bob", &format!("%252E%252F{twice}"), 403),
        ("bob", "77", 403),
        ("bob", "other", 403),
        ("ada", "other", 403),
        ("ada", "workspaces", 400),
    ] {
        let first = if first == "own" { hers.as_str() } else { first };
        let sender = user(&app, who);
        for (method, path, body) in [
            ("PUT", format!("artifacts/{first}/{rest}/file"), None),
            ("GET", format!("artifacts/{first}/{rest}/file"), None),
            ("GET", format!("presigned/{first}/{rest}/file"), None),
            ("GET", format!("artifacts?path={first}/{rest}"), None),
            (
                "POST",
                format!("mpu/create/{first}/{rest}"),
                Some(json!({ "path": "big", "num_parts": 1 })),
            ),
            ("DELETE", format!("artifacts/{first}/{rest}/file"), None),
        ] {
            let reply = sender.send(method, &format!("{PROXY}/{path}"), body).await;
            assert_eq!(reply.status, status, "{who} {method} {path}: {}", reply.text);
        }
    }
    // What is above everything is listed for those who may look at everything, and written by nobody.
    for path in [
        "artifacts",
        "artifacts?path=",
        "artifacts?path=.",
        "artifacts?path=%2E%2F",
    ] {
        assert_eq!(bob.get(&format!("{PROXY}/{path}")).await.status, 403, "{path}");
    }
    let parts = json!({ "path": "big", "num_parts": 1 });
    let above = ada.post(&format!("{PROXY}/mpu/create/%2E"), parts).await;
    assert_eq!(above.status, 403, "{}", above.text);
    let admin = user(&app, "admin");
    let path = format!("{PROXY}/artifacts/other/file");
    assert_eq!(admin.send("PUT", &path, None).await.status, 200);
}

#[tokio::test]
async fn the_folder_of_its_number_in_the_proxy_is_an_experiments_wherever_it_keeps_the_rest() {
    let options = TrackingOptions {
        default_artifact_root: "s3://elsewhere/root".to_owned(),
        ..TrackingOptions::default()
    };
    let app = App::with_users_and("NO_PERMISSIONS", options).await;
    add_users(&app, &["ada", "bob"]).await;
    let hers = experiment(&app, "ada", "hers").await;
    model(&app, "bob", "bob").await;
    let path = format!("{PROXY}/artifacts/{hers}/file");
    assert_eq!(user(&app, "ada").send("PUT", &path, None).await.status, 200);
    assert_eq!(user(&app, "bob").get(&path).await.status, 403);
    let source = format!("mlflow-artifacts:/{hers}/file");
    assert_eq!(version(&app, "bob", "bob", &source).await, 403);
    let below = format!("mlflow-artifacts:/{hers}/x");
    assert_eq!(at(&app, "bob", "below", &below).await.0, 403);
    assert_eq!(at(&app, "ada", "below", &below).await.0, 200);
}

#[tokio::test]
async fn an_experiment_opens_no_place_that_is_anothers() {
    let app = house("NO_PERMISSIONS", &["ada", "bob"]).await;
    let hers = experiment(&app, "ada", "hers").await;
    let its = run(&app, "ada", &hers).await;
    let (_, hr) = at(&app, "admin", "hr", "s3://shared/root/deep/hr-data").await;
    let his = experiment(&app, "bob", "his").await;
    let coded = percent(&hers);
    let table = [
        (403, format!("mlflow-artifacts:/{hers}")),
        (403, format!("mlflow-artifacts:/{hers}/{its}/artifacts")),
        (403, format!("mlflow-artifacts://h/{hers}/x")),
        (403, format!("MLFLOW-ARTIFACTS:/{coded}")),
        (403, format!("mlflow-artifacts:/{}", coded.replace('%', "%25"))),
        (403, format!("https://h{PROXY}/artifacts/{hers}")),
        (403, format!("mlflow-artifacts:/{hers}?x=y")),
        (403, "mlflow-artifacts:/".to_owned()),
        // Where an experiment to come will be.
        (403, "mlflow-artifacts:/77".to_owned()),
        (403, "mlflow-artifacts:/77/x".to_owned()),
        (403, "s3://shared/root".to_owned()),
        (403, "S3A://shared/root/".to_owned()),
        (403, "s3://shared/root/deep".to_owned()),
        (403, "s3://shared/root/deep/hr-data".to_owned()),
        (403, "s3://shared/root/deep/hr-data/x".to_owned()),
        (400, "s3://shared/root/deep/hr-data#".to_owned()),
        (400, format!("mlflow-artifacts:/{hers}/{its}/artifacts#")),
        (400, "mlflow-artifacts:/#".to_owned()),
        (400, format!("RUNS:/{its}")),
        (400, "models:/m-1".to_owned()),
        (400, "mlflow-artifacts:/workspaces/team/1".to_owned()),
        (200, "s3://shared/root/bobs".to_owned()),
        (200, "mlflow-artifacts:/bobs".to_owned()),
        (200, format!("mlflow-artifacts:/{his}/more")),
        (200, "s3://elsewhere/x".to_owned()),
        (200, "/tmp/tidemill-not-there".to_owned()),
    ];
    for (number, (status, location)) in table.iter().enumerate() {
        let (found, _) = at(&app, "bob", &format!("bob-{number}"), location).await;
        assert_eq!(found, *status, "{location}");
    }
    grant(&app, "ada", "experiment", &hr, "READ").await;
    let below = "s3://shared/root/deep/hr-data/below";
    assert_eq!(at(&app, "ada", "read", below).await.0, 403);
    grant(&app, "bob", "experiment", &hr, "EDIT").await;
    assert_eq!(at(&app, "bob", "edit", below).await.0, 200);
    assert_eq!(at(&app, "admin", "any", "s3://shared/root").await.0, 200);
}

#[tokio::test]
async fn a_folder_is_the_same_place_by_every_name() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("files");
    std::fs::create_dir_all(&root).unwrap();
    std::os::unix::fs::symlink(&root, dir.path().join("link")).unwrap();
    let options = TrackingOptions {
        artifacts_destination: Some(Destination::Folder(root.clone())),
        ..TrackingOptions::default()
    };
    let app = App::with_users_and("NO_PERMISSIONS", options).await;
    add_users(&app, &["ada", "bob"]).await;
    let hers = experiment(&app, "ada", "hers").await;
    let (root, link) = (root.display(), dir.path().join("link"));
    for (status, location) in [
        (403, format!("{root}/{hers}")),
        (403, format!("file://{root}/{hers}/x")),
        (403, format!("file:{root}/{}", percent(&hers))),
        (403, format!("{}/{hers}", link.display())),
        (403, format!("{root}")),
        (403, dir.path().display().to_string()),
        (403, format!("{root}/77")),
        (403, format!("{root}/workspaces/team/1")),
        (403, format!("{root}/.unfinished")),
        (200, format!("{root}/bobs")),
    ] {
        // The folder around it is not the server's, which reads there only by the name of its own.
        let status = if location == dir.path().display().to_string() {
            200
        } else {
            status
        };
        assert_eq!(
            at(&app, "bob", &location, &location).await.0,
            status,
            "{location}"
        );
    }
}

#[tokio::test]
async fn what_was_stored_behind_a_fragment_leads_nowhere_and_deletes_nothing() {
    let app = App::new();
    let hers = done(
        &app.post(&format!("{API}/experiments/create"), json!({ "name": "hers" }))
            .await,
    );
    let hers = hers["experiment_id"].as_str().unwrap().to_owned();
    let its = done(
        &app.post(&format!("{API}/runs/create"), json!({ "experiment_id": hers }))
            .await,
    );
    let its = its["run"]["info"]["run_id"].as_str().unwrap().to_owned();
    let file = format!("{PROXY}/artifacts/{hers}/{its}/artifacts/file");
    let put = Request::put(&file).body(Body::from("hers")).unwrap();
    assert_eq!(app.send(put).await.status, 200);
    for location in ["mlflow-artifacts:/#", "s3://b/x#", "s3://b/x#y", "/srv/x#"] {
        let body = json!({ "name": location, "artifact_location": location });
        let reply = app.post(&format!("{API}/experiments/create"), body).await;
        assert_eq!(reply.status, 400, "{location}: {}", reply.text);
    }
    // As a server of old stored it.
    let store = app.fake.tracking().store().clone();
    for (name, location) in [
        ("all", "mlflow-artifacts:/#".to_owned()),
        ("one", format!("mlflow-artifacts:/{hers}/{its}/artifacts#")),
    ] {
        let (id, old) = (format!("old-{name}"), format!("{location}/old-{name}/artifacts"));
        let (run_id, name) = (id.clone(), name.to_owned());
        let number = store
            .write(move |tx| {
                let new = experiments::NewExperiment {
                    workspace: "default",
                    name: &name,
                    created_ms: 1,
                };
                let experiment = experiments::insert(tx, &new, |_| location)?.unwrap();
                let head = RunHead {
                    number: 0,
                    run_id,
                    experiment,
                    name,
                    user_id: String::new(),
                    status: RunStatus::Finished,
                    lifecycle: Lifecycle::Active,
                    start_ms: 1,
                    end_ms: None,
                    deleted_ms: None,
                    artifact_uri: old,
                };
                runs::insert(tx, &head)?;
                Ok(experiment)
            })
            .await
            .unwrap();
        let body = json!({ "experiment_id": number.to_string() });
        let fresh = done(&app.post(&format!("{API}/runs/create"), body).await);
        let fresh = fresh["run"]["info"]["run_id"].as_str().unwrap().to_owned();
        for run_id in [id, fresh] {
            for path in [
                format!("{API}/artifacts/list?run_id={run_id}"),
                format!("/get-artifact?run_id={run_id}&path=file"),
                format!("/get-artifact?run_id={run_id}&path={hers}/{its}/artifacts/file"),
            ] {
                let reply = app.get(&path).await;
                assert_eq!(reply.status, 400, "{path}: {}", reply.text);
            }
            done(
                &app.post(&format!("{API}/runs/delete"), json!({ "run_id": run_id }))
                    .await,
            );
            let gone: Value = done(
                &app.post("/api/v1/tracking/gc", json!({ "run_ids": [run_id] }))
                    .await,
            );
            assert_eq!((&gone["runs"], &gone["bytes"]), (&json!(1), &json!(0)), "{gone}");
        }
        let request = Request::delete(format!("/api/v1/tracking/experiments/{number}"));
        let gone = app.send(request.body(Body::empty()).unwrap()).await;
        assert!(gone.status.is_success(), "{}", gone.text);
        assert_eq!(app.get(&file).await.text, "hers");
    }
}

#[tokio::test]
async fn without_users_experiments_and_versions_are_where_they_were() {
    let app = App::new();
    for location in [
        "mlflow-artifacts:/",
        "mlflow-artifacts:/0/x",
        "mlflow-artifacts:/77",
        "s3://b/x?y=z",
        "/tmp/tidemill-not-there",
    ] {
        let body = json!({ "name": location, "artifact_location": location });
        done(&app.post(&format!("{API}/experiments/create"), body).await);
    }
    done(
        &app.post(&format!("{API}/registered-models/create"), json!({ "name": "m" }))
            .await,
    );
    for source in ["mlflow-artifacts:/77/x", "runs:/nothing/model", "s3://b/x"] {
        let body = json!({ "name": "m", "source": source });
        done(&app.post(&format!("{API}/model-versions/create"), body).await);
    }
}
