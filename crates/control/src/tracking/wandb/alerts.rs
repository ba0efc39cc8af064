//! Alerts that runs raise with `wandb.alert`.

use serde_json::json;
use tidemill_store::wandb::runs::{self, WandbAlert, WandbName};

use crate::tracking::{Result, Tracking, TrackingError};

/// An alert that is raised.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewAlert {
    /// Its headline.
    pub title: String,
    /// For people.
    pub text: String,
    /// `INFO`, `WARN` or `ERROR`.
    pub severity: String,
}

impl Tracking {
    /// Keeps an alert with its run, and announces it.
    pub async fn wandb_alert(&self, at: WandbName, new: NewAlert) -> Result<()> {
        let (now, at_ms, name) = (self.now(), self.now_ms(), at.name.clone());
        let there = self
            .store()
            .write(move |tx| {
                let Some(run) = runs::find(tx, &at)? else {
                    return Ok(false);
                };
                let alert = WandbAlert {
                    title: new.title,
                    text: new.text,
                    severity: new.severity,
                    at_ms,
                };
                runs::add_alert(tx, &run.run_id, &alert)?;
                let payload = json!({ "title": alert.title, "text": alert.text, "severity": alert.severity });
                tx.event(now, "tracked_run.alert", "tracked_run", &run.run_id, payload)?;
                Ok(true)
            })
            .await?;
        if there { Ok(()) } else { Err(unknown_run(&name)) }
    }
}

pub(super) fn unknown_run(name: &str) -> TrackingError {
    TrackingError::not_found(format!("run `{name}` not found"))
}
