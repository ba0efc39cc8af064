//! What an XGBoost file holds, as far as prediction needs it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(super) struct File {
    pub learner: Learner,
}

#[derive(Debug, Deserialize)]
pub(super) struct Learner {
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    #[serde(default)]
    pub feature_names: Vec<String>,
    #[serde(default)]
    pub feature_types: Vec<String>,
    pub gradient_booster: Booster,
    #[serde(rename = "learner_model_param")]
    pub param: LearnerParam,
    pub objective: Objective,
}

#[derive(Debug, Deserialize)]
pub(super) struct LearnerParam {
    /// A number as text, or since 3.1 a list of numbers.
    pub base_score: String,
    #[serde(deserialize_with = "number")]
    pub num_class: u32,
    #[serde(deserialize_with = "number")]
    pub num_feature: u32,
    #[serde(default = "one", deserialize_with = "number")]
    pub num_target: u32,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Deserialize)]
pub(super) struct Objective {
    pub name: String,
}

/// `gbtree`, or `dart` with a `gbtree` inside.
#[derive(Debug, Deserialize)]
pub(super) struct Booster {
    pub name: String,
    pub model: Option<Model>,
    pub gbtree: Option<Inner>,
    #[serde(default)]
    pub weight_drop: Vec<f32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Inner {
    pub model: Model,
}

#[derive(Debug, Deserialize)]
pub(super) struct Model {
    pub gbtree_model_param: ModelParam,
    #[serde(default)]
    pub iteration_indptr: Vec<usize>,
    pub tree_info: Vec<u32>,
    pub trees: Vec<Tree>,
    #[serde(default)]
    pub cats: Cats,
}

#[derive(Debug, Deserialize)]
pub(super) struct ModelParam {
    #[serde(default = "one", deserialize_with = "number")]
    pub num_parallel_tree: u32,
}

/// The categories of each feature, since 3.1.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Cats {
    #[serde(default)]
    pub enc: Vec<Encoding>,
}

/// Texts, joined, with offsets; or numbers.
#[derive(Debug, Deserialize)]
pub(super) struct Encoding {
    #[serde(default)]
    pub offsets: Option<Vec<usize>>,
    #[serde(default)]
    pub values: Vec<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Tree {
    #[serde(rename = "tree_param")]
    pub param: TreeParam,
    pub left_children: Vec<i32>,
    pub right_children: Vec<i32>,
    pub split_indices: Vec<u32>,
    /// Of a split the threshold, of a leaf its value.
    pub split_conditions: Vec<f32>,
    pub default_left: Vec<Truth>,
    #[serde(default)]
    pub sum_hessian: Vec<f32>,
    #[serde(default)]
    pub split_type: Vec<u8>,
    #[serde(default)]
    pub categories: Vec<i64>,
    #[serde(default)]
    pub categories_nodes: Vec<usize>,
    #[serde(default)]
    pub categories_segments: Vec<usize>,
    #[serde(default)]
    pub categories_sizes: Vec<usize>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TreeParam {
    #[serde(default = "one", deserialize_with = "number")]
    pub size_leaf_vector: u32,
}

/// A boolean, or 0 and 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Truth(pub bool);

impl<'de> Deserialize<'de> for Truth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(truth) => Ok(Self(truth)),
            Value::Number(number) if number.as_i64() == Some(0) => Ok(Self(false)),
            Value::Number(number) if number.as_i64() == Some(1) => Ok(Self(true)),
            other => Err(serde::de::Error::custom(format!(
                "`{other}` is neither true nor false"
            ))),
        }
    }
}

/// A number, written as text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        other => other.to_string(),
    };
    text.parse()
        .map_err(|_| serde::de::Error::custom(format!("`{text}` is no whole number")))
}
