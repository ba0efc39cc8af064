//! What an input usually is, from the profile of the data that a version was trained on: the row that explanations compare with.

use std::collections::BTreeMap;

use serde_json::Value;
use tidemill_core::ids::VersionNumber;
use tidemill_store::{models, snapshots};

use crate::control::Control;
use crate::error::Result;

impl Control {
    /// What each column of a version's training data usually is: the median of numbers, the most frequent category.
    ///
    /// # Errors
    /// If there is no such version, or the store cannot be read.
    pub async fn usual_inputs(&self, version: VersionNumber) -> Result<BTreeMap<String, Value>> {
        let model = self.ctx().model();
        let read = self.ctx().store.read(move |tx| {
            let version = models::get_version(tx, &model, version)?;
            snapshots::get(tx, &version.snapshot)
        });
        let profile = read.await?.manifest.profile;
        let usual = profile
            .iter()
            .filter_map(|(name, column)| Some((name.clone(), usual(column)?)));
        Ok(usual.collect())
    }
}

fn usual(column: &Value) -> Option<Value> {
    let median = column.pointer("/quantiles/0.5");
    let frequent = column.pointer("/top/0/value");
    median.or(frequent).filter(|value| !value.is_null()).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_usually_their_median_and_texts_the_most_frequent_one() {
        assert_eq!(
            usual(&json!({"mean": 3.5, "quantiles": {"0.25": 1, "0.5": 2}})),
            Some(json!(2))
        );
        assert_eq!(
            usual(&json!({"top": [{"value": "UA", "count": 3}, {"value": "AA", "count": 1}]})),
            Some(json!("UA"))
        );
        assert_eq!(usual(&json!({"quantiles": {"0.5": null}})), None);
        assert_eq!(usual(&json!({"top": []})), None);
    }
}
