//! Loaders around the one of the models: what deploying adds to loading.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tidemill_core::deployments::{Deploying, DeploymentEngine};
use tidemill_core::digest::Digest;
use tidemill_core::ports::PortError;
use tidemill_core::servable::{Interface, Loader, PartStatistics, Servable};

/// A loader whose first load has been done already.
#[derive(Debug)]
pub(super) struct Primed {
    pub loader: Arc<dyn Loader>,
    pub loaded: Mutex<Option<Arc<dyn Servable>>>,
}

#[async_trait]
impl Loader for Primed {
    async fn load(&self) -> std::result::Result<Arc<dyn Servable>, PortError> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
        match loaded {
            Some(loaded) => Ok(loaded),
            None => self.loader.load().await,
        }
    }

    fn identity(&self) -> Option<Digest> {
        self.loader.identity()
    }

    fn interface(&self) -> Option<Interface> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded
            .as_ref()
            .map(|loaded| loaded.interface().clone())
            .or_else(|| self.loader.interface())
    }

    fn parts(&self) -> Vec<PartStatistics> {
        self.loader.parts()
    }
}

/// A loader that first sees to what the deployment needs, such as an environment that has been removed meanwhile.
#[derive(Debug)]
pub(super) struct Preparing {
    pub identity: Option<Digest>,
    pub engine: Arc<dyn DeploymentEngine>,
    pub deploying: Deploying,
    pub loader: Arc<dyn Loader>,
}

#[async_trait]
impl Loader for Preparing {
    async fn load(&self) -> std::result::Result<Arc<dyn Servable>, PortError> {
        self.engine.prepare(&self.deploying).await?;
        self.loader.load().await
    }

    fn identity(&self) -> Option<Digest> {
        self.identity
    }

    fn interface(&self) -> Option<Interface> {
        self.loader.interface()
    }

    fn parts(&self) -> Vec<PartStatistics> {
        self.loader.parts()
    }
}

/// A loader of what cannot be loaded.
#[derive(Debug)]
pub(super) struct Broken(pub PortError);

#[async_trait]
impl Loader for Broken {
    async fn load(&self) -> std::result::Result<Arc<dyn Servable>, PortError> {
        Err(self.0.clone())
    }
}
