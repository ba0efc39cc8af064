//! A graph as a model, and what has been counted of its nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{CallContext, Interface, Loader, PartStatistics, Payload, Servable, Work};
use tidemill_core::spec::{Combine, GraphSpec, NodeSpec, Reference};
use tidemill_core::tensors::{DataType, TensorSpec};

use super::outlier::Detector;
use super::run::Run;
use crate::hosting::Hosting;
use crate::hosting::routing::sticky::Way;
use crate::server::{Server, WeakServer};

/// A fault of a graph, or of its nodes together.
pub(super) fn failed(message: impl Into<String>) -> PortError {
    PortError::internal("graph_failed", message)
}

/// The live counters of a node.
#[derive(Debug, Default)]
pub(super) struct NodeCounts {
    pub count: AtomicU64,
    pub ns: AtomicU64,
    pub errors: AtomicU64,
}

/// What of a node is worked out once.
#[derive(Debug)]
pub(super) struct Prepared {
    pub counts: NodeCounts,
    /// Of a splitter: where to.
    pub ways: Vec<Way<usize>>,
    /// Of an outlier node.
    pub detector: Option<Detector>,
}

/// A graph, ready to run.
#[derive(Debug)]
pub(super) struct Plan {
    pub name: String,
    pub spec: GraphSpec,
    /// By the node's place in the spec.
    pub nodes: Vec<Prepared>,
}

impl Plan {
    fn new(name: &str, spec: &GraphSpec) -> Self {
        let prepared = |(node_name, node): (&String, &NodeSpec)| {
            let ways = node.splitter.iter().flat_map(|splitter| {
                let usual = format!("{name}/{node_name}");
                let salt = splitter.salt.clone().unwrap_or(usual);
                let place = |to: &String| spec.nodes.get_index_of(to).unwrap_or(usize::MAX);
                splitter
                    .to
                    .iter()
                    .map(move |(to, weight)| Way::new(&salt, to, place(to), *weight))
            });
            Prepared {
                counts: NodeCounts::default(),
                ways: ways.collect(),
                detector: node.outlier.as_ref().map(Detector::new),
            }
        };
        Self {
            name: name.to_owned(),
            spec: spec.clone(),
            nodes: spec.nodes.iter().map(prepared).collect(),
        }
    }
}

/// Loads a graph, which is there at once.
#[derive(Debug)]
pub(super) struct GraphLoader {
    plan: Arc<Plan>,
    server: WeakServer,
}

impl GraphLoader {
    pub fn new(server: &Server, name: &str, spec: &GraphSpec) -> Self {
        Self {
            plan: Arc::new(Plan::new(name, spec)),
            server: server.downgrade(),
        }
    }
}

#[async_trait]
impl Loader for GraphLoader {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        let server = self.server.upgrade().ok_or_else(stopping)?;
        Ok(Arc::new(Graph {
            interface: interface(&self.plan.spec, server.hosting()),
            plan: Arc::clone(&self.plan),
            server: self.server.clone(),
        }))
    }

    fn identity(&self) -> Option<Digest> {
        let spec = serde_json::to_vec(&self.plan.spec).ok()?;
        Some(Digest::of_parts([
            b"graph".as_slice(),
            self.plan.name.as_bytes(),
            &spec,
        ]))
    }

    fn parts(&self) -> Vec<PartStatistics> {
        let nodes = self.plan.spec.nodes.iter().zip(&self.plan.nodes);
        let part = |((name, spec), prepared): ((&String, &NodeSpec), &Prepared)| {
            let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            PartStatistics {
                name: name.clone(),
                kind: spec.kind(),
                count: get(&prepared.counts.count),
                ns: get(&prepared.counts.ns),
                errors: get(&prepared.counts.errors),
            }
        };
        nodes.map(part).collect()
    }
}

fn stopping() -> PortError {
    PortError::internal("graph_failed", "the process is shutting down")
}

/// A graph that answers.
#[derive(Debug)]
struct Graph {
    plan: Arc<Plan>,
    interface: Interface,
    server: WeakServer,
}

#[async_trait]
impl Servable for Graph {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    /// It waits for those that it asks.
    fn work(&self) -> Work {
        Work::Remote
    }

    async fn call(&self, payload: Payload, context: &CallContext) -> Result<Payload, PortError> {
        let server = self.server.upgrade().ok_or_else(stopping)?;
        Run::new(&self.plan, &server, &payload, context).answer().await
    }
}

/// What a graph takes and gives. Its outputs are told where all of them are known without loading anything.
fn interface(spec: &GraphSpec, hosting: &Hosting) -> Interface {
    let input = |(name, input): (&String, &tidemill_core::spec::GraphInputSpec)| TensorSpec {
        optional: input.optional,
        ..TensorSpec::new(name, input.datatype, input.shape.clone())
    };
    let inputs: Vec<TensorSpec> = spec.inputs.iter().map(input).collect();
    let outputs = match &spec.output {
        Some(node) => outputs_of(spec, node, hosting, 0),
        None => spec
            .outputs
            .iter()
            .map(|(name, text)| {
                let known = output_of(spec, text, hosting, 0)?;
                Some(TensorSpec {
                    name: name.clone(),
                    ..known
                })
            })
            .collect(),
    };
    Interface {
        platform: "tidemill_graph".to_owned(),
        columns: !inputs.is_empty() && inputs.iter().all(|input| input.shape.len() == 1),
        body: inputs.is_empty(),
        scores: false,
        inputs,
        outputs: outputs.unwrap_or_default(),
        // Requests differ in who asks; the models behind it gather them.
        batches: false,
        decoupled: false,
    }
}

fn output_of(spec: &GraphSpec, text: &str, hosting: &Hosting, depth: usize) -> Option<TensorSpec> {
    match spec.reference(text)? {
        Reference::Input(name) => {
            let input = spec.inputs.get(name)?;
            Some(TensorSpec::new(name, input.datatype, input.shape.clone()))
        }
        Reference::Output { node, output } => {
            let mut outputs = outputs_of(spec, node, hosting, depth)?.into_iter();
            outputs.find(|known| known.name == output)
        }
    }
}

fn outputs_of(spec: &GraphSpec, name: &str, hosting: &Hosting, depth: usize) -> Option<Vec<TensorSpec>> {
    let node = spec.nodes.get(name)?;
    let of_node = |name: &str| outputs_of(spec, name, hosting, depth + 1);
    let column = |name: &str, datatype| TensorSpec::new(name, datatype, vec![-1]);
    let own = if let Some(model) = node.model.as_ref().or(node.chain.last()) {
        let name: EndpointName = model.deployment.as_str().into();
        let known = hosting.known_interface(&name, model.version.map(VersionNumber))?;
        if known.outputs.is_empty() {
            return None;
        }
        known.outputs.clone()
    } else if let Some(ensemble) = &node.ensemble {
        let first = ensemble.of.first()?;
        if ensemble.combine == Combine::FirstSuccess {
            of_node(first)?
        } else {
            let known = output_of(spec, first, hosting, depth + 1)?;
            let name = ensemble.name.clone().unwrap_or(known.name);
            match ensemble.combine {
                Combine::Vote => vec![TensorSpec::new(name, known.datatype, known.shape)],
                Combine::Concat => vec![TensorSpec::new(name, known.datatype, vec![-1, -1])],
                _ => vec![TensorSpec::new(name, DataType::Fp64, known.shape)],
            }
        }
    } else if let Some(switch) = &node.switch {
        of_node(&switch.cases.first()?.to)?
    } else if let Some(splitter) = &node.splitter {
        of_node(splitter.to.first()?.0)?
    } else if let Some(outlier) = &node.outlier {
        let mut outputs = match &outlier.answer {
            Some(answer) => of_node(answer)?,
            None => Vec::new(),
        };
        outputs.push(column("outlier", DataType::Bool));
        outputs.push(column("outlier_score", DataType::Fp64));
        outputs
    } else if node.explain.is_some() {
        vec![
            TensorSpec::new("attributions", DataType::Fp64, vec![-1, -1]),
            column("base", DataType::Fp64),
        ]
    } else {
        return None;
    };
    if node.outputs.is_empty() {
        return Some(own);
    }
    let renamed = node.outputs.iter().map(|(from, to)| {
        let found = own.iter().find(|known| known.name == *from)?;
        Some(TensorSpec {
            name: to.clone(),
            ..found.clone()
        })
    });
    renamed.collect()
}
