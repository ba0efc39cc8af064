//! How answers of deployments turned out: what bandits learn from, stored before it is learnt.

use tidemill_core::ids::{EndpointName, PredictionId, VersionNumber};
use tidemill_serving::{BanditArm, BanditState};
use tidemill_store::bandits::{self, Arm, Told};

use super::deployments::Deployments;
use crate::error::{ControlError, Result};

/// What came of an outcome.
#[derive(Clone, PartialEq, Debug)]
pub struct Counted {
    /// Whether it counts: the outcome of a prediction does so once.
    pub counted: bool,
    /// What the bandit knows now.
    pub bandit: BanditState,
}

impl Deployments {
    /// Takes in how an answer turned out, from 0, the worst, to 1: the weights of the deployment's bandit rest on it from now on, and after
    /// a restart. The outcome of a `prediction` counts once.
    ///
    /// # Errors
    /// If there is no such deployment, or no bandit of it chooses this version.
    pub async fn tell_outcome(
        &self,
        deployment: &EndpointName,
        version: VersionNumber,
        outcome: f64,
        prediction: Option<PredictionId>,
    ) -> Result<Counted> {
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
        let (this, now) = (self.clone(), self.clock.now());
        // By itself: a caller who goes away must not leave what is stored unlearnt.
        let telling = tokio::spawn(async move {
            let name = told.deployment.clone();
            let (counted, arms) = this
                .store
                .write(move |tx| {
                    let counted = bandits::tell(tx, &told, now)?;
                    Ok((counted, bandits::arms(tx, &told.deployment)?))
                })
                .await?;
            this.hosting().restore_bandit(&name, &state_of(&arms))?;
            let bandit = this.hosting().bandit(&name)?.unwrap_or_default();
            Ok(Counted { counted, bandit })
        });
        telling.await.map_err(ControlError::internal)?
    }

    /// Gives a deployment's bandit back what was stored of its versions.
    pub(super) async fn restore_bandit(&self, deployment: &EndpointName) -> Result<()> {
        let wanted = deployment.clone();
        let stored = self.store.read(move |tx| bandits::arms(tx, &wanted)).await?;
        if !stored.is_empty() {
            self.hosting().restore_bandit(deployment, &state_of(&stored))?;
        }
        Ok(())
    }
}

fn state_of(arms: &[Arm]) -> BanditState {
    BanditState {
        outcomes: arms.iter().map(|arm| arm.outcomes).sum(),
        arms: arms
            .iter()
            .map(|arm| BanditArm {
                version: arm.version,
                successes: arm.successes,
                failures: arm.failures,
                share: 0.0,
            })
            .collect(),
    }
}
