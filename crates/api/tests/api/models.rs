//! Deployments of tiny models: what a protocol has to serve beside the loop's endpoints.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tidemill_core::clock::real_sleep;
use tidemill_core::ids::VersionNumber;
use tidemill_core::ports::PortError;
use tidemill_core::servable::{Answers, CallContext, Interface, Loader, Payload, Servable, Work};
use tidemill_core::spec::{BatchingSpec, ServingSpec, VersionPolicy};
use tidemill_core::tensors::{DataType, Tensor, TensorSpec};
use tidemill_serving::{Hosted, HostedVersion, Hosting};

/// What a model does.
#[derive(Debug, Clone, Copy)]
enum Does {
    /// Gives every input back under its own name.
    Identity,
    /// `y = 2 x`, and the largest of each row.
    Double,
    /// As many answers as `count` says, each a number; from 100 on one answer, after so many milliseconds.
    Count,
    /// Gives back what it was asked: body, parameters, id.
    Echo,
    /// Adds two columns.
    Add,
    Fails,
}

#[derive(Debug)]
struct Model {
    does: Does,
    interface: Interface,
}

fn doubled(tensors: &[Tensor]) -> Payload {
    let x = &tensors[0];
    let values: Vec<f32> = x.to_f64().unwrap().iter().map(|&v| 2.0 * v as f32).collect();
    Payload::Tensors(vec![Tensor::of_f32("y", x.shape.clone(), &values).unwrap()])
}

#[async_trait]
impl Servable for Model {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn work(&self) -> Work {
        Work::Light
    }

    async fn call(&self, payload: Payload, context: &CallContext) -> Result<Payload, PortError> {
        match (self.does, payload) {
            (Does::Identity, payload) => Ok(payload),
            (Does::Double, Payload::Tensors(tensors)) => Ok(doubled(&tensors)),
            (Does::Add, Payload::Tensors(tensors)) => {
                let numbers: Vec<Vec<f64>> = tensors.iter().map(|t| t.to_f64().unwrap()).collect();
                let sum: Vec<f64> = numbers[0].iter().zip(&numbers[1]).map(|(a, b)| a + b).collect();
                Ok(Payload::Tensors(vec![
                    Tensor::of_f64("sum", vec![sum.len()], &sum).unwrap(),
                ]))
            }
            (Does::Echo, Payload::Body { bytes, content_type }) => {
                let body: Value =
                    serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
                let told = json!({
                    "body": body,
                    "type": content_type,
                    "parameters": context.parameters,
                    "id": context.request_id,
                    "hurried": context.deadline.unwrap().left().as_secs() < 30,
                });
                Ok(Payload::Body {
                    content_type: "application/json".to_owned(),
                    bytes: told.to_string().into(),
                })
            }
            (Does::Fails, _) => Err(PortError::internal("model_broken", "the model is broken")),
            (does, _) => Err(PortError::caller(
                "bad_payload",
                format!("{does:?} does not take this"),
            )),
        }
    }

    async fn stream(&self, payload: Payload, _: &CallContext) -> Result<Option<Answers>, PortError> {
        let (Does::Count, Payload::Tensors(tensors)) = (self.does, payload) else {
            return Ok(None);
        };
        let count = tensors[0].to_f64().unwrap()[0];
        if count < 0.0 {
            return Err(PortError::caller("bad_payload", "a count is not below 0"));
        }
        if count >= 100.0 {
            let late = async move {
                real_sleep(Duration::from_millis(count as u64)).await;
                Ok(Payload::Tensors(vec![
                    Tensor::of_f64("number", vec![1], &[count]).unwrap(),
                ]))
            };
            return Ok(Some(Box::pin(futures::stream::once(late))));
        }
        let answer = |i: usize| {
            if i == 3 {
                return Err(PortError::internal("model_broken", "four is too many"));
            }
            Ok(Payload::Tensors(vec![
                Tensor::of_f64("number", vec![1], &[i as f64]).unwrap(),
            ]))
        };
        Ok(Some(Box::pin(futures::stream::iter(
            (0..count as usize).map(answer),
        ))))
    }
}

#[derive(Debug)]
struct Loads(Does, Interface);

#[async_trait]
impl Loader for Loads {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        Ok(Arc::new(Model {
            does: self.0,
            interface: self.1.clone(),
        }))
    }
}

/// Puts the models there.
pub fn host(hosting: &Hosting) {
    let tensor = |name: &str, datatype, shape: &[i64]| TensorSpec::new(name, datatype, shape.to_vec());
    let all: Vec<TensorSpec> = DataType::ALL
        .into_iter()
        .map(|datatype| TensorSpec {
            optional: true,
            ..tensor(datatype.name(), datatype, &[-1])
        })
        .collect();
    let labelled = TensorSpec {
        labels: vec!["one".to_owned(), "two".to_owned()],
        ..tensor("y", DataType::Fp32, &[-1, 3])
    };
    let models = [
        (
            "identity",
            Does::Identity,
            Interface {
                inputs: all.clone(),
                outputs: all,
                ..Interface::default()
            },
        ),
        (
            "double",
            Does::Double,
            Interface {
                inputs: vec![tensor("x", DataType::Fp32, &[-1, 3])],
                outputs: vec![labelled],
                batches: true,
                ..Interface::default()
            },
        ),
        (
            "count",
            Does::Count,
            Interface {
                inputs: vec![tensor("count", DataType::Int32, &[1])],
                outputs: vec![tensor("number", DataType::Fp64, &[1])],
                decoupled: true,
                ..Interface::default()
            },
        ),
        (
            "echo",
            Does::Echo,
            Interface {
                body: true,
                ..Interface::default()
            },
        ),
        (
            "add",
            Does::Add,
            Interface {
                inputs: vec![
                    tensor("a", DataType::Fp64, &[-1]),
                    tensor("b", DataType::Fp64, &[-1]),
                ],
                outputs: vec![tensor("sum", DataType::Fp64, &[-1])],
                batches: true,
                columns: true,
                ..Interface::default()
            },
        ),
        (
            "fails",
            Does::Fails,
            Interface {
                body: true,
                ..Interface::default()
            },
        ),
    ];
    for (name, does, interface) in models {
        let interface = Interface {
            platform: "test".to_owned(),
            ..interface
        };
        let mut spec = ServingSpec {
            versions: VersionPolicy::Latest(2),
            ..ServingSpec::default()
        };
        if name == "double" {
            spec.batching = Some(BatchingSpec::default());
        }
        let version = |number| HostedVersion {
            number: VersionNumber(number),
            loader: Arc::new(Loads(does, interface.clone())),
            bundle: None,
        };
        hosting.put(Hosted {
            name: name.into(),
            spec: Arc::new(spec),
            versions: vec![version(1), version(2), version(3)],
        });
    }
}
