//! Nodes that repeat a graph: ONNX Runtime does it as often as they say, and nothing ends it before.

use std::collections::{HashMap, HashSet};

use super::OnnxError;
use super::proto::{Graph, Model, Node};

/// Nodes of ONNX Runtime's own that generate until a length is reached that may be anything.
const SEARCHES: [&str; 4] = ["BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"];

/// Refuses nodes that may repeat their graph without end. `Scan` is taken where it goes through an input of the model, or through
/// something in the file, once: it ends with that.
pub(super) fn check(model: &Model<'_>) -> Result<(), OnnxError> {
    let bounded = bounded(&model.graph);
    for node in &model.graph.nodes {
        if is_scan(node) {
            let scanned = node.attribute("num_scan_inputs").and_then(|count| count.int);
            let scanned = scanned.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
            let first = node.inputs.len().saturating_sub(scanned);
            if !node.inputs[first..].iter().any(|input| bounded.contains(input)) {
                return Err(endless(node));
            }
        } else {
            one(node)?;
        }
        inner(node)?;
    }
    for function in &model.functions {
        all(&function.nodes)?;
    }
    Ok(())
}

fn all(nodes: &[Node<'_>]) -> Result<(), OnnxError> {
    for node in nodes {
        one(node)?;
        inner(node)?;
    }
    Ok(())
}

fn inner(node: &Node<'_>) -> Result<(), OnnxError> {
    let mut graphs = node.attributes.iter().flat_map(|attribute| &attribute.graphs);
    graphs.try_for_each(|graph| all(&graph.nodes))
}

fn is_scan(node: &Node<'_>) -> bool {
    matches!(node.domain, "" | "ai.onnx") && node.op == "Scan"
}

fn one(node: &Node<'_>) -> Result<(), OnnxError> {
    match node.domain {
        "" | "ai.onnx" if matches!(node.op, "Loop" | "Scan") => Err(endless(node)),
        "com.microsoft" if SEARCHES.contains(&node.op) => Err(endless(node)),
        "ai.onnx.ml" if node.op == "TreeEnsemble" => Err(OnnxError::Unsupported(format!(
            "`TreeEnsemble`, which makes `{}`, is too new; export it with version 3 of `ai.onnx.ml`",
            output(node)
        ))),
        _ => Ok(()),
    }
}

fn output<'a>(node: &Node<'a>) -> &'a str {
    node.outputs.first().copied().unwrap_or_default()
}

fn endless(node: &Node<'_>) -> OnnxError {
    OnnxError::Unsupported(format!(
        "`{}`, which makes `{}`, may repeat its graph without end; export the model without loops, or with a `Scan` through an input of \
         the model",
        node.op,
        output(node)
    ))
}

/// The values that are as long as a request or the file makes them.
fn bounded<'a>(graph: &'a Graph<'a>) -> HashSet<&'a str> {
    let mut bounded: HashSet<&str> = graph.inputs.iter().map(|input| input.name).collect();
    bounded.extend(graph.initializers.iter().map(|tensor| tensor.name));
    let mut copies: HashMap<&str, Vec<&str>> = HashMap::new();
    for node in graph
        .nodes
        .iter()
        .filter(|node| matches!(node.op, "Cast" | "Identity"))
    {
        if let (Some(&from), Some(&to)) = (node.inputs.first(), node.outputs.first()) {
            copies.entry(from).or_default().push(to);
        }
    }
    let mut ready: Vec<&str> = bounded.iter().copied().collect();
    while let Some(name) = ready.pop() {
        for copy in copies.remove(name).into_iter().flatten() {
            bounded.insert(copy);
            ready.push(copy);
        }
    }
    bounded
}
