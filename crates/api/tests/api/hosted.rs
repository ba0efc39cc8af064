//! Deployments over the Open Inference Protocol's HTTP: tensors as JSON and as bytes, and all of Triton's extensions.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_api::SharedMemory;

use crate::fake::{App, Fake, Reply};

fn matrix() -> Value {
    json!({ "inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [[1, 2, 3], [0.5, -1, 0]]}] })
}

/// A request of which `head` is JSON and `tail` the bytes of tensors.
async fn binary(app: &App, path: &str, head: &Value, tail: &[u8]) -> Reply {
    let head = head.to_string();
    let request = Request::post(path).header("inference-header-content-length", head.len());
    let body = [head.as_bytes(), tail].concat();
    app.send(request.body(Body::from(body)).unwrap()).await
}

/// The JSON of an answer and the bytes after it.
fn parts(reply: &Reply) -> (Value, &[u8]) {
    let length: usize = reply.header("inference-header-content-length").parse().unwrap();
    let (head, tail) = reply.bytes.split_at(length);
    (serde_json::from_slice(head).unwrap(), tail)
}

#[tokio::test]
async fn a_deployment_tells_what_it_takes_and_answers_in_json() {
    let app = App::new();
    let model = app.get("/v2/models/double").await.json();
    assert_eq!(
        model,
        json!({
            "name": "double",
            "versions": ["2", "3"],
            "platform": "test",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
        })
    );
    let reply = app.post("/v2/models/double/infer", matrix()).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let answer = reply.json();
    assert_eq!(
        (&answer["model_name"], &answer["model_version"]),
        (&json!("double"), &json!("3"))
    );
    assert_eq!(
        answer["outputs"],
        json!([{"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [2.0, 4.0, 6.0, 1.0, -2.0, 0.0]}])
    );
    let mut named = matrix();
    named["id"] = json!("q7");
    let answer = app.post("/v2/models/double/versions/2/infer", named).await.json();
    assert_eq!(
        (&answer["id"], &answer["model_version"]),
        (&json!("q7"), &json!("2"))
    );
    for (path, status) in [
        ("/v2/models/double/versions/1/infer", 404),
        ("/v2/models/double/versions/x/infer", 400),
        ("/v2/models/nobody/infer", 404),
    ] {
        assert_eq!(app.post(path, matrix()).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn every_datatype_comes_back_from_json_as_it_went() {
    let app = App::new();
    let values = [
        ("BOOL", json!([true, false])),
        ("UINT8", json!([0, 255])),
        ("UINT16", json!([0, 65535])),
        ("UINT32", json!([0, 4_294_967_295_u32])),
        ("UINT64", json!([0, u64::MAX])),
        ("INT8", json!([-128, 127])),
        ("INT16", json!([-32768, 32767])),
        ("INT32", json!([i32::MIN, i32::MAX])),
        ("INT64", json!([i64::MIN, i64::MAX])),
        ("FP16", json!([0.5, -2.0])),
        ("BF16", json!([0.5, -2.0])),
        ("FP32", json!([0.1, null])),
        ("FP64", json!([0.1, 1e300])),
        ("BYTES", json!(["ä", null])),
    ];
    let inputs: Vec<Value> = values
        .iter()
        .map(|(name, data)| json!({"name": name, "datatype": name, "shape": [2], "data": data}))
        .collect();
    let reply = app
        .post("/v2/models/identity/infer", json!({ "inputs": inputs }))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let answer = reply.json();
    for (i, (name, data)) in values.iter().enumerate() {
        assert_eq!(&answer["outputs"][i]["data"], data, "{name}");
    }
    let wrong = json!({"inputs": [{"name": "INT8", "datatype": "INT8", "shape": [1], "data": [null]}]});
    let reply = app.post("/v2/models/identity/infer", wrong).await;
    assert_eq!(reply.status, 400);
    assert!(
        reply.text.contains("only floats and texts can be missing"),
        "{}",
        reply.text
    );
}

#[tokio::test]
async fn tensors_travel_as_bytes_both_ways() {
    let app = App::new();
    let head = json!({
        "inputs": [
            {"name": "BYTES", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 10}},
            {"name": "FP16", "datatype": "FP16", "shape": [1], "parameters": {"binary_data_size": 2}},
            {"name": "INT8", "datatype": "INT8", "shape": [1], "data": [7]},
        ],
        "outputs": [{"name": "FP16"}, {"name": "INT8", "parameters": {"binary_data": false}}, {"name": "BYTES"}],
        "parameters": {"binary_data_output": true},
    });
    let tail = b"\x02\0\0\0\xff\xfe\0\0\0\0\x00\x3c";
    let reply = binary(&app, "/v2/models/identity/infer", &head, tail).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    let (answer, bytes) = parts(&reply);
    assert_eq!(answer["outputs"][0]["parameters"], json!({"binary_data_size": 2}));
    assert_eq!(answer["outputs"][1]["data"], json!([7]));
    assert_eq!(
        answer["outputs"][2]["parameters"],
        json!({"binary_data_size": 10})
    );
    assert_eq!(bytes, b"\x00\x3c\x02\0\0\0\xff\xfe\0\0\0\0");

    // Bytes that are no text have no JSON.
    let mut as_json = head.clone();
    as_json["outputs"] = json!([{"name": "BYTES", "parameters": {"binary_data": false}}]);
    let reply = binary(&app, "/v2/models/identity/infer", &as_json, tail).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text.contains("ask for it as binary data"), "{}", reply.text);

    for (size, tail, expected) in [
        (9, &tail[..], "ends within"),
        (10, &tail[..5], "only 5 are left"),
        (4, &tail[..], "ends within an element"),
    ] {
        let mut head = head.clone();
        head["inputs"][0]["parameters"]["binary_data_size"] = json!(size);
        let reply = binary(&app, "/v2/models/identity/infer", &head, tail).await;
        assert_eq!(reply.status, 400, "{size}: {}", reply.text);
        assert!(reply.text.contains(expected), "{size}: {}", reply.text);
    }
    let short = json!({"inputs": [{"name": "FP32", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 4}}]});
    let reply = binary(&app, "/v2/models/identity/infer", &short, &[0; 4]).await;
    assert!(
        reply
            .text
            .contains("4 bytes, expected 8 bytes for shape [2] of FP32"),
        "{}",
        reply.text
    );
    let mut long = short;
    long["inputs"][0]["shape"] = json!([1]);
    let reply = binary(&app, "/v2/models/identity/infer", &long, &[0; 9]).await;
    assert!(
        reply.text.contains("5 bytes are left after the tensors"),
        "{}",
        reply.text
    );
}

#[tokio::test]
async fn a_body_of_bytes_alone_is_the_only_input_and_is_answered_in_bytes() {
    let app = App::new();
    let raw = |model: &str, bytes: Vec<u8>| {
        let request = Request::post(format!("/v2/models/{model}/infer"))
            .header("inference-header-content-length", 0)
            .body(Body::from(bytes));
        app.send(request.unwrap())
    };
    let floats: Vec<u8> = [1.0_f32, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let reply = raw("double", floats.repeat(2)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let (head, tail) = parts(&reply);
    assert_eq!(head["outputs"][0]["shape"], json!([2, 3]));
    assert_eq!(tail[4..8], 4.0_f32.to_le_bytes());
    for (model, expected) in [
        ("add", "the model has 2 inputs"),
        ("double", "4 bytes do not fit shape [-1, 3]"),
    ] {
        let reply = raw(model, vec![0; 4]).await;
        assert_eq!(reply.status, 400);
        assert!(reply.text.contains(expected), "{}", reply.text);
    }
}

#[tokio::test]
async fn a_repository_may_be_named_and_is_the_one_there_is() {
    let app = App::new();
    let all = app.post("/v2/repository/index", json!({})).await.json();
    assert_eq!(
        app.post("/v2/repository/models_of_ours/index", json!({}))
            .await
            .json(),
        all
    );
    let ready = async || app.get("/v2/models/double/ready").await.status.as_u16();
    let path = |verb: &str| format!("/v2/repository/ours/models/double/{verb}");
    assert_eq!(app.post(&path("unload"), json!({})).await.status, 200);
    assert_ne!(ready().await, 200);
    assert_eq!(app.post(&path("load"), json!({})).await.status, 200);
    assert_eq!(ready().await, 200);
}

#[tokio::test]
async fn a_tensor_without_dimensions_holds_one_value() {
    let app = App::new();
    let scalar = json!({"inputs": [{"name": "FP64", "datatype": "FP64", "shape": [], "data": [3]}]});
    let reply = app.post("/v2/models/identity/infer", scalar.clone()).await;
    // The model wants one dimension, and that is all that is wrong.
    assert!(
        reply.text.contains("shape [], expected shape [-1]"),
        "{}",
        reply.text
    );
    let mut two = scalar;
    two["inputs"][0]["data"] = json!([3, 4]);
    let reply = app.post("/v2/models/identity/infer", two).await;
    assert!(
        reply.text.contains("expected 1 values for that shape"),
        "{}",
        reply.text
    );
}

#[tokio::test]
async fn a_table_is_asked_by_columns_of_any_numbers_and_by_one_matrix() {
    let app = App::new();
    let matrix =
        json!({"inputs": [{"name": "input-0", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]});
    let reply = app.post("/v2/models/add/infer", matrix).await;
    assert_eq!(
        reply.json()["outputs"][0]["data"],
        json!([3.0, 7.0]),
        "{}",
        reply.text
    );
    let columns = json!({"inputs": [
        {"name": "a", "datatype": "INT64", "shape": [2, 1], "data": [1, 2]},
        {"name": "b", "datatype": "BOOL", "shape": [2], "data": [true, false]},
    ]});
    let reply = app.post("/v2/models/add/infer", columns).await;
    assert_eq!(
        reply.json()["outputs"][0]["data"],
        json!([2.0, 2.0]),
        "{}",
        reply.text
    );
    let rows = json!({"dataframe_records": [{"a": true, "b": 1.5}]});
    let reply = app.post("/invocations/add", rows).await;
    assert_eq!(reply.json()["predictions"], json!([2.5]), "{}", reply.text);
}

#[tokio::test]
async fn answers_in_pieces_are_told_by_statistics_and_metrics() {
    let app = App::new();
    let count = |n: i32| json!({"count": n});
    assert_eq!(
        app.post("/v2/models/count/generate_stream", count(2))
            .await
            .status,
        200
    );
    let stats = app.get("/v2/models/count/stats").await.json();
    let newest = stats["model_stats"].as_array().unwrap().last().unwrap();
    assert_eq!(
        newest["inference_stats"]["success"]["count"],
        json!(1),
        "{newest}"
    );
    assert_eq!(newest["response_stats"]["0"]["success"]["count"], json!(1));
    assert_eq!(newest["response_stats"]["2"]["empty_response"]["count"], json!(1));
    let metrics = app.get("/metrics").await.text;
    assert!(
        metrics.contains("nv_inference_request_success{model=\"count\",version=\"3\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn an_endpoint_of_the_loop_takes_and_gives_bytes_too() {
    let app = App::new();
    let rows: Vec<u8> = [250.0_f64, f64::NAN]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let head = json!({
        "inputs": [
            {"name": "distance", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}},
            {"name": "carrier", "datatype": "BYTES", "shape": [2], "data": ["UA", null]},
        ],
        "outputs": [{"name": "probability", "parameters": {"binary_data": true}}, {"name": "role"}],
    });
    let reply = binary(&app, "/v2/models/flights/infer", &head, &rows).await;
    let (answer, bytes) = parts(&reply);
    assert_eq!(answer["outputs"][1]["data"], json!(["champion", "champion"]));
    let expected: Vec<u8> = [0.25_f64, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(bytes, expected);

    // A matrix of a model that takes only numbers.
    let numbers: Vec<u8> = [1.0_f32, 2.0, -1.5, f32::NAN]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let head = json!({"inputs": [
        {"name": "rows", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}},
    ]});
    let reply = binary(&app, "/v2/models/prices/infer", &head, &numbers).await;
    assert_eq!(
        reply.json()["outputs"][0]["data"],
        json!([2.0, -3.0]),
        "{}",
        reply.text
    );
    let infinite: Vec<u8> = [1.0_f32, f32::INFINITY, 1.0, 1.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let reply = binary(&app, "/v2/models/prices/infer", &head, &infinite).await;
    assert_eq!(reply.status, 400);
    assert!(
        reply
            .text
            .contains("field `b` row 0: `inf` is not a finite number"),
        "{}",
        reply.text
    );
}

#[tokio::test]
async fn classification_gives_the_largest_values_with_their_labels() {
    let app = App::new();
    let mut request = matrix();
    request["outputs"] = json!([{"name": "y", "parameters": {"classification": 2}}]);
    let answer = app.post("/v2/models/double/infer", request).await.json();
    assert_eq!(
        answer["outputs"][0],
        json!({"name": "y", "datatype": "BYTES", "shape": [2, 2],
               "data": ["6.000000:2", "4.000000:1:two", "1.000000:0:one", "0.000000:2"]})
    );
    let request = json!({
        "inputs": [{"name": "rows", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}],
    });
    let answer = app.post("/v2/models/grades/infer", request).await.json();
    assert_eq!(answer["outputs"][0]["data"], json!(["0.750000:1:high"]));
}

#[tokio::test]
async fn a_compressed_body_is_read_a_bomb_is_not_and_a_long_answer_is_compressed() {
    let app = App::new();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zlib = |bytes: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let send = async |coding: &str, body: Vec<u8>| {
        let request = Request::post("/v2/models/double/infer")
            .header("content-encoding", coding)
            .header("accept-encoding", "gzip");
        app.send(request.body(Body::from(body)).unwrap()).await
    };
    let body = matrix().to_string();
    assert_eq!(send("gzip", gzip(body.as_bytes())).await.status, 200);
    assert_eq!(send("deflate", zlib(body.as_bytes())).await.status, 200);
    assert_eq!(send("br", body.clone().into_bytes()).await.status, 415);
    let broken = send("gzip", body.into_bytes()).await;
    assert_eq!(broken.status, 400);
    assert!(broken.text.contains("says it is `gzip`"), "{}", broken.text);
    let bomb = send("gzip", gzip(&vec![b' '; 65 * 1024 * 1024])).await;
    assert_eq!(bomb.status, 413, "{}", bomb.text);

    let rows = 64;
    let long = json!({"inputs": [{"name": "x", "shape": [rows, 3], "datatype": "FP32", "data": vec![1.123_456; rows * 3]}]});
    let reply = send("gzip", gzip(long.to_string().as_bytes())).await;
    assert_eq!(reply.header("content-encoding"), "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&reply.bytes[..])
        .read_to_string(&mut text)
        .unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["outputs"][0]["data"].as_array().unwrap().len(), rows * 3);
}

#[tokio::test]
async fn a_configuration_and_statistics_have_tritons_shape() {
    let app = App::new();
    let config = app.get("/v2/models/double/config").await.json();
    assert_eq!(config["max_batch_size"], 64);
    assert_eq!(config["input"][0]["data_type"], "TYPE_FP32");
    assert_eq!(config["input"][0]["dims"], json!([3]));
    assert_eq!(config["dynamic_batching"]["max_queue_delay_microseconds"], 5000);
    assert_eq!(config["version_policy"], json!({"latest": {"num_versions": 2}}));
    assert_eq!(config["instance_group"][0]["kind"], "KIND_CPU");
    let config = app.get("/v2/models/count/config").await.json();
    assert_eq!(config["model_transaction_policy"], json!({"decoupled": true}));
    let config = app.get("/v2/models/flights/versions/3/config").await.json();
    assert_eq!(
        (&config["max_batch_size"], &config["input"][1]["data_type"]),
        (&json!(0), &json!("TYPE_STRING"))
    );
    assert_eq!(app.get("/v2/models/nobody/config").await.status, 404);

    app.post("/v2/models/double/infer", matrix()).await;
    app.post(
        "/v2/models/prices/infer",
        json!({"inputs": [{"name": "r", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}),
    )
    .await;
    let stats = app.get("/v2/models/double/versions/3/stats").await.json();
    let one = &stats["model_stats"][0];
    assert_eq!((&one["name"], &one["version"]), (&json!("double"), &json!("3")));
    assert_eq!(
        (&one["inference_count"], &one["execution_count"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(one["inference_stats"]["success"]["count"], 1);
    assert_eq!(one["batch_stats"][0]["batch_size"], 2);
    let stats = app.get("/v2/models/prices/stats").await.json();
    assert_eq!(stats["model_stats"][0]["inference_stats"]["success"]["count"], 1);
    assert_eq!(stats["model_stats"][0]["inference_count"], 1);
    let all = app.get("/v2/models/stats").await.json();
    let names: Vec<&str> = all["model_stats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"flights") && names.contains(&"double"));
    assert_eq!(app.get("/v2/models/prices/versions/9/stats").await.status, 404);
}

#[tokio::test]
async fn the_repository_lists_loads_and_unloads() {
    let app = App::new();
    let index = async |body: Value| app.post("/v2/repository/index", body).await.json();
    let of = |index: &Value, name: &str| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let rows = index.as_array().unwrap().iter().filter(|row| row["name"] == name);
        rows.map(|row| (text(&row["version"]), text(&row["state"])))
            .collect()
    };
    let whole = index(json!({})).await;
    assert_eq!(of(&whole, "flights"), [("3".to_owned(), "READY".to_owned())]);
    assert_eq!(of(&whole, "empty")[0].1, "UNAVAILABLE");
    assert_eq!(of(&whole, "double").len(), 3);
    assert_eq!(of(&index(json!({"ready": true})).await, "double").len(), 2);

    assert_eq!(
        app.post_as("/v2/repository/models/double/unload", "application/json", "")
            .await
            .status,
        200
    );
    assert!(of(&index(json!({"ready": true})).await, "double").is_empty());
    assert_eq!(app.get("/v2/models/double/ready").await.status, 503);
    let reply = app.post("/v2/models/double/infer", matrix()).await;
    assert_eq!(reply.status, 503);
    assert!(reply.text.contains("is unloaded"), "{}", reply.text);
    assert_eq!(
        app.post("/v2/repository/models/double/load", json!({"parameters": {}}))
            .await
            .status,
        200
    );
    assert_eq!(app.get("/v2/models/double/ready").await.status, 200);
    assert_eq!(app.post("/v2/models/double/infer", matrix()).await.status, 200);

    let config = json!({"parameters": {"config": "{}"}});
    for (path, body, status, expected) in [
        (
            "/v2/repository/models/double/load",
            config,
            400,
            "does not take `config`",
        ),
        (
            "/v2/repository/models/flights/unload",
            json!({}),
            400,
            "belongs to the loop",
        ),
        (
            "/v2/repository/models/nobody/load",
            json!({}),
            404,
            "there is no endpoint `nobody`",
        ),
    ] {
        let reply = app.post(path, body).await;
        assert_eq!(reply.status, status, "{path}");
        assert!(reply.text.contains(expected), "{}", reply.text);
    }
}

#[tokio::test]
async fn settings_are_told_and_not_changed() {
    let app = App::new();
    let trace = app.get("/v2/trace/setting").await.json();
    assert_eq!(trace["trace_level"], json!(["OFF"]));
    assert_eq!(app.get("/v2/models/double/trace/setting").await.json(), trace);
    assert_eq!(
        app.post(
            "/v2/trace/setting",
            json!({"trace_level": ["OFF"], "trace_rate": null})
        )
        .await
        .json(),
        trace
    );
    let reply = app
        .post("/v2/trace/setting", json!({"trace_level": ["TIMESTAMPS"]}))
        .await;
    assert_eq!(reply.status, 400);
    assert!(
        reply.text.contains("setting `trace_level` cannot be changed"),
        "{}",
        reply.text
    );
    assert_eq!(app.get("/v2/logging").await.json()["log_format"], "default");
    assert_eq!(
        app.post("/v2/logging", json!({"log_format": "ISO8601"}))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn shared_memory_is_off_unless_the_operator_says_so() {
    let app = App::new();
    assert_eq!(app.get("/v2/systemsharedmemory/status").await.json(), json!([]));
    let region = json!({"key": "/r", "offset": 0, "byte_size": 8});
    let reply = app.post("/v2/systemsharedmemory/region/r/register", region).await;
    assert_eq!(reply.status, 400);
    assert!(
        reply.text.contains("start it with `--shared-memory`"),
        "{}",
        reply.text
    );
    let reply = app
        .post("/v2/cudasharedmemory/region/r/register", json!({}))
        .await;
    assert!(reply.text.contains("no CUDA memory"), "{}", reply.text);

    let dir = TempDir::new().unwrap();
    let values: Vec<u8> = [1.0_f32, 2.0, 3.0, 0.0, 0.0, 0.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    std::fs::write(dir.path().join("area"), &values).unwrap();
    let mut fake = Arc::into_inner(Fake::new()).unwrap();
    fake.shared = Some(SharedMemory::under(dir.path()));
    let app = App::of(Arc::new(fake));
    let region = json!({"key": "/area", "offset": 0, "byte_size": 24});
    assert_eq!(
        app.post("/v2/systemsharedmemory/region/all/register", region)
            .await
            .status,
        200
    );
    let listed = app.get("/v2/systemsharedmemory/region/all/status").await.json();
    assert_eq!(
        listed,
        json!([{"name": "all", "key": "/area", "offset": 0, "byte_size": 24}])
    );
    let place = |offset: u64| json!({"shared_memory_region": "all", "shared_memory_byte_size": 12, "shared_memory_offset": offset});
    let request = json!({
        "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": place(0)}],
        "outputs": [{"name": "y", "parameters": place(12)}],
    });
    let reply = app.post("/v2/models/double/infer", request).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(reply.json()["outputs"][0]["data"].is_null());
    let after = std::fs::read(dir.path().join("area")).unwrap();
    let expected: Vec<u8> = [2.0_f32, 4.0, 6.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(&after[12..], expected);
    assert_eq!(
        app.post("/v2/systemsharedmemory/unregister", json!({}))
            .await
            .status,
        200
    );
    assert_eq!(app.get("/v2/systemsharedmemory/status").await.json(), json!([]));
}

#[tokio::test]
async fn generate_gives_one_answer_and_generate_stream_many() {
    let app = App::new();
    let reply = app.post("/v2/models/count/generate", json!({"count": 1})).await;
    assert_eq!(
        reply.json(),
        json!({"model_name": "count", "model_version": "3", "number": 0.0}),
        "{}",
        reply.text
    );
    let reply = app.post("/v2/models/count/generate", json!({"count": 2})).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text.contains("the model gave several"), "{}", reply.text);

    let reply = app
        .post("/v2/models/count/generate_stream", json!({"count": 5}))
        .await;
    assert_eq!(reply.header("content-type"), "text/event-stream");
    let events: Vec<Value> = reply
        .text
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let numbers: Vec<f64> = events
        .iter()
        .filter_map(|event| event["number"].as_f64())
        .collect();
    assert_eq!(numbers, [0.0, 1.0, 2.0, 4.0]);
    assert!(
        events[3]["error"].as_str().unwrap().contains("four is too many"),
        "{}",
        events[3]
    );

    // A function gets the body as it is.
    let answer = app
        .post(
            "/v2/models/echo/generate",
            json!({"text_input": "hi", "id": "g1"}),
        )
        .await
        .json();
    assert_eq!(
        (&answer["body"]["text_input"], &answer["id"]),
        (&json!("hi"), &json!("g1"))
    );
    let reply = app.post("/v2/models/flights/generate", json!({})).await;
    assert!(reply.text.contains("is a model of tables"), "{}", reply.text);
}

#[tokio::test]
async fn what_a_deployment_cannot_do_is_said_in_the_protocols_shape() {
    let app = App::new();
    let x = |shape: Value, datatype: &str, data: Value| json!({"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]});
    for (request, status, expected) in [
        (
            x(json!([1, 2]), "FP32", json!([1, 2])),
            400,
            "shape [1, 2], expected shape [-1, 3]",
        ),
        (
            x(json!([1, 3]), "FP64", json!([1, 2, 3])),
            400,
            "datatype FP64, expected FP32",
        ),
        (
            x(json!([1, 3]), "FP32", json!([1, 2])),
            400,
            "2 values in `data`, expected 3 values",
        ),
        (
            x(json!([65, 3]), "FP32", json!(vec![0; 195])),
            400,
            "a batch of 65 rows came, expected at most 64",
        ),
        (json!({"inputs": []}), 400, "input `x` is missing"),
        (
            json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}),
            400,
            "has no values",
        ),
        (
            json!({"inputs": matrix()["inputs"], "outputs": [{"name": "z"}]}),
            400,
            "there is no output `z`: expected one of `y`",
        ),
        (
            json!({"inputs": matrix()["inputs"], "parameters": {"timeout": "soon"}}),
            400,
            "parameter `timeout` is `\"soon\"`, expected a whole number",
        ),
        (
            json!({"inputs": matrix()["inputs"], "id": "x".repeat(300)}),
            400,
            "the request's id has 300 bytes",
        ),
    ] {
        let reply = app.post("/v2/models/double/infer", request.clone()).await;
        assert_eq!(reply.status.as_u16(), status, "{request}: {}", reply.text);
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(expected), "{error}\n not {expected}");
    }
    let reply = app.post("/v2/models/fails/infer", json!({"inputs": []})).await;
    assert_eq!(reply.status, 500);
    assert_eq!(
        reply.json()["error"],
        "version 3 of endpoint `fails` failed: the model is broken"
    );
}
