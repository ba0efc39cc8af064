//! Models whose answers are functions of their inputs, and a server with a graph of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_core::clock::{Stopwatch, WallClock, real_sleep};
use tidemill_core::ids::VersionNumber;
use tidemill_core::ports::{Contributions, PortError};
use tidemill_core::servable::{CallContext, Interface, Loader, Payload, Servable, Work};
use tidemill_core::spec::{GraphSpec, ServingSpec};
use tidemill_core::tensors::{DataType, Tensor, TensorData, TensorSpec};

use super::deploy;
use crate::hosting::{Call, CallAnswer, Hosted, HostedVersion};
use crate::{LogOptions, PredictionLog, Router, ServeError, Server};

pub(super) type Function = fn(&BTreeMap<String, Vec<f64>>) -> Option<Vec<f64>>;

/// One output `y`, a function of columns; `None` fails.
#[derive(Debug)]
pub(super) struct Fake {
    interface: Interface,
    function: Function,
    takes: Duration,
    pub calls: AtomicUsize,
    explains: bool,
}

#[derive(Debug)]
struct Shared(Arc<Fake>);

#[async_trait]
impl Servable for Shared {
    fn interface(&self) -> &Interface {
        &self.0.interface
    }
    fn work(&self) -> Work {
        Work::Remote
    }
    async fn call(&self, payload: Payload, _context: &CallContext) -> Result<Payload, PortError> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        real_sleep(self.0.takes).await;
        let Payload::Tensors(tensors) = payload else {
            return Ok(payload);
        };
        let columns = tensors
            .iter()
            .map(|tensor| (tensor.name.clone(), tensor.to_f64().unwrap()));
        let Some(y) = (self.0.function)(&columns.collect()) else {
            return Err(PortError::internal("model_broken", "it broke"));
        };
        Ok(Payload::Tensors(vec![
            Tensor::of_f64("y", vec![y.len()], &y).unwrap(),
        ]))
    }
    async fn explain(
        &self,
        _payload: Payload,
        _context: &CallContext,
    ) -> Result<Option<Contributions>, PortError> {
        Ok(self.0.explains.then(|| Contributions {
            outputs: 1,
            values: vec![42.0, 1.0],
        }))
    }
}

#[derive(Debug)]
struct FakeLoader(Arc<Fake>);

#[async_trait]
impl Loader for FakeLoader {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        Ok(Arc::new(Shared(Arc::clone(&self.0))))
    }
    fn interface(&self) -> Option<Interface> {
        Some(self.0.interface.clone())
    }
}

pub(super) struct Bench {
    pub server: Server,
    _dir: TempDir,
}

pub(super) fn bench() -> Bench {
    let dir = TempDir::new().unwrap();
    let (log, _) = PredictionLog::open(dir.path(), LogOptions::default()).unwrap();
    let server = Server::new(Arc::new(Router::new()), log, Arc::new(WallClock));
    Bench { server, _dir: dir }
}

impl Bench {
    pub fn model(&self, name: &str, inputs: &[&str], function: Function) -> Arc<Fake> {
        self.slow_model(name, inputs, 0, false, function)
    }

    pub fn slow_model(
        &self,
        name: &str,
        inputs: &[&str],
        millis: u64,
        explains: bool,
        function: Function,
    ) -> Arc<Fake> {
        let column = |name: &&str| TensorSpec::new(*name, DataType::Fp64, vec![-1]);
        let fake = Arc::new(Fake {
            interface: Interface {
                inputs: inputs.iter().map(column).collect(),
                outputs: vec![TensorSpec::new("y", DataType::Fp64, vec![-1])],
                batches: true,
                body: inputs.is_empty(),
                ..Interface::default()
            },
            function,
            takes: Duration::from_millis(millis),
            calls: AtomicUsize::new(0),
            explains,
        });
        self.server.hosting().put(Hosted {
            name: name.into(),
            spec: Arc::new(ServingSpec::default()),
            versions: vec![HostedVersion {
                number: VersionNumber(1),
                loader: Arc::new(FakeLoader(Arc::clone(&fake))),
                bundle: None,
            }],
        });
        fake
    }

    /// Models of `x`: itself, twice, ten times, and one that fails.
    pub fn models(&self) {
        self.model("one", &["x"], |columns| Some(columns["x"].clone()));
        self.model("two", &["x"], |columns| {
            Some(columns["x"].iter().map(|x| 2.0 * x).collect())
        });
        self.model("ten", &["x"], |columns| {
            Some(columns["x"].iter().map(|x| 10.0 * x).collect())
        });
        self.model("bad", &["x"], |_| None);
    }

    pub fn graph(&self, mut spec: Value) {
        if spec.get("inputs").is_none() {
            spec["inputs"] = json!({"x": {"datatype": "FP64"}});
        }
        let spec: GraphSpec = serde_json::from_value(spec).unwrap();
        deploy(&self.server, "g", &spec).unwrap();
    }

    pub async fn ask(&self, tensors: Vec<Tensor>) -> Result<CallAnswer, ServeError> {
        self.server.hosting().call(call(tensors)).await
    }

    /// The graph's answer to a column `x`.
    pub async fn of(&self, x: &[f64]) -> Vec<Tensor> {
        tensors(self.ask(vec![column("x", x)]).await.unwrap())
    }

    pub fn counted(&self, node: &str) -> (u64, u64) {
        let parts = self.server.hosting().part_statistics(Some(&"g".into()));
        let part = parts[0].2.iter().find(|part| part.name == node).unwrap();
        (part.count, part.errors)
    }
}

pub(super) fn call(tensors: Vec<Tensor>) -> Call {
    Call::new("g".into(), Payload::Tensors(tensors), Stopwatch::start())
}

pub(super) fn column(name: &str, values: &[f64]) -> Tensor {
    Tensor::of_f64(name, vec![values.len()], values).unwrap()
}

pub(super) fn texts(name: &str, values: &[Option<&str>]) -> Tensor {
    let strings = values.iter().map(|text| text.map(|text| text.to_owned().into()));
    Tensor::strings(name, vec![values.len()], strings.collect()).unwrap()
}

pub(super) fn tensors(answer: CallAnswer) -> Vec<Tensor> {
    match answer.payload {
        Payload::Tensors(tensors) => tensors,
        Payload::Body { .. } => panic!("tensors"),
    }
}

pub(super) fn numbers(tensors: &[Tensor], name: &str) -> Vec<f64> {
    let tensor = tensors.iter().find(|tensor| tensor.name == name);
    tensor
        .unwrap_or_else(|| panic!("no `{name}` in {tensors:?}"))
        .to_f64()
        .unwrap()
}

pub(super) fn strings(tensors: &[Tensor], name: &str) -> Vec<String> {
    let tensor = tensors.iter().find(|tensor| tensor.name == name).unwrap();
    let TensorData::Strings(strings) = &tensor.data else {
        panic!("texts")
    };
    let text = |bytes: &Option<bytes::Bytes>| {
        bytes.as_ref().map_or("-".to_owned(), |bytes| {
            String::from_utf8_lossy(bytes).into_owned()
        })
    };
    strings.iter().map(text).collect()
}
