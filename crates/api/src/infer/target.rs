//! What stands behind a name.

use std::sync::Arc;

use tidemill_core::clock::Stopwatch;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_serving::{Route, ServeError};

use super::Call;
use crate::control_plane::App;
use crate::error::ApiError;

/// What stands behind a name.
pub(crate) enum Target {
    /// An endpoint of the loop.
    Table(Call),
    /// A deployment.
    Hosted(Hosted),
}

/// Which deployment is asked.
pub(crate) struct Hosted {
    pub name: EndpointName,
    pub version: Option<VersionNumber>,
    pub received: Stopwatch,
}

impl Target {
    /// Finds what is called `name`: the loop's endpoint, or else the deployment.
    pub(crate) fn of(
        app: &App,
        name: &EndpointName,
        version: Option<VersionNumber>,
    ) -> Result<Self, ApiError> {
        let received = Stopwatch::start();
        if let Some(route) = app.serving().router().route(name) {
            return Ok(Self::Table(Call::over(app, route, version, received)));
        }
        if app.serving().hosting().contains(name) {
            return Ok(Self::Hosted(Hosted {
                name: name.clone(),
                version,
                received,
            }));
        }
        Err(unknown(app, name))
    }

    /// The same, of a request that arrived earlier than it was looked at.
    pub(crate) fn since(mut self, received: Stopwatch) -> Self {
        match &mut self {
            Self::Table(call) => call.received = received,
            Self::Hosted(hosted) => hosted.received = received,
        }
        self
    }

    /// Refuses a version that is not served.
    pub(crate) fn check_version(&self, app: &App) -> Result<(), ApiError> {
        match self {
            Self::Table(call) => check_loaded(&call.route, call.version),
            Self::Hosted(Hosted { name, version, .. }) => {
                let served = app.serving().hosting().served_versions(name)?;
                match version {
                    Some(version) if !served.contains(version) => {
                        Err(unknown_version(name, *version, served))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// Whether a version of it would answer, or any of it.
    pub(crate) fn check_ready(&self, app: &App) -> Result<(), ApiError> {
        match self {
            Self::Table(call) => {
                check_loaded(&call.route, call.version)?;
                if call.version.is_none() && !call.route.can_answer() {
                    let endpoint = call.route.endpoint.clone();
                    return Err(ServeError::NoModel { endpoint }.into());
                }
                Ok(())
            }
            Self::Hosted(Hosted { name, version, .. }) => {
                self.check_version(app)?;
                let hosting = app.serving().hosting();
                if hosting.is_ready(name, *version) {
                    return Ok(());
                }
                let mut entries = hosting.index().into_iter();
                let reason = entries
                    .find(|entry| entry.name == *name && version.is_none_or(|v| v == entry.version))
                    .map(|entry| entry.reason)
                    .filter(|reason| !reason.is_empty())
                    .unwrap_or_else(|| "it cannot answer".to_owned());
                Err(ApiError::unavailable(
                    "endpoint_not_ready",
                    format!("endpoint `{name}` is not ready: {reason}"),
                ))
            }
        }
    }
}

/// Refuses a version that the loop's endpoint has not loaded.
pub(super) fn check_loaded(route: &Route, version: Option<VersionNumber>) -> Result<(), ApiError> {
    let Some(version) = version else {
        return Ok(());
    };
    let loaded = route.versions();
    if loaded.contains(&version) {
        return Ok(());
    }
    Err(unknown_version(&route.endpoint, version, loaded))
}

fn unknown_version(endpoint: &EndpointName, version: VersionNumber, loaded: Vec<VersionNumber>) -> ApiError {
    let endpoint = endpoint.clone();
    ServeError::UnknownVersion {
        endpoint,
        version,
        loaded,
    }
    .into()
}

/// There is neither.
pub(crate) fn unknown(app: &App, name: &EndpointName) -> ApiError {
    ServeError::UnknownEndpoint {
        name: name.clone(),
        known: names(app).iter().map(ToString::to_string).collect(),
    }
    .into()
}

/// Every name behind which something stands, sorted.
pub(crate) fn names(app: &App) -> Vec<EndpointName> {
    let serving = app.serving();
    let mut names: Vec<EndpointName> = serving.router().table().routes.keys().cloned().collect();
    names.extend(serving.hosting().names());
    names.sort();
    names.dedup();
    names
}

/// The loop's endpoints, sorted by name.
pub(crate) fn routes(app: &App) -> Vec<Arc<Route>> {
    let mut routes: Vec<Arc<Route>> = app.serving().router().table().routes.values().cloned().collect();
    routes.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    routes
}
