//! Which route needs what: one line each. A route without a line fails a test here, and is closed to all but administrators.

use axum::http::Method;
use tidemill_control::users::{Need, ServerRole};

use Need::{Delete, Manage, Read, Update};
use Rule::{
    Create, CreateExperiment, GiveOn, GiveRoles, Limited, ListRoles, LookAtRolesOf, On, Public, Role,
    SeeRoles, SeesEvents, SeesLoop, SeesWorkspace, Signed, Themselves, User, VersionOf, Within, Workspace,
};
use Subject::{
    Artifact, EvalDataset, EvalDatasetAndExperiments, Experiment, ExperimentName, Experiments, LoggedModel,
    LoopModel, Model, ModelInPath, ModelInQuery, ModelTag, Run, RunAndModels, RunInQuery, RunOrModel, Runs,
    SomeExperiments,
};

/// What a request must fulfil.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    /// Nothing.
    Public,
    /// To carry what shows that its URL was given to somebody who may; the handler looks.
    Signed,
    /// To come from a user.
    User,
    /// To come from a user with at least this role on the server.
    Role(ServerRole),
    /// To come from a user who may look at all that is in the default workspace, where the loop works.
    SeesLoop,
    /// The same; and where there are other workspaces, whose events are told too, to come from a user who may look into each.
    SeesEvents,
    /// To come from a user who is permitted this on what is in the workspace that the request names.
    Within(Need),
    /// To come from a user who is permitted this on what the request names.
    On(Need, Subject),
    /// To come from a user who may add things; what they add is theirs then.
    Create,
    /// The same, and where a location is named at which others have artifacts, to be permitted to change theirs.
    CreateExperiment,
    /// To register a version: permitted to change the model and to look at where the version comes from.
    VersionOf,
    /// To come from a user. It is a search, whose handler asks only for what the user may look at.
    Limited,
    /// To be about the user who sends it.
    Themselves,
    /// To be about the user who sends it, or about one with a role in a workspace that the sender governs.
    LookAtRolesOf,
    /// To come from a user who governs the workspace of the role that it names.
    GiveRoles,
    /// To come from a user with a role in the workspace of the role that it names.
    SeeRoles,
    /// To come from a user with a role in each workspace that it names, and to name one.
    ListRoles,
    /// To come from a user who may say who may do what to the resource that it names by type and id.
    GiveOn,
    /// To come from a user who may see the workspace in the path.
    SeesWorkspace,
    /// To come from a user who governs the workspace in the path.
    Workspace,
}

/// What a request names, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Subject {
    /// `experiment_id`
    Experiment,
    /// Every one of `experiment_ids`
    Experiments,
    /// The same; what has none is for administrators.
    SomeExperiments,
    /// Every experiment of the evaluation dataset `dataset_id`; one without is for administrators.
    EvalDataset,
    /// The same, and every one of `experiment_ids`
    EvalDatasetAndExperiments,
    /// `experiment_name`
    ExperimentName,
    /// `run_id`, which older clients call `run_uuid`
    Run,
    /// The same, and the logged models that its metrics name.
    RunAndModels,
    /// `run_id`, always in the query: the body is something else.
    RunInQuery,
    /// `run_id` or `model_id`
    RunOrModel,
    /// Every one of this list, in the query.
    Runs(&'static str),
    /// `model_id`
    LoggedModel,
    /// `name`, of a registered model
    Model,
    /// The same, with `key`, of a tag: what asks that its versions are approved is not for everybody who may change the model.
    ModelTag,
    /// `name`, in the query.
    ModelInQuery,
    /// `model` in the path
    ModelInPath,
    /// `model` in the path, whatever workspace the request names: the loop knows the models of the default one.
    LoopModel,
    /// The path of an artifact, whose first part is an experiment's number.
    Artifact,
}

const ADMIN: Rule = Role(ServerRole::Admin);
const MANAGER: Rule = Role(ServerRole::Manager);
const EDITOR: Rule = Role(ServerRole::Editor);

/// Method, path, rule. In a path `{}` stands for one part with any name, and a `*` at the end for all that follows. The first that
/// fits counts.
#[rustfmt::skip] // a table reads better with one route a line
const RULES: &[(&str, &str, Rule)] = &[
    // Whether the server runs, and what errors mean
    ("GET", "/health", Public),
    ("GET", "/version", Public),
    ("GET", "/ping", Public),
    ("GET", "/v2/health/live", Public),
    ("GET", "/v2/health/ready", Public),
    ("GET", "/docs/errors/{}", Public),
    ("GET", "/metrics", User),

    // Serving
    ("GET", "/v2", User),
    ("GET", "/v2/*", User),
    ("POST", "/v2/models/{}/infer", User),
    ("POST", "/v2/models/{}/versions/{}/infer", User),
    ("POST", "/v2/models/{}/generate", User),
    ("POST", "/v2/models/{}/versions/{}/generate", User),
    ("POST", "/v2/models/{}/generate_stream", User),
    ("POST", "/v2/models/{}/versions/{}/generate_stream", User),
    ("POST", "/v2/repository/index", User),
    ("POST", "/v2/repository/{}/index", User),
    ("POST", "/v2/repository/{}/models/{}/load", EDITOR),
    ("POST", "/v2/repository/{}/models/{}/unload", EDITOR),
    ("POST", "/v2/repository/models/{}/load", EDITOR),
    ("POST", "/v2/repository/models/{}/unload", EDITOR),
    ("POST", "/v2/trace/setting", EDITOR),
    ("POST", "/v2/models/{}/trace/setting", EDITOR),
    ("POST", "/v2/logging", EDITOR),
    // Whoever registers a region names a file of this machine.
    ("POST", "/v2/systemsharedmemory/*", EDITOR),
    ("POST", "/v2/cudasharedmemory/*", EDITOR),
    ("POST", "/invocations", User),
    ("POST", "/endpoints/{}/invocations", User),
    ("POST", "/endpoints/{}/invocations-response-stream", User),
    // Reads and writes files that others may not be shown.
    ("POST", "/endpoints/{}/async-invocations", EDITOR),
    ("POST", "/sagemaker/control", EDITOR),
    ("POST", "/v1/projects/{}/locations/{}/endpoints/{}", User),
    ("POST", "/v1/projects/{}/locations/{}/batchPredictionJobs", EDITOR),
    ("GET", "/v1/projects/{}/locations/{}/batchPredictionJobs", EDITOR),
    ("GET", "/v1/projects/{}/locations/{}/batchPredictionJobs/{}", EDITOR),
    ("POST", "/v1/projects/{}/locations/{}/batchPredictionJobs/{}", EDITOR),
    ("DELETE", "/v1/projects/{}/locations/{}/batchPredictionJobs/{}", EDITOR),
    // The same over gRPC
    ("POST", "/inference.GRPCInferenceService/ServerLive", Public),
    ("POST", "/inference.GRPCInferenceService/ServerReady", Public),
    ("POST", "/inference.GRPCInferenceService/RepositoryModelLoad", EDITOR),
    ("POST", "/inference.GRPCInferenceService/RepositoryModelUnload", EDITOR),
    ("POST", "/inference.GRPCInferenceService/SystemSharedMemoryRegister", EDITOR),
    ("POST", "/inference.GRPCInferenceService/SystemSharedMemoryUnregister", EDITOR),
    ("POST", "/inference.GRPCInferenceService/{}", User),
    ("POST", "/grpc.health.v1.Health/{}", Public),
    ("POST", "/invocations/{}", User),

    // Our own protocol
    ("GET", "/api/v1/openapi.json", User),
    ("GET", "/api/v1/spec/schema", User),
    ("GET", "/api/v1/tokens", User),
    ("POST", "/api/v1/tokens", User),
    ("DELETE", "/api/v1/tokens/{}", User),
    ("POST", "/api/v1/clock/advance", ADMIN),
    ("POST", "/api/v1/tracking/gc", ADMIN),
    ("DELETE", "/api/v1/tracking/experiments/{}", ADMIN),
    ("DELETE", "/api/v1/tracking/runs/{}", ADMIN),
    ("POST", "/api/v1/endpoints/{}/promote", EDITOR),
    ("POST", "/api/v1/endpoints/{}/rollback", EDITOR),
    ("POST", "/api/v1/endpoints/{}/explain", User),
    ("POST", "/api/v1/deployments/{}/explain", User),
    ("POST", "/api/v1/runs", EDITOR),
    // Runs whatever code it is sent, as the server's own user.
    ("POST", "/api/v1/deployments", ADMIN),
    ("DELETE", "/api/v1/deployments/{}", ADMIN),
    ("POST", "/api/v1/deployments/{}/outcomes", EDITOR),
    ("POST", "/api/v1/predictions/{}/replay", EDITOR),
    ("POST", "/api/v1/feedback", EDITOR),
    // They read and write files that others may not be shown, and their errors tell of rows.
    ("POST", "/api/v1/batch-jobs", EDITOR),
    ("GET", "/api/v1/batch-jobs", EDITOR),
    ("GET", "/api/v1/batch-jobs/{}", EDITOR),
    ("POST", "/api/v1/batch-jobs/{}/cancel", EDITOR),
    ("DELETE", "/api/v1/batch-jobs/{}", EDITOR),
    ("POST", "/api/v1/models/{}/versions/{}/requests", On(Update, ModelInPath)),
    ("POST", "/api/v1/models/{}/versions/{}/requests/{}/approve", On(Manage, ModelInPath)),
    ("POST", "/api/v1/models/{}/versions/{}/requests/{}/reject", On(Manage, ModelInPath)),
    ("GET", "/api/v1/models/{}/audit", On(Read, ModelInPath)),
    ("GET", "/api/v1/models/{}/versions/{}/requests", On(Read, ModelInPath)),
    ("GET", "/api/v1/models/{}/versions/{}/card", On(Read, ModelInPath)),
    ("GET", "/api/v1/models/{}/versions/{}/compare/{}", On(Read, ModelInPath)),
    ("GET", "/api/v1/models/{}", On(Read, LoopModel)),
    ("GET", "/api/v1/models/{}/*", On(Read, LoopModel)),
    ("GET", "/api/v1/sweeps", Within(Read)),
    ("GET", "/api/v1/sweeps/{}", Within(Read)),
    // W&B's client and sweeps know no rights on single experiments: their handlers look whether the user may change every one.
    ("POST", "/api/v1/sweeps", Within(Update)),
    ("PATCH", "/api/v1/sweeps/{}", Within(Update)),
    ("POST", "/api/v1/sweeps/{}/next", Within(Update)),
    ("POST", "/api/v1/sweeps/{}/trials/{}/report", Within(Update)),
    // What comes from elsewhere keeps its ids, times and users.
    ("POST", "/api/v1/tracking/import/*", MANAGER),
    ("GET", "/api/v1/tracking/artifact-lineage", On(Read, Run)),
    ("GET", "/api/v1/tracking/console", On(Read, Run)),
    ("GET", "/api/v1/tracking/tables", On(Read, Run)),
    ("GET", "/api/v1/tracking/tables/rows", On(Read, Run)),
    ("POST", "/api/v1/tracking/tables/query", On(Read, Run)),
    ("GET", "/api/v1/tracking/artifact-tables", Within(Read)),
    ("GET", "/api/v1/tracking/artifact-tables/rows", Within(Read)),
    ("POST", "/api/v1/tracking/artifact-tables/query", Within(Read)),
    ("GET", "/api/v1/tracking/version-tables/rows", On(Read, ModelInQuery)),
    ("GET", "/api/v1/tracking/model-tables/rows", On(Read, LoggedModel)),
    ("GET", "/api/v1/events", SeesEvents),
    ("GET", "/api/v1/events/stream", SeesEvents),
    ("POST", "/api/v1/automations", MANAGER),
    ("GET", "/api/v1/automations", MANAGER),
    ("DELETE", "/api/v1/automations/{}", MANAGER),
    ("GET", "/api/v1/*", SeesLoop),

    // Users, roles, grants
    ("POST", "/api/2.0/mlflow/users/create", ADMIN),
    ("GET", "/api/2.0/mlflow/users/get", Themselves),
    ("GET", "/api/2.0/mlflow/users/list", ADMIN),
    ("GET", "/api/2.0/mlflow/users/current", User),
    ("PATCH", "/api/2.0/mlflow/users/update-password", Themselves),
    ("PATCH", "/api/2.0/mlflow/users/update-admin", ADMIN),
    ("PATCH", "/api/3.0/mlflow/users/update-role", ADMIN),
    ("DELETE", "/api/2.0/mlflow/users/delete", ADMIN),
    ("GET", "/signup", ADMIN),
    ("POST", "/api/2.0/mlflow/users/create-ui", ADMIN),
    ("GET", "/api/3.0/mlflow/users/current/permissions", User),
    ("GET", "/api/3.0/mlflow/users/permissions/list", LookAtRolesOf),
    ("GET", "/api/3.0/mlflow/users/permissions/get", LookAtRolesOf),
    ("POST", "/api/3.0/mlflow/users/permissions/grant", GiveOn),
    ("POST", "/api/3.0/mlflow/users/permissions/revoke", GiveOn),
    ("GET", "/api/3.0/mlflow/users/roles/list", LookAtRolesOf),
    ("POST", "/api/2.0/mlflow/experiments/permissions/create", On(Manage, Experiment)),
    ("GET", "/api/2.0/mlflow/experiments/permissions/get", On(Manage, Experiment)),
    ("PATCH", "/api/2.0/mlflow/experiments/permissions/update", On(Manage, Experiment)),
    ("DELETE", "/api/2.0/mlflow/experiments/permissions/delete", On(Manage, Experiment)),
    ("POST", "/api/2.0/mlflow/registered-models/permissions/create", On(Manage, Model)),
    ("GET", "/api/2.0/mlflow/registered-models/permissions/get", On(Manage, Model)),
    ("PATCH", "/api/2.0/mlflow/registered-models/permissions/update", On(Manage, Model)),
    ("DELETE", "/api/2.0/mlflow/registered-models/permissions/delete", On(Manage, Model)),
    ("POST", "/api/3.0/mlflow/roles/create", GiveRoles),
    ("GET", "/api/3.0/mlflow/roles/get", SeeRoles),
    ("GET", "/api/3.0/mlflow/roles/list", ListRoles),
    ("PATCH", "/api/3.0/mlflow/roles/update", GiveRoles),
    ("DELETE", "/api/3.0/mlflow/roles/delete", GiveRoles),
    ("POST", "/api/3.0/mlflow/roles/permissions/add", GiveRoles),
    ("DELETE", "/api/3.0/mlflow/roles/permissions/remove", GiveRoles),
    ("GET", "/api/3.0/mlflow/roles/permissions/list", SeeRoles),
    ("PATCH", "/api/3.0/mlflow/roles/permissions/update", GiveRoles),
    ("POST", "/api/3.0/mlflow/roles/assign", GiveRoles),
    ("DELETE", "/api/3.0/mlflow/roles/unassign", GiveRoles),
    ("GET", "/api/3.0/mlflow/roles/users/list", GiveRoles),

    // Workspaces
    ("GET", "/api/3.0/mlflow/workspaces", User),
    ("POST", "/api/3.0/mlflow/workspaces", ADMIN),
    ("GET", "/api/3.0/mlflow/workspaces/{}", SeesWorkspace),
    ("PATCH", "/api/3.0/mlflow/workspaces/{}", ADMIN),
    ("DELETE", "/api/3.0/mlflow/workspaces/{}", ADMIN),
    ("GET", "/api/3.0/mlflow/workspaces/{}/permissions", Workspace),
    ("POST", "/api/3.0/mlflow/workspaces/{}/permissions", Workspace),
    ("DELETE", "/api/3.0/mlflow/workspaces/{}/permissions", Workspace),
    ("GET", "/api/3.0/mlflow/workspace-permissions", ADMIN),
    ("GET", "/api/3.0/mlflow/server-info", User),
    // Each of its fields is checked by itself.
    ("GET", "/graphql", User),
    ("POST", "/graphql", User),
    // W&B's client: its handlers look, as those of sweeps; a URL for bytes carries its own permission.
    ("POST", "/files/{}/{}/{}/file_stream", Within(Update)),
    ("PUT", "/wandb/upload/{}", Signed),
    ("GET", "/wandb/download/{}", Signed),
    // There are none.
    ("POST", "/api/3.0/mlflow/traces/search", User),
    ("GET", "/api/2.0/mlflow/traces", User),

    // Experiments
    ("POST", "/api/2.0/mlflow/experiments/create", CreateExperiment),
    ("GET", "/api/2.0/mlflow/experiments/get", On(Read, Experiment)),
    ("GET", "/api/2.0/mlflow/experiments/get-by-name", On(Read, ExperimentName)),
    ("GET", "/api/2.0/mlflow/experiments/search", Limited),
    ("POST", "/api/2.0/mlflow/experiments/search", Limited),
    ("POST", "/api/2.0/mlflow/experiments/delete", On(Delete, Experiment)),
    ("POST", "/api/2.0/mlflow/experiments/restore", On(Delete, Experiment)),
    ("POST", "/api/2.0/mlflow/experiments/update", On(Update, Experiment)),
    ("POST", "/api/2.0/mlflow/experiments/set-experiment-tag", On(Update, Experiment)),
    ("POST", "/api/2.0/mlflow/experiments/delete-experiment-tag", On(Update, Experiment)),
    ("POST", "/api/2.0/mlflow/experiments/search-datasets", On(Read, Experiments)),
    ("GET", "/api/2.0/mlflow/experiments/search-datasets", On(Read, Experiments)),

    // Runs
    ("POST", "/api/2.0/mlflow/runs/create", On(Update, Experiment)),
    ("GET", "/api/2.0/mlflow/runs/get", On(Read, Run)),
    ("POST", "/api/2.0/mlflow/runs/search", Limited),
    ("POST", "/api/2.0/mlflow/runs/delete", On(Delete, Run)),
    ("POST", "/api/2.0/mlflow/runs/restore", On(Delete, Run)),
    ("POST", "/api/2.0/mlflow/runs/update", On(Update, Run)),
    ("POST", "/api/2.0/mlflow/runs/log-metric", On(Update, RunAndModels)),
    ("POST", "/api/2.0/mlflow/runs/log-parameter", On(Update, Run)),
    ("POST", "/api/2.0/mlflow/runs/log-batch", On(Update, RunAndModels)),
    ("POST", "/api/2.0/mlflow/runs/log-model", On(Update, Run)),
    ("POST", "/api/2.0/mlflow/runs/log-inputs", On(Update, Run)),
    ("POST", "/api/2.0/mlflow/runs/outputs", On(Update, Run)),
    ("POST", "/api/2.0/mlflow/runs/set-tag", On(Update, Run)),
    ("POST", "/api/2.0/mlflow/runs/delete-tag", On(Update, Run)),
    ("GET", "/api/2.0/mlflow/metrics/get-history", On(Read, Run)),
    ("GET", "/api/2.0/mlflow/metrics/get-history-bulk", On(Read, Runs("run_id"))),
    ("GET", "/api/2.0/mlflow/metrics/get-history-bulk-interval", On(Read, Runs("run_ids"))),
    ("GET", "/api/2.0/mlflow/metrics/get-history-downsampled", On(Read, Run)),

    // Evaluation datasets
    ("POST", "/api/3.0/mlflow/datasets/create", On(Update, SomeExperiments)),
    ("GET", "/api/3.0/mlflow/datasets/search", Limited),
    ("POST", "/api/3.0/mlflow/datasets/search", Limited),
    ("GET", "/api/3.0/mlflow/datasets/{}", On(Read, EvalDataset)),
    ("DELETE", "/api/3.0/mlflow/datasets/{}", On(Delete, EvalDataset)),
    ("PATCH", "/api/3.0/mlflow/datasets/{}/tags", On(Update, EvalDataset)),
    ("DELETE", "/api/3.0/mlflow/datasets/{}/tags/{}", On(Update, EvalDataset)),
    ("POST", "/api/3.0/mlflow/datasets/{}/records", On(Update, EvalDataset)),
    ("GET", "/api/3.0/mlflow/datasets/{}/records", On(Read, EvalDataset)),
    ("DELETE", "/api/3.0/mlflow/datasets/{}/records", On(Update, EvalDataset)),
    ("GET", "/api/3.0/mlflow/datasets/{}/experiment-ids", On(Read, EvalDataset)),
    ("POST", "/api/3.0/mlflow/datasets/{}/add-experiments", On(Update, EvalDatasetAndExperiments)),
    ("POST", "/api/3.0/mlflow/datasets/{}/remove-experiments", On(Update, EvalDataset)),

    // Logged models
    ("POST", "/api/2.0/mlflow/logged-models", On(Update, Experiment)),
    ("POST", "/api/2.0/mlflow/logged-models/search", Limited),
    ("GET", "/api/2.0/mlflow/logged-models/{}", On(Read, LoggedModel)),
    ("PATCH", "/api/2.0/mlflow/logged-models/{}", On(Update, LoggedModel)),
    ("DELETE", "/api/2.0/mlflow/logged-models/{}", On(Delete, LoggedModel)),
    ("PATCH", "/api/2.0/mlflow/logged-models/{}/tags", On(Update, LoggedModel)),
    ("DELETE", "/api/2.0/mlflow/logged-models/{}/tags/{}", On(Delete, LoggedModel)),
    ("POST", "/api/2.0/mlflow/logged-models/{}/params", On(Update, LoggedModel)),
    ("GET", "/api/2.0/mlflow/logged-models/{}/artifacts/directories", On(Read, LoggedModel)),
    ("GET", "/api/2.0/mlflow/logged-models/{}/artifacts/files", On(Read, LoggedModel)),

    // Artifacts
    ("GET", "/api/2.0/mlflow/artifacts/list", On(Read, Run)),
    ("POST", "/api/2.0/mlflow/artifacts/presigned-upload-url", On(Update, RunOrModel)),
    ("POST", "/api/2.0/mlflow/artifacts/presigned-download-url", On(Read, RunOrModel)),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts", On(Read, Artifact)),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/*", On(Read, Artifact)),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/*", On(Update, Artifact)),
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/*", On(Delete, Artifact)),
    ("GET", "/api/2.0/mlflow-artifacts/presigned/*", On(Read, Artifact)),
    // What the URL carries shows that it was given to somebody who may.
    ("GET", "/api/2.0/mlflow-artifacts/signed/*", Signed),
    ("PUT", "/api/2.0/mlflow-artifacts/parts/{}/{}", Signed),
    ("POST", "/api/2.0/mlflow-artifacts/mpu/*", On(Update, Artifact)),
    ("PUT", "/api/2.0/mlflow-artifacts/mpu/*", On(Update, Artifact)),
    ("GET", "/get-artifact", On(Read, RunInQuery)),
    ("POST", "/api/2.0/mlflow/upload-artifact", On(Update, RunInQuery)),
    ("POST", "/ajax-api/2.0/mlflow/upload-artifact", On(Update, RunInQuery)),
    ("GET", "/model-versions/get-artifact", On(Read, ModelInQuery)),

    // Registered models and versions
    ("POST", "/api/2.0/mlflow/registered-models/create", Create),
    ("GET", "/api/2.0/mlflow/registered-models/get", On(Read, Model)),
    ("GET", "/api/2.0/mlflow/registered-models/search", Limited),
    ("POST", "/api/2.0/mlflow/registered-models/rename", On(Update, Model)),
    ("PATCH", "/api/2.0/mlflow/registered-models/update", On(Update, Model)),
    ("DELETE", "/api/2.0/mlflow/registered-models/delete", On(Delete, Model)),
    ("GET", "/api/2.0/mlflow/registered-models/get-latest-versions", On(Read, Model)),
    ("POST", "/api/2.0/mlflow/registered-models/get-latest-versions", On(Read, Model)),
    ("POST", "/api/2.0/mlflow/registered-models/set-tag", On(Update, ModelTag)),
    ("DELETE", "/api/2.0/mlflow/registered-models/delete-tag", On(Update, ModelTag)),
    ("POST", "/api/2.0/mlflow/registered-models/alias", On(Update, Model)),
    ("GET", "/api/2.0/mlflow/registered-models/alias", On(Read, Model)),
    ("DELETE", "/api/2.0/mlflow/registered-models/alias", On(Delete, Model)),
    ("POST", "/api/2.0/mlflow/model-versions/create", VersionOf),
    ("GET", "/api/2.0/mlflow/model-versions/get", On(Read, Model)),
    ("GET", "/api/2.0/mlflow/model-versions/search", Limited),
    ("PATCH", "/api/2.0/mlflow/model-versions/update", On(Update, Model)),
    ("POST", "/api/2.0/mlflow/model-versions/transition-stage", On(Update, Model)),
    ("DELETE", "/api/2.0/mlflow/model-versions/delete", On(Delete, Model)),
    ("GET", "/api/2.0/mlflow/model-versions/get-download-uri", On(Read, Model)),
    ("POST", "/api/2.0/mlflow/model-versions/set-tag", On(Update, Model)),
    ("DELETE", "/api/2.0/mlflow/model-versions/delete-tag", On(Delete, Model)),
    // A webhook tells another server what happens to every model.
    ("POST", "/api/2.0/mlflow/webhooks", MANAGER),
    ("GET", "/api/2.0/mlflow/webhooks", MANAGER),
    ("GET", "/api/2.0/mlflow/webhooks/*", MANAGER),
    ("POST", "/api/2.0/mlflow/webhooks/*", MANAGER),
    ("PATCH", "/api/2.0/mlflow/webhooks/*", MANAGER),
    ("DELETE", "/api/2.0/mlflow/webhooks/*", MANAGER),
];

/// The rule of a route; the twin of a path under `/ajax-api/` has the same.
pub(crate) fn rule_of(method: &Method, path: &str) -> Option<Rule> {
    let twin = path.strip_prefix("/ajax-api/").map(|rest| format!("/api/{rest}"));
    let method = if *method == Method::HEAD {
        "GET"
    } else {
        method.as_str()
    };
    let fits = |path: &str| {
        let found = RULES
            .iter()
            .find(|(m, template, _)| *m == method && matches(template, path));
        found.map(|(_, _, rule)| *rule)
    };
    fits(path).or_else(|| twin.as_deref().and_then(fits))
}

fn matches(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (Some("*"), Some(_)) => return true,
            (Some("{}"), Some(part)) if part.starts_with('{') && !part.starts_with("{*") => {}
            (Some(wanted), Some(given)) if wanted == given => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

impl Rule {
    /// Whether the route is about users themselves, and so makes no sense where none are required.
    pub(crate) fn is_about_users(self, path: &str) -> bool {
        matches!(
            self,
            Themselves | LookAtRolesOf | GiveRoles | SeeRoles | ListRoles | GiveOn | Workspace
        ) || path.contains("/mlflow/users/")
            || path.contains("/permissions/")
            || path.ends_with("/workspace-permissions")
            || path.starts_with("/api/v1/tokens")
            || path == "/signup"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_a_rule() {
        let without: Vec<String> = crate::router::routes()
            .iter()
            .filter(|route| rule_of(&route.method, route.path).is_none())
            .map(|route| format!("{} {}", route.method, route.path))
            .collect();
        assert!(
            without.is_empty(),
            "say in crates/api/src/auth/rules.rs who may call:\n{}",
            without.join("\n")
        );
    }

    #[test]
    fn no_route_that_changes_something_is_open_to_everybody() {
        for route in crate::router::routes() {
            if route.method != Method::GET {
                assert_ne!(rule_of(&route.method, route.path), Some(Public), "{}", route.path);
            }
        }
    }

    #[test]
    fn few_routes_that_change_something_are_open_to_every_user() {
        // They predict, are about the user who asks, or look by themselves.
        let open = [
            "/v2/models/{model}/infer",
            "/v2/models/{model}/versions/{version}/infer",
            "/v2/models/{model}/generate",
            "/v2/models/{model}/versions/{version}/generate",
            "/v2/models/{model}/generate_stream",
            "/v2/models/{model}/versions/{version}/generate_stream",
            "/v2/repository/index",
            "/v2/repository/{repository}/index",
            "/invocations",
            "/invocations/{endpoint}",
            "/endpoints/{endpoint}/invocations",
            "/endpoints/{endpoint}/invocations-response-stream",
            "/v1/projects/{project}/locations/{location}/endpoints/{call}",
            "/api/v1/endpoints/{endpoint}/explain",
            "/api/v1/deployments/{name}/explain",
            "/api/v1/tokens",
            "/api/v1/tokens/{id}",
            "/api/3.0/mlflow/traces/search",
            "/graphql",
        ];
        for route in crate::router::routes() {
            if route.method != Method::GET && rule_of(&route.method, route.path) == Some(User) {
                assert!(open.contains(&route.path), "{} {}", route.method, route.path);
            }
        }
    }

    #[test]
    fn a_twin_has_the_rule_of_its_route() {
        let path = "/ajax-api/2.0/mlflow/logged-models/{model_id}/tags/{tag_key}";
        assert_eq!(rule_of(&Method::DELETE, path), Some(On(Delete, LoggedModel)));
        let path = "/ajax-api/2.0/mlflow-artifacts/artifacts/{*path}";
        assert_eq!(rule_of(&Method::PUT, path), Some(On(Update, Artifact)));
        assert_eq!(rule_of(&Method::HEAD, "/metrics"), Some(User));
        assert_eq!(rule_of(&Method::PUT, "/metrics"), None);
        assert_eq!(rule_of(&Method::POST, "/api/v1/anything"), None);
    }
}
