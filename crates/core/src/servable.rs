//! The port behind which every model stands that is asked by tensors or by a body of its own: ONNX graphs, Python functions, pyfunc
//! models, and graphs of these. Tabular models of the loop have the narrower [`crate::ports::Model`].

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Stopwatch;
use crate::digest::Digest;
use crate::ports::{Contributions, PortError};
use crate::tensors::{Tensor, TensorSpec};

/// What a model is asked, or answers.
#[derive(Clone, PartialEq, Debug)]
pub enum Payload {
    /// Named tensors; a table is one tensor of one dimension a column.
    Tensors(Vec<Tensor>),
    /// A body that only the model understands: JSON for a Python function, or anything else that its content type names.
    Body {
        /// Its content type, such as `application/json`.
        content_type: String,
        /// Its bytes.
        bytes: Bytes,
    },
}

impl Payload {
    /// About how many bytes it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Tensors(tensors) => tensors.iter().map(Tensor::bytes).sum(),
            Self::Body { bytes, .. } => bytes.len(),
        }
    }
}

/// Until when an answer is of use. It is passed along unchanged, so what is left of it shrinks along the way.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    received: Stopwatch,
    budget: Duration,
}

impl Deadline {
    /// `budget` after the request's arrival.
    pub fn after(received: Stopwatch, budget: Duration) -> Self {
        Self { received, budget }
    }

    /// What is left; zero once it has passed.
    pub fn left(&self) -> Duration {
        self.budget.saturating_sub(self.received.elapsed())
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }
}

/// What travels with a request beside its payload.
#[derive(Clone, Debug, Default)]
pub struct CallContext {
    /// The caller's id of the request, or the one made for it.
    pub request_id: String,
    /// Until when an answer is of use.
    pub deadline: Option<Deadline>,
    /// The protocol's `parameters`.
    pub parameters: Map<String, Value>,
    /// The outputs that are wanted; all of them if empty.
    pub outputs: Vec<String>,
    /// What the caller said beside the request: headers that begin with `x-`, in lower case.
    pub attributes: Arc<BTreeMap<String, String>>,
    /// The unit that sticks to one way where ways are split.
    pub key: Option<Arc<str>>,
    /// How many deployments asked one another on the way here.
    pub depth: u8,
}

/// What a model takes and gives.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Interface {
    /// What runs it, as metadata names it, such as `onnxruntime_onnx` or `python`.
    pub platform: String,
    /// Its inputs, in order. Empty for a function that takes a body and has declared none.
    pub inputs: Vec<TensorSpec>,
    /// Its outputs, in order.
    pub outputs: Vec<TensorSpec>,
    /// Whether the first dimension of every tensor counts rows, so that requests can be answered together.
    #[serde(default)]
    pub batches: bool,
    /// Whether the inputs are the columns of a table, each of one dimension.
    #[serde(default)]
    pub columns: bool,
    /// Whether it takes and gives a body of its own (JSON).
    #[serde(default)]
    pub body: bool,
    /// Whether it reads the bodies of MLflow's scoring protocol itself, and answers them with whole bodies of that protocol.
    #[serde(default)]
    pub scores: bool,
    /// Whether it may give several answers to a request, or none.
    #[serde(default)]
    pub decoupled: bool,
}

/// How a model spends the time of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Some microseconds a row on the calling thread.
    Light,
    /// Long enough on the calling thread that it must not be one that serves others.
    Heavy,
    /// Elsewhere: the call only waits.
    Remote,
}

/// Answers one after another.
pub type Answers = Pin<Box<dyn Stream<Item = Result<Payload, PortError>> + Send>>;

/// A model that is loaded and answers. Called from many tasks at once.
#[async_trait]
pub trait Servable: Send + Sync + fmt::Debug {
    /// What it takes and gives.
    fn interface(&self) -> &Interface;

    /// How it spends the time of a call.
    fn work(&self) -> Work;

    /// Answers a request that fits the interface. A model whose work is not [`Work::Remote`] never waits: its future is ready when it
    /// is polled for the first time.
    ///
    /// # Errors
    /// If the payload does not fit, the model fails, or the deadline passes.
    async fn call(&self, payload: Payload, context: &CallContext) -> Result<Payload, PortError>;

    /// Answers a request piece by piece. `None`: this model gives one answer, by [`Servable::call`].
    ///
    /// # Errors
    /// As [`Servable::call`]; a failure on the way is an item of the stream, the last one.
    async fn stream(&self, _payload: Payload, _context: &CallContext) -> Result<Option<Answers>, PortError> {
        Ok(None)
    }

    /// What each input contributed to the answer, where the model can tell: one number for each value of the inputs, in the interface's
    /// order, and the base; of a model of several classes, so for each class. They add up to the model's raw output. `None`: it cannot
    /// tell.
    ///
    /// # Errors
    /// As [`Servable::call`].
    async fn explain(
        &self,
        _payload: Payload,
        _context: &CallContext,
    ) -> Result<Option<Contributions>, PortError> {
        Ok(None)
    }

    /// About how many bytes of memory it holds, here and in processes of its own.
    fn memory(&self) -> u64 {
        0
    }

    /// How many calls it can work on at once; more wait before it.
    fn concurrency(&self) -> usize {
        usize::MAX
    }
}

/// Loads a model; called again whenever it has been unloaded meanwhile.
#[async_trait]
pub trait Loader: Send + Sync + fmt::Debug {
    /// Loads it.
    ///
    /// # Errors
    /// If the files are broken, what they need is not here, or there is no room.
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError>;

    /// What it takes and gives, where that is known without loading it.
    fn interface(&self) -> Option<Interface> {
        None
    }

    /// The same for loaders that load the same in the same way, so that what one has loaded is kept when the other takes its place.
    /// `None`: only the very same loader does.
    fn identity(&self) -> Option<Digest> {
        None
    }

    /// What has been counted of its parts, if it has parts: the nodes of a graph.
    fn parts(&self) -> Vec<PartStatistics> {
        Vec::new()
    }
}

/// What has been counted of a part of a model since the process started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PartStatistics {
    /// Its name.
    pub name: String,
    /// What it is, such as `model` or `switch`.
    pub kind: &'static str,
    /// How often it was asked.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
    /// How often it failed.
    pub errors: u64,
}
