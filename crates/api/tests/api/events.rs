use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures::StreamExt as _;
use serde_json::json;
use tower::ServiceExt as _;

use crate::fake::App;

/// Reads an event stream until it has so many events; gives their ids and kinds.
struct Reader {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Reader {
    async fn open(app: &App, path: &str, last_id: Option<&str>) -> Self {
        let mut request = Request::get(path);
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = app.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    async fn until(&mut self, count: usize) -> Vec<String> {
        while self.text.matches("\n\n").count() < count {
            let chunk = tokio::time::timeout(Duration::from_secs(5), self.body.next()).await;
            self.text += std::str::from_utf8(&chunk.unwrap().unwrap().unwrap()).unwrap();
        }
        let field = |block: &str, name: &str| {
            let line = block
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or("");
            line.trim_start_matches(':').trim().to_owned()
        };
        let blocks = self.text.split("\n\n").filter(|block| !block.is_empty());
        blocks
            .map(|block| format!("{} {}", field(block, "id"), field(block, "event")))
            .collect()
    }
}

#[tokio::test]
async fn events_are_listed_page_by_page() {
    let app = App::new();
    for kind in ["a", "b", "c"] {
        app.fake.store(kind);
    }
    let page = app.get("/api/v1/events?after=1&limit=1").await.json();
    assert_eq!(
        (&page["events"][0]["kind"], &page["next"]),
        (&json!("b"), &json!(2))
    );
    assert_eq!(page["events"][0]["subject"], json!(["run", "r1"]));
    let end = app.get("/api/v1/events?after=3").await.json();
    assert_eq!(end, json!({"events": [], "next": 3}));
    assert_eq!(app.get("/api/v1/events?limit=100000").await.status, 400);
}

#[tokio::test]
async fn a_stream_resumes_after_the_last_id_and_goes_on_live() {
    let app = App::new();
    for kind in ["run.started", "run.ended", "alert.raised"] {
        app.fake.store(kind);
    }
    let mut reader = Reader::open(&app, "/api/v1/events/stream?after=0", Some("1")).await;
    assert_eq!(reader.until(2).await, ["2 run.ended", "3 alert.raised"]);
    assert!(
        reader.text.contains(r#""payload":{"text":"line 1\nline 2"}"#),
        "{}",
        reader.text
    );
    app.fake.happen("version.promoted");
    assert_eq!(reader.until(3).await[2], "4 version.promoted");
}

#[tokio::test]
async fn a_stream_that_falls_behind_reads_the_store_and_misses_nothing() {
    let app = App::new();
    let mut reader = Reader::open(&app, "/api/v1/events/stream?after=0", None).await;
    // The channel holds four: the reader lags, and one event was never broadcast at all.
    for _ in 0..10 {
        app.fake.happen("x");
    }
    app.fake.store("silent");
    app.fake.happen("y");
    let seen = reader.until(12).await;
    let expected: Vec<String> = (1..=10).map(|i| format!("{i} x")).collect();
    assert_eq!(seen[..10], expected);
    assert_eq!(seen[10..], ["11 silent", "12 y"]);
}

#[tokio::test]
async fn a_stream_without_a_start_is_live_only_and_a_wrong_id_is_refused() {
    let app = App::new();
    app.fake.store("old");
    let mut reader = Reader::open(&app, "/api/v1/events/stream", None).await;
    app.fake.happen("new");
    assert_eq!(reader.until(1).await, ["2 new"]);
    let request = Request::get("/api/v1/events/stream").header("last-event-id", "x");
    assert_eq!(app.send(request.body(Body::empty()).unwrap()).await.status, 400);
}

#[tokio::test]
async fn an_open_stream_does_not_hold_up_the_end_of_the_server() {
    let app = App::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let server = tokio::spawn(tidemill_api::serve(listener, app.router.clone(), shutdown));

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET /api/v1/events/stream HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut start = [0; 15];
    client.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), server).await;
    ended.unwrap().unwrap().unwrap();
}
