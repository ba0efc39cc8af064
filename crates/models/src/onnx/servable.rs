//! Any ONNX graph whose inputs and outputs are tensors.

use std::collections::HashMap;
use std::path::Path;

use async_trait::async_trait;
use tidemill_core::ports::{ModelBundle, PortError};
use tidemill_core::servable::{CallContext, Interface, Payload, Servable, Work};
use tidemill_core::spec::Device;
use tidemill_core::tensors::{DataType, Tensor, TensorSpec};

use super::device::Place;
use super::forest::Forest;
use super::proto::{self, Graph, Model, Node, ValueInfo};
use super::sessions::{RunError, Sessions, Settings};
use super::table::class_labels;
use super::wire::Writer;
use super::{OnnxError, check, tensors};

/// Models whose file is at most this large answer on the calling thread.
const LIGHT: usize = 256 * 1024;

/// A graph that answers tensors.
#[derive(Debug)]
pub struct OnnxModel {
    interface: Interface,
    engine: Engine,
    file: String,
    bytes: u64,
}

#[derive(Debug)]
enum Engine {
    /// Our own.
    Forest(Box<Forest>),
    /// ONNX Runtime.
    Sessions {
        sessions: Sessions,
        /// What ONNX Runtime calls each output; not its name where a `ZipMap` is left out.
        names: HashMap<String, String>,
        light: bool,
    },
}

impl OnnxModel {
    /// Loads the file of that name from a bundle, with one thread a call. Trees run on our own engine where that is exact.
    ///
    /// # Errors
    /// If the file is broken or hostile, ONNX Runtime is not here, or does not take it.
    pub fn load(bundle: &ModelBundle, file: &str) -> Result<Self, PortError> {
        Self::load_on(bundle, file, Device::Auto)
    }

    /// The same on a device. Trees run on our own engine, which knows the processor alone, wherever they are asked to.
    ///
    /// # Errors
    /// As [`OnnxModel::load`], and if the device is not here.
    pub fn load_on(bundle: &ModelBundle, file: &str, device: Device) -> Result<Self, PortError> {
        Self::open(bundle, file, true, device).map_err(|error| error.of(file))
    }

    /// The same on ONNX Runtime, whatever is in the file.
    ///
    /// # Errors
    /// As [`OnnxModel::load`].
    pub fn load_on_onnx_runtime(bundle: &ModelBundle, file: &str) -> Result<Self, PortError> {
        Self::open(bundle, file, false, Device::Cpu).map_err(|error| error.of(file))
    }

    /// Loads a file of a folder, with the files beside it that hold its weights. Blocks.
    ///
    /// # Errors
    /// As [`OnnxModel::load`], and if a file cannot be read.
    pub fn load_from(folder: &Path, file: &str, device: Device) -> Result<Self, PortError> {
        let read = |name: &str| {
            std::fs::read(folder.join(name))
                .map_err(|error| PortError::upstream("bundle_io", format!("cannot read `{name}`: {error}")))
        };
        let bytes = read(file)?;
        let model = proto::read(&bytes).map_err(|error| error.of(file))?;
        let mut bundle = ModelBundle::new();
        // What is no plain name is not read, and refused by the check that follows.
        for name in external_files(&model).iter().filter(|name| check::is_plain(name)) {
            bundle.insert(name.clone(), read(name)?);
        }
        drop(model);
        bundle.insert(file.to_owned(), bytes);
        Self::load_on(&bundle, file, device)
    }

    /// Checks a file without loading it, and says what the model takes and gives. ONNX Runtime is not needed.
    ///
    /// # Errors
    /// If the file is broken or hostile, or its inputs and outputs are not all tensors.
    pub fn check(bundle: &ModelBundle, file: &str) -> Result<Interface, PortError> {
        let bytes = crate::manifest::file(bundle, file)?;
        let checked = checked(bytes, bundle).and_then(|model| interface(&model.graph));
        checked.map_err(|error| error.of(file))
    }

    fn open(bundle: &ModelBundle, file: &str, native: bool, device: Device) -> Result<Self, OnnxError> {
        let bytes = bundle
            .get(file)
            .ok_or_else(|| OnnxError::Wire("there is no such file in the bundle".into()))?;
        let model = checked(bytes, bundle)?;
        let mut interface = interface(&model.graph)?;
        let forest = native.then(|| Forest::recognise(&model.graph)).flatten();
        if let Some(forest) = forest {
            tracing::debug!(
                trees = forest.trees(),
                "tree ensemble in an ONNX file, on our own engine"
            );
            interface.platform = "tidemill_trees".into();
            return Ok(Self {
                interface,
                engine: Engine::Forest(Box::new(forest)),
                file: file.to_owned(),
                bytes: 2 * bytes.len() as u64,
            });
        }
        let external = external_files(&model);
        let weights: usize = external
            .iter()
            .filter_map(|name| bundle.get(name))
            .map(Vec::len)
            .sum();
        let mut graph = bytes.clone();
        let mut names = HashMap::new();
        for output in &model.graph.outputs {
            let inside = zipped(&model.graph, output.name).and_then(|node| node.inputs.first().copied());
            if let Some(inside) = inside {
                expose(&mut graph, inside);
            }
            names.insert(output.name.to_owned(), inside.unwrap_or(output.name).to_owned());
        }
        drop(model);
        let settings = Settings {
            device,
            ..Settings::default()
        };
        let sessions = Sessions::open(graph, &external, bundle, settings)?;
        Ok(Self {
            interface,
            bytes: sessions.bytes(),
            engine: Engine::Sessions {
                // A GPU is waited for.
                light: sessions.place() == Place::Cpu && bytes.len() + weights <= LIGHT,
                sessions,
                names,
            },
            file: file.to_owned(),
        })
    }

    /// Where it runs: `cpu`, or `cuda` with its number.
    pub fn device(&self) -> String {
        match &self.engine {
            Engine::Forest(_) => Place::Cpu.to_string(),
            Engine::Sessions { sessions, .. } => sessions.place().to_string(),
        }
    }

    /// Answers on this thread.
    fn run(&self, given: &[Tensor], wanted: &[String]) -> Result<Vec<Tensor>, PortError> {
        let names: Vec<&str> = if wanted.is_empty() {
            self.interface
                .outputs
                .iter()
                .map(|output| output.name.as_str())
                .collect()
        } else {
            wanted.iter().map(String::as_str).collect()
        };
        if let Some(unknown) = names
            .iter()
            .find(|name| !self.interface.outputs.iter().any(|it| it.name == **name))
        {
            return Err(PortError::caller(
                "unknown_output",
                format!("the model has no output `{unknown}`"),
            ));
        }
        match &self.engine {
            Engine::Forest(forest) => forest.run(given, &names),
            Engine::Sessions {
                sessions,
                names: inside,
                ..
            } => {
                let wanted: Vec<(&str, &str)> = names
                    .iter()
                    .map(|&name| (name, inside.get(name).map_or(name, String::as_str)))
                    .collect();
                self.run_session(sessions, given, &wanted)
            }
        }
    }

    /// `wanted` are the outputs' names, and what ONNX Runtime calls them.
    fn run_session(
        &self,
        sessions: &Sessions,
        given: &[Tensor],
        wanted: &[(&str, &str)],
    ) -> Result<Vec<Tensor>, PortError> {
        let inputs: Vec<(&str, &Tensor)> = given
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor))
            .collect();
        sessions.run(&inputs, wanted).map_err(|error| match error {
            RunError::Session(error) => error.of(&self.file),
            RunError::Input(name, error) => {
                PortError::caller("bad_payload", format!("input `{name}`: {error}"))
            }
            RunError::Answer(error) => PortError::caller(
                "bad_payload",
                format!("`{}` does not answer these inputs: {error}", self.file),
            ),
        })
    }
}

#[async_trait]
impl Servable for OnnxModel {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn work(&self) -> Work {
        match self.engine {
            Engine::Forest(_) | Engine::Sessions { light: true, .. } => Work::Light,
            Engine::Sessions { .. } => Work::Heavy,
        }
    }

    async fn call(&self, payload: Payload, context: &CallContext) -> Result<Payload, PortError> {
        let Payload::Tensors(tensors) = payload else {
            return Err(PortError::caller(
                "bad_payload",
                "an ONNX model takes tensors; send them by the Open Inference Protocol",
            ));
        };
        self.run(&tensors, &context.outputs).map(Payload::Tensors)
    }

    fn memory(&self) -> u64 {
        self.bytes
    }

    fn concurrency(&self) -> usize {
        match &self.engine {
            Engine::Forest(_) => usize::MAX,
            Engine::Sessions { sessions, .. } => sessions.limit(),
        }
    }
}

/// Reads and checks a file.
pub(super) fn checked<'a>(bytes: &'a [u8], bundle: &ModelBundle) -> Result<Model<'a>, OnnxError> {
    let model = proto::read(bytes)?;
    check::check(&model, bundle)?;
    Ok(model)
}

/// The files beside the model that hold weights.
pub(super) fn external_files(model: &Model<'_>) -> Vec<String> {
    fn gather(graph: &Graph<'_>, into: &mut Vec<String>) {
        let inner = graph.nodes.iter().flat_map(|node| &node.attributes);
        let tensors = graph
            .initializers
            .iter()
            .chain(inner.clone().flat_map(|attribute| &attribute.tensors));
        into.extend(tensors.filter_map(|tensor| tensor.location).map(str::to_owned));
        for graph in inner.flat_map(|attribute| &attribute.graphs) {
            gather(graph, into);
        }
    }
    let mut files = Vec::new();
    gather(&model.graph, &mut files);
    files.sort_unstable();
    files.dedup();
    files
}

/// Inputs that a request has to bring: not those that the file has values for.
pub(super) fn required<'a, 'b>(graph: &'b Graph<'a>) -> impl Iterator<Item = &'b ValueInfo<'a>> {
    let given: std::collections::HashSet<&str> =
        graph.initializers.iter().map(|tensor| tensor.name).collect();
    graph
        .inputs
        .iter()
        .filter(move |input| !given.contains(input.name))
}

/// The `ZipMap` that makes an output.
pub(super) fn zipped<'a, 'b>(graph: &'b Graph<'a>, output: &str) -> Option<&'b Node<'a>> {
    let maps = graph.nodes.iter().filter(|node| node.op == "ZipMap");
    maps.into_iter().find(|node| node.outputs.contains(&output))
}

/// Makes a value of single-precision numbers an output of the graph. Protocol buffers join messages that come twice, so a second
/// graph that only has this output is enough.
pub(super) fn expose(model: &mut Vec<u8>, name: &str) {
    let tensor = Writer::default().int(1, 1);
    let kind = Writer::default().bytes(1, &tensor.0);
    let info = Writer::default().bytes(1, name.as_bytes()).bytes(2, &kind.0);
    let graph = Writer::default().bytes(12, &info.0);
    model.extend_from_slice(&Writer::default().bytes(7, &graph.0).0);
}

fn interface(graph: &Graph<'_>) -> Result<Interface, OnnxError> {
    let spec = |info: &ValueInfo<'_>| {
        let datatype = tensors::datatype(info.element)
            .filter(|_| info.is_tensor)
            .ok_or_else(|| {
                OnnxError::Unsupported(format!(
                    "`{}` is no tensor; export the model without it",
                    info.name
                ))
            })?;
        let shape = info.shape.clone().unwrap_or_else(|| vec![-1]);
        let extents = shape
            .into_iter()
            .map(|extent| if extent > 0 { extent } else { -1 });
        Ok(TensorSpec::new(info.name, datatype, extents.collect()))
    };
    let inputs = required(graph)
        .map(spec)
        .collect::<Result<Vec<TensorSpec>, OnnxError>>()?;
    let outputs = graph.outputs.iter().map(|output| {
        // What a `ZipMap` gives is a list of maps; what goes into it is the same as a tensor.
        if zipped(graph, output.name).is_none() {
            return spec(output);
        }
        let labels = class_labels(graph);
        let mut scores = TensorSpec::new(output.name, DataType::Fp32, vec![-1, labels.len() as i64]);
        scores.labels = labels;
        Ok(scores)
    });
    let outputs = outputs.collect::<Result<Vec<TensorSpec>, OnnxError>>()?;
    let batches = |specs: &[TensorSpec]| specs.iter().all(|spec| spec.shape.first() == Some(&-1));
    Ok(Interface {
        platform: "onnxruntime_onnx".into(),
        batches: !inputs.is_empty() && batches(&inputs) && batches(&outputs),
        inputs,
        outputs,
        ..Interface::default()
    })
}
