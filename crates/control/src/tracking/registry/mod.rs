//! Registered models, their versions, aliases and stages; who may move them and what is told of it.

mod audit;
mod card;
mod compare;
mod models;
mod moves;
mod names;
mod requests;
mod signature;
mod sources;
mod versions;

use std::sync::{Arc, Mutex, PoisonError};

use tidemill_store::registry::{self, Model, Version, Who};
use tidemill_store::{ReadTx, StoreError, Tx};

use super::{Caller, Result, Tracking, TrackingError};

pub use compare::Comparison;
pub use requests::Target;
pub(crate) use sources::{ModelsUri, models_uri};
pub use versions::CreateVersion;

/// The tag of a model that says that moves of its aliases and stages need somebody's approval, if its value is [`REQUIRED`].
pub const APPROVAL_TAG: &str = "tidemill.approval";
/// [`APPROVAL_TAG`]
pub const REQUIRED: &str = "required";
/// The tag by which MLflow tells a prompt from a model.
const PROMPT_TAG: &str = "mlflow.prompt.is_prompt";

impl Tracking {
    /// One transaction; an error takes all of it back.
    pub(super) async fn change<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let refused: Arc<Mutex<Option<TrackingError>>> = Arc::default();
        let reason = Arc::clone(&refused);
        let written = self
            .store()
            .write(move |tx| {
                change(tx).map_err(|error| match error {
                    TrackingError::Store(error) => error,
                    other => {
                        let message = other.to_string();
                        *reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
                        StoreError::conflict("request", message)
                    }
                })
            })
            .await;
        let refusal = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        match refusal {
            Some(error) => Err(error),
            None => Ok(written?),
        }
    }

    /// A consistent view.
    pub(super) async fn look<T, F>(&self, query: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTx<'_>) -> Result<T> + Send + 'static,
    {
        self.store().read(move |tx| Ok(query(tx))).await?
    }

    /// Who changes something through MLflow's API.
    fn who(&self, caller: &Caller) -> Who {
        self.who_because(caller, "set through MLflow's API")
    }

    fn who_because(&self, caller: &Caller, why: &str) -> Who {
        Who {
            at: self.now(),
            by: if caller.user.is_empty() {
                "anonymous".to_owned()
            } else {
                caller.user.clone()
            },
            why: why.to_owned(),
        }
    }
}

/// The number of a model, which must be there.
fn model_number(tx: &ReadTx<'_>, workspace: &str, name: &str) -> Result<i64> {
    registry::find(tx, workspace, name)?
        .ok_or_else(|| TrackingError::not_found(format!("Registered Model with name={name} not found")))
}

/// A model, which must be there.
fn model(tx: &ReadTx<'_>, workspace: &str, name: &str) -> Result<Model> {
    let number = model_number(tx, workspace, name)?;
    let found = registry::load_models(tx, &[number])?.pop();
    found.ok_or_else(|| TrackingError::not_found(format!("Registered Model with name={name} not found")))
}

/// A version, which must be there.
fn version(tx: &ReadTx<'_>, workspace: &str, name: &str, number: i64) -> Result<Version> {
    let missing =
        || TrackingError::not_found(format!("Model Version (name={name}, version={number}) not found"));
    let Some(model) = registry::find(tx, workspace, name)? else {
        return Err(missing());
    };
    registry::find_version(tx, model, number)?.ok_or_else(missing)
}

/// Whether a model is a prompt in truth.
fn is_prompt(model: &Model) -> bool {
    model.tags.iter().any(|(key, _)| key == PROMPT_TAG)
}
