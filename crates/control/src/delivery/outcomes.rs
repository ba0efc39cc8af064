//! How answers of deployments turned out: what bandits learn from, stored before it is learnt.

use tidemill_core::ids::{EndpointName, PredictionId, VersionNumber};
use tidemill_serving::{BanditArm, BanditState};
use tidemill_store::bandits::{self, Told};

use super::deployments::Deployments;
use crate::error::{ControlError, Result};

impl Deployments {
    /// Takes in how an answer turned out, from 0, the worst, to 1: the weights of the deployment's bandit rest on it from now on, and after
    /// a restart. The outcome of a `prediction` counts once. Returns what the bandit knows then.
    ///
    /// # Errors
    /// If there is no such deployment, or no bandit of it chooses this version.
    pub async fn tell_outcome(
        &self,
        deployment: &EndpointName,
        version: VersionNumber,
        outcome: f64,
        prediction: Option<PredictionId>,
    ) -> Result<BanditState> {
        // Stored and learnt as one, so that what is read back after a restart is what was learnt.
        let _same = self.telling.lock().await;
        let known = self.hosting().bandit(deployment)?.unwrap_or_default();
        if !known.arms.iter().any(|arm| arm.version == version) {
            return Err(ControlError::Refused {
                code: "invalid_parameter_value",
                message: format!(
                    "no bandit of `{deployment}` chooses version {version}; `routing.bandit.versions` names those"
                ),
            });
        }
        let told = Told {
            deployment: deployment.clone(),
            version,
            outcome,
            prediction,
        };
        let now = self.clock.now();
        let new = self.store.write(move |tx| bandits::tell(tx, &told, now)).await?;
        if new {
            self.hosting().tell_outcome(deployment, version, outcome)?;
        }
        Ok(self.hosting().bandit(deployment)?.unwrap_or_default())
    }

    /// Gives a deployment's bandit back what was stored of its versions.
    pub(super) async fn restore_bandit(&self, deployment: &EndpointName) -> Result<()> {
        let _same = self.telling.lock().await;
        let wanted = deployment.clone();
        let stored = self.store.read(move |tx| bandits::arms(tx, &wanted)).await?;
        let state = BanditState {
            outcomes: stored.iter().map(|arm| arm.outcomes).sum(),
            arms: stored
                .iter()
                .map(|arm| BanditArm {
                    version: arm.version,
                    successes: arm.successes,
                    failures: arm.failures,
                    share: 0.0,
                })
                .collect(),
        };
        if !state.arms.is_empty() {
            self.hosting().restore_bandit(deployment, &state)?;
        }
        Ok(())
    }
}
