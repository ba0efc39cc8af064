//! All routes, as a table of contents. Each is declared once: the router and the OpenAPI document both come from here.

use std::sync::Arc;

use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};
use tower::ServiceExt as _;

use crate::control_plane::{App, ControlPlane};
use crate::mlflow::tracking::{permissions, roles, signup, users, workspaces};
use crate::security::{self, Security};
use crate::v1::{
    clock, endpoints, events, feedback, import, lists, models, openapi, runs, spec, status, sweeps, tables,
    tokens,
};
use crate::{auth, docs, edge, grpc, mlflow, page, prometheus, sagemaker, vertex, wandb};

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
    /// The path under which MLflow's page asks for the same.
    fn twin(&self) -> Option<String> {
        let mlflows = self.path.starts_with("/api/2.0/") || self.path.starts_with("/api/3.0/");
        mlflows.then(|| format!("/ajax-api{}", &self.path[4..]))
    }

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

fn patch<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, summary: &'static str) -> Route {
    route(Method::PATCH, MethodFilter::PATCH, path, handler, summary)
}

fn delete<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, summary: &'static str) -> Route {
    route(Method::DELETE, MethodFilter::DELETE, path, handler, summary)
}

fn put<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, summary: &'static str) -> Route {
    route(Method::PUT, MethodFilter::PUT, path, handler, summary)
}

/// What every list of a noun can be asked.
const LIST: &[&str] = &["endpoint", "model", "monitor", "kind", "after", "since", "limit"];

/// What rows of a table can be asked by, after what says whose table it is.
const TABLE_OF_RUN: &[&str] = &[
    "run_id", "artifact", "path", "columns", "filter", "order_by", "offset", "limit", "format",
];
const TABLE_OF_ARTIFACT: &[&str] = &[
    "artifact", "path", "columns", "filter", "order_by", "offset", "limit", "format",
];
const TABLE_OF_VERSION: &[&str] = &[
    "name", "version", "path", "columns", "filter", "order_by", "offset", "limit", "format",
];
const TABLE_OF_MODEL: &[&str] = &[
    "model_id", "path", "columns", "filter", "order_by", "offset", "limit", "format",
];

/// The whole API.
pub(crate) fn routes() -> Vec<Route> {
    [
        open_inference_routes(),
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
    use crate::mlflow::tracking::{eval_datasets, experiments, graphql, history, inputs, logging, runs, search, server};
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
        get("/api/2.0/mlflow/experiments/search", search::experiments, "Search experiments").query(&["filter", "order_by", "view_type", "max_results", "page_token"]),
        post("/api/2.0/mlflow/experiments/search", search::experiments, "Search experiments"),
        get("/api/2.0/mlflow/experiments/search-datasets", inputs::search_datasets, "Datasets that runs of experiments read").query(&["experiment_ids"]),
        post("/api/2.0/mlflow/experiments/search-datasets", inputs::search_datasets, "Datasets that runs of experiments read"),

        // Runs
        post("/api/2.0/mlflow/runs/create", runs::create, "Start a tracked run"),
        get("/api/2.0/mlflow/runs/get", runs::get, "A tracked run with what was logged of it").query(&["run_id"]),
        post("/api/2.0/mlflow/runs/search", search::runs, "Search runs"),
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

        // Evaluation datasets
        post("/api/3.0/mlflow/datasets/create", eval_datasets::create, "Create an evaluation dataset"),
        get("/api/3.0/mlflow/datasets/search", eval_datasets::search, "Search evaluation datasets").query(&["experiment_ids", "filter_string", "order_by", "max_results", "page_token"]),
        post("/api/3.0/mlflow/datasets/search", eval_datasets::search, "Search evaluation datasets"),
        get("/api/3.0/mlflow/datasets/{dataset_id}", eval_datasets::get, "An evaluation dataset without its records"),
        delete("/api/3.0/mlflow/datasets/{dataset_id}", eval_datasets::delete, "Delete an evaluation dataset and its records"),
        patch("/api/3.0/mlflow/datasets/{dataset_id}/tags", eval_datasets::set_tags, "Set tags of an evaluation dataset"),
        delete("/api/3.0/mlflow/datasets/{dataset_id}/tags/{key}", eval_datasets::delete_tag, "Delete a tag of an evaluation dataset"),
        post("/api/3.0/mlflow/datasets/{dataset_id}/records", eval_datasets::upsert_records, "Add records to an evaluation dataset, or merge them into those of the same inputs"),
        get("/api/3.0/mlflow/datasets/{dataset_id}/records", eval_datasets::records, "Records of an evaluation dataset").query(&["max_results", "page_token"]),
        delete("/api/3.0/mlflow/datasets/{dataset_id}/records", eval_datasets::delete_records, "Delete records of an evaluation dataset"),
        get("/api/3.0/mlflow/datasets/{dataset_id}/experiment-ids", eval_datasets::experiments, "The experiments that an evaluation dataset belongs to"),
        post("/api/3.0/mlflow/datasets/{dataset_id}/add-experiments", eval_datasets::add_experiments, "Add an evaluation dataset to experiments"),
        post("/api/3.0/mlflow/datasets/{dataset_id}/remove-experiments", eval_datasets::remove_experiments, "Take an evaluation dataset out of experiments"),

        // What MLflow's own pages ask
        get("/graphql", graphql::answer, "MLflow's GraphQL queries").query(&["query", "variables", "operationName"]),
        post("/graphql", crate::graphql::answer, "MLflow's GraphQL queries, and the operations of W&B's client by their names"),

        // What this server is, and is not
        get("/api/3.0/mlflow/server-info", server::info, "What clients of MLflow may count on"),
        post("/api/3.0/mlflow/traces/search", server::no_traces, "No traces: this server keeps none"),
        get("/api/2.0/mlflow/traces", server::no_traces, "No traces: this server keeps none"),
    ]
}

/// MLflow's registered models, model versions and webhooks.
#[rustfmt::skip]
fn registry_routes() -> Vec<Route> {
    use crate::mlflow::tracking::{registry, search, webhooks};
    use crate::v1::{automations, registry as ours};
    vec![
        // Registered models
        post("/api/2.0/mlflow/registered-models/create", registry::create_model, "Register a model"),
        get("/api/2.0/mlflow/registered-models/get", registry::get_model, "A registered model").query(&["name"]),
        get("/api/2.0/mlflow/registered-models/search", search::registered_models, "Search registered models").query(&["filter", "order_by", "max_results", "page_token"]),
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
        get("/api/2.0/mlflow/model-versions/search", search::model_versions, "Search model versions").query(&["filter", "order_by", "max_results", "page_token"]),
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
        post("/api/v1/automations", automations::create, "Ask to be told of what happens to runs and models").body("Automation"),
        get("/api/v1/automations", automations::list, "Automations"),
        delete("/api/v1/automations/{id}", automations::delete, "Remove an automation"),
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
    use crate::mlflow::tracking::{logged_models, search};
    vec![
        post("/api/2.0/mlflow/logged-models", logged_models::create, "Announce a model whose files are about to be written"),
        post("/api/2.0/mlflow/logged-models/search", search::logged_models, "Search logged models"),
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
    use crate::mlflow::tracking::artifacts::{self, direct, multipart, of_runs};
    use crate::v1::purge;
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
        post("/api/2.0/mlflow/artifacts/presigned-upload-url", direct::upload, "A URL of the bucket to store a file of a run or a logged model"),
        post("/api/2.0/mlflow/artifacts/presigned-download-url", direct::download, "A URL of the bucket to fetch a file of a run or a logged model"),
        get("/get-artifact", of_runs::get, "A file of a run").query(&["run_id", "path", "inline"]),
        get("/model-versions/get-artifact", of_runs::get_of_version, "A file of a model version").query(&["name", "version", "path", "inline"]),
        post("/api/2.0/mlflow/upload-artifact", of_runs::upload, "Store a small file of a run").query(&["run_uuid", "path"]),
        get("/api/2.0/mlflow/logged-models/{model_id}/artifacts/files", of_runs::get_of_model, "A file of a logged model").query(&["artifact_file_path"]),
        get("/api/2.0/mlflow/logged-models/{model_id}/artifacts/directories", of_runs::list_of_model, "What is in a folder of a logged model").query(&["artifact_directory_path"]),

        // Deletion for good
        post("/api/v1/tracking/gc", purge::purge, "Delete for good what was deleted long enough ago").body("Purge"),
        delete("/api/v1/tracking/experiments/{id}", purge::experiment, "Delete an experiment for good, with all that is in it"),
        delete("/api/v1/tracking/runs/{id}", purge::run, "Delete a run for good"),
    ]
}

/// Users, roles, tokens and workspaces.
#[rustfmt::skip]
fn user_routes() -> Vec<Route> {
    vec![
        post("/api/2.0/mlflow/users/create", users::create, "Add a user"),
        get("/api/2.0/mlflow/users/get", users::get, "A user").query(&["username"]),
        get("/api/2.0/mlflow/users/list", users::list, "Users"),
        get("/api/2.0/mlflow/users/current", users::current, "The user who asks"),
        patch("/api/2.0/mlflow/users/update-password", users::update_password, "Give a user another password"),
        patch("/api/2.0/mlflow/users/update-admin", users::update_admin, "Make a user an administrator, or no longer one"),
        patch("/api/3.0/mlflow/users/update-role", users::update_role, "Give a user another role on the server"),
        delete("/api/2.0/mlflow/users/delete", users::delete, "Remove a user"),
        get("/signup", signup::form, "A form to add a user in a browser"),
        post("/api/2.0/mlflow/users/create-ui", signup::submit, "Add a user from the form"),
        get("/api/3.0/mlflow/users/current/permissions", users::current_permissions, "What the user who asks is granted"),
        get("/api/3.0/mlflow/users/permissions/list", users::permissions, "What a user is granted").query(&["username"]),
        get("/api/3.0/mlflow/users/permissions/get", permissions::get, "What a user may do to a resource").query(&["username", "resource_type", "resource_id"]),
        post("/api/3.0/mlflow/users/permissions/grant", permissions::grant, "Grant a user something"),
        post("/api/3.0/mlflow/users/permissions/revoke", permissions::revoke, "Take back what a user was granted"),
        post("/api/2.0/mlflow/experiments/permissions/create", permissions::create_on_experiment, "Grant a user something on an experiment"),
        get("/api/2.0/mlflow/experiments/permissions/get", permissions::get_on_experiment, "What a user is granted on an experiment").query(&["experiment_id", "username"]),
        patch("/api/2.0/mlflow/experiments/permissions/update", permissions::update_on_experiment, "Change what a user is granted on an experiment"),
        delete("/api/2.0/mlflow/experiments/permissions/delete", permissions::delete_on_experiment, "Take back what a user was granted on an experiment"),
        post("/api/2.0/mlflow/registered-models/permissions/create", permissions::create_on_model, "Grant a user something on a registered model"),
        get("/api/2.0/mlflow/registered-models/permissions/get", permissions::get_on_model, "What a user is granted on a registered model").query(&["name", "username"]),
        patch("/api/2.0/mlflow/registered-models/permissions/update", permissions::update_on_model, "Change what a user is granted on a registered model"),
        delete("/api/2.0/mlflow/registered-models/permissions/delete", permissions::delete_on_model, "Take back what a user was granted on a registered model"),
        post("/api/3.0/mlflow/roles/create", roles::create, "Add a role"),
        get("/api/3.0/mlflow/roles/get", roles::get, "A role").query(&["role_id"]),
        get("/api/3.0/mlflow/roles/list", roles::list, "Roles").query(&["workspace"]),
        patch("/api/3.0/mlflow/roles/update", roles::update, "Rename or describe a role"),
        delete("/api/3.0/mlflow/roles/delete", roles::delete, "Remove a role"),
        post("/api/3.0/mlflow/roles/permissions/add", roles::add_permission, "Let a role permit something"),
        delete("/api/3.0/mlflow/roles/permissions/remove", roles::remove_permission, "Let a role no longer permit something"),
        get("/api/3.0/mlflow/roles/permissions/list", roles::list_permissions, "What a role permits").query(&["role_id"]),
        patch("/api/3.0/mlflow/roles/permissions/update", roles::update_permission, "Change what a role permits"),
        post("/api/3.0/mlflow/roles/assign", roles::assign, "Give a user a role"),
        delete("/api/3.0/mlflow/roles/unassign", roles::unassign, "Take a role from a user"),
        get("/api/3.0/mlflow/roles/users/list", roles::users, "Who has a role").query(&["role_id"]),
        get("/api/3.0/mlflow/users/roles/list", roles::of_user, "The roles that a user has").query(&["username"]),
        get("/api/3.0/mlflow/workspaces", workspaces::list, "Workspaces"),
        post("/api/3.0/mlflow/workspaces", workspaces::create, "Add a workspace"),
        get("/api/3.0/mlflow/workspaces/{workspace_name}", workspaces::get, "A workspace"),
        patch("/api/3.0/mlflow/workspaces/{workspace_name}", workspaces::update, "Change what is said of a workspace"),
        delete("/api/3.0/mlflow/workspaces/{workspace_name}", workspaces::delete, "Remove a workspace").query(&["mode"]),
        get("/api/3.0/mlflow/workspaces/{workspace_name}/permissions", permissions::list_on_workspace, "Who is granted something on a workspace"),
        post("/api/3.0/mlflow/workspaces/{workspace_name}/permissions", permissions::set_on_workspace, "Grant a user something on a workspace"),
        delete("/api/3.0/mlflow/workspaces/{workspace_name}/permissions", permissions::delete_on_workspace, "Take back what a user was granted on a workspace"),
        get("/api/3.0/mlflow/workspace-permissions", permissions::list_workspaces_of_user, "What a user is granted on workspaces").query(&["username"]),
        post("/api/v1/tokens", tokens::create, "Make a token for the user who asks").body("CreateToken"),
        get("/api/v1/tokens", tokens::list, "Tokens of the user who asks"),
        delete("/api/v1/tokens/{id}", tokens::revoke, "Make a token worthless"),
    ]
}

/// Weights & Biases' client.
#[rustfmt::skip]
fn wandb_routes() -> Vec<Route> {
    vec![
        post("/files/{entity}/{project}/{run}/file_stream", wandb::http::file_stream, "Lines of a W&B run: history, system metrics, summary, console"),
        put("/wandb/upload/{token}", wandb::http::upload, "Send bytes by a URL that allows it"),
        get("/wandb/download/{token}", wandb::http::download, "Fetch bytes by a URL that allows it"),
        get("/api/v1/tracking/artifact-lineage", wandb::http::artifact_lineage, "Which artifacts a run read and wrote").query(&["run_id"]),
        get("/api/v1/tracking/console", wandb::http::console, "What a run printed").query(&["run_id", "from", "limit"]),
        get("/api/v1/tracking/tables", tables::list, "Tables that a run keeps as files").query(&["run_id", "artifact"]),
        get("/api/v1/tracking/tables/rows", tables::rows, "Rows of a table of a run").query(TABLE_OF_RUN),
        post("/api/v1/tracking/tables/query", tables::query, "Ask the tables of a run in SQL").body("TableQuery"),
        get("/api/v1/tracking/artifact-tables", tables::list_of_artifact, "Tables in an artifact").query(&["artifact"]),
        get("/api/v1/tracking/artifact-tables/rows", tables::rows_of_artifact, "Rows of a table in an artifact").query(TABLE_OF_ARTIFACT),
        post("/api/v1/tracking/artifact-tables/query", tables::query_of_artifact, "Ask the tables of an artifact in SQL").body("ArtifactTableQuery"),
        get("/api/v1/tracking/version-tables/rows", tables::rows_of_version, "Rows of a table of a model version").query(TABLE_OF_VERSION),
        get("/api/v1/tracking/model-tables/rows", tables::rows_of_model, "Rows of a table of a logged model").query(TABLE_OF_MODEL),
        get("/api/v1/sweeps", sweeps::list, "Sweeps").query(&["project"]),
        post("/api/v1/sweeps", sweeps::create, "Make a sweep").body("NewSweep"),
        get("/api/v1/sweeps/{id}", sweeps::show, "A sweep and its trials"),
        patch("/api/v1/sweeps/{id}", sweeps::change, "Rename, pause, resume or end a sweep").body("SweepChange"),
        post("/api/v1/sweeps/{id}/next", sweeps::next, "Ask for the next trial"),
        post("/api/v1/sweeps/{id}/trials/{number}/report", sweeps::report, "Report what a trial measured, and hear whether to stop").body("TrialReport"),
    ]
}

/// The Open Inference Protocol v2, with Triton's extensions.
#[rustfmt::skip]
fn open_inference_routes() -> Vec<Route> {
    use crate::open_inference::{about, generate, infer, memory, repository, settings};
    vec![
        get("/v2", about::server, "The server's name, version and extensions"),
        get("/v2/health/live", about::live, "Whether the server runs"),
        get("/v2/health/ready", about::ready, "Whether the server can answer"),
        get("/v2/models/{model}", about::model, "An endpoint's inputs and outputs"),
        get("/v2/models/{model}/ready", about::model_ready, "Whether an endpoint can answer"),
        post("/v2/models/{model}/infer", infer::infer, "Predict").body("InferenceRequest"),
        get("/v2/models/{model}/versions/{version}", about::model, "A loaded version's inputs and outputs"),
        get("/v2/models/{model}/versions/{version}/ready", about::model_ready, "Whether a version is loaded"),
        post("/v2/models/{model}/versions/{version}/infer", infer::infer, "Predict with one version").body("InferenceRequest"),
        get("/v2/models/{model}/config", about::config, "An endpoint's configuration, in Triton's shape"),
        get("/v2/models/{model}/versions/{version}/config", about::config, "A version's configuration, in Triton's shape"),
        get("/v2/models/stats", about::all_stats, "What has been counted of every version"),
        get("/v2/models/{model}/stats", about::stats, "What has been counted of an endpoint's versions"),
        get("/v2/models/{model}/versions/{version}/stats", about::stats, "What has been counted of a version"),
        post("/v2/models/{model}/generate", generate::generate, "Ask a deployment by a JSON object of its inputs").body("Fields"),
        post("/v2/models/{model}/versions/{version}/generate", generate::generate, "Ask a version by a JSON object of its inputs").body("Fields"),
        post("/v2/models/{model}/generate_stream", generate::generate_stream, "Ask a deployment, and get its answers as server-sent events").body("Fields"),
        post("/v2/models/{model}/versions/{version}/generate_stream", generate::generate_stream, "Ask a version, and get its answers as server-sent events").body("Fields"),
        post("/v2/repository/index", repository::index, "Every version of every endpoint").body("RepositoryIndex"),
        post("/v2/repository/models/{model}/load", repository::load, "Load a deployment").body("RepositoryParameters"),
        post("/v2/repository/models/{model}/unload", repository::unload, "Unload a deployment").body("RepositoryParameters"),
        post("/v2/repository/{repository}/index", repository::index, "Every version of every endpoint, whatever the repository is called").body("RepositoryIndex"),
        post("/v2/repository/{repository}/models/{model}/load", repository::load, "Load a deployment, whatever the repository is called").body("RepositoryParameters"),
        post("/v2/repository/{repository}/models/{model}/unload", repository::unload, "Unload a deployment, whatever the repository is called").body("RepositoryParameters"),
        get("/v2/trace/setting", settings::trace, "The settings of tracing"),
        post("/v2/trace/setting", settings::set_trace, "The settings of tracing, which are the operator's").body("Fields"),
        get("/v2/models/{model}/trace/setting", settings::model_trace, "An endpoint's settings of tracing"),
        post("/v2/models/{model}/trace/setting", settings::set_model_trace, "An endpoint's settings of tracing, which are the operator's").body("Fields"),
        get("/v2/logging", settings::logging, "The settings of logging"),
        post("/v2/logging", settings::set_logging, "The settings of logging, which are the operator's").body("Fields"),
        get("/v2/systemsharedmemory/status", memory::status, "The regions of shared memory that are registered"),
        get("/v2/systemsharedmemory/region/{region}/status", memory::status, "A region of shared memory"),
        post("/v2/systemsharedmemory/region/{region}/register", memory::register, "Register a region of shared memory").body("SharedMemoryRegion"),
        post("/v2/systemsharedmemory/unregister", memory::unregister, "Forget every region of shared memory"),
        post("/v2/systemsharedmemory/region/{region}/unregister", memory::unregister, "Forget a region of shared memory"),
        get("/v2/cudasharedmemory/status", memory::cuda_status, "Regions of a GPU's memory: none"),
        get("/v2/cudasharedmemory/region/{region}/status", memory::cuda_status, "A region of a GPU's memory: none"),
        post("/v2/cudasharedmemory/region/{region}/register", memory::cuda_register, "Refused: no GPU's memory is shared").body("SharedMemoryRegion"),
        post("/v2/cudasharedmemory/unregister", memory::cuda_unregister, "Forget every region of a GPU's memory"),
        post("/v2/cudasharedmemory/region/{region}/unregister", memory::cuda_unregister, "Forget a region of a GPU's memory"),
    ]
}

/// Serving and our own protocol.
#[rustfmt::skip] // a table reads better with one route a line
fn own_routes() -> Vec<Route> {
    vec![
        // MLflow's scoring protocol
        post("/invocations", mlflow::invoke_default, "Predict with the only endpoint").body("ScoringRequest"),
        post("/invocations/{endpoint}", mlflow::invoke, "Predict").body("ScoringRequest"),
        get("/ping", mlflow::ping, "Whether the server can answer"),
        get("/health", mlflow::tracking::server::health, "Whether the server can answer"),
        get("/version", mlflow::tracking::server::version, "The version of MLflow that its clients may count on"),

        // The SageMaker runtime
        post("/endpoints/{endpoint}/invocations", sagemaker::invoke, "Predict, as the SageMaker runtime is asked").body("ScoringRequest"),
        post("/endpoints/{endpoint}/invocations-response-stream", sagemaker::stream::invoke, "Predict, and get the answer in event-stream frames").body("ScoringRequest"),
        post("/endpoints/{endpoint}/async-invocations", sagemaker::background::invoke, "Predict from a file into a file"),
        post(sagemaker::control::PATH, sagemaker::control::call, "Batch transform: where `POST /` with an `X-Amz-Target` of SageMaker's control plane is led").body("Fields"),

        // Vertex AI's prediction service
        post("/v1/projects/{project}/locations/{location}/endpoints/{call}", vertex::call, "Predict, as Vertex AI is asked: `ENDPOINT:predict`, `:explain`, `:rawPredict`, `:streamRawPredict`").body("VertexRequest"),
        post("/v1/projects/{project}/locations/{location}/batchPredictionJobs", vertex::jobs::create, "Predict files into files, as Vertex AI is asked").body("Fields"),
        get("/v1/projects/{project}/locations/{location}/batchPredictionJobs", vertex::jobs::list, "Batch prediction jobs, newest first").query(&["filter", "pageSize", "pageToken"]),
        get("/v1/projects/{project}/locations/{location}/batchPredictionJobs/{call}", vertex::jobs::get, "A batch prediction job"),
        post("/v1/projects/{project}/locations/{location}/batchPredictionJobs/{call}", vertex::jobs::call, "Stop a batch prediction job: `ID:cancel`"),
        delete("/v1/projects/{project}/locations/{location}/batchPredictionJobs/{call}", vertex::jobs::delete, "Forget a batch prediction job that has ended"),

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
        post("/api/v1/endpoints/{endpoint}/explain", crate::v1::explain::explain, "What each input contributed to an endpoint's answers").query(&["version"]).body("Explain"),
        post("/api/v1/deployments/{name}/explain", crate::v1::explain::explain, "What each input contributed to a deployment's answers").query(&["version"]).body("Explain"),
        get("/api/v1/predictions", crate::v1::predictions::list, "What is recorded of predictions, the newest first").query(&["endpoint", "since", "limit"]),
        get("/api/v1/predictions/{id}", crate::v1::predictions::show, "What is recorded of a prediction"),
        post("/api/v1/predictions/{id}/replay", crate::v1::predictions::replay, "Ask the version that answered again, and compare"),
        post("/api/v1/deployments", crate::v1::deployments::create, "Deploy a bundle, or a version of the registry").query(&["name", "serving"]).body("Deploy"),
        get("/api/v1/deployments", crate::v1::deployments::list, "Deployments"),
        get("/api/v1/deployments/{name}", crate::v1::deployments::get, "A deployment with its versions"),
        delete("/api/v1/deployments/{name}", crate::v1::deployments::delete, "Take a deployment away"),
        get("/api/v1/deployments/{name}/routing", crate::v1::deployment_routing::show, "How requests find their way in a deployment or a graph"),
        post("/api/v1/deployments/{name}/outcomes", crate::v1::deployment_routing::tell, "Say how an answer turned out, for a bandit").body("Outcome"),
        post("/api/v1/batch-jobs", crate::v1::batch_jobs::create, "Predict files into files, in the background").body("BatchJob"),
        get("/api/v1/batch-jobs", crate::v1::batch_jobs::list, "Batch jobs, newest first").query(&["kind", "after", "limit"]),
        get("/api/v1/batch-jobs/{id}", crate::v1::batch_jobs::get, "A batch job, and how far it is"),
        post("/api/v1/batch-jobs/{id}/cancel", crate::v1::batch_jobs::cancel, "Stop a batch job"),
        delete("/api/v1/batch-jobs/{id}", crate::v1::batch_jobs::delete, "Forget a batch job that has ended; its output stays"),
        post("/api/v1/feedback", feedback::record, "Say what was true of predictions").body("FeedbackBody"),
        post("/api/v1/tracking/import/known", import::known, "Which things an import has brought whole").body("ImportMarks"),
        post("/api/v1/tracking/import/marks", import::mark, "Remember that an import has brought things whole").body("ImportMarks"),
        post("/api/v1/tracking/import/experiments", import::experiments, "Bring experiments from elsewhere").body("ImportExperiments"),
        post("/api/v1/tracking/import/runs", import::runs, "Bring runs and histories of metrics from elsewhere").body("ImportRuns"),
        post("/api/v1/tracking/import/models", import::models, "Bring logged and registered models from elsewhere").body("ImportModels"),
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

/// [`router_with`] for a server that only its own machine reaches.
pub fn router(control: Arc<dyn ControlPlane>) -> axum::Router {
    router_with(control, Security::default())
}

/// The whole of HTTP over the rest of the house: every protocol, and the page on every other path.
pub fn router_with(control: Arc<dyn ControlPlane>, security: Security) -> axum::Router {
    let mut router = axum::Router::new();
    let routes = routes();
    let guard = {
        let paths = routes.iter().flat_map(|route| {
            let twin = route.twin();
            std::iter::once(route.path.to_owned())
                .chain(twin)
                .map(|path| (&route.method, path))
        });
        let grpc = grpc::paths().map(|path| (&Method::POST, path));
        auth::Guard::new(Arc::clone(&control), paths.chain(grpc))
    };
    for route in routes {
        if let Some(twin) = route.twin() {
            router = router.route(&twin, route.handler.clone());
        }
        router = router.route(route.path, route.handler);
    }
    for path in grpc::paths() {
        router = router.route(&path, on(MethodFilter::POST, grpc::call));
    }
    let router: axum::Router = router
        .method_not_allowed_fallback(edge::method_not_allowed)
        .fallback(page::fallback)
        .layer(middleware::from_fn_with_state(Arc::new(guard), auth::layer))
        .layer(middleware::from_fn_with_state(
            Arc::new(security),
            security::layer,
        ))
        .layer(middleware::from_fn_with_state(Arc::clone(&control), edge::layer))
        .with_state(control);
    axum::Router::new().fallback_service(router.map_request(edge::one_slash))
}
