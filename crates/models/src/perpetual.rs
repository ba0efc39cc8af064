//! `perpetual`'s boosters: stable bytes out, the tree engine in.
//!
//! The files are the crate's own JSON (`PerpetualBooster` for one output, `MultiOutputBooster` for several), so its Python
//! package can open them too; only the order of keys is fixed here, because the crate writes hash maps in a random order.

use std::collections::BTreeMap;

use perpetual::PerpetualBooster;
use perpetual::booster::config::BoosterConfig;
use perpetual::node::Node as BoosterNode;
use perpetual::tree::TreeStopper;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::frame::Task;

use crate::error::Broken;
use crate::trees::{Builder, Child, Ensemble, Link, Node, Precision, Test, TreeParts};

// ---- out ----

#[derive(Serialize)]
struct StableTree<'a> {
    nodes: BTreeMap<usize, &'a BoosterNode>,
    stopper: &'a TreeStopper,
    depth: usize,
    n_leaves: usize,
}

#[derive(Serialize)]
struct StableBooster<'a> {
    cfg: Value,
    base_score: f64,
    eta: f32,
    trees: Vec<StableTree<'a>>,
}

#[derive(Serialize)]
struct StableBoosters<'a> {
    n_boosters: usize,
    cfg: Value,
    boosters: Vec<StableBooster<'a>>,
}

/// The file of these boosters, one an output: equal boosters give equal bytes.
pub(crate) fn to_json(boosters: &[PerpetualBooster]) -> Result<Vec<u8>, serde_json::Error> {
    let mut stable = boosters.iter().map(stable).collect::<Result<Vec<_>, _>>()?;
    match (stable.pop(), stable.is_empty()) {
        (Some(only), true) => serde_json::to_vec(&only),
        (last, _) => {
            stable.extend(last);
            let cfg = stable.first().map_or(Value::Null, |first| first.cfg.clone());
            serde_json::to_vec(&StableBoosters {
                n_boosters: stable.len(),
                cfg,
                boosters: stable,
            })
        }
    }
}

fn stable(booster: &PerpetualBooster) -> Result<StableBooster<'_>, serde_json::Error> {
    let trees = booster.trees.iter().map(|tree| StableTree {
        nodes: tree.nodes.iter().map(|(number, node)| (*number, node)).collect(),
        stopper: &tree.stopper,
        depth: tree.depth,
        n_leaves: tree.n_leaves,
    });
    Ok(StableBooster {
        cfg: stable_config(&booster.cfg)?,
        base_score: booster.base_score,
        eta: booster.eta,
        trees: trees.collect(),
    })
}

/// Hash sets become sorted lists, and the number of threads, which the result does not depend on, is left out.
fn stable_config(config: &BoosterConfig) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(config)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("num_threads".into(), Value::Null);
        for name in ["categorical_features", "terminate_missing_features"] {
            if let Some(Value::Array(columns)) = fields.get_mut(name) {
                columns.sort_by_key(Value::as_u64);
            }
        }
    }
    Ok(value)
}

// ---- in ----

/// What prediction needs of a booster; training's own numbers are skipped.
#[derive(Deserialize)]
struct StoredBooster {
    cfg: StoredConfig,
    base_score: f64,
    trees: Vec<StoredTree>,
}

#[derive(Deserialize)]
struct StoredConfig {
    /// The number that stands for a missing value; null is NaN.
    missing: Option<f64>,
}

#[derive(Deserialize)]
struct StoredBoosters {
    boosters: Vec<StoredBooster>,
}

#[derive(Deserialize)]
struct StoredTree {
    nodes: BTreeMap<usize, StoredNode>,
}

#[derive(Deserialize)]
struct StoredNode {
    weight_value: f32,
    split_value: f64,
    split_feature: usize,
    missing_node: usize,
    left_child: usize,
    right_child: usize,
    is_leaf: bool,
    left_cats: Option<String>,
    /// The sum of second derivatives that came through it, which is what XGBoost counts as a node's cover too.
    #[serde(default)]
    hessian_sum: f64,
}

/// Reads a booster file for a task over `features` inputs.
pub(crate) fn from_json(bytes: &[u8], task: Task, features: usize) -> Result<Ensemble, Broken> {
    let unreadable = |error: serde_json::Error| {
        Broken::new(
            error.line(),
            error.to_string(),
            "a booster as perpetual 2.3 saves it as JSON",
        )
    };
    let (boosters, link) = match task {
        Task::Multiclass => {
            let stored: StoredBoosters = serde_json::from_slice(bytes).map_err(unreadable)?;
            (stored.boosters, Link::Softmax)
        }
        Task::Binary => (
            vec![serde_json::from_slice(bytes).map_err(unreadable)?],
            Link::Sigmoid { slope: 1.0 },
        ),
        Task::Regression => (
            vec![serde_json::from_slice::<StoredBooster>(bytes).map_err(unreadable)?],
            Link::Identity,
        ),
    };
    if boosters.iter().any(|booster| booster.cfg.missing.is_some()) {
        return Err(Broken::new(
            1,
            "`missing` is a number",
            "null (NaN); train with `missing=nan`",
        ));
    }
    let base = boosters.iter().map(|booster| booster.base_score).collect();
    let mut builder = Builder::new(features, base, link, Precision::F64);
    for (booster, output) in boosters.iter().zip(0_u32..) {
        for (number, tree) in booster.trees.iter().enumerate() {
            let Converted {
                nodes,
                leaves,
                sets,
                node_cover,
                leaf_cover,
            } = convert(tree, features).map_err(|reason| {
                Broken::new(
                    1,
                    format!("tree {number}: {reason}"),
                    "a tree as perpetual saves it",
                )
            })?;
            builder
                .push(TreeParts {
                    output,
                    nodes: &nodes,
                    leaves: &leaves,
                    width: 1,
                    sets: &sets,
                    node_cover: &node_cover,
                    leaf_cover: &leaf_cover,
                })
                .map_err(|error| {
                    Broken::new(
                        1,
                        format!("tree {number}: {error}"),
                        "one tree of splits and leaves",
                    )
                })?;
        }
    }
    Ok(builder.finish())
}

#[derive(Default)]
struct Converted {
    nodes: Vec<Node>,
    leaves: Vec<f64>,
    sets: Vec<u32>,
    /// Empty where the tree does not say it, or says it in three branches.
    node_cover: Vec<f64>,
    leaf_cover: Vec<f64>,
}

/// Every construct of perpetual's trees has its equal here: `v < t` is `v <= ` the number below `t`, a category set is a set
/// of bits, and a missing value's child is a child of its own, whether it is one of the other two or a third branch.
fn convert(tree: &StoredTree, features: usize) -> Result<Converted, String> {
    let mut places: BTreeMap<usize, Child> = BTreeMap::new();
    let mut splits = 0;
    let mut converted = Converted::default();
    for (&number, node) in &tree.nodes {
        if node.is_leaf {
            places.insert(number, !(converted.leaves.len() as Child));
            converted.leaves.push(f64::from(node.weight_value));
            converted.leaf_cover.push(node.hessian_sum);
        } else {
            places.insert(number, splits);
            splits += 1;
        }
    }
    match tree.nodes.first_key_value() {
        Some((0, root)) if root.is_leaf && tree.nodes.len() > 1 => {
            return Err("the root is a leaf among others".into());
        }
        Some((0, _)) => {}
        _ => return Err("there is no root".into()),
    }
    for (&number, node) in tree.nodes.iter().filter(|(_, node)| !node.is_leaf) {
        if node.split_feature >= features {
            return Err(format!(
                "node {number} splits on feature {} of {features}",
                node.split_feature
            ));
        }
        let child = |child: usize| {
            let found = places.get(&child).filter(|_| child > number).copied();
            found.ok_or_else(|| format!("node {number} has no child {child} after it"))
        };
        let test = match &node.left_cats {
            Some(hex) => category_set(hex, &mut converted.sets)
                .ok_or_else(|| format!("node {number} has category set `{hex}`"))?,
            None => Test::AtMost(node.split_value.next_down()),
        };
        converted.node_cover.push(node.hessian_sum);
        converted.nodes.push(Node {
            feature: node.split_feature as u32,
            left: child(node.left_child)?,
            right: child(node.right_child)?,
            missing: child(node.missing_node)?,
            test,
        });
    }
    let known = converted.node_cover.iter().chain(&converted.leaf_cover);
    let two_ways = |node: &Node| node.missing == node.left || node.missing == node.right;
    if !known.into_iter().all(|cover| cover.is_finite() && *cover > 0.0)
        || !converted.nodes.iter().all(two_ways)
    {
        converted.node_cover.clear();
        converted.leaf_cover.clear();
    }
    Ok(converted)
}

/// Perpetual's sets are bytes in hexadecimal, the lowest categories first.
fn category_set(hex: &str, sets: &mut Vec<u32>) -> Option<Test> {
    let digits = hex.as_bytes();
    let start = u32::try_from(sets.len()).ok()?;
    for word in digits.chunks(8) {
        let mut bits = 0;
        for (position, pair) in word.chunks(2).enumerate() {
            let byte = u32::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
            bits |= byte << (8 * position);
        }
        sets.push(bits);
    }
    let words = u32::try_from(sets.len()).ok()? - start;
    digits
        .len()
        .is_multiple_of(2)
        .then_some(Test::InSet { start, words })
}
