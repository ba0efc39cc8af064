//! Nodes that make a tensor from a shape: where the shape stands in the file, it must not be huge.

use std::collections::{HashMap, VecDeque};

use super::OnnxError;
use super::check::{MOST_ELEMENTS, product};
use super::proto::{Attribute, Function, Graph, Model, Node, Tensor};

/// Functions and graphs inside each other that are followed.
const DEEPEST: usize = 64;

/// No shape has more dimensions; longer lists are not followed.
const LONGEST: usize = 64;

type Functions<'a> = HashMap<(&'a str, &'a str), &'a Function<'a>>;

/// Checks a model whose graphs are in order, and whose functions are known to expand to a bounded number of nodes.
pub(super) fn check<'a>(model: &'a Model<'a>) -> Result<(), OnnxError> {
    let functions: Functions<'_> = model
        .functions
        .iter()
        .map(|function| ((function.domain, function.name), function))
        .collect();
    Scope::default().graph(&model.graph, &functions)
}

/// What is known of values: whole numbers that stand in the file.
#[derive(Default)]
struct Scope<'s, 'a> {
    values: HashMap<&'a str, Vec<i64>>,
    outer: Option<&'s Scope<'s, 'a>>,
    /// The node whose function this is.
    call: Option<&'s Node<'a>>,
    depth: usize,
}

impl<'a> Scope<'_, 'a> {
    fn get(&self, name: &str) -> Option<&Vec<i64>> {
        self.values
            .get(name)
            .or_else(|| self.outer.and_then(|outer| outer.get(name)))
    }

    fn insert(&mut self, name: &'a str, values: Option<Vec<i64>>) {
        if let Some(values) = values.filter(|values| values.len() <= LONGEST) {
            self.values.insert(name, values);
        }
    }

    fn graph(mut self, graph: &'a Graph<'a>, functions: &Functions<'a>) -> Result<(), OnnxError> {
        for tensor in &graph.initializers {
            self.insert(tensor.name, tensor.whole());
        }
        self.nodes(&graph.nodes, functions).map(|_| ())
    }

    fn nodes(mut self, nodes: &'a [Node<'a>], functions: &Functions<'a>) -> Result<Self, OnnxError> {
        if self.depth > DEEPEST {
            return Err(OnnxError::TooLarge(format!(
                "its functions call each other deeper than {DEEPEST}"
            )));
        }
        for place in order(nodes) {
            let node = &nodes[place];
            self.size(node)?;
            let known = self.made(node);
            if let Some(&output) = node.outputs.first() {
                self.insert(output, known);
            }
            if let Some(function) = functions.get(&(node.domain, node.op)) {
                let arguments = function.inputs.iter().zip(&node.inputs);
                let body = Scope {
                    values: arguments
                        .filter_map(|(&name, input)| Some((name, self.get(input)?.clone())))
                        .collect(),
                    outer: None,
                    call: Some(node),
                    depth: self.depth + 1,
                };
                let body = body.nodes(&function.nodes, functions)?;
                let results: Vec<_> = function
                    .outputs
                    .iter()
                    .map(|name| body.get(name).cloned())
                    .collect();
                for (&output, result) in node.outputs.iter().zip(results) {
                    self.insert(output, result);
                }
            }
        }
        // Last, as they may read whatever is made beside them.
        for node in nodes {
            for graph in node.attributes.iter().flat_map(|attribute| &attribute.graphs) {
                let body = Scope {
                    values: HashMap::new(),
                    outer: Some(&self),
                    call: self.call,
                    depth: self.depth + 1,
                };
                body.graph(graph, functions)?;
            }
        }
        Ok(self)
    }

    /// An attribute, which may be one of the node whose function this is.
    fn attribute<'n>(&'n self, attribute: &'n Attribute<'a>) -> Option<&'n Attribute<'a>> {
        match attribute.reference {
            Some(name) => self.call?.attribute(name),
            None => Some(attribute),
        }
    }

    /// The whole numbers that a node makes, where they can be told.
    fn made(&self, node: &Node<'a>) -> Option<Vec<i64>> {
        let input = |place: usize| node.inputs.get(place).and_then(|name| self.get(name));
        match node.op {
            "Constant" => {
                let value = self.attribute(node.attributes.first()?)?;
                match node.attributes.first()?.name {
                    "value_ints" => Some(value.ints.clone()),
                    "value_int" => value.int.map(|int| vec![int]),
                    _ => value.tensors.first().and_then(Tensor::whole),
                }
            }
            // These change the type or the shape, not the numbers.
            "Identity" | "Cast" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => input(0).cloned(),
            "Concat" => {
                let mut all = Vec::new();
                for place in 0..node.inputs.len().min(LONGEST + 1) {
                    all.extend_from_slice(input(place)?);
                }
                Some(all)
            }
            "Add" | "Mul" => {
                let (left, right) = (input(0)?, input(1)?);
                let length = left.len().max(right.len());
                let at = |values: &[i64], place: usize| values.get(place).or(values.last()).copied();
                let numbers = (0..length).map(|place| {
                    let (left, right) = (at(left, place)?, at(right, place)?);
                    Some(if node.op == "Add" {
                        left.saturating_add(right)
                    } else {
                        left.saturating_mul(right)
                    })
                });
                numbers.collect()
            }
            _ => None,
        }
    }

    fn size(&self, node: &Node<'a>) -> Result<(), OnnxError> {
        let input = |place: usize| node.inputs.get(place).and_then(|name| self.get(name));
        let elements = match node.op {
            "ConstantOfShape" => input(0).map(|shape| product(shape)),
            "Expand" | "Tile" => input(1).map(|shape| product(shape)),
            "Pad" => input(1).map(|pads| {
                let positive: Vec<i64> = pads.iter().map(|&pad| pad.max(0).saturating_add(1)).collect();
                product(&positive)
            }),
            "RandomNormal" | "RandomUniform" => node
                .attribute("shape")
                .and_then(|shape| self.attribute(shape))
                .map(|shape| product(&shape.ints)),
            "Range" => match (input(0), input(1), input(2)) {
                (Some(start), Some(end), Some(step)) => Some(range(start, end, step)),
                _ => None,
            },
            _ => None,
        };
        // A negative extent in a shape is refused by ONNX Runtime itself.
        let too_large = match elements {
            Some(Some(elements)) => elements > MOST_ELEMENTS,
            Some(None) => true,
            None => false,
        };
        if too_large {
            return Err(OnnxError::TooLarge(format!(
                "`{}` makes `{}`, which would have more than {MOST_ELEMENTS} elements",
                node.op,
                node.outputs.first().unwrap_or(&"")
            )));
        }
        Ok(())
    }
}

/// An order in which nodes find what they read; a file need not have them in one. Those that read each other in a circle are not in it.
pub(super) fn order(nodes: &[Node<'_>]) -> Vec<usize> {
    let outputs = nodes
        .iter()
        .enumerate()
        .flat_map(|(place, node)| node.outputs.iter().map(move |&output| (output, place)));
    let maker: HashMap<&str, usize> = outputs.collect();
    let mut waiting = vec![0_usize; nodes.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (place, node) in nodes.iter().enumerate() {
        for &from in node
            .inputs
            .iter()
            .filter(|name| !name.is_empty())
            .filter_map(|name| maker.get(name))
        {
            readers[from].push(place);
            waiting[place] += 1;
        }
    }
    let mut ready: VecDeque<usize> = (0..nodes.len()).filter(|&place| waiting[place] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(place) = ready.pop_front() {
        order.push(place);
        for &reader in &readers[place] {
            waiting[reader] -= 1;
            if waiting[reader] == 0 {
                ready.push_back(reader);
            }
        }
    }
    order
}

fn range(start: &[i64], end: &[i64], step: &[i64]) -> Option<u64> {
    let (&[start], &[end], &[step]) = (start, end, step) else {
        return Some(0);
    };
    let span = i128::from(end) - i128::from(start);
    let steps = span.checked_div(i128::from(step))?;
    u64::try_from(steps.max(0)).ok()
}
