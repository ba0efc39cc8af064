//! Tables over the API: what is turned into Parquet and when it goes, whose tables may be asked, and what of W&B leads where. The engine is a
//! fake: it "converts" by counting bytes, and answers with what it was asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tidemill_api::ControlPlane as _;
use tidemill_core::ports::{
    ByteSink, ByteSource, NamedTable, PortError, RowsFormat, TableColumn, TableEngine, TableFormat,
    TablePage, TableRows, TableShape,
};

use crate::fake::App;
use crate::users::{house, user};

#[derive(Default)]
struct Engine {
    converted: AtomicUsize,
}

fn rows(body: &str) -> TableRows {
    let column = TableColumn {
        name: "x".to_owned(),
        data_type: "text".to_owned(),
        title: None,
    };
    TableRows {
        columns: vec![column],
        rows: 1,
        total: Some(1),
        more: false,
        body: format!("[[{}]]", json!(body)).into_bytes(),
    }
}

async fn text_of(file: &dyn ByteSource) -> String {
    String::from_utf8(file.read(0..file.size()).await.unwrap()).unwrap()
}

#[async_trait]
impl TableEngine for Engine {
    async fn to_parquet(
        &self,
        name: &str,
        file: Arc<dyn ByteSource>,
        _format: TableFormat,
        sink: &mut dyn ByteSink,
    ) -> Result<TableShape, PortError> {
        self.converted.fetch_add(1, Ordering::Relaxed);
        let text = text_of(file.as_ref()).await;
        if text.contains("broken") {
            return Err(PortError::caller(
                "table_invalid",
                format!("table `{name}` is broken"),
            ));
        }
        if text.contains("away") && self.converted.load(Ordering::Relaxed) < 3 {
            return Err(PortError::upstream("object_store", "the store is away"));
        }
        sink.write(format!("parquet of {text}").into_bytes()).await?;
        Ok(TableShape {
            rows: 7,
            columns: rows("").columns,
        })
    }

    async fn shape(&self, _table: NamedTable) -> Result<TableShape, PortError> {
        Err(PortError::internal("data_engine", "not here"))
    }

    async fn page(
        &self,
        table: NamedTable,
        page: TablePage,
        _format: RowsFormat,
    ) -> Result<TableRows, PortError> {
        let text = text_of(table.parquet.as_ref()).await;
        Ok(rows(&format!(
            "{text} {:?} {:?} {}",
            page.filter, page.order, page.offset
        )))
    }

    fn tables_in(&self, sql: &str) -> Result<Vec<String>, PortError> {
        Ok(sql.split(' ').map(str::to_owned).collect())
    }

    async fn query(
        &self,
        tables: Vec<NamedTable>,
        sql: &str,
        _limit: u32,
        _format: RowsFormat,
    ) -> Result<TableRows, PortError> {
        Ok(rows(&format!("{sql}: {} tables", tables.len())))
    }
}

async fn graphql(app: &App, name: &str, variables: Value) -> Value {
    let query = format!("query {name} {{ x }}");
    let reply = app
        .post("/graphql", json!({ "query": query, "variables": variables }))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

async fn run(app: &App, name: &str) -> String {
    let made = graphql(app, "UpsertBucket", json!({ "name": name, "project": "p" })).await;
    made["data"]["upsertBucket"]["bucket"]["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn put(app: &App, name: &str, path: &str, text: &str) {
    let files = json!({ "project": "p", "run": name, "files": [path] });
    let made = graphql(app, "CreateRunFiles", files).await;
    let url = made["data"]["createRunFiles"]["files"][0]["uploadUrl"]
        .as_str()
        .unwrap();
    let request = Request::put(&url[url.find("/wandb/").unwrap()..]);
    let reply = app.send(request.body(Body::from(text.to_owned())).unwrap()).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

const PATH: &str = "media/table/preds_3_0123456789abcdef0123.table.json";

/// Waits for what is done in its own time.
async fn listed(app: &App, run_id: &str) -> Vec<Value> {
    for _ in 0..200 {
        let reply = app.get(&format!("/api/v1/tracking/tables?run_id={run_id}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let items = reply.json()["items"].as_array().unwrap().clone();
        if items.iter().all(|item| item["state"] != "waiting") {
            return items;
        }
        tokio::task::yield_now().await;
        tidemill_core::clock::real_sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("still waiting");
}

#[tokio::test]
async fn a_table_is_turned_into_parquet_once_and_goes_with_its_file() {
    let app = App::new();
    let engine = Arc::new(Engine::default());
    let tracking = app.fake.tracking();
    tracking.answer_tables(Arc::clone(&engine) as Arc<dyn TableEngine>);
    let run_id = run(&app, "r").await;
    put(&app, "r", PATH, "good rows").await;
    put(
        &app,
        "r",
        "media/table/bad_0_0123456789abcdef0123.table.json",
        "broken",
    )
    .await;
    let items = listed(&app, &run_id).await;
    assert_eq!(items.len(), 2, "{items:?}");
    assert_eq!(
        (&items[0]["name"], &items[0]["rows"]),
        (&json!("preds"), &json!(7))
    );
    assert_eq!(
        (&items[1]["state"], &items[1]["name"]),
        (&json!("failed"), &json!("bad"))
    );

    let page = format!(
        "/api/v1/tracking/tables/rows?run_id={run_id}&path={PATH}&filter=a&order_by=x%20DESC&offset=3"
    );
    let reply = app.get(&page).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let answer = reply.json();
    assert_eq!(
        answer["rows"][0][0],
        "parquet of good rows Some(\"a\") [(\"x\", true)] 3"
    );
    assert_eq!(
        (&answer["offset"], &answer["next_offset"], &answer["total"]),
        (&json!(3), &json!(null), &json!(1))
    );
    assert_eq!(engine.converted.load(Ordering::Relaxed), 2);
    // The same bytes under another name are the same table.
    put(
        &app,
        "r",
        "media/table/again_0_0123456789abcdef0123.table.json",
        "good rows",
    )
    .await;
    listed(&app, &run_id).await;
    assert_eq!(engine.converted.load(Ordering::Relaxed), 2);

    let ask = |sql: &str| json!({ "run_id": run_id, "sql": sql });
    let reply = app
        .post("/api/v1/tracking/tables/query", ask("preds again"))
        .await;
    assert_eq!(reply.json()["rows"][0][0], "preds again: 2 tables");
    for (sql, said) in [("nothing", "there are `preds`"), ("bad", "is broken")] {
        let reply = app.post("/api/v1/tracking/tables/query", ask(sql)).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
        assert!(reply.text.contains(said), "{}", reply.text);
    }
    for query in [
        "path=x.txt",
        "path=../x.json",
        "path=none.json",
        "path=x.json&limit=0",
        "path=x.json&format=xml",
        "path=x.json&offset=-1",
    ] {
        let reply = app
            .get(&format!("/api/v1/tracking/tables/rows?run_id={run_id}&{query}"))
            .await;
        assert!(
            reply.status.is_client_error(),
            "{query}: {} {}",
            reply.status,
            reply.text
        );
    }

    let objects = async || tracking.store().objects().list("artifacts").await.unwrap().len();
    assert_eq!(objects().await, 3, "two files and one Parquet");
    let deleted = app
        .send(
            Request::delete(format!("/api/v1/tracking/runs/{run_id}"))
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(deleted.status, 200, "{}", deleted.text);
    assert_eq!(objects().await, 0);
}

#[tokio::test]
async fn a_table_whose_store_was_away_is_converted_when_it_is_asked_again_and_commas_are_not_tabs() {
    let app = App::new();
    let engine = Arc::new(Engine::default());
    app.fake
        .tracking()
        .answer_tables(Arc::clone(&engine) as Arc<dyn TableEngine>);
    let run_id = run(&app, "r").await;
    for path in ["x.csv", "x.tsv"] {
        put(&app, "r", path, "rows away").await;
    }
    let ask = async |path: &str| {
        app.get(&format!(
            "/api/v1/tracking/tables/rows?run_id={run_id}&path={path}"
        ))
        .await
    };
    for _ in 0..2 {
        let reply = ask("x.csv").await;
        assert!(reply.status.is_server_error(), "{} {}", reply.status, reply.text);
    }
    for (path, converted) in [("x.csv", 3), ("x.csv", 3), ("x.tsv", 4), ("x.tsv", 4)] {
        let reply = ask(path).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(engine.converted.load(Ordering::Relaxed), converted, "{path}");
    }
}

#[tokio::test]
async fn tables_are_for_who_may_read_the_run_and_addresses_too() {
    let app = house("NO_PERMISSIONS", &["ada"]).await;
    let admin = user(&app, "admin");
    let start = json!({ "query": "mutation UpsertBucket { x }", "variables": { "name": "r", "project": "p", "entity": "team" } });
    let made = admin.post("/graphql", start).await.json();
    let run_id = made["data"]["upsertBucket"]["bucket"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let ada = user(&app, "ada");
    let sql = json!({ "run_id": run_id, "sql": "x" });
    for path in [
        format!("/api/v1/tracking/tables?run_id={run_id}"),
        format!("/api/v1/tracking/tables/rows?run_id={run_id}&path=x.json"),
        format!("/api/v1/tracking/artifact-tables?artifact=team/p/a:v0&run_id={run_id}"),
        format!("/api/v1/tracking/artifact-tables/rows?artifact=team/p/a:v0&path=x.json&run_id={run_id}"),
        "/api/v1/tracking/version-tables/rows?name=m&version=1&path=x.json".to_owned(),
    ] {
        assert_eq!(ada.get(&path).await.status, 403, "{path}");
    }
    assert_eq!(
        ada.post("/api/v1/tracking/tables/query", sql.clone())
            .await
            .status,
        403
    );
    assert_eq!(
        admin
            .get(&format!("/api/v1/tracking/tables?run_id={run_id}"))
            .await
            .status,
        200
    );
    // No engine here.
    assert_eq!(admin.post("/api/v1/tracking/tables/query", sql).await.status, 501);

    for path in ["/team/p/runs/r", "/team/p"] {
        let led = admin.get(path).await;
        assert_eq!(led.status, 302, "{path}");
        assert!(led.header("location").starts_with("/experiments/"), "{path}");
        assert_ne!(ada.get(path).await.status, 302, "{path}");
        assert_eq!(app.get(path).await.status, 401, "{path}");
    }
    for path in [
        "/team/p/runs/other",
        "/team/other",
        "/other/p",
        "/experiments/p/runs/r",
        "/team",
    ] {
        assert_ne!(admin.get(path).await.status, 302, "{path}");
    }
}

#[tokio::test]
async fn runs_are_read_by_filters_and_in_order() {
    let app = App::new();
    for (name, lr, tag) in [("a", 0.1, "x"), ("b", 0.3, "y"), ("c", 0.2, "x")] {
        let config = json!({ "lr": { "value": lr } }).to_string();
        let variables = json!({ "name": name, "project": "p", "config": config, "tags": [tag] });
        graphql(&app, "UpsertBucket", variables).await;
    }
    let names = async |variables: Value| {
        let answer = graphql(&app, "Runs", variables).await;
        let runs = &answer["data"]["project"];
        let edges = runs["runs"]["edges"].as_array().cloned().unwrap_or_default();
        let names: Vec<String> = edges
            .iter()
            .map(|edge| edge["node"]["name"].as_str().unwrap().to_owned())
            .collect();
        (
            names.join(""),
            runs["runCount"].clone(),
            runs["runs"]["pageInfo"].clone(),
        )
    };
    let (found, count, page) =
        names(json!({ "entity": "tidemill", "project": "p", "order": "-config.lr.value", "perPage": 2 }))
            .await;
    assert_eq!((found.as_str(), &count), ("bc", &json!(3)));
    assert_eq!(
        page,
        json!({ "__typename": "PageInfo", "endCursor": "2", "hasNextPage": true })
    );
    let next = json!({ "entity": "tidemill", "project": "p", "order": "-config.lr.value", "perPage": 2, "cursor": "2" });
    assert_eq!(names(next).await.0, "a");
    let filters = json!({ "$and": [{ "tags": "x" }, { "config.lr": { "$gt": 0.15 } }] }).to_string();
    assert_eq!(
        names(json!({ "entity": "tidemill", "project": "p", "filters": filters }))
            .await
            .0,
        "c"
    );
    let wrong = graphql(
        &app,
        "Runs",
        json!({ "project": "p", "filters": "{\"$where\": 1}" }),
    )
    .await;
    assert!(
        wrong["errors"][0]["message"].as_str().unwrap().contains("$where"),
        "{wrong}"
    );
    let none = graphql(&app, "Runs", json!({ "project": "nothing" })).await;
    assert_eq!(none["data"]["project"], json!(null));
}
