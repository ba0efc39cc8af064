//! Deployments, with an engine whose bundles are their manifests and whose models echo.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use tidemill_api::ControlPlane as _;
use tidemill_core::clock::Stopwatch;
use tidemill_core::deployments::{
    BundleManifest, BundledModel, BundledPython, Deploying, DeploymentEngine, MANIFEST_FILE,
};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{CallContext, Interface, Loader, Payload, Servable, Work};
use tidemill_serving::Call;

use crate::fake::{App, Fake};

/// Takes an archive for the manifest itself.
#[derive(Debug)]
pub struct Unpacker;

#[async_trait]
impl DeploymentEngine for Unpacker {
    async fn pack(&self, _: &Path, manifest: &BundleManifest, archive: &Path) -> Result<(), PortError> {
        std::fs::write(archive, serde_json::to_vec(manifest).unwrap()).unwrap();
        Ok(())
    }
    async fn unpack(&self, archive: &Path, folder: &Path) -> Result<BundleManifest, PortError> {
        let text = std::fs::read(archive).unwrap();
        let manifest = BundleManifest::parse(&text)?;
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(MANIFEST_FILE), text).unwrap();
        Ok(manifest)
    }
    fn recognise(&self, folder: &Path) -> Result<(BundledModel, Option<BundledPython>), PortError> {
        assert!(folder.join("model.txt").is_file());
        Ok((
            BundledModel::Native {
                file: "model.txt".to_owned(),
            },
            None,
        ))
    }
    async fn declared(&self, _: &BundleManifest, _: &Path) -> Result<Map<String, Value>, PortError> {
        Ok(json!({ "worker": { "cpu": 2.0, "memory_mib": 64 } })
            .as_object()
            .cloned()
            .unwrap())
    }
    async fn prepare(&self, _: &Deploying) -> Result<(), PortError> {
        Ok(())
    }
    fn loader(&self, deploying: &Deploying) -> Result<Arc<dyn Loader>, PortError> {
        Ok(Arc::new(Echo(
            deploying.manifest.model.clone(),
            Interface {
                body: true,
                ..Interface::default()
            },
        )))
    }
}

/// Answers with what it is asked, unless its function is called `broken`.
#[derive(Debug, Clone)]
struct Echo(BundledModel, Interface);

#[async_trait]
impl Loader for Echo {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        match &self.0 {
            BundledModel::Function { target } if target == "app:broken" => {
                Err(PortError::upstream("worker_start", "Traceback: no such thing"))
            }
            _ => Ok(Arc::new(self.clone())),
        }
    }
}

#[async_trait]
impl Servable for Echo {
    fn interface(&self) -> &Interface {
        &self.1
    }
    fn work(&self) -> Work {
        Work::Light
    }
    async fn call(&self, payload: Payload, _: &CallContext) -> Result<Payload, PortError> {
        Ok(payload)
    }
}

fn bundle(function: &str) -> String {
    json!({
        "format": 1,
        "name": "echo",
        "model": { "kind": "function", "target": format!("app:{function}") },
        "python": { "environment": { "PASSWORD": "hunter2" } },
        "serving": { "worker": { "memory_mib": 128 } },
    })
    .to_string()
}

async fn deploy(app: &App, query: &str, bundle: String) -> (StatusCode, Value) {
    let reply = app
        .post_as(
            &format!("/api/v1/deployments{query}"),
            "application/octet-stream",
            bundle,
        )
        .await;
    (reply.status, reply.json())
}

async fn answers(app: &App, name: &str) -> bool {
    let payload = Payload::Body {
        content_type: "application/json".to_owned(),
        bytes: "{}".into(),
    };
    let call = Call::new(name.into(), payload.clone(), Stopwatch::start());
    app.fake
        .serving()
        .hosting()
        .call(call)
        .await
        .is_ok_and(|answer| answer.payload == payload)
}

#[tokio::test]
async fn a_bundle_is_deployed_listed_replaced_and_taken_away() {
    let app = App::new();
    let (status, made) = deploy(&app, "", bundle("f")).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(
        (&made["name"], &made["version"], &made["state"]),
        (&json!("echo"), &json!(1), &json!("READY"))
    );
    // What the request says goes before the bundle, and that before the code.
    let worker = &made["versions"][0]["serving"]["worker"];
    assert_eq!(
        (&worker["cpu"], &worker["memory_mib"]),
        (&json!(2.0), &json!(128))
    );
    assert_eq!(
        made["versions"][0]["manifest"]["python"]["environment"],
        json!({ "PASSWORD": "***" })
    );
    assert!(answers(&app, "echo").await);

    let (_, replaced) = deploy(&app, "?serving=%7B%22timeout%22%3A%225s%22%7D", bundle("g")).await;
    assert_eq!(
        (
            &replaced["version"],
            &replaced["versions"][1]["serving"]["timeout"]
        ),
        (&json!(2), &json!("5s"))
    );
    assert_eq!(replaced["versions"].as_array().unwrap().len(), 2);
    let (_, other) = deploy(&app, "?name=other", bundle("f")).await;
    assert_eq!(other["name"], "other");
    let list = app.get("/api/v1/deployments").await.json();
    let names: Vec<&str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["echo", "other"]);

    let gone = axum::http::Request::delete("/api/v1/deployments/echo")
        .body(axum::body::Body::empty())
        .unwrap();
    let router = tower::ServiceExt::oneshot(app.router.clone(), gone)
        .await
        .unwrap();
    assert_eq!(router.status(), StatusCode::NO_CONTENT);
    assert!(!answers(&app, "echo").await);
    assert!(answers(&app, "other").await);
    let missing = app.get("/api/v1/deployments/echo").await;
    assert_eq!(
        (missing.status, &missing.json()["error"]["code"]),
        (StatusCode::NOT_FOUND, &json!("not_found"))
    );
}

#[tokio::test]
async fn what_cannot_be_loaded_says_why_and_leaves_what_answers() {
    let app = App::new();
    deploy(&app, "", bundle("f")).await;
    let (status, error) = deploy(&app, "", bundle("broken")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no such thing"),
        "{error}"
    );
    let kept = app.get("/api/v1/deployments/echo").await.json();
    assert_eq!((&kept["version"], &kept["state"]), (&json!(1), &json!("READY")));
    assert!(answers(&app, "echo").await);
    let cases = [
        ("", "no bundle".to_owned(), 400, "bundle_broken"),
        ("?name=../x", bundle("f"), 400, "bad_deployment_name"),
        ("?name=flights", bundle("f"), 409, "deployment_exists"),
        ("?serving=%7B%22no%22%3A1%7D", bundle("f"), 400, "bad_serving"),
        ("?serving=1", bundle("f"), 400, "bad_query"),
        ("?what=1", bundle("f"), 400, "bad_query"),
    ];
    for (query, bundle, status, code) in cases {
        let (got, error) = deploy(&app, query, bundle).await;
        assert_eq!(
            (got.as_u16(), error["error"]["code"].as_str()),
            (status, Some(code)),
            "{error}"
        );
    }
    let typed = app.post_as("/api/v1/deployments", "text/plain", "x").await;
    assert_eq!(typed.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let source = app
        .post("/api/v1/deployments", json!({ "source": "models:/nothing/1" }))
        .await;
    assert_eq!(
        (source.status.as_u16(), source.json()["error"]["code"].as_str()),
        (400, Some("bad_model_source"))
    );
}

#[tokio::test]
async fn a_version_of_the_registry_is_deployed_with_its_files() {
    let app = App::new();
    app.post(
        "/api/2.0/mlflow/registered-models/create",
        json!({ "name": "price model" }),
    )
    .await;
    let put = axum::http::Request::put("/api/2.0/mlflow-artifacts/artifacts/m/model.txt")
        .body("tree".into())
        .unwrap();
    assert_eq!(app.send(put).await.status, StatusCode::OK);
    let version = json!({ "name": "price model", "source": "mlflow-artifacts:/m" });
    let made = app.post("/api/2.0/mlflow/model-versions/create", version).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    let alias = json!({ "name": "price model", "alias": "champion", "version": "1" });
    app.post("/api/2.0/mlflow/registered-models/alias", alias).await;
    for source in [
        "models:/price model/1",
        "models:/price model@champion",
        "models:/price model/latest",
    ] {
        let deployed = app.post("/api/v1/deployments", json!({ "source": source })).await;
        assert_eq!(deployed.status, StatusCode::CREATED, "{}", deployed.text);
        let deployed = deployed.json();
        assert_eq!(deployed["name"], "price-model");
        let newest = deployed["versions"].as_array().unwrap().last().unwrap();
        assert_eq!(newest["source"], "models:/price model/1");
        assert_eq!(
            newest["manifest"]["model"],
            json!({ "kind": "native", "file": "model.txt" })
        );
    }
    assert!(answers(&app, "price-model").await);
}

#[tokio::test]
async fn a_server_that_starts_again_serves_what_was_deployed() {
    let fake = Fake::new();
    let app = App::of(Arc::clone(&fake));
    deploy(&app, "", bundle("f")).await;
    fake.serving().hosting().remove(&"echo".into());
    assert!(!answers(&app, "echo").await);
    fake.deployments().start().await.unwrap();
    assert!(answers(&app, "echo").await);
}
