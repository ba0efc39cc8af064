use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use crate::fake::App;

#[tokio::test]
async fn every_address_of_the_page_gives_the_page_and_unknown_files_do_not() {
    let app = App::new();
    let page = app.get("/").await;
    if page.status == 404 {
        // The page is written beside this crate; without it the API still works.
        assert!(page.text.contains("this build carries no page"));
        return;
    }
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("content-security-policy"), "default-src 'self'");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(app.get("/endpoints/flights/timeline").await.text, page.text);
    assert_eq!(app.get("/app/not-there.js").await.status, 404);
    assert_eq!(app.get("/../../Cargo.toml").await.text, page.text);

    let tag = page.header("etag").to_owned();
    let again = Request::get("/").header("if-none-match", format!("\"x\", {tag}"));
    let again = app.send(again.body(Body::empty()).unwrap()).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
    assert_eq!(app.post("/", json!({})).await.status, 405);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let app = App::new();
    app.post("/invocations", json!({"instances": [[1, "UA"], [2, "UA"]]}))
        .await;
    app.post("/invocations/shaky", json!({"instances": [[1, "UA"]]}))
        .await;
    let reply = app.get("/metrics").await;
    assert_eq!(
        reply.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    for line in [
        "tidemill_requests_total 2",
        "tidemill_predictions_total 3",
        "tidemill_fallback_rows_total{role=\"champion\"} 1",
        "tidemill_default_rows_total 1",
        "tidemill_request_duration_seconds_bucket{le=\"+Inf\"} 2",
        "tidemill_request_duration_seconds_count 2",
        "tidemill_route_share{endpoint=\"flights\",version=\"3\",role=\"champion\"} 1",
    ] {
        assert!(
            reply.text.lines().any(|l| l == line),
            "{line} is not in\n{}",
            reply.text
        );
    }
    assert!(reply.text.contains("process_resident_memory_bytes "));
    // Every sample belongs to a metric that was announced once.
    let names: Vec<&str> = reply
        .text
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    for line in reply.text.lines().filter(|l| !l.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let bare = ["_bucket", "_sum", "_count"]
            .iter()
            .fold(name, |n, end| n.strip_suffix(end).unwrap_or(n));
        assert_eq!(
            names.iter().filter(|n| **n == bare || **n == name).count(),
            1,
            "{line}"
        );
    }
}
