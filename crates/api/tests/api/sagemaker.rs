use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_control::tracking::{Destination, TrackingOptions};

use crate::fake::{ADMIN_PASSWORD, App, Fake, Reply};

async fn send(app: &App, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn an_endpoint_answers_in_the_type_that_is_accepted_and_says_which_variant_it_was() {
    let app = App::new();
    let path = "/endpoints/prices/invocations";
    let attributes = ("x-amzn-sagemaker-custom-attributes", "trace=1");
    let reply = send(
        &app,
        path,
        &[JSON, attributes],
        r#"{"instances": [[1, 2], [3, 4]]}"#,
    )
    .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["predictions"], json!([2.0, 6.0]));
    assert_eq!(reply.header("x-amzn-invoked-production-variant"), "champion");
    assert_eq!(reply.header("x-amzn-sagemaker-custom-attributes"), "trace=1");
    // Without a header line, as SageMaker's own algorithms take CSV; with one, if it holds names.
    for body in ["1,2\n3,4\n", "b,a\n2,1\n4,3\n"] {
        let csv = [("content-type", "text/csv"), ("accept", "text/csv")];
        let reply = send(&app, path, &csv, body).await;
        assert_eq!(
            (reply.header("content-type"), reply.text.as_str()),
            ("text/csv", "2.0\n6.0\n"),
            "{body}"
        );
    }
    let lines = [
        ("content-type", "application/jsonlines"),
        ("accept", "application/jsonlines"),
    ];
    let reply = send(&app, path, &lines, "{\"features\": [1, 2]}\n[3, 4]\n").await;
    assert_eq!(reply.text, "2.0\n6.0\n");
    let reply = send(&app, path, &[JSON], "[[1, 2]]").await;
    assert_eq!(reply.json()["predictions"], json!([2.0]));

    for variant in ["3", "champion", "AllTraffic"] {
        let headers = [JSON, ("x-amzn-sagemaker-target-variant", variant)];
        assert_eq!(
            send(&app, path, &headers, "[[1, 2]]").await.status,
            200,
            "{variant}"
        );
    }
    let id = [JSON, ("x-amzn-sagemaker-inference-id", "i-1")];
    let first = send(&app, path, &id, "[[1, 2]]").await.json();
    assert_eq!(
        send(&app, path, &id, "[[1, 2]]").await.json(),
        first,
        "the same id, the same answer"
    );
    let session = [JSON, ("x-amzn-sagemaker-session-id", "NEW_SESSION")];
    let reply = send(&app, path, &session, "[[1, 2]]").await;
    assert_eq!(reply.header("x-amzn-sagemaker-new-session-id").len(), 32);
}

#[tokio::test]
async fn a_deployment_gets_its_tensors_or_the_body_as_it_came() {
    let app = App::new();
    let reply = send(&app, "/endpoints/double/invocations", &[JSON], "[[1, 2, 3]]").await;
    assert_eq!(reply.json(), json!({"predictions": [[2.0, 4.0, 6.0]]}));
    assert_eq!(reply.header("x-amzn-invoked-production-variant"), "3");
    let csv = [("content-type", "text/csv"), ("accept", "text/csv")];
    let reply = send(&app, "/endpoints/double/invocations", &csv, "1,2,3\n4,5,6\n").await;
    assert_eq!(reply.text, "2.0,4.0,6.0\n8.0,10.0,12.0\n");
    let headers = [
        ("content-type", "application/x-anything"),
        ("x-amzn-sagemaker-custom-attributes", "k=v"),
        ("x-amzn-sagemaker-inference-id", "i-2"),
        ("x-amzn-sagemaker-target-variant", "2"),
    ];
    let reply = send(&app, "/endpoints/echo/invocations", &headers, "plain").await;
    let told = reply.json();
    assert_eq!(
        (&told["body"], &told["type"]),
        (&json!("plain"), &json!("application/x-anything"))
    );
    assert_eq!(
        (&told["parameters"]["custom_attributes"], &told["id"]),
        (&json!("k=v"), &json!("i-2"))
    );
    assert_eq!(reply.header("x-amzn-invoked-production-variant"), "2");
}

/// Path, headers, body; status and name of the error.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

#[tokio::test]
async fn errors_have_the_runtimes_names() {
    let app = App::new();
    let prices = "/endpoints/prices/invocations";
    let variant = |name| [JSON, ("x-amzn-sagemaker-target-variant", name)];
    let model = [JSON, ("x-amzn-sagemaker-target-model", "a.tar.gz")];
    app.fake.serving_unload("double");
    let cases: [Case; 8] = [
        (
            "/endpoints/nobody/invocations",
            &[JSON],
            "[[1, 2]]",
            400,
            "ValidationError",
        ),
        (prices, &variant("green"), "[[1, 2]]", 400, "ValidationError"),
        (prices, &variant("9"), "[[1, 2]]", 400, "ValidationError"),
        (prices, &model, "[[1, 2]]", 400, "ValidationError"),
        (prices, &[JSON], r#"[["far", 2]]"#, 424, "ModelError"),
        (prices, &[("content-type", "image/png")], "x", 424, "ModelError"),
        (
            "/endpoints/empty/invocations",
            &[JSON],
            "[[1, \"UA\"]]",
            429,
            "ModelNotReadyException",
        ),
        (
            "/endpoints/double/invocations",
            &[JSON],
            "[[1, 2, 3]]",
            429,
            "ModelNotReadyException",
        ),
    ];
    for (path, headers, body, status, name) in cases {
        let reply = send(&app, path, headers, body).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("x-amzn-errortype")),
            (status, name),
            "{path} {}",
            reply.text
        );
        let error = reply.json();
        assert_eq!(
            error["OriginalStatusCode"].is_u64(),
            name == "ModelError",
            "{error}"
        );
        assert!(
            error["Message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
    }
    let reply = send(&app, prices, &[JSON], r#"[["far", 2]]"#).await.json();
    assert_eq!(reply["OriginalStatusCode"], 400);
    assert!(
        reply["OriginalMessage"]
            .as_str()
            .unwrap()
            .contains("`far` is not a number")
    );
    // The page's own addresses below `/endpoints` stay the page's.
    assert_eq!(
        app.get("/endpoints/prices").await.header("content-type"),
        "text/html; charset=utf-8"
    );
}

/// The headers and the payload of each frame.
fn frames(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    while !bytes.is_empty() {
        let (frame, rest) = bytes.split_at(number(bytes));
        let (body, sum) = frame.split_at(frame.len() - 4);
        assert_eq!(number(sum), crc32fast::hash(body) as usize);
        assert_eq!(number(&frame[8..]), crc32fast::hash(&frame[..8]) as usize);
        let (head, payload) = body[12..].split_at(number(&frame[4..]));
        found.push((String::from_utf8_lossy(head).into_owned(), payload.to_vec()));
        bytes = rest;
    }
    found
}

#[tokio::test]
async fn a_stream_comes_in_frames_and_its_error_is_one() {
    let app = App::new();
    let headers = [JSON, ("x-amzn-sagemaker-custom-attributes", "a")];
    let path = "/endpoints/count/invocations-response-stream";
    let reply = send(&app, path, &headers, r#"{"instances": [5]}"#).await;
    assert_eq!(reply.header("content-type"), "application/vnd.amazon.eventstream");
    assert_eq!(
        reply.header("x-amzn-sagemaker-content-type"),
        "application/jsonlines"
    );
    assert_eq!(reply.header("x-amzn-sagemaker-custom-attributes"), "a");
    let parts = frames(&reply.bytes);
    assert_eq!(parts.len(), 5);
    assert!(parts[0].0.contains("PayloadPart"));
    assert_eq!(parts[2].1, b"{\"predictions\":[2.0]}\n");
    assert!(parts[3].0.contains("ModelStreamError") && parts[3].0.contains("exception"));
    let error: Value = serde_json::from_slice(&parts[3].1).unwrap();
    assert!(error["Message"].as_str().unwrap().contains("four is too many"));

    let path = "/endpoints/prices/invocations-response-stream";
    let parts = frames(&send(&app, path, &[JSON], "[[1, 2]]").await.bytes);
    let whole: Value = serde_json::from_slice(&parts[0].1).unwrap();
    assert_eq!(whole["predictions"], json!([2.0]));
}

#[tokio::test]
async fn an_asynchronous_request_reads_and_writes_only_where_it_may() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let options = TrackingOptions {
        artifacts_destination: Some(Destination::Folder(root.clone())),
        ..TrackingOptions::default()
    };
    let app = App::of(Fake::with(options));
    let _working = app.fake.work();
    std::fs::write(root.join("in.json"), "[[1, 2]]").unwrap();
    std::fs::write(root.join("bad.json"), "[[").unwrap();
    let path = "/endpoints/prices/async-invocations";
    let ask = async |location: &str, id: &str| {
        let headers = [
            ("x-amzn-sagemaker-inputlocation", location),
            ("x-amzn-sagemaker-content-type", "application/json"),
            ("x-amzn-sagemaker-inference-id", id),
        ];
        send(&app, path, &headers, "").await
    };
    let read = async |location: &str| {
        let path = location.strip_prefix("file://").unwrap().to_owned();
        for _ in 0..500 {
            if let Ok(text) = std::fs::read_to_string(&path) {
                return serde_json::from_str::<Value>(&text).unwrap();
            }
            tidemill_core::clock::real_sleep(Duration::from_millis(10)).await;
        }
        panic!("{path} never came");
    };
    let reply = ask(&format!("file://{}/in.json", root.display()), "job-1").await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()),
        (202, json!({"InferenceId": "job-1"}))
    );
    assert_eq!(
        read(reply.header("x-amzn-sagemaker-outputlocation")).await["predictions"],
        json!([2.0])
    );
    for (input, expected) in [("bad.json", "not valid JSON"), ("none.json", "there is no file")] {
        let reply = ask(&format!("file://{}/{input}", root.display()), input).await;
        let error = read(reply.header("x-amzn-sagemaker-failurelocation")).await;
        assert!(error["Message"].as_str().unwrap().contains(expected), "{error}");
    }
    for (location, id, expected) in [
        ("file:///etc/passwd", "x", "may not read"),
        ("s3://elsewhere/x", "x", "may not read"),
        ("", "x", "may not read"),
        (
            &*format!("file://{}/in.json", root.display()),
            "../x",
            "expected at most 64 letters",
        ),
    ] {
        let reply = ask(location, id).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("x-amzn-errortype")),
            (400, "ValidationError")
        );
        assert!(reply.text.contains(expected), "{}", reply.text);
    }
    let outside = ask(&format!("file://{}/../../etc/passwd", root.display()), "out").await;
    if outside.status == 202 {
        let error = read(outside.header("x-amzn-sagemaker-failurelocation")).await;
        assert!(
            error["Message"].as_str().unwrap().contains("there is no file"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn requests_of_one_id_have_answers_of_their_own_and_a_cancelled_one_is_told_so() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let options = TrackingOptions {
        artifacts_destination: Some(Destination::Folder(root.clone())),
        ..TrackingOptions::default()
    };
    let app = App::of(Fake::with(options));
    let ask = async || {
        let location = format!("file://{}/in.json", root.display());
        let headers = [
            ("x-amzn-sagemaker-inputlocation", location.as_str()),
            ("x-amzn-sagemaker-content-type", "application/json"),
            ("x-amzn-sagemaker-inference-id", "same"),
        ];
        let reply = send(&app, "/endpoints/prices/async-invocations", &headers, "").await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        reply
            .header("x-amzn-sagemaker-failurelocation")
            .strip_prefix("file://")
            .unwrap()
            .to_owned()
    };
    let (first, second) = (ask().await, ask().await);
    assert_ne!(first, second);
    let list = "/api/v1/batch-jobs?kind=invoke";
    let jobs = app.get(list).await.json()["items"].clone();
    assert_eq!(jobs.as_array().unwrap().len(), 2);
    let cancel = format!("/api/v1/batch-jobs/{}/cancel", jobs[1]["id"].as_str().unwrap());
    let reply = app.post(&cancel, json!({})).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["state"]),
        (200, &json!("cancelled"))
    );
    let said: Value = serde_json::from_str(&std::fs::read_to_string(&first).unwrap()).unwrap();
    assert_eq!(said["ErrorCode"], "batch_job_cancelled");
    assert!(!std::path::Path::new(&second).exists());
    let left = app.get(list).await.json()["items"].clone();
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
}

#[tokio::test]
async fn a_signed_requests_access_key_is_a_token() {
    let app = App::with_users("READ").await;
    let path = "/endpoints/prices/invocations";
    let reply = send(&app, path, &[JSON], "[[1, 2]]").await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("x-amzn-errortype")),
        (403, "AccessDeniedException")
    );
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("admin:{ADMIN_PASSWORD}"));
    let admin = format!("Basic {basic}");
    let made = send(
        &app,
        "/api/v1/tokens",
        &[JSON, ("authorization", &admin)],
        r#"{"name": "aws"}"#,
    )
    .await;
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let signed = |key: &str| {
        format!(
            "AWS4-HMAC-SHA256 Credential={key}/20130517/eu-west-1/sagemaker/aws4_request, SignedHeaders=host, Signature=ab"
        )
    };
    let reply = send(
        &app,
        path,
        &[JSON, ("authorization", &signed(&token))],
        "[[1, 2]]",
    )
    .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(
        send(
            &app,
            path,
            &[JSON, ("authorization", &signed("AKIA"))],
            "[[1, 2]]"
        )
        .await
        .status,
        403
    );
}
