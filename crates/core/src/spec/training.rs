//! `training`: how a model is trained, and the search before it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Metric, Span};

/// How a model is trained.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingSpec {
    /// A command of your own, run in the spec's folder, in place of the built-in gradient boosting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Files that the command depends on: their content is part of the run's key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub code: Vec<PathBuf>,
    /// A lock file of the command's environment, part of the run's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<PathBuf>,
    /// Parameters handed to the command.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub params: serde_json::Map<String, serde_json::Value>,
    /// Before each training, searches the parameters that do best on the latest rows of what is trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepSpec>,
    /// The command is stopped after this long.
    pub timeout: Span,
    /// How hard the built-in trainer searches, 0.01 to 3: more is slower and fits finer.
    pub budget: f64,
    /// The built-in trainer stops after so many rounds of boosting: a cap against overfitting where rows are not independent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iterations: Option<u32>,
    /// Makes training repeatable.
    pub seed: u64,
    /// Train on the latest rows of this length. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Span>,
    /// An endpoint without a model trains its first one once it has served (and labelled) for this long. Default: only on command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_after: Option<Span>,
    /// Fewer labelled rows than this and training is refused.
    pub min_rows: u64,
}

impl Default for TrainingSpec {
    fn default() -> Self {
        Self {
            run: None,
            code: Vec::new(),
            lock: None,
            params: serde_json::Map::new(),
            sweep: None,
            timeout: Span::HOUR,
            budget: 0.5,
            iterations: None,
            seed: 42,
            window: None,
            first_after: None,
            min_rows: 50,
        }
    }
}

/// A search over the parameters of a training.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepSpec {
    /// How the next trial is chosen.
    #[serde(default)]
    pub method: SweepMethod,
    /// How many trials there are at most.
    #[serde(default = "default_trials")]
    pub trials: u32,
    /// What is optimised. Default: the leading metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// What is searched, in the words of W&B's sweeps, such as `{min: 20, max: 200}`: `budget` and `iterations` of the built-in trainer,
    /// anything for a command of your own.
    pub parameters: serde_json::Map<String, serde_json::Value>,
}

fn default_trials() -> u32 {
    20
}

/// How the next trial of a sweep is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SweepMethod {
    /// Every combination in turn.
    Grid,
    /// Drawn at random.
    Random,
    /// Where the trials so far did well, by a tree-structured Parzen estimator.
    #[default]
    Bayes,
}
