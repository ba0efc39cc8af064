//! What serving promises: sticky shares, marked fallbacks, harmless shadows, repeats answered once.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use tidemill_core::clock::{Stopwatch, Timestamp, VirtualClock};
use tidemill_core::frame::{Column, Frame, Task};
use tidemill_core::ids::VersionNumber;
use tidemill_core::predictions::{PredictionBatch, Role};

use crate::testing::{FakeModel, deployment, frame, route, schema};
use crate::{
    Canary, Deployment, InferRequest, InferResponse, LogOptions, PredictionLog, Route, Router, RoutingTable,
    ServeError, Server,
};

struct Bench {
    dir: TempDir,
    server: Server,
    clock: Arc<VirtualClock>,
}

impl Bench {
    fn new(route: Route) -> Self {
        Self::at(TempDir::new().unwrap(), route)
    }

    fn at(dir: TempDir, route: Route) -> Self {
        let router = Router::new();
        router.put(route);
        let clock = Arc::new(VirtualClock::new(Timestamp::from_micros(1_000_000)));
        let (log, _) = PredictionLog::open(dir.path(), LogOptions::default()).unwrap();
        let server = Server::new(Arc::new(router), log, Arc::<VirtualClock>::clone(&clock));
        Self { dir, server, clock }
    }

    /// The same folder and route in a new process.
    fn restarted(self) -> Self {
        let route = Route::clone(&self.server.router().route(&"flights".into()).unwrap());
        drop(self.server);
        Self::at(self.dir, route)
    }

    async fn predict(&self, request: InferRequest) -> Result<InferResponse, ServeError> {
        self.server.predict(request).await
    }

    async fn logged(&self) -> Vec<Arc<PredictionBatch>> {
        let (from, until) = (Timestamp::from_micros(0), Timestamp::from_micros(i64::MAX));
        self.server
            .log()
            .live_batches(&"flights".into(), from, until)
            .await
            .unwrap()
    }
}

fn request(rows: usize) -> InferRequest {
    InferRequest {
        endpoint: "flights".into(),
        request_id: None,
        rows: frame(rows),
        keys: (0..rows)
            .map(|row| Some(Arc::from(format!("unit-{row}"))))
            .collect(),
        received: Stopwatch::start(),
        version: None,
        deadline: None,
    }
}

fn named(rows: usize, id: &str) -> InferRequest {
    InferRequest {
        request_id: Some(id.to_owned()),
        ..request(rows)
    }
}

fn canary(deployment: &Arc<Deployment>, share: f64) -> Canary {
    Canary {
        deployment: Arc::clone(deployment),
        share,
        salt: "rollout-1".to_owned(),
    }
}

fn fail(model: &FakeModel) {
    model.fails.store(true, Ordering::SeqCst);
}

fn rows_of(response: &InferResponse, role: Role) -> HashSet<usize> {
    (0..response.roles.len())
        .filter(|&row| response.roles[row] == role)
        .collect()
}

#[tokio::test]
async fn the_canary_gets_its_share_and_keeps_its_units_as_the_share_grows() {
    let ((first, champion), (second, challenger)) = (deployment(1), deployment(2));
    let bench = Bench::new(Route {
        champion: Some(champion),
        ..route()
    });
    let mut before = HashSet::new();
    for share in [0.0, 0.05, 0.1, 0.5, 1.0] {
        let current = bench.server.router().route(&"flights".into()).unwrap();
        bench.server.router().put(Route {
            canary: Some(canary(&challenger, share)),
            ..Route::clone(&current)
        });
        let response = bench.predict(request(4_000)).await.unwrap();
        let units = rows_of(&response, Role::Canary);
        let got = units.len() as f64 / 4_000.0;
        assert!((got - share).abs() < 0.02, "{got} of {share}");
        assert!(before.is_subset(&units), "a unit left the canary at {share}");
        for row in 0..4_000 {
            let version = if units.contains(&row) { 2 } else { 1 };
            assert_eq!(response.versions[row], VersionNumber(version));
            assert_eq!(response.scores.row(row), [f64::from(version) / 10.0]);
        }
        assert_eq!(bench.logged().await.last().unwrap().canary_share, share);
        before = units;
    }
    // Each row was computed by one of the two, once.
    let called = |model: &FakeModel| model.called_rows.load(Ordering::SeqCst);
    assert_eq!(called(&first) + called(&second), 5 * 4_000);
}

#[tokio::test]
async fn each_failure_falls_back_to_the_next_and_says_so_in_answer_and_log() {
    let ((m1, previous), (m2, champion), (m3, challenger)) = (deployment(1), deployment(2), deployment(3));
    let bench = Bench::new(Route {
        champion: Some(champion),
        previous: Some(previous),
        canary: Some(canary(&challenger, 0.5)),
        default: Some(vec![0.42]),
        ..route()
    });
    let healthy = bench.predict(request(100)).await.unwrap();
    let canary_rows = rows_of(&healthy, Role::Canary);
    assert!(healthy.degraded.iter().all(Option::is_none));

    fail(&m3);
    let response = bench.predict(request(100)).await.unwrap();
    assert_eq!(rows_of(&response, Role::Champion).len(), 100);
    for row in 0..100 {
        let story = canary_rows.contains(&row).then_some("canary failed: no luck");
        assert_eq!(response.degraded[row].as_deref(), story);
    }
    let logged = bench.logged().await;
    assert_eq!(InferResponse::from(&**logged.last().unwrap()), response);

    m2.panics.store(true, Ordering::SeqCst);
    let response = bench.predict(request(100)).await.unwrap();
    assert_eq!(rows_of(&response, Role::Previous).len(), 100);
    for row in 0..100 {
        let story = if canary_rows.contains(&row) {
            "canary failed: no luck; champion failed: version 2 panicked"
        } else {
            "champion failed: version 2 panicked"
        };
        assert_eq!(response.degraded[row].as_deref(), Some(story));
    }

    fail(&m1);
    let response = bench.predict(request(100)).await.unwrap();
    assert_eq!(rows_of(&response, Role::Default).len(), 100);
    assert_eq!(response.versions, vec![VersionNumber::DEFAULT; 100]);
    assert_eq!(response.scores.values(), [0.42; 100]);

    let current = bench.server.router().route(&"flights".into()).unwrap();
    bench.server.router().put(Route {
        default: None,
        ..Route::clone(&current)
    });
    let before = bench.logged().await.len();
    let error = bench.predict(request(100)).await.unwrap_err();
    assert_eq!(error.code(), "all_failed");
    assert!(
        error.to_string().contains("previous champion failed: no luck"),
        "{error}"
    );
    assert_eq!(bench.logged().await.len(), before);
    let metrics = bench.server.metrics();
    assert_eq!(
        (metrics.requests, metrics.errors, metrics.default_rows),
        (4, 1, 100)
    );
    assert_eq!(metrics.canary_failed_rows, 4 * canary_rows.len() as u64);
    assert_eq!(
        (metrics.champion_failed_rows, metrics.previous_failed_rows),
        (300, 200)
    );
}

#[tokio::test]
async fn an_endpoint_without_a_model_gives_its_default_or_says_what_to_do() {
    let bench = Bench::new(route());
    let error = bench.predict(request(1)).await.unwrap_err();
    assert_eq!(error.code(), "no_model");
    bench.server.router().put(Route {
        default: Some(vec![0.2]),
        ..route()
    });
    let response = bench.predict(request(2)).await.unwrap();
    assert_eq!(
        (response.roles, response.scores.values()),
        (vec![Role::Default; 2], [0.2; 2].as_slice())
    );
    assert_eq!(response.degraded[0].as_deref(), Some(crate::NO_MODEL_YET));
    let mut unknown = request(1);
    unknown.endpoint = "flight".into();
    let error = bench.predict(unknown).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no endpoint `flight`; known: `flights`"
    );
}

#[tokio::test]
async fn a_version_asked_for_answers_alone() {
    let ((_, champion), (m2, challenger), (_, shadow)) = (deployment(1), deployment(2), deployment(3));
    let bench = Bench::new(Route {
        champion: Some(champion),
        canary: Some(canary(&challenger, 0.5)),
        shadows: vec![shadow],
        ..route()
    });
    let ask = |version| InferRequest {
        version: Some(VersionNumber(version)),
        ..request(10)
    };
    for version in 1..=3 {
        let response = bench.predict(ask(version)).await.unwrap();
        assert_eq!(response.versions, vec![VersionNumber(version); 10]);
    }
    assert!(bench.logged().await.iter().all(|batch| batch.canary_share == 0.0));
    let error = bench.predict(ask(9)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "endpoint `flights` does not serve version 9; loaded: 1, 2, 3"
    );
    fail(&m2);
    assert_eq!(bench.predict(ask(2)).await.unwrap_err().code(), "all_failed");
}

#[tokio::test]
async fn a_shadow_is_recorded_and_its_failure_harms_nobody() {
    let ((_, champion), (m2, good), (m3, bad)) = (deployment(1), deployment(2), deployment(3));
    let bench = Bench::new(Route {
        champion: Some(champion),
        shadows: vec![good, bad],
        ..route()
    });
    m3.panics.store(true, Ordering::SeqCst);
    let response = bench.predict(request(20)).await.unwrap();
    assert_eq!(response.versions, vec![VersionNumber(1); 20]);
    assert!(response.degraded.iter().all(Option::is_none));
    let logged = bench.logged().await;
    assert_eq!(logged[0].shadows.len(), 1);
    assert_eq!(logged[0].shadows[0].version, VersionNumber(2));
    assert_eq!(logged[0].shadows[0].scores.values(), [0.2; 20]);
    assert_eq!(m2.called_rows.load(Ordering::SeqCst), 20);
    assert_eq!(bench.server.metrics().shadow_failures, 1);
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_even_after_a_restart_and_a_removed_segment() {
    let (model, champion) = deployment(1);
    let bench = Bench::new(Route {
        champion: Some(champion),
        ..route()
    });
    let first = bench.predict(named(5, "r1")).await.unwrap();
    bench.clock.advance_to(Timestamp::from_micros(9_000_000));
    assert_eq!(bench.predict(named(5, "r1")).await.unwrap(), first);

    // Another content under the same id is another request, with other ids.
    let other = bench.predict(named(6, "r1")).await.unwrap();
    assert!(other.ids.iter().all(|id| !first.ids.contains(id)));
    assert_eq!(
        (bench.logged().await.len(), model.calls.load(Ordering::SeqCst)),
        (2, 2)
    );

    let bench = bench.restarted();
    assert_eq!(bench.predict(named(5, "r1")).await.unwrap(), first);
    let log = bench.server.log();
    log.seal().await.unwrap();
    for segment in log.sealed() {
        log.remove(&segment).await.unwrap();
    }
    assert_eq!(bench.predict(named(5, "r1")).await.unwrap(), first);
    assert_eq!(
        (bench.logged().await.len(), model.calls.load(Ordering::SeqCst)),
        (0, 2)
    );
    assert_eq!(bench.server.metrics().repeats, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_repeats_are_answered_alike_and_logged_once() {
    let (model, champion) = deployment(1);
    let bench = Arc::new(Bench::new(Route {
        champion: Some(champion),
        ..route()
    }));
    for round in 0..20 {
        let mut tasks = Vec::new();
        for _ in 0..16 {
            let bench = Arc::clone(&bench);
            tasks.push(tokio::spawn(async move {
                bench.predict(named(300, &format!("r{round}"))).await
            }));
        }
        let mut ids = HashSet::new();
        for task in tasks {
            ids.insert(task.await.unwrap().unwrap().ids);
        }
        assert_eq!(ids.len(), 1);
    }
    assert_eq!(
        (bench.logged().await.len(), model.calls.load(Ordering::SeqCst)),
        (20, 20)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_who_hang_up_at_any_point_never_make_a_request_count_twice() {
    let (_, champion) = deployment(1);
    let bench = Arc::new(Bench::new(Route {
        champion: Some(champion),
        ..route()
    }));
    for round in 0..60 {
        let id = format!("r{round}");
        let hurried = {
            let (bench, id) = (Arc::clone(&bench), id.clone());
            tokio::spawn(async move { bench.predict(named(20, &id)).await })
        };
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        hurried.abort();
        bench.predict(named(20, &id)).await.unwrap();
    }
    let mut counts = BTreeMap::new();
    for batch in bench.logged().await {
        *counts.entry(batch.request_id.clone()).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 60);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

#[tokio::test]
async fn a_failed_request_may_be_sent_again_under_its_id() {
    let (model, champion) = deployment(1);
    let bench = Bench::new(Route {
        champion: Some(champion),
        ..route()
    });
    fail(&model);
    bench.predict(named(3, "r1")).await.unwrap_err();
    model.fails.store(false, Ordering::SeqCst);
    bench.predict(named(3, "r1")).await.unwrap();
    assert_eq!(bench.logged().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn routes_swapped_during_requests_never_mix_within_one() {
    let bench = Arc::new(Bench::new(Route {
        champion: Some(deployment(1).1),
        ..route()
    }));
    let done = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (bench, done) = (Arc::clone(&bench), Arc::clone(&done));
        tokio::spawn(async move {
            let mut generation = 1;
            while !done.load(Ordering::SeqCst) {
                generation += 1;
                let next = Route {
                    champion: Some(deployment(1 + generation as u32 % 9).1),
                    generation,
                    ..route()
                };
                if generation % 2 == 0 {
                    bench.server.router().put(next);
                } else {
                    let routes = [(next.endpoint.clone(), Arc::new(next))].into();
                    bench.server.router().swap(RoutingTable { routes });
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let mut clients = Vec::new();
    for _ in 0..4 {
        let bench = Arc::clone(&bench);
        clients.push(tokio::spawn(async move {
            for _ in 0..50 {
                let response = bench.predict(request(30)).await.unwrap();
                let version = response.versions[0];
                assert!(response.versions.iter().all(|other| *other == version));
                assert_eq!(response.scores.values(), [f64::from(version.0) / 10.0; 30]);
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    swapper.await.unwrap();
    assert_eq!(bench.logged().await.len(), 200);
}

#[tokio::test]
async fn an_older_route_never_replaces_a_newer_one() {
    let router = Router::new();
    let generation = |generation| Route {
        generation,
        ..route()
    };
    assert!(router.put(generation(5)));
    assert!(!router.put(generation(4)));
    assert!(router.put(generation(5)));
    assert_eq!(router.route(&"flights".into()).unwrap().generation, 5);
    router.remove(&"flights".into());
    assert!(router.route(&"flights".into()).is_none());
}

#[tokio::test]
async fn requests_that_do_not_fit_are_refused_before_any_model_sees_them() {
    let (model, champion) = deployment(1);
    let bench = Bench::new(Route {
        champion: Some(champion),
        ..route()
    });
    let mut short_of_keys = request(3);
    short_of_keys.keys.pop();
    assert_eq!(
        bench.predict(short_of_keys).await.unwrap_err().code(),
        "schema_mismatch"
    );
    assert_eq!(
        bench.predict(request(0)).await.unwrap_err().code(),
        "schema_mismatch"
    );
    let mut narrow = schema().as_ref().clone();
    narrow.features.truncate(1);
    let mut outdated = request(1);
    outdated.rows = Frame::new(Arc::new(narrow), vec![Column::Numeric(vec![1.0])]).unwrap();
    let error = bench.predict(outdated).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("schema_changed", true));
    assert_eq!(model.calls.load(Ordering::SeqCst), 0);
}

#[test]
fn default_answers_become_rows_of_the_task_or_are_refused() {
    use tidemill_core::spec::DefaultAnswer::{Class, Number};
    let classes = ["a".to_owned(), "b".to_owned()];
    let row = |answer, task| crate::default_row(&answer, task, &classes);
    assert_eq!(row(Number(0.3), Task::Binary).unwrap(), [0.3]);
    assert_eq!(row(Number(-3.0), Task::Regression).unwrap(), [-3.0]);
    assert_eq!(row(Class("b".into()), Task::Multiclass).unwrap(), [0.0, 1.0]);
    assert!(row(Number(1.3), Task::Binary).is_err());
    let error = row(Class("c".into()), Task::Multiclass).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`endpoint.default` is `c`, expected one of the classes `a`, `b`"
    );
}
