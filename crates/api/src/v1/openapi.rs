//! `GET /api/v1/openapi.json`: OpenAPI 3.1, from the table of routes and the request bodies described here.

use axum::Json;
use serde_json::{Map, Value, json};

use crate::error::Protocol;
use crate::router::{Route, routes};

/// `GET /api/v1/openapi.json`
pub(crate) async fn document() -> Json<Value> {
    Json(describe(&routes()))
}

pub(crate) fn describe(routes: &[Route]) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidemill",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The Open Inference Protocol v2 under `/v2`, MLflow's scoring protocol under `/invocations`, the SageMaker runtime under `/endpoints`, Vertex AI's prediction under `/v1/projects`, and Tidemill's own under `/api/v1`.",
        },
        "paths": paths,
        "components": { "schemas": all_schemas() },
    })
}

fn operation(route: &Route) -> Value {
    let (tag, error) = match Protocol::of_path(route.path) {
        Some(Protocol::OpenInference) => ("Open Inference Protocol v2", "OpenInferenceError"),
        Some(Protocol::Mlflow) => ("MLflow scoring", "MlflowError"),
        Some(Protocol::MlflowRest) => ("MLflow tracking", "MlflowError"),
        Some(Protocol::SageMaker | Protocol::SageMakerControl) => ("SageMaker runtime", "SageMakerError"),
        Some(Protocol::Vertex) => ("Vertex AI prediction", "VertexError"),
        Some(Protocol::V1 | Protocol::Grpc) | None => ("Tidemill", "Error"),
    };
    let path = path_parameters(route.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let query = route
        .query
        .iter()
        .map(|name| json!({ "name": name, "in": "query", "schema": query_schema(name) }));
    let parameters: Vec<Value> = path.chain(query).collect();
    let success = success_type(route.path);
    let error = json!({ "application/json": { "schema": reference(error) } });
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [tag],
        "parameters": parameters,
        "responses": {
            "2XX": { "description": "Done", "content": { success: {} } },
            "4XX": { "description": "The request is at fault", "content": error },
            "5XX": { "description": "The server is at fault, or cannot answer now", "content": error },
        },
    });
    if let Some(body) = route.body {
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": reference(body) } },
        });
    }
    operation
}

fn success_type(path: &str) -> &'static str {
    match path {
        "/metrics" | "/ping" | "/health" | "/version" => "text/plain",
        "/api/v1/events/stream" => "text/event-stream",
        path if path.starts_with("/docs/") || path.ends_with("/card") => "text/markdown",
        _ => "application/json",
    }
}

/// The names in braces.
pub(crate) fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// Method and path as one word, such as `get_api_v1_runs_id`: stable as long as the route is.
fn operation_id(route: &Route) -> String {
    let mut id = route.method.as_str().to_ascii_lowercase();
    for word in route
        .path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| !w.is_empty())
    {
        id.push('_');
        id.push_str(word);
    }
    id
}

fn query_schema(name: &str) -> Value {
    match name {
        "limit" => json!({ "type": "integer", "minimum": 1 }),
        "since" => json!({ "type": "string", "format": "date-time" }),
        _ => json!({ "type": "string" }),
    }
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// An object of required and optional properties.
fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

fn all_schemas() -> Value {
    let mut all = schemas();
    let others = super::registry::schemas()
        .into_iter()
        .chain(super::sweeps::schemas())
        .chain(super::tables::schemas());
    for (name, schema) in others {
        all[name] = schema;
    }
    for (name, schema) in [
        super::automations::schema(),
        super::batch_jobs::schema(),
        super::deployments::schema(),
        super::deployment_routing::schema(),
        super::explain::schema(),
    ] {
        all[name] = schema;
    }
    all
}

fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let value = || json!({ "type": ["boolean", "number", "string"] });
    let cell = || json!({ "type": ["boolean", "number", "string", "null"] });
    let list = |items: Value| json!({ "type": "array", "items": items });
    json!({
        "VertexRequest": object(&["instances"], json!({ "instances": list(json!({})), "parameters": { "type": "object" } })),
        "Fields": { "type": "object" },
        "RepositoryIndex": object(&[], json!({ "ready": { "type": "boolean" } })),
        "RepositoryParameters": object(&[], json!({ "parameters": { "type": "object" } })),
        "SharedMemoryRegion": object(&["byte_size"], json!({
            "key": text(),
            "offset": { "type": "integer" },
            "byte_size": { "type": "integer" },
        })),
        "InferenceRequest": object(&["inputs"], json!({
            "id": { "type": "string", "description": "Sent again with the same rows, the same answer comes back and is recorded once" },
            "parameters": { "type": "object" },
            "inputs": list(object(&["name", "shape", "datatype"], json!({
                "name": text(),
                "shape": list(json!({ "type": "integer" })),
                "datatype": { "enum": ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"] },
                "parameters": { "type": "object" },
                "data": list(json!({})),
            }))),
            "outputs": list(object(&["name"], json!({ "name": text() }))),
        })),
        "ScoringRequest": {
            "type": "object",
            "description": "Exactly one of the first four",
            "properties": {
                "dataframe_split": object(&["columns", "data"], json!({ "columns": list(text()), "data": list(list(cell())) })),
                "dataframe_records": list(json!({ "type": "object", "additionalProperties": cell() })),
                "inputs": { "type": ["object", "array"] },
                "instances": { "type": "array" },
                "params": object(&[], json!({ "request_id": text() })),
            },
        },
        "Feedback": object(&["prediction_id", "value"], json!({
            "prediction_id": text(),
            "label": text(),
            "value": value(),
            "event_time": { "type": "string", "format": "date-time" },
            "source": text(),
            "idempotency_key": text(),
            "kind": { "enum": ["ground_truth", "human", "proxy", "weak", "implicit"] },
            "retracted": { "type": "boolean" },
        })),
        "FeedbackBody": { "oneOf": [
            reference("Feedback"),
            object(&["feedback"], json!({ "feedback": { "type": "array", "items": reference("Feedback"), "minItems": 1, "maxItems": 10_000 } })),
        ] },
        "ImportMarks": object(&["source", "kind", "things"], json!({
            "source": text(),
            "kind": { "enum": ["run", "logged_model", "registered_model"] },
            "things": list(object(&["id", "target", "counts"], json!({
                "id": text(),
                "target": text(),
                "fingerprint": { "type": ["string", "null"] },
                "counts": { "type": "object" },
            }))),
        })),
        "ImportExperiments": object(&["source", "experiments"], json!({
            "source": text(),
            "experiments": list(object(&["id", "name", "lifecycle"], json!({
                "id": text(),
                "name": text(),
                "lifecycle": { "enum": ["active", "deleted"] },
                "created_ms": { "type": "integer" },
                "updated_ms": { "type": "integer" },
                "tags": list(list(text())),
            }))),
        })),
        "ImportRuns": object(&["source"], json!({
            "source": text(),
            "runs": list(json!({ "type": "object" })),
            "metrics": list(object(&["run_id", "metrics"], json!({
                "run_id": text(),
                "metrics": list(object(&["key", "step", "at_ms", "value", "is_nan"], json!({
                    "key": text(),
                    "step": { "type": "integer" },
                    "at_ms": { "type": "integer" },
                    "value": { "type": "number" },
                    "is_nan": { "type": "boolean" },
                }))),
            }))),
        })),
        "ImportModels": object(&["source"], json!({
            "source": text(),
            "logged_models": list(json!({ "type": "object" })),
            "registered_models": list(json!({ "type": "object" })),
        })),
        "StartRun": object(&[], json!({ "reason": text() })),
        "CreateToken": object(&[], json!({ "name": text(), "expires_in_days": { "type": "integer", "minimum": 1 } })),
        "Promote": object(&["version", "why"], json!({ "version": { "type": "integer" }, "why": text(), "by": text() })),
        "Rollback": object(&["why"], json!({ "why": text(), "by": text() })),
        "Purge": object(&[], json!({
            "older_than": { "type": "string", "description": "A length of time such as `30d`; 30 days where nothing is said, none where ids are given" },
            "experiment_ids": list(text()),
            "run_ids": list(text()),
            "dry_run": { "type": "boolean" },
        })),
        "Advance": object(&["to"], json!({ "to": { "type": "string", "format": "date-time" } })),
        "Error": object(&["error"], json!({ "error": object(&["code", "message", "docs"], json!({
            "code": text(),
            "message": text(),
            "details": {},
            "docs": text(),
        })) })),
        "SageMakerError": object(&["Message"], json!({
            "Message": text(),
            "OriginalStatusCode": { "type": "integer" },
            "OriginalMessage": text(),
        })),
        "VertexError": object(&["error"], json!({ "error": object(&["code", "message", "status"], json!({
            "code": { "type": "integer" },
            "message": text(),
            "status": text(),
        })) })),
        "OpenInferenceError": object(&["error"], json!({ "error": text() })),
        "MlflowError": object(&["error_code", "message"], json!({
            "error_code": text(),
            "message": text(),
            "stack_trace": { "type": ["string", "null"] },
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_described_once_with_its_parameters_and_a_known_body() {
        let routes = routes();
        let document = describe(&routes);
        let mut ids = BTreeSet::new();
        for route in &routes {
            let method = route.method.as_str().to_ascii_lowercase();
            let operation = &document["paths"][route.path][&method];
            assert_eq!(operation["summary"], route.summary, "{}", route.path);
            assert!(
                ids.insert(operation["operationId"].to_string()),
                "{} twice",
                route.path
            );
            let described: BTreeSet<&str> = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|p| p["name"].as_str())
                .collect();
            assert!(path_parameters(route.path).all(|name| described.contains(name)));
            if let Some(body) = route.body {
                assert!(document["components"]["schemas"][body].is_object(), "{body}");
            }
            // What MLflow's own protocols take is described by MLflow.
            let ours = ["/api/v1/", "/v2", "/invocations"]
                .iter()
                .any(|start| route.path.starts_with(start));
            let changes = [axum::http::Method::POST, axum::http::Method::PATCH].contains(&route.method);
            // Asking for the next trial of a sweep says nothing but which sweep; forgetting a region or stopping a job nothing but which.
            let says_only_which = ["/next", "/unregister", "/cancel"]
                .iter()
                .any(|end| route.path.ends_with(end));
            let takes_body = changes && !says_only_which;
            assert!(route.body.is_some() == takes_body || !ours, "{}", route.path);
        }
    }
}
