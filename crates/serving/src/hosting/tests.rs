use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tidemill_core::clock::{Stopwatch, WallClock};
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{CallContext, Interface, Loader, Payload, Servable, Work};
use tidemill_core::spec::ServingSpec;
use tidemill_core::tensors::{DataType, Tensor, TensorSpec};

use super::{Call, Hosted, HostedVersion, Hosting, VersionState};
use crate::error::ServeError;

/// Doubles numbers; counts how often it was loaded.
#[derive(Debug, Default)]
struct Doubling {
    loads: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Doubler(Interface);

#[async_trait]
impl Servable for Doubler {
    fn interface(&self) -> &Interface {
        &self.0
    }
    fn work(&self) -> Work {
        Work::Light
    }
    async fn call(&self, payload: Payload, _context: &CallContext) -> Result<Payload, PortError> {
        let Payload::Tensors(tensors) = payload else {
            return Err(PortError::caller("model_broken", "no tensors"));
        };
        let doubled: Vec<f64> = tensors[0].to_f64().unwrap().iter().map(|x| 2.0 * x).collect();
        Ok(Payload::Tensors(vec![
            Tensor::of_f64("y", tensors[0].shape.clone(), &doubled).unwrap(),
        ]))
    }
}

#[async_trait]
impl Loader for Doubling {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Doubler(Interface {
            platform: "test".to_owned(),
            inputs: vec![TensorSpec::new("x", DataType::Fp64, vec![-1])],
            outputs: vec![TensorSpec::new("y", DataType::Fp64, vec![-1])],
            batches: true,
            ..Interface::default()
        })))
    }
}

fn name() -> EndpointName {
    EndpointName::new("double")
}

fn hosting() -> (Hosting, Arc<AtomicUsize>) {
    let hosting = Hosting::new(Arc::new(WallClock));
    let loads = Arc::new(AtomicUsize::new(0));
    let loader: Arc<dyn Loader> = Arc::new(Doubling {
        loads: Arc::clone(&loads),
    });
    let number = VersionNumber(1);
    hosting.put(Hosted {
        name: name(),
        spec: Arc::new(ServingSpec::default()),
        versions: vec![HostedVersion {
            number,
            loader,
            bundle: None,
        }],
    });
    (hosting, loads)
}

fn call(values: &[f64]) -> Call {
    let tensor = Tensor::of_f64("x", vec![values.len()], values).unwrap();
    Call::new(name(), Payload::Tensors(vec![tensor]), Stopwatch::start())
}

#[tokio::test]
async fn a_deployment_is_loaded_by_its_first_call_and_only_once() {
    let (hosting, loads) = hosting();
    assert_eq!(loads.load(Ordering::SeqCst), 0);
    let calls = (0..8).map(|_| hosting.call(call(&[1.0, 2.5])));
    for answer in futures_util::future::join_all(calls).await {
        let Payload::Tensors(tensors) = answer.unwrap().payload else {
            panic!("tensors")
        };
        assert_eq!(tensors[0].to_f64().unwrap(), [2.0, 5.0]);
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    let statistics = hosting.statistics(None);
    assert_eq!(
        (statistics[0].inference_count, statistics[0].success.count),
        (16, 8)
    );
}

#[tokio::test]
async fn an_unloaded_deployment_answers_only_after_it_is_loaded_again() {
    let (hosting, loads) = hosting();
    hosting.call(call(&[1.0])).await.unwrap();
    hosting.unload(&name()).unwrap();
    assert_eq!(hosting.index()[0].state, VersionState::Unavailable);
    assert!(matches!(
        hosting.call(call(&[1.0])).await,
        Err(ServeError::Unloaded { .. })
    ));
    hosting.load(&name()).await.unwrap();
    hosting.call(call(&[1.0])).await.unwrap();
    assert_eq!(loads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_does_not_fit_the_interface_is_refused_by_name() {
    let (hosting, _) = hosting();
    let wrong = |tensor| Call::new(name(), Payload::Tensors(vec![tensor]), Stopwatch::start());
    let cases = [
        (
            Tensor::of_f64("z", vec![1], &[1.0]).unwrap(),
            "there is no input `z`; expected `x`",
        ),
        (
            Tensor::of_f32("x", vec![1], &[1.0]).unwrap(),
            "tensor `x`: datatype FP32, expected FP64",
        ),
        (
            Tensor::of_f64("x", vec![1, 1], &[1.0]).unwrap(),
            "tensor `x`: shape [1, 1], expected shape [-1]",
        ),
    ];
    for (tensor, message) in cases {
        let error = hosting.call(wrong(tensor)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("endpoint `double`: {message}"));
    }
}
