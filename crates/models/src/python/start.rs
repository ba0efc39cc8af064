//! From a deployment to a worker that has loaded, and what is remembered of that for the next time.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::ports::PortError;
use tidemill_core::servable::Interface;

use super::deployment::PythonDeployment;
use super::fork_server::ForkServer;
use super::worker::{Handle, Worker};

/// What a worker says when it has loaded.
#[derive(Debug, Deserialize)]
struct Ready {
    interface: Interface,
    #[serde(default)]
    modules: Vec<String>,
}

/// What was learnt by loading a deployment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Learnt {
    /// What it takes and gives.
    pub interface: Option<Interface>,
    /// What it imports that is not its own: a fork server that has imported these has it loaded sooner.
    pub modules: Vec<String>,
}

impl Learnt {
    /// What the file says; nothing if it says nothing that can be read, which costs time but is no fault.
    pub fn read(path: Option<&Path>) -> Self {
        path.and_then(|path| std::fs::read(path).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    pub fn write(&self, path: Option<&Path>) {
        let Some(path) = path else { return };
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|bytes| std::fs::write(path, bytes));
        if let Err(error) = written {
            tracing::debug!(path = %path.display(), %error, "cannot remember what a deployment needs");
        }
    }
}

/// A worker that has loaded, and what it said.
#[derive(Debug)]
pub(super) struct Started {
    pub handle: Arc<Handle>,
    pub learnt: Learnt,
}

pub(super) async fn start(
    server: Arc<ForkServer>,
    deployment: Arc<PythonDeployment>,
) -> Result<Started, PortError> {
    let (handle, loaded) = Worker::fork(server, Arc::clone(&deployment)).await?;
    let ready: Ready = serde_json::from_slice(&loaded?).map_err(|error| {
        PortError::upstream(
            "worker_start",
            format!(
                "the worker of `{}` does not say what it takes: {error}",
                deployment.name
            ),
        )
    })?;
    Ok(Started {
        handle: Arc::new(handle),
        learnt: Learnt {
            interface: Some(ready.interface),
            modules: ready.modules,
        },
    })
}
