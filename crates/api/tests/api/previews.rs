//! Files that a browser shows in a frame.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;

use crate::fake::{App, Reply};

const PREVIEW: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; sandbox";

async fn send(app: &App, method: Method, path: &str, body: &'static str) -> Reply {
    let request = Request::builder().method(method).uri(path);
    app.send(request.body(Body::from(body)).unwrap()).await
}

/// A run with these files, and a version of model `m` that is made of it.
async fn run_with(app: &App, names: &[&str]) -> String {
    let body = json!({"experiment_id": "0", "start_time": 1});
    let run = app.post("/api/2.0/mlflow/runs/create", body).await.json();
    let run = run["run"]["info"]["run_id"].as_str().unwrap().to_owned();
    for name in names {
        let path = format!("/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/{name}");
        assert_eq!(
            send(app, Method::PUT, &path, "<b>x</b>").await.status,
            200,
            "{name}"
        );
    }
    app.post("/api/2.0/mlflow/registered-models/create", json!({"name": "m"}))
        .await;
    let body = json!({"name": "m", "source": format!("runs:/{run}"), "run_id": run});
    let created = app.post("/api/2.0/mlflow/model-versions/create", body).await;
    assert_eq!(created.status, 200, "{}", created.text);
    run
}

#[tokio::test]
async fn a_file_is_shown_only_where_that_was_asked_for_and_as_a_page_that_can_do_nothing() {
    let app = App::new();
    let shown = ["a.html", "a.svg", "a.png", "a.txt", "MLmodel"];
    let saved = ["a.pkl", "a.pdf", "a.mjs", "a.xhtml"];
    let run = run_with(&app, &[&shown[..], &saved[..]].concat()).await;
    for name in shown.iter().chain(&saved) {
        for base in [
            format!("/get-artifact?run_id={run}&path={name}"),
            format!("/model-versions/get-artifact?name=m&version=1&path={name}"),
        ] {
            for (asked, inline) in [
                ("", false),
                ("&inline=false", false),
                ("&inline=true", shown.contains(name)),
            ] {
                let path = format!("{base}{asked}");
                let reply = app.get(&path).await;
                assert_eq!(
                    (reply.status.as_u16(), reply.text.as_str()),
                    (200, "<b>x</b>"),
                    "{path}"
                );
                let how = if inline { "inline" } else { "attachment" };
                assert_eq!(
                    reply.header("content-disposition"),
                    format!("{how}; filename={name}"),
                    "{path}"
                );
                let policy = if inline {
                    PREVIEW
                } else {
                    "default-src 'none'; sandbox"
                };
                assert_eq!(reply.header("content-security-policy"), policy, "{path}");
                assert_eq!(reply.header("x-content-type-options"), "nosniff");
                assert_eq!(reply.header("x-frame-options"), "SAMEORIGIN");
            }
        }
    }
}

#[tokio::test]
async fn head_answers_like_get_without_a_body() {
    let app = App::new();
    let run = run_with(&app, &["a.html"]).await;
    for path in [
        format!("/get-artifact?run_id={run}&path=a.html"),
        format!("/get-artifact?run_id={run}&path=a.html&inline=true"),
        "/model-versions/get-artifact?name=m&version=1&path=a.html".to_owned(),
        format!("/get-artifact?run_id={run}&path=missing"),
    ] {
        let got = app.get(&path).await;
        let head = send(&app, Method::HEAD, &path, "").await;
        assert_eq!((head.status, head.text.as_str()), (got.status, ""), "{path}");
        for name in [
            "content-length",
            "content-type",
            "content-disposition",
            "etag",
            "content-security-policy",
        ] {
            assert_eq!(head.header(name), got.header(name), "{name} of {path}");
        }
    }
}
