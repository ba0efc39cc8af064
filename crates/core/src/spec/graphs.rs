//! Graphs of deployments: models, and what stands before, between and behind them, declared under `graphs:` and served as one deployment.

mod check;
mod steps;
#[cfg(test)]
mod tests;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ConditionSpec, ServingSpec};
use crate::tensors::DataType;

pub(super) use check::check_all;
pub use steps::cholesky;

/// A graph: served under its name like any deployment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GraphSpec {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it takes, by name. Without inputs it takes what comes: a body, mostly.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub inputs: IndexMap<String, GraphInputSpec>,
    /// Its nodes, by name, in any order: what a node names runs before it, and only if something needs it. Nodes that do not need each other
    /// run at the same time.
    pub nodes: IndexMap<String, NodeSpec>,
    /// What it answers: a name for each `NODE.OUTPUT`, or the name of an input to pass that on.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub outputs: IndexMap<String, String>,
    /// Instead of `outputs`: the node whose whole answer is the graph's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// How the graph is served: timeout, rate limit, queue.
    #[serde(default)]
    pub serving: ServingSpec,
}

/// An input of a graph.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GraphInputSpec {
    /// The type of its elements.
    pub datatype: DataType,
    /// Its extent in each dimension, -1 for any. Default: a column, `[-1]`.
    #[serde(default = "column")]
    pub shape: Vec<i64>,
    /// Whether a request may leave it out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

fn column() -> Vec<i64> {
    vec![-1]
}

/// A node: what it is given, and exactly one of the kinds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSpec {
    /// The node whose whole answer this one is given. Default: the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Instead of `input`: for each input of this node, an input of the graph or a `NODE.OUTPUT`.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub inputs: IndexMap<String, String>,
    /// Other names for its outputs, such as `{probability: p}`; outputs that are not named here are dropped. Default: all, under their names.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub outputs: IndexMap<String, String>,
    /// A deployment, or an endpoint of the loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelNode>,
    /// Deployments one after the other, each given the answer of the one before: by name where the names fit, else by position.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<ModelNode>,
    /// Several answers made one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<EnsembleNode>,
    /// One of several nodes, by what holds; each row by itself where the condition looks at inputs or outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch: Option<SwitchNode>,
    /// One of several nodes, by weight, sticky by the request's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub splitter: Option<SplitterNode>,
    /// Columns made other columns, step by step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transform: Vec<TransformStep>,
    /// Rows told from those that the model knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier: Option<OutlierNode>,
    /// What each input contributed to a model's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<ExplainNode>,
}

/// A deployment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelNode {
    /// Its name.
    pub deployment: String,
    /// Its version. Default: the one that its routing chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// How several answers become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// The mean of numbers.
    Mean,
    /// Their mean by `weights`.
    WeightedMean,
    /// The value that most members gave (by `weights`, where there are any); of several the one that was given first.
    Vote,
    /// The largest number.
    Max,
    /// The smallest number.
    Min,
    /// The members' columns side by side: `[rows, members]`, or joined along the last dimension.
    Concat,
    /// The first member that answers; those behind it are asked only if it does not.
    FirstSuccess,
}

/// Several answers made one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnsembleNode {
    /// The members: `NODE.OUTPUT` each; for `first_success` nodes whose whole answer counts.
    pub of: Vec<String>,
    /// How.
    pub combine: Combine,
    /// A weight for each member: `weighted_mean` and `vote`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<f64>,
    /// So many members have to answer; those that fail are left out. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<u32>,
    /// The name of the output. Default: that of the first member's.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One of several nodes, by what holds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchNode {
    /// The first that holds wins.
    pub cases: Vec<SwitchCase>,
    /// The node if none holds. Default: the request fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// A case of a switch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchCase {
    /// What has to hold.
    pub when: ConditionSpec,
    /// The node whose answer it is then.
    pub to: String,
}

/// One of several nodes, by weight.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitterNode {
    /// Weights by node.
    pub to: IndexMap<String, f64>,
    /// Mixes the keys anew. Default: the graph's and the node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
}

/// A step of a transformation: exactly one of these. Columns that it does not name stay as they are.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TransformStep {
    /// Keep these columns, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub select: Vec<String>,
    /// Give columns other names.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub rename: IndexMap<String, String>,
    /// Give columns another datatype; texts become numbers where they are some, else missing.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub cast: IndexMap<String, DataType>,
    /// `(x - mean) / std`, or `(x - min) / (max - min)`.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub scale: IndexMap<String, ScaleSpec>,
    /// Keep numbers between two bounds.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub clip: IndexMap<String, BoundsSpec>,
    /// A value for what is missing: NaN, and texts that are not there.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub impute: IndexMap<String, Value>,
    /// The place of the largest number of each row, or its label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argmax: Option<ArgmaxSpec>,
    /// Yes or no, or one of two labels, by a bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<ThresholdSpec>,
    /// Each row's numbers as probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub softmax: Option<SoftmaxSpec>,
}

/// How a column is scaled: by `mean` and `std`, or by `min` and `max`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScaleSpec {
    /// Taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Divided by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Becomes 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Becomes 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// Two bounds, or one.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BoundsSpec {
    /// The smallest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The largest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// The place of the largest number.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArgmaxSpec {
    /// Which column, of shape `[rows, classes]`.
    pub of: String,
    /// The new column.
    #[serde(rename = "as")]
    pub name: String,
    /// What the places mean. Default: their number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// Yes or no by a bound.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ThresholdSpec {
    /// Which column.
    pub of: String,
    /// The new column.
    #[serde(rename = "as")]
    pub name: String,
    /// From this number on it is yes.
    pub at: f64,
    /// What no and yes are called. Default: false and true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// Numbers as probabilities.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SoftmaxSpec {
    /// Which column, of shape `[rows, classes]`.
    pub of: String,
    /// The new column. Default: in its place.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How rows are told from those that the model knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutlierMethod {
    /// The largest `|x - mean| / std` of the row's columns.
    Zscore,
    /// The largest distance outside the quartiles, in interquartile ranges.
    Iqr,
    /// The Mahalanobis distance of the row from the mean.
    Mahalanobis,
}

/// Rows told from those that the model knows. Adds the columns `outlier` (BOOL) and `outlier_score` (FP64) to the answer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierNode {
    /// By the columns' own statistics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<OutlierMethod>,
    /// The statistics, by column of this node's input.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub columns: IndexMap<String, ColumnStatistics>,
    /// `mahalanobis`: the covariances of the columns, row by row, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub covariance: Vec<Vec<f64>>,
    /// Instead of `method`: a deployment that gives each row a score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detector: Option<DetectorSpec>,
    /// A row whose score is above this is an outlier. Default: 3, of `iqr` 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// The node whose answer is annotated. Default: none, the two columns are all of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Take the answer of outliers away: their numbers become NaN (0 where the datatype has none), their texts missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub abstain: bool,
    /// The node whose answer outliers get instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

/// What is known of a column: `mean` and `std` for `zscore`, `q1` and `q3` for `iqr`, `mean` for `mahalanobis`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnStatistics {
    /// Its mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Its standard deviation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Its first quartile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q1: Option<f64>,
    /// Its third quartile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q3: Option<f64>,
}

/// A deployment that scores rows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetectorSpec {
    /// Its name.
    pub deployment: String,
    /// Its version. Default: the one that its routing chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The output that is the score.
    pub output: String,
    /// Outliers have low scores, as an isolation forest's have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub low: bool,
}

/// How contributions are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExplainMethod {
    /// The model's own, where it has one, else by sampling.
    #[default]
    Auto,
    /// By sampling: the columns of a row are changed from the baseline's to the row's in random orders.
    Sampling,
    /// By asking every combination of the row's and the baseline's columns, of which there may be 12.
    Exact,
}

/// What each input contributed to a model's answer: `attributions`, FP64 of shape `[rows, inputs]`, and `base`, FP64 of shape `[rows]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainNode {
    /// The deployment that is explained.
    pub deployment: String,
    /// Its version. Default: the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// How.
    #[serde(default)]
    pub method: ExplainMethod,
    /// Sampling: the output that is explained. Default: the model's only one, or its first that is numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Sampling: the place in the output's last dimension.
    #[serde(default)]
    pub class: u32,
    /// Sampling: what each input is when it says nothing: a mean, a usual category.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub baseline: IndexMap<String, Value>,
    /// Sampling: so many orders a row, each also backwards.
    #[serde(default = "default_samples")]
    pub samples: u32,
    /// Sampling: the seed.
    #[serde(default)]
    pub seed: u64,
}

fn default_samples() -> u32 {
    16
}

/// A reference to a tensor of a graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reference<'a> {
    /// An input of the graph.
    Input(&'a str),
    /// An output of a node.
    Output {
        /// Which node.
        node: &'a str,
        /// Which output.
        output: &'a str,
    },
}

impl GraphSpec {
    /// Reads a reference: the name of an input goes before.
    pub fn reference<'a>(&self, text: &'a str) -> Option<Reference<'a>> {
        if self.inputs.contains_key(text) {
            return Some(Reference::Input(text));
        }
        let (node, output) = text.split_once('.')?;
        Some(Reference::Output { node, output })
    }

    /// The nodes that a node needs, also those that it only needs sometimes.
    pub fn needs<'a>(&'a self, node: &'a NodeSpec) -> Vec<&'a str> {
        let of = |text: &'a String| match self.reference(text) {
            Some(Reference::Output { node, .. }) => Some(node),
            _ => None,
        };
        let mut needs: Vec<&str> = node.input.iter().map(String::as_str).collect();
        needs.extend(node.inputs.values().filter_map(of));
        if let Some(ensemble) = &node.ensemble {
            let member = |text: &'a String| of(text).unwrap_or(text);
            needs.extend(ensemble.of.iter().map(member));
        }
        if let Some(switch) = &node.switch {
            needs.extend(switch.cases.iter().map(|case| case.to.as_str()));
            needs.extend(switch.default.iter().map(String::as_str));
            needs.extend(
                switch
                    .cases
                    .iter()
                    .filter_map(|case| case.when.output.as_ref())
                    .filter_map(of),
            );
        }
        if let Some(splitter) = &node.splitter {
            needs.extend(splitter.to.keys().map(String::as_str));
        }
        if let Some(outlier) = &node.outlier {
            needs.extend(outlier.answer.iter().chain(&outlier.route).map(String::as_str));
        }
        needs
    }

    /// The deployments that it asks.
    pub fn deployments(&self) -> Vec<&str> {
        let mut all = Vec::new();
        for node in self.nodes.values() {
            all.extend(node.model.iter().map(|model| model.deployment.as_str()));
            all.extend(node.chain.iter().map(|model| model.deployment.as_str()));
            all.extend(node.explain.iter().map(|explain| explain.deployment.as_str()));
            let detectors = node
                .outlier
                .iter()
                .filter_map(|outlier| outlier.detector.as_ref());
            all.extend(detectors.map(|detector| detector.deployment.as_str()));
        }
        all
    }
}

impl NodeSpec {
    /// What it is.
    pub fn kind(&self) -> &'static str {
        self.kinds().first().copied().unwrap_or("nothing")
    }

    fn kinds(&self) -> Vec<&'static str> {
        let all = [
            ("model", self.model.is_some()),
            ("chain", !self.chain.is_empty()),
            ("ensemble", self.ensemble.is_some()),
            ("switch", self.switch.is_some()),
            ("splitter", self.splitter.is_some()),
            ("transform", !self.transform.is_empty()),
            ("outlier", self.outlier.is_some()),
            ("explain", self.explain.is_some()),
        ];
        all.into_iter()
            .filter(|(_, there)| *there)
            .map(|(name, _)| name)
            .collect()
    }
}
