//! What the prediction log holds: one batch a request, columnar.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::frame::{Frame, Scores};
use crate::ids::{EndpointName, PredictionId, VersionNumber};

/// Which deployment answered a row, and why that one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The endpoint's champion.
    Champion,
    /// The version under canary, on its share of the traffic.
    Canary,
    /// The previous champion, because the one in charge failed.
    Previous,
    /// The endpoint's default answer, or that of a rule: no model could.
    Default,
    /// Another version of the model, named by the endpoint's fallback chain.
    Fallback,
    /// Nobody: the endpoint would rather give no answer. The row's scores are NaN.
    Abstained,
}

impl Role {
    /// Its name in the log, on the wire and in the docs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Champion => "champion",
            Self::Canary => "canary",
            Self::Previous => "previous",
            Self::Default => "default",
            Self::Fallback => "fallback",
            Self::Abstained => "abstained",
        }
    }

    /// The role of a name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Champion,
            Self::Canary,
            Self::Previous,
            Self::Default,
            Self::Fallback,
            Self::Abstained,
        ];
        all.into_iter().find(|role| role.name() == name)
    }

    /// Whether a model gave the answer.
    pub fn is_model(self) -> bool {
        !matches!(self, Self::Default | Self::Abstained)
    }
}

/// What one shadow deployment would have answered for the whole batch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ShadowScores {
    /// The version that shadowed.
    pub version: VersionNumber,
    /// Its answers, in the batch's order.
    pub scores: Scores,
}

/// One request as served: features, answers, and which version gave each. All vectors have one entry a row.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PredictionBatch {
    /// Which endpoint.
    pub endpoint: EndpointName,
    /// When it was served.
    pub at: Timestamp,
    /// The caller's id of the request, or one made for it.
    pub request_id: String,
    /// The id of each row's prediction.
    pub ids: Vec<PredictionId>,
    /// The caller's key of each row (the unit that sticks to one version), where one was sent.
    pub keys: Vec<Option<Arc<str>>>,
    /// The version that answered each row.
    pub versions: Vec<VersionNumber>,
    /// As what it answered.
    pub roles: Vec<Role>,
    /// The canary's share of traffic when the row was routed, 0 where there was none.
    pub canary_share: f64,
    /// What went wrong on the way to each row's answer; `None` where nothing did.
    pub degraded: Vec<Option<Arc<str>>>,
    /// The answers as served.
    pub scores: Scores,
    /// What the shadows said of the same rows.
    pub shadows: Vec<ShadowScores>,
    /// The features as the models read them.
    pub features: Frame,
    /// Time from the request's arrival to its answer, microseconds.
    pub latency_us: u64,
}

/// What decides which columns a file of batches has, beside the features.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchShape {
    /// Each row's answer is one number.
    pub single: bool,
    /// Shadows answered too.
    pub shadows: bool,
}

impl BatchShape {
    /// The shape that holds all of these.
    pub fn of(batches: &[PredictionBatch]) -> Self {
        Self {
            single: batches.iter().all(|batch| batch.scores.width() == 1),
            shadows: batches.iter().any(|batch| !batch.shadows.is_empty()),
        }
    }
}

impl PredictionBatch {
    /// How many rows.
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &[usize]) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            at: self.at,
            request_id: self.request_id.clone(),
            ids: indices.iter().map(|&i| self.ids[i].clone()).collect(),
            keys: indices.iter().map(|&i| self.keys[i].clone()).collect(),
            versions: indices.iter().map(|&i| self.versions[i]).collect(),
            roles: indices.iter().map(|&i| self.roles[i]).collect(),
            canary_share: self.canary_share,
            degraded: indices.iter().map(|&i| self.degraded[i].clone()).collect(),
            scores: self.scores.take(indices),
            shadows: self
                .shadows
                .iter()
                .map(|s| ShadowScores {
                    version: s.version,
                    scores: s.scores.take(indices),
                })
                .collect(),
            features: self.features.take(indices),
            latency_us: self.latency_us,
        }
    }
}

/// A label's value as told by a client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LabelValue {
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A class.
    Text(String),
}

impl LabelValue {
    /// As yes or no: a boolean, or a number or text that plainly means one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            Self::Number(n) if *n == 1.0 => Some(true),
            Self::Number(n) if *n == 0.0 => Some(false),
            Self::Number(_) => None,
            Self::Text(t) => match t.as_str() {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            },
        }
    }

    /// As a number.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Bool(b) => Some(f64::from(u8::from(*b))),
            Self::Number(n) => Some(*n),
            Self::Text(t) => t.parse().ok(),
        }
    }

    /// As a class name.
    pub fn as_class(&self) -> String {
        match self {
            Self::Bool(b) => b.to_string(),
            Self::Number(n) => n.to_string(),
            Self::Text(t) => t.clone(),
        }
    }
}
