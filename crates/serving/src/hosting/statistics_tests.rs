//! What is counted of calls that were answered, failed, ran late or were given up, in one piece and in several.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use tidemill_core::clock::{Stopwatch, WallClock, real_sleep};
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{Answers, CallContext, Interface, Loader, Payload, Servable, Work};
use tidemill_core::spec::{QueueSpec, ServingSpec};
use tidemill_core::tensors::{DataType, Tensor, TensorSpec};

use super::{Call, Hosted, HostedVersion, Hosting, VersionStatistics};
use crate::error::ServeError;

/// Answers `x` with `x`, or with so many pieces, one each 20 ms. It fails where `x` is NaN, and at the fourth piece.
#[derive(Debug)]
struct Steps(Interface);

const STEP: Duration = Duration::from_millis(20);

fn number(payload: &Payload) -> Vec<f64> {
    let Payload::Tensors(tensors) = payload else {
        panic!("tensors")
    };
    tensors[0].to_f64().unwrap()
}

fn answer(values: &[f64]) -> Payload {
    Payload::Tensors(vec![Tensor::of_f64("y", vec![values.len()], values).unwrap()])
}

#[async_trait]
impl Servable for Steps {
    fn interface(&self) -> &Interface {
        &self.0
    }
    fn work(&self) -> Work {
        Work::Remote
    }
    fn concurrency(&self) -> usize {
        1
    }
    async fn call(&self, payload: Payload, _: &CallContext) -> Result<Payload, PortError> {
        real_sleep(STEP).await;
        let values = number(&payload);
        if values.iter().any(|value| value.is_nan()) {
            return Err(PortError::internal("model_broken", "a value is missing"));
        }
        Ok(answer(&values))
    }
    async fn stream(&self, payload: Payload, _: &CallContext) -> Result<Option<Answers>, PortError> {
        if !self.0.decoupled {
            return Ok(None);
        }
        let count = number(&payload)[0];
        if count.is_nan() {
            return Err(PortError::internal("model_broken", "a value is missing"));
        }
        let piece = |i: usize| async move {
            real_sleep(STEP).await;
            if i == 3 {
                return Err(PortError::internal("model_broken", "four is too many"));
            }
            Ok(answer(&[i as f64]))
        };
        Ok(Some(Box::pin(
            futures_util::stream::iter(0..count as usize).then(piece),
        )))
    }
}

#[derive(Debug)]
struct Loads(bool);

#[async_trait]
impl Loader for Loads {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        Ok(Arc::new(Steps(Interface {
            inputs: vec![TensorSpec::new("x", DataType::Fp64, vec![-1])],
            outputs: vec![TensorSpec::new("y", DataType::Fp64, vec![-1])],
            batches: true,
            decoupled: self.0,
            ..Interface::default()
        })))
    }
}

fn hosting(decoupled: bool, max_requests: u32) -> Hosting {
    let hosting = Hosting::new(Arc::new(WallClock));
    hosting.put(Hosted {
        name: EndpointName::new("steps"),
        spec: Arc::new(ServingSpec {
            queue: QueueSpec {
                adaptive: false,
                max_requests,
                ..QueueSpec::default()
            },
            ..ServingSpec::default()
        }),
        versions: vec![HostedVersion {
            number: VersionNumber(1),
            loader: Arc::new(Loads(decoupled)),
            bundle: None,
        }],
    });
    hosting
}

fn call(value: f64) -> Call {
    let tensor = Tensor::of_f64("x", vec![1], &[value]).unwrap();
    Call::new(
        EndpointName::new("steps"),
        Payload::Tensors(vec![tensor]),
        Stopwatch::start(),
    )
}

fn hurried(value: f64, millis: u64) -> Call {
    Call {
        timeout: Some(Duration::from_millis(millis)),
        ..call(value)
    }
}

fn of(hosting: &Hosting) -> VersionStatistics {
    hosting.statistics(None).swap_remove(0)
}

async fn pieces(hosting: &Hosting, call: Call) -> Vec<Result<f64, ServeError>> {
    let answers = hosting.stream(call).await.unwrap();
    let answers = answers.map(|answer| answer.map(|answer| number(&answer.payload)[0]));
    answers.collect().await
}

#[tokio::test]
async fn a_batch_that_fails_counts_for_the_calls_that_are_answered_after_it_and_only_once() {
    let hosting = hosting(false, 100);
    hosting.load(&EndpointName::new("steps")).await.unwrap();
    // The first occupies the model, so that the others are gathered.
    let values = [0.0, 1.0, 2.0, f64::NAN, 3.0];
    let answers = futures_util::future::join_all(values.map(|value| hosting.call(call(value)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1);
    let counted = of(&hosting);
    assert_eq!((counted.success.count, counted.inference_count), (4, 4));
    // The first, and three asked again: neither the batch that failed nor the call that spoilt it.
    assert_eq!(counted.execution_count, 4);
    for part in [
        counted.queue,
        counted.compute_input,
        counted.compute_infer,
        counted.compute_output,
    ] {
        assert_eq!(part.count, 4);
    }
    assert_eq!(
        counted.batches.iter().map(|b| b.compute_infer.count).sum::<u64>(),
        4
    );
    assert_eq!((counted.fail.count, counted.failed_by_model), (1, 1));
    assert!(counted.fail.ns > STEP.as_nanos() as u64);
}

#[tokio::test]
async fn every_call_that_is_not_answered_is_a_failure_and_one_that_was_wrong_is_none() {
    let hosting = hosting(false, 1);
    hosting.load(&EndpointName::new("steps")).await.unwrap();
    let answers = futures_util::future::join_all((0..5).map(|i| hosting.call(call(f64::from(i))))).await;
    let refused = answers.iter().filter(|answer| answer.is_err()).count() as u64;
    assert!(refused > 0);
    assert_eq!(of(&hosting).fail.count, refused);
    hosting.call(hurried(1.0, 5)).await.unwrap_err();
    let counted = of(&hosting);
    assert_eq!((counted.rejected, counted.fail.count), (refused + 1, refused + 1));
    let given_up = tokio::time::timeout(Duration::from_millis(5), hosting.call(call(1.0))).await;
    assert!(given_up.is_err());
    let counted = of(&hosting);
    assert_eq!((counted.cancelled, counted.fail.count), (1, refused + 2));
    let wrong = Tensor::of_f32("x", vec![1], &[1.0]).unwrap();
    let wrong = Call {
        payload: Payload::Tensors(vec![wrong]),
        ..call(0.0)
    };
    hosting.call(wrong).await.unwrap_err();
    assert_eq!(of(&hosting).fail.count, refused + 2);
    // What nobody waited for any more was worked on, and is no success.
    real_sleep(3 * STEP).await;
    let counted = of(&hosting);
    assert_eq!(counted.success.count, 5 - refused);
    assert_eq!(counted.inference_count, 5 - refused);
}

#[tokio::test]
async fn answers_in_pieces_are_counted_as_one_call_and_piece_by_piece() {
    let hosting = hosting(true, 100);
    assert_eq!(pieces(&hosting, call(2.0)).await.len(), 2);
    assert!(pieces(&hosting, call(0.0)).await.is_empty());
    let counted = of(&hosting);
    assert_eq!(
        (
            counted.success.count,
            counted.inference_count,
            counted.execution_count
        ),
        (2, 2, 2)
    );
    assert!(counted.last_inference > 0);
    assert!(counted.compute_infer.ns > 2 * STEP.as_nanos() as u64);
    assert_eq!((counted.queue.count, counted.compute_infer.count), (2, 2));
    let [first, second, third] = counted.responses[..] else {
        panic!("{:?}", counted.responses)
    };
    assert_eq!((first.success.count, first.empty_response.count), (1, 1));
    assert_eq!((second.success.count, second.empty_response.count), (1, 0));
    assert_eq!((third.success.count, third.empty_response.count), (0, 1));
    assert!(second.compute_infer.ns >= STEP.as_nanos() as u64);

    // One that fails on the way has failed, whatever comes after.
    let failing = pieces(&hosting, call(5.0)).await;
    assert_eq!(failing.len(), 5);
    assert!(failing[3].is_err());
    assert!(hosting.stream(call(f64::NAN)).await.is_err());
    let counted = of(&hosting);
    assert_eq!(
        (counted.success.count, counted.fail.count, counted.failed_by_model),
        (2, 2, 2)
    );
    assert_eq!(
        (
            counted.responses[2].success.count,
            counted.responses[3].fail.count
        ),
        (1, 1)
    );

    // A caller who leaves.
    let mut left = hosting.stream(call(3.0)).await.unwrap();
    left.next().await.unwrap().unwrap();
    drop(left);
    let counted = of(&hosting);
    assert_eq!(
        (counted.cancelled, counted.fail.count, counted.inference_count),
        (1, 3, 2)
    );
    assert_eq!(counted.responses[1].cancel.count, 1);
}

#[tokio::test]
async fn an_answer_in_pieces_ends_when_the_callers_time_is_over() {
    let hosting = hosting(true, 100);
    hosting.load(&EndpointName::new("steps")).await.unwrap();
    let watch = Stopwatch::start();
    let answers = pieces(&hosting, hurried(3.0, 50)).await;
    assert!(
        watch.elapsed() < Duration::from_millis(60),
        "{:?}",
        watch.elapsed()
    );
    let (last, before) = answers.split_last().unwrap();
    assert!(before.iter().all(Result::is_ok) && before.len() < 3);
    assert_eq!(last.as_ref().unwrap_err().code(), "deadline_passed");
    let counted = of(&hosting);
    assert_eq!(
        (counted.rejected, counted.fail.count, counted.success.count),
        (1, 1, 0)
    );
    // The replica is free again.
    assert_eq!(pieces(&hosting, call(1.0)).await.len(), 1);
}

#[tokio::test]
async fn a_caller_who_stops_reading_keeps_the_replica_no_longer_than_its_time() {
    let hosting = hosting(true, 100);
    hosting.load(&EndpointName::new("steps")).await.unwrap();
    let mut unread = hosting.stream(hurried(3.0, 50)).await.unwrap();
    unread.next().await.unwrap().unwrap();
    // Another needs the only slot, and gets it although the first is still there.
    assert_eq!(pieces(&hosting, hurried(1.0, 2_000)).await.len(), 1);
    let late = unread.next().await.unwrap().unwrap_err();
    assert_eq!(late.code(), "deadline_passed");
    assert!(unread.next().await.is_none());
}
