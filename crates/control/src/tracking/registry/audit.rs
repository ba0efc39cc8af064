//! A model's whole history in one list.

use tidemill_store::registry::{self, Entry};

use crate::tracking::{Caller, Result, Tracking, TrackingError};

impl Tracking {
    /// Moves of aliases and stages, requests and what was decided, deletes and renames, oldest first. Readable after the model is
    /// gone.
    pub async fn audit(&self, caller: &Caller, name: String) -> Result<Vec<Entry>> {
        let workspace = caller.workspace.clone();
        self.look(move |tx| {
            let number = registry::find(tx, &workspace, &name)?;
            let entries = registry::audit(tx, &workspace, &name, number)?;
            if number.is_none() && entries.is_empty() {
                return Err(TrackingError::not_found(format!(
                    "Registered Model with name={name} not found, and none ever had this name"
                )));
            }
            Ok(entries)
        })
        .await
    }
}
