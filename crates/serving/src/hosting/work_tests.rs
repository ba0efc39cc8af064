//! Queues, batches, replicas and limits, on a model whose time and faults are known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidemill_core::clock::{Stopwatch, WallClock, real_sleep};
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{CallContext, Interface, Loader, Payload, Servable, Work};
use tidemill_core::spec::{BatchingSpec, QueueSpec, ScalingSpec, ServingSpec, Span};
use tidemill_core::tensors::{DataType, Tensor, TensorSpec};

use super::{Call, CallAnswer, Hosted, HostedVersion, Hosting};
use crate::error::ServeError;

/// Adds one, takes its time, refuses NaN, and notes the rows of each batch.
#[derive(Debug, Default)]
struct Lab {
    takes: Duration,
    loads: AtomicUsize,
    alive: AtomicUsize,
    batches: Mutex<Vec<usize>>,
    seen: Mutex<Vec<f64>>,
    memory: u64,
    step: f64,
}

#[derive(Debug)]
struct Adder(Arc<Lab>, Interface);

impl Drop for Adder {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Servable for Adder {
    fn interface(&self) -> &Interface {
        &self.1
    }
    fn work(&self) -> Work {
        Work::Remote
    }
    async fn call(&self, payload: Payload, _context: &CallContext) -> Result<Payload, PortError> {
        let Payload::Tensors(tensors) = payload else {
            return Err(PortError::caller("model_broken", "no tensors"));
        };
        let values = tensors[0].to_f64().unwrap();
        self.0.batches.lock().unwrap().push(values.len());
        real_sleep(self.0.takes).await;
        if values.iter().any(|value| value.is_nan()) {
            return Err(PortError::caller("model_broken", "a value is missing"));
        }
        self.0.seen.lock().unwrap().extend(&values);
        let answers: Vec<f64> = values.iter().map(|value| value + self.0.step).collect();
        Ok(Payload::Tensors(vec![
            Tensor::of_f64("y", vec![answers.len()], &answers).unwrap(),
        ]))
    }
    fn concurrency(&self) -> usize {
        1
    }
    fn memory(&self) -> u64 {
        self.0.memory
    }
}

#[derive(Debug)]
struct LabLoader(Arc<Lab>);

#[async_trait]
impl Loader for LabLoader {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        self.0.alive.fetch_add(1, Ordering::SeqCst);
        let interface = Interface {
            platform: "lab".to_owned(),
            inputs: vec![TensorSpec::new("x", DataType::Fp64, vec![-1])],
            outputs: vec![TensorSpec::new("y", DataType::Fp64, vec![-1])],
            batches: true,
            ..Interface::default()
        };
        Ok(Arc::new(Adder(Arc::clone(&self.0), interface)))
    }
}

fn lab(millis: u64) -> Arc<Lab> {
    Arc::new(Lab {
        takes: Duration::from_millis(millis),
        step: 1.0,
        ..Lab::default()
    })
}

fn deploy(hosting: &Hosting, name: &str, lab: &Arc<Lab>, spec: ServingSpec) {
    hosting.put(Hosted {
        name: EndpointName::new(name),
        spec: Arc::new(spec),
        versions: vec![HostedVersion {
            number: VersionNumber(1),
            loader: Arc::new(LabLoader(Arc::clone(lab))),
            bundle: None,
        }],
    });
}

fn hosting(lab: &Arc<Lab>, spec: ServingSpec) -> Hosting {
    let hosting = Hosting::new(Arc::new(WallClock));
    deploy(&hosting, "add", lab, spec);
    hosting
}

fn call(value: f64) -> Call {
    let tensor = Tensor::of_f64("x", vec![1], &[value]).unwrap();
    Call::new(
        EndpointName::new("add"),
        Payload::Tensors(vec![tensor]),
        Stopwatch::start(),
    )
}

fn value(answer: &CallAnswer) -> f64 {
    let Payload::Tensors(tensors) = &answer.payload else {
        panic!("tensors")
    };
    tensors[0].to_f64().unwrap()[0]
}

fn patient() -> ServingSpec {
    ServingSpec {
        queue: QueueSpec {
            adaptive: false,
            ..QueueSpec::default()
        },
        ..ServingSpec::default()
    }
}

#[tokio::test]
async fn calls_that_wait_are_answered_together_and_each_gets_its_own_answer() {
    let lab = lab(20);
    let hosting = hosting(&lab, patient());
    let calls = (0..33).map(|i| hosting.call(call(f64::from(i))));
    let answers = futures_util::future::join_all(calls).await;
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(value(answer.as_ref().unwrap()), i as f64 + 1.0);
    }
    let batches = lab.batches.lock().unwrap().clone();
    assert_eq!(batches.iter().sum::<usize>(), 33);
    assert!(batches.len() <= 3, "{batches:?}");
    let statistics = &hosting.statistics(None)[0];
    assert_eq!((statistics.inference_count, statistics.success.count), (33, 33));
    assert_eq!(statistics.execution_count, batches.len() as u64);
}

#[tokio::test]
async fn a_request_that_spoils_a_batch_fails_alone() {
    let lab = lab(5);
    let hosting = hosting(&lab, patient());
    let calls = (0..9).map(|i| hosting.call(call(if i == 4 { f64::NAN } else { f64::from(i) })));
    let answers = futures_util::future::join_all(calls).await;
    for (i, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(answer) => assert_eq!(value(&answer), i as f64 + 1.0),
            Err(error) => {
                assert_eq!(i, 4);
                assert!(error.to_string().contains("a value is missing"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_batch_never_holds_more_rows_than_it_may_and_a_larger_request_is_refused() {
    let lab = lab(5);
    let spec = ServingSpec {
        batching: Some(BatchingSpec {
            max_rows: 4,
            max_delay: Span::from_micros(1_000),
        }),
        ..patient()
    };
    let hosting = hosting(&lab, spec);
    let calls = (0..30).map(|i| hosting.call(call(f64::from(i))));
    assert!(
        futures_util::future::join_all(calls)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert!(lab.batches.lock().unwrap().iter().all(|rows| *rows <= 4));
    let tensor = Tensor::of_f64("x", vec![5], &[0.0; 5]).unwrap();
    let large = Call::new(
        EndpointName::new("add"),
        Payload::Tensors(vec![tensor]),
        Stopwatch::start(),
    );
    let error = hosting.call(large).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a batch of 5 rows came, expected at most 4"),
        "{error}"
    );
}

#[tokio::test]
async fn the_most_urgent_call_in_line_is_answered_first() {
    let lab = lab(10);
    let mut spec = patient();
    spec.queue.priorities = 3;
    spec.batching = Some(BatchingSpec {
        max_rows: 1,
        ..BatchingSpec::default()
    });
    let hosting = hosting(&lab, spec);
    let with = |value: f64, priority| Call {
        priority,
        ..call(value)
    };
    let first = hosting.call(with(0.0, 0));
    let others = async {
        real_sleep(Duration::from_millis(3)).await;
        let calls = [with(1.0, 3), with(2.0, 0), with(3.0, 1)];
        futures_util::future::join_all(calls.into_iter().map(|call| hosting.call(call))).await
    };
    futures_util::future::join(first, others).await.0.unwrap();
    assert_eq!(*lab.seen.lock().unwrap(), [0.0, 3.0, 2.0, 1.0]);
}

#[tokio::test]
async fn a_full_line_refuses_at_once_and_a_late_answer_is_told_in_time() {
    let lab = lab(100);
    let mut spec = patient();
    spec.queue.max_requests = 2;
    spec.batching = Some(BatchingSpec {
        max_rows: 1,
        ..BatchingSpec::default()
    });
    let hosting = hosting(&lab, spec);
    hosting.load(&EndpointName::new("add")).await.unwrap();
    let calls = (0..5).map(|i| hosting.call(call(f64::from(i))));
    let answers = futures_util::future::join_all(calls).await;
    let refused = answers
        .iter()
        .filter(|answer| matches!(answer, Err(ServeError::Overloaded { .. })))
        .count();
    assert!((2..=3).contains(&refused), "{refused} refused");

    let watch = Stopwatch::start();
    let impatient = Call {
        timeout: Some(Duration::from_millis(30)),
        ..call(9.0)
    };
    let error = hosting.call(impatient).await.unwrap_err();
    assert_eq!(error.code(), "deadline_passed");
    assert!(
        watch.elapsed() < Duration::from_millis(90),
        "{:?}",
        watch.elapsed()
    );
    // Nobody waits for it any more, so it is not worked on.
    let dead = Call {
        timeout: Some(Duration::ZERO),
        ..call(10.0)
    };
    hosting.call(dead).await.unwrap_err();
    real_sleep(Duration::from_millis(150)).await;
    assert!(!lab.seen.lock().unwrap().contains(&10.0));
}

#[tokio::test]
async fn an_overload_is_refused_so_that_the_rest_is_answered_nearly_as_quickly_as_on_a_quiet_day() {
    let lab = lab(10);
    let spec = ServingSpec {
        batching: Some(BatchingSpec {
            max_rows: 1,
            ..BatchingSpec::default()
        }),
        ..ServingSpec::default()
    };
    let hosting = hosting(&lab, spec);
    let mut quiet = Vec::new();
    for i in 0..9 {
        let watch = Stopwatch::start();
        hosting.call(call(f64::from(i))).await.unwrap();
        quiet.push(watch.elapsed());
    }
    quiet.sort_unstable();
    // Calls that come whether they are answered or refused, four times as many as the model answers, however fast this machine is.
    let mut calls = Vec::new();
    let mut worked = lab.seen.lock().unwrap().len() - 1;
    while calls.len() < 600 {
        let seen = lab.seen.lock().unwrap().len();
        for _ in 0..4 * (seen - worked) {
            let hosting = hosting.clone();
            calls.push(tokio::spawn(async move {
                let watch = Stopwatch::start();
                (hosting.call(call(0.0)).await, watch.elapsed())
            }));
        }
        worked = seen;
        real_sleep(Duration::from_millis(1)).await;
    }
    let (mut late, mut refused) = (Vec::new(), 0);
    for (i, ended) in futures_util::future::join_all(calls)
        .await
        .into_iter()
        .enumerate()
    {
        match ended.unwrap() {
            // What came before it was known as an overload waited with all the others.
            (Ok(_), took) if i >= 150 => late.push(took),
            (Ok(_), _) => {}
            (Err(ServeError::Overloaded { .. }), _) => refused += 1,
            (Err(error), _) => panic!("{error}"),
        }
    }
    late.sort_unstable();
    assert!(refused > 100, "{refused} refused");
    let median = late[late.len() / 2];
    let usual = quiet[quiet.len() / 2];
    assert!(
        median < 6 * usual,
        "in a line that only grows, half of them took {median:?}, alone {usual:?}"
    );
}

#[tokio::test]
async fn more_is_asked_than_one_replica_takes_so_there_are_more_and_idle_ones_go_again() {
    let lab = lab(30);
    let mut spec = patient();
    spec.scaling = ScalingSpec {
        max: 3,
        target_concurrency: 2,
        idle: Span::from_micros(50_000),
        ..ScalingSpec::default()
    };
    spec.batching = Some(BatchingSpec {
        max_rows: 1,
        ..BatchingSpec::default()
    });
    let hosting = hosting(&lab, spec);
    let calls = (0..24).map(|i| hosting.call(call(f64::from(i))));
    assert!(
        futures_util::future::join_all(calls)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(lab.loads.load(Ordering::SeqCst), 3, "as many as it may have");
    assert_eq!(hosting.index()[0].replicas, 3);
    real_sleep(Duration::from_millis(80)).await;
    hosting.tidy();
    assert_eq!(
        (hosting.index()[0].replicas, lab.alive.load(Ordering::SeqCst)),
        (0, 0),
        "asleep"
    );
    hosting.call(call(1.0)).await.unwrap();
    assert_eq!(hosting.index()[0].replicas, 1);
}

#[tokio::test]
async fn what_is_provisioned_is_loaded_before_it_is_asked_and_stays() {
    let lab = lab(1);
    let mut spec = patient();
    spec.scaling = ScalingSpec {
        provisioned: 2,
        max: 4,
        idle: Span::ZERO,
        ..ScalingSpec::default()
    };
    let hosting = hosting(&lab, spec);
    for _ in 0..4 {
        hosting.tidy();
        real_sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(hosting.index()[0].replicas, 2);
}

#[tokio::test]
async fn the_models_asked_longest_ago_sleep_when_memory_is_short() {
    let hosting = Hosting::new(Arc::new(WallClock));
    hosting.set_memory_budget(Some(250));
    let labs: BTreeMap<String, Arc<Lab>> = (0..4)
        .map(|i| {
            let lab = Arc::new(Lab {
                memory: 100,
                ..Lab::default()
            });
            let name = format!("model-{i}");
            deploy(&hosting, &name, &lab, patient());
            (name, lab)
        })
        .collect();
    for name in ["model-2", "model-0", "model-3", "model-1"] {
        let call = Call {
            endpoint: EndpointName::new(name),
            ..call(1.0)
        };
        hosting.call(call).await.unwrap();
        real_sleep(Duration::from_millis(2)).await;
    }
    hosting.tidy();
    let awake: Vec<&String> = labs
        .iter()
        .filter(|(_, lab)| lab.alive.load(Ordering::SeqCst) > 0)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(awake, ["model-1", "model-3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_replaced_under_load_drops_no_request() {
    let old = lab(2);
    let hosting = hosting(&old, patient());
    let new = Arc::new(Lab {
        takes: Duration::from_millis(2),
        step: 100.0,
        ..Lab::default()
    });
    let callers = (0..8).map(|_| {
        let hosting = hosting.clone();
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for _ in 0..50 {
                answers.push(value(&hosting.call(call(0.0)).await.unwrap()));
            }
            answers
        })
    });
    let callers: Vec<_> = callers.collect();
    real_sleep(Duration::from_millis(40)).await;
    deploy(&hosting, "add", &new, patient());
    let (mut before, mut after) = (0, 0);
    for caller in callers {
        for answer in caller.await.unwrap() {
            assert!(answer == 1.0 || answer == 100.0);
            if answer == 1.0 { before += 1 } else { after += 1 }
        }
    }
    assert!(
        before > 0 && after > 0 && before + after == 400,
        "{before} and {after}"
    );
    real_sleep(Duration::from_millis(20)).await;
    assert_eq!(old.alive.load(Ordering::SeqCst), 0, "the old one is gone");
}

#[tokio::test]
async fn the_same_call_is_answered_from_memory_where_that_is_wanted() {
    let lab = lab(1);
    let mut spec = patient();
    spec.cache = Some(tidemill_core::spec::CacheSpec { mib: 1, ttl: None });
    let hosting = hosting(&lab, spec);
    assert!(!hosting.call(call(1.0)).await.unwrap().cached);
    let again = hosting.call(call(1.0)).await.unwrap();
    assert!(again.cached && value(&again) == 2.0);
    assert!(!hosting.call(call(2.0)).await.unwrap().cached);
    let statistics = &hosting.statistics(None)[0];
    assert_eq!((statistics.cache_hit.count, statistics.cache_miss.count), (1, 2));
    assert_eq!(lab.batches.lock().unwrap().len(), 2);
}
