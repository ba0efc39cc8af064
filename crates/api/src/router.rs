//! All routes, as a table of contents. Each is declared once: the router and the OpenAPI document both come from here.

use std::sync::Arc;

use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::control_plane::{App, ControlPlane};
use crate::v1::{clock, endpoints, events, feedback, lists, models, openapi, runs, spec, status, sweeps};
use crate::{docs, edge, mlflow, open_inference, page, prometheus, wandb};

/// A route, and what the OpenAPI document says of it.
pub(crate) struct Route {
    pub method: Method,
    pub path: &'static str,
    pub summary: &'static str,
    /// Names of query parameters.
    pub query: &'static [&'static str],
    /// The schema of the body, by its name in [`openapi`].
    pub body: Option<&'static str>,
    handler: MethodRouter<App>,
}

impl Route {
    fn query(mut self, names: &'static [&'static str]) -> Self {
        self.query = names;
        self
    }

    fn body(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self
    }
}

fn route<H, T>(
    method: Method,
    filter: MethodFilter,
    path: &'static str,
    handler: H,
    summary: &'static str,
) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    Route {
        method,
        path,
        summary,
        query: &[],
        body: None,
        handler: on(filter, handler),
    }
}

fn get<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, summary: &'static str) -> Route {
    route(Method::GET, MethodFilter::GET, path, handler, summary)
}

fn post<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, summary: &'static str) -> Route {
    route(Method::POST, MethodFilter::POST, path, handler, summary)
}

#[allow(dead_code)] // until the first protocol needs it
fn patch<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, summary: &'static str) -> Route {
    route(Method::PATCH, MethodFilter::PATCH, path, handler, summary)
}

#[allow(dead_code)]
fn delete<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, summary: &'static str) -> Route {
    route(Method::DELETE, MethodFilter::DELETE, path, handler, summary)
}

#[allow(dead_code)]
fn put<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, summary: &'static str) -> Route {
    route(Method::PUT, MethodFilter::PUT, path, handler, summary)
}

/// What every list of a noun can be asked.
const LIST: &[&str] = &["endpoint", "model", "monitor", "kind", "after", "since", "limit"];

/// The whole API.
pub(crate) fn routes() -> Vec<Route> {
    [
        own_routes(),
        tracking_routes(),
        registry_routes(),
        logged_model_routes(),
        artifact_routes(),
        user_routes(),
        wandb_routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// MLflow's experiments, runs, metrics, datasets and logged models. A path under `/api/2.0/` or `/api/3.0/` is served under
/// `/ajax-api/` too.
#[rustfmt::skip]
fn tracking_routes() -> Vec<Route> {
    use crate::mlflow::tracking::{experiments, history, inputs, logging, runs, server};
    vec![
        // Experiments
        post("/api/2.0/mlflow/experiments/create", experiments::create, "Create an experiment"),
        get("/api/2.0/mlflow/experiments/get", experiments::get, "An experiment").query(&["experiment_id"]),
        get("/api/2.0/mlflow/experiments/get-by-name", experiments::get_by_name, "An experiment by its name").query(&["experiment_name"]),
        post("/api/2.0/mlflow/experiments/delete", experiments::delete, "Delete an experiment and its runs"),
        post("/api/2.0/mlflow/experiments/restore", experiments::restore, "Restore an experiment and its runs"),
        post("/api/2.0/mlflow/experiments/update", experiments::update, "Rename an experiment"),
        post("/api/2.0/mlflow/experiments/set-experiment-tag", experiments::set_tag, "Set a tag of an experiment"),
        post("/api/2.0/mlflow/experiments/delete-experiment-tag", experiments::delete_tag, "Delete a tag of an experiment"),
        get("/api/2.0/mlflow/experiments/search-datasets", inputs::search_datasets, "Datasets that runs of experiments read").query(&["experiment_ids"]),
        post("/api/2.0/mlflow/experiments/search-datasets", inputs::search_datasets, "Datasets that runs of experiments read"),

        // Runs
        post("/api/2.0/mlflow/runs/create", runs::create, "Start a tracked run"),
        get("/api/2.0/mlflow/runs/get", runs::get, "A tracked run with what was logged of it").query(&["run_id"]),
        post("/api/2.0/mlflow/runs/update", runs::update, "Say how far a tracked run is"),
        post("/api/2.0/mlflow/runs/delete", runs::delete, "Delete a tracked run"),
        post("/api/2.0/mlflow/runs/restore", runs::restore, "Restore a tracked run"),
        post("/api/2.0/mlflow/runs/log-metric", logging::log_metric, "Log a point of a metric"),
        post("/api/2.0/mlflow/runs/log-parameter", logging::log_param, "Log a parameter"),
        post("/api/2.0/mlflow/runs/log-batch", logging::log_batch, "Log metrics, parameters and tags, all or nothing"),
        post("/api/2.0/mlflow/runs/log-model", logging::log_model, "Note a model in a run's tag, as old clients do"),
        post("/api/2.0/mlflow/runs/set-tag", logging::set_tag, "Set a tag of a run"),
        post("/api/2.0/mlflow/runs/delete-tag", logging::delete_tag, "Delete a tag of a run"),
        post("/api/2.0/mlflow/runs/log-inputs", inputs::log_inputs, "Say which datasets and models a run read"),
        post("/api/2.0/mlflow/runs/outputs", inputs::log_outputs, "Say which models a run wrote"),

        // Histories of metrics
        get("/api/2.0/mlflow/metrics/get-history", history::page, "The points of a metric").query(&["run_id", "metric_key", "max_results", "page_token"]),
        get("/api/2.0/mlflow/metrics/get-history-bulk", history::bulk, "The points of a metric in several runs").query(&["run_id", "metric_key", "max_results"]),
        get("/api/2.0/mlflow/metrics/get-history-bulk-interval", history::sampled, "The points of a metric in several runs at sampled steps").query(&["run_ids", "metric_key", "start_step", "end_step", "max_results"]),
        get("/api/2.0/mlflow/metrics/get-history-downsampled", history::downsampled, "A metric for a chart: first, last, smallest and largest point of each stretch of steps").query(&["run_id", "metric_key", "points", "start_step", "end_step"]),

        // What this server is, and is not
        get("/api/3.0/mlflow/server-info", server::info, "What clients of MLflow may count on"),
        post("/api/3.0/mlflow/traces/search", server::no_traces, "No traces: this server keeps none"),
        get("/api/2.0/mlflow/traces", server::no_traces, "No traces: this server keeps none"),
    ]
}

/// MLflow's registered models, model versions and webhooks.
#[rustfmt::skip]
fn registry_routes() -> Vec<Route> {
    use crate::mlflow::tracking::{registry, webhooks};
    use crate::v1::registry as ours;
    vec![
        // Registered models
        post("/api/2.0/mlflow/registered-models/create", registry::create_model, "Register a model"),
        get("/api/2.0/mlflow/registered-models/get", registry::get_model, "A registered model").query(&["name"]),
        post("/api/2.0/mlflow/registered-models/rename", registry::rename_model, "Rename a registered model"),
        patch("/api/2.0/mlflow/registered-models/update", registry::update_model, "Say what a registered model is for"),
        delete("/api/2.0/mlflow/registered-models/delete", registry::delete_model, "Delete a registered model and its versions"),
        get("/api/2.0/mlflow/registered-models/get-latest-versions", registry::latest_versions, "The latest version of each stage").query(&["name", "stages"]),
        post("/api/2.0/mlflow/registered-models/get-latest-versions", registry::latest_versions, "The latest version of each stage"),
        post("/api/2.0/mlflow/registered-models/set-tag", registry::set_model_tag, "Set a tag of a registered model"),
        delete("/api/2.0/mlflow/registered-models/delete-tag", registry::delete_model_tag, "Delete a tag of a registered model"),
        post("/api/2.0/mlflow/registered-models/alias", registry::set_alias, "Point an alias at a version"),
        delete("/api/2.0/mlflow/registered-models/alias", registry::delete_alias, "Delete an alias"),
        get("/api/2.0/mlflow/registered-models/alias", registry::get_by_alias, "The version that an alias names").query(&["name", "alias"]),

        // Model versions
        post("/api/2.0/mlflow/model-versions/create", registry::create_version, "Register a model version"),
        get("/api/2.0/mlflow/model-versions/get", registry::get_version, "A model version").query(&["name", "version"]),
        patch("/api/2.0/mlflow/model-versions/update", registry::update_version, "Say what a model version is"),
        post("/api/2.0/mlflow/model-versions/transition-stage", registry::transition_stage, "Put a model version into a stage"),
        delete("/api/2.0/mlflow/model-versions/delete", registry::delete_version, "Delete a model version"),
        get("/api/2.0/mlflow/model-versions/get-download-uri", registry::download_uri, "Where a model version's files are").query(&["name", "version"]),
        post("/api/2.0/mlflow/model-versions/set-tag", registry::set_version_tag, "Set a tag of a model version"),
        delete("/api/2.0/mlflow/model-versions/delete-tag", registry::delete_version_tag, "Delete a tag of a model version"),

        // Webhooks
        post("/api/2.0/mlflow/webhooks", webhooks::create, "Ask to be told of events"),
        get("/api/2.0/mlflow/webhooks", webhooks::list, "Webhooks").query(&["max_results", "page_token"]),
        get("/api/2.0/mlflow/webhooks/{webhook_id}", webhooks::get, "A webhook"),
        patch("/api/2.0/mlflow/webhooks/{webhook_id}", webhooks::update, "Change a webhook"),
        delete("/api/2.0/mlflow/webhooks/{webhook_id}", webhooks::delete, "Delete a webhook"),
        post("/api/2.0/mlflow/webhooks/{webhook_id}/test", webhooks::test, "Send an example to a webhook"),

        // Beyond MLflow
        get("/api/v1/models/{model}/audit", ours::audit, "A model's whole history, also after it is gone"),
        post("/api/v1/models/{model}/versions/{version}/requests", ours::request, "Ask that a version gets an alias or a stage").body("MoveRequest"),
        get("/api/v1/models/{model}/versions/{version}/requests", ours::requests, "What was asked of a version, and decided"),
        post("/api/v1/models/{model}/versions/{version}/requests/{id}/approve", ours::approve, "Grant a request, which moves the alias or stage").body("Comment"),
        post("/api/v1/models/{model}/versions/{version}/requests/{id}/reject", ours::reject, "Refuse a request").body("Comment"),
        get("/api/v1/models/{model}/versions/{version}/card", ours::card, "A version's card, as Markdown"),
        get("/api/v1/models/{model}/versions/{version}/compare/{other}", ours::compare, "How another version differs from this one, and whether it can take its place"),
    ]
}

/// MLflow's logged models.
#[rustfmt::skip]
fn logged_model_routes() -> Vec<Route> {
    use crate::mlflow::tracking::logged_models;
    vec![
        post("/api/2.0/mlflow/logged-models", logged_models::create, "Announce a model whose files are about to be written"),
        get("/api/2.0/mlflow/logged-models/{model_id}", logged_models::get, "A logged model").query(&["allow_deleted"]),
        patch("/api/2.0/mlflow/logged-models/{model_id}", logged_models::finalize, "Say how far a logged model's files have come"),
        delete("/api/2.0/mlflow/logged-models/{model_id}", logged_models::delete, "Delete a logged model"),
        patch("/api/2.0/mlflow/logged-models/{model_id}/tags", logged_models::set_tags, "Set tags of a logged model"),
        delete("/api/2.0/mlflow/logged-models/{model_id}/tags/{tag_key}", logged_models::delete_tag, "Remove a tag of a logged model"),
        post("/api/2.0/mlflow/logged-models/{model_id}/params", logged_models::log_params, "Add parameters of a logged model"),
    ]
}

/// MLflow's artifacts.
#[rustfmt::skip]
fn artifact_routes() -> Vec<Route> {
    use crate::mlflow::tracking::artifacts::{self, multipart, of_runs};
    vec![
        // The proxy
        get("/api/2.0/mlflow-artifacts/artifacts", artifacts::list, "What is in a folder of the artifact proxy").query(&["path"]),
        get("/api/2.0/mlflow-artifacts/artifacts/{*path}", artifacts::get, "A file of the artifact proxy, or a range of it"),
        put("/api/2.0/mlflow-artifacts/artifacts/{*path}", artifacts::put, "Store a file in the artifact proxy"),
        delete("/api/2.0/mlflow-artifacts/artifacts/{*path}", artifacts::delete, "Remove a file or a folder of the artifact proxy"),
        post("/api/2.0/mlflow-artifacts/mpu/create/{*artifact_path}", multipart::create, "Open an upload in parts"),
        post("/api/2.0/mlflow-artifacts/mpu/complete/{*artifact_path}", multipart::complete, "Put the parts of an upload together"),
        post("/api/2.0/mlflow-artifacts/mpu/abort/{*artifact_path}", multipart::abort, "Give an upload in parts up"),
        put("/api/2.0/mlflow-artifacts/parts/{upload_id}/{number}", multipart::put_part, "Store a part of an upload").query(&["token"]),
        get("/api/2.0/mlflow-artifacts/presigned/{*path}", multipart::presign, "A URL that opens a file for an hour"),
        get("/api/2.0/mlflow-artifacts/signed/{*path}", multipart::get_signed, "A file, by a URL that was signed for it").query(&["workspace", "until", "token"]),

        // What runs, versions and logged models keep
        get("/api/2.0/mlflow/artifacts/list", of_runs::list, "What is in a folder of a run's artifacts").query(&["run_id", "path"]),
        get("/get-artifact", of_runs::get, "A file of a run").query(&["run_id", "path"]),
        get("/model-versions/get-artifact", of_runs::get_of_version, "A file of a model version").query(&["name", "version", "path"]),
        post("/api/2.0/mlflow/upload-artifact", of_runs::upload, "Store a small file of a run").query(&["run_uuid", "path"]),
        get("/api/2.0/mlflow/logged-models/{model_id}/artifacts/files", of_runs::get_of_model, "A file of a logged model").query(&["artifact_file_path"]),
        get("/api/2.0/mlflow/logged-models/{model_id}/artifacts/directories", of_runs::list_of_model, "What is in a folder of a logged model").query(&["artifact_directory_path"]),
    ]
}

/// Users, roles, tokens and workspaces.
#[rustfmt::skip]
fn user_routes() -> Vec<Route> {
    vec![]
}

/// Weights & Biases' client.
#[rustfmt::skip]
fn wandb_routes() -> Vec<Route> {
    vec![
        post("/graphql", wandb::http::graphql, "The operations that W&B's client sends, by their names"),
        post("/files/{entity}/{project}/{run}/file_stream", wandb::http::file_stream, "Lines of a W&B run: history, system metrics, summary, console"),
        put("/wandb/upload/{token}", wandb::http::upload, "Send bytes by a URL that allows it"),
        get("/wandb/download/{token}", wandb::http::download, "Fetch bytes by a URL that allows it"),
        get("/api/v1/tracking/artifact-lineage", wandb::http::artifact_lineage, "Which artifacts a run read and wrote").query(&["run_id"]),
        get("/api/v1/tracking/console", wandb::http::console, "What a run printed").query(&["run_id", "from", "limit"]),
        get("/api/v1/sweeps", sweeps::list, "Sweeps").query(&["project"]),
        post("/api/v1/sweeps", sweeps::create, "Make a sweep"),
        get("/api/v1/sweeps/{id}", sweeps::show, "A sweep and its trials"),
        patch("/api/v1/sweeps/{id}", sweeps::change, "Rename, pause, resume or end a sweep"),
        post("/api/v1/sweeps/{id}/next", sweeps::next, "Ask for the next trial"),
        post("/api/v1/sweeps/{id}/trials/{number}/report", sweeps::report, "Report what a trial measured, and hear whether to stop"),
    ]
}

/// Serving and our own protocol.
#[rustfmt::skip] // a table reads better with one route a line
fn own_routes() -> Vec<Route> {
    vec![
        // The Open Inference Protocol v2
        get("/v2", open_inference::server_metadata, "The server's name, version and extensions"),
        get("/v2/health/live", open_inference::live, "Whether the server runs"),
        get("/v2/health/ready", open_inference::ready, "Whether the server can answer"),
        get("/v2/models/{model}", open_inference::model_metadata, "An endpoint's inputs and outputs"),
        get("/v2/models/{model}/ready", open_inference::model_ready, "Whether an endpoint can answer"),
        post("/v2/models/{model}/infer", open_inference::infer, "Predict").body("InferenceRequest"),
        get("/v2/models/{model}/versions/{version}", open_inference::model_metadata, "A loaded version's inputs and outputs"),
        get("/v2/models/{model}/versions/{version}/ready", open_inference::model_ready, "Whether a version is loaded"),
        post("/v2/models/{model}/versions/{version}/infer", open_inference::infer, "Predict with one version").body("InferenceRequest"),

        // MLflow's scoring protocol
        post("/invocations", mlflow::invoke_default, "Predict with the only endpoint").body("ScoringRequest"),
        post("/invocations/{endpoint}", mlflow::invoke, "Predict").body("ScoringRequest"),
        get("/ping", mlflow::ping, "Whether the server can answer"),
        get("/health", mlflow::tracking::server::health, "Whether the server can answer"),
        get("/version", mlflow::tracking::server::version, "The version of MLflow that its clients may count on"),

        // Our own protocol
        get("/api/v1/status", status::status, "The server at a glance"),
        get("/api/v1/endpoints", endpoints::list, "Endpoints").query(LIST),
        get("/api/v1/endpoints/{endpoint}", endpoints::show, "An endpoint"),
        get("/api/v1/endpoints/{endpoint}/timeline", endpoints::timeline, "An endpoint's whole life"),
        post("/api/v1/endpoints/{endpoint}/promote", endpoints::promote, "Make a version champion by hand").body("Promote"),
        post("/api/v1/endpoints/{endpoint}/rollback", endpoints::rollback, "Take the latest change back by hand").body("Rollback"),
        get("/api/v1/models", models::list, "Registered models").query(LIST),
        get("/api/v1/models/{model}", models::show, "A registered model"),
        get("/api/v1/models/{model}/versions", models::versions, "A model's versions").query(LIST),
        get("/api/v1/models/{model}/versions/{version}", models::version, "A model version"),
        get("/api/v1/models/{model}/aliases", models::aliases, "A model's aliases").query(LIST),
        get("/api/v1/models/{model}/history", models::history, "Every change of a model's aliases").query(LIST),
        get("/api/v1/runs", runs::list, "Pipeline runs").query(LIST),
        post("/api/v1/runs", runs::start, "Start a run by hand").body("StartRun"),
        get("/api/v1/runs/{id}", runs::show, "A pipeline run"),
        get("/api/v1/snapshots", lists::snapshots, "Snapshots").query(LIST),
        get("/api/v1/snapshots/{digest}", lists::snapshot, "A snapshot"),
        get("/api/v1/decisions", lists::decisions, "Decision records").query(LIST),
        get("/api/v1/decisions/{id}", lists::decision, "A decision record"),
        get("/api/v1/rollouts", lists::rollouts, "Rollouts").query(LIST),
        get("/api/v1/rollouts/{id}", lists::rollout, "A rollout"),
        get("/api/v1/alerts", lists::alerts, "Alerts").query(LIST),
        get("/api/v1/windows", lists::windows, "Closed monitor windows").query(LIST),
        get("/api/v1/lineage/predictions/{id}", status::lineage, "Everything behind a prediction, and what came of it"),
        post("/api/v1/feedback", feedback::record, "Say what was true of predictions").body("FeedbackBody"),
        get("/api/v1/events", events::list, "The event log").query(&["after", "limit"]),
        get("/api/v1/events/stream", events::stream, "The event log, live, by server-sent events").query(&["after"]),
        get("/api/v1/spec", spec::spec, "The project's spec"),
        get("/api/v1/spec/schema", spec::schema, "The JSON Schema of `tidemill.yaml`"),
        get("/api/v1/clock", clock::show, "What the server's clock shows"),
        post("/api/v1/clock/advance", clock::advance, "Move a virtual clock").body("Advance"),
        get("/api/v1/openapi.json", openapi::document, "This document"),

        // For machines and people
        get("/metrics", prometheus::metrics, "What serving has counted, in Prometheus' text format"),
        get("/docs/errors/{code}", docs::error_page, "What an error means and what to do, as Markdown"),
    ]
}

/// The whole of HTTP over the rest of the house: every protocol, and the page on every other path.
pub fn router(control: Arc<dyn ControlPlane>) -> axum::Router {
    let mut router = axum::Router::new();
    for route in routes() {
        if route.path.starts_with("/api/2.0/") || route.path.starts_with("/api/3.0/") {
            router = router.route(&format!("/ajax-api{}", &route.path[4..]), route.handler.clone());
        }
        router = router.route(route.path, route.handler);
    }
    router
        .method_not_allowed_fallback(edge::method_not_allowed)
        .fallback(page::fallback)
        .layer(middleware::from_fn_with_state(Arc::clone(&control), edge::layer))
        .with_state(control)
}
