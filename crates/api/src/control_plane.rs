//! What the API asks of the rest of the house: one object-safe port, so that its tests run on a fake.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_control::batch::Jobs;
use tidemill_control::delivery::deployments::Deployments;
use tidemill_control::predictions::Replay;
use tidemill_control::tracking::Tracking;
use tidemill_control::view;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, ModelName, PredictionId, RunId, VersionNumber};
use tidemill_store::events::Event;
use tokio::sync::broadcast;

use crate::error::ApiError;
use crate::infer::shared::SharedMemory;

/// The things that can be listed or looked up by id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noun {
    /// Registered models; the id is the model's name.
    Models,
    /// Model versions; listed by [`ListQuery::model`], the id is `name/number`.
    Versions,
    /// The aliases of [`ListQuery::model`].
    Aliases,
    /// Every change of an alias of [`ListQuery::model`].
    History,
    /// Pipeline runs.
    Runs,
    /// Snapshots; the id is the digest.
    Snapshots,
    /// Decision records.
    Decisions,
    /// Rollouts.
    Rollouts,
    /// Alerts.
    Alerts,
    /// Closed monitor windows.
    Windows,
    /// Endpoints; the id is the endpoint's name.
    Endpoints,
    /// The project's spec: [`ControlPlane::get`] with an empty id.
    Spec,
}

/// Which part of a list is wanted. What a noun does not know it ignores.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Of this endpoint only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointName>,
    /// Of this model only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// Of this monitor only, such as `drift`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
    /// Of this kind only, such as `gate` for decisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What comes after this id, for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// What happened at or after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// At most so many; [`ListQuery::DEFAULT_LIMIT`] where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl ListQuery {
    /// How many items a list has where nothing is said.
    pub const DEFAULT_LIMIT: u32 = 100;
    /// How many items a list has at most.
    pub const MAX_LIMIT: u32 = 10_000;

    /// How many items are wanted.
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(Self::DEFAULT_LIMIT)
    }
}

/// The rest of the house as the API sees it.
#[async_trait]
pub trait ControlPlane: Send + Sync + 'static {
    /// The server at a glance.
    async fn status(&self) -> Result<view::Status, ApiError>;
    /// An endpoint's whole life.
    async fn timeline(&self, endpoint: &EndpointName) -> Result<view::Timeline, ApiError>;
    /// Everything that led to a prediction and came of it.
    async fn lineage(&self, id: &PredictionId) -> Result<view::Lineage, ApiError>;
    /// What is recorded under an id.
    async fn prediction(&self, id: &PredictionId) -> Result<Value, ApiError>;
    /// The latest predictions of an endpoint or deployment, the newest first.
    async fn predictions(
        &self,
        endpoint: &EndpointName,
        since: Option<Timestamp>,
        limit: u32,
    ) -> Result<Value, ApiError>;
    /// Asks the version that answered again.
    async fn replay(&self, id: &PredictionId) -> Result<Replay, ApiError>;
    /// Stores what clients say of predictions; one outcome for each input, in order, durable on return.
    async fn record_feedback(
        &self,
        inputs: Vec<view::FeedbackInput>,
    ) -> Result<Vec<view::FeedbackOutcome>, ApiError>;
    /// Queues a run of the project's pipeline.
    async fn start_run(&self, reason: String) -> Result<RunId, ApiError>;
    /// Makes a version champion, by hand.
    async fn promote(
        &self,
        endpoint: &EndpointName,
        version: VersionNumber,
        why: String,
        by: String,
    ) -> Result<Value, ApiError>;
    /// Takes a rollout or the latest promotion back, by hand.
    async fn rollback(&self, endpoint: &EndpointName, why: String, by: String) -> Result<Value, ApiError>;
    /// Moves a virtual clock and returns what it then shows; an error on the machine's own clock.
    async fn advance(&self, to: Timestamp) -> Result<Timestamp, ApiError>;
    /// What the server's clock shows.
    fn now(&self) -> Timestamp;
    /// Lists a noun.
    async fn list(&self, noun: Noun, query: ListQuery) -> Result<Value, ApiError>;
    /// Looks one thing up.
    async fn get(&self, noun: Noun, id: &str) -> Result<Value, ApiError>;
    /// Events from now on, as they are committed.
    fn subscribe(&self) -> broadcast::Receiver<Event>;
    /// Stored events with a number above `seq`, oldest first.
    async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<Event>, ApiError>;
    /// Whether requests can be answered.
    fn ready(&self) -> bool;
    /// The hot path.
    fn serving(&self) -> &Arc<tidemill_serving::Server>;
    /// Bundles and registered models that answer under a name.
    fn deployments(&self) -> &Deployments;
    /// Files that are predicted into files, in the background.
    fn batch_jobs(&self) -> &Jobs;
    /// Shared memory of this machine that clients may hand tensors over by; `None` where the operator has not allowed it.
    fn shared_memory(&self) -> Option<&SharedMemory> {
        None
    }
    /// Experiments, runs, registry and artifacts.
    fn tracking(&self) -> &Tracking;
    /// The endpoint meant where a request names none.
    fn default_endpoint(&self) -> Option<EndpointName>;
    /// What each input of an endpoint usually is, from what a version was trained on: a median, the most frequent category. Nothing where
    /// that is not known.
    async fn usual_inputs(
        &self,
        _endpoint: &EndpointName,
        _version: VersionNumber,
    ) -> Result<BTreeMap<String, Value>, ApiError> {
        Ok(BTreeMap::new())
    }
    /// The column of a request that carries each row's key, which is no feature.
    fn key_column(&self, endpoint: &EndpointName) -> Option<String>;
}

/// The state of every handler.
pub(crate) type App = Arc<dyn ControlPlane>;
