//! What an ONNX file says, read without copying its weights.
//!
//! Source: `onnx/onnx.proto` of ONNX 1.23 (field numbers and their meaning).

use std::collections::HashSet;

use super::OnnxError;
use super::wire::{Fields, Value};

/// `ModelProto`.
#[derive(Debug, Default)]
pub(super) struct Model<'a> {
    pub opsets: Vec<(&'a str, i64)>,
    pub graph: Graph<'a>,
    pub functions: Vec<Function<'a>>,
}

/// `GraphProto`.
#[derive(Debug, Default)]
pub(super) struct Graph<'a> {
    pub nodes: Vec<Node<'a>>,
    pub initializers: Vec<Tensor<'a>>,
    pub sparse: Vec<SparseTensor<'a>>,
    pub inputs: Vec<ValueInfo<'a>>,
    pub outputs: Vec<ValueInfo<'a>>,
}

/// `FunctionProto`.
#[derive(Debug, Default)]
pub(super) struct Function<'a> {
    pub name: &'a str,
    pub domain: &'a str,
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    pub nodes: Vec<Node<'a>>,
}

/// `NodeProto`.
#[derive(Debug, Default)]
pub(super) struct Node<'a> {
    pub op: &'a str,
    pub domain: &'a str,
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    pub attributes: Vec<Attribute<'a>>,
}

/// `AttributeProto`.
#[derive(Debug, Default)]
pub(super) struct Attribute<'a> {
    pub name: &'a str,
    pub float: Option<f32>,
    pub int: Option<i64>,
    pub text: Option<&'a [u8]>,
    pub floats: Vec<f32>,
    pub ints: Vec<i64>,
    pub texts: Vec<&'a [u8]>,
    pub tensors: Vec<Tensor<'a>>,
    pub sparse: Vec<SparseTensor<'a>>,
    pub graphs: Vec<Graph<'a>>,
    /// In a function: the attribute of its call whose value this has.
    pub reference: Option<&'a str>,
}

/// `TensorProto`. Typed data is counted, not kept, unless it is small.
#[derive(Debug, Default)]
pub(super) struct Tensor<'a> {
    pub name: &'a str,
    pub dims: Vec<i64>,
    pub data_type: i64,
    pub raw: Option<&'a [u8]>,
    pub floats: Vec<f32>,
    pub ints: Vec<i64>,
    pub texts: usize,
    /// Bytes of packed double-precision numbers.
    pub doubles: usize,
    pub location: Option<&'a str>,
    pub offset: u64,
    pub length: Option<u64>,
    pub external: bool,
}

/// `SparseTensorProto`.
#[derive(Debug, Default)]
pub(super) struct SparseTensor<'a> {
    pub values: Tensor<'a>,
    pub indices: Tensor<'a>,
    pub dims: Vec<i64>,
}

/// `ValueInfoProto` of a tensor; `element` 0 is another kind of value, or none.
#[derive(Debug, Default, Clone)]
pub(super) struct ValueInfo<'a> {
    pub name: &'a str,
    pub element: i64,
    /// `None` where the shape is not said; -1 for a dimension of any extent.
    pub shape: Option<Vec<i64>>,
    pub is_tensor: bool,
}

/// Graphs inside each other.
const DEEPEST: usize = 16;

/// Reads a file.
pub(super) fn read(bytes: &[u8]) -> Result<Model<'_>, OnnxError> {
    let mut model = Model::default();
    let mut graphs = 0;
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            7 => {
                model.graph = graph(value.bytes()?, 0)?;
                graphs += 1;
            }
            8 => model.opsets.push(opset(value.bytes()?)?),
            25 => model.functions.push(function(value.bytes()?)?),
            _ => {}
        }
    }
    match graphs {
        1 => Ok(model),
        0 => Err(OnnxError::wire("there is no graph in it")),
        // Another reader would join them, and run what was not checked here.
        _ => Err(OnnxError::wire("it has several graphs")),
    }
}

fn opset(bytes: &[u8]) -> Result<(&str, i64), OnnxError> {
    let (mut domain, mut version) = ("", 0);
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => domain = value.text()?,
            2 => version = value.int()?,
            _ => {}
        }
    }
    Ok((domain, version))
}

fn function(bytes: &[u8]) -> Result<Function<'_>, OnnxError> {
    let mut function = Function::default();
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => function.name = value.text()?,
            4 => function.inputs.push(value.text()?),
            5 => function.outputs.push(value.text()?),
            7 => function.nodes.push(node(value.bytes()?, 0)?),
            10 => function.domain = value.text()?,
            _ => {}
        }
    }
    Ok(function)
}

fn graph(bytes: &[u8], depth: usize) -> Result<Graph<'_>, OnnxError> {
    if depth > DEEPEST {
        return Err(OnnxError::wire(format!(
            "graphs are nested deeper than {DEEPEST}"
        )));
    }
    let mut graph = Graph::default();
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => graph.nodes.push(node(value.bytes()?, depth)?),
            5 => graph.initializers.push(tensor(value.bytes()?)?),
            11 => graph.inputs.push(value_info(value.bytes()?)?),
            12 => graph.outputs.push(value_info(value.bytes()?)?),
            15 => graph.sparse.push(sparse(value.bytes()?)?),
            _ => {}
        }
    }
    Ok(graph)
}

fn node(bytes: &[u8], depth: usize) -> Result<Node<'_>, OnnxError> {
    let mut node = Node::default();
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => node.inputs.push(value.text()?),
            2 => node.outputs.push(value.text()?),
            4 => node.op = value.text()?,
            5 => node.attributes.push(attribute(value.bytes()?, depth)?),
            7 => node.domain = value.text()?,
            _ => {}
        }
    }
    let names: HashSet<&str> = node.attributes.iter().map(|attribute| attribute.name).collect();
    if names.len() != node.attributes.len() {
        // Another reader would take the other one, which was not checked here.
        return Err(OnnxError::wire(format!(
            "a node `{}` has an attribute twice",
            node.op
        )));
    }
    Ok(node)
}

fn attribute(bytes: &[u8], depth: usize) -> Result<Attribute<'_>, OnnxError> {
    let mut attribute = Attribute::default();
    let (mut tensors, mut graphs, mut sparse_tensors) = (0, 0, 0);
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => attribute.name = value.text()?,
            2 => attribute.float = Some(value.float()?),
            3 => attribute.int = Some(value.int()?),
            4 => attribute.text = Some(value.bytes()?),
            5 | 10 => {
                tensors += usize::from(field == 5);
                attribute.tensors.push(tensor(value.bytes()?)?);
            }
            6 | 11 => {
                graphs += usize::from(field == 6);
                attribute.graphs.push(graph(value.bytes()?, depth + 1)?);
            }
            7 => value.floats(&mut attribute.floats)?,
            8 => value.ints(&mut attribute.ints)?,
            9 => attribute.texts.push(value.bytes()?),
            21 => attribute.reference = Some(value.text()?),
            22 | 23 => {
                sparse_tensors += usize::from(field == 22);
                attribute.sparse.push(sparse(value.bytes()?)?);
            }
            _ => {}
        }
    }
    if tensors.max(graphs).max(sparse_tensors) > 1 {
        return Err(OnnxError::wire(format!(
            "attribute `{}` says its value twice",
            attribute.name
        )));
    }
    Ok(attribute)
}

fn tensor(bytes: &[u8]) -> Result<Tensor<'_>, OnnxError> {
    let mut tensor = Tensor::default();
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => value.ints(&mut tensor.dims)?,
            2 => tensor.data_type = value.int()?,
            4 => value.floats(&mut tensor.floats)?,
            5 | 7 | 11 => value.ints(&mut tensor.ints)?,
            6 => tensor.texts += 1,
            8 => tensor.name = value.text()?,
            9 => tensor.raw = Some(value.bytes()?),
            10 => {
                tensor.doubles += match value {
                    Value::Fixed64 => 8,
                    other => other.bytes()?.len(),
                }
            }
            13 => external(value.bytes()?, &mut tensor)?,
            14 => tensor.external = value.int()? == 1,
            _ => {}
        }
    }
    Ok(tensor)
}

/// `StringStringEntryProto` of external data.
fn external<'a>(bytes: &'a [u8], tensor: &mut Tensor<'a>) -> Result<(), OnnxError> {
    let (mut key, mut text) = ("", "");
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => key = value.text()?,
            2 => text = value.text()?,
            _ => {}
        }
    }
    let number = || {
        text.parse()
            .map_err(|_| OnnxError::ExternalData(format!("`{key}` of tensor `{}` is `{text}`", tensor.name)))
    };
    match key {
        "location" => tensor.location = Some(text),
        "offset" => tensor.offset = number()?,
        "length" => tensor.length = Some(number()?),
        _ => {}
    }
    Ok(())
}

fn sparse(bytes: &[u8]) -> Result<SparseTensor<'_>, OnnxError> {
    let mut sparse = SparseTensor::default();
    let mut parts = [0; 2];
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => {
                parts[0] += 1;
                sparse.values = tensor(value.bytes()?)?;
            }
            2 => {
                parts[1] += 1;
                sparse.indices = tensor(value.bytes()?)?;
            }
            3 => value.ints(&mut sparse.dims)?,
            _ => {}
        }
    }
    if parts.iter().any(|&count| count > 1) {
        return Err(OnnxError::wire(
            "a sparse tensor says its values or indices twice",
        ));
    }
    Ok(sparse)
}

fn value_info(bytes: &[u8]) -> Result<ValueInfo<'_>, OnnxError> {
    let mut info = ValueInfo::default();
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => info.name = value.text()?,
            2 => kind(value.bytes()?, &mut info)?,
            _ => {}
        }
    }
    Ok(info)
}

/// `TypeProto`: only tensors are looked at.
fn kind(bytes: &[u8], info: &mut ValueInfo<'_>) -> Result<(), OnnxError> {
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        if field != 1 {
            continue;
        }
        info.is_tensor = true;
        let mut fields = Fields(value.bytes()?);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => info.element = value.int()?,
                2 => info.shape = Some(shape(value.bytes()?)?),
                _ => {}
            }
        }
    }
    Ok(())
}

fn shape(bytes: &[u8]) -> Result<Vec<i64>, OnnxError> {
    let mut shape = Vec::new();
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        if field != 1 {
            continue;
        }
        let mut extent = -1;
        let mut fields = Fields(value.bytes()?);
        while let Some((field, value)) = fields.next()? {
            if field == 1 {
                extent = value.int()?;
            }
        }
        shape.push(extent);
    }
    Ok(shape)
}

impl<'a> Node<'a> {
    /// An attribute.
    pub fn attribute(&self, name: &str) -> Option<&Attribute<'a>> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// The whole numbers of an attribute.
    pub fn ints(&self, name: &str) -> &[i64] {
        self.attribute(name).map_or(&[], |found| &found.ints)
    }

    /// The single-precision numbers of an attribute.
    pub fn floats(&self, name: &str) -> &[f32] {
        self.attribute(name).map_or(&[], |found| &found.floats)
    }

    /// The text of an attribute.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.attribute(name)?.text?).ok()
    }

    /// The texts of an attribute; `None` if one is not UTF-8.
    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        let texts = self.attribute(name).map_or(&[][..], |found| &found.texts);
        texts
            .iter()
            .map(|text| String::from_utf8(text.to_vec()).ok())
            .collect()
    }
}

impl Tensor<'_> {
    /// Its elements as whole numbers, where it holds such.
    pub fn whole(&self) -> Option<Vec<i64>> {
        match (self.data_type, self.raw) {
            (7, Some(raw)) => Some(
                raw.as_chunks::<8>()
                    .0
                    .iter()
                    .map(|bytes| i64::from_le_bytes(*bytes))
                    .collect(),
            ),
            (6, Some(raw)) => {
                let chunks = raw.as_chunks::<4>().0.iter();
                Some(
                    chunks
                        .map(|bytes| i64::from(i32::from_le_bytes(*bytes)))
                        .collect(),
                )
            }
            (6 | 7, None) => Some(self.ints.clone()),
            _ => None,
        }
    }
}
