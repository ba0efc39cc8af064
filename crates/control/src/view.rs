//! What the API, the CLI and the page show: plain serialisable answers, assembled from the store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, ModelName, PredictionId, RunId, VersionNumber};
use tidemill_core::predictions::LabelValue;
use tidemill_core::spec::Span;

/// The server at a glance.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// Tidemill's version.
    pub version: String,
    /// The project's name.
    pub project: String,
    /// What the server's clock shows.
    pub now: Timestamp,
    /// The clock is moved by a replay.
    pub virtual_clock: bool,
    /// Predictions logged.
    pub predictions: u64,
    /// Labels received, corrections included.
    pub labels: u64,
    /// Labels whose prediction has not come (yet).
    pub unmatched_labels: u64,
    /// Resident memory of the server, MiB.
    pub rss_mb: f64,
    /// Largest resident memory of the server so far, MiB.
    pub peak_rss_mb: f64,
    /// What is served.
    pub endpoints: Vec<EndpointStatus>,
    /// Runs that are queued or running.
    pub open_runs: u64,
    /// Alerts not yet acted upon.
    pub open_alerts: u64,
}

/// An endpoint at a glance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Its name.
    pub name: EndpointName,
    /// The model behind it.
    pub model: ModelName,
    /// The version in charge.
    pub champion: Option<VersionNumber>,
    /// What took over from.
    pub previous: Option<VersionNumber>,
    /// The first version, kept as a shadow.
    pub baseline: Option<VersionNumber>,
    /// The version under canary and its share, 0 to 1.
    pub canary: Option<(VersionNumber, f64)>,
    /// Versions that shadow.
    pub shadows: Vec<VersionNumber>,
    /// The state of the rollout under way, with its target version.
    pub rollout: Option<(String, VersionNumber)>,
    /// When it first answered.
    pub first_served_at: Option<Timestamp>,
}

/// A piece of feedback as a client sends it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedbackInput {
    /// About which prediction.
    pub prediction_id: PredictionId,
    /// Which label; default: the project's.
    #[serde(default)]
    pub label: Option<String>,
    /// What was true.
    pub value: LabelValue,
    /// When it became true; default: now.
    #[serde(default)]
    pub event_time: Option<Timestamp>,
    /// Who says so; default `api`.
    #[serde(default)]
    pub source: Option<String>,
    /// The client's own key: the same key with the same body is stored once.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// `ground_truth` (default), `human`, `proxy`, `weak` or `implicit`.
    #[serde(default)]
    pub kind: Option<String>,
    /// Takes an earlier statement back.
    #[serde(default)]
    pub retracted: bool,
}

/// What became of a piece of feedback.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FeedbackOutcome {
    /// About which prediction.
    pub prediction_id: PredictionId,
    /// The id under which it is stored.
    pub feedback_id: String,
    /// `created`, `repeated` (stored before), `corrected` (a new value) or `conflict` (same key, other body: not stored).
    pub outcome: String,
    /// The prediction is known; otherwise the label waits for it.
    pub joined: bool,
}

/// One month of an endpoint's life.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Month {
    /// `2013-05`.
    pub month: String,
    /// Predictions served.
    pub predictions: u64,
    /// Of these, labelled.
    pub labels: u64,
    /// What the first version would have reached on the leading metric (the default answer before there was one).
    #[serde(rename = "auc_frozen")]
    pub frozen: Option<f64>,
    /// What was reached by the answers as served.
    #[serde(rename = "auc_champion")]
    pub champion: Option<f64>,
    /// Training runs that ended in a model.
    pub retrainings: u64,
    /// Challengers that the gate refused.
    pub refused: u64,
    /// Challengers on which the gate could not decide.
    pub inconclusive: u64,
    /// Versions that became champion.
    pub promoted: u64,
    /// Rollouts taken back.
    pub rolled_back: u64,
    /// What the predictions were worth, by the spec's outcome metric.
    pub outcome: Option<f64>,
}

/// A point of the performance curve: a window of matured predictions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PerformancePoint {
    /// The window's end.
    pub until: Timestamp,
    /// The leading metric of the answers as served.
    pub champion: Option<f64>,
    /// The same of the first version.
    pub frozen: Option<f64>,
    /// Labelled predictions in the window.
    pub labels: u64,
    /// The champion when the window closed.
    pub version: VersionNumber,
}

/// A point of the drift curves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DriftPoint {
    /// The window's end.
    pub until: Timestamp,
    /// The deciding method's score by feature; `prediction` is the champion's score.
    pub features: BTreeMap<String, f64>,
    /// Share of features at or above their threshold.
    pub share: f64,
    /// `ok`, `alert` or `insufficient`.
    pub state: String,
}

/// Something that happened, for the timeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TimelineEvent {
    /// Its number in the event log.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// Such as `alert.raised`, `run.started`, `gate.refused`, `rollout.canary`, `version.promoted`.
    pub kind: String,
    /// One line for people.
    pub text: String,
    /// The noun it is about, such as `run` or `rollout`, and its id.
    pub subject: (String, String),
}

/// An endpoint's whole life, as the page shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Timeline {
    /// Which endpoint.
    pub endpoint: EndpointName,
    /// The leading metric's name, such as `auc`.
    pub metric: String,
    /// Whether a larger number is better.
    pub higher_is_better: bool,
    /// The drift method that decides, its threshold, and the share of features that raises an alert.
    pub drift_method: (String, f64, f64),
    /// The length of a performance window.
    pub performance_window: Span,
    /// Month by month.
    pub months: Vec<Month>,
    /// Window by window.
    pub performance: Vec<PerformancePoint>,
    /// Window by window.
    pub drift: Vec<DriftPoint>,
    /// Alerts, runs, gates, rollouts, promotions.
    pub events: Vec<TimelineEvent>,
}

/// From a prediction to everything that led to it, and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lineage {
    /// Which prediction.
    pub prediction_id: PredictionId,
    /// Endpoint, time, answer, role, features as served, shadows.
    pub prediction: serde_json::Value,
    /// The version that answered, with its metrics and signature; null for the default answer.
    pub version: Option<serde_json::Value>,
    /// The run that trained it: trigger, parameters, seed, key, steps.
    pub run: Option<serde_json::Value>,
    /// The digests of code and environment lock.
    pub code: Option<serde_json::Value>,
    /// The snapshot that it was trained on: digest, rows, origin, time range.
    pub snapshot: Option<serde_json::Value>,
    /// That snapshot's validation result.
    pub validation: Option<serde_json::Value>,
    /// What is known of the truth: all statements, the latest last.
    pub labels: Vec<serde_json::Value>,
    /// The gate and rollout decisions about the version.
    pub decisions: Vec<serde_json::Value>,
    /// The training snapshots that hold this prediction's label, and so the versions that learnt from it.
    pub used_by: Vec<serde_json::Value>,
}

/// What re-training a version gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reproduction {
    /// Which model.
    pub model: ModelName,
    /// Which version.
    pub version: VersionNumber,
    /// The run that trained it.
    pub run: RunId,
    /// Every digest that was compared: name, recorded, found again.
    pub digests: Vec<(String, String, String)>,
    /// All are equal.
    pub identical: bool,
}
