//! Whether graphs hang together: every name is known, every input is connected, nothing runs in a circle.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::super::routing::{Finding, check_weights};
use super::steps::{check_step, cholesky};
use super::{Combine, EnsembleNode, GraphSpec, NodeSpec, OutlierMethod, OutlierNode, Reference};

/// A graph has at most so many nodes …
const MOST_NODES: usize = 256;
/// … of which at most so many run one after the other.
const DEEPEST: usize = 32;

fn good_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.chars().all(good)
}

fn nearest<'a>(got: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|name| (strsim::jaro_winkler(got, name), name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity > 0.7)
        .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}

/// All graphs of a spec. `taken`: the name of the project's own endpoint.
pub(crate) fn check_all(graphs: &IndexMap<String, GraphSpec>, taken: &str) -> Result<(), Finding> {
    for (name, graph) in graphs {
        if name == taken {
            let message = format!("`{name}` is the name of the project's endpoint; give the graph another");
            return Err((format!("graphs.{name}"), message));
        }
        graph.check(name)?;
    }
    check_circles(graphs)
}

/// Graphs that ask one another in a circle.
fn check_circles(graphs: &IndexMap<String, GraphSpec>) -> Result<(), Finding> {
    let edges: BTreeMap<&str, Vec<&str>> = graphs
        .iter()
        .map(|(name, graph)| (name.as_str(), graph.deployments()))
        .collect();
    for name in graphs.keys() {
        if let Err(circle) = depth(name, &edges, &mut Vec::new(), &mut BTreeMap::new()) {
            let message = format!("graphs ask one another in a circle: {circle}");
            return Err((format!("graphs.{name}"), message));
        }
    }
    Ok(())
}

/// How many follow one another up to `name`; an error with the circle that there is.
fn depth<'a>(
    name: &'a str,
    edges: &BTreeMap<&'a str, Vec<&'a str>>,
    path: &mut Vec<&'a str>,
    known: &mut BTreeMap<&'a str, usize>,
) -> Result<usize, String> {
    if let Some(depth) = known.get(name) {
        return Ok(*depth);
    }
    if let Some(place) = path.iter().position(|other| *other == name) {
        let circle: Vec<&str> = path[place..].iter().chain([&name]).copied().collect();
        return Err(circle.join(" → "));
    }
    path.push(name);
    let mut deepest = 0;
    for next in edges.get(name).into_iter().flatten() {
        deepest = deepest.max(depth(next, edges, path, known)?);
    }
    path.pop();
    known.insert(name, deepest + 1);
    Ok(deepest + 1)
}

impl GraphSpec {
    /// Whether it hangs together. `name`: under which it stands in `graphs`.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self, name: &str) -> Result<(), Finding> {
        let key = format!("graphs.{name}");
        let finding = |part: &str, message: String| Err((format!("{key}{part}"), message));
        if !good_name(name) {
            return finding(
                "",
                format!("`{name}` is not a name: use letters, digits, `-` and `_`"),
            );
        }
        if self.nodes.is_empty() || self.nodes.len() > MOST_NODES {
            return finding(
                ".nodes",
                format!("{} nodes; expected 1 to {MOST_NODES}", self.nodes.len()),
            );
        }
        self.serving.check(&format!("{key}.serving"))?;
        for (node_name, node) in &self.nodes {
            let at = format!(".nodes.{node_name}");
            if !good_name(node_name) {
                return finding(
                    &at,
                    format!("`{node_name}` is not a name: use letters, digits, `-` and `_`"),
                );
            }
            if self.inputs.contains_key(node_name) {
                return finding(
                    &at,
                    format!("`{node_name}` is an input of the graph too; give the node another name"),
                );
            }
            if let Err((part, message)) = self.check_node(node) {
                return finding(&format!("{at}{part}"), message);
            }
            if self.serving.cache.is_some() && by_caller(node) {
                return finding(
                    ".serving.cache",
                    format!(
                        "node `{node_name}` answers by header or key, so the same inputs have several answers; remove `cache`, or give it to the models"
                    ),
                );
            }
        }
        self.check_outputs()
            .or_else(|(part, message)| finding(part, message))?;
        self.check_order()
            .or_else(|(node, message)| finding(&format!(".nodes.{node}"), message))?;
        self.check_connected()
            .or_else(|(part, message)| finding(&part, message))
    }

    fn check_outputs(&self) -> Result<(), (&'static str, String)> {
        match (&self.output, self.outputs.is_empty()) {
            (Some(node), true) => self.known_node(node).map_err(|message| (".output", message)),
            (None, false) => self
                .outputs
                .values()
                .try_for_each(|text| self.known_reference(text))
                .map_err(|message| (".outputs", message)),
            _ => {
                let message = "a graph answers with `outputs`, a name for each `NODE.OUTPUT`, or with `output`, a whole node";
                Err((".outputs", message.to_owned()))
            }
        }
    }

    fn check_order(&self) -> Result<(), Finding> {
        let edges: BTreeMap<&str, Vec<&str>> = self
            .nodes
            .iter()
            .map(|(name, node)| (name.as_str(), self.needs(node)))
            .collect();
        let mut known = BTreeMap::new();
        for name in self.nodes.keys() {
            match depth(name, &edges, &mut Vec::new(), &mut known) {
                Err(circle) => {
                    return Err((
                        name.clone(),
                        format!("nodes need one another in a circle: {circle}"),
                    ));
                }
                Ok(depth) if depth > DEEPEST => {
                    let message =
                        format!("{depth} nodes run one after the other; expected at most {DEEPEST}");
                    return Err((name.clone(), message));
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Every node leads to an output, and every input to a node.
    fn check_connected(&self) -> Result<(), Finding> {
        let mut reached = BTreeSet::new();
        let outputs = self
            .outputs
            .values()
            .filter_map(|text| match self.reference(text) {
                Some(Reference::Output { node, .. }) => Some(node),
                _ => None,
            });
        let mut open: Vec<&str> = self.output.iter().map(String::as_str).chain(outputs).collect();
        while let Some(name) = open.pop() {
            if reached.insert(name)
                && let Some(node) = self.nodes.get(name)
            {
                open.extend(self.needs(node));
            }
        }
        if let Some(lost) = self.nodes.keys().find(|name| !reached.contains(name.as_str())) {
            let message =
                "leads to no output; use it in another node or in `outputs`, or remove it".to_owned();
            return Err((format!(".nodes.{lost}"), message));
        }
        // A node that takes the whole request takes every input.
        if self.nodes.values().any(takes_request) {
            return Ok(());
        }
        let mut used: BTreeSet<&str> = self
            .nodes
            .values()
            .flat_map(|node| node.inputs.values())
            .map(String::as_str)
            .collect();
        used.extend(self.outputs.values().map(String::as_str));
        let cases = self
            .nodes
            .values()
            .filter_map(|node| node.switch.as_ref())
            .flat_map(|switch| &switch.cases);
        used.extend(cases.filter_map(|case| case.when.input.as_deref()));
        match self.inputs.keys().find(|input| !used.contains(input.as_str())) {
            Some(lost) => {
                let message = format!("input `{lost}` goes nowhere; give it to a node, or remove it");
                Err((format!(".inputs.{lost}"), message))
            }
            None => Ok(()),
        }
    }

    fn known_node(&self, name: &str) -> Result<(), String> {
        if self.nodes.contains_key(name) {
            return Ok(());
        }
        let hint = nearest(name, self.nodes.keys().map(String::as_str));
        Err(format!("there is no node `{name}`{hint}"))
    }

    fn known_reference(&self, text: &str) -> Result<(), String> {
        match self.reference(text) {
            Some(Reference::Input(_)) => Ok(()),
            Some(Reference::Output { node, output }) => {
                self.known_node(node)?;
                let Some(known) = self.nodes.get(node).and_then(|node| self.known_outputs(node)) else {
                    return Ok(());
                };
                if known.iter().any(|name| name == output) {
                    return Ok(());
                }
                let hint = nearest(output, known.iter().map(String::as_str));
                Err(format!("node `{node}` has no output `{output}`{hint}"))
            }
            None => {
                let nodes = self.nodes.keys().map(String::as_str);
                let hint = nearest(text, self.inputs.keys().map(String::as_str).chain(nodes));
                Err(format!(
                    "`{text}` is neither an input of the graph nor a `NODE.OUTPUT`{hint}"
                ))
            }
        }
    }

    /// The outputs of a node, where the spec tells them.
    fn known_outputs(&self, node: &NodeSpec) -> Option<Vec<String>> {
        if !node.outputs.is_empty() {
            return Some(node.outputs.values().cloned().collect());
        }
        if node.explain.is_some() {
            return Some(vec!["attributions".to_owned(), "base".to_owned()]);
        }
        if node
            .outlier
            .as_ref()
            .is_some_and(|outlier| outlier.answer.is_none())
        {
            return Some(vec!["outlier".to_owned(), "outlier_score".to_owned()]);
        }
        let ensemble = node.ensemble.as_ref()?;
        if ensemble.combine == Combine::FirstSuccess {
            return None;
        }
        match (&ensemble.name, self.reference(ensemble.of.first()?)) {
            (Some(name), _) => Some(vec![name.clone()]),
            (None, Some(Reference::Output { output, .. })) => Some(vec![output.to_owned()]),
            (None, Some(Reference::Input(name))) => Some(vec![name.to_owned()]),
            (None, None) => None,
        }
    }

    fn check_node(&self, node: &NodeSpec) -> Result<(), Finding> {
        let finding = |part: &str, message: String| Err((part.to_owned(), message));
        let kinds = node.kinds();
        if kinds.len() != 1 {
            let got = if kinds.is_empty() {
                "none".to_owned()
            } else {
                format!("`{}`", kinds.join("`, `"))
            };
            let message = format!(
                "a node is exactly one of `model`, `chain`, `ensemble`, `switch`, `splitter`, `transform`, `outlier` or `explain`; this one is {got}"
            );
            return finding("", message);
        }
        if node.input.is_some() && !node.inputs.is_empty() {
            return finding(".input", "a node has `input` or `inputs`, not both".to_owned());
        }
        let own_input = node.ensemble.is_none() && node.switch.is_none() && node.splitter.is_none();
        if !own_input && (node.input.is_some() || !node.inputs.is_empty()) {
            let message = format!(
                "a node of kind `{}` takes the answers that it names, and no input",
                node.kind()
            );
            return finding(".input", message);
        }
        if let Some(input) = &node.input {
            self.known_node(input)
                .map_err(|message| (".input".to_owned(), message))?;
        }
        for text in node.inputs.values() {
            self.known_reference(text)
                .map_err(|message| (".inputs".to_owned(), message))?;
        }
        if let Some(ensemble) = &node.ensemble {
            self.check_ensemble(ensemble)
                .map_err(|message| (".ensemble".to_owned(), message))?;
        }
        if let Some(switch) = &node.switch {
            let broken = |message| (".switch".to_owned(), message);
            if switch.cases.is_empty() {
                return Err(broken("no case".to_owned()));
            }
            for case in &switch.cases {
                case.when.check(true).map_err(broken)?;
                self.known_node(&case.to).map_err(broken)?;
                if let Some(output) = &case.when.output {
                    self.known_reference(output).map_err(broken)?;
                }
                if let Some(input) = &case.when.input
                    && !self.inputs.is_empty()
                    && !self.inputs.contains_key(input)
                {
                    let hint = nearest(input, self.inputs.keys().map(String::as_str));
                    return Err(broken(format!("the graph has no input `{input}`{hint}")));
                }
            }
            if let Some(default) = &switch.default {
                self.known_node(default).map_err(broken)?;
            }
        }
        if let Some(splitter) = &node.splitter {
            let broken = |message| (".splitter".to_owned(), message);
            check_weights(splitter.to.values()).map_err(broken)?;
            splitter
                .to
                .keys()
                .try_for_each(|to| self.known_node(to))
                .map_err(broken)?;
        }
        for (place, step) in node.transform.iter().enumerate() {
            check_step(step)
                .map_err(|message| (".transform".to_owned(), format!("step {}: {message}", place + 1)))?;
        }
        if let Some(outlier) = &node.outlier {
            self.check_outlier(outlier)
                .map_err(|message| (".outlier".to_owned(), message))?;
        }
        if node
            .explain
            .as_ref()
            .is_some_and(|explain| !(1..=4_096).contains(&explain.samples))
        {
            return finding(".explain.samples", "expected 1 to 4096".to_owned());
        }
        Ok(())
    }

    fn check_ensemble(&self, ensemble: &EnsembleNode) -> Result<(), String> {
        if ensemble.of.is_empty() {
            return Err("no member: name them in `of`".to_owned());
        }
        for member in &ensemble.of {
            if ensemble.combine == Combine::FirstSuccess {
                self.known_node(member)?;
            } else {
                self.known_reference(member)?;
            }
        }
        let weighs = matches!(ensemble.combine, Combine::WeightedMean | Combine::Vote);
        let needs = ensemble.combine == Combine::WeightedMean;
        if (needs || !ensemble.weights.is_empty()) && (!weighs || ensemble.weights.len() != ensemble.of.len())
        {
            return Err("`weights` are for `weighted_mean` and `vote`: one for each member".to_owned());
        }
        if !ensemble.weights.is_empty() {
            check_weights(ensemble.weights.iter())?;
        }
        match ensemble.quorum {
            Some(quorum) if quorum == 0 || quorum as usize > ensemble.of.len() => Err(format!(
                "`quorum` is 1 to {}, the number of members",
                ensemble.of.len()
            )),
            _ => Ok(()),
        }
    }

    fn check_outlier(&self, outlier: &OutlierNode) -> Result<(), String> {
        if outlier.method.is_some() == outlier.detector.is_some() {
            return Err("exactly one of `method` and `detector` tells what an outlier is".to_owned());
        }
        if outlier.abstain && outlier.route.is_some() {
            return Err("outliers abstain or are routed, not both".to_owned());
        }
        if outlier.answer.is_none() && (outlier.abstain || outlier.route.is_some()) {
            return Err(
                "`abstain` and `route` need `answer`, the node whose answer outliers do not get".to_owned(),
            );
        }
        outlier
            .answer
            .iter()
            .chain(&outlier.route)
            .try_for_each(|node| self.known_node(node))?;
        let Some(method) = outlier.method else {
            return Ok(());
        };
        if outlier.columns.is_empty() {
            return Err("no column: name them in `columns`, with their statistics".to_owned());
        }
        for (column, known) in &outlier.columns {
            let (there, needs) = match method {
                OutlierMethod::Zscore => (
                    known.mean.is_some() && known.std.is_some_and(|std| std > 0.0),
                    "`mean`, and `std` above 0",
                ),
                OutlierMethod::Iqr => (
                    matches!((known.q1, known.q3), (Some(q1), Some(q3)) if q3 > q1),
                    "`q1` and a larger `q3`",
                ),
                OutlierMethod::Mahalanobis => (known.mean.is_some(), "`mean`"),
            };
            if !there {
                return Err(format!("column `{column}` needs {needs}"));
            }
        }
        if method == OutlierMethod::Mahalanobis {
            let size = outlier.columns.len();
            let square =
                outlier.covariance.len() == size && outlier.covariance.iter().all(|row| row.len() == size);
            if !square || cholesky(&outlier.covariance).is_none() {
                return Err(format!(
                    "`covariance` is {size} rows of {size} numbers, symmetric and positive definite"
                ));
            }
        }
        Ok(())
    }
}

/// Whether the answer depends on who asks.
fn by_caller(node: &NodeSpec) -> bool {
    let header = |case: &super::SwitchCase| case.when.header.is_some();
    node.splitter.is_some()
        || node
            .switch
            .as_ref()
            .is_some_and(|switch| switch.cases.iter().any(header))
}

/// Whether a node takes the whole request.
fn takes_request(node: &NodeSpec) -> bool {
    let own = node.ensemble.is_none() && node.switch.is_none() && node.splitter.is_none();
    own && node.input.is_none() && node.inputs.is_empty()
}
