//! Whom to tell of what happens to runs and models, beyond MLflow's webhooks.
//!
//! What is told is written to the webhooks' outbox in the transaction in which it happens ([`fire`], [`fire_metrics`]), and sent from
//! there with the webhooks.

mod filter;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_core::clock::{Clock as _, WallClock};
use tidemill_core::ids;
use tidemill_store::automations::{self as stored, Automation};
use tidemill_store::models::{self, AliasChange};
use tidemill_store::tracking::metrics::{self, NewMetric, Point};
use tidemill_store::tracking::runs::RunKey;
use tidemill_store::webhooks as outbox;
use tidemill_store::{StoreError, Tx};

use super::webhooks::{check_name, delivery_id};
use super::{Caller, DEFAULT_WORKSPACE, Result, Tracking, TrackingError};

pub(crate) use filter::Facts;
pub use filter::{Event, Filter, Op};

/// The most automations of a workspace.
const MOST: usize = 500;

/// What a client says of an automation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAutomation {
    /// For people.
    pub name: String,
    /// What it waits for.
    pub on: On,
    /// What is done then.
    pub r#do: Do,
}

/// What an automation waits for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct On {
    /// What happens.
    pub event: Event,
    /// To which things.
    #[serde(default)]
    pub filter: Filter,
}

/// What is done.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Do {
    /// Who is told.
    pub webhook: Receiver,
}

/// Who is told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receiver {
    /// Where to send.
    pub url: String,
    /// Signs what is sent.
    pub secret: Option<String>,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Which events any automation waits for, as far as this process knows: so that logging asks the store only where there is one.
/// What was waited for once counts until the next start; the store is asked then, and knows better.
#[derive(Debug, Default)]
pub(super) struct Awaited(AtomicU8);

impl Awaited {
    const fn bit(event: Event) -> u8 {
        1 << event as u8
    }

    fn add(&self, event: Event) {
        self.0.fetch_or(Self::bit(event), Ordering::Relaxed);
    }

    fn is(&self, event: Event) -> bool {
        self.0.load(Ordering::Relaxed) & Self::bit(event) != 0
    }
}

impl Tracking {
    /// Looks at the start which events are waited for.
    pub(super) fn read_automations(&self) {
        let found = self.store().read_blocking(stored::events);
        for event in Event::ALL {
            // Where the store does not answer it is asked again at every event.
            if found
                .as_ref()
                .map_or(true, |found| found.iter().any(|name| name == event.name()))
            {
                self.awaited().add(event);
            }
        }
    }

    /// Whether an automation may wait for an event.
    pub(super) fn awaits(&self, event: Event) -> bool {
        self.awaited().is(event)
    }

    /// Creates an automation.
    pub async fn create_automation(&self, caller: &Caller, new: NewAutomation) -> Result<Automation> {
        let NewAutomation { name, on, r#do } = new;
        check_name(&name)?;
        on.filter.check(on.event)?;
        self.check_url(&r#do.webhook.url).await?;
        let filter = serde_json::to_string(&on.filter)
            .map_err(|error| TrackingError::invalid(format!("the filter cannot be kept: {error}")))?;
        let id = ids::fresh(WallClock.now());
        let secret = r#do.webhook.secret.filter(|secret| !secret.is_empty());
        let secret = secret.map(|secret| self.sealed(&id, &secret)).transpose()?;
        let automation = Automation {
            id,
            workspace: caller.workspace.clone(),
            name,
            event: on.event.name().to_owned(),
            filter,
            url: r#do.webhook.url,
            secret,
            created_at: self.now(),
        };
        // Before it is stored, so that nothing is missed after.
        self.awaited().add(on.event);
        self.change(move |tx| {
            if stored::list(tx, &automation.workspace)?.len() >= MOST {
                return Err(TrackingError::invalid(format!(
                    "a workspace has at most {MOST} automations: delete one first"
                )));
            }
            stored::insert(tx, &automation)?;
            Ok(automation)
        })
        .await
    }

    /// The automations of a workspace, latest first.
    pub async fn list_automations(&self, caller: &Caller) -> Result<Vec<Automation>> {
        let workspace = caller.workspace.clone();
        self.look(move |tx| Ok(stored::list(tx, &workspace)?)).await
    }

    /// Removes an automation, and what was still to be sent for it.
    pub async fn delete_automation(&self, caller: &Caller, id: String) -> Result<()> {
        let workspace = caller.workspace.clone();
        self.change(move |tx| {
            if stored::delete(tx, &workspace, &id)? {
                return Ok(());
            }
            Err(TrackingError::not_found(format!("there is no automation `{id}`")))
        })
        .await
    }
}

fn filter_of(automation: &Automation) -> Filter {
    // Written by us; what cannot be read any more waits for nothing.
    serde_json::from_str(&automation.filter).unwrap_or_else(|error| {
        tracing::error!(id = automation.id, %error, "the filter of an automation cannot be read");
        Filter {
            model: Some(String::new()),
            experiment_id: Some(String::new()),
            ..Filter::default()
        }
    })
}

fn enqueue(tx: &mut Tx<'_>, automation: &Automation, data: &Value) -> std::result::Result<(), StoreError> {
    let now = WallClock.now();
    let body = json!({
        "event": automation.event,
        "automation": { "id": automation.id, "name": automation.name },
        "workspace": automation.workspace,
        "timestamp": now.to_string(),
        "data": data,
    });
    let (id, event) = (&automation.id, &automation.event);
    outbox::enqueue(tx, id, &delivery_id(now), event, &body.to_string(), now)
}

/// Tells those who wait for it of what happens in this transaction.
pub(crate) fn fire(
    tx: &mut Tx<'_>,
    workspace: &str,
    event: Event,
    facts: &Facts<'_>,
    data: &Value,
) -> std::result::Result<(), StoreError> {
    for automation in stored::of_event(tx, workspace, event.name())? {
        if filter_of(&automation).fits(facts) {
            enqueue(tx, &automation, data)?;
        }
    }
    Ok(())
}

/// Tells those who wait for it of metrics that come over a threshold. To be called before the points are logged.
pub(crate) fn fire_metrics(
    tx: &mut Tx<'_>,
    workspace: &str,
    (run, run_id): (RunKey, &str),
    logged: &[NewMetric],
) -> std::result::Result<(), StoreError> {
    let awaiting = stored::of_event(tx, workspace, Event::MetricThreshold.name())?;
    if awaiting.is_empty() {
        return Ok(());
    }
    let mut points: BTreeMap<&str, Vec<Point>> = BTreeMap::new();
    for metric in logged {
        points.entry(metric.key.as_str()).or_default().push(metric.point);
    }
    let experiment_id = run.experiment.to_string();
    let mut latest: BTreeMap<String, Option<Point>> = BTreeMap::new();
    for automation in awaiting {
        let filter = filter_of(&automation);
        let Some((name, op, threshold)) = filter.threshold() else {
            continue;
        };
        let facts = Facts {
            experiment_id: Some(&experiment_id),
            metric: Some(name),
            ..Facts::default()
        };
        let Some(points) = points.get(name).filter(|_| filter.fits(&facts)) else {
            continue;
        };
        let before = match latest.get(name) {
            Some(before) => *before,
            None => {
                let before = metrics::latest(tx, run.number, name)?;
                latest.insert(name.to_owned(), before);
                before
            }
        };
        for point in filter.crossings(before.as_ref(), points) {
            let data = json!({
                "run_id": run_id, "experiment_id": experiment_id, "metric": name, "op": op, "threshold": threshold,
                "value": point.value, "step": point.step, "timestamp": point.at_ms,
            });
            enqueue(tx, &automation, &data)?;
        }
    }
    Ok(())
}

/// Tells those who wait for it that a run has ended, in a status such as `FINISHED`.
pub(crate) fn fire_finished(
    tx: &mut Tx<'_>,
    workspace: &str,
    (run, run_id): (RunKey, &str),
    status: &str,
    end_ms: Option<i64>,
) -> std::result::Result<(), StoreError> {
    let experiment_id = run.experiment.to_string();
    let facts = Facts {
        experiment_id: Some(&experiment_id),
        status: Some(status),
        ..Facts::default()
    };
    let data = json!({
        "run_id": run_id, "experiment_id": experiment_id, "status": status, "end_time": end_ms,
    });
    fire(tx, workspace, Event::RunFinished, &facts, &data)
}

/// Tells those who wait for it of tags of a run.
pub(crate) fn fire_run_tags(
    tx: &mut Tx<'_>,
    workspace: &str,
    (run, run_id): (RunKey, &str),
    tags: &[(String, String)],
) -> std::result::Result<(), StoreError> {
    let experiment_id = run.experiment.to_string();
    for (key, value) in tags {
        let facts = Facts {
            experiment_id: Some(&experiment_id),
            tag: Some(key),
            value: Some(value),
            ..Facts::default()
        };
        let data = json!({
            "of": "run", "run_id": run_id, "experiment_id": experiment_id, "key": key, "value": value,
        });
        fire(tx, workspace, Event::TagSet, &facts, &data)?;
    }
    Ok(())
}

/// Points an alias of a model that the loop serves, and tells those who wait for it.
pub(crate) fn set_alias(tx: &mut Tx<'_>, change: &AliasChange) -> std::result::Result<bool, StoreError> {
    let changed = models::set_alias(tx, change)?;
    if let (true, Some(version)) = (changed, change.version) {
        let (name, alias) = (change.model.as_str(), change.alias.as_str());
        let told = json!({
            "name": name, "alias": alias, "version": version.to_string(), "by": change.by, "reason": change.why,
        });
        fire_alias(tx, DEFAULT_WORKSPACE, (name, alias), &told)?;
    }
    Ok(changed)
}

/// Tells those who wait for it that an alias was pointed at a version.
pub(crate) fn fire_alias(
    tx: &mut Tx<'_>,
    workspace: &str,
    (model, alias): (&str, &str),
    data: &Value,
) -> std::result::Result<(), StoreError> {
    let facts = Facts {
        model: Some(model),
        alias: Some(alias),
        ..Facts::default()
    };
    fire(tx, workspace, Event::AliasSet, &facts, data)
}

/// Tells those who wait for it that a tag of a registered model, or of a version, was set.
pub(crate) fn fire_model_tag(
    tx: &mut Tx<'_>,
    workspace: &str,
    (model, version): (&str, Option<&str>),
    (key, value): (&str, &str),
) -> std::result::Result<(), StoreError> {
    let facts = Facts {
        model: Some(model),
        tag: Some(key),
        value: Some(value),
        ..Facts::default()
    };
    let mut data = json!({ "of": "registered_model", "name": model, "key": key, "value": value });
    if let Some(version) = version {
        data["of"] = json!("model_version");
        data["version"] = json!(version);
    }
    fire(tx, workspace, Event::TagSet, &facts, &data)
}
