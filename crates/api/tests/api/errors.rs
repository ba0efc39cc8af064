use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use crate::fake::App;

#[tokio::test]
async fn unknown_routes_and_methods_answer_in_the_shape_of_the_protocol() {
    let app = App::new();
    let table = [
        ("GET", "/v2/nothing", 404, "there is no `GET /v2/nothing`"),
        ("POST", "/v2/health/live", 405, "does not take `POST`"),
        ("GET", "/ping/nothing", 404, "there is no"),
        ("GET", "/invocations", 405, "does not take `GET`"),
        ("GET", "/api/v1/nothing", 404, "there is no"),
        ("DELETE", "/api/v1/runs", 405, "does not take `DELETE`"),
        ("GET", "/api/v1", 404, "there is no"),
    ];
    for (method, path, status, expected) in table {
        let request = Request::builder().method(method).uri(path);
        let reply = app.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(reply.status.as_u16(), status, "{method} {path}");
        assert_eq!(reply.header("content-type"), "application/json");
        assert_eq!(reply.header("allow").is_empty(), status != 405, "{method} {path}");
        let answer = reply.json();
        let message = match path.split('/').nth(1) {
            Some("v2") => answer["error"].as_str(),
            Some("api") => answer["error"]["message"].as_str(),
            _ => answer["message"].as_str(),
        };
        assert!(message.unwrap().contains(expected), "{method} {path}: {answer}");
    }
}

#[tokio::test]
async fn an_error_has_its_code_its_page_and_the_request_its_id() {
    let app = App::new();
    let reply = app.get("/api/v1/nothing").await;
    assert_eq!(
        reply.json(),
        json!({"error": {
            "code": "unknown_route",
            "message": "there is no `GET /api/v1/nothing`: every route is listed at `/api/v1/openapi.json`",
            "details": null,
            "docs": "/docs/errors/unknown_route",
        }})
    );
    assert_eq!(reply.header("x-tidemill-error"), "unknown_route");
    assert_eq!(reply.header("x-request-id").len(), 32);
    let unavailable = app
        .post("/invocations/empty", json!({"instances": [[1, "UA"]]}))
        .await;
    assert_eq!(unavailable.header("retry-after"), "1");
    assert_eq!(app.get("/docs/errors/no_such_code").await.status, 404);
    let version = app.get("/api/v1/models/flights/versions/latest").await;
    assert_eq!(version.json()["error"]["code"], "bad_version");
    assert_eq!(
        app.get("/api/v1/runs/%ff").await.json()["error"]["code"],
        "bad_path"
    );
}

#[tokio::test]
async fn a_foreign_protocol_gets_our_code_in_a_header_and_nothing_of_ours_in_its_body() {
    let app = App::new();
    let reply = app
        .post("/invocations", json!({"instances": [["far", "UA"]]}))
        .await;
    assert_eq!(reply.header("x-tidemill-error"), "schema_mismatch");
    let body = reply.json();
    let fields: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["error_code", "message", "stack_trace"]);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let app = App::new();
    let body = vec![b' '; 64 * 1024 * 1024 + 1];
    for path in ["/v2/models/flights/infer", "/invocations", "/api/v1/feedback"] {
        let reply = app.post_as(path, "application/json", body.clone()).await;
        assert_eq!(reply.status, 413, "{path}: {}", reply.text);
        assert!(reply.text.contains("larger than 64 MiB"), "{}", reply.text);
    }
}
