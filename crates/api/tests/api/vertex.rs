use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::fake::App;

fn path(call: &str) -> String {
    format!("/v1/projects/p/locations/europe-west1/endpoints/{call}?%24alt=json%3Benum-encoding%3Dint")
}

fn wrapped(kind: &str, body: &str) -> Value {
    json!({"httpBody": {"contentType": kind, "data": STANDARD.encode(body)}})
}

fn unwrapped(body: &Value) -> Value {
    serde_json::from_slice(&STANDARD.decode(body["data"].as_str().unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn predictions_come_from_tables_and_deployments() {
    let app = App::new();
    let answer = app
        .post(
            &path("prices:predict"),
            json!({"instances": [[1.0, 2.0], {"a": 3, "b": 4}]}),
        )
        .await;
    assert_eq!(answer.status, 400, "rows of one sort: {}", answer.text);
    let answer = app
        .post(&path("prices:predict"), json!({"instances": [[1.0, 2.0]]}))
        .await
        .json();
    assert_eq!(answer["predictions"], json!([2.0]));
    assert_eq!(
        (&answer["deployedModelId"], &answer["modelVersionId"]),
        (&json!("3"), &json!("3"))
    );
    assert_eq!(answer["model"], "projects/p/locations/europe-west1/models/prices");
    assert_eq!(answer["metadata"]["predictionIds"].as_array().unwrap().len(), 1);
    let answer = app
        .post(&path("grades:predict"), json!({"instances": [[1, 2]]}))
        .await
        .json();
    assert_eq!(
        answer["predictions"],
        json!([{"classes": ["low", "high"], "scores": [0.25, 0.75]}])
    );
    let answer = app
        .post(
            &path("double:predict"),
            json!({"instances": [[1, 2, 3]], "parameters": {"k": 1}}),
        )
        .await
        .json();
    assert_eq!(answer["predictions"], json!([[2.0, 4.0, 6.0]]));
    let body = json!({"instances": ["hi"], "parameters": {"temperature": 1}});
    let answer = app.post(&path("echo:predict"), body.clone()).await.json();
    assert_eq!(answer["predictions"][0]["body"], body);
}

#[tokio::test]
async fn raw_bodies_come_wrapped_or_bare_and_go_back_alike() {
    let app = App::new();
    let rows = r#"{"instances": [[1, 2]]}"#;
    let bare = app
        .post_as(&path("prices:rawPredict"), "application/json", rows)
        .await
        .json();
    assert_eq!(bare["predictions"], json!([2.0]));
    let reply = app
        .post(&path("prices:rawPredict"), wrapped("application/json", rows))
        .await
        .json();
    assert_eq!(reply["contentType"], "application/json");
    assert_eq!(unwrapped(&reply)["predictions"], json!([2.0]));
    let csv = app
        .post(&path("double:rawPredict"), wrapped("text/csv", "1,2,3\n"))
        .await
        .json();
    assert_eq!(unwrapped(&csv)["predictions"], json!([[2.0, 4.0, 6.0]]));
    let reply = app
        .post(&path("double:rawPredict"), json!({"httpBody": {"data": "?"}}))
        .await;
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("not base64"),
        "{}",
        reply.text
    );
}

#[tokio::test]
async fn a_raw_stream_is_a_json_list_that_grows() {
    let app = App::new();
    let reply = app
        .post(&path("count:streamRawPredict"), json!({"instances": [5]}))
        .await;
    let items = reply.json();
    assert_eq!(items.as_array().unwrap().len(), 5);
    assert_eq!(items[4], json!({"predictions": [4.0]}));
    assert_eq!(items[3]["error"]["status"], "INTERNAL");
    let reply = app
        .post(&path("count:streamRawPredict"), json!({"instances": [0]}))
        .await;
    assert_eq!(reply.json(), json!([]));
    let asked = wrapped("application/json", r#"{"instances": [[1, 2]]}"#);
    let items = app.post(&path("prices:streamRawPredict"), asked).await.json();
    assert_eq!(unwrapped(&items[0])["predictions"], json!([2.0]));
}

#[tokio::test]
async fn errors_have_googles_shape() {
    let app = App::new();
    for (call, body, code, status) in [
        ("nobody:predict", json!({"instances": []}), 404, "NOT_FOUND"),
        (
            "prices:predict",
            json!({"instances": [["far", 1]]}),
            400,
            "INVALID_ARGUMENT",
        ),
        ("prices:predict", json!({}), 400, "INVALID_ARGUMENT"),
        ("prices:chat", json!({}), 404, "NOT_FOUND"),
        ("prices", json!({}), 404, "NOT_FOUND"),
        (
            "empty:predict",
            json!({"instances": [[1, "UA"]]}),
            503,
            "UNAVAILABLE",
        ),
        ("fails:predict", json!({"instances": []}), 500, "INTERNAL"),
    ] {
        let reply = app.post(&path(call), body).await;
        assert_eq!(reply.status.as_u16(), code, "{call}: {}", reply.text);
        let error = &reply.json()["error"];
        assert_eq!(
            (&error["code"], &error["status"]),
            (&json!(code), &json!(status)),
            "{call}"
        );
        assert!(error["message"].as_str().is_some());
    }
}

#[tokio::test]
async fn googles_client_has_no_integers_and_asks_for_them_nevertheless() {
    let app = App::new();
    let body = json!({"instances": [{"INT64": 3.0, "BYTES": 7.0}], "parameters": {"k": 5.0, "share": 0.5}});
    let reply = app
        .post("/v1/projects/p/locations/l/endpoints/identity:predict", body)
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["predictions"], json!([{"INT64": 3, "BYTES": "7"}]));
    let body = json!({"instances": [{"INT64": 3.5}]});
    let reply = app
        .post("/v1/projects/p/locations/l/endpoints/identity:predict", body)
        .await;
    assert!(reply.text.contains("`3.5` is not INT64"), "{}", reply.text);
}
