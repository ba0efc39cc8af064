use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::fake::App;

#[tokio::test]
async fn health_and_version_answer_as_mlflow_does() {
    let app = App::new();
    assert_eq!(app.get("/ping").await.text, "\n");
    assert_eq!(app.get("/health").await.text, "OK");
    assert_eq!(app.get("/version").await.text, "3.10.1");
    app.fake.ready.store(false, std::sync::atomic::Ordering::Relaxed);
    let reply = app.get("/ping").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json()["error_code"], "TEMPORARILY_UNAVAILABLE");
}

#[tokio::test]
async fn every_json_form_gives_the_same_predictions() {
    let app = App::new();
    let rows =
        json!([{"distance": 250, "carrier": "UA"}, {"distance": null, "carrier": "AA", "flight_id": 7}]);
    let forms = [
        json!({"dataframe_split": {"columns": ["carrier", "distance"], "index": [0, 1], "data": [["UA", 250], ["AA", null]]}}),
        json!({"dataframe_records": rows}),
        json!({"inputs": {"distance": [250, null], "carrier": ["UA", "AA"]}}),
        json!({"inputs": rows}),
        json!({"inputs": [[250, "UA"], [null, "AA"]]}),
        json!({"instances": rows}),
        json!({"instances": [[250, "UA"], [null, "AA"]], "params": {}}),
    ];
    for form in forms {
        let reply = app.post("/invocations/flights", form.clone()).await;
        assert_eq!(reply.status, 200, "{form}: {}", reply.text);
        let answer = reply.json();
        assert_eq!(answer["predictions"], json!([0.25, 0.0]), "{form}");
        assert_eq!(answer["model_versions"], json!([3, 3]));
        assert_eq!(answer["prediction_ids"].as_array().unwrap().len(), 2);
        assert!(answer["degraded"].is_null());
    }
}

#[tokio::test]
async fn csv_is_read_by_the_schema() {
    let app = App::new();
    let csv = "carrier,distance,flight_id\nUA,250,1\n\"A,A\",NaN,2\n,1e3,3\n";
    let reply = app.post_as("/invocations", "text/csv; charset=utf-8", csv).await;
    assert_eq!(
        reply.json()["predictions"],
        json!([0.25, 0.0, 1.0]),
        "{}",
        reply.text
    );

    let wrong = app
        .post_as("/invocations", "text/csv", "carrier,distance\nUA,far\n")
        .await;
    assert_eq!(wrong.status, 400);
    assert!(
        wrong
            .text
            .contains("field `distance` row 0: `far` is not a number"),
        "{}",
        wrong.text
    );
    let ragged = app
        .post_as("/invocations", "text/csv", "carrier,distance\nUA\n")
        .await;
    assert!(
        ragged
            .text
            .contains("not valid CSV at line 2: 1 fields, expected 2"),
        "{}",
        ragged.text
    );
    let latin = app
        .post_as("/invocations", "text/csv", b"carrier,distance\n\xe9,1\n".to_vec())
        .await;
    assert!(latin.text.contains("it is not UTF-8"), "{}", latin.text);
}

#[tokio::test]
async fn a_request_id_makes_a_repeat_safe() {
    let app = App::new();
    let body = json!({"instances": [[1, "UA"]], "params": {"request_id": "q1"}});
    let first = app.post("/invocations", body.clone()).await.json();
    let second = app.post("/invocations", body).await.json();
    assert_eq!(first["prediction_ids"], second["prediction_ids"]);

    let by_header = || {
        let request = Request::post("/invocations")
            .header("content-type", "application/json")
            .header("x-request-id", "q2");
        request.body(Body::from(r#"{"instances": [[1, "UA"]]}"#)).unwrap()
    };
    let (first, second) = (app.send(by_header()).await, app.send(by_header()).await);
    assert_eq!(first.header("x-request-id"), "q2");
    assert_eq!(first.json()["prediction_ids"], second.json()["prediction_ids"]);
}

#[tokio::test]
async fn classes_and_degraded_answers_have_their_fields() {
    let app = App::new();
    let answer = app
        .post("/invocations/grades", json!({"instances": [[1, 2], [-1, 2]]}))
        .await
        .json();
    assert_eq!(answer["predictions"], json!(["high", "low"]));
    assert_eq!(answer["probabilities"], json!([[0.25, 0.75], [0.75, 0.25]]));
    assert_eq!(answer["classes"], json!(["low", "high"]));
    let answer = app
        .post("/invocations/shaky", json!({"instances": [[1, "UA"]]}))
        .await
        .json();
    assert_eq!(answer["predictions"], json!([0.5]));
    assert_eq!(
        answer["degraded"],
        json!(["champion failed: the model is broken"])
    );
}

#[tokio::test]
async fn what_is_wrong_is_told_in_mlflows_shape() {
    let app = App::new();
    let table = [
        (
            json!({}),
            "expected exactly one of `dataframe_split`, `dataframe_records`, `inputs`, `instances`; none came",
        ),
        (
            json!({"inputs": [], "instances": []}),
            "`inputs`, `instances` came",
        ),
        (
            json!({"instances": [[1, "UA"], [1]]}),
            "`instances` row 1 is an array of 1 values, expected 2",
        ),
        (
            json!({"instances": [{"distance": 1, "carrier": "UA"}, [1]]}),
            "`instances` row 1 is an array or a value, expected an object as in row 0",
        ),
        (
            json!({"instances": [[1, "UA"], {"distance": 1}]}),
            "`instances` row 1 is an object, expected an array as in row 0",
        ),
        (
            json!({"instances": [[[1], "UA"]]}),
            "field `distance` row 0: `an array or object` is not a number, a text, a boolean or null",
        ),
        (
            json!({"inputs": {"distance": {"a": 1}}}),
            "field `distance`: an object, expected an array of values",
        ),
        (json!({"instances": []}), "no rows"),
        (
            json!({"dataframe_records": [{"carrier": "UA"}]}),
            "field `distance` is missing",
        ),
        (
            json!({"dataframe_records": [{"distance": "far", "carrier": "UA"}]}),
            "`far` is not a number",
        ),
        (json!({"dataframe_records": 3}), "the body does not fit at line 1"),
        (
            json!({"instances": [[1, "UA"]], "params": 3}),
            "`params` is `3`, expected an object",
        ),
        (
            json!({"instances": [[1, "UA"]], "params": {"request_id": 3}}),
            "`params.request_id` is `3`, expected a text",
        ),
        (Value::Null, "the body does not fit"),
    ];
    for (request, expected) in table {
        let reply = app.post("/invocations", request.clone()).await;
        assert_eq!(reply.status, 400, "{request}: {}", reply.text);
        let answer = reply.json();
        let message = answer["message"].as_str().unwrap();
        assert!(
            message.contains(expected),
            "{request}\n  gave {message}\n  not  {expected}"
        );
        assert_eq!(
            (&answer["error_code"], &answer["stack_trace"]),
            (&json!("BAD_REQUEST"), &Value::Null)
        );
    }

    assert_eq!(app.post_as("/invocations", "text/plain", "x").await.status, 415);
    assert_eq!(app.post("/invocations/nobody", json!({})).await.status, 404);
    assert_eq!(
        app.post("/invocations/empty", json!({"instances": [[1, "UA"]]}))
            .await
            .status,
        503
    );
    *app.fake.only.lock().unwrap() = None;
    let reply = app.post("/invocations", json!({"instances": [[1, "UA"]]})).await;
    assert!(reply.text.contains("/invocations/<endpoint>"), "{}", reply.text);
}

#[tokio::test]
async fn a_deployment_is_scored_in_every_form_as_pyfunc_would() {
    let app = App::new();
    for form in [
        json!({"dataframe_split": {"columns": ["b", "a"], "data": [[1, 2], [3, 4]]}}),
        json!({"dataframe_records": [{"a": 2, "b": 1}, {"a": 4, "b": 3}]}),
        json!({"inputs": {"a": [2, 4], "b": [1, 3]}, "params": {"request_id": "q"}}),
        json!({"instances": [[2, 1], [4, 3]]}),
    ] {
        let reply = app.post("/invocations/add", form.clone()).await;
        assert_eq!(
            reply.json(),
            json!({"predictions": [3.0, 7.0]}),
            "{form}: {}",
            reply.text
        );
    }
    let csv = app
        .post_as("/invocations/add", "text/csv", "a,b\n1,2\n3,\n")
        .await;
    assert_eq!(csv.json(), json!({"predictions": [3.0, null]}));
    let matrix = app
        .post("/invocations/double", json!({"instances": [[1, 2, 3]]}))
        .await;
    assert_eq!(matrix.json(), json!({"predictions": [[2.0, 4.0, 6.0]]}));
    // A function without declared inputs gets the body as it came.
    let body = json!({"inputs": ["hello"], "params": {"temperature": 0.5}});
    let echo = app.post("/invocations/echo", body.clone()).await.json();
    assert_eq!(echo["predictions"]["body"], body);

    for (form, expected) in [
        (json!({"instances": [[1]]}), "input `a` is missing"),
        (json!({"instances": [], "inputs": []}), "exactly one of"),
        (json!({"inputs": {"a": ["x"], "b": [1]}}), "`x` is not FP64"),
    ] {
        let reply = app.post("/invocations/add", form).await;
        assert_eq!(reply.status, 400);
        let error = reply.json();
        assert!(error["message"].as_str().unwrap().contains(expected), "{error}");
        assert_eq!(error["error_code"], "BAD_REQUEST");
    }
    let kind = "application/json; charset=latin-1";
    assert_eq!(app.post_as("/invocations/add", kind, "{}").await.status, 415);
    assert_eq!(
        app.post_as("/invocations/add", "text/xml", "<a/>").await.status,
        415
    );
    // This server of the tests has no engine for tables.
    let parquet = "application/vnd.apache.parquet";
    assert_eq!(app.post_as("/invocations/add", parquet, "PAR1").await.status, 501);
}
