//! Graphs of deployments: each is a deployment itself, whose model asks the others.
//!
//! The way of a call: [`crate::Hosting::call`] → `servable.rs` → `run.rs`, which asks for what the outputs need, node by node, each once →
//! one file for each kind of node.

mod combine;
mod endpoint;
mod explain;
#[cfg(test)]
mod fakes;
mod outlier;
mod run;
mod select;
mod servable;
mod tensors;
#[cfg(test)]
mod tests;
mod transform;

use std::sync::Arc;

use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::servable::Loader;
use tidemill_core::spec::{Finding, GraphSpec};

use crate::hosting::{Hosted, HostedVersion};
use crate::server::Server;
pub(crate) use endpoint::answer_tensors;
pub(crate) use run::of_serving;
use servable::GraphLoader;

/// Serves a graph under its name, as version 1 of a deployment; puts another in its place where there is one. Its nodes ask the hosted
/// deployments and the endpoints of this server.
///
/// # Errors
/// What in the graph does not hang together: the key, and what to do.
pub fn deploy(server: &Server, name: &str, graph: &GraphSpec) -> Result<(), Finding> {
    let loader = loader(server, name, graph)?;
    server.hosting().put(Hosted {
        name: EndpointName::new(name),
        spec: Arc::new(graph.serving.clone()),
        versions: vec![HostedVersion {
            number: VersionNumber(1),
            loader,
            bundle: None,
        }],
    });
    Ok(())
}

/// A loader of a graph, as a version of the deployment `name`.
///
/// # Errors
/// As [`deploy`].
pub fn loader(server: &Server, name: &str, graph: &GraphSpec) -> Result<Arc<dyn Loader>, Finding> {
    graph.check(name)?;
    Ok(Arc::new(GraphLoader::new(server, name, graph)))
}
