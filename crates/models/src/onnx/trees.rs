//! Tree ensembles in ONNX files, for our own engine: only graphs whose answers are known to equal ONNX Runtime's to the last bit.
//!
//! Source: ONNX Runtime 1.32, `onnxruntime/core/providers/cpu/ml/{tree_ensemble_common.h,tree_ensemble_aggregator.h,ml_common.h,
//! scaler.cc}`: comparisons, sums and exponentials in `float`, trees in order, base values after the sum.

use std::collections::HashMap;

use super::proto::{Graph, Node};
use crate::encode::{Input, Read, Step};
use crate::trees::{Builder, Child, Ensemble, Link, Node as Split, Precision, Test, TreeParts};

/// What was recognised, as one number a class or, of two classes, the second one's.
pub(super) struct Recognised {
    pub ensemble: Ensemble,
    pub inputs: Vec<Input>,
}

/// What was recognised, before its sums become scores.
pub(super) struct Raw {
    pub ensemble: Ensemble,
    pub inputs: Vec<Input>,
    pub transform: Transform,
}

/// How sums become scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Transform {
    /// Each for itself, or all together.
    Link(Link),
    /// One sum of weights that are not negative: `1 - x` and `x`; the label is the second from 0.5 on.
    PositivePair,
    /// One sum: `-x` and `x`; the label is the second above 0.
    Pair,
    /// One sum: the logistic function of `-x` and `x`; the label is the second above 0.
    LogisticPair,
}

impl Transform {
    /// What the last score is of the sums.
    fn link(self) -> Link {
        match self {
            Self::Link(link) => link,
            Self::PositivePair | Self::Pair => Link::Identity,
            Self::LogisticPair => Link::LogisticF32,
        }
    }
}

/// The trees that make `answer` from the one input of the graph, `features` numbers wide; `None` for anything that is not exact.
pub(super) fn recognise(graph: &Graph<'_>, input: &str, answer: &str, features: usize) -> Option<Recognised> {
    let Raw {
        mut ensemble,
        inputs,
        transform,
    } = recognise_raw(graph, input, answer, features)?;
    ensemble.set_link(transform.link());
    Some(Recognised { ensemble, inputs })
}

/// The same, with sums for answers.
pub(super) fn recognise_raw(graph: &Graph<'_>, input: &str, answer: &str, features: usize) -> Option<Raw> {
    let makers: HashMap<&str, &Node<'_>> = graph
        .nodes
        .iter()
        .flat_map(|node| node.outputs.iter().map(move |&output| (output, node)))
        .collect();
    let mut name = answer;
    let node = loop {
        let node = *makers.get(name)?;
        match node.op {
            "Identity" => name = node.inputs.first()?,
            "TreeEnsembleClassifier" | "TreeEnsembleRegressor" => break node,
            _ => return None,
        }
    };
    let classifier = node.op == "TreeEnsembleClassifier";
    if node.domain != "ai.onnx.ml" || node.outputs.get(usize::from(classifier)) != Some(&name) {
        return None;
    }
    let steps = head(&makers, node.inputs.first()?, input, features)?;
    let inputs = steps.into_iter().enumerate().map(|(column, steps)| Input {
        column,
        read: Read::Number,
        steps,
    });
    let (ensemble, transform) = ensemble(node, classifier, features)?;
    Some(Raw {
        ensemble,
        inputs: inputs.collect(),
        transform,
    })
}

/// What is done with each number between the graph's input and the trees.
fn head(
    makers: &HashMap<&str, &Node<'_>>,
    from: &str,
    input: &str,
    features: usize,
) -> Option<Vec<Vec<Step>>> {
    let mut steps = vec![Vec::new(); features];
    let mut name = from;
    // No chain of a checked graph is a circle.
    while name != input {
        let node = makers.get(name)?;
        match node.op {
            "Identity" => {}
            "Cast" if node.attribute("to")?.int == Some(1) => {}
            "Scaler" if node.domain == "ai.onnx.ml" => {
                let (offsets, scales) = (node.floats("offset"), node.floats("scale"));
                let of = |list: &[f32], feature: usize| match list {
                    [one] => Some(*one),
                    several if several.len() == features => several.get(feature).copied(),
                    _ => None,
                };
                for (feature, steps) in steps.iter_mut().enumerate() {
                    let scaler = Step::Scaler(of(offsets, feature)?, of(scales, feature)?);
                    steps.insert(0, scaler);
                }
            }
            _ => return None,
        }
        name = node.inputs.first()?;
    }
    Some(steps)
}

/// The weights of one leaf: output and number.
type Weights = Vec<(usize, f32)>;

fn ensemble(node: &Node<'_>, classifier: bool, features: usize) -> Option<(Ensemble, Transform)> {
    let known = [
        "base_values_as_tensor",
        "nodes_values_as_tensor",
        "class_weights_as_tensor",
        "target_weights_as_tensor",
    ];
    if known.iter().any(|name| node.attribute(name).is_some()) {
        return None;
    }
    if !matches!(node.text("aggregate_function"), None | Some("SUM")) {
        return None;
    }
    let kind = if classifier { "class" } else { "target" };
    let list = |what: &str| node.ints(&format!("{kind}_{what}"));
    let (ids, nodes, trees) = (list("ids"), list("nodeids"), list("treeids"));
    let weights = node.floats(&format!("{kind}_weights"));
    if ids.len() != weights.len() || nodes.len() != ids.len() || trees.len() != ids.len() {
        return None;
    }
    let base = node.floats("base_values");
    let form = form(node, classifier, ids, weights, base)?;
    let mut leaves: HashMap<(i64, i64), Weights> = HashMap::new();
    for (position, &weight) in weights.iter().enumerate() {
        let output = if form.outputs == 1 {
            0
        } else {
            usize::try_from(ids[position]).ok()?
        };
        let of_leaf = leaves.entry((trees[position], nodes[position])).or_default();
        if output >= form.outputs || of_leaf.iter().any(|&(other, _)| other == output) {
            return None;
        }
        of_leaf.push((output, weight));
    }
    let mut builder = Builder::new(features, vec![0.0; form.outputs], Link::Identity, Precision::F32);
    builder.offset_by(base.iter().map(|&value| f64::from(value)).collect());
    let all = node.ints("nodes_treeids");
    let mut seen = std::collections::HashSet::new();
    let mut start = 0;
    while start < all.len() {
        let tree = all[start];
        let end = (start..all.len())
            .find(|&place| all[place] != tree)
            .unwrap_or(all.len());
        // ONNX Runtime takes each run of one number for a tree of its own.
        if !seen.insert(tree) {
            return None;
        }
        push(&mut builder, node, start..end, &leaves, form.outputs, features)?;
        start = end;
    }
    Some((builder.finish(), form.transform))
}

/// How sums become an answer.
struct Form {
    outputs: usize,
    transform: Transform,
}

fn form(node: &Node<'_>, classifier: bool, ids: &[i64], weights: &[f32], base: &[f32]) -> Option<Form> {
    let transform = node.text("post_transform").unwrap_or("NONE");
    if !classifier {
        let single = node
            .attribute("n_targets")
            .is_none_or(|targets| targets.int == Some(1));
        let plain = single && transform == "NONE" && base.len() <= 1 && ids.iter().all(|&id| id == 0);
        return plain.then_some(Form {
            outputs: 1,
            transform: Transform::Link(Link::Identity),
        });
    }
    let classes = node
        .ints("classlabels_int64s")
        .len()
        .max(node.texts("classlabels_strings")?.len());
    let link = match transform {
        "NONE" => Link::Identity,
        "LOGISTIC" => Link::LogisticF32,
        "SOFTMAX" => Link::SoftmaxAllF32,
        _ => return None,
    };
    if classes > 2 {
        return (base.is_empty() || base.len() == classes).then_some(Form {
            outputs: classes,
            transform: Transform::Link(link),
        });
    }
    // Of two classes with one weight a leaf, the sum is the second one's.
    let single = ids.windows(2).all(|pair| pair[0] == pair[1]);
    let mixed = weights.iter().any(|&weight| weight < 0.0);
    let transform = match (transform, mixed) {
        ("NONE", false) => Transform::PositivePair,
        ("NONE", true) => Transform::Pair,
        ("LOGISTIC", true) => Transform::LogisticPair,
        _ => return None,
    };
    (single && classes == 2 && base.len() <= 1).then_some(Form {
        outputs: 1,
        transform,
    })
}

fn push(
    builder: &mut Builder,
    node: &Node<'_>,
    places: std::ops::Range<usize>,
    leaves: &HashMap<(i64, i64), Weights>,
    outputs: usize,
    features: usize,
) -> Option<()> {
    let numbers = node.ints("nodes_nodeids");
    let trees = node.ints("nodes_treeids");
    let (on_true, on_false) = (node.ints("nodes_truenodeids"), node.ints("nodes_falsenodeids"));
    let (columns, values) = (node.ints("nodes_featureids"), node.floats("nodes_values"));
    let tracks = node.ints("nodes_missing_value_tracks_true");
    let modes = &node.attribute("nodes_modes")?.texts;
    let mut targets: HashMap<i64, Child> = HashMap::new();
    let (mut splits, mut numbers_of_leaves) = (0, Vec::new());
    for place in places.clone() {
        let target = if *modes.get(place)? == b"LEAF" {
            let leaf = numbers_of_leaves.len() / outputs;
            let start = numbers_of_leaves.len();
            numbers_of_leaves.resize(start + outputs, 0.0);
            for &(output, weight) in leaves.get(&(trees[place], numbers[place])).into_iter().flatten() {
                numbers_of_leaves[start + output] = f64::from(weight);
            }
            !(leaf as Child)
        } else {
            splits += 1;
            splits - 1
        };
        targets.insert(*numbers.get(place)?, target);
    }
    let mut nodes = Vec::with_capacity(splits as usize);
    for place in places.filter(|&place| modes[place] != b"LEAF") {
        let feature = usize::try_from(*columns.get(place)?)
            .ok()
            .filter(|&it| it < features)?;
        let yes = *targets.get(on_true.get(place)?)?;
        let no = *targets.get(on_false.get(place)?)?;
        let value = *values.get(place)?;
        let missing = if tracks.get(place).is_some_and(|&track| track != 0) {
            yes
        } else {
            no
        };
        let (threshold, left, right) = match modes[place] {
            b"BRANCH_LEQ" => (value, yes, no),
            b"BRANCH_LT" => (value.next_down(), yes, no),
            b"BRANCH_GT" => (value, no, yes),
            b"BRANCH_GTE" => (value.next_down(), no, yes),
            _ => return None,
        };
        nodes.push(Split {
            feature: feature as u32,
            left,
            right,
            missing,
            test: Test::AtMost(f64::from(threshold)),
        });
    }
    // The first node of a tree is its root; where that is a leaf, there is nothing else.
    if nodes.is_empty() && numbers_of_leaves.len() != outputs {
        return None;
    }
    builder
        .push(TreeParts {
            output: 0,
            nodes: &nodes,
            leaves: &numbers_of_leaves,
            width: outputs as u32,
            ..TreeParts::default()
        })
        .ok()
}
