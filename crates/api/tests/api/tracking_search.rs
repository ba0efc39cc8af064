//! MLflow's searches over HTTP: what is found, in which pages, what is refused in which words.

use serde_json::{Value, json};

use crate::fake::App;

const API: &str = "/api/2.0/mlflow";

async fn ok(app: &App, path: &str, body: Value) -> Value {
    let reply = app.post(&format!("{API}/{path}"), body).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    reply.json()
}

async fn get(app: &App, path: &str) -> Value {
    let path = path.replace('`', "%60").replace('<', "%3C").replace('>', "%3E");
    let reply = app.get(&format!("{API}/{path}")).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    reply.json()
}

async fn refused(app: &App, path: &str, body: Value, says: &str) {
    let reply = app.post(&format!("{API}/{path}"), body).await;
    assert_eq!(reply.status, 400, "{path}: {}", reply.text);
    let error = reply.json();
    assert_eq!(
        error["error_code"], "INVALID_PARAMETER_VALUE",
        "{path}: {}",
        reply.text
    );
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(says), "{path}: {message}");
}

/// The values of a field of each thing on a page.
fn each(page: &Value, list: &str, pointer: &str) -> Vec<String> {
    let items = page[list].as_array().cloned().unwrap_or_default();
    let value = |item: &Value| match item.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        other => format!("{other:?}"),
    };
    items.iter().map(value).collect()
}

/// Three runs of the default experiment, named by their place, each with metric `acc`, parameter `lr`, and a dataset.
async fn three_runs(app: &App) {
    for (place, accuracy) in [(1, json!(0.5)), (2, json!("NaN")), (3, json!(0.9))] {
        let body = json!({"experiment_id": "0", "start_time": place, "run_name": format!("run {place}")});
        let run = ok(app, "runs/create", body).await["run"]["info"]["run_id"].clone();
        let batch = json!({
            "run_id": run,
            "metrics": [
                {"key": "acc", "value": 99, "timestamp": 1, "step": 0},
                {"key": "acc", "value": accuracy, "timestamp": 2, "step": 1},
                {"key": "other", "value": 1, "timestamp": 2},
            ],
            "params": [{"key": "lr", "value": format!("0.{place}")}, {"key": "layers", "value": "3"}],
            "tags": [{"key": "team", "value": if place == 1 { "Red" } else { "blue" }}],
        });
        ok(app, "runs/log-batch", batch).await;
        let dataset =
            json!({"name": format!("d{place}"), "digest": "x", "source_type": "local", "source": "s"});
        let tags = json!([{"key": "mlflow.data.context", "value": "training"}]);
        let inputs = json!({"run_id": run, "datasets": [{"dataset": dataset, "tags": tags}]});
        ok(app, "runs/log-inputs", inputs).await;
    }
}

async fn names(app: &App, body: Value) -> Vec<String> {
    each(&ok(app, "runs/search", body).await, "runs", "/info/run_name")
}

#[tokio::test]
async fn runs_are_found_by_what_was_logged_of_them() {
    let app = App::new();
    three_runs(&app).await;
    let all = json!({"experiment_ids": ["0"]});
    assert_eq!(names(&app, all).await, ["run 3", "run 2", "run 1"]);
    let cases = [
        ("metrics.acc < 50", vec!["run 3", "run 1"]),
        ("metrics.acc != 0.5", vec!["run 3", "run 2"]),
        ("metrics.acc > 0.6 AND params.lr = '0.3'", vec!["run 3"]),
        ("params.layers LIKE '_' AND tags.team ILIKE 'r%'", vec!["run 1"]),
        ("tags.team LIKE 'r%'", vec![]),
        ("tags.mlflow.runName = 'run 2'", vec!["run 2"]),
        ("attributes.`Run name` != 'run 2'", vec!["run 3", "run 1"]),
        (
            "dataset.name IN ('d1', 'd2') AND dataset.context = 'training'",
            vec!["run 2", "run 1"],
        ),
        ("params.absent IS NULL AND created >= 2", vec!["run 3", "run 2"]),
        ("metrics.absent != 1", vec![]),
    ];
    for (filter, expected) in cases {
        let body = json!({"experiment_ids": ["0"], "filter": filter});
        assert_eq!(names(&app, body).await, expected, "{filter}");
    }
    let by = |order: Value| json!({"experiment_ids": ["ALL"], "order_by": order});
    assert_eq!(
        names(&app, by(json!(["metrics.acc DESC"]))).await,
        ["run 3", "run 1", "run 2"]
    );
    assert_eq!(
        names(&app, by(json!(["metrics.acc"]))).await,
        ["run 1", "run 3", "run 2"]
    );
    assert_eq!(
        names(&app, by(json!(["tags.team DESC", "start_time"]))).await,
        ["run 2", "run 3", "run 1"]
    );
    assert_eq!(names(&app, json!({"experiment_ids": []})).await, [""; 0]);
    assert_eq!(names(&app, json!({})).await, [""; 0]);
    let deleted = json!({"experiment_ids": ["0"], "run_view_type": "DELETED_ONLY"});
    assert_eq!(names(&app, deleted).await, [""; 0]);
}

#[tokio::test]
async fn pages_of_runs_follow_one_another_and_a_token_stays_with_its_search() {
    let app = App::new();
    three_runs(&app).await;
    let mut body = json!({"experiment_ids": ["0"], "max_results": 2, "order_by": ["metrics.acc"]});
    let first = ok(&app, "runs/search", body.clone()).await;
    assert_eq!(each(&first, "runs", "/info/run_name"), ["run 1", "run 3"]);
    body["page_token"] = first["next_page_token"].clone();
    body["max_results"] = json!(1000);
    let second = ok(&app, "runs/search", body.clone()).await;
    assert_eq!(each(&second, "runs", "/info/run_name"), ["run 2"]);
    assert_eq!(second.get("next_page_token"), None);
    body["order_by"] = json!([]);
    refused(
        &app,
        "runs/search",
        body.clone(),
        "Order by in the page token does not match",
    )
    .await;
    body["page_token"] = json!("evilhax");
    refused(
        &app,
        "runs/search",
        body,
        "Invalid page token, could not base64-decode",
    )
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_search_is_said() {
    let app = App::new();
    let cases = [
        (
            json!({"experiment_ids": ["0"], "max_results": 123_456_789}),
            "Invalid value 123456789 for parameter 'max_results' supplied",
        ),
        (
            json!({"experiment_ids": ["0"], "max_results": 0}),
            "It must be a positive integer",
        ),
        (
            json!({"experiment_ids": ["0"], "filter": "acc > 1"}),
            "Invalid attribute key 'acc' specified. Valid keys are",
        ),
        (
            json!({"experiment_ids": ["0"], "filter": 5}),
            "Invalid value 5 for parameter 'filter' supplied",
        ),
        (
            json!({"experiment_ids": ["0"], "fields": ["metric.a"]}),
            "for parameter 'fields' supplied",
        ),
        (
            json!({"experiment_ids": ["0"], "run_view_type": "X"}),
            "for parameter 'run_view_type' supplied",
        ),
    ];
    for (body, says) in cases {
        refused(&app, "runs/search", body, says).await;
    }
}

#[tokio::test]
async fn only_the_fields_asked_for_are_part_of_runs() {
    let app = App::new();
    three_runs(&app).await;
    let body = json!({"experiment_ids": ["0"], "fields": ["metrics.acc", "params", "tags.team", "attributes"], "max_results": 1});
    let found = ok(&app, "runs/search", body).await;
    let run = &found["runs"][0];
    assert_eq!(run["info"]["run_name"], "run 3");
    assert_eq!(
        run["data"],
        json!({
            "metrics": [{"key": "acc", "value": 0.9, "timestamp": 2, "step": 1}],
            "params": [{"key": "layers", "value": "3"}, {"key": "lr", "value": "0.3"}],
            "tags": [{"key": "team", "value": "blue"}],
        })
    );
    assert_eq!(run["inputs"], json!({}));
}

#[tokio::test]
async fn experiments_are_searched_by_name_and_tag() {
    let app = App::new();
    for (name, tag) in [("a", "value"), ("ab", "vaLue"), ("Abc", "")] {
        let body = json!({"name": name, "tags": [{"key": "key", "value": tag}]});
        ok(&app, "experiments/create", body).await;
    }
    let found = |body: Value| {
        let app = &app;
        async move { each(&ok(app, "experiments/search", body).await, "experiments", "/name") }
    };
    assert_eq!(
        found(json!({"order_by": ["name"]})).await,
        ["Abc", "Default", "a", "ab"]
    );
    assert_eq!(
        found(json!({"filter": "name LIKE 'a%'", "order_by": ["name DESC"]})).await,
        ["ab", "a"]
    );
    assert_eq!(
        found(json!({"filter": "tag.key ILIKE '%alu%'", "order_by": ["experiment_id"]})).await,
        ["a", "ab"]
    );
    assert_eq!(found(json!({"filter": "tags.key IS NULL"})).await, ["Default"]);
    assert_eq!(found(json!({"filter": "experiment_id IN ('1')"})).await, ["a"]);
    assert_eq!(
        found(json!({"filter": "name = 'a'", "view_type": "DELETED_ONLY"})).await,
        [""; 0]
    );
    let query = "experiments/search?order_by=name&order_by=experiment_id&max_results=1&view_type=3";
    let page = get(&app, query).await;
    assert_eq!(each(&page, "experiments", "/name"), ["Abc"]);
    let token = page["next_page_token"]
        .as_str()
        .unwrap()
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let page = get(&app, &format!("{query}&page_token={token}")).await;
    assert_eq!(each(&page, "experiments", "/name"), ["Default"]);
}

#[tokio::test]
async fn registered_models_and_versions_are_searched_without_prompts() {
    let app = App::new();
    for name in ["m1", "M2", "prompt"] {
        let tags =
            json!([{"key": if name == "prompt" { "mlflow.prompt.is_prompt" } else { "k" }, "value": "true"}]);
        ok(
            &app,
            "registered-models/create",
            json!({"name": name, "tags": tags}),
        )
        .await;
        for _ in 0..2 {
            ok(
                &app,
                "model-versions/create",
                json!({"name": name, "source": format!("s3://b/{name}"), "tags": tags}),
            )
            .await;
        }
    }
    let models = |query: &'static str| {
        let app = &app;
        async move {
            each(
                &get(app, &format!("registered-models/search{query}")).await,
                "registered_models",
                "/name",
            )
        }
    };
    // Fake models of the loop stand beside these.
    assert_eq!(
        models("?filter=name+ILIKE+'m%25'+AND+tags.k='true'").await,
        ["M2", "m1"]
    );
    assert_eq!(
        models("?filter=tags.k='true'&order_by=name+DESC").await,
        ["m1", "M2"]
    );
    assert_eq!(models("?filter=name='prompt'").await, [""; 0]);
    assert_eq!(
        models("?filter=tags.`mlflow.prompt.is_prompt`='true'").await,
        ["prompt"]
    );
    assert_eq!(
        models("?filter=tags.`mlflow.prompt.is_prompt`!='true'+AND+name='m1'").await,
        ["m1"]
    );
    let versions = |query: &'static str| {
        let app = &app;
        async move {
            let page = get(app, &format!("model-versions/search?filter={query}")).await;
            let (names, versions) = (
                each(&page, "model_versions", "/name"),
                each(&page, "model_versions", "/version"),
            );
            names
                .into_iter()
                .zip(versions)
                .map(|(name, version)| format!("{name} {version}"))
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(
        versions("name='m1'&order_by=version_number").await,
        ["m1 1", "m1 2"]
    );
    assert_eq!(
        versions("source_path+LIKE+'s3://b/%25'+AND+version_number>1&order_by=name").await,
        ["M2 2", "m1 2"]
    );
    assert_eq!(
        versions("name+IN+('m1','prompt')+AND+version_number<=1").await,
        ["m1 1"]
    );
    assert_eq!(
        versions("tags.`mlflow.prompt.is_prompt`='true'&order_by=version_number&max_results=1").await,
        ["prompt 1"]
    );
    let reply = app
        .get(&format!("{API}/registered-models/search?max_results=1001"))
        .await;
    assert_eq!(reply.status, 400, "{}", reply.text);
}

#[tokio::test]
async fn logged_models_are_searched_by_metrics_on_datasets() {
    let app = App::new();
    let run = ok(&app, "runs/create", json!({"experiment_id": "0"})).await["run"]["info"]["run_id"].clone();
    for (name, value, dataset) in [("one", 0.1, "d1"), ("two", 0.2, "d2")] {
        let body = json!({"experiment_id": "0", "name": name, "params": [{"key": "p", "value": name}]});
        let model = ok(&app, "logged-models", body).await["model"]["info"]["model_id"].clone();
        let body = json!({"run_id": run, "key": "acc", "value": value, "timestamp": 1, "model_id": model,
            "dataset_name": dataset, "dataset_digest": "x"});
        ok(&app, "runs/log-metric", body).await;
    }
    ok(
        &app,
        "logged-models",
        json!({"experiment_id": "0", "name": "three"}),
    )
    .await;
    let found = |body: Value| {
        let app = &app;
        async move {
            let mut body = body;
            body["experiment_ids"] = json!(["0"]);
            each(
                &ok(app, "logged-models/search", body).await,
                "models",
                "/info/name",
            )
        }
    };
    assert_eq!(
        found(json!({"filter": "metrics.acc >= 0.1", "order_by": [{"field_name": "name"}]})).await,
        ["one", "two"]
    );
    assert_eq!(
        found(json!({"datasets": [{"dataset_name": "d1"}]})).await,
        ["one"]
    );
    assert_eq!(
        found(
            json!({"filter": "metrics.acc > 0", "datasets": [{"dataset_name": "d2", "dataset_digest": "x"}]})
        )
        .await,
        ["two"]
    );
    assert_eq!(
        found(json!({"filter": "params.p = 'one' AND name IN ('one',) AND status = 'PENDING'"})).await,
        ["one"]
    );
    let by = json!([{"field_name": "metrics.acc", "ascending": false}]);
    assert_eq!(found(json!({"order_by": by})).await, ["two", "one", "three"]);
    let by = json!([{"field_name": "metrics.acc", "dataset_name": "d1"}, {"field_name": "name", "ascending": false}]);
    assert_eq!(found(json!({"order_by": by})).await, ["one", "two", "three"]);
    let body = json!({"experiment_ids": ["0"], "max_results": 1});
    let page = ok(&app, "logged-models/search", body).await;
    let token = page["next_page_token"].clone();
    for (body, says) in [
        (
            json!({"experiment_ids": ["1"], "page_token": token}),
            "Experiment IDs in the page token do not match",
        ),
        (
            json!({"experiment_ids": ["0"], "page_token": token, "filter": "name = 'x'"}),
            "Filter string in the page token does not match",
        ),
        (
            json!({"experiment_ids": ["0"], "page_token": token, "order_by": [{"field_name": "name"}]}),
            "Order by in the page token does not match",
        ),
        (
            json!({"experiment_ids": ["0"], "filter": "Foo"}),
            "Invalid filter string",
        ),
        (
            json!({"experiment_ids": []}),
            "Missing value for required parameter 'experiment_ids'",
        ),
    ] {
        refused(&app, "logged-models/search", body, says).await;
    }
    let body = json!({"experiment_ids": ["0"], "page_token": token});
    assert_eq!(
        each(
            &ok(&app, "logged-models/search", body).await,
            "models",
            "/info/name"
        )
        .len(),
        2
    );
}
