//! The API's port onto the loop: each method is one call, each noun one query.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};
use tidemill_api::{ApiError, ControlPlane, ListQuery, Noun, SharedMemory};
use tidemill_control::batch::Jobs;
use tidemill_control::delivery::deployments::Deployments;
use tidemill_control::predictions::{Prediction, Predictions, Replay};
use tidemill_control::tracking::Tracking;
use tidemill_control::{Control, view};
use tidemill_core::clock::{Clock, Timestamp};
use tidemill_core::ids::{
    AlertId, DecisionId, EndpointName, ModelName, PredictionId, RolloutId, RunId, VersionNumber,
};
use tidemill_store::events::Event;
use tidemill_store::{
    ReadTx, Store, StoreError, alerts, decisions, endpoints, events, models, rollouts, runs, snapshots,
    specs, windows,
};
use tokio::sync::broadcast;

/// The house as the API sees it. Without a project there is tracking and registry, but no loop.
#[derive(Clone)]
pub struct Plane {
    control: Option<Control>,
    tracking: Tracking,
    deployments: Deployments,
    predictions: Predictions,
    batch_jobs: Jobs,
    serving: Arc<tidemill_serving::Server>,
    clock: Arc<dyn Clock>,
    shared_memory: Option<Arc<SharedMemory>>,
}

impl Plane {
    /// With the loop of a project.
    pub fn new(control: Control, tracking: Tracking, deployments: Deployments, batch_jobs: Jobs) -> Self {
        Self {
            serving: Arc::clone(control.serving()),
            clock: Arc::clone(control.clock()),
            predictions: control.predictions().clone(),
            control: Some(control),
            tracking,
            deployments,
            batch_jobs,
            shared_memory: None,
        }
    }

    /// With tracking and registry alone.
    pub fn without_project(
        tracking: Tracking,
        deployments: Deployments,
        predictions: Predictions,
        batch_jobs: Jobs,
        serving: Arc<tidemill_serving::Server>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            control: None,
            tracking,
            deployments,
            predictions,
            batch_jobs,
            serving,
            clock,
            shared_memory: None,
        }
    }

    /// The same, letting clients hand tensors over by shared memory or not.
    pub fn sharing_memory(mut self, allowed: bool) -> Self {
        self.shared_memory = allowed.then(Arc::default);
        self
    }

    fn control(&self) -> Result<&Control, ApiError> {
        self.control.as_ref().ok_or_else(no_project)
    }

    /// The prediction log.
    pub fn log(&self) -> &Predictions {
        &self.predictions
    }

    fn store(&self) -> &Store {
        self.tracking.store()
    }

    async fn read(
        &self,
        query: impl FnOnce(&ReadTx<'_>) -> Result<Value, StoreError> + Send + 'static,
    ) -> Result<Value, ApiError> {
        Ok(self.store().read(query).await?)
    }
}

fn no_project() -> ApiError {
    ApiError::not_found(
        "no_project",
        "this server was started without a project, so it has no loop: start it in a folder with a `tidemill.yaml`, \
         or name one with `--project`",
    )
}

fn to_json(value: impl Serialize) -> Result<Value, StoreError> {
    serde_json::to_value(value).map_err(|e| StoreError::Unreadable {
        what: "an answer".into(),
        message: e.to_string(),
    })
}

/// Each change of an alias with the version before it, oldest first.
fn history_of(changes: Vec<models::AliasChange>) -> Value {
    let mut current: std::collections::HashMap<String, Option<VersionNumber>> =
        std::collections::HashMap::new();
    changes
        .into_iter()
        .map(|change| {
            let from = current.insert(change.alias.clone(), change.version).flatten();
            json!({
                "at": change.at, "alias": change.alias, "from": from, "to": change.version,
                "actor": change.by, "reason": change.why, "decision": change.decision,
            })
        })
        .collect()
}

#[async_trait]
impl ControlPlane for Plane {
    async fn status(&self) -> Result<view::Status, ApiError> {
        if let Some(control) = &self.control {
            return control.status().await.map_err(ApiError::from);
        }
        Ok(view::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: self.clock.now(),
            virtual_clock: self.clock.as_virtual().is_some(),
            ..view::Status::default()
        })
    }

    async fn timeline(&self, endpoint: &EndpointName) -> Result<view::Timeline, ApiError> {
        self.control()?.timeline(endpoint).await.map_err(ApiError::from)
    }

    async fn lineage(&self, id: &PredictionId) -> Result<view::Lineage, ApiError> {
        match &self.control {
            Some(control) => Ok(control.lineage(id).await?),
            None => match self.predictions.find(id).await? {
                Prediction::Call(call) => Ok(self.predictions.lineage_of_call(&call).await?),
                Prediction::Row(..) => Err(no_project()),
            },
        }
    }

    async fn prediction(&self, id: &PredictionId) -> Result<Value, ApiError> {
        Ok(self.predictions.find(id).await?.to_json())
    }

    async fn predictions(
        &self,
        endpoint: &EndpointName,
        since: Option<Timestamp>,
        limit: u32,
    ) -> Result<Value, ApiError> {
        let latest = self.predictions.latest(endpoint, since, limit as usize).await?;
        Ok(latest.iter().map(Prediction::to_json).collect())
    }

    async fn replay(&self, id: &PredictionId) -> Result<Replay, ApiError> {
        match self.predictions.find(id).await? {
            Prediction::Call(call) => {
                let hosting = self.serving.hosting();
                Ok(self.predictions.replay_call(hosting, &call).await?)
            }
            Prediction::Row(batch, row) => Ok(self.control()?.replay(&batch, row).await?),
        }
    }

    async fn record_feedback(
        &self,
        inputs: Vec<view::FeedbackInput>,
    ) -> Result<Vec<view::FeedbackOutcome>, ApiError> {
        self.control()?
            .record_feedback(inputs)
            .await
            .map_err(ApiError::from)
    }

    async fn start_run(&self, reason: String) -> Result<RunId, ApiError> {
        self.control()?.start_run(&reason).await.map_err(ApiError::from)
    }

    async fn promote(
        &self,
        endpoint: &EndpointName,
        version: VersionNumber,
        why: String,
        by: String,
    ) -> Result<Value, ApiError> {
        self.control()?
            .promote(endpoint, version, &why, &by)
            .await
            .map_err(ApiError::from)
    }

    async fn rollback(&self, endpoint: &EndpointName, why: String, by: String) -> Result<Value, ApiError> {
        self.control()?
            .rollback(endpoint, &why, &by)
            .await
            .map_err(ApiError::from)
    }

    async fn advance(&self, to: Timestamp) -> Result<Timestamp, ApiError> {
        self.control()?.advance(to).await.map_err(ApiError::from)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn list(&self, noun: Noun, query: ListQuery) -> Result<Value, ApiError> {
        let limit = query.limit();
        let endpoint = query
            .endpoint
            .clone()
            .or_else(|| self.default_endpoint())
            .unwrap_or_else(|| "".into());
        let own = || self.control.as_ref().map(Control::model);
        let model = query.model.clone().or_else(own).unwrap_or_else(|| "".into());
        self.read(move |tx| match noun {
            Noun::Models => to_json(models::list_models(tx)?),
            Noun::Versions => to_json(models::list_versions(tx, &model)?),
            Noun::Aliases => to_json(models::list_aliases(tx, &model)?),
            Noun::History => to_json(models::history(tx, &model)?),
            Noun::Runs => to_json(runs::list(tx, limit, None)?),
            Noun::Snapshots => {
                let mut all = Vec::new();
                for dataset in snapshots::datasets(tx)? {
                    for row in snapshots::list(tx, &dataset)? {
                        // The manifest with its profiles is large; it is there under the snapshot's own address.
                        all.push(json!({
                            "digest": row.digest, "dataset": row.dataset, "rows": row.rows,
                            "created_at": row.created_at, "quarantined": row.quarantined,
                        }));
                    }
                }
                to_json(all)
            }
            Noun::Decisions => to_json(decisions::list(tx, query.kind.as_deref(), limit)?),
            Noun::Rollouts => to_json(rollouts::list(tx, &endpoint)?),
            Noun::Alerts => to_json(alerts::list(tx, Some(&endpoint), limit)?),
            Noun::Windows => {
                let since = query.since.unwrap_or_default();
                to_json(windows::list(
                    tx,
                    &endpoint,
                    query.monitor.as_deref(),
                    since,
                    limit,
                )?)
            }
            Noun::Endpoints => to_json(endpoints::list(tx)?),
            Noun::Spec => to_json(specs::list_current(tx)?),
        })
        .await
    }

    async fn get(&self, noun: Noun, id: &str) -> Result<Value, ApiError> {
        let id = id.to_owned();
        let name = self
            .control
            .as_ref()
            .map(|control| control.spec().name.clone())
            .unwrap_or_default();
        if noun == Noun::Runs {
            return self
                .control()?
                .run_detail(RunId::new(id))
                .await
                .map_err(ApiError::from);
        }
        if noun == Noun::Spec {
            return Ok(serde_json::to_value(&**self.control()?.spec()).unwrap_or_default());
        }
        self.read(move |tx| match noun {
            Noun::Models => {
                let model = ModelName::new(&id);
                let mut value = to_json(models::get_model(tx, &model)?)?;
                let aliases = models::list_aliases(tx, &model)?;
                value["aliases"] = aliases
                    .into_iter()
                    .map(|a| (a.alias, json!(a.version)))
                    .collect::<serde_json::Map<_, _>>()
                    .into();
                value["history"] = history_of(models::history(tx, &model)?);
                value["versions"] = to_json(models::list_versions(tx, &model)?)?;
                Ok(value)
            }
            Noun::Versions => {
                let (model, version) = id.rsplit_once('/').unwrap_or((&name, &id));
                let number = version
                    .parse()
                    .map_err(|_| StoreError::not_found("version", &id))?;
                to_json(models::get_version(
                    tx,
                    &ModelName::new(model),
                    VersionNumber(number),
                )?)
            }
            Noun::Aliases => to_json(models::list_aliases(tx, &ModelName::new(&id))?),
            Noun::History => to_json(models::history(tx, &ModelName::new(&id))?),
            Noun::Snapshots => {
                let digest = id.parse().map_err(|_| StoreError::not_found("snapshot", &id))?;
                to_json(snapshots::get(tx, &digest)?)
            }
            Noun::Decisions => to_json(decisions::get(tx, &DecisionId::new(&id))?),
            Noun::Rollouts => to_json(rollouts::get(tx, &RolloutId::new(&id))?),
            Noun::Alerts => to_json(alerts::get(tx, &AlertId::new(&id))?),
            Noun::Windows => Err(StoreError::not_found("window", &id)),
            Noun::Endpoints => to_json(endpoints::get(tx, &EndpointName::new(&id))?),
            Noun::Runs | Noun::Spec => Ok(Value::Null),
        })
        .await
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.store().events()
    }

    async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<Event>, ApiError> {
        Ok(self
            .store()
            .read(move |tx| events::list_after(tx, seq, limit, None))
            .await?)
    }

    fn ready(&self) -> bool {
        self.control.as_ref().is_none_or(Control::ready)
    }

    fn serving(&self) -> &Arc<tidemill_serving::Server> {
        &self.serving
    }

    fn shared_memory(&self) -> Option<&SharedMemory> {
        self.shared_memory.as_deref()
    }

    fn deployments(&self) -> &Deployments {
        &self.deployments
    }

    fn batch_jobs(&self) -> &Jobs {
        &self.batch_jobs
    }

    fn tracking(&self) -> &Tracking {
        &self.tracking
    }

    fn default_endpoint(&self) -> Option<EndpointName> {
        self.control.as_ref().map(Control::endpoint)
    }

    async fn usual_inputs(
        &self,
        endpoint: &EndpointName,
        version: VersionNumber,
    ) -> Result<BTreeMap<String, Value>, ApiError> {
        let Some(control) = self.control.as_ref() else {
            return Ok(BTreeMap::new());
        };
        if *endpoint != control.endpoint() {
            return Ok(BTreeMap::new());
        }
        control.usual_inputs(version).await.map_err(ApiError::from)
    }

    fn key_column(&self, endpoint: &EndpointName) -> Option<String> {
        let control = self.control.as_ref()?;
        if *endpoint != control.endpoint() {
            return None;
        }
        control.spec().data.key.clone()
    }
}
