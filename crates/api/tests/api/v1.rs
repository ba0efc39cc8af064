use serde_json::{Value, json};
use tidemill_api::ControlPlane as _;

use crate::fake::{App, NOW};

#[tokio::test]
async fn every_noun_is_listed_and_found_by_id() {
    let app = App::new();
    let table = [
        ("endpoints", "list Endpoints {}"),
        ("endpoints/flights", "get Endpoints flights"),
        ("models?limit=3", r#"list Models {"limit":3}"#),
        ("models/flights", "get Models flights"),
        ("models/flights/versions", r#"list Versions {"model":"flights"}"#),
        ("models/flights/versions/3", "get Versions flights/3"),
        ("models/flights/aliases", r#"list Aliases {"model":"flights"}"#),
        ("models/flights/history", r#"list History {"model":"flights"}"#),
        ("runs", "list Runs {}"),
        ("runs/r1", "get Runs r1"),
        ("snapshots", "list Snapshots {}"),
        ("snapshots/abc", "get Snapshots abc"),
        ("decisions?kind=gate", r#"list Decisions {"kind":"gate"}"#),
        ("decisions/d1", "get Decisions d1"),
        ("rollouts", "list Rollouts {}"),
        ("rollouts/o1", "get Rollouts o1"),
        (
            "alerts?since=2013-01-01",
            r#"list Alerts {"since":"2013-01-01T00:00:00Z"}"#,
        ),
        (
            "windows?monitor=drift&endpoint=flights",
            r#"list Windows {"endpoint":"flights","monitor":"drift"}"#,
        ),
        ("spec", "get Spec "),
    ];
    for (path, seen) in table {
        let reply = app.get(&format!("/api/v1/{path}")).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        assert_eq!(app.fake.last_seen(), seen, "{path}");
    }
    assert_eq!(app.get("/api/v1/status").await.json()["project"], "flights");
    assert_eq!(
        app.get("/api/v1/lineage/predictions/p1").await.json()["prediction_id"],
        "p1"
    );
    assert_eq!(app.get("/api/v1/endpoints/x/timeline").await.status, 404);
    assert!(app.get("/api/v1/spec/schema").await.json()["properties"]["features"].is_object());
}

#[tokio::test]
async fn a_query_that_does_not_fit_is_refused_by_name() {
    let app = App::new();
    for (query, expected) in [
        ("limit=0", "`limit` is `0`, expected 1 to 10000"),
        ("limit=many", "the query string does not fit: "),
        ("since=yesterday", "`yesterday` is not a time"),
        ("colour=red", "unknown field `colour`"),
    ] {
        let reply = app.get(&format!("/api/v1/runs?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        let error = &reply.json()["error"];
        assert_eq!(error["code"], "bad_query");
        assert!(
            error["message"].as_str().unwrap().contains(expected),
            "{query}: {error}"
        );
    }
}

#[tokio::test]
async fn runs_promotions_rollbacks_and_the_clock_are_moved_by_hand() {
    let app = App::new();
    let reply = app.post("/api/v1/runs", json!({"reason": "new data"})).await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()),
        (201, json!({"run_id": "r1"}))
    );
    assert_eq!(app.fake.last_seen(), "run new data");
    let path = "/api/v1/endpoints/flights";
    let body = json!({"version": 4, "why": "better", "by": "ana"});
    assert_eq!(app.post(&format!("{path}/promote"), body).await.status, 200);
    assert_eq!(app.fake.last_seen(), "promote flights 4 better ana");
    assert_eq!(
        app.post(&format!("{path}/rollback"), json!({"why": "worse"}))
            .await
            .status,
        200
    );
    assert_eq!(app.fake.last_seen(), "rollback flights worse api");
    let refused = app.post(&format!("{path}/promote"), json!({"version": 4})).await;
    assert!(refused.text.contains("missing field `why`"), "{}", refused.text);

    assert_eq!(
        app.get("/api/v1/clock").await.json(),
        json!({"now": NOW, "virtual": true})
    );
    let moved = app
        .post("/api/v1/clock/advance", json!({"to": "2013-06-01"}))
        .await
        .json();
    assert_eq!(moved["now"], "2013-06-01T00:00:00Z");
    // A form on a foreign page can send this without asking; JSON it cannot.
    let form = app
        .post_as("/api/v1/clock/advance", "text/plain", r#"{"to": "2013-06-02"}"#)
        .await;
    assert_eq!(form.status, 415);
    assert_eq!(app.fake.now().to_string(), "2013-06-01T00:00:00Z");
}

#[tokio::test]
async fn feedback_says_what_became_of_each_item() {
    let app = App::new();
    let item = |outcome: &str| json!({"prediction_id": "p1", "value": true, "idempotency_key": outcome});
    let many = |outcomes: &[&str]| -> Value {
        let items: Vec<Value> = outcomes.iter().map(|outcome| item(outcome)).collect();
        json!({ "feedback": items })
    };
    let table = [
        (item("created"), 201),
        (item("repeated"), 200),
        (item("corrected"), 201),
        (item("conflict"), 409),
        (many(&["repeated", "repeated"]), 200),
        (many(&["repeated", "created"]), 201),
        (many(&["created", "conflict"]), 409),
    ];
    for (body, status) in table {
        let reply = app.post("/api/v1/feedback", body.clone()).await;
        assert_eq!(reply.status.as_u16(), status, "{body}");
        let answer = reply.json();
        if status == 409 {
            assert_eq!(answer["error"]["code"], "feedback_conflict");
            assert!(answer["error"]["details"]["outcomes"].is_array());
        } else {
            assert_eq!(answer["outcomes"][0]["prediction_id"], "p1");
        }
    }
}

#[tokio::test]
async fn feedback_that_does_not_fit_is_refused_as_a_whole_with_the_item_named() {
    let app = App::new();
    let good = json!({"prediction_id": "p1", "value": 1.5});
    let table = [
        (json!([]), "the body is not an object"),
        (json!({"value": 1}), "missing field `prediction_id`"),
        (
            json!({"feedback": [good, {"prediction_id": "p2"}]}),
            "`feedback[1]` does not fit: missing field `value`",
        ),
        (
            json!({"feedback": [{"prediction_id": "p2", "value": 1, "event_time": "soon"}]}),
            "`soon` is not a time",
        ),
        (
            json!({"feedback": [good], "source": "x"}),
            "`source` stands beside `feedback`",
        ),
        (json!({"feedback": []}), "0 items, expected 1 to 10000"),
        (
            json!({"feedback": vec![good.clone(); 10_001]}),
            "10001 items, expected 1 to 10000",
        ),
        (json!({"feedback": 3}), "`feedback` is not an array"),
    ];
    for (body, expected) in table {
        let reply = app.post("/api/v1/feedback", body).await;
        assert_eq!(reply.status, 400);
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(expected), "gave {message}, not {expected}");
    }
}

#[tokio::test]
async fn the_openapi_document_is_served_and_names_every_protocol() {
    let app = App::new();
    let document = app.get("/api/v1/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/v2/models/{model}/infer",
        "/invocations",
        "/api/v1/runs",
        "/metrics",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    assert!(paths["/api/v1/runs"]["get"].is_object() && paths["/api/v1/runs"]["post"].is_object());
    // Some are there only where users are.
    let app = App::with_users("READ").await;
    let admin = crate::users::user(&app, "admin");
    // Every described route is there: it answers anything but "unknown route" or "method not allowed".
    for (path, methods) in paths {
        if path.ends_with("/stream") {
            continue;
        }
        let path = path
            .replace("{version}", "3")
            .replace("batchPredictionJobs/{call}", "batchPredictionJobs/1:cancel")
            .replace("{call}", "flights:predict")
            .replace(['{', '}'], "");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_ascii_uppercase();
            let body = (method != "GET").then(|| json!({}));
            let reply = admin.send(&method, &path, body).await;
            let code = reply.header("x-tidemill-error");
            assert!(
                !["unknown_route", "method_not_allowed"].contains(&code),
                "{method} {path}"
            );
        }
    }
}
