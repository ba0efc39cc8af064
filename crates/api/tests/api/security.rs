//! What a foreign page makes a browser send is turned away.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use tidemill_api::{ControlPlane, Security};

use crate::fake::{App, Reply};

async fn send(app: &App, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.send(request.body(Body::from("{}")).unwrap()).await
}

#[tokio::test]
async fn a_name_that_was_pointed_at_this_machine_is_refused() {
    let app = App::new();
    for path in ["/", "/api/v1/status", "/api/3.0/mlflow/workspaces", "/metrics"] {
        let reply = send(&app, "GET", path, &[("host", "evil.example.com:7878")]).await;
        assert_eq!(reply.status, 403, "{path}");
        assert!(reply.text.contains("Invalid Host header"), "{}", reply.text);
        assert_eq!(
            send(&app, "GET", path, &[("host", "localhost:7878")])
                .await
                .status,
            200
        );
        assert_eq!(
            send(&app, "GET", path, &[("host", "10.1.2.3:7878")]).await.status,
            200
        );
    }
    let probe = send(&app, "GET", "/health", &[("host", "tidemill.internal")]).await;
    assert_eq!(probe.status, 200);
}

#[tokio::test]
async fn a_program_that_uses_a_name_of_its_own_learns_in_its_protocol_what_to_do() {
    let app = App::new();
    let host = [("host", "models.example.com:7878")];
    let paths = [
        "/v2/models/double/infer",
        "/endpoints/double/invocations",
        "/v1/projects/p/locations/l/endpoints/double:predict",
    ];
    for path in paths {
        let reply = send(&app, "POST", path, &host).await;
        assert_eq!(reply.status, 403, "{path}");
        assert_eq!(reply.header("x-tidemill-error"), "host_not_allowed");
        assert_eq!(reply.header("content-type"), "application/json");
        assert!(
            reply.text.contains("--allowed-hosts models.example.com"),
            "{}",
            reply.text
        );
    }
    let reply = send(&app, "POST", "/v2/models/double/infer", &host).await;
    assert!(reply.json()["error"].is_string());
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let reply = send(&app, "POST", path, &host).await;
    assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "7"));
    assert!(
        reply.header("grpc-message").contains("--allowed-hosts"),
        "{}",
        reply.header("grpc-message")
    );
    let page = [("host", "localhost:7878"), ("origin", "https://evil.example.com")];
    let reply = send(&app, "POST", "/v2/models/double/infer", &page).await;
    assert_eq!(reply.header("x-tidemill-error"), "origin_not_allowed");
}

#[tokio::test]
async fn what_changes_something_is_not_taken_from_a_foreign_page() {
    let app = App::new();
    let table = [
        ("POST", "/api/v1/runs"),
        ("POST", "/invocations"),
        ("POST", "/api/3.0/mlflow/workspaces"),
        ("PATCH", "/api/3.0/mlflow/workspaces/team"),
        ("DELETE", "/api/3.0/mlflow/workspaces/team"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/a.txt"),
    ];
    let host = ("host", "localhost:7878");
    for (method, path) in table {
        for foreign in [
            vec![host, ("origin", "https://evil.example.com")],
            vec![host, ("origin", "http://localhost:3000")],
            vec![host, ("origin", "null")],
            vec![host, ("sec-fetch-site", "cross-site")],
        ] {
            let reply = send(&app, method, path, &foreign).await;
            assert_eq!(reply.status, 403, "{method} {path} {foreign:?}");
            assert_eq!(reply.text, "Cross-origin request blocked");
        }
        for own in [
            vec![host],
            vec![
                host,
                ("origin", "http://localhost:7878"),
                ("sec-fetch-site", "same-origin"),
            ],
            vec![host, ("sec-fetch-site", "none")],
        ] {
            let reply = send(&app, method, path, &own).await;
            assert_ne!(reply.status, 403, "{method} {path} {own:?}");
        }
    }
}

#[tokio::test]
async fn a_form_or_a_plain_text_that_holds_json_is_refused() {
    let app = App::new();
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ] {
        let reply = app
            .post_as("/api/3.0/mlflow/workspaces", kind, r#"{"name": "team-a"}"#)
            .await;
        assert_eq!(reply.status, 400, "{kind}");
        let runs = app.post_as("/api/v1/runs", kind, "{}").await;
        assert_eq!(runs.status, 415, "{kind}");
    }
    assert_eq!(app.get("/api/3.0/mlflow/workspaces/team-a").await.status, 404);
}

#[tokio::test]
async fn every_answer_says_that_it_is_no_frame_and_no_script() {
    let app = App::new();
    for path in ["/", "/health", "/api/v1/status", "/api/v1/nothing"] {
        let reply = app.get(path).await;
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("x-frame-options"), "SAMEORIGIN", "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), "", "{path}");
    }
}

#[tokio::test]
async fn a_page_that_was_allowed_may_ask_and_change() {
    let plain = App::new();
    let security = Security {
        allowed_hosts: vec!["mill.example.com".into()],
        allowed_origins: vec!["https://app.example.com".into()],
    };
    let control = Arc::clone(&plain.fake) as Arc<dyn ControlPlane>;
    let app = App {
        fake: Arc::clone(&plain.fake),
        router: tidemill_api::router_with(control, security),
    };
    let (host, origin) = (
        ("host", "mill.example.com"),
        ("origin", "https://app.example.com"),
    );
    let asks = [host, origin, ("access-control-request-method", "POST")];
    let preflight = send(&app, "OPTIONS", "/api/v1/runs", &asks).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(
        preflight.header("access-control-allow-origin"),
        "https://app.example.com"
    );
    let json = ("content-type", "application/json");
    let reply = send(&app, "POST", "/api/v1/runs", &[host, origin, json]).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let foreign = [
        host,
        ("origin", "https://evil.example.com"),
        ("access-control-request-method", "POST"),
    ];
    let preflight = send(&app, "OPTIONS", "/api/v1/runs", &foreign).await;
    assert_eq!(preflight.header("access-control-allow-origin"), "");
}
