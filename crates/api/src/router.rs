//! All routes, as a table of contents. Each is declared once: the router and the OpenAPI document both come from here.

use std::sync::Arc;

use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::control_plane::{App, ControlPlane};
use crate::mlflow::tracking::{permissions, roles, signup, users, workspaces};
use crate::security::{self, Security};
use crate::v1::{clock, endpoints, events, feedback, lists, models, openapi, runs, spec, status, tokens};
use crate::{auth, docs, edge, mlflow, open_inference, page, prometheus};

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
    vec![]
}

/// MLflow's registered models, model versions and webhooks.
#[rustfmt::skip]
fn registry_routes() -> Vec<Route> {
    vec![]
}

/// MLflow's artifacts.
#[rustfmt::skip]
fn artifact_routes() -> Vec<Route> {
    vec![]
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
    vec![]
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
        get("/health", mlflow::ping, "Whether the server can answer"),
        get("/version", mlflow::version, "Tidemill's version"),

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
        auth::Guard::new(Arc::clone(&control), paths)
    };
    for route in routes {
        if let Some(twin) = route.twin() {
            router = router.route(&twin, route.handler.clone());
        }
        router = router.route(route.path, route.handler);
    }
    router
        .method_not_allowed_fallback(edge::method_not_allowed)
        .fallback(page::fallback)
        .layer(middleware::from_fn_with_state(Arc::new(guard), auth::layer))
        .layer(middleware::from_fn_with_state(
            Arc::new(security),
            security::layer,
        ))
        .layer(middleware::from_fn_with_state(Arc::clone(&control), edge::layer))
        .with_state(control)
}
