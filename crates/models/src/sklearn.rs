//! scikit-learn's trees, as `python/tidemill_worker/sklearn_trees.py` writes them from a fitted model, into the tree engine. No pickle is read here.
//!
//! Source: scikit-learn 1.9, `sklearn/tree/_tree.pyx`, `sklearn/ensemble/{_forest,_gb,_iforest}.py` and
//! `sklearn/ensemble/_hist_gradient_boosting/_predictor.pyx`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tidemill_core::frame::{FeatureKind, Task};

use crate::encode::{Input, Read, Rounding, Step};
use crate::error::Broken;
use crate::manifest::ManifestFeature;
use crate::trees::{Builder, Child, Ensemble, Link, MOST_SET_WORDS, Node, Precision, Test, TreeParts};

/// The program that makes these files, for the user's own Python: `sklearn_trees.py MODEL.joblib OUT.json`, or `convert(model)`.
pub const SKLEARN_TREES_PY: &str = include_str!("../../../python/tidemill_worker/sklearn_trees.py");

const EXPECTED: &str = "what sklearn_trees.py of this version writes";

#[derive(Debug, Deserialize)]
struct File {
    version: u32,
    task: Task,
    #[serde(default)]
    classes: Vec<String>,
    features: Vec<ManifestFeature>,
    inputs: Vec<StoredInput>,
    /// Whether the trees compare `float`s.
    float: bool,
    base: Vec<f64>,
    divisor: Option<f64>,
    link: StoredLink,
    trees: Vec<StoredTree>,
}

#[derive(Debug, Deserialize)]
struct StoredInput {
    column: usize,
    codes: Option<Codes>,
    steps: Vec<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
struct Codes {
    levels: Vec<Value>,
    missing: Option<f64>,
    unknown: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
enum StoredLink {
    Identity,
    Exp,
    Sigmoid { slope: f64 },
    Softmax,
    Isolation { denominator: f64, offset: f64 },
}

#[derive(Debug, Deserialize)]
struct StoredTree {
    output: u32,
    left: Vec<i64>,
    right: Vec<i64>,
    feature: Vec<u32>,
    threshold: Vec<f64>,
    missing_left: Vec<u8>,
    value: Vec<Leaf>,
    #[serde(default)]
    cover: Vec<f64>,
    /// The categories that go left, by node.
    #[serde(default)]
    sets: BTreeMap<usize, Vec<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Leaf {
    One(f64),
    Several(Vec<f64>),
}

impl Leaf {
    fn values(&self) -> &[f64] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Several(values) => values,
        }
    }
}

/// A file, read.
#[derive(Debug)]
pub(crate) struct Sklearn {
    pub ensemble: Ensemble,
    pub task: Task,
    pub classes: Vec<String>,
    pub features: Vec<ManifestFeature>,
    pub inputs: Vec<Input>,
    pub rounding: Rounding,
}

/// Reads a file.
pub(crate) fn parse(bytes: &[u8]) -> Result<Sklearn, Broken> {
    let file: File = serde_json::from_slice(bytes)
        .map_err(|error| Broken::new(error.line(), error.to_string(), EXPECTED))?;
    let broken = |found: String| Broken::new(1, found, EXPECTED);
    if file.version != 1 {
        return Err(broken(format!("`version` is {}", file.version)));
    }
    let inputs = file
        .inputs
        .iter()
        .enumerate()
        .map(|(number, input)| {
            convert_input(input, &file.features)
                .ok_or_else(|| broken(format!("input {number} makes no sense")))
        })
        .collect::<Result<Vec<Input>, Broken>>()?;
    let link = match file.link {
        StoredLink::Identity => Link::Identity,
        StoredLink::Exp => Link::Exp,
        StoredLink::Sigmoid { slope } => Link::Sigmoid { slope },
        StoredLink::Softmax => Link::Softmax,
        StoredLink::Isolation { denominator, offset } => Link::Isolation { denominator, offset },
    };
    let outputs = file.base.len();
    let mut builder = Builder::new(inputs.len(), file.base, link, Precision::F64);
    if let Some(divisor) = file.divisor {
        builder.divide_by(divisor);
    }
    for (number, tree) in file.trees.iter().enumerate() {
        let told = |reason: String| broken(format!("tree {number}: {reason}"));
        let read = convert_tree(tree, inputs.len()).map_err(told)?;
        if (tree.output as usize).saturating_add(read.width as usize) > outputs {
            return Err(told(format!(
                "it adds {} numbers from output {} on, of {outputs}",
                read.width, tree.output
            )));
        }
        builder
            .push(TreeParts {
                output: tree.output,
                nodes: &read.nodes,
                leaves: &read.leaves,
                width: read.width,
                sets: &read.sets,
                node_cover: &read.node_cover,
                leaf_cover: &read.leaf_cover,
            })
            .map_err(|error| told(error.to_string()))?;
    }
    Ok(Sklearn {
        ensemble: builder.finish(),
        task: file.task,
        classes: file.classes,
        features: file.features,
        inputs,
        rounding: if file.float { Rounding::F32 } else { Rounding::None },
    })
}

fn convert_input(input: &StoredInput, features: &[ManifestFeature]) -> Option<Input> {
    let kind = features.get(input.column)?.kind;
    let read = match &input.codes {
        None => Read::Number,
        Some(codes) => {
            let missing = codes.missing.unwrap_or(f64::NAN);
            let unknown = codes.unknown.unwrap_or(f64::NAN);
            let levels = codes.levels.iter();
            if kind == FeatureKind::Categorical {
                let texts = levels.map(|level| level.as_str().map(str::to_owned));
                Read::texts(&texts.collect::<Option<Vec<String>>>()?, missing, unknown)
            } else {
                let levels = levels.map(Value::as_f64).collect::<Option<Vec<f64>>>()?;
                Read::Levels {
                    levels,
                    missing,
                    unknown,
                }
            }
        }
    };
    if (kind == FeatureKind::Categorical) != matches!(read, Read::Texts { .. }) {
        return None;
    }
    let steps = input.steps.iter().map(|step| {
        let (name, arguments) = step.split_first()?;
        let arguments = arguments
            .iter()
            .map(Value::as_f64)
            .collect::<Option<Vec<f64>>>()?;
        Some(match (name.as_str()?, arguments.as_slice()) {
            ("impute", &[value]) => Step::Impute(value),
            ("subtract", &[value]) => Step::Subtract(value),
            ("divide", &[value]) => Step::Divide(value),
            ("multiply", &[value]) => Step::Multiply(value),
            ("add", &[value]) => Step::Add(value),
            ("clip", &[low, high]) if low <= high => Step::Clip(low, high),
            ("equals", &[value]) => Step::Equals(value),
            _ => return None,
        })
    });
    Some(Input {
        column: input.column,
        read,
        steps: steps.collect::<Option<Vec<Step>>>()?,
    })
}

struct ReadTree {
    nodes: Vec<Node>,
    leaves: Vec<f64>,
    width: u32,
    sets: Vec<u32>,
    node_cover: Vec<f64>,
    leaf_cover: Vec<f64>,
}

/// The highest category of a set: more would make a small file a large model.
const HIGHEST_CATEGORY: u32 = 1 << 16;

fn convert_tree(tree: &StoredTree, inputs: usize) -> Result<ReadTree, String> {
    let count = tree.left.len();
    let lengths = [
        tree.right.len(),
        tree.feature.len(),
        tree.threshold.len(),
        tree.missing_left.len(),
        tree.value.len(),
    ];
    if count == 0 || lengths.iter().any(|&length| length != count) {
        return Err("its lists are of different lengths, or empty".into());
    }
    if !tree.cover.is_empty() && tree.cover.len() != count {
        return Err("`cover` is of another length".into());
    }
    let width = tree.value[0].values().len();
    if width == 0 || tree.value.iter().any(|leaf| leaf.values().len() != width) {
        return Err("its leaves are of different widths, or empty".into());
    }
    let (mut places, mut splits, mut leaves) = (Vec::with_capacity(count), 0, Vec::new());
    for (&left, value) in tree.left.iter().zip(&tree.value) {
        if left < 0 {
            places.push(!((leaves.len() / width) as Child));
            leaves.extend_from_slice(value.values());
        } else {
            places.push(splits);
            splits += 1;
        }
    }
    let mut sets = Vec::new();
    let mut nodes = Vec::with_capacity(splits as usize);
    for node in (0..count).filter(|&node| tree.left[node] >= 0) {
        let child = |child: i64| {
            let place = usize::try_from(child).ok().and_then(|child| places.get(child));
            place
                .copied()
                .ok_or_else(|| format!("node {node} has a child {child} that is not there"))
        };
        let (left, right) = (child(tree.left[node])?, child(tree.right[node])?);
        let feature = tree.feature[node];
        if feature as usize >= inputs {
            return Err(format!("node {node} splits on input {feature} of {inputs}"));
        }
        let missing = if tree.missing_left[node] != 0 { left } else { right };
        let test = match tree.sets.get(&node) {
            None => Test::AtMost(tree.threshold[node]),
            Some(codes) => {
                let highest = codes.iter().copied().max().unwrap_or(0);
                if highest > HIGHEST_CATEGORY {
                    return Err(format!("node {node} has category {highest}"));
                }
                let start = sets.len();
                if start > MOST_SET_WORDS {
                    return Err("its sets of categories are too large".into());
                }
                sets.resize(start + (highest as usize >> 5) + 1, 0);
                for &code in codes {
                    sets[start + (code as usize >> 5)] |= 1 << (code & 31);
                }
                Test::InSet {
                    start: start as u32,
                    words: (sets.len() - start) as u32,
                }
            }
        };
        nodes.push(Node {
            feature,
            left,
            right,
            missing,
            test,
        });
    }
    let covers = |leaf: bool| {
        let of = tree.left.iter().zip(&tree.cover);
        of.filter(|(left, _)| (**left < 0) == leaf)
            .map(|(_, &cover)| cover)
            .collect()
    };
    Ok(ReadTree {
        nodes,
        leaves,
        width: width as u32,
        sets,
        node_cover: covers(false),
        leaf_cover: covers(true),
    })
}
