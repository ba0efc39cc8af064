//! `endpoint`: how the model is served, what is taken from a request, and what is kept of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the model is served.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointSpec {
    /// The answer while no model can give one: a probability, a number, or a class. Without it such a request gets a 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<DefaultAnswer>,
    /// Keep the first version as a permanent shadow, to show what the loop has earned.
    pub baseline: bool,
    /// What is taken from a request.
    #[serde(skip_serializing_if = "is_default")]
    pub inputs: InputSpec,
    /// What is kept of a request.
    #[serde(skip_serializing_if = "is_default")]
    pub log: LogSpec,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The answer while no model can give one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DefaultAnswer {
    /// A probability or a number.
    Number(f64),
    /// A class.
    Class(String),
}

/// What is taken from a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InputSpec {
    /// A text where a number is expected.
    pub texts: TextPolicy,
    /// A missing value.
    pub nulls: NullPolicy,
}

/// What becomes of a text where a number is expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextPolicy {
    /// The request is refused, and told which row.
    #[default]
    Refuse,
    /// A text that reads as a number is that number, an empty one is missing; any other is refused.
    Read,
}

/// What becomes of a missing value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NullPolicy {
    /// The model sees that it is missing.
    #[default]
    Take,
    /// The request is refused, and told which row.
    Refuse,
}

/// What is kept of a request in the prediction log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSpec {
    /// How safe a prediction is once it is answered.
    pub durability: LogDurability,
    /// What becomes of a request that cannot be recorded.
    pub on_failure: LogFailure,
    /// The share of requests that are recorded, 0 to 1. What is not recorded has no label, no drift and no lineage.
    pub sample: f64,
    /// Features whose values are recorded as missing. Drift of these cannot be watched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self {
            durability: LogDurability::default(),
            on_failure: LogFailure::default(),
            sample: 1.0,
            redact: Vec::new(),
        }
    }
}

/// How safe a prediction is once it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogDurability {
    /// It survives the end of the process at any instant; a power cut may cost the last twentieth of a second.
    #[default]
    Written,
    /// It survives a power cut too: each answer waits for the disk.
    Synced,
}

/// What becomes of a request that cannot be recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFailure {
    /// It is refused (507), so that nothing is answered that is not recorded.
    #[default]
    Refuse,
    /// It is answered, and counted as not recorded (`tidemill_wal_refused_rows_total`).
    Drop,
}
