//! What a file must not do, checked before ONNX Runtime sees it: read other files, claim memory that it does not fill, or run in
//! circles.

use std::collections::{HashMap, HashSet};

use tidemill_core::ports::ModelBundle;

use super::proto::{Attribute, Function, Graph, Model, Node, SparseTensor, Tensor, ValueInfo};
use super::{OnnxError, ends, sizes};

/// Elements of a tensor that a file asks for without holding its data: 2^28, a gibibyte of `float`.
pub(super) const MOST_ELEMENTS: u64 = 1 << 28;

/// Nodes of a model, its functions expanded.
const MOST_NODES: u64 = 1 << 20;

/// Domains of operators that ONNX Runtime has, and their highest version that is known here. ONNX Runtime says which of these it
/// is too old for.
const DOMAINS: [(&str, i64); 5] = [
    ("", 30),
    ("ai.onnx", 30),
    ("ai.onnx.ml", 8),
    ("com.microsoft", 1),
    ("com.microsoft.nchwc", 1),
];

/// Checks a model that lies in a bundle.
pub(super) fn check(model: &Model<'_>, bundle: &ModelBundle) -> Result<(), OnnxError> {
    check_opsets(model)?;
    let functions = Functions::new(&model.functions)?;
    let check = Check {
        bundle,
        functions: &functions,
    };
    let mut nodes = 0;
    check.graph(&model.graph, &HashSet::new(), &mut nodes)?;
    for function in &model.functions {
        let known: HashSet<&str> = function.inputs.iter().copied().collect();
        check.nodes(&function.nodes, &known, &mut 0)?;
    }
    ends::check(model)?;
    // Last: how far functions expand is bounded by now.
    sizes::check(model)
}

fn check_opsets(model: &Model<'_>) -> Result<(), OnnxError> {
    if model.opsets.is_empty() {
        return Err(OnnxError::Opset("it names no opset".into()));
    }
    let local: HashSet<&str> = model.functions.iter().map(|function| function.domain).collect();
    for &(domain, version) in &model.opsets {
        match DOMAINS.iter().find(|(known, _)| *known == domain) {
            Some(&(_, highest)) if (1..=highest).contains(&version) => {}
            Some(_) => {
                return Err(OnnxError::Opset(format!(
                    "it needs version {version} of `{domain}`"
                )));
            }
            None if local.contains(domain) => {}
            None => return Err(OnnxError::Opset(format!("it needs operators of `{domain}`"))),
        }
    }
    Ok(())
}

/// The functions of a model, and to how many nodes each expands.
struct Functions<'a> {
    sizes: HashMap<(&'a str, &'a str), u64>,
}

impl<'a> Functions<'a> {
    fn new(functions: &'a [Function<'a>]) -> Result<Self, OnnxError> {
        let by_name: HashMap<(&str, &str), &Function<'_>> = functions
            .iter()
            .map(|function| ((function.domain, function.name), function))
            .collect();
        if by_name.len() != functions.len() {
            return Err(OnnxError::Cycle("a function is defined twice".into()));
        }
        // Each round adds the functions whose own calls are all known; what is left in the end calls itself.
        let mut sizes: HashMap<(&str, &str), u64> = HashMap::new();
        loop {
            let before = sizes.len();
            for (&name, function) in &by_name {
                if sizes.contains_key(&name) {
                    continue;
                }
                let mut size = 0_u64;
                if expand(&function.nodes, &by_name, &sizes, &mut size) {
                    sizes.insert(name, size);
                }
            }
            if sizes.len() == functions.len() {
                return Ok(Self { sizes });
            }
            if sizes.len() == before {
                return Err(OnnxError::Cycle("functions call each other in a circle".into()));
            }
        }
    }
}

/// Counts the nodes that these become; false if they call a function whose size is not known yet.
fn expand<'a>(
    nodes: &[Node<'a>],
    functions: &HashMap<(&'a str, &'a str), &Function<'a>>,
    sizes: &HashMap<(&'a str, &'a str), u64>,
    size: &mut u64,
) -> bool {
    for node in nodes {
        let name = (node.domain, node.op);
        if functions.contains_key(&name) {
            let Some(inner) = sizes.get(&name) else {
                return false;
            };
            *size = size.saturating_add(*inner);
        }
        *size = size.saturating_add(1);
        for graph in node.attributes.iter().flat_map(|attribute| &attribute.graphs) {
            if !expand(&graph.nodes, functions, sizes, size) {
                return false;
            }
        }
    }
    true
}

struct Check<'a> {
    bundle: &'a ModelBundle,
    functions: &'a Functions<'a>,
}

impl Check<'_> {
    fn graph<'a>(
        &self,
        graph: &'a Graph<'a>,
        outer: &HashSet<&'a str>,
        nodes: &mut u64,
    ) -> Result<(), OnnxError> {
        let mut known: HashSet<&str> = outer.clone();
        for info in graph.inputs.iter().chain(&graph.outputs) {
            declared(info)?;
        }
        known.extend(graph.inputs.iter().map(|input| input.name));
        for tensor in &graph.initializers {
            self.tensor(tensor)?;
            known.insert(tensor.name);
        }
        for sparse in &graph.sparse {
            self.sparse(sparse)?;
            known.insert(sparse.values.name);
        }
        self.nodes(&graph.nodes, &known, nodes)
    }

    /// Kahn's algorithm: the nodes have an order in which each finds its inputs.
    fn nodes<'a>(
        &self,
        nodes: &'a [Node<'a>],
        known: &HashSet<&'a str>,
        count: &mut u64,
    ) -> Result<(), OnnxError> {
        let mut maker: HashMap<&str, usize> = HashMap::new();
        for (number, node) in nodes.iter().enumerate() {
            *count = count.saturating_add(1);
            if let Some(size) = self.functions.sizes.get(&(node.domain, node.op)) {
                *count = count.saturating_add(*size);
            }
            if *count > MOST_NODES {
                return Err(OnnxError::TooLarge(format!(
                    "it has more than {MOST_NODES} nodes, its functions expanded"
                )));
            }
            for &output in node.outputs.iter().filter(|output| !output.is_empty()) {
                if maker.insert(output, number).is_some() || known.contains(output) {
                    return Err(OnnxError::Cycle(format!("`{output}` is made twice")));
                }
            }
        }
        for node in nodes {
            let mut inputs = node.inputs.iter().filter(|input| !input.is_empty());
            if let Some(input) = inputs.find(|&input| !maker.contains_key(input) && !known.contains(input)) {
                return Err(OnnxError::Cycle(format!(
                    "`{}` reads `{input}`, which nothing makes",
                    node.op
                )));
            }
        }
        if sizes::order(nodes).len() != nodes.len() {
            return Err(OnnxError::Cycle("its nodes read each other in a circle".into()));
        }
        let with_graphs = |node: &&Node<'_>| node.attributes.iter().any(|it| !it.graphs.is_empty());
        let mut inner_known = None;
        for node in nodes {
            for attribute in &node.attributes {
                for tensor in &attribute.tensors {
                    self.tensor(tensor)?;
                }
                for sparse in &attribute.sparse {
                    self.sparse(sparse)?;
                }
            }
            if with_graphs(&node) {
                let known = inner_known.get_or_insert_with(|| {
                    let mut known = known.clone();
                    known.extend(maker.keys().copied());
                    known
                });
                for graph in node.attributes.iter().flat_map(|it: &Attribute<'_>| &it.graphs) {
                    self.graph(graph, known, count)?;
                }
            }
            trees(node)?;
        }
        Ok(())
    }

    fn tensor(&self, tensor: &Tensor<'_>) -> Result<(), OnnxError> {
        let name = tensor.name;
        let elements = product(&tensor.dims)
            .ok_or_else(|| OnnxError::TooLarge(format!("tensor `{name}` has shape {:?}", tensor.dims)))?;
        if tensor.external || tensor.location.is_some() {
            return self.external(tensor, elements);
        }
        let (size, held) = match (element_bits(tensor.data_type), tensor.raw) {
            (_, None) if tensor.data_type == STRING => (1, tensor.texts as u64),
            (Some(bits), Some(raw)) => ((elements.saturating_mul(bits)).div_ceil(8), raw.len() as u64),
            (Some(_), None) => {
                let typed = tensor.floats.len() + tensor.ints.len() + tensor.doubles / 8;
                // Complex numbers take two, and types of four bits share one.
                let needed = match tensor.data_type {
                    14 | 15 => elements.saturating_mul(2),
                    21..=25 => elements.div_ceil(2).min(typed as u64),
                    _ => elements,
                };
                (needed, typed as u64)
            }
            _ => {
                return Err(OnnxError::Unsupported(format!(
                    "tensor `{name}` has element type {}",
                    tensor.data_type
                )));
            }
        };
        let needed = if tensor.data_type == STRING {
            elements
        } else {
            size
        };
        if needed != held {
            return Err(OnnxError::TooLarge(format!(
                "tensor `{name}` of shape {:?} needs {needed} elements or bytes and holds {held}",
                tensor.dims
            )));
        }
        Ok(())
    }

    /// Data in another file: it has to lie in the bundle, under a plain name.
    fn external(&self, tensor: &Tensor<'_>, elements: u64) -> Result<(), OnnxError> {
        let name = tensor.name;
        let location = tensor.location.ok_or_else(|| {
            OnnxError::ExternalData(format!("tensor `{name}` does not say in which file it is"))
        })?;
        if !is_plain(location) {
            return Err(OnnxError::ExternalData(format!(
                "tensor `{name}` lies in `{location}`, which is no plain file name"
            )));
        }
        let file = self.bundle.get(location).ok_or_else(|| {
            OnnxError::ExternalData(format!(
                "tensor `{name}` lies in `{location}`, which is not in the bundle"
            ))
        })?;
        let needed = element_bits(tensor.data_type)
            .map(|bits| elements.saturating_mul(bits).div_ceil(8))
            .ok_or_else(|| {
                OnnxError::Unsupported(format!("tensor `{name}` of its type lies in another file"))
            })?;
        let length = tensor.length.unwrap_or(needed);
        let fits = length == needed
            && tensor
                .offset
                .checked_add(length)
                .is_some_and(|end| end <= file.len() as u64);
        if !fits {
            return Err(OnnxError::ExternalData(format!(
                "tensor `{name}` needs {needed} bytes, and `{location}` does not hold them where it says"
            )));
        }
        Ok(())
    }

    fn sparse(&self, sparse: &SparseTensor<'_>) -> Result<(), OnnxError> {
        self.tensor(&sparse.values)?;
        self.tensor(&sparse.indices)?;
        let elements = product(&sparse.dims).filter(|&elements| elements <= MOST_ELEMENTS);
        elements.map(|_| ()).ok_or_else(|| {
            OnnxError::TooLarge(format!(
                "sparse tensor `{}` has shape {:?}",
                sparse.values.name, sparse.dims
            ))
        })
    }
}

/// Whether a name is one of a file that lies beside the model.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\', ':', '\0']) && !name.starts_with('.')
}

const STRING: i64 = 8;

/// Bits an element of `TensorProto.DataType`.
fn element_bits(data_type: i64) -> Option<u64> {
    Some(match data_type {
        2 | 3 | 9 | 17..=20 | 24 => 8,
        4 | 5 | 10 | 16 => 16,
        1 | 6 | 12 => 32,
        7 | 11 | 13 | 14 => 64,
        15 => 128,
        21..=23 => 4,
        25 | 26 => 2,
        _ => return None,
    })
}

/// How many elements; `None` for a negative extent, or more than can be counted.
pub(super) fn product(dims: &[i64]) -> Option<u64> {
    dims.iter().try_fold(1_u64, |product, &extent| {
        product.checked_mul(u64::try_from(extent).ok()?)
    })
}

/// An input's or output's shape: what is fixed in it must not be huge.
fn declared(info: &ValueInfo<'_>) -> Result<(), OnnxError> {
    let fixed: Vec<i64> = info
        .shape
        .iter()
        .flatten()
        .copied()
        .filter(|&extent| extent > 0)
        .collect();
    match product(&fixed) {
        Some(elements) if elements <= MOST_ELEMENTS => Ok(()),
        _ => Err(OnnxError::TooLarge(format!(
            "`{}` has shape {:?}",
            info.name,
            info.shape.as_deref().unwrap_or_default()
        ))),
    }
}

/// The lists that describe the nodes of a tree ensemble have one length, and its children are there and lead to an end.
fn trees(node: &Node<'_>) -> Result<(), OnnxError> {
    if !matches!(node.op, "TreeEnsembleClassifier" | "TreeEnsembleRegressor") {
        return Ok(());
    }
    let broken = |what: String| Err(OnnxError::Cycle(format!("the trees of `{}`: {what}", node.op)));
    let (trees, numbers) = (node.ints("nodes_treeids"), node.ints("nodes_nodeids"));
    let sides = [node.ints("nodes_truenodeids"), node.ints("nodes_falsenodeids")];
    let modes = node
        .attribute("nodes_modes")
        .map_or(&[][..], |modes| &modes.texts);
    let features = node.ints("nodes_featureids");
    let lengths = [
        trees.len(),
        sides[0].len(),
        sides[1].len(),
        modes.len(),
        features.len(),
    ];
    if lengths.iter().any(|&length| length != numbers.len()) {
        return broken("their lists are of different lengths".into());
    }
    let there: HashMap<(i64, i64), usize> = (0..numbers.len())
        .map(|place| ((trees[place], numbers[place]), place))
        .collect();
    if there.len() != numbers.len() {
        return broken("a node is there twice".into());
    }
    let mut parents = vec![0_usize; numbers.len()];
    let mut children = vec![[usize::MAX; 2]; numbers.len()];
    for place in (0..numbers.len()).filter(|&place| modes[place] != b"LEAF") {
        for (side, child) in sides.iter().zip(&mut children[place]) {
            let Some(&found) = there.get(&(trees[place], side[place])) else {
                return broken(format!(
                    "node {} of tree {} has a child {} that is not there",
                    numbers[place], trees[place], side[place]
                ));
            };
            parents[found] += 1;
            *child = found;
        }
    }
    let mut ready: Vec<usize> = (0..numbers.len()).filter(|&place| parents[place] == 0).collect();
    let mut done = 0;
    while let Some(place) = ready.pop() {
        done += 1;
        for child in children[place].into_iter().filter(|&child| child != usize::MAX) {
            parents[child] -= 1;
            if parents[child] == 0 {
                ready.push(child);
            }
        }
    }
    if done == numbers.len() {
        return Ok(());
    }
    broken("their nodes lead in a circle".into())
}
