//! What every part of the loop works with: the project, the store, the ports, the serving side and the clock.

use std::path::PathBuf;
use std::sync::Arc;

use tidemill_core::clock::{Clock, Timestamp};
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, ModelName};
use tidemill_core::ports::{DataEngine, ModelRuntime, Trainer};
use tidemill_core::spec::Spec;
use tidemill_serving::Server;
use tidemill_store::Store;

use crate::error::Result;
use crate::predictions::Predictions;

/// The parts that the loop is put together from.
pub struct Parts {
    /// The project.
    pub spec: Arc<Spec>,
    /// The folder of `tidemill.yaml`.
    pub root: PathBuf,
    /// State.
    pub store: Store,
    /// DataFusion behind its port.
    pub data: Arc<dyn DataEngine>,
    /// The built-in trainer.
    pub trainer: Arc<dyn Trainer>,
    /// Loads models.
    pub runtime: Arc<dyn ModelRuntime>,
    /// The hot path.
    pub serving: Arc<Server>,
    /// The prediction log.
    pub predictions: Predictions,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// [`Parts`] with what follows from them.
pub(crate) struct Context {
    pub(crate) spec: Arc<Spec>,
    pub(crate) spec_digest: Digest,
    pub(crate) root: PathBuf,
    pub(crate) store: Store,
    pub(crate) data: Arc<dyn DataEngine>,
    pub(crate) trainer: Arc<dyn Trainer>,
    pub(crate) runtime: Arc<dyn ModelRuntime>,
    pub(crate) serving: Arc<Server>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) predictions: Predictions,
}

impl Context {
    pub(crate) fn new(parts: Parts) -> Result<Self> {
        let text = serde_json::to_vec(&*parts.spec).map_err(crate::error::ControlError::internal)?;
        Ok(Self {
            spec_digest: Digest::of(&text),
            spec: parts.spec,
            root: parts.root,
            store: parts.store,
            data: parts.data,
            trainer: parts.trainer,
            runtime: parts.runtime,
            serving: parts.serving,
            clock: parts.clock,
            predictions: parts.predictions,
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The project's endpoint: one project, one endpoint, of the same name.
    pub(crate) fn endpoint(&self) -> EndpointName {
        EndpointName::new(&self.spec.name)
    }

    /// The project's registered model.
    pub(crate) fn model(&self) -> ModelName {
        ModelName::new(&self.spec.name)
    }
}
