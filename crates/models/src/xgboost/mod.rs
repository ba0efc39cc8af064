//! `XGBoost`'s models (`Booster.save_model`), JSON and UBJSON, into the tree engine: `gbtree` and `dart`.
//!
//! Source: `XGBoost` 3.2, `src/predictor/{cpu_predictor.cc,predict_fn.h}`, `src/gbm/gbtree.{h,cc}`,
//! `src/common/{categorical.h,math.h}` and `src/objective/`. Inputs are rounded to `float`, and leaves are added up in `float`.

mod file;
mod ubj;

use serde_json::Value;
use tidemill_core::frame::Task;

use crate::error::{Broken, shorten};
use crate::trees::{Builder, Child, Ensemble, Link, MOST_SET_WORDS, Node, Precision, Test, TreeParts};
use file::{Encoding, File, Learner, Tree};

/// A model file, read.
#[derive(Debug)]
pub(crate) struct XgBoost {
    /// The trees and their link.
    pub ensemble: Ensemble,
    /// What the objective asks.
    pub task: Task,
    /// How many inputs.
    pub features: usize,
    /// The inputs' names; empty if training had none.
    pub feature_names: Vec<String>,
    /// For each input its categories, where the file has them.
    pub categories: Vec<Vec<String>>,
}

const EXPECTED: &str = "a model as `Booster.save_model` writes it, `.json` or `.ubj`";

/// A file of a few bytes must not ask for a list of thousands of millions.
const MOST_FEATURES: usize = 1 << 20;

/// Reads a model; `wanted` is what the manifest says about the question.
pub(crate) fn parse(bytes: &[u8], wanted: Option<Task>) -> Result<XgBoost, Broken> {
    let file: File = if is_ubj(bytes) {
        let value = ubj::parse(bytes)
            .map_err(|error| Broken::new(1, format!("byte {}: {}", error.at, error.found), EXPECTED))?;
        serde_json::from_value(value).map_err(|error| Broken::new(1, error.to_string(), EXPECTED))?
    } else {
        serde_json::from_slice(bytes)
            .map_err(|error| Broken::new(error.line(), error.to_string(), EXPECTED))?
    };
    convert(file.learner, wanted)
}

/// Both begin with a brace; a name in UBJSON starts with the type of its length.
fn is_ubj(bytes: &[u8]) -> bool {
    matches!(bytes, [b'{', b'L' | b'l' | b'I' | b'i' | b'U', ..])
}

fn convert(learner: Learner, wanted: Option<Task>) -> Result<XgBoost, Broken> {
    let broken = |found: String, expected: &str| Broken::new(1, found, expected);
    let booster = learner.gradient_booster;
    let model = match (booster.name.as_str(), booster.model, booster.gbtree) {
        ("gbtree", Some(model), _) => model,
        ("dart", _, Some(inner)) => inner.model,
        (other, _, _) => {
            return Err(broken(
                format!("`gradient_booster` is `{}`", shorten(other)),
                "`gbtree` or `dart`; linear boosters are served through Python",
            ));
        }
    };
    let param = &learner.param;
    let features = param.num_feature as usize;
    if features > MOST_FEATURES {
        return Err(broken(
            format!("`num_feature` is {features}"),
            "a number of features that a table can have",
        ));
    }
    let outputs = param.num_class.max(param.num_target).max(1) as usize;
    if outputs > model.trees.len().max(1) * 64 {
        return Err(broken(
            format!("`num_class` is {}", param.num_class),
            "as many classes as there are trees for",
        ));
    }
    let objective = Objective::named(&learner.objective.name, wanted)
        .ok_or_else(|| {
            broken(
                format!("`objective` is `{}`", shorten(&learner.objective.name)),
                "an objective of XGBoost's own, such as reg:squarederror, binary:logistic, multi:softprob, count:poisson or \
                 rank:ndcg",
            )
        })?;
    let base = base_scores(&param.base_score, outputs)
        .ok_or_else(|| {
            broken(
                format!("`base_score` is `{}`", shorten(&param.base_score)),
                "a number, or a list of one number an output",
            )
        })?
        .into_iter()
        .map(|score| f64::from(objective.margin(score)))
        .collect::<Vec<f64>>();
    if base.iter().any(|margin| !margin.is_finite()) {
        return Err(broken(
            format!("`base_score` is `{}`", shorten(&param.base_score)),
            "a score that the objective can start from",
        ));
    }
    if model.tree_info.len() != model.trees.len() {
        return Err(broken(
            format!("`tree_info` holds {} entries", model.tree_info.len()),
            "one a tree; the file is damaged",
        ));
    }
    let used = used_trees(
        &learner.attributes,
        &model.iteration_indptr,
        model.trees.len(),
        outputs * model.gbtree_model_param.num_parallel_tree.max(1) as usize,
    );
    let mut builder = Builder::new(features, base, objective.link, Precision::F32);
    for (number, (tree, &output)) in model.trees.iter().zip(&model.tree_info).take(used).enumerate() {
        let weight = match booster.name.as_str() {
            "dart" => *booster.weight_drop.get(number).ok_or_else(|| {
                broken(
                    format!("`weight_drop` holds {} weights", booster.weight_drop.len()),
                    "one a tree; the file is damaged",
                )
            })?,
            _ => 1.0,
        };
        if output as usize >= outputs {
            return Err(broken(
                format!("`tree_info` of tree {number} is {output}"),
                "an output that the model has",
            ));
        }
        let read = convert_tree(tree, features, weight)
            .map_err(|reason| broken(format!("tree {number}: {reason}"), "a tree as XGBoost saves it"))?;
        builder
            .push(TreeParts {
                output,
                nodes: &read.nodes,
                leaves: &read.leaves,
                width: 1,
                sets: &read.sets,
                node_cover: &read.node_cover,
                leaf_cover: &read.leaf_cover,
            })
            .map_err(|error| broken(format!("tree {number}: {error}"), "one tree of splits and leaves"))?;
    }
    Ok(XgBoost {
        ensemble: builder.finish(),
        task: objective.task,
        features,
        categories: (0..features)
            .map(|feature| {
                let categorical = learner.feature_types.get(feature).is_some_and(|kind| kind == "c");
                let encoding = model.cats.enc.get(feature).filter(|_| categorical);
                encoding.and_then(levels).unwrap_or_default()
            })
            .collect(),
        feature_names: learner.feature_names,
    })
}

/// How many trees answer. XGBoost's scikit-learn wrapper stops at the best iteration, its `Booster` does not.
fn used_trees(
    attributes: &std::collections::BTreeMap<String, String>,
    bounds: &[usize],
    trees: usize,
    a_round: usize,
) -> usize {
    let best = attributes
        .get("best_iteration")
        .filter(|_| attributes.contains_key("scikit_learn"))
        .and_then(|best| best.parse::<usize>().ok());
    let Some(rounds) = best.and_then(|best| best.checked_add(1)) else {
        return trees;
    };
    let used = bounds
        .get(rounds)
        .copied()
        .or_else(|| rounds.checked_mul(a_round));
    used.map_or(trees, |used| used.min(trees))
}

/// `5E-1` or `[5E-1,2E-1]`.
fn base_scores(text: &str, outputs: usize) -> Option<Vec<f32>> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let scores = inner
        .split(',')
        .map(|score| score.trim().parse().ok())
        .collect::<Option<Vec<f32>>>()?;
    match scores.as_slice() {
        &[score] => Some(vec![score; outputs]),
        _ if scores.len() == outputs => Some(scores),
        _ => None,
    }
}

/// The levels of a feature, as texts.
fn levels(encoding: &Encoding) -> Option<Vec<String>> {
    let Some(offsets) = &encoding.offsets else {
        return encoding.values.iter().map(level).collect();
    };
    let bytes = encoding
        .values
        .iter()
        .map(|byte| byte.as_i64().map(|byte| byte as u8))
        .collect::<Option<Vec<u8>>>()?;
    offsets
        .windows(2)
        .map(|bounds| String::from_utf8(bytes.get(bounds[0]..bounds[1])?.to_vec()).ok())
        .collect()
}

fn level(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(match number.as_f64() {
            Some(float) if float.fract() == 0.0 => format!("{float:.0}"),
            _ => number.to_string(),
        }),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// What an objective does with scores.
struct Objective {
    task: Task,
    link: Link,
    start: Start,
}

/// From the base score to the sums that trees add to (`ProbToMargin`).
#[derive(Clone, Copy)]
enum Start {
    Same,
    Logit,
    Log,
}

impl Objective {
    fn named(name: &str, wanted: Option<Task>) -> Option<Self> {
        let of = |task, link, start| Some(Self { task, link, start });
        match name {
            "binary:logistic" => of(Task::Binary, Link::SigmoidF32, Start::Logit),
            "reg:logistic" if wanted == Some(Task::Binary) => {
                of(Task::Binary, Link::SigmoidF32, Start::Logit)
            }
            "reg:logistic" => of(Task::Regression, Link::SigmoidF32, Start::Logit),
            // The raw sum is the answer, unless the manifest asks for a probability.
            "binary:logitraw" if wanted == Some(Task::Binary) => {
                of(Task::Binary, Link::SigmoidF32, Start::Same)
            }
            "binary:logitraw" => of(Task::Regression, Link::Identity, Start::Same),
            "binary:hinge" => of(Task::Binary, Link::Positive, Start::Same),
            "multi:softprob" | "multi:softmax" => of(Task::Multiclass, Link::SoftmaxF32, Start::Same),
            "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => {
                of(Task::Regression, Link::ExpF32, Start::Log)
            }
            "reg:linear"
            | "reg:squarederror"
            | "reg:squaredlogerror"
            | "reg:pseudohubererror"
            | "reg:absoluteerror"
            | "reg:quantileerror"
            | "reg:expectileerror"
            | "rank:ndcg"
            | "rank:map"
            | "rank:pairwise" => of(Task::Regression, Link::Identity, Start::Same),
            _ => None,
        }
    }

    fn margin(&self, score: f32) -> f32 {
        match self.start {
            Start::Same => score,
            Start::Logit => -(1.0_f32 / score - 1.0).ln(),
            Start::Log => score.ln(),
        }
    }
}

struct ReadTree {
    nodes: Vec<Node>,
    leaves: Vec<f64>,
    sets: Vec<u32>,
    node_cover: Vec<f64>,
    leaf_cover: Vec<f64>,
}

/// Deleted nodes are left over in pruned trees; they are not reached from the root and need not make sense.
fn convert_tree(tree: &Tree, features: usize, weight: f32) -> Result<ReadTree, String> {
    let count = tree.left_children.len();
    let lengths = [
        ("right_children", tree.right_children.len()),
        ("split_indices", tree.split_indices.len()),
        ("split_conditions", tree.split_conditions.len()),
        ("default_left", tree.default_left.len()),
    ];
    for (name, length) in lengths {
        if length != count {
            return Err(format!(
                "`{name}` holds {length} entries, `left_children` {count}"
            ));
        }
    }
    if tree.param.size_leaf_vector > 1 {
        return Err(
            "its leaves hold several numbers (`multi_output_tree`), which are served through Python".into(),
        );
    }
    if count == 0 {
        return Err("it has no node".into());
    }
    let mut sets = Vec::new();
    let set_of = category_sets(tree, &mut sets)?;
    let (mut places, mut splits, mut leaves) = (Vec::with_capacity(count), 0, Vec::new());
    for (&left, &condition) in tree.left_children.iter().zip(&tree.split_conditions) {
        if left == -1 {
            places.push(!(leaves.len() as Child));
            leaves.push(f64::from(condition * weight));
        } else {
            places.push(splits);
            splits += 1;
        }
    }
    let mut nodes = Vec::with_capacity(splits as usize);
    for node in (0..count).filter(|&node| tree.left_children[node] != -1) {
        let child = |children: &[i32]| {
            let place = usize::try_from(children[node])
                .ok()
                .and_then(|child| places.get(child));
            place
                .copied()
                .ok_or_else(|| format!("node {node} has a child {} that is not there", children[node]))
        };
        let (left, right) = (child(&tree.left_children)?, child(&tree.right_children)?);
        let feature = tree.split_indices[node];
        if feature as usize >= features {
            return Err(format!("node {node} splits on feature {feature} of {features}"));
        }
        let missing = if tree.default_left[node].0 { left } else { right };
        let by_set = tree.split_type.get(node) == Some(&1);
        nodes.push(if by_set {
            let (start, words) = set_of
                .get(&node)
                .copied()
                .ok_or_else(|| format!("node {node} has no categories"))?;
            // The categories in the set go right.
            Node {
                feature,
                left: right,
                right: left,
                missing,
                test: Test::InSet { start, words },
            }
        } else {
            // `value < threshold` between `float`s.
            Node {
                feature,
                left,
                right,
                missing,
                test: Test::AtMost(f64::from(tree.split_conditions[node].next_down())),
            }
        });
    }
    // The root is node 0, and `Builder` wants it first among its kind, which it is.
    let (mut leaf_cover, mut node_cover) = (Vec::new(), Vec::new());
    for (&left, &cover) in tree.left_children.iter().zip(&tree.sum_hessian) {
        let of = if left == -1 {
            &mut leaf_cover
        } else {
            &mut node_cover
        };
        of.push(f64::from(cover));
    }
    if tree.left_children[0] == -1 {
        nodes.clear();
        node_cover.clear();
    }
    Ok(ReadTree {
        nodes,
        leaves,
        sets,
        node_cover,
        leaf_cover,
    })
}

type SetOf = std::collections::HashMap<usize, (u32, u32)>;

/// Categories are codes below 2^24 (`OutOfRangeCat`); a hostile file must not make a set of that size for each node.
const HIGHEST_CATEGORY: i64 = 1 << 16;

fn category_sets(tree: &Tree, sets: &mut Vec<u32>) -> Result<SetOf, String> {
    let mut of = SetOf::new();
    let segments = tree.categories_segments.iter().zip(&tree.categories_sizes);
    for (&node, (&start, &size)) in tree.categories_nodes.iter().zip(segments) {
        let end = start
            .checked_add(size)
            .filter(|&end| end <= tree.categories.len());
        let end = end.ok_or_else(|| format!("the categories of node {node} are not there"))?;
        let members = &tree.categories[start..end];
        let highest = members.iter().copied().max().unwrap_or(0);
        if highest > HIGHEST_CATEGORY || members.iter().any(|&code| code < 0) {
            return Err(format!(
                "node {node} has categories beyond 0 to {HIGHEST_CATEGORY}"
            ));
        }
        let first = sets.len();
        if first > MOST_SET_WORDS {
            return Err("its sets of categories are too large".into());
        }
        sets.resize(first + (highest as usize >> 5) + 1, 0);
        for &code in members {
            sets[first + (code as usize >> 5)] |= 1 << (code & 31);
        }
        of.insert(node, (first as u32, (sets.len() - first) as u32));
    }
    Ok(of)
}
