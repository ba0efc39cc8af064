//! Evaluation datasets, as `mlflow.genai.datasets` asks for them.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::fake::{App, Reply};
use crate::users::{house, user};

const DATASETS: &str = "/api/3.0/mlflow/datasets";

async fn send(app: &App, method: &str, uri: &str, body: Value) -> Reply {
    let request = Request::builder().method(method).uri(uri);
    let request = request.header("content-type", "application/json");
    app.send(request.body(Body::from(body.to_string())).unwrap())
        .await
}

fn done(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

fn error(reply: &Reply) -> (u16, String) {
    (
        reply.status.into(),
        reply.json()["error_code"].as_str().unwrap().to_owned(),
    )
}

fn nested(value: &Value) -> Value {
    serde_json::from_str(value.as_str().unwrap()).unwrap()
}

fn names(answer: &Value) -> Vec<String> {
    let items = answer["datasets"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn created(app: &App, name: &str, experiments: Value, tags: Value) -> String {
    let body = json!({ "name": name, "experiment_ids": experiments, "tags": tags.to_string() });
    let made = done(&app.post(&format!("{DATASETS}/create"), body).await);
    made["dataset"]["dataset_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn records_of_the_same_inputs_are_one_record() {
    let app = App::new();
    let id = created(&app, "qa", json!(["0"]), json!({"mlflow.user": "ada"})).await;
    assert!(id.starts_with("d-") && id.len() == 34, "{id}");
    let records = format!("{DATASETS}/{id}/records");
    let first = json!([
        {"inputs": {"q": "what", "n": 1}, "expectations": {"a": "yes"}, "tags": {"k": "v"}},
        {"inputs": {"q": "why"}, "source": {"source_type": "human", "source_data": {"source_id": "s"}}},
    ]);
    let counts = done(&app.post(&records, json!({ "records": first.to_string() })).await);
    assert_eq!(counts, json!({"inserted_count": 2, "updated_count": 0}));
    let again = json!([{"inputs": {"n": 1, "q": "what"}, "expectations": {"b": 2}, "outputs": {"x": 1.5}}]);
    let counts = done(&app.post(&records, json!({ "records": again.to_string() })).await);
    assert_eq!(counts, json!({"inserted_count": 0, "updated_count": 1}));

    let page = done(&app.get(&format!("{records}?max_results=1")).await);
    let one = nested(&page["records"]);
    assert_eq!(one[0]["inputs"], json!({"q": "what", "n": 1}));
    assert_eq!(one[0]["expectations"], json!({"a": "yes", "b": 2}));
    assert_eq!(one[0]["outputs"], json!({"x": 1.5}));
    let token = page["next_page_token"].as_str().unwrap();
    let page = done(
        &app.get(&format!("{records}?max_results=1&page_token={token}"))
            .await,
    );
    let two = nested(&page["records"])[0].clone();
    assert!(page.get("next_page_token").is_none());
    assert_eq!(
        (&two["source_type"], &two["source_id"]),
        (&json!("HUMAN"), &json!("s"))
    );

    let dataset = done(&app.get(&format!("{DATASETS}/{id}")).await)["dataset"].clone();
    assert_eq!(nested(&dataset["profile"]), json!({"num_records": 2}));
    let schema = nested(&dataset["schema"]);
    assert_eq!(schema["inputs"], json!({"q": "string", "n": "integer"}));
    assert_eq!(schema["outputs"], json!({"x": "float"}));
    assert_eq!(dataset["created_by"], "ada");

    let gone = json!({ "dataset_record_ids": [two["dataset_record_id"], "dr-unknown"] });
    let count = done(&send(&app, "DELETE", &records, gone).await);
    assert_eq!(count, json!({"deleted_count": 1}));
    for bad in [
        "{}",
        "[1]",
        r#"[{"inputs": 1}]"#,
        r#"[{"inputs": {}, "source": {"source_type": "X"}}]"#,
        "no",
    ] {
        let refused = app.post(&records, json!({ "records": bad })).await;
        assert_eq!(
            error(&refused),
            (400, "INVALID_PARAMETER_VALUE".to_owned()),
            "{bad}"
        );
    }
    let nowhere = app
        .post(&format!("{DATASETS}/d-0/records"), json!({ "records": "[]" }))
        .await;
    assert_eq!(error(&nowhere), (404, "RESOURCE_DOES_NOT_EXIST".to_owned()));
}

#[tokio::test]
async fn datasets_are_found_by_tags_names_and_experiments() {
    let app = App::new();
    let create = "/api/2.0/mlflow/experiments/create";
    let experiment = done(&app.post(create, json!({"name": "e"})).await)["experiment_id"].clone();
    let one = created(&app, "one", json!(["0"]), json!({"team": "ml"})).await;
    created(&app, "two", json!([experiment]), json!({"team": "ops"})).await;
    let search = format!("{DATASETS}/search");
    let found = async |body: Value| names(&done(&app.post(&search, body).await));
    assert_eq!(found(json!({"order_by": ["name ASC"]})).await, ["one", "two"]);
    assert_eq!(found(json!({"experiment_ids": [experiment]})).await, ["two"]);
    assert_eq!(found(json!({"filter_string": "tags.team = 'ml'"})).await, ["one"]);
    assert_eq!(
        found(json!({"filter_string": "name IN ('two', 'three') AND created_time > 0"})).await,
        ["two"]
    );
    let first = done(
        &app.get(&format!("{search}?max_results=1&order_by=name%20DESC"))
            .await,
    );
    assert_eq!(names(&first), ["two"]);
    let token = first["next_page_token"].as_str().unwrap();
    let body = json!({"max_results": 1, "order_by": ["name DESC"], "page_token": token});
    assert_eq!(found(body).await, ["one"]);
    for bad in ["digest = 'x'", "name = 3", "tags.a > 1", "created_time LIKE '1'"] {
        let refused = app.post(&search, json!({ "filter_string": bad })).await;
        assert_eq!(
            error(&refused),
            (400, "INVALID_PARAMETER_VALUE".to_owned()),
            "{bad}"
        );
    }

    let add = json!({ "experiment_ids": [experiment] });
    done(
        &app.post(&format!("{DATASETS}/{one}/add-experiments"), add.clone())
            .await,
    );
    let ids = done(&app.get(&format!("{DATASETS}/{one}/experiment-ids")).await);
    assert_eq!(ids, json!({"experiment_ids": ["0", experiment]}));
    done(
        &app.post(&format!("{DATASETS}/{one}/remove-experiments"), add)
            .await,
    );
    let ids = done(&app.get(&format!("{DATASETS}/{one}/experiment-ids")).await);
    assert_eq!(ids, json!({"experiment_ids": ["0"]}));
    let unknown = app
        .post(
            &format!("{DATASETS}/{one}/add-experiments"),
            json!({"experiment_ids": ["99"]}),
        )
        .await;
    assert_eq!(error(&unknown), (404, "RESOURCE_DOES_NOT_EXIST".to_owned()));

    let tags = format!("{DATASETS}/{one}/tags");
    let set = json!({ "tags": json!({"team": null, "n": 3}).to_string() });
    done(&send(&app, "PATCH", &tags, set).await);
    done(&send(&app, "DELETE", &format!("{tags}/team"), json!({})).await);
    let dataset = done(&app.get(&format!("{DATASETS}/{one}")).await);
    assert_eq!(nested(&dataset["dataset"]["tags"]), json!({"n": "3"}));
    for _ in 0..2 {
        done(&send(&app, "DELETE", &format!("{DATASETS}/{one}"), json!({})).await);
    }
    assert_eq!(error(&app.get(&format!("{DATASETS}/{one}")).await).0, 404);
}

#[tokio::test]
async fn who_may_look_at_all_its_experiments_may_look_at_a_dataset() {
    let app = house("NO_PERMISSIONS", &["ada", "bob"]).await;
    let (ada, bob) = (user(&app, "ada"), user(&app, "bob"));
    let experiment = async |owner: &str, name: &str| {
        let body = json!({ "name": name });
        let made = user(&app, owner)
            .post("/api/2.0/mlflow/experiments/create", body)
            .await;
        done(&made)["experiment_id"].clone()
    };
    let (hers, his) = (experiment("ada", "a").await, experiment("bob", "b").await);
    let body = json!({ "name": "d", "experiment_ids": [hers] });
    let made = done(&ada.post(&format!("{DATASETS}/create"), body.clone()).await);
    let id = made["dataset"]["dataset_id"].as_str().unwrap();
    assert_eq!(bob.post(&format!("{DATASETS}/create"), body).await.status, 403);
    assert_eq!(
        bob.post(&format!("{DATASETS}/create"), json!({"name": "x"}))
            .await
            .status,
        403
    );
    for (method, path, body) in [
        ("GET", String::new(), None),
        ("GET", "/records".to_owned(), None),
        ("GET", "/experiment-ids".to_owned(), None),
        ("DELETE", String::new(), Some(json!({}))),
        ("POST", "/records".to_owned(), Some(json!({"records": "[]"}))),
        ("PATCH", "/tags".to_owned(), Some(json!({"tags": "{}"}))),
        (
            "POST",
            "/add-experiments".to_owned(),
            Some(json!({"experiment_ids": [his]})),
        ),
    ] {
        let path = format!("{DATASETS}/{id}{path}");
        assert_eq!(bob.send(method, &path, body).await.status, 403, "{method} {path}");
    }
    let search = format!("{DATASETS}/search");
    assert_eq!(names(&done(&ada.post(&search, json!({})).await)), ["d"]);
    assert!(names(&done(&bob.post(&search, json!({})).await)).is_empty());
    // Hers and his: neither sees all of it any more.
    let admin = user(&app, "admin");
    let add = json!({ "experiment_ids": [his] });
    assert_eq!(
        ada.post(&format!("{DATASETS}/{id}/add-experiments"), add.clone())
            .await
            .status,
        403
    );
    done(&admin.post(&format!("{DATASETS}/{id}/add-experiments"), add).await);
    assert_eq!(ada.get(&format!("{DATASETS}/{id}")).await.status, 403);
    assert!(names(&done(&ada.post(&search, json!({})).await)).is_empty());
    assert_eq!(names(&done(&admin.post(&search, json!({})).await)), ["d"]);
}

#[tokio::test]
async fn a_private_dataset_stays_private_when_its_experiment_goes() {
    let app = house("MANAGE", &["ada", "bob"]).await;
    let (admin, bob) = (user(&app, "admin"), user(&app, "bob"));
    let body = json!({ "name": "secret" });
    let made = done(&admin.post("/api/2.0/mlflow/experiments/create", body).await);
    let experiment = made["experiment_id"].clone();
    let body = json!({ "name": "d", "experiment_ids": [experiment] });
    let made = done(&admin.post(&format!("{DATASETS}/create"), body).await);
    let id = made["dataset"]["dataset_id"].as_str().unwrap();
    let body = json!({ "experiment_ids": [experiment] });
    done(
        &admin
            .post(&format!("{DATASETS}/{id}/remove-experiments"), body)
            .await,
    );
    for path in ["", "/records", "/experiment-ids"] {
        assert_eq!(bob.get(&format!("{DATASETS}/{id}{path}")).await.status, 403);
    }
    let body = json!({ "experiment_ids": ["0"] });
    let path = format!("{DATASETS}/{id}/add-experiments");
    assert_eq!(bob.post(&path, body).await.status, 403);
    let search = format!("{DATASETS}/search");
    assert!(names(&done(&bob.post(&search, json!({})).await)).is_empty());
    assert_eq!(names(&done(&admin.post(&search, json!({})).await)), ["d"]);
    // Nor does anybody else make what only administrators would see.
    let create = format!("{DATASETS}/create");
    assert_eq!(bob.post(&create, json!({ "name": "x" })).await.status, 403);
    done(&admin.get(&format!("{DATASETS}/{id}")).await);
}
