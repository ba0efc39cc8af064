//! Bandits: what is known of the versions that they choose from.

use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, PredictionId, VersionNumber};

use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// What is known of one version.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Arm {
    /// Which.
    pub version: VersionNumber,
    /// The sum of its outcomes, each from 0 to 1.
    pub successes: f64,
    /// The sum of what they lacked to 1.
    pub failures: f64,
    /// How many outcomes.
    pub outcomes: u64,
}

/// How an answer turned out.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// The deployment.
    pub deployment: EndpointName,
    /// The version that answered.
    pub version: VersionNumber,
    /// From 0 to 1.
    pub outcome: f64,
    /// The prediction that it was; an outcome without one counts each time.
    pub prediction: Option<PredictionId>,
}

/// Adds an outcome to what is known. Returns whether it is new: the outcome of a prediction counts once.
pub fn tell(tx: &mut Tx<'_>, told: &Told, now: Timestamp) -> Result<bool, StoreError> {
    let Told {
        deployment,
        version,
        outcome,
        prediction,
    } = told;
    if let Some(prediction) = prediction {
        let values = bind![deployment, prediction, version, outcome, now];
        let columns = "deployment, prediction_id, version, outcome, told_at";
        if !tx.insert_new("bandit_outcomes", columns, values)? {
            return Ok(false);
        }
    }
    let sql = "INSERT INTO bandit_arms (deployment, version, successes, failures, outcomes, updated_at)
         VALUES (?1, ?2, ?3, ?4, 1, ?5)
         ON CONFLICT (deployment, version) DO UPDATE SET successes = bandit_arms.successes + excluded.successes,
             failures = bandit_arms.failures + excluded.failures, outcomes = bandit_arms.outcomes + 1,
             updated_at = excluded.updated_at";
    tx.execute(sql, bind![deployment, version, outcome, 1.0 - outcome, now])?;
    Ok(true)
}

/// Forgets what is known of a deployment's versions.
pub(crate) fn forget(tx: &mut Tx<'_>, deployment: &EndpointName) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM bandit_outcomes WHERE deployment = ?1",
        bind![deployment],
    )?;
    tx.execute("DELETE FROM bandit_arms WHERE deployment = ?1", bind![deployment])?;
    Ok(())
}

/// What is known of a deployment's versions, by number.
pub fn arms(tx: &ReadTx<'_>, deployment: &EndpointName) -> Result<Vec<Arm>, StoreError> {
    let sql = "SELECT version, successes, failures, outcomes FROM bandit_arms WHERE deployment = ?1 ORDER BY version";
    tx.rows(sql, bind![deployment], |row| {
        let mut fields = Fields::of(row);
        Ok(Arm {
            version: fields.next()?,
            successes: fields.next()?,
            failures: fields.next()?,
            outcomes: fields.next()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use tidemill_core::digest::Digest;

    use super::*;
    use crate::deployments::{self, NewVersion};
    use crate::testing::{at, temp_store};

    #[test]
    fn outcomes_add_up_by_version_that_of_a_prediction_counts_once_and_all_go_with_the_deployment() {
        let (_dir, store) = temp_store();
        let told = |version: u32, outcome: f64, prediction: Option<&str>| Told {
            deployment: "ads".into(),
            version: VersionNumber(version),
            outcome,
            prediction: prediction.map(PredictionId::from),
        };
        let new = NewVersion {
            name: "ads".into(),
            digest: Digest::of(b"x"),
            size: 1,
            manifest: serde_json::json!({}),
            serving: serde_json::json!({}),
            source: "upload".to_owned(),
            created_by: String::new(),
        };
        store
            .write_blocking(move |tx| {
                deployments::add(tx, new, at(0))?;
                assert!(tell(tx, &told(1, 1.0, None), at(1))?);
                assert!(tell(tx, &told(1, 0.25, Some("p")), at(2))?);
                assert!(!tell(tx, &told(1, 0.25, Some("p")), at(3))?);
                assert!(tell(tx, &told(2, 0.0, None), at(4))?);
                Ok(())
            })
            .unwrap();
        let arms_of = |name: &str| {
            let name = EndpointName::from(name);
            store.read_blocking(|tx| arms(tx, &name)).unwrap()
        };
        let arm = |version: u32, successes: f64, failures: f64, outcomes: u64| Arm {
            version: VersionNumber(version),
            successes,
            failures,
            outcomes,
        };
        assert_eq!(arms_of("ads"), [arm(1, 1.25, 0.75, 2), arm(2, 0.0, 1.0, 1)]);
        assert_eq!(arms_of("other"), []);
        store
            .write_blocking(|tx| deployments::delete(tx, &"ads".into()))
            .unwrap();
        assert_eq!(arms_of("ads"), []);
    }
}
