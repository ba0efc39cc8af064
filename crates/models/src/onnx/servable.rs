//! Any ONNX graph whose inputs and outputs are tensors.

use async_trait::async_trait;
use ort::session::{OutputSelector, RunOptions, SessionInputValue};
use tidemill_core::ports::{ModelBundle, PortError};
use tidemill_core::servable::{CallContext, Interface, Payload, Servable, Work};
use tidemill_core::tensors::{Tensor, TensorSpec};

use super::proto::{self, Graph, Model, ValueInfo};
use super::sessions::{Sessions, Settings};
use super::{OnnxError, check, tensors};

/// Models whose file is at most this large answer on the calling thread.
const LIGHT: usize = 256 * 1024;

/// A graph that answers tensors.
#[derive(Debug)]
pub struct OnnxModel {
    interface: Interface,
    sessions: Sessions,
    light: bool,
    file: String,
}

impl OnnxModel {
    /// Loads the file of that name from a bundle, with one thread a call.
    ///
    /// # Errors
    /// If the file is broken or hostile, ONNX Runtime is not here, or does not take it.
    pub fn load(bundle: &ModelBundle, file: &str) -> Result<Self, PortError> {
        Self::open(bundle, file, Settings::default()).map_err(|error| error.of(file))
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

    pub(super) fn open(bundle: &ModelBundle, file: &str, settings: Settings) -> Result<Self, OnnxError> {
        let bytes = bundle
            .get(file)
            .ok_or_else(|| OnnxError::Wire("there is no such file in the bundle".into()))?;
        let model = checked(bytes, bundle)?;
        let interface = interface(&model.graph)?;
        let external = external_files(&model);
        let weights: usize = external
            .iter()
            .filter_map(|name| bundle.get(name))
            .map(Vec::len)
            .sum();
        drop(model);
        Ok(Self {
            interface,
            sessions: Sessions::open(bytes.clone(), &external, bundle, settings)?,
            light: bytes.len() + weights <= LIGHT,
            file: file.to_owned(),
        })
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
        let inputs = given.iter().map(|tensor| {
            let value = tensors::to_ort(tensor).map_err(|error| {
                PortError::caller("bad_payload", format!("input `{}`: {error}", tensor.name))
            })?;
            Ok((tensor.name.as_str(), SessionInputValue::from(value)))
        });
        let inputs = inputs.collect::<Result<Vec<_>, PortError>>()?;
        let outputs = self
            .sessions
            .with(|session| {
                let selector = names.iter().fold(OutputSelector::no_default(), |selector, name| {
                    selector.with(*name)
                });
                let options = RunOptions::new()?.with_outputs(selector);
                let outputs = session.run_with_options(inputs, &options)?;
                let read = names.iter().map(|name| match outputs.get(name) {
                    Some(value) => tensors::from_ort(name, value),
                    None => Err(tensors::ValueError::Type(format!("output `{name}` did not come"))),
                });
                read.collect::<Result<Vec<Tensor>, tensors::ValueError>>()
            })
            .map_err(|error| error.of(&self.file))?;
        outputs.map_err(|error| {
            PortError::caller(
                "bad_payload",
                format!("`{}` does not answer these inputs: {error}", self.file),
            )
        })
    }
}

#[async_trait]
impl Servable for OnnxModel {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn work(&self) -> Work {
        if self.light { Work::Light } else { Work::Heavy }
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
        self.sessions.bytes()
    }

    fn concurrency(&self) -> usize {
        self.sessions.limit()
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

fn interface(graph: &Graph<'_>) -> Result<Interface, OnnxError> {
    let spec = |info: &ValueInfo<'_>| {
        let datatype = tensors::datatype(info.element)
            .filter(|_| info.is_tensor)
            .ok_or_else(|| {
                OnnxError::Unsupported(format!(
                    "`{}` is no tensor; export the model without it (for scikit-learn: `zipmap=False`)",
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
    let outputs = graph
        .outputs
        .iter()
        .map(spec)
        .collect::<Result<Vec<TensorSpec>, OnnxError>>()?;
    let batches = |specs: &[TensorSpec]| specs.iter().all(|spec| spec.shape.first() == Some(&-1));
    Ok(Interface {
        platform: "onnxruntime_onnx".into(),
        batches: !inputs.is_empty() && batches(&inputs) && batches(&outputs),
        inputs,
        outputs,
        ..Interface::default()
    })
}
