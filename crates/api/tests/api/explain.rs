//! What each input contributed to an answer, in our own protocol, Vertex AI's and SageMaker's.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::fake::{App, Reply};

fn vertex(call: &str) -> String {
    format!("/v1/projects/p/locations/l/endpoints/{call}")
}

async fn invoke(app: &App, name: &str, enable: &str, body: &Value) -> Reply {
    let request = Request::post(format!("/endpoints/{name}/invocations"))
        .header("content-type", "application/json")
        .header("x-amzn-sagemaker-enable-explanations", enable);
    app.send(request.body(Body::from(body.to_string())).unwrap())
        .await
}

#[tokio::test]
async fn an_endpoint_of_the_loop_is_explained_and_nothing_is_recorded() {
    let app = App::new();
    let before = app.get("/metrics").await.text;
    let recorded = |metrics: &str| {
        let line = metrics
            .lines()
            .find(|line| line.starts_with("tidemill_predictions"));
        line.map(str::to_owned)
    };
    let reply = app
        .post(
            "/api/v1/endpoints/prices/explain",
            json!({"instances": [[3, 2], [0, 1]]}),
        )
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(
        reply.json(),
        json!({
            "name": "prices", "version": 3, "method": "exact", "explains": "answer", "output": "prediction",
            "explanations": [
                [{"output": 0, "base": 0.0, "value": 6.0, "attributions": {"a": 6.0, "b": 0.0}, "error": 0.0}],
                [{"output": 0, "base": 0.0, "value": 0.0, "attributions": {"a": 0.0, "b": 0.0}, "error": 0.0}],
            ],
        })
    );
    assert_eq!(recorded(&before), recorded(&app.get("/metrics").await.text));
    let asked = json!({
        "dataframe_records": [{"a": 3, "b": 2}],
        "explain": {"baseline": {"a": 1}, "method": "sampling", "samples": 2, "seed": 1},
    });
    let answer = app
        .post("/api/v1/endpoints/prices/explain?version=3", asked)
        .await
        .json();
    assert_eq!(answer["method"], "sampling");
    assert_eq!(
        (
            &answer["explanations"][0][0]["base"],
            &answer["explanations"][0][0]["attributions"]["a"]
        ),
        (&json!(2.0), &json!(4.0))
    );
    let answer = app
        .post("/api/v1/endpoints/grades/explain", json!({"instances": [[5, 1]]}))
        .await
        .json();
    let of_row = &answer["explanations"][0];
    assert_eq!(
        (&of_row[0]["label"], &of_row[1]["label"]),
        (&json!("low"), &json!("high"))
    );
    assert_eq!(of_row[1]["attributions"]["a"], json!(0.5));
}

#[tokio::test]
async fn a_deployment_is_explained_by_the_places_of_its_tensor() {
    let app = App::new();
    let reply = app
        .post(
            "/api/v1/deployments/double/explain",
            json!({"instances": [[1, 2, 3]]}),
        )
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let answer = reply.json();
    assert_eq!((&answer["version"], &answer["output"]), (&json!(3), &json!("y")));
    let of_row = answer["explanations"][0].as_array().unwrap();
    assert_eq!(of_row.len(), 3);
    assert_eq!(of_row[1]["attributions"], json!({"x": [0.0, 4.0, 0.0]}));
}

#[tokio::test]
async fn what_cannot_be_explained_says_why() {
    let app = App::new();
    let rows = json!({"instances": [[1, 2]]});
    let with = |explain: Value| json!({"instances": [[1, 2]], "explain": explain});
    for (path, body, status, code) in [
        ("endpoints/nobody", rows.clone(), 404, "unknown_endpoint"),
        ("endpoints/prices?version=9", rows.clone(), 404, "unknown_version"),
        ("endpoints/prices", json!({}), 400, "bad_body"),
        (
            "endpoints/prices",
            with(json!({"samples": 0})),
            400,
            "bad_parameter",
        ),
        (
            "endpoints/prices",
            with(json!({"baseline": {"z": 1}})),
            400,
            "not_explainable",
        ),
        (
            "endpoints/prices",
            with(json!({"output": "z"})),
            400,
            "not_explainable",
        ),
        (
            "endpoints/empty",
            json!({"instances": [[1, "UA"]]}),
            503,
            "no_model",
        ),
        ("deployments/echo", json!({"x": 1}), 400, "not_explainable"),
    ] {
        let (name, query) = path.split_once('?').unwrap_or((path, ""));
        let reply = app.post(&format!("/api/v1/{name}/explain?{query}"), body).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
        assert_eq!(reply.json()["error"]["code"], code, "{path}: {}", reply.text);
    }
    assert_eq!(app.get("/docs/errors/not_explainable").await.status, 200);
}

#[tokio::test]
async fn what_the_default_answered_is_not_explained_by_the_champion() {
    let app = App::new();
    let router = app.fake.served().router();
    let mut careful = tidemill_serving::Route::clone(&router.route(&"grades".into()).unwrap());
    careful.endpoint = "careful".into();
    careful.inputs.nulls = tidemill_core::spec::NullPolicy::Fallback;
    careful.fallback = vec![tidemill_serving::Step::Abstain];
    router.put(careful);
    let asked = |row: Value| json!({ "instances": [[5, 1], row] });
    let known = app.post(&vertex("careful:explain"), asked(json!([4, 1]))).await;
    assert_eq!(known.status, 200, "{}", known.text);
    {
        let row = json!([null, 1]);
        let reply = app.post(&vertex("careful:explain"), asked(row.clone())).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
        assert!(reply.text.contains("no model gave"), "{}", reply.text);
        let request = axum::http::Request::post("/endpoints/careful/invocations")
            .header("content-type", "application/json")
            .header("x-amzn-sagemaker-enable-explanations", "`true`");
        let body = axum::body::Body::from(asked(row).to_string());
        let reply = app.send(request.body(body).unwrap()).await;
        assert!(reply.status.is_client_error(), "{}", reply.text);
        assert!(reply.text.contains("no model gave"), "{}", reply.text);
    }
}

#[tokio::test]
async fn vertex_explains_the_predicted_class_or_those_that_are_asked_for() {
    let app = App::new();
    let reply = app
        .post(&vertex("grades:explain"), json!({"instances": [[5, 1]]}))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let answer = reply.json();
    assert_eq!(answer["deployedModelId"], "3");
    assert_eq!(answer["predictions"][0]["scores"], json!([0.25, 0.75]));
    assert_eq!(
        answer["explanations"],
        json!([{"attributions": [{
            "baselineOutputValue": 0.25, "instanceOutputValue": 0.75, "featureAttributions": {"a": 0.5, "b": 0.0},
            "outputIndex": [1], "outputDisplayName": "high", "outputName": "probabilities", "approximationError": 0.0,
        }]}])
    );
    let asked = json!({
        "instances": [[5, 1]],
        "deployedModelId": "3",
        "explanationSpecOverride": {
            "parameters": {"topK": -1, "sampledShapleyAttribution": {"pathCount": 10}},
            "metadata": {"inputs": {"a": {"inputBaselines": [9]}}},
        },
    });
    let answer = app.post(&vertex("grades:explain"), asked).await.json();
    let attributions = answer["explanations"][0]["attributions"].as_array().unwrap();
    assert_eq!(attributions.len(), 2);
    assert_eq!(attributions[0]["baselineOutputValue"], 0.75);
    let one = json!({
        "instances": [[5, 1]],
        "explanationSpecOverride": {"parameters": {"outputIndices": [0]}},
    });
    let answer = app.post(&vertex("grades:explain"), one).await.json();
    assert_eq!(
        answer["explanations"][0]["attributions"][0]["outputDisplayName"],
        "low"
    );
    for (parameters, said) in [
        (json!({"outputIndices": [7]}), "2 outputs"),
        (
            json!({"xraiAttribution": {"stepCount": 5}}),
            "ask for `sampledShapleyAttribution`",
        ),
    ] {
        let asked = json!({"instances": [[5, 1]], "explanationSpecOverride": {"parameters": parameters}});
        let reply = app.post(&vertex("grades:explain"), asked).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
        assert!(
            reply.json()["error"]["message"].as_str().unwrap().contains(said),
            "{}",
            reply.text
        );
    }
}

#[tokio::test]
async fn sagemaker_explains_as_clarify_does_where_the_header_asks() {
    let app = App::new();
    let rows = json!({"instances": [[5, 1], [0, 1]]});
    let reply = invoke(&app, "grades", "`true`", &rows).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let answer = reply.json();
    assert_eq!(answer["version"], "1.0");
    let data: Value = serde_json::from_str(answer["predictions"]["data"].as_str().unwrap()).unwrap();
    assert_eq!(data["predictions"], json!(["high", "low"]));
    let records = &answer["explanations"]["kernel_shap"];
    assert_eq!(
        records[0][0],
        json!({"feature_header": "a", "feature_type": "numerical", "attributions": [{"attribution": [-0.5, 0.5]}]})
    );
    assert_eq!(
        (
            records.as_array().unwrap().len(),
            records[0].as_array().unwrap().len()
        ),
        (2, 2)
    );
    let answer = invoke(&app, "grades", "`false`", &rows).await.json();
    assert_eq!(answer["explanations"], json!({}));
    let reply = invoke(&app, "grades", "[0]>`0.8`", &rows).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text.contains("not evaluated here"), "{}", reply.text);
}
