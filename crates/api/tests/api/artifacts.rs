//! Artifacts by every way in and out.

use axum::body::Body;
use axum::http::{Method, Request};
use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_core::clock::Timestamp;

use crate::fake::{App, Reply};

const PROXY: &str = "/api/2.0/mlflow-artifacts/artifacts";

async fn send(
    app: &App,
    method: Method,
    uri: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Reply {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.send(request.body(body.into()).unwrap()).await
}

async fn put(app: &App, path: &str, body: impl Into<Body>) -> Reply {
    send(app, Method::PUT, &format!("{PROXY}/{path}"), &[], body).await
}

async fn get_with(app: &App, path: &str, headers: &[(&str, &str)]) -> Reply {
    send(app, Method::GET, &format!("{PROXY}/{path}"), headers, "").await
}

/// A run, as its id and where it keeps its artifacts.
async fn run(app: &App) -> (String, String) {
    let reply = app
        .post(
            "/api/2.0/mlflow/runs/create",
            json!({"experiment_id": "0", "start_time": 1}),
        )
        .await;
    let info = reply.json()["run"]["info"].clone();
    let text = |name: &str| info[name].as_str().unwrap().to_owned();
    (text("run_id"), text("artifact_uri"))
}

async fn objects(app: &App) -> usize {
    use tidemill_api::ControlPlane as _;
    let objects = app.fake.tracking().store().objects().list("artifacts").await;
    objects.unwrap().len()
}

#[tokio::test]
async fn a_file_comes_back_whole_in_parts_and_not_at_all_once_it_is_deleted() {
    let app = App::new();
    let text = "0123456789".repeat(300_000);
    for path in ["1/a.txt", "1/d/b c.txt".replace(' ', "%20").as_str(), "2/a.txt"] {
        let reply = put(&app, path, text.clone()).await;
        assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({})), "{path}");
    }
    assert_eq!(objects(&app).await, 1, "the same bytes are stored once");
    let whole = get_with(&app, "1/a.txt", &[]).await;
    assert_eq!(whole.text, text);
    assert_eq!(whole.header("content-length"), "3000000");
    assert_eq!(whole.header("content-type"), "text/plain");
    assert_eq!(whole.header("content-disposition"), "attachment; filename=a.txt");
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let etag = whole.header("etag").to_owned();

    let part = get_with(&app, "1/a.txt", &[("range", "bytes=1500005-1500014")]).await;
    assert_eq!((part.status.as_u16(), part.text.as_str()), (206, "5678901234"));
    assert_eq!(part.header("content-range"), "bytes 1500005-1500014/3000000");
    let tail = get_with(&app, "1/a.txt", &[("range", "bytes=-3"), ("if-range", &etag)]).await;
    assert_eq!((tail.status.as_u16(), tail.text.as_str()), (206, "789"));
    let changed = get_with(&app, "1/a.txt", &[("range", "bytes=-3"), ("if-range", "\"x\"")]).await;
    assert_eq!((changed.status.as_u16(), changed.text.len()), (200, text.len()));
    let beyond = get_with(&app, "1/a.txt", &[("range", "bytes=3000000-")]).await;
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), "bytes */3000000");
    let known = get_with(&app, "1/a.txt", &[("if-none-match", &etag)]).await;
    assert_eq!((known.status.as_u16(), known.text.as_str()), (304, ""));
    let head = send(&app, Method::HEAD, &format!("{PROXY}/1/a.txt"), &[], "").await;
    assert_eq!(head.status, 200);
    assert_eq!(
        (head.header("content-length"), head.text.as_str()),
        ("3000000", "")
    );

    let listed = app.get(&format!("{PROXY}?path=1")).await.json();
    assert_eq!(
        listed,
        json!({"files": [
            {"path": "a.txt", "is_dir": false, "file_size": 3_000_000},
            {"path": "d", "is_dir": true},
        ]})
    );
    assert_eq!(
        app.get(&format!("{PROXY}?path=1/d")).await.json()["files"][0]["path"],
        "b c.txt"
    );
    assert_eq!(app.get(&format!("{PROXY}?path=1/a.txt")).await.json(), json!({}));

    // A folder and a file cannot have one name.
    for path in ["1/d", "1/a.txt/x"] {
        let reply = put(&app, path, "x").await;
        assert_eq!(reply.json()["error_code"], "INVALID_PARAMETER_VALUE", "{path}");
    }
    assert_eq!(objects(&app).await, 1, "what was refused leaves nothing");

    for path in ["1", "2/a.txt"] {
        assert_eq!(objects(&app).await, 1, "another name stands for it");
        let reply = send(&app, Method::DELETE, &format!("{PROXY}/{path}"), &[], "").await;
        assert_eq!(reply.json(), json!({}));
    }
    assert_eq!(objects(&app).await, 0);
    let gone = get_with(&app, "1/a.txt", &[]).await;
    assert_eq!(gone.status, 404);
    assert_eq!(gone.json()["error_code"], "RESOURCE_DOES_NOT_EXIST");
    assert_eq!(gone.json()["message"], "No such artifact: '1/a.txt'");
    let again = send(&app, Method::DELETE, &format!("{PROXY}/1"), &[], "").await;
    assert_eq!(again.status, 404);
}

#[tokio::test]
async fn replacing_a_file_frees_its_old_bytes() {
    let app = App::new();
    put(&app, "a", "one").await;
    put(&app, "b", "one").await;
    put(&app, "a", "two").await;
    assert_eq!(objects(&app).await, 2);
    put(&app, "b", "two").await;
    assert_eq!(objects(&app).await, 1);
    assert_eq!(get_with(&app, "a", &[]).await.text, "two");
    put(&app, "empty", "").await;
    let empty = get_with(&app, "empty", &[]).await;
    assert_eq!((empty.status.as_u16(), empty.text.as_str()), (200, ""));
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing_visible_and_no_file() {
    let app = App::new();
    put(&app, "a", "old").await;
    let pieces = vec![
        Ok(Bytes::from(vec![b'x'; 3 << 20])),
        Err(std::io::Error::other("the line broke")),
    ];
    let reply = put(&app, "a", Body::from_stream(futures::stream::iter(pieces))).await;
    assert_eq!(reply.status, 400);
    assert_eq!(get_with(&app, "a", &[]).await.text, "old");
    use tidemill_api::ControlPlane as _;
    let unfinished = app.fake.tracking().store().data_dir().join("objects/.unfinished");
    for _ in 0..500 {
        if std::fs::read_dir(&unfinished).unwrap().count() == 0 {
            return;
        }
        tidemill_core::clock::real_sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("the temporary file is still there");
}

/// Every spelling of a way out, as it stands in a query or a path.
const WAYS_OUT: &[&str] = &[
    "..",
    "../x",
    "a/../../x",
    "%2e%2e/x",
    "%252e%252e/x",
    "%25252e%25252e%25252fx",
    "..%2fx",
    "..%252fx",
    "%2Fetc%2Fpasswd",
    "%252Fetc%252Fpasswd",
    "/etc/passwd",
    "..%5Cx",
    "a%5C..%5C..%5Cx",
    "%5C%5Chost%5Cshare",
    "file:%2F%2F%2Fetc%2Fpasswd",
    "file:/etc/passwd",
    "FILE%3Aetc",
    "a%00b",
    "a%2500b",
    "C:%2Fx",
    "C%3A%5Cx",
    "a%23b",
    "a%2523b",
];

#[tokio::test]
async fn no_route_lets_a_path_lead_out_however_it_is_written() {
    let app = App::new();
    let (run, _) = run(&app).await;
    let model = app
        .post("/api/2.0/mlflow/logged-models", json!({"experiment_id": "0"}))
        .await;
    let model = model.json()["model"]["info"]["model_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let json_type: &[(&str, &str)] = &[("content-type", "application/json")];
    for way in WAYS_OUT {
        let routes = [
            (Method::GET, format!("{PROXY}/{way}"), ""),
            (Method::PUT, format!("{PROXY}/{way}"), "x"),
            (Method::DELETE, format!("{PROXY}/{way}"), ""),
            (
                Method::GET,
                format!("/ajax-api/2.0/mlflow-artifacts/artifacts/{way}"),
                "",
            ),
            (Method::GET, format!("{PROXY}?path={way}"), ""),
            (
                Method::POST,
                format!("/api/2.0/mlflow-artifacts/mpu/create/{way}"),
                r#"{"path": "f", "num_parts": 1}"#,
            ),
            (
                Method::POST,
                format!("/api/2.0/mlflow-artifacts/mpu/complete/{way}"),
                r#"{"path": "f", "upload_id": "u", "parts": []}"#,
            ),
            (
                Method::POST,
                format!("/api/2.0/mlflow-artifacts/mpu/abort/{way}"),
                r#"{"path": "f", "upload_id": "u"}"#,
            ),
            (
                Method::GET,
                format!("/api/2.0/mlflow-artifacts/presigned/{way}"),
                "",
            ),
            (
                Method::GET,
                format!("/api/2.0/mlflow-artifacts/signed/{way}?token=x&until=1&workspace=default"),
                "",
            ),
            (
                Method::GET,
                format!("/api/2.0/mlflow/artifacts/list?run_id={run}&path={way}"),
                "",
            ),
            (Method::GET, format!("/get-artifact?run_id={run}&path={way}"), ""),
            (
                Method::GET,
                format!("/get-artifact?run_uuid={run}&path={way}"),
                "",
            ),
            (
                Method::GET,
                format!("/model-versions/get-artifact?name=m&version=1&path={way}"),
                "",
            ),
            (
                Method::POST,
                format!("/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path={way}"),
                "x",
            ),
            (
                Method::GET,
                format!(
                    "/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files?artifact_file_path={way}"
                ),
                "",
            ),
            (
                Method::GET,
                format!(
                    "/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/directories?artifact_directory_path={way}"
                ),
                "",
            ),
        ];
        for (method, uri, body) in routes {
            let reply = send(&app, method.clone(), &uri, json_type, body).await;
            assert_eq!(reply.status, 400, "{method} {uri}: {}", reply.text);
            assert_eq!(
                reply.json()["error_code"],
                "INVALID_PARAMETER_VALUE",
                "{method} {uri}"
            );
            assert_eq!(reply.json()["message"], "Invalid path", "{method} {uri}");
        }
    }
    assert_eq!(objects(&app).await, 0);
}

#[tokio::test]
async fn a_location_that_a_client_chose_is_not_read_from_the_servers_disk() {
    let app = App::new();
    for location in ["/etc", "file:///etc", "file://localhost/etc"] {
        let body = json!({"name": location, "artifact_location": location});
        let created = app.post("/api/2.0/mlflow/experiments/create", body).await.json();
        let body = json!({"experiment_id": created["experiment_id"], "start_time": 1});
        let run = app.post("/api/2.0/mlflow/runs/create", body).await.json();
        let id = run["run"]["info"]["run_id"].as_str().unwrap();
        for uri in [
            format!("/get-artifact?run_id={id}&path=passwd"),
            format!("/api/2.0/mlflow/artifacts/list?run_id={id}"),
        ] {
            let reply = app.get(&uri).await;
            assert_eq!(reply.status, 403, "{location}: {}", reply.text);
        }
    }
    // Of stores, the server looks into buckets that it was given, and into no others.
    for (location, status, code) in [
        ("s3://bucket/x", 403, "PERMISSION_DENIED"),
        ("gs://bucket/x", 501, "NOT_IMPLEMENTED"),
    ] {
        let body = json!({"name": location, "artifact_location": location});
        let created = app.post("/api/2.0/mlflow/experiments/create", body).await.json();
        let body = json!({"experiment_id": created["experiment_id"], "start_time": 1});
        let run = app.post("/api/2.0/mlflow/runs/create", body).await.json();
        let id = run["run"]["info"]["run_id"].as_str().unwrap();
        let reply = app.get(&format!("/get-artifact?run_id={id}&path=x")).await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()["error_code"].clone()),
            (status, json!(code))
        );
    }
}

#[tokio::test]
async fn what_somebody_uploaded_runs_no_script_on_our_origin() {
    let app = App::new();
    let (run, uri) = run(&app).await;
    let folder = uri.strip_prefix("mlflow-artifacts:/").unwrap();
    let script = "<script>alert(1)</script>";
    for (name, kind) in [
        ("page.html", "text/html"),
        ("picture.svg", "image/svg+xml"),
        ("page.xhtml", "application/xhtml+xml"),
        ("page.HTML", "text/html"),
        ("code.js", "text/plain"),
        ("odd name\r\nSet-Cookie: a=b.html", "text/html"),
    ] {
        let encoded = name
            .replace(' ', "%20")
            .replace("\r\n", "%0D%0A")
            .replace(':', "%3A");
        put(&app, &format!("{folder}/{encoded}"), script).await;
        for uri in [
            format!("{PROXY}/{folder}/{encoded}"),
            format!("/get-artifact?run_id={run}&path={encoded}"),
        ] {
            let reply = app.get(&uri).await;
            assert_eq!(
                (reply.status.as_u16(), reply.text.as_str()),
                (200, script),
                "{uri}"
            );
            assert_eq!(reply.header("content-type"), kind);
            assert_eq!(reply.header("x-content-type-options"), "nosniff");
            assert!(
                reply
                    .header("content-disposition")
                    .starts_with("attachment; filename=")
            );
            assert_eq!(
                reply.header("content-security-policy"),
                "default-src 'none'; sandbox"
            );
            assert_eq!(reply.header("set-cookie"), "");
        }
    }
}

#[tokio::test]
async fn a_runs_files_are_uploaded_listed_and_read_by_its_id() {
    let app = App::new();
    let (run, root) = run(&app).await;
    let upload = "/ajax-api/2.0/mlflow/upload-artifact";
    for (uri, message) in [
        (upload.to_owned(), "Request must specify run_uuid."),
        (
            format!("{upload}?run_uuid={run}&path="),
            "Request must specify path.",
        ),
        (
            format!("{upload}?run_uuid={run}&path=a"),
            "Request must specify data.",
        ),
    ] {
        let reply = send(&app, Method::POST, &uri, &[], "").await;
        assert_eq!(reply.json()["message"], message);
    }
    let uri = format!("{upload}?run_uuid={run}&path=images/a.txt");
    let too_large = send(&app, Method::POST, &uri, &[], vec![0_u8; 10 * 1024 * 1024 + 1]).await;
    assert_eq!(
        too_large.json()["message"],
        "Artifact size is too large. Max size is 10MB."
    );
    let foreign: &[(&str, &str)] = &[("host", "localhost:5000"), ("origin", "https://evil.example")];
    assert_eq!(send(&app, Method::POST, &uri, foreign, "x").await.status, 403);
    let own: &[(&str, &str)] = &[("host", "localhost:5000"), ("origin", "http://localhost:5000")];
    assert_eq!(send(&app, Method::POST, &uri, own, "hello").await.status, 200);

    let listed = app
        .get(&format!("/api/2.0/mlflow/artifacts/list?run_id={run}"))
        .await
        .json();
    assert_eq!(
        listed,
        json!({"root_uri": root, "files": [{"path": "images", "is_dir": true}]})
    );
    let inner = app
        .get(&format!(
            "/ajax-api/2.0/mlflow/artifacts/list?run_uuid={run}&path=images"
        ))
        .await
        .json();
    assert_eq!(
        inner["files"],
        json!([{"path": "images/a.txt", "is_dir": false, "file_size": 5}])
    );
    let read = app
        .get(&format!("/get-artifact?run_uuid={run}&path=images/a.txt"))
        .await;
    assert_eq!(read.text, "hello");
    let missing = app.get("/get-artifact?run_id=0123&path=a").await;
    assert_eq!(missing.json()["message"], "Run with id=0123 not found");
    let missing = app
        .get("/model-versions/get-artifact?name=m&version=1&path=a")
        .await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn an_upload_in_parts_becomes_one_file() {
    let app = App::new();
    let mpu = "/api/2.0/mlflow-artifacts/mpu";
    let create = |parts: u32| json!({"path": "/home/me/big.bin", "num_parts": parts});
    let opened = app
        .post(&format!("{mpu}/create/1/run/artifacts"), create(3))
        .await
        .json();
    let id = opened["upload_id"].as_str().unwrap();
    let part = |n: usize| (b'a' + n as u8) as char;
    let mut parts = Vec::new();
    for (n, credential) in opened["credentials"].as_array().unwrap().iter().enumerate().rev() {
        let url = credential["url"].as_str().unwrap();
        let uri = url.strip_prefix("http://localhost").unwrap();
        let body = part(n).to_string().repeat(1_500_000);
        let reply = send(&app, Method::PUT, uri, &[], body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let number = credential["part_number"].clone();
        parts.insert(
            0,
            json!({"part_number": number, "etag": reply.header("etag"), "url": url}),
        );
        let forged = uri.replace("token=", "token=0");
        assert_eq!(send(&app, Method::PUT, &forged, &[], "x").await.status, 403);
        let other = uri.replace(&format!("/{}?", n + 1), "/9?");
        assert_eq!(send(&app, Method::PUT, &other, &[], "x").await.status, 403);
    }
    let complete = |parts: &[Value]| json!({"path": "big.bin", "upload_id": id, "parts": parts});
    let uri = format!("{mpu}/complete/1/run/artifacts");
    let short = app.post(&uri, complete(&parts[..2])).await;
    assert_eq!(short.json()["error_code"], "INVALID_PARAMETER_VALUE");
    let mut wrong = parts.clone();
    wrong[1]["etag"] = json!("\"x\"");
    assert_eq!(app.post(&uri, complete(&wrong)).await.status, 400);
    let elsewhere = format!("{mpu}/complete/2/run/artifacts");
    assert_eq!(app.post(&elsewhere, complete(&parts)).await.status, 404);
    assert_eq!(get_with(&app, "1/run/artifacts/big.bin", &[]).await.status, 404);
    let done = app.post(&uri, complete(&parts)).await;
    assert_eq!((done.status.as_u16(), done.json()), (200, json!({})));
    assert_eq!(app.post(&uri, complete(&parts)).await.status, 404);
    let whole = get_with(&app, "1/run/artifacts/big.bin", &[]).await.text;
    let expected: String = (0..3).map(|n| part(n).to_string().repeat(1_500_000)).collect();
    assert!(whole == expected);

    let opened = app.post(&format!("{mpu}/create/1"), create(1)).await.json();
    let abort = json!({"path": "big.bin", "upload_id": opened["upload_id"]});
    assert_eq!(app.post(&format!("{mpu}/abort/1"), abort).await.json(), json!({}));
    let url = opened["credentials"][0]["url"].as_str().unwrap();
    let late = send(
        &app,
        Method::PUT,
        url.strip_prefix("http://localhost").unwrap(),
        &[],
        "x",
    )
    .await;
    assert_eq!(late.status, 404);
    let none = app.post(&format!("{mpu}/create/1"), create(0)).await;
    assert_eq!(none.status, 400);
}

#[tokio::test]
async fn a_signed_url_opens_one_file_for_an_hour() {
    let app = App::new();
    put(&app, "1/a%20b.txt", "hello").await;
    put(&app, "1/other", "secret").await;
    let signed = app
        .get("/api/2.0/mlflow-artifacts/presigned/1/a%20b.txt")
        .await
        .json();
    assert_eq!(
        (&signed["file_size"], &signed["headers"]),
        (&json!(5), &json!({}))
    );
    let uri = signed["url"]
        .as_str()
        .unwrap()
        .strip_prefix("http://localhost")
        .unwrap();
    let reply = send(&app, Method::GET, uri, &[("range", "bytes=1-2")], "").await;
    assert_eq!((reply.status.as_u16(), reply.text.as_str()), (206, "el"));
    assert_eq!(app.get(&uri.replace("a%20b.txt", "other")).await.status, 403);
    assert_eq!(app.get(&uri.replace("until=", "until=9")).await.status, 403);
    use tidemill_api::ControlPlane as _;
    let later = Timestamp::from_micros(app.fake.now().as_micros() + 3_601_000_000);
    app.fake.advance(later).await.unwrap();
    assert_eq!(app.get(uri).await.status, 403);
}
