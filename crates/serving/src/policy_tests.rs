//! What an endpoint takes, keeps and leaves undone when there is too much to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempfile::TempDir;
use tidemill_core::clock::{Stopwatch, Timestamp, VirtualClock};
use tidemill_core::frame::{Column, Frame};
use tidemill_core::ids::VersionNumber;
use tidemill_core::predictions::{PredictionBatch, Role};
use tidemill_core::servable::Deadline;
use tidemill_core::spec::{InputSpec, NullPolicy, UnseenPolicy};

use crate::testing::{deployment, frame, route};
use crate::{
    Canary, InferRequest, Keep, LogOptions, PredictionLog, Pressure, Route, Router, Rule, ServeError, Server,
    Step,
};

fn server(dir: &TempDir, route: Route) -> Server {
    let router = Router::new();
    router.put(route);
    let clock = Arc::new(VirtualClock::new(Timestamp::from_micros(1_000_000)));
    let (log, _) = PredictionLog::open(dir.path(), LogOptions::default()).unwrap();
    Server::new(Arc::new(router), log, clock)
}

fn request(rows: usize) -> InferRequest {
    InferRequest {
        endpoint: "flights".into(),
        request_id: None,
        rows: frame(rows),
        keys: Vec::new(),
        received: Stopwatch::start(),
        version: None,
        deadline: None,
    }
}

fn of(key: &Arc<str>) -> InferRequest {
    InferRequest {
        keys: vec![Some(Arc::clone(key))],
        ..request(1)
    }
}

async fn logged(server: &Server) -> Vec<Arc<PredictionBatch>> {
    let (from, until) = (Timestamp::from_micros(0), Timestamp::from_micros(i64::MAX));
    server
        .log()
        .live_batches(&"flights".into(), from, until)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_machine_that_is_behind_leaves_shadows_undone_first_then_the_canary_and_the_champion_last() {
    let ((_, champion), (_, challenger), (shadow_model, shadow)) =
        (deployment(1), deployment(2), deployment(3));
    let dir = TempDir::new().unwrap();
    let canary = |share| Canary {
        deployment: Arc::clone(&challenger),
        share,
        salt: "r".to_owned(),
    };
    let all_canary = Route {
        champion: Some(champion),
        canary: Some(canary(0.4)),
        shadows: vec![shadow],
        ..route()
    };
    let server = server(&dir, all_canary.clone());
    server.predict(request(2)).await.unwrap();
    server.pressure().set(Pressure::Shadows);
    server.predict(request(2)).await.unwrap();
    let shadowed: Vec<usize> = logged(&server)
        .await
        .iter()
        .map(|batch| batch.shadows.len())
        .collect();
    assert_eq!(
        (shadowed, shadow_model.calls.load(Ordering::SeqCst)),
        (vec![1, 0], 1)
    );

    // Units of either version.
    let mut units = BTreeMap::new();
    server.pressure().set(Pressure::None);
    for unit in 0..40 {
        let key: Arc<str> = Arc::from(format!("unit-{unit}"));
        let answer = server.predict(of(&key)).await.unwrap();
        units.insert(answer.roles[0] == Role::Canary, key);
    }
    server.pressure().set(Pressure::Canary);
    let error = server.predict(of(&units[&true])).await.unwrap_err();
    assert!(
        matches!(error, ServeError::Overloaded { .. }) && error.retryable(),
        "{error}"
    );
    let answer = server.predict(of(&units[&false])).await.unwrap();
    assert_eq!(answer.roles, [Role::Champion]);
    // What has most of the traffic is no trial.
    server.router().put(Route {
        canary: Some(canary(0.9)),
        ..all_canary
    });
    server.predict(of(&units[&true])).await.unwrap();

    server.pressure().set(Pressure::All);
    server.predict(request(2)).await.unwrap_err();
    let metrics = server.metrics();
    assert_eq!((metrics.shadows_shed, metrics.requests_shed), (3, 2));
}

#[tokio::test]
async fn a_champion_that_keeps_failing_is_left_alone_and_the_previous_one_answers() {
    let ((model, champion), (_, previous)) = (deployment(2), deployment(1));
    let dir = TempDir::new().unwrap();
    let server = server(
        &dir,
        Route {
            champion: Some(champion),
            previous: Some(previous),
            ..route()
        },
    );
    model.fails.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        let answer = server.predict(request(1)).await.unwrap();
        assert_eq!(answer.roles, [Role::Previous]);
    }
    assert_eq!(model.calls.load(Ordering::SeqCst), 5, "not asked any more");
    let last = logged(&server).await.pop().unwrap();
    let story = last.degraded[0].as_deref().unwrap();
    assert!(story.contains("is left alone for some seconds"), "{story}");
}

#[tokio::test]
async fn redacted_features_are_served_and_recorded_as_missing() {
    let (_, champion) = deployment(1);
    let dir = TempDir::new().unwrap();
    let server = server(
        &dir,
        Route {
            champion: Some(champion),
            keep: Keep {
                redact: vec![1],
                ..Keep::default()
            },
            ..route()
        },
    );
    server.predict(request(3)).await.unwrap();
    let batch = logged(&server).await.pop().unwrap();
    assert_eq!(batch.features.columns()[0], Column::Numeric(vec![0.0, 1.0, 2.0]));
    assert_eq!(batch.features.columns()[1], Column::Categorical(vec![None; 3]));
}

#[tokio::test]
async fn what_is_told_of_a_redacted_feature_does_not_repeat_its_value() {
    let (_, champion) = deployment(1);
    let dir = TempDir::new().unwrap();
    let server = server(
        &dir,
        Route {
            champion: Some(champion),
            default: Some(vec![0.5]),
            inputs: InputSpec {
                unseen: UnseenPolicy::Fallback,
                ..InputSpec::default()
            },
            keep: Keep {
                redact: vec![1],
                ..Keep::default()
            },
            ..route()
        },
    );
    let asked = InferRequest {
        rows: odd_rows(),
        ..request(1)
    };
    server.predict(asked).await.unwrap();
    let batch = logged(&server).await.pop().unwrap();
    assert_eq!(
        batch.degraded[1].as_deref(),
        Some("not asked: field `c` is not a value that training has seen")
    );
}

#[tokio::test]
async fn a_share_of_the_requests_is_recorded_and_the_rest_counted() {
    let (_, champion) = deployment(1);
    let dir = TempDir::new().unwrap();
    let server = server(
        &dir,
        Route {
            champion: Some(champion),
            keep: Keep {
                sample: 0.25,
                ..Keep::default()
            },
            ..route()
        },
    );
    for _ in 0..400 {
        server.predict(request(1)).await.unwrap();
    }
    let kept = logged(&server).await.len();
    assert!((60..=140).contains(&kept), "{kept} of 400");
    assert_eq!(server.metrics().unsampled_requests as usize, 400 - kept);
}

#[tokio::test]
async fn missing_values_are_refused_where_the_endpoint_says_so() {
    let (model, champion) = deployment(1);
    let dir = TempDir::new().unwrap();
    let server = server(
        &dir,
        Route {
            champion: Some(champion),
            inputs: InputSpec {
                nulls: NullPolicy::Refuse,
                ..InputSpec::default()
            },
            ..route()
        },
    );
    let error = server.predict(request(1)).await.unwrap_err();
    assert_eq!(error.code(), "schema_mismatch");
    assert!(error.to_string().contains("field `c` row 0: `null`"), "{error}");
    assert_eq!(model.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nobody_is_asked_once_the_time_of_a_request_is_over() {
    let (model, champion) = deployment(1);
    let dir = TempDir::new().unwrap();
    let server = server(
        &dir,
        Route {
            champion: Some(champion),
            default: Some(vec![0.5]),
            ..route()
        },
    );
    let within = |rows: usize, micros: u64| InferRequest {
        deadline: Some(Deadline::after(Stopwatch::start(), Duration::from_micros(micros))),
        ..request(rows)
    };
    let error = server.predict(within(1, 0)).await.unwrap_err();
    assert!(matches!(error, ServeError::DeadlinePassed { .. }), "{error}");
    assert_eq!(model.calls.load(Ordering::SeqCst), 0);
    // In time, a large request is asked in parts and answered as a whole.
    let answer = server.predict(within(40_000, 60_000_000)).await.unwrap();
    assert_eq!(answer.scores.values(), vec![0.1; 40_000]);
    assert_eq!(model.calls.load(Ordering::SeqCst), 3);
    assert_eq!(answer.degraded.iter().flatten().count(), 0);
}

/// Rows whose numbers are 0, 1, 2, … and whose texts are `c0`, `new`, `c2`, missing.
fn odd_rows() -> Frame {
    let texts = [Some("c0"), Some("new"), Some("c2"), None];
    let columns = vec![
        Column::Numeric(vec![0.0, 1.0, 2.0, 3.0]),
        Column::Categorical(texts.map(|text| text.map(Arc::from)).to_vec()),
    ];
    Frame::new(frame(1).schema().clone(), columns).unwrap()
}

fn rule(feature: usize, when: serde_json::Value, answer: f64) -> Step {
    Step::Rule(Box::new(Rule {
        feature,
        when: serde_json::from_value(when).unwrap(),
        answer: vec![answer],
    }))
}

#[tokio::test]
async fn what_training_never_saw_goes_down_the_chain_past_every_model() {
    let (model, champion) = deployment(1);
    let dir = TempDir::new().unwrap();
    let server = server(
        &dir,
        Route {
            champion: Some(champion),
            fallback: vec![
                rule(0, serde_json::json!({"input": "x", "min": 3}), 0.9),
                Step::Abstain,
            ],
            inputs: InputSpec {
                nulls: NullPolicy::Fallback,
                unseen: UnseenPolicy::Fallback,
                ..InputSpec::default()
            },
            ..route()
        },
    );
    let asked = InferRequest {
        rows: odd_rows(),
        ..request(1)
    };
    let answer = server.predict(asked).await.unwrap();
    assert_eq!(
        answer.roles,
        [Role::Champion, Role::Abstained, Role::Champion, Role::Default]
    );
    let scores = answer.scores.values();
    assert!(scores[1].is_nan());
    assert_eq!((scores[0], scores[2], scores[3]), (0.1, 0.1, 0.9));
    assert_eq!(
        answer.degraded[1].as_deref(),
        Some("not asked: field `c` row 1: `new` is not a value that training has seen")
    );
    assert_eq!(answer.degraded[0], None);
    assert_eq!(model.called_rows.load(Ordering::SeqCst), 2);
    // The log keeps what came.
    let logged = logged(&server).await;
    assert_eq!(logged[0].features.columns()[1], odd_rows().columns()[1]);
    let metrics = server.metrics();
    assert_eq!(
        (metrics.unfit_rows, metrics.rule_rows, metrics.abstained_rows),
        (2, 1, 1)
    );
}

#[tokio::test]
async fn a_row_that_no_model_may_be_asked_and_no_rule_takes_is_the_callers_to_mend() {
    let (_, champion) = deployment(1);
    let dir = TempDir::new().unwrap();
    let server = server(
        &dir,
        Route {
            champion: Some(champion),
            fallback: vec![rule(0, serde_json::json!({"input": "x", "min": 3}), 0.9)],
            inputs: InputSpec {
                unseen: UnseenPolicy::Fallback,
                ..InputSpec::default()
            },
            ..route()
        },
    );
    let asked = InferRequest {
        rows: odd_rows(),
        ..request(1)
    };
    let error = server.predict(asked).await.unwrap_err();
    assert!(matches!(error, ServeError::Schema(_)), "{error}");
    assert!(error.to_string().contains("field `c` row 1: `new`"), "{error}");
}

#[tokio::test]
async fn where_champion_and_previous_fail_the_cheap_version_answers_then_rules_then_nobody() {
    let ((champion_model, champion), (cheap_model, cheap)) = (deployment(2), deployment(1));
    let dir = TempDir::new().unwrap();
    let server = server(
        &dir,
        Route {
            champion: Some(champion),
            fallback: vec![
                Step::Version(cheap),
                rule(1, serde_json::json!({"input": "c", "prefix": "c"}), 0.4),
                Step::Abstain,
            ],
            ..route()
        },
    );
    champion_model.fails.store(true, Ordering::SeqCst);
    let answer = server.predict(request(2)).await.unwrap();
    assert_eq!(answer.roles, [Role::Fallback, Role::Fallback]);
    assert_eq!(answer.versions, [VersionNumber(1), VersionNumber(1)]);
    cheap_model.fails.store(true, Ordering::SeqCst);
    let answer = server.predict(request(2)).await.unwrap();
    // The first row's text is missing, and a value that is not there fails every condition.
    assert_eq!(answer.roles, [Role::Abstained, Role::Default]);
    assert_eq!(answer.scores.values()[1], 0.4);
    let story = answer.degraded[0].as_deref().unwrap();
    assert!(
        story.contains("champion failed: ") && story.contains("fallback failed: "),
        "{story}"
    );
    // Asked for by its number, it answers alone.
    cheap_model.fails.store(false, Ordering::SeqCst);
    let asked = InferRequest {
        version: Some(VersionNumber(1)),
        ..request(1)
    };
    assert_eq!(server.predict(asked).await.unwrap().roles, [Role::Fallback]);
}
