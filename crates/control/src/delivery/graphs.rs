//! Graphs: those of the project, served as the spec says, and those that are deployed like any model, version after version.

use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value};
use tidemill_core::deployments::{BUNDLE_FORMAT, BundleManifest, BundledModel, Deploying, FILES_FOLDER};
use tidemill_core::ids::EndpointName;
use tidemill_core::ports::PortError;
use tidemill_core::servable::Loader;
use tidemill_core::spec::{GraphSpec, Spec};
use tidemill_serving::graphs;

use super::artifacts;
use super::deployments::{DeployRequest, DeploymentView, Deployments, io};
use crate::error::{ControlError, Result};

/// The file in a bundle that holds the graph.
const GRAPH_FILE: &str = "graph.json";

impl Deployments {
    /// Serves a project's graphs, each under its name, beside the deployments that are stored.
    pub async fn serve_graphs(&self, spec: &Spec) -> Result<()> {
        let _same = self.changing.lock().await;
        for (name, graph) in &spec.graphs {
            let endpoint = EndpointName::new(name);
            if self.hosting().contains(&endpoint) && !self.is_project_graph(&endpoint) {
                return Err(ControlError::Conflict {
                    code: "deployment_exists",
                    message: format!(
                        "there is a deployment `{name}` already; give the graph another name, or remove it: `tidemill undeploy {name}`"
                    ),
                });
            }
            graphs::deploy(&self.serving, name, graph).map_err(|(key, message)| ControlError::Refused {
                code: "spec_invalid",
                message: format!("`{key}`: {message}"),
            })?;
            let mut known = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(endpoint);
        }
        Ok(())
    }

    pub(super) fn is_project_graph(&self, name: &EndpointName) -> bool {
        let known = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(name)
    }

    /// Deploys a graph as the next version under its name.
    ///
    /// # Errors
    /// If the request names no deployment, or the graph does not hang together.
    pub async fn deploy_graph(&self, request: DeployRequest, by: &str) -> Result<DeploymentView> {
        let graph = request.graph.clone().unwrap_or_default();
        let Some(name) = request.name.clone() else {
            return Err(ControlError::Refused {
                code: "bad_deployment_name",
                message: "a graph has no name of its own; send it as `name`".to_owned(),
            });
        };
        checked(&name, graph.clone())?;
        let serving = match graph.get("serving") {
            Some(Value::Object(serving)) => serving.clone(),
            _ => Map::new(),
        };
        let work = self
            .place
            .0
            .join("work")
            .join(tidemill_core::ids::fresh(self.clock.now()));
        let files = work.join("files");
        let pack = async {
            std::fs::create_dir_all(&files).map_err(|error| io("create", &files, &error))?;
            let file = files.join(GRAPH_FILE);
            std::fs::write(&file, graph.to_string()).map_err(|error| io("write", &file, &error))?;
            let manifest = BundleManifest {
                format: BUNDLE_FORMAT,
                name: name.clone(),
                model: BundledModel::Graph {
                    file: GRAPH_FILE.to_owned(),
                },
                python: None,
                serving,
            };
            let archive = work.join("archive");
            self.engine.pack(&files, &manifest, &archive).await?;
            let mut upload = self.upload().await?;
            artifacts::read_into(&archive, &mut upload).await?;
            upload.finish().await
        };
        let packed = pack.await;
        // It only held copies.
        let _ = std::fs::remove_dir_all(&work);
        self.deploy_arrived(packed?, request, "graph", by).await
    }

    /// A loader of the graph in an unpacked bundle.
    pub(super) fn graph_loader(
        &self,
        deploying: &Deploying,
        file: &str,
    ) -> std::result::Result<Arc<dyn Loader>, PortError> {
        let broken = |message: String| PortError::caller("bundle_broken", message);
        // Only we write bundles of graphs, but anybody may send one.
        if file != GRAPH_FILE {
            return Err(broken(format!("a graph is in `{GRAPH_FILE}`, not in `{file}`")));
        }
        let path = deploying.folder.join(FILES_FOLDER).join(file);
        let text = std::fs::read(&path)
            .map_err(|error| broken(format!("`{}` cannot be read: {error}", path.display())))?;
        let graph = serde_json::from_slice(&text).map_err(|error| broken(format!("`{file}`: {error}")))?;
        let graph = checked(&deploying.name, graph).map_err(|error| broken(error.to_string()))?;
        graphs::loader(&self.serving, &deploying.name, &graph)
            .map_err(|(key, message)| broken(format!("`{key}`: {message}")))
    }
}

fn checked(name: &str, graph: Value) -> Result<GraphSpec> {
    let refused = |message: String| ControlError::Refused {
        code: "spec_invalid",
        message,
    };
    let graph: GraphSpec = serde_json::from_value(graph)
        .map_err(|error| refused(format!("the graph cannot be read: {error}")))?;
    graph
        .check(name)
        .map_err(|(key, message)| refused(format!("`{key}`: {message}")))?;
    Ok(graph)
}
