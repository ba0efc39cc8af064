//! What a request is about, and what its sender may do to it.

use axum::extract::{FromRequestParts as _, RawPathParams};
use axum::http::request::Parts;
use serde_json::Value;
use tidemill_control::tracking::registry::APPROVAL_TAG;
use tidemill_control::tracking::{self, Caller, DEFAULT_WORKSPACE, Owners, TrackingError, safe_path};
use tidemill_control::users::{
    EVERY, EXPERIMENT, Need, Permission, Place, Principal, REGISTERED_MODEL, WORKSPACE,
};

use super::rules::{Rule, Subject};
use super::{Asked, Refused, need};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::mlflow::tracking::{Fields, form_pairs};

impl Subject {
    /// Whether it is named in path or query, so that the body is left alone.
    pub(super) fn is_outside_the_body(self) -> bool {
        matches!(
            self,
            Self::RunInQuery
                | Self::ModelInQuery
                | Self::ModelInPath
                | Self::LoopModel
                | Self::Artifact
                | Self::Runs(_)
        )
    }
}

/// What a user may do to a resource that is named by type and id.
pub(crate) async fn permission_of(
    app: &App,
    known: &Principal,
    resource_type: &str,
    resource: &str,
    workspace: &str,
) -> Result<Permission, ApiError> {
    if resource_type == EXPERIMENT && resource != EVERY {
        return Ok(on_experiment(app, known, resource, workspace).await?);
    }
    Ok(known.on(resource_type, resource, workspace))
}

fn on_place(known: &Principal, place: &Place) -> Permission {
    known.on(EXPERIMENT, &place.experiment, &place.workspace)
}

/// An experiment that is not there is treated like one that nobody was granted anything on: the handler says what is missing, to
/// those who may look at things at all.
async fn on_experiment(
    app: &App,
    known: &Principal,
    id: &str,
    workspace: &str,
) -> tracking::Result<Permission> {
    Ok(match app.tracking().place_of_experiment(id).await? {
        Some(place) => on_place(known, &place),
        None => known.on(EXPERIMENT, id, workspace),
    })
}

pub(super) async fn on_run(
    app: &App,
    known: &Principal,
    run_id: &str,
    caller: &Caller,
) -> tracking::Result<Permission> {
    Ok(match app.tracking().place_of_run(run_id).await? {
        Some(place) => on_place(known, &place),
        None => missing(known, caller),
    })
}

pub(super) async fn on_logged_model(
    app: &App,
    known: &Principal,
    model_id: &str,
    caller: &Caller,
) -> tracking::Result<Permission> {
    Ok(match app.tracking().place_of_logged_model(model_id).await? {
        Some(place) => on_place(known, &place),
        None => missing(known, caller),
    })
}

/// Of what is not there everybody who sees the workspace may hear so.
fn missing(known: &Principal, caller: &Caller) -> Permission {
    if known.sees_workspace(&caller.workspace) {
        Permission::Manage
    } else {
        Permission::NoPermissions
    }
}

fn absent(name: &str) -> TrackingError {
    TrackingError::invalid(format!(
        "Missing value for required parameter '{name}'. See the API docs for more information about request parameters."
    ))
}

/// The texts of a field, of which there may be one or several; numbers count as their digits.
fn all(fields: &Fields, name: &str) -> tracking::Result<Vec<String>> {
    let mut texts = match fields.value(name) {
        Some(Value::Number(number)) => vec![number.to_string()],
        _ => fields.texts(name)?,
    };
    texts.retain(|text| !text.is_empty());
    Ok(texts)
}

/// Both spellings of a run's id: whichever the handler takes, its sender must be permitted it.
fn runs(fields: &Fields) -> tracking::Result<Vec<String>> {
    let mut runs = all(fields, "run_id")?;
    runs.extend(all(fields, "run_uuid")?);
    Ok(runs)
}

/// The logged models that a metric or the metrics of a batch name, each once.
fn measured_models(fields: &Fields) -> tracking::Result<Vec<String>> {
    let mut models = all(fields, "model_id")?;
    for metric in fields.list("metrics")? {
        for name in ["model_id", "modelId"] {
            if let Some(model_id) = metric[name].as_str()
                && !model_id.is_empty()
                && !models.iter().any(|known| known == model_id)
            {
                models.push(model_id.to_owned());
            }
        }
    }
    Ok(models)
}

/// Refuses a request whose sender may not do what its rule says.
pub(super) async fn check(
    app: &App,
    rule: Rule,
    known: &Principal,
    caller: &Caller,
    asked: &Asked,
) -> Result<(), Refused> {
    if known.is_admin() {
        return Ok(());
    }
    let fields = &asked.fields;
    match rule {
        Rule::On(wanted, subject) => on(app, wanted, subject, known, caller, fields).await,
        Rule::VersionOf => version(app, known, caller, fields).await,
        Rule::CreateExperiment => new_experiment(app, known, caller, fields).await,
        Rule::Themselves => need(fields.required_text("username")? == known.name),
        Rule::LookAtRolesOf => {
            let name = fields.required_text("username")?;
            if name == known.name {
                return Ok(());
            }
            // Who is there is not told to those who may not look.
            let Ok(roles) = app.tracking().roles_of_user(&name).await else {
                return Err(Refused::Denied);
            };
            need(roles.iter().any(|info| known.governs(&info.role.workspace)))
        }
        Rule::GiveRoles => need(known.governs(&workspace_of_role(app, fields).await?)),
        Rule::SeeRoles => need(known.has_role_in(&workspace_of_role(app, fields).await?)),
        Rule::ListRoles => {
            let named = fields.texts("workspace")?;
            need(!named.is_empty() && named.iter().all(|name| known.has_role_in(name)))
        }
        Rule::GiveOn => {
            let (kind, id) = (
                fields.required_text("resource_type")?,
                fields.required_text("resource_id")?,
            );
            if id == EVERY || kind == WORKSPACE {
                return need(known.governs(&caller.workspace));
            }
            let permission = permission_of(app, known, &kind, &id, &caller.workspace).await?;
            need(permission.allows(Need::Manage))
        }
        Rule::SeesWorkspace => need(known.sees_workspace(&fields.required_text("workspace_name")?)),
        Rule::Workspace => need(known.governs(&fields.required_text("workspace_name")?)),
        // Decided before without looking into the request.
        Rule::Public
        | Rule::Signed
        | Rule::User
        | Rule::Role(_)
        | Rule::SeesLoop
        | Rule::SeesEvents
        | Rule::Within(_)
        | Rule::Create
        | Rule::Limited => Err(Refused::Denied),
    }
}

/// The workspace of the role that a request names; of a role that is not there nobody is told.
async fn workspace_of_role(app: &App, fields: &Fields) -> Result<String, Refused> {
    let tracking = app.tracking();
    let role = if let Some(id) = fields.integer("role_id")? {
        tracking.role(id).await
    } else if let Some(id) = fields.integer("role_permission_id")? {
        tracking.role_of_permission(id).await
    } else {
        return Ok(fields.required_text("workspace")?);
    };
    role.map(|info| info.role.workspace).map_err(|_| Refused::Denied)
}

pub(super) async fn on(
    app: &App,
    wanted: Need,
    subject: Subject,
    known: &Principal,
    caller: &Caller,
    fields: &Fields,
) -> Result<(), Refused> {
    match subject {
        Subject::Experiment | Subject::Experiments => {
            let name = if subject == Subject::Experiment {
                "experiment_id"
            } else {
                "experiment_ids"
            };
            let ids = all(fields, name)?;
            if ids.is_empty() {
                return Err(absent(name).into());
            }
            on_experiments(app, wanted, known, caller, &ids).await
        }
        Subject::SomeExperiments => {
            let ids = all(fields, "experiment_ids")?;
            need(!ids.is_empty())?;
            on_experiments(app, wanted, known, caller, &ids).await
        }
        Subject::EvalDataset | Subject::EvalDatasetAndExperiments => {
            let id = fields.required_text("dataset_id")?;
            need(on_eval_dataset(app, known, &id, caller, wanted).await?)?;
            if subject == Subject::EvalDatasetAndExperiments {
                let ids = all(fields, "experiment_ids")?;
                on_experiments(app, wanted, known, caller, &ids).await?;
            }
            Ok(())
        }
        Subject::ExperimentName => {
            let name = fields.required_text("experiment_name")?;
            let place = app
                .tracking()
                .place_of_experiment_name(&caller.workspace, &name)
                .await?;
            let permission = place.map_or_else(|| missing(known, caller), |place| on_place(known, &place));
            need(permission.allows(wanted))
        }
        Subject::RunAndModels => {
            let runs = runs(fields)?;
            if runs.is_empty() {
                return Err(absent("run_id").into());
            }
            for run_id in &runs {
                need(on_run(app, known, run_id, caller).await?.allows(wanted))?;
            }
            for model_id in measured_models(fields)? {
                let permission = on_logged_model(app, known, &model_id, caller).await?;
                need(permission.allows(wanted))?;
            }
            Ok(())
        }
        Subject::Run | Subject::RunOrModel => {
            let runs = runs(fields)?;
            let models = if subject == Subject::RunOrModel {
                all(fields, "model_id")?
            } else {
                Vec::new()
            };
            if runs.is_empty() && models.is_empty() {
                return Err(absent("run_id").into());
            }
            for run_id in &runs {
                need(on_run(app, known, run_id, caller).await?.allows(wanted))?;
            }
            for model_id in &models {
                need(
                    on_logged_model(app, known, model_id, caller)
                        .await?
                        .allows(wanted),
                )?;
            }
            Ok(())
        }
        Subject::LoggedModel => {
            let model_id = fields.required_text("model_id")?;
            need(
                on_logged_model(app, known, &model_id, caller)
                    .await?
                    .allows(wanted),
            )
        }
        Subject::Model => {
            let name = fields.required_text("name")?;
            let permission = known.on(REGISTERED_MODEL, &name, &caller.workspace);
            need(permission.allows(wanted))
        }
        Subject::ModelTag => {
            let wanted = match fields.text("key")? {
                Some(key) if key == APPROVAL_TAG => Need::Manage,
                _ => wanted,
            };
            let name = fields.required_text("name")?;
            let permission = known.on(REGISTERED_MODEL, &name, &caller.workspace);
            need(permission.allows(wanted))
        }
        Subject::RunInQuery
        | Subject::ModelInPath
        | Subject::LoopModel
        | Subject::ModelInQuery
        | Subject::Artifact
        | Subject::Runs(_) => Err(Refused::Denied),
    }
}

async fn on_experiments(
    app: &App,
    wanted: Need,
    known: &Principal,
    caller: &Caller,
    ids: &[String],
) -> Result<(), Refused> {
    for id in ids {
        let permission = on_experiment(app, known, id, &caller.workspace).await?;
        need(permission.allows(wanted))?;
    }
    Ok(())
}

/// Whether a user is permitted something on all the experiments of a dataset. Where it has none, only administrators are: what was
/// private does not become the workspace's when its experiment goes. (Who made it is no help: a tag of the client says that.)
async fn on_eval_dataset(
    app: &App,
    known: &Principal,
    dataset_id: &str,
    caller: &Caller,
    wanted: Need,
) -> tracking::Result<bool> {
    let Some((workspace, experiments)) = app.tracking().place_of_eval_dataset(dataset_id).await? else {
        return Ok(missing(known, caller).allows(wanted));
    };
    let permitted = |id: &i64| known.on(EXPERIMENT, &id.to_string(), &workspace).allows(wanted);
    Ok(!experiments.is_empty() && experiments.iter().all(permitted))
}

/// A version is registered by those who may change the model, from what they may look at: else a version of one's own model would
/// open the files of any run. What its source names says who reads it later.
async fn version(app: &App, known: &Principal, caller: &Caller, fields: &Fields) -> Result<(), Refused> {
    on(app, Need::Update, Subject::Model, known, caller, fields).await?;
    let source = fields.text("source")?.unwrap_or_default();
    let origin = app.tracking().origin_of(caller, &source).await?;
    for name in &origin.models {
        let permission = known.on(REGISTERED_MODEL, name, &caller.workspace);
        need(permission.allows(Need::Read))?;
    }
    for run_id in runs(fields)?.iter().chain(&origin.runs) {
        need(on_run(app, known, run_id, caller).await?.allows(Need::Read))?;
    }
    for model_id in all(fields, "model_id")?.iter().chain(&origin.logged_models) {
        let permission = on_logged_model(app, known, model_id, caller).await?;
        need(permission.allows(Need::Read))?;
    }
    of_owners(known, &origin.owners, Need::Read)
}

/// An experiment is added by those who may add to the workspace, and where others have artifacts, by those who may change all of
/// these: else an experiment of one's own would open the files of any other.
async fn new_experiment(
    app: &App,
    known: &Principal,
    caller: &Caller,
    fields: &Fields,
) -> Result<(), Refused> {
    match fields.text("artifact_location")? {
        Some(location) if !location.is_empty() => {
            let owners = app.tracking().owners_of_location(caller, &location).await?;
            of_owners(known, &owners, Need::Update)
        }
        _ => Ok(()),
    }
}

/// Whether a user is permitted something by all whose artifacts lie at a place.
pub(super) fn of_owners(known: &Principal, owners: &Owners, wanted: Need) -> Result<(), Refused> {
    need(match owners {
        Owners::Elsewhere => true,
        Owners::These(places) => places.iter().all(|place| on_place(known, place).allows(wanted)),
        Owners::Nobody => known.is_admin(),
    })
}

/// Checks what path and query name, and leaves the body alone.
pub(super) async fn check_outside(
    app: &App,
    wanted: Need,
    subject: Subject,
    known: &Principal,
    caller: &Caller,
    parts: &mut Parts,
) -> Result<(), Refused> {
    let query = form_pairs(parts.uri.query().unwrap_or_default());
    let given = |name: &str| -> Vec<String> {
        let of_name = query
            .iter()
            .filter(|(key, value)| key == name && !value.is_empty());
        of_name.map(|(_, value)| value.clone()).collect()
    };
    match subject {
        Subject::RunInQuery | Subject::Runs(_) => {
            let names: &[&str] = match subject {
                Subject::Runs(name) => &[name],
                _ => &["run_id", "run_uuid"],
            };
            let runs: Vec<String> = names.iter().flat_map(|name| given(name)).collect();
            if runs.is_empty() {
                return Err(absent(names[0]).into());
            }
            for run_id in &runs {
                need(on_run(app, known, run_id, caller).await?.allows(wanted))?;
            }
            Ok(())
        }
        Subject::ModelInQuery => {
            let names = given("name");
            if names.is_empty() {
                return Err(TrackingError::invalid("Request must specify name parameter").into());
            }
            let may = |name: &String| known.on(REGISTERED_MODEL, name, &caller.workspace).allows(wanted);
            need(names.iter().all(may))
        }
        Subject::ModelInPath | Subject::LoopModel => {
            let workspace = match subject {
                Subject::LoopModel => DEFAULT_WORKSPACE,
                _ => caller.workspace.as_str(),
            };
            let name = path_params(parts)
                .await
                .into_iter()
                .find(|(name, _)| name == "model");
            let name = name.map(|(_, value)| value).unwrap_or_default();
            let permission = known.on(REGISTERED_MODEL, &name, workspace);
            need(permission.allows(wanted))
        }
        Subject::Artifact => {
            let in_path = path_params(parts).await.pop().map(|(_, value)| value);
            let mut paths = match in_path {
                Some(path) => vec![path],
                None => given("path"),
            };
            if paths.is_empty() {
                paths.push(String::new());
            }
            for path in &paths {
                on_artifact(app, wanted, known, path, caller).await?;
            }
            Ok(())
        }
        _ => Err(Refused::Denied),
    }
}

async fn path_params(parts: &mut Parts) -> Vec<(String, String)> {
    match RawPathParams::from_request_parts(parts, &()).await {
        Ok(params) => params
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        Err(_) => Vec::new(),
    }
}

/// Whether a user is permitted something on an artifact of the proxy: by all whose it is. The list of the whole proxy is for those who
/// may look at everything.
async fn on_artifact(
    app: &App,
    wanted: Need,
    known: &Principal,
    path: &str,
    caller: &Caller,
) -> Result<(), Refused> {
    if safe_path(path)?.is_empty() {
        return need(wanted == Need::Read && known.reads_all_of(&caller.workspace));
    }
    let owners = app.tracking().owners_of_proxied(caller, path).await?;
    of_owners(known, &owners, wanted)
}
