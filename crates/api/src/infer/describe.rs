//! What stands behind a name, described: its versions, what it takes and gives, how it is meant to answer.

use std::sync::Arc;

use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::spec::ServingSpec;
use tidemill_core::tensors::TensorSpec;
use tidemill_serving::{VersionState, VersionStatistics};

use super::target::{Target, check_loaded, routes};
use super::{table, target};
use crate::control_plane::App;
use crate::error::ApiError;

/// A model as metadata and configuration tell it.
pub(crate) struct Described {
    pub name: EndpointName,
    /// The versions that answer.
    pub versions: Vec<VersionNumber>,
    pub platform: String,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// Whether the first dimension counts rows and requests may be joined; the largest batch then.
    pub max_batch: Option<u32>,
    pub decoupled: bool,
    /// How a deployment is meant to answer; an endpoint of the loop has no such settings.
    pub spec: Option<Arc<ServingSpec>>,
}

/// Stands in a configuration for a batch size without a limit of its own.
const ANY_BATCH: u32 = 65_536;

/// Describes what a target is.
pub(crate) async fn describe(app: &App, target: Target) -> Result<Described, ApiError> {
    match target {
        Target::Table(call) => {
            let route = &call.route;
            check_loaded(route, call.version)?;
            Ok(Described {
                name: route.endpoint.clone(),
                versions: route.versions(),
                platform: "tidemill".to_owned(),
                inputs: table::inputs(route),
                outputs: table::outputs(route),
                max_batch: None,
                decoupled: false,
                spec: None,
            })
        }
        Target::Hosted(hosted) => {
            let hosting = app.serving().hosting();
            let (_, interface) = hosting.interface(&hosted.name, hosted.version).await?;
            let spec = hosting.spec(&hosted.name)?;
            let largest = spec
                .batching
                .as_ref()
                .map_or(ANY_BATCH, |batching| batching.max_rows);
            // A column of a table has no dimension beside the batch's, which a configuration cannot say.
            let batches = interface.batches
                && interface
                    .inputs
                    .iter()
                    .chain(&interface.outputs)
                    .all(|spec| spec.shape.len() > 1);
            Ok(Described {
                versions: hosting.served_versions(&hosted.name)?,
                platform: interface.platform.clone(),
                inputs: interface.inputs.clone(),
                outputs: interface.outputs.clone(),
                max_batch: batches.then_some(largest),
                decoupled: interface.decoupled,
                spec: Some(spec),
                name: hosted.name,
            })
        }
    }
}

/// A version in the repository's index.
pub(crate) struct Listed {
    pub name: EndpointName,
    pub version: String,
    pub state: VersionState,
    pub reason: String,
}

/// Every version of everything that has a name; only those that answer, if `ready`.
pub(crate) fn index(app: &App, ready: bool) -> Vec<Listed> {
    let mut listed = Vec::new();
    for route in routes(app) {
        let versions = route.versions();
        let one = |version: String, state, reason: &str| Listed {
            name: route.endpoint.clone(),
            version,
            state,
            reason: reason.to_owned(),
        };
        if versions.is_empty() {
            listed.push(if route.can_answer() {
                one(String::new(), VersionState::Ready, "")
            } else {
                one(String::new(), VersionState::Unavailable, "no model yet")
            });
        }
        listed.extend(
            versions
                .iter()
                .map(|version| one(version.to_string(), VersionState::Ready, "")),
        );
    }
    let hidden = |name: &EndpointName| app.serving().router().route(name).is_some();
    let hosted = app.serving().hosting().index().into_iter();
    listed.extend(hosted.filter(|entry| !hidden(&entry.name)).map(|entry| Listed {
        version: entry.version.to_string(),
        name: entry.name,
        state: entry.state,
        reason: entry.reason,
    }));
    listed.retain(|one| !ready || one.state == VersionState::Ready);
    listed
}

/// Loads or unloads a deployment.
pub(crate) async fn set_loaded(app: &App, name: &EndpointName, wanted: bool) -> Result<(), ApiError> {
    let serving = app.serving();
    if serving.router().route(name).is_some() {
        return Err(ApiError::bad_request(
            "endpoint_of_loop",
            format!(
                "endpoint `{name}` belongs to the loop, whose versions are loaded by promotion and taken away by rollback: see \
                 `POST /api/v1/endpoints/{name}/promote`"
            ),
        ));
    }
    if !serving.hosting().contains(name) {
        return Err(target::unknown(app, name));
    }
    if wanted {
        serving.hosting().load(name).await?;
    } else {
        serving.hosting().unload(name)?;
    }
    Ok(())
}

/// What has been counted of one name, or of all, by version.
pub(crate) fn statistics(app: &App, target: Option<&Target>) -> Result<Vec<VersionStatistics>, ApiError> {
    let serving = app.serving();
    let Some(target) = target else {
        let mut all = serving.statistics(None);
        all.extend(serving.hosting().statistics(None));
        all.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        return Ok(all);
    };
    let (mut found, version) = match target {
        Target::Table(call) => {
            check_loaded(&call.route, call.version)?;
            (serving.statistics(Some(&call.route.endpoint)), call.version)
        }
        Target::Hosted(hosted) => {
            target.check_version(app)?;
            (serving.hosting().statistics(Some(&hosted.name)), hosted.version)
        }
    };
    found.retain(|one| version.is_none_or(|version| version == one.version));
    Ok(found)
}

/// Refuses what a load can carry in Triton and not here.
pub(crate) fn check_load_parameters<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<(), ApiError> {
    for name in names {
        if name == "config" || name.starts_with("file:") {
            return Err(ApiError::bad_request(
                "bad_parameter",
                format!(
                    "a load does not take `{name}` here: a deployment's settings and files come with `tidemill deploy`; load it \
                     without parameters"
                ),
            ));
        }
    }
    Ok(())
}

/// What is spoken here beyond the protocol itself, under Triton's names.
pub(crate) fn extensions(app: &App) -> Vec<&'static str> {
    let mut known = vec![
        "classification",
        "model_repository",
        "schedule_policy",
        "model_configuration",
        "binary_tensor_data",
        "parameters",
        "statistics",
        "generate",
    ];
    if app.shared_memory().is_some() {
        known.push("system_shared_memory");
    }
    known
}
