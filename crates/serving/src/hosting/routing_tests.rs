//! Routing, shadows, breakers and fallbacks, on models whose answers name them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tidemill_core::clock::{Stopwatch, Timestamp, VirtualClock, real_sleep};
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{CallContext, Interface, Loader, Payload, Servable, Work};
use tidemill_core::spec::ServingSpec;
use tidemill_core::tensors::{DataType, Tensor, TensorSpec};

use super::routing::BreakerState;
use super::{Call, CallAnswer, Hosted, HostedVersion, Hosting};
use crate::error::ServeError;

/// Answers each row with its own number; slow or broken when told so.
#[derive(Debug)]
struct Lab {
    says: f64,
    takes: Duration,
    broken: AtomicBool,
    loads: AtomicUsize,
    calls: AtomicUsize,
}

#[derive(Debug)]
struct Sayer(Arc<Lab>, Interface);

#[async_trait]
impl Servable for Sayer {
    fn interface(&self) -> &Interface {
        &self.1
    }
    fn work(&self) -> Work {
        Work::Remote
    }
    async fn call(&self, payload: Payload, _context: &CallContext) -> Result<Payload, PortError> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        real_sleep(self.0.takes).await;
        if self.0.broken.load(Ordering::SeqCst) {
            return Err(PortError::internal("model_broken", "it broke"));
        }
        let Payload::Tensors(tensors) = payload else {
            return Err(PortError::caller("model_broken", "no tensors"));
        };
        let rows = tensors[0].rows();
        let says = vec![self.0.says; rows];
        Ok(Payload::Tensors(vec![
            Tensor::of_f64("y", vec![rows], &says).unwrap(),
        ]))
    }
}

#[derive(Debug)]
struct LabLoader(Arc<Lab>);

#[async_trait]
impl Loader for LabLoader {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        let interface = Interface {
            inputs: vec![TensorSpec::new("x", DataType::Fp64, vec![-1])],
            outputs: vec![TensorSpec::new("y", DataType::Fp64, vec![-1])],
            batches: true,
            ..Interface::default()
        };
        Ok(Arc::new(Sayer(Arc::clone(&self.0), interface)))
    }
}

fn lab(says: f64, millis: u64) -> Arc<Lab> {
    Arc::new(Lab {
        says,
        takes: Duration::from_millis(millis),
        broken: AtomicBool::new(false),
        loads: AtomicUsize::new(0),
        calls: AtomicUsize::new(0),
    })
}

fn spec(value: Value) -> Arc<ServingSpec> {
    let spec: ServingSpec = serde_json::from_value(value).unwrap();
    spec.check("serving").unwrap();
    Arc::new(spec)
}

struct Place {
    hosting: Hosting,
    clock: VirtualClock,
    labs: BTreeMap<u32, Arc<Lab>>,
}

fn deploy(hosting: &Hosting, name: &str, labs: &BTreeMap<u32, Arc<Lab>>, settings: Value) {
    let version = |(number, lab): (&u32, &Arc<Lab>)| HostedVersion {
        number: VersionNumber(*number),
        loader: Arc::new(LabLoader(Arc::clone(lab))),
        bundle: None,
    };
    hosting.put(Hosted {
        name: name.into(),
        spec: spec(settings),
        versions: labs.iter().map(version).collect(),
    });
}

/// Versions 1 to 3, which say their number.
fn place(settings: Value) -> Place {
    let clock = VirtualClock::new(Timestamp::from_micros(1_000_000_000));
    let hosting = Hosting::new(Arc::new(clock.clone()));
    let labs: BTreeMap<u32, Arc<Lab>> = (1..=3)
        .map(|number| (number, lab(f64::from(number), 0)))
        .collect();
    deploy(&hosting, "m", &labs, settings);
    Place { hosting, clock, labs }
}

fn call(key: &str) -> Call {
    let tensor = Tensor::of_f64("x", vec![1], &[7.0]).unwrap();
    let mut call = Call::new("m".into(), Payload::Tensors(vec![tensor]), Stopwatch::start());
    call.key = Some(key.into());
    call
}

fn values(answer: &CallAnswer) -> Vec<f64> {
    let Payload::Tensors(tensors) = &answer.payload else {
        panic!("tensors")
    };
    tensors[0].to_f64().unwrap()
}

impl Place {
    async fn ask(&self, call: Call) -> CallAnswer {
        self.hosting.call(call).await.unwrap()
    }

    fn break_(&self, number: u32, broken: bool) {
        self.labs[&number].broken.store(broken, Ordering::SeqCst);
    }

    fn routing(&self) -> super::RoutingStatistics {
        self.hosting.routing_statistics(Some(&"m".into())).remove(0)
    }
}

#[tokio::test]
async fn without_routing_the_newest_answers_and_a_named_version_always_does() {
    let place = place(json!({"versions": "all"}));
    let answer = place.ask(call("a")).await;
    assert_eq!(
        (answer.version, &*answer.route, values(&answer)),
        (VersionNumber(3), "newest", vec![3.0])
    );
    let mut named = call("a");
    named.version = Some(VersionNumber(1));
    let answer = place.ask(named).await;
    assert_eq!((answer.version, &*answer.route), (VersionNumber(1), "version"));
}

#[tokio::test]
async fn the_first_rule_that_holds_wins_and_the_rest_is_split() {
    let place = place(json!({"routing": {
        "rules": [
            {"when": {"header": "x-plan", "equals": "gold"}, "version": 1},
            {"when": {"header": "x-plan", "prefix": "g"}, "version": 2},
            {"when": {"input": "x", "min": 100}, "version": 2},
        ],
        "split": {"3": 1.0},
    }}));
    let with = |plan: &str| {
        let mut call = call("a");
        call.attributes.insert("x-plan".to_owned(), plan.to_owned());
        call
    };
    for (plan, version, route) in [
        ("gold", 1, "rule 1"),
        ("green", 2, "rule 2"),
        ("red", 3, "split 1.0000"),
    ] {
        let answer = place.ask(with(plan)).await;
        assert_eq!((answer.version.0, &*answer.route), (version, route), "{plan}");
    }
    let mut named = with("gold");
    named.version = Some(VersionNumber(2));
    assert_eq!(place.ask(named).await.version.0, 2);
    let counted = place.routing();
    assert_eq!((counted.explicit, counted.rule, counted.split), (1, 2, 1));
}

#[tokio::test]
async fn a_key_keeps_its_version_while_the_share_of_the_new_one_grows_and_nothing_is_loaded_again() {
    let place = place(json!({"routing": {"split": {"1": 90, "2": 10}}}));
    let mut on_new = Vec::new();
    for key in 0..300 {
        let answer = place.ask(call(&key.to_string())).await;
        if answer.version.0 == 2 {
            on_new.push(key);
        }
    }
    assert!((12..60).contains(&on_new.len()), "{}", on_new.len());
    let settings = spec(json!({"routing": {"split": {"1": 50, "2": 50}}}));
    place.hosting.set_spec(&"m".into(), settings).unwrap();
    for key in on_new {
        assert_eq!(place.ask(call(&key.to_string())).await.version.0, 2);
    }
    let loads = [1, 2].map(|number| place.labs[&number].loads.load(Ordering::SeqCst));
    assert_eq!(loads, [1, 1]);
    let successes: u64 = place
        .hosting
        .statistics(None)
        .iter()
        .map(|version| version.success.count)
        .sum();
    assert!(successes > 300, "the counters go on: {successes}");
}

#[tokio::test]
async fn other_limits_keep_what_is_loaded_and_another_worker_does_not() {
    let place = place(json!({}));
    place.ask(call("a")).await;
    let load_count = || place.labs[&3].loads.load(Ordering::SeqCst);
    place
        .hosting
        .set_spec(
            &"m".into(),
            spec(json!({"queue": {"max_requests": 3}, "timeout": "5s"})),
        )
        .unwrap();
    place.ask(call("a")).await;
    assert_eq!(load_count(), 1);
    place
        .hosting
        .set_spec(&"m".into(), spec(json!({"worker": {"cpu": 2}})))
        .unwrap();
    place.ask(call("a")).await;
    assert_eq!(load_count(), 2);
}

#[tokio::test]
async fn a_slow_shadow_never_delays_the_caller_and_what_it_cannot_take_is_dropped_and_counted() {
    let mut labs = BTreeMap::from([(1, lab(1.0, 0))]);
    labs.insert(2, lab(2.0, 200));
    let hosting = Hosting::new(Arc::new(tidemill_core::clock::WallClock));
    deploy(
        &hosting,
        "m",
        &labs,
        json!({"routing": {"shadow": [{"version": 2, "max_copies": 4}]}}),
    );
    hosting.call(call("warm")).await.unwrap();
    let watch = Stopwatch::start();
    for key in 0..20 {
        let answer = hosting.call(call(&key.to_string())).await.unwrap();
        assert_eq!(answer.version.0, 1, "the newest is a shadow and answers nobody");
    }
    assert!(
        watch.elapsed() < Duration::from_millis(150),
        "{:?}",
        watch.elapsed()
    );
    real_sleep(Duration::from_millis(450)).await;
    let shadow = &hosting.routing_statistics(None)[0].shadows[0];
    assert_eq!((shadow.copies, shadow.dropped), (4, 17));
    assert_eq!((shadow.different, shadow.equal, shadow.failed), (4, 0, 0));
    assert!((shadow.mean_difference - 1.0).abs() < 1e-12);
    assert_eq!(labs[&2].calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_version_that_fails_is_replaced_given_a_rest_and_tried_again() {
    let place = place(json!({
        "routing": {"split": {"3": 1}},
        "breaker": {"failures": 3, "window": "10s", "open": "30s"},
        "fallback": [{"version": 2}, {"default": {"y": 0.5}}],
    }));
    place.break_(3, true);
    let asked = || place.labs[&3].calls.load(Ordering::SeqCst);
    for _ in 0..5 {
        let answer = place.ask(call("a")).await;
        assert_eq!(
            (answer.version.0, answer.degraded.as_deref()),
            (2, Some("fallback_version"))
        );
        assert_eq!(&*answer.route, "fallback version 2");
    }
    assert_eq!(asked(), 3, "after three failures it is left alone");
    let state = |version: u32| {
        let breakers = place.routing().breakers;
        breakers
            .into_iter()
            .find(|breaker| breaker.version.0 == version)
            .unwrap()
    };
    assert_eq!((state(3).state, state(3).opened), (BreakerState::Open, 1));
    place.break_(3, false);
    place
        .clock
        .advance_to(Timestamp::from_micros(1_000_000_000 + 30_000_000));
    assert_eq!(state(3).state, BreakerState::HalfOpen);
    let answer = place.ask(call("a")).await;
    assert_eq!((answer.version.0, answer.degraded), (3, None));
    assert_eq!(state(3).state, BreakerState::Closed);
    assert_eq!(place.routing().fallback_version, 5);
}

#[tokio::test]
async fn the_chain_goes_on_to_another_deployment_a_fixed_answer_or_an_answer_that_abstains() {
    let place = place(
        json!({"fallback": [{"version": 2}, {"endpoint": "cheap"}, {"default": {"y": 0.25, "why": "default"}}]}),
    );
    let cheap = BTreeMap::from([(1, lab(9.0, 0))]);
    deploy(&place.hosting, "cheap", &cheap, json!({}));
    place.break_(3, true);
    place.break_(2, true);
    let answer = place.ask(call("a")).await;
    assert_eq!(
        (answer.degraded.as_deref(), values(&answer)),
        (Some("fallback_endpoint"), vec![9.0])
    );
    assert_eq!(&*answer.route, "fallback endpoint cheap version 1");
    cheap[&1].broken.store(true, Ordering::SeqCst);
    let mut three = call("a");
    three.payload = Payload::Tensors(vec![Tensor::of_f64("x", vec![3], &[1.0; 3]).unwrap()]);
    let answer = place.ask(three).await;
    assert_eq!(
        (answer.version, answer.degraded.as_deref()),
        (VersionNumber::DEFAULT, Some("fallback_default"))
    );
    assert_eq!(values(&answer), [0.25; 3], "the same for every row");
    let Payload::Tensors(tensors) = &answer.payload else {
        panic!("tensors")
    };
    assert_eq!(
        (tensors[1].datatype, tensors[1].shape.as_slice()),
        (DataType::Bytes, [3].as_slice())
    );

    place
        .hosting
        .set_spec(&"m".into(), spec(json!({"fallback": [{"abstain": true}]})))
        .unwrap();
    let answer = place.ask(call("a")).await;
    assert_eq!(
        (answer.degraded.as_deref(), answer.payload),
        (Some("abstained"), Payload::Tensors(vec![]))
    );
    let counted = place.routing();
    assert_eq!(
        (
            counted.fallback_endpoint,
            counted.fallback_default,
            counted.abstained
        ),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn a_request_that_is_wrong_and_a_version_that_was_named_get_their_error() {
    let place = place(json!({"fallback": [{"default": {"y": 0.5}}]}));
    let mut wrong = call("a");
    wrong.payload = Payload::Tensors(vec![Tensor::of_f64("z", vec![1], &[1.0]).unwrap()]);
    assert!(matches!(
        place.hosting.call(wrong).await,
        Err(ServeError::Payload { .. })
    ));
    place.break_(3, true);
    let mut named = call("a");
    named.version = Some(VersionNumber(3));
    assert!(matches!(
        place.hosting.call(named).await,
        Err(ServeError::Model { .. })
    ));
    place
        .hosting
        .set_spec(&"m".into(), spec(json!({"fallback": [{"version": 2}]})))
        .unwrap();
    place.break_(2, true);
    let error = place.hosting.call(call("a")).await.unwrap_err();
    assert_eq!(error.code(), "all_failed");
    assert!(
        error.to_string().contains("version 3 of endpoint `m` failed")
            && error.to_string().contains("version 2"),
        "{error}"
    );
}

#[tokio::test]
async fn deployments_that_fall_back_on_each_other_end_with_an_error_and_not_for_ever() {
    let hosting = Hosting::new(Arc::new(tidemill_core::clock::WallClock));
    for (name, other) in [("m", "n"), ("n", "m")] {
        let lab = lab(1.0, 0);
        lab.broken.store(true, Ordering::SeqCst);
        deploy(
            &hosting,
            name,
            &BTreeMap::from([(1, lab)]),
            json!({"fallback": [{"endpoint": other}], "breaker": {"failures": 100}}),
        );
    }
    let error = hosting.call(call("a")).await.unwrap_err();
    assert_eq!(error.code(), "all_failed");
    assert!(error.to_string().contains("8 deep"), "{error}");
}

#[tokio::test]
async fn a_bandit_learns_from_outcomes_and_keeps_what_it_learnt_when_it_is_put_again() {
    let place = place(json!({"routing": {"bandit": {"versions": [1, 2], "min_share": 0.1, "seed": 4}}}));
    let name: EndpointName = "m".into();
    let answer = place.ask(call("a")).await;
    assert!(answer.route.starts_with("bandit 0."), "{}", answer.route);
    for round in 0..400 {
        let answer = place.ask(call(&round.to_string())).await;
        let outcome = if answer.version.0 == 2 {
            f64::from(u8::from(round % 2 == 0))
        } else {
            0.0
        };
        assert!(
            place
                .hosting
                .tell_outcome(&name, answer.version, outcome)
                .unwrap()
        );
    }
    let state = place.hosting.bandit(&name).unwrap().unwrap();
    assert!((state.arms[1].share - 0.9).abs() < 1e-9, "{state:?}");
    assert!(!place.hosting.tell_outcome(&name, VersionNumber(3), 1.0).unwrap());
    place.hosting.set_spec(&name, spec(json!({"timeout": "1s", "routing": {"bandit": {"versions": [1, 2], "min_share": 0.1, "seed": 4}}}))).unwrap();
    let after = place.hosting.bandit(&name).unwrap().unwrap();
    assert_eq!(after.arms[1].successes, state.arms[1].successes);
    let fresh =
        self::place(json!({"routing": {"bandit": {"versions": [1, 2], "min_share": 0.1, "seed": 4}}}));
    assert!(fresh.hosting.restore_bandit(&name, &state).unwrap());
    assert!(fresh.hosting.bandit(&name).unwrap().unwrap().arms[1].share > 0.85);
}

#[tokio::test]
async fn each_version_has_its_own_remembered_answers() {
    let place = place(json!({"versions": "all", "cache": {"mib": 1}}));
    let named = |version: u32| Call {
        version: Some(VersionNumber(version)),
        ..call("a")
    };
    for version in [1, 2, 1, 2] {
        let answer = place.ask(named(version)).await;
        assert_eq!(values(&answer), [f64::from(version)]);
    }
}
