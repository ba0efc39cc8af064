//! Graphs and routing as clients see them: by every protocol's names, with headers, and what is counted.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tidemill_core::spec::{GraphSpec, ServingSpec};

use crate::fake::{App, Fake};

fn app() -> App {
    let fake = Fake::new();
    let graph = json!({
        "inputs": {"x": {"datatype": "FP32", "shape": [-1, 3]}},
        "nodes": {
            "once": {"model": {"deployment": "double"}},
            "twice": {"inputs": {"x": "once.y"}, "model": {"deployment": "double", "version": 2}},
            "way": {"switch": {"cases": [{"when": {"header": "x-fast", "equals": "yes"}, "to": "once"}], "default": "twice"}},
        },
        "outputs": {"y": "way.y"},
    });
    let graph: GraphSpec = serde_json::from_value(graph).unwrap();
    let server = fake.served();
    tidemill_serving::graphs::deploy(server, "quad", &graph).unwrap();
    App::of(fake)
}

fn row() -> Value {
    json!({ "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}] })
}

fn with_header(path: &str, name: &str, value: &str, body: &Value) -> Request<Body> {
    let request = Request::post(path)
        .header("content-type", "application/json")
        .header(name, value);
    request.body(Body::from(body.to_string())).unwrap()
}

#[tokio::test]
async fn a_graph_is_described_asked_by_header_and_counted_like_any_deployment() {
    let app = app();
    let about = app.get("/v2/models/quad").await.json();
    assert_eq!(about["platform"], "tidemill_graph");
    assert_eq!(
        about["inputs"],
        json!([{"name": "x", "datatype": "FP32", "shape": [-1, 3]}])
    );
    let reply = app.post("/v2/models/quad/infer", row()).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["outputs"][0]["data"], json!([4.0, 8.0, 12.0]));
    let fast = with_header("/v2/models/quad/infer", "X-Fast", "yes", &row());
    assert_eq!(
        app.send(fast).await.json()["outputs"][0]["data"],
        json!([2.0, 4.0, 6.0])
    );
    let routing = app.get("/api/v1/deployments/quad/routing").await.json();
    let runs: Vec<(&Value, &Value)> = routing["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (&node["name"], &node["count"]))
        .collect();
    assert_eq!(
        runs,
        [
            (&json!("once"), &json!(2)),
            (&json!("twice"), &json!(1)),
            (&json!("way"), &json!(2))
        ]
    );
    let metrics = app.get("/metrics").await.text;
    assert!(
        metrics.contains(
            "tidemill_graph_node_runs_total{graph=\"quad\",version=\"1\",node=\"twice\",kind=\"model\"} 1\n"
        ),
        "{metrics}"
    );
    let wrong = json!({ "inputs": [{"name": "z", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}] });
    let reply = app.post("/v2/models/quad/infer", wrong).await;
    assert_eq!(reply.status, 400);
    assert!(
        reply.text.contains("there is no input `z`; expected `x`"),
        "{}",
        reply.text
    );
}

#[tokio::test]
async fn a_bandit_is_told_outcomes_and_answers_say_the_share_they_were_chosen_by() {
    let fake = Fake::new();
    let spec = json!({"versions": "all", "routing": {"bandit": {"versions": [2, 3], "min_share": 0.1}}});
    let spec: ServingSpec = serde_json::from_value(spec).unwrap();
    fake.served()
        .hosting()
        .set_spec(&"double".into(), Arc::new(spec))
        .unwrap();
    let app = App::of(fake);
    let answer = app.post("/v2/models/double/infer", row()).await.json();
    let route = answer["parameters"]["route"].as_str().unwrap().to_owned();
    assert!(route.starts_with("bandit 0."), "{route}");
    let path = "/api/v1/deployments/double/outcomes";
    for (version, outcome) in [(2, 1.0), (3, 0.0)].repeat(30) {
        let reply = app
            .post(path, json!({"version": version, "outcome": outcome}))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    let state = app.get("/api/v1/deployments/double/routing").await.json();
    assert_eq!(state["statistics"]["arms"]["arms"][0]["share"], json!(0.9));
    for (body, part) in [
        (
            json!({"version": 1, "outcome": 1}),
            "no bandit of `double` chooses version 1",
        ),
        (json!({"version": 2, "outcome": 3}), "`3` is no outcome"),
    ] {
        let reply = app.post(path, body).await;
        assert_eq!(reply.status, 400);
        assert!(reply.text.contains(part), "{}", reply.text);
    }
    assert_eq!(app.get("/api/v1/deployments/nobody/routing").await.status, 404);
}
