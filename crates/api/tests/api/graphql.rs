//! MLflow's GraphQL queries.

use serde_json::{Value, json};

use crate::fake::App;

async fn ask(app: &App, body: Value) -> Value {
    let reply = app.post("/graphql", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

async fn run(app: &App) -> String {
    let made = app
        .post(
            "/api/2.0/mlflow/runs/create",
            json!({"experiment_id": "0", "start_time": 5}),
        )
        .await
        .json();
    let run_id = made["run"]["info"]["run_id"].as_str().unwrap().to_owned();
    let batch = json!({
        "run_id": run_id,
        "metrics": [
            {"key": "a", "value": 1.5, "timestamp": 7, "step": 3},
            {"key": "b", "value": "NaN", "timestamp": 7},
        ],
        "tags": [{"key": "mlflow.runName", "value": "mine"}],
    });
    app.post("/api/2.0/mlflow/runs/log-batch", batch).await;
    run_id
}

#[tokio::test]
async fn a_query_gets_what_it_selects_by_aliases_fragments_and_variables() {
    let app = App::new();
    let run_id = run(&app).await;
    let query = "
        query Page($id: String, $missing: Boolean) {
            mine: mlflowGetRun(input: {runId: $id}) {
                run {
                    info { ...Head endTime }
                    data { metrics { key value step } params { key } }
                    experiment { name tags { key } }
                    modelVersions { name }
                }
            }
            test(inputString: \"hello\") { output __typename }
        }
        fragment Head on MlflowRunInfo { runName status experimentId ...Head }";
    let answer = ask(
        &app,
        json!({"query": query, "operationName": "Page", "variables": {"id": run_id}}),
    )
    .await;
    assert_eq!(
        answer,
        json!({
            "data": {
                "mine": {"run": {
                    "info": {"runName": "mine", "status": "RUNNING", "experimentId": "0", "endTime": "0"},
                    "data": {
                        "metrics": [{"key": "a", "value": 1.5, "step": "3"}, {"key": "b", "value": null, "step": "0"}],
                        "params": [],
                    },
                    "experiment": {"name": "Default", "tags": []},
                    "modelVersions": [],
                }},
                "test": {"output": "hello", "__typename": "Test"},
            },
            "errors": null,
        })
    );
    let search = "mutation { mlflowSearchRuns(input: {experimentIds: [\"0\"]}) { runs { info { runId } } }
         mlflowSearchDatasets(input: {experimentIds: [\"0\"]}) { datasetSummaries { name } } }";
    let found = ask(&app, json!({"query": search})).await;
    assert_eq!(
        found["data"]["mlflowSearchRuns"]["runs"],
        json!([{"info": {"runId": run_id}}])
    );
    assert_eq!(
        found["data"]["mlflowSearchDatasets"]["datasetSummaries"],
        json!([])
    );
    let history = format!(
        "{{ mlflowGetMetricHistoryBulkInterval(input: {{runIds: [\"{run_id}\"], metricKey: \"a\"}}) {{ metrics {{ value timestamp }} }} }}"
    );
    let found = ask(&app, json!({"query": history})).await;
    assert_eq!(
        found["data"]["mlflowGetMetricHistoryBulkInterval"]["metrics"],
        json!([{"value": 1.5, "timestamp": "7"}])
    );
}

#[tokio::test]
async fn a_query_that_asks_too_much_or_what_is_not_there_gets_errors() {
    let app = App::new();
    let many = |count: usize, field: &str| {
        (0..count)
            .map(|i| format!("k{i}: {field}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let get = "mlflowGetExperiment(input: {experimentId: \"0\"})";
    let mut deep = "name".to_owned();
    for _ in 0..12 {
        deep = format!("name {{ {deep} }}");
    }
    for (query, says) in [
        (
            format!("{{ {} }}", many(11, "test(inputString: \"a\") { output }")),
            "at most 10 root fields, got 11",
        ),
        (
            format!("{{ {get} {{ {} }} }}", many(11, "experiment { name }")),
            "at most 10 aliases, got 11",
        ),
        (
            format!("{{ {get} {{ experiment {{ {deep} }} }} }}"),
            "Query exceeds maximum depth of 10",
        ),
        (
            format!("{{ {get} {{ experiment {{ {} }} }} }}", "name ".repeat(1001)),
            "Query exceeds maximum total selections of 1000",
        ),
        (
            format!("{{ {get} {{ experiment {{ colour }} }} }}"),
            "Cannot query field 'colour' on type 'MlflowExperiment'.",
        ),
        (
            "{ nothing { here } }".to_owned(),
            "Cannot query field 'nothing' on type 'Query'.",
        ),
        (
            "{ mlflowGetExperiment(input: {experimentId: \"9\"}) { experiment { name } } }".to_owned(),
            "No Experiment with id=9 exists",
        ),
        ("{ not a query".to_owned(), "Syntax Error"),
        (format!("{}name{}", "{ a ".repeat(5000), "}".repeat(5000)), ""),
    ] {
        let answer = ask(&app, json!({ "query": query })).await;
        let error = answer["errors"][0].as_str().unwrap();
        assert!(error.contains(says), "{error}");
    }
}
