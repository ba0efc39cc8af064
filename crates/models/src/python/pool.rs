//! The fork servers of this process, one for each interpreter and number of threads; one that nobody needs any more ends.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use tidemill_core::ports::PortError;
use tidemill_core::servable::Loader;
use tokio::sync::Mutex;

use super::deployment::PythonDeployment;
use super::fork_server::ForkServer;
use super::servable::PythonLoader;
use super::sources;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    python: PathBuf,
    threads: u32,
}

type Slot = Arc<Mutex<Weak<ForkServer>>>;

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    servers: std::sync::Mutex<HashMap<Key, Slot>>,
}

/// Models in Python. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PythonModels(Arc<Inner>);

impl PythonModels {
    /// `folder` is where the sources of the Python side are written.
    pub fn new(folder: PathBuf) -> Self {
        Self(Arc::new(Inner {
            folder,
            servers: std::sync::Mutex::default(),
        }))
    }

    /// A loader of a deployment. Nothing is started.
    pub fn loader(&self, deployment: PythonDeployment) -> Arc<dyn Loader> {
        Arc::new(PythonLoader::new(self.clone(), deployment))
    }

    /// A loader of a deployment whose fork server is started now, in the background: an idle deployment then needs no process of its
    /// own, and its first call no start of an interpreter.
    pub fn warm_loader(&self, deployment: PythonDeployment) -> Arc<dyn Loader> {
        let loader = Arc::new(PythonLoader::new(self.clone(), deployment));
        let warmed = Arc::clone(&loader);
        tokio::spawn(async move {
            if let Err(error) = warmed.server().await {
                tracing::warn!(%error, "the fork server of a deployment did not start");
            }
        });
        loader
    }

    /// The folder with the sources of the Python side.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn sources(&self) -> Result<PathBuf, PortError> {
        sources::write(&self.0.folder).map_err(|error| {
            PortError::upstream(
                "worker_start",
                format!(
                    "cannot write the worker's sources to `{}`: {error}",
                    self.0.folder.display()
                ),
            )
        })
    }

    /// The fork server for an interpreter, started if it does not run. Whoever holds it keeps it.
    pub(super) async fn server(&self, deployment: &PythonDeployment) -> Result<Arc<ForkServer>, PortError> {
        let key = Key {
            python: deployment.python.clone(),
            threads: deployment.threads(),
        };
        let slot = {
            let mut servers = self
                .0
                .servers
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            servers.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|s| s.strong_count() > 0)
            });
            Arc::clone(servers.entry(key).or_default())
        };
        let mut known = slot.lock().await;
        if let Some(server) = known.upgrade().filter(|server| !server.is_gone()) {
            return Ok(server);
        }
        let sources = self.sources()?;
        let server = Arc::new(ForkServer::start(&deployment.python, &sources, deployment.threads()).await?);
        *known = Arc::downgrade(&server);
        Ok(server)
    }
}
