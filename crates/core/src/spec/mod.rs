//! `tidemill.yaml`: one model's whole life, declared. The JSON Schema for editors is generated from these types.

mod device;
mod endpoint;
mod graphs;
mod load;
mod routing;
mod serving;
mod span;
mod training;

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use device::{Device, NoDevice};
pub use endpoint::{
    DefaultAnswer, EndpointSpec, FallbackStep, InputSpec, LogDurability, LogFailure, LogSpec, NullPolicy,
    RuleAnswer, TextPolicy, UnseenPolicy,
};
pub use graphs::{
    ArgmaxSpec, BoundsSpec, ColumnStatistics, Combine, DetectorSpec, EnsembleNode, ExplainMethod,
    ExplainNode, GraphInputSpec, GraphSpec, ModelNode, NodeSpec, OutlierMethod, OutlierNode, Reference,
    ScaleSpec, SoftmaxSpec, SplitterNode, SwitchCase, SwitchNode, ThresholdSpec, TransformStep, cholesky,
};
pub use load::{SpecError, json_schema, load, load_graph, parse};
pub use routing::{
    BanditSpec, BreakerSpec, ConditionSpec, FallbackSpec, Finding, RoutingSpec, RuleSpec, ShadowCopySpec,
    SourceSpec,
};
pub use serving::{
    BatchingSpec, CacheSpec, CallLogSpec, QueueSpec, RateLimitSpec, ScalingSpec, ServingSpec, VersionPolicy,
    WarmupSpec, WorkerSpec,
};
pub use span::{Span, SpanError};
pub use training::{SweepMethod, SweepSpec, TrainingSpec};

use crate::frame::{Feature, FeatureKind, FeatureSchema, Task};

/// One model's whole life.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The name of the project, its registered model and its endpoint: letters, digits, `-` and `_`.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where the history is.
    pub data: DataSpec,
    /// What is to be predicted.
    pub label: LabelSpec,
    /// The model's inputs by name, known at the time of prediction.
    pub features: IndexMap<String, FeatureKind>,
    /// What must hold of the data before anything is trained on it.
    #[serde(default)]
    pub expectations: Expectations,
    /// How a model is trained.
    #[serde(default)]
    pub training: TrainingSpec,
    /// How a model is measured.
    #[serde(default)]
    pub evaluation: EvaluationSpec,
    /// What a challenger must pass before it may see traffic. Default: not inferior to the champion on the first metric.
    #[serde(default)]
    pub gates: Vec<GateSpec>,
    /// How the model is served.
    #[serde(default)]
    pub endpoint: EndpointSpec,
    /// Graphs of deployments, each served under its name: pre- and post-processing, ensembles, switches, outliers, explanations.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub graphs: IndexMap<String, GraphSpec>,
    /// How a new version takes over.
    #[serde(default)]
    pub rollout: RolloutSpec,
    /// What is watched.
    #[serde(default)]
    pub monitors: MonitorsSpec,
    /// What starts a retraining.
    #[serde(default)]
    pub triggers: Vec<TriggerSpec>,
    /// After a retraining, drift, performance, data and label triggers stay quiet for this long.
    #[serde(default = "default_cooldown")]
    pub cooldown: Span,
}

fn default_cooldown() -> Span {
    Span::days(7)
}

/// Where the history is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// A file, a folder or a glob, relative to the spec: Parquet, CSV or JSON lines, told by the ending.
    pub source: String,
    /// The format, where the ending does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<DataFormat>,
    /// The column that says when each row was (or would have been) predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The column that identifies a row or its entity: it keeps a unit on one version during a canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A file format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataFormat {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// What is to be predicted.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelSpec {
    /// The label's name, used in feedback.
    pub name: String,
    /// An SQL expression over the source's columns, such as `arr_delay > 30`; null where the truth is not known. Default: the column
    /// called like the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// An SQL expression for the time at which the label became known. Default: the time column plus nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_at: Option<String>,
    /// How long after a prediction its label is waited for; only predictions older than this are judged.
    #[serde(default = "default_horizon")]
    pub horizon: Span,
    /// Which question the label answers.
    pub task: Task,
    /// A prediction without a label at its horizon: missing (not counted), or negative (binary only).
    #[serde(default)]
    pub on_timeout: OnTimeout,
}

fn default_horizon() -> Span {
    Span::DAY
}

/// What a prediction without a label at its horizon means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// Nothing: it is not counted.
    #[default]
    Missing,
    /// The answer was no.
    Negative,
}

/// What must hold of the data.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// A Great Expectations 1.x suite file, relative to the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<PathBuf>,
    /// Expectations written here, in the suite file's own shape.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<ExpectationSpec>,
}

/// One expectation, as Great Expectations writes it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ExpectationSpec {
    /// Such as `expect_column_values_to_not_be_null`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its parameters, such as `column`, `min_value`, `mostly`.
    #[serde(default)]
    pub kwargs: serde_json::Map<String, serde_json::Value>,
    /// What a failure means.
    #[serde(default)]
    pub severity: Severity,
    /// Anything; carried along.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub meta: serde_json::Map<String, serde_json::Value>,
}

/// What a failed expectation means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth looking at.
    Warning,
    /// The snapshot is quarantined.
    #[default]
    Critical,
}

/// A measure of a model's quality.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Area under the ROC curve (binary); macro one-against-rest (multiclass). Higher is better.
    Auc,
    /// Mean negative log likelihood. Lower is better.
    LogLoss,
    /// Mean squared error of the probabilities. Lower is better.
    Brier,
    /// Expected calibration error over 15 bins (binary). Lower is better.
    Ece,
    /// Share of right answers. Higher is better.
    Accuracy,
    /// Harmonic mean of precision and recall; macro for several classes. Higher is better.
    F1,
    /// Mean absolute error. Lower is better.
    Mae,
    /// Root mean squared error. Lower is better.
    Rmse,
    /// Share of variance explained. Higher is better.
    R2,
}

impl Metric {
    /// Whether a larger number is a better model.
    pub fn higher_is_better(self) -> bool {
        matches!(self, Self::Auc | Self::Accuracy | Self::F1 | Self::R2)
    }

    /// Whether the metric makes sense for the task.
    pub fn fits(self, task: Task) -> bool {
        match self {
            Self::Auc | Self::LogLoss | Self::Brier | Self::Accuracy | Self::F1 => task != Task::Regression,
            Self::Ece => task == Task::Binary,
            Self::Mae | Self::Rmse | Self::R2 => task == Task::Regression,
        }
    }

    /// The name as in the spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auc => "auc",
            Self::LogLoss => "log_loss",
            Self::Brier => "brier",
            Self::Ece => "ece",
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::Mae => "mae",
            Self::Rmse => "rmse",
            Self::R2 => "r2",
        }
    }

    /// The metrics of a task, the leading one first.
    pub fn of(task: Task) -> &'static [Self] {
        match task {
            Task::Binary => &[
                Self::Auc,
                Self::LogLoss,
                Self::Brier,
                Self::Ece,
                Self::Accuracy,
                Self::F1,
            ],
            Task::Multiclass => &[Self::LogLoss, Self::Accuracy, Self::Auc, Self::F1, Self::Brier],
            Task::Regression => &[Self::Rmse, Self::Mae, Self::R2],
        }
    }
}

/// How a model is measured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationSpec {
    /// The latest rows of this length are held out of training; where there is no time column, `holdout_share` counts.
    pub holdout: Span,
    /// The share of rows held out where there is no time column, or where `holdout` would leave less than half for training.
    pub holdout_share: f64,
    /// What to measure, the leading metric first. Default: all of the task's.
    pub metrics: Vec<Metric>,
}

impl Default for EvaluationSpec {
    fn default() -> Self {
        Self {
            holdout: Span::days(14),
            holdout_share: 0.2,
            metrics: Vec::new(),
        }
    }
}

/// What a challenger must pass: either no worse than the champion on the same rows, or within fixed bounds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateSpec {
    /// What is compared.
    pub metric: Metric,
    /// Paired with the champion: how much worse the challenger may be, in the metric's units. AUC uses DeLong's paired test, mean losses
    /// a paired mean, the rest a paired bootstrap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// The confidence of the one-sided bounds.
    #[serde(default = "default_confidence")]
    pub confidence: f64,
    /// AUC only: rows within one stretch of this length count as one observation (clustered DeLong), for data whose rows share
    /// something, such as a day's weather. Default: every row counts by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Span>,
    /// A smallest value, whatever the champion does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// A largest value, whatever the champion does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

fn default_confidence() -> f64 {
    0.95
}

/// How a new version takes over: shadow, then canary in steps, then champion.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutSpec {
    /// Answers nobody, is compared on the same rows.
    pub shadow: ShadowSpec,
    /// Answers a growing share.
    pub canary: CanarySpec,
    /// Harm is called, and the version rolled back, when its evidence (an e-value) reaches `1/harm_alpha`.
    pub harm_alpha: f64,
    /// A step is passed when the evidence of non-inferiority reaches `1/advance_alpha`.
    pub advance_alpha: f64,
    /// How much worse the challenger's mean loss (Brier for classes, absolute error over the label's range for numbers) may be.
    pub loss_margin: f64,
    /// How many times the champion's error rate the canary's may be.
    pub error_ratio: f64,
    /// Undecided after this long: what `on_timeout` says.
    pub max_duration: Span,
    /// What an undecided rollout becomes.
    pub on_timeout: RolloutTimeout,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            shadow: ShadowSpec::default(),
            canary: CanarySpec::default(),
            harm_alpha: 0.01,
            advance_alpha: 0.05,
            loss_margin: 0.01,
            error_ratio: 2.0,
            max_duration: Span::days(28),
            on_timeout: RolloutTimeout::default(),
        }
    }
}

/// What an undecided rollout becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutTimeout {
    /// Stays where it is until a person decides.
    Hold,
    /// Is taken back.
    #[default]
    Rollback,
}

/// The shadow stage.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ShadowSpec {
    /// At least so long.
    pub duration: Span,
    /// At least so many labelled pairs.
    pub min_labels: u64,
}

impl Default for ShadowSpec {
    fn default() -> Self {
        Self {
            duration: Span::days(3),
            min_labels: 500,
        }
    }
}

/// The canary stage.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CanarySpec {
    /// The shares of traffic, in per cent, one step after the other.
    pub steps: Vec<f64>,
    /// At least so long at each step.
    pub dwell: Span,
    /// At least so many requests answered by the canary at each step.
    pub min_predictions: u64,
}

impl Default for CanarySpec {
    fn default() -> Self {
        Self {
            steps: vec![10.0, 50.0],
            dwell: Span::DAY,
            min_predictions: 50,
        }
    }
}

/// What is watched.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MonitorsSpec {
    /// How often a window closes and is judged.
    pub every: Span,
    /// Nulls, ranges and new categories of the inputs.
    pub quality: QualityMonitor,
    /// The distribution of inputs and predictions against the champion's training snapshot.
    pub drift: DriftMonitor,
    /// Quality on matured labels.
    pub performance: PerformanceMonitor,
    /// What predictions were worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeMonitor>,
}

impl Default for MonitorsSpec {
    fn default() -> Self {
        Self {
            every: Span::DAY,
            quality: QualityMonitor::default(),
            drift: DriftMonitor::default(),
            performance: PerformanceMonitor::default(),
            outcome: None,
        }
    }
}

/// Nulls, ranges and new categories of the inputs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QualityMonitor {
    /// Alert when the share of nulls of a feature exceeds the training snapshot's by this much.
    pub max_null_increase: f64,
    /// Alert when more than this share of a feature's values lies outside the training snapshot's range or categories.
    pub max_unseen: f64,
    /// Windows with fewer rows are not judged.
    pub min_rows: u64,
}

impl Default for QualityMonitor {
    fn default() -> Self {
        Self {
            max_null_increase: 0.2,
            max_unseen: 0.2,
            min_rows: 100,
        }
    }
}

/// A measure of distance between two distributions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftMethod {
    /// Population stability index over the reference's deciles.
    Psi,
    /// Jensen–Shannon distance, natural logarithm.
    JensenShannon,
    /// Wasserstein distance over the reference's standard deviation (numeric only).
    Wasserstein,
    /// Kolmogorov–Smirnov statistic (numeric only).
    Ks,
}

/// The distribution of inputs and predictions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DriftMonitor {
    /// The method that decides; the others are computed and shown too.
    pub method: DriftMethod,
    /// A feature has drifted at or above this.
    pub threshold: f64,
    /// Another threshold for some features.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub thresholds: IndexMap<String, f64>,
    /// Alert when this share of the features has drifted.
    pub share: f64,
    /// How much traffic is compared: the latest of this length.
    pub window: Span,
    /// Windows with fewer rows are not judged.
    pub min_rows: u64,
}

impl Default for DriftMonitor {
    fn default() -> Self {
        Self {
            method: DriftMethod::Psi,
            threshold: 0.2,
            thresholds: IndexMap::new(),
            share: 0.3,
            window: Span::days(7),
            min_rows: 200,
        }
    }
}

/// Quality on matured labels.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PerformanceMonitor {
    /// What is watched. Default: the first evaluation metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// How much traffic is judged: the latest matured of this length.
    pub window: Span,
    /// Alert when the metric is worse than at evaluation by more than this, beyond its sampling error.
    pub max_drop: f64,
    /// Windows with fewer labels are not judged.
    pub min_labels: u64,
}

impl Default for PerformanceMonitor {
    fn default() -> Self {
        Self {
            metric: None,
            window: Span::days(7),
            max_drop: 0.05,
            min_labels: 200,
        }
    }
}

/// What predictions were worth: a value for each cell of the confusion matrix (binary).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutcomeMonitor {
    /// The business metric's name.
    pub name: String,
    /// The score from which on the answer counts as yes.
    #[serde(default = "half")]
    pub threshold: f64,
    /// Worth of a yes that was right.
    #[serde(default)]
    pub true_positive: f64,
    /// Worth of a yes that was wrong.
    #[serde(default)]
    pub false_positive: f64,
    /// Worth of a no that was wrong.
    #[serde(default)]
    pub false_negative: f64,
    /// Worth of a no that was right.
    #[serde(default)]
    pub true_negative: f64,
}

fn half() -> f64 {
    0.5
}

/// What starts a retraining. (`manual` is always there: `tidemill train`.)
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TriggerSpec {
    /// Which event.
    pub on: TriggerKind,
    /// `cron` only: minute, hour, day of month, month, day of week, in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// `new_labels` only: so many since the last training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// An event that starts a retraining.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerKind {
    /// By hand, only.
    Manual,
    /// At fixed times.
    Cron,
    /// A drift alert.
    Drift,
    /// A performance alert.
    Performance,
    /// The source has new files.
    NewData,
    /// Enough new labels.
    NewLabels,
}

impl Spec {
    /// The model's inputs, in the spec's order.
    pub fn feature_schema(&self) -> FeatureSchema {
        FeatureSchema {
            features: self
                .features
                .iter()
                .map(|(name, kind)| Feature {
                    name: name.clone(),
                    kind: *kind,
                })
                .collect(),
        }
    }

    /// The label as an SQL expression over the source's columns.
    pub fn label_expression(&self) -> String {
        self.label
            .expression
            .clone()
            .unwrap_or_else(|| format!("\"{}\"", self.label.name.replace('"', "\"\"")))
    }

    /// What is measured, the leading metric first.
    pub fn metrics(&self) -> Vec<Metric> {
        if self.evaluation.metrics.is_empty() {
            Metric::of(self.label.task).to_vec()
        } else {
            self.evaluation.metrics.clone()
        }
    }

    /// The gates; without any in the spec, the leading metric with a margin of 0.01, or of 0 where its unit is the label's own (then the
    /// challenger has to be shown better).
    pub fn effective_gates(&self) -> Vec<GateSpec> {
        if !self.gates.is_empty() {
            return self.gates.clone();
        }
        let metric = self.metrics().first().copied().unwrap_or(Metric::LogLoss);
        vec![GateSpec {
            metric,
            margin: Some(if matches!(metric, Metric::Mae | Metric::Rmse) {
                0.0
            } else {
                0.01
            }),
            confidence: default_confidence(),
            cluster: None,
            min: None,
            max: None,
        }]
    }
}
