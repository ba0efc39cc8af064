use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tidemill_core::ids::PredictionId;
use tidemill_serving::LogEntry;

use crate::fake::{App, NOW};

fn tensor(name: &str, datatype: &str, data: Value) -> Value {
    json!({ "name": name, "shape": [data.as_array().unwrap().len()], "datatype": datatype, "data": data })
}

fn flights() -> Value {
    json!({ "inputs": [
        tensor("distance", "FP64", json!([250.0, null])),
        tensor("carrier", "BYTES", json!(["UA", null])),
    ] })
}

fn output<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let outputs = answer["outputs"].as_array().unwrap();
    outputs.iter().find(|o| o["name"] == name).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn metadata_and_health_follow_the_specification() {
    let app = App::new();
    let server = app.get("/v2").await.json();
    assert_eq!(server["name"], "tidemill");
    let extensions = server["extensions"].as_array().unwrap();
    assert!(extensions.contains(&json!("binary_tensor_data")) && extensions.contains(&json!("statistics")));
    assert!(!extensions.contains(&json!("system_shared_memory")), "it is off");
    assert_eq!(app.get("/v2/health/live").await.json(), json!({"live": true}));
    assert_eq!(app.get("/v2/health/ready").await.json(), json!({"ready": true}));
    let model = app.get("/v2/models/flights").await.json();
    assert_eq!(
        model,
        json!({
            "name": "flights",
            "versions": ["3"],
            "platform": "tidemill",
            "inputs": [
                {"name": "distance", "datatype": "FP64", "shape": [-1]},
                {"name": "carrier", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [
                {"name": "probability", "datatype": "FP64", "shape": [-1]},
                {"name": "prediction_id", "datatype": "BYTES", "shape": [-1]},
                {"name": "model_version", "datatype": "INT32", "shape": [-1]},
                {"name": "role", "datatype": "BYTES", "shape": [-1]},
            ],
        })
    );
    assert_eq!(app.get("/v2/models/flights/versions/3").await.json(), model);
    let ready = app.get("/v2/models/flights/versions/3/ready").await.json();
    assert_eq!(ready, json!({"name": "flights", "ready": true}));
    assert_eq!(app.get("/v2/models/flights/versions/4/ready").await.status, 400);
    assert_eq!(app.get("/v2/models/empty/ready").await.status, 503);
    assert_eq!(app.get("/v2/models/nobody/ready").await.status, 400);
    app.fake.ready.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(app.get("/v2/health/ready").await.status, 503);
}

#[tokio::test]
async fn a_binary_model_answers_one_probability_a_row() {
    let app = App::new();
    let mut request = flights();
    request["id"] = json!("q1");
    let reply = app.post("/v2/models/flights/infer", request.clone()).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let answer = reply.json();
    assert_eq!(answer["model_name"], "flights");
    assert_eq!(answer["model_version"], "3");
    assert_eq!(answer["id"], "q1");
    assert_eq!(answer["parameters"], json!({"at": NOW}));
    let probability = output(&answer, "probability");
    assert_eq!(
        probability,
        &json!({"name": "probability", "datatype": "FP64", "shape": [2], "data": [0.25, 0.0]})
    );
    assert_eq!(output(&answer, "model_version")["data"], json!([3, 3]));
    assert_eq!(output(&answer, "role")["data"], json!(["champion", "champion"]));
    assert!(output(&answer, "degraded").is_null());
    let ids = output(&answer, "prediction_id")["data"].as_array().unwrap();
    assert_eq!((ids.len(), ids[0].as_str().unwrap().len()), (2, 32));

    // The same request again is the same answer, in any version of the path that leads to it.
    let again = app.post("/v2/models/flights/infer", request).await.json();
    assert_eq!(output(&again, "prediction_id"), output(&answer, "prediction_id"));
    let pinned = app.post("/v2/models/flights/versions/3/infer", flights()).await;
    assert_eq!(pinned.status, 200);
    assert_eq!(
        app.post("/v2/models/flights/versions/9/infer", flights())
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn the_key_column_carries_keys_and_is_no_feature() {
    let app = App::new();
    let mut request = flights();
    let key = tensor("flight_id", "INT64", json!([9_007_199_254_740_993_i64, 7]));
    request["inputs"].as_array_mut().unwrap().push(key);
    let answer = app.post("/v2/models/flights/infer", request).await.json();
    let id = output(&answer, "prediction_id")["data"][0]
        .as_str()
        .unwrap()
        .to_owned();
    use tidemill_api::ControlPlane as _;
    let id: PredictionId = id.into();
    let Some(LogEntry::Batch(batch)) = app.fake.serving().log().find(&id).await.unwrap() else {
        panic!("no batch");
    };
    let row = batch.ids.iter().position(|found| *found == id).unwrap();
    assert_eq!(batch.keys[row].as_deref(), Some("9007199254740993"));
    assert_eq!(batch.features.columns().len(), 2);
}

#[tokio::test]
async fn multiclass_and_regression_have_their_own_outputs_and_take_a_matrix() {
    let app = App::new();
    let matrix = json!({ "inputs": [
        {"name": "rows", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [-1.5, null]]}
    ] });
    let answer = app.post("/v2/models/grades/infer", matrix.clone()).await.json();
    let probabilities = output(&answer, "probabilities");
    assert_eq!(probabilities["shape"], json!([2, 2]));
    assert_eq!(probabilities["data"], json!([0.25, 0.75, 0.75, 0.25]));
    assert_eq!(probabilities["parameters"]["classes"], r#"["low","high"]"#);
    assert_eq!(output(&answer, "label")["data"], json!(["high", "low"]));

    let answer = app.post("/v2/models/prices/infer", matrix).await.json();
    assert_eq!(output(&answer, "prediction")["data"], json!([2.0, -3.0]));
}

#[tokio::test]
async fn only_the_outputs_asked_for_come_back_and_columns_may_have_shape_n_1() {
    let app = App::new();
    let request = json!({
        "inputs": [
            {"name": "distance", "shape": [1, 1], "datatype": "INT32", "data": [500]},
            {"name": "carrier", "shape": [1, 1], "datatype": "BYTES", "data": ["UA"]},
        ],
        "outputs": [{"name": "role"}, {"name": "probability", "parameters": {"binary_data": false}}],
    });
    let answer = app.post("/v2/models/flights/infer", request).await.json();
    let names: Vec<_> = answer["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["name"].clone())
        .collect();
    assert_eq!(names, ["probability", "role"]);
}

#[tokio::test]
async fn a_degraded_answer_says_so() {
    let app = App::new();
    let answer = app.post("/v2/models/shaky/infer", flights()).await.json();
    assert_eq!(answer["parameters"]["degraded"], true);
    assert_eq!(answer["model_version"], "0");
    assert_eq!(output(&answer, "role")["data"], json!(["default", "default"]));
    let degraded = output(&answer, "degraded")["data"][0].as_str().unwrap();
    assert_eq!(degraded, "champion failed: the model is broken");
}

#[tokio::test]
async fn what_is_wrong_is_named_by_field_row_value_and_expectation() {
    let app = App::new();
    let carrier = || tensor("carrier", "BYTES", json!(["UA"]));
    let one = |distance: Value| json!({ "inputs": [distance, carrier()] });
    let table = [
        (
            one(tensor("distance", "FP64", json!(["12"]))),
            "field `distance` row 0: `12` is not FP64: a number",
        ),
        (
            one(tensor("distance", "FP64", json!(["NaN"]))),
            "field `distance` row 0: `NaN` is not FP64: a number",
        ),
        (
            one(tensor("distance", "FP64", json!([{"a": 1}]))),
            "`an array or object` is not FP64",
        ),
        (
            one(tensor("distance", "INT8", json!([300]))),
            "field `distance` row 0: `300` is not INT8: an integer in its range",
        ),
        (one(tensor("distance", "BOOL", json!([1]))), "`1` is not BOOL"),
        (
            one(tensor("distance", "FP8", json!([1]))),
            "field `distance`: datatype `FP8`, expected BOOL, UINT8",
        ),
        (
            one(tensor("distance", "BYTES", json!(["far"]))),
            "field `distance` row 0: `far` is not a number",
        ),
        (
            one(json!({"name": "distance", "shape": [2], "datatype": "FP64", "data": [1]})),
            "field `distance`: shape [2] with 1 values in `data`, expected 2 values for that shape",
        ),
        (
            one(json!({"name": "distance", "shape": [-1], "datatype": "FP64", "data": [1]})),
            "expected sizes of 0 or more",
        ),
        (
            one(json!({"name": "distance", "shape": [i64::MAX, i64::MAX], "datatype": "FP64", "data": [1]})),
            "expected sizes of 0 or more",
        ),
        (
            one(json!({"name": "distance", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]})),
            "expected [rows] or [rows, 1]",
        ),
        (
            one(tensor("distance", "FP64", json!([1, 2]))),
            "field `carrier` has 1 rows, expected 2 as in `distance`",
        ),
        (
            json!({ "inputs": [carrier()] }),
            "field `distance` is missing, expected a number",
        ),
        (json!({ "inputs": [] }), "field `inputs`: no tensor came"),
        (
            json!({ "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}] }),
            "only an all-numeric model takes a matrix",
        ),
        (
            json!({ "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}] }),
            "expected [rows, 2]: the features in the schema's order",
        ),
        (
            json!({ "inputs": [tensor("distance", "FP64", json!([])), tensor("carrier", "BYTES", json!([]))] }),
            "no rows",
        ),
        (
            json!({ "inputs": [carrier()], "outputs": [{"name": "logit"}] }),
            "there is no output `logit`: expected one of `probability`",
        ),
        (
            json!({ "id": "x".repeat(300), "inputs": [carrier()] }),
            "the request's id has 300 bytes",
        ),
        (
            json!({ "outputs": [] }),
            "the body does not fit at line 1, column 14: missing field `inputs`",
        ),
    ];
    for (request, expected) in table {
        let reply = app.post("/v2/models/flights/infer", request.clone()).await;
        assert_eq!(reply.status, 400, "{request}: {}", reply.text);
        let answer = reply.json();
        let message = answer["error"].as_str().unwrap();
        assert!(
            message.contains(expected),
            "{request}\n  gave {message}\n  not  {expected}"
        );
        assert_eq!(answer.as_object().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn bodies_that_are_not_json_are_refused_with_their_place() {
    let app = App::new();
    let path = "/v2/models/flights/infer";
    let reply = app.post_as(path, "application/json", "{\"inputs\": [NaN]}").await;
    assert_eq!(reply.status, 400);
    let message = reply.json()["error"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("the body is not valid JSON at line 1, column 1"),
        "{message}"
    );
    assert!(message.contains("`NaN` is not JSON"), "{message}");
    assert_eq!(app.post_as(path, "application/json", "").await.status, 400);
    assert_eq!(app.post_as(path, "application/x-protobuf", "x").await.status, 415);

    let binary = Request::post(path).header("inference-header-content-length", "10");
    let reply = app.send(binary.body(Body::from("{}")).unwrap()).await;
    assert_eq!(reply.status, 400);
    assert!(
        reply.text.contains("is 10, and the body has 2 bytes"),
        "{}",
        reply.text
    );

    // tritonclient sends JSON without a content type.
    let bare = Request::post(path)
        .body(Body::from(flights().to_string()))
        .unwrap();
    assert_eq!(app.send(bare).await.status, 200);
}

#[tokio::test]
async fn a_heavy_request_is_answered_like_a_small_one() {
    let app = App::new();
    let rows = 60_000;
    let request = json!({ "inputs": [
        tensor("a", "FP64", json!(vec![1.5; rows])),
        tensor("b", "FP64", json!(vec![0.5; rows])),
    ] });
    let answer = app.post("/v2/models/prices/infer", request).await.json();
    assert_eq!(
        output(&answer, "prediction")["data"].as_array().unwrap().len(),
        rows
    );
}

#[tokio::test]
async fn a_row_that_nobody_answers_is_null_and_says_so() {
    let app = App::new();
    let router = app.fake.served().router();
    for of in ["flights", "grades"] {
        let mut careful = tidemill_serving::Route::clone(&router.route(&of.into()).unwrap());
        careful.endpoint = format!("careful-{of}").into();
        careful.inputs.nulls = tidemill_core::spec::NullPolicy::Fallback;
        careful.fallback = vec![tidemill_serving::Step::Abstain];
        router.put(careful);
    }
    let reply = app.post("/v2/models/careful-flights/infer", flights()).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let answer = reply.json();
    assert_eq!(output(&answer, "probability")["data"], json!([0.25, null]));
    assert_eq!(output(&answer, "role")["data"], json!(["champion", "abstained"]));
    assert_eq!(output(&answer, "model_version")["data"], json!([3, 0]));
    assert_eq!(
        output(&answer, "degraded")["data"],
        json!(["", "not asked: field `distance` row 1: `null` is not a number"])
    );
    let rows = json!({ "dataframe_records": [{"a": 1.0, "b": 2.0}, {"a": null, "b": 2.0}] });
    let reply = app
        .post("/endpoints/careful-grades/invocations", rows.clone())
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["predictions"], json!(["high", null]));
    let path = "/v1/projects/p/locations/l/endpoints/careful-grades:predict";
    let reply = app
        .post(path, json!({ "instances": [[1.0, 2.0], [null, 2.0]] }))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["predictions"][1]["scores"], json!([null, null]));
}

#[tokio::test]
async fn a_request_of_an_endpoint_may_have_a_time_by_header_or_parameter() {
    let app = App::new();
    let with = |header: (&str, &str), body: &Value| {
        Request::post("/v2/models/flights/infer")
            .header("content-type", "application/json")
            .header(header.0, header.1)
            .body(Body::from(body.to_string()))
            .unwrap()
    };
    let body = flights();
    let long = app.send(with(("x-tidemill-timeout-ms", "60000"), &body)).await;
    assert_eq!(long.status, 200, "{}", long.text);
    let odd = app.send(with(("x-tidemill-timeout-ms", "soon"), &body)).await;
    assert_eq!(
        (odd.status.as_u16(), odd.header("x-tidemill-error")),
        (400, "bad_parameter")
    );
    // A microsecond is over before anybody is asked.
    let mut body = flights();
    body["parameters"] = json!({ "timeout": 1 });
    let late = app
        .send(with(("x-envoy-expected-rq-timeout-ms", "1000"), &body))
        .await;
    assert_eq!(
        (late.status.as_u16(), late.header("x-tidemill-error")),
        (504, "deadline_passed")
    );
}
