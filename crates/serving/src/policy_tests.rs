//! What an endpoint takes, keeps and leaves undone when there is too much to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tempfile::TempDir;
use tidemill_core::clock::{Stopwatch, Timestamp, VirtualClock};
use tidemill_core::frame::Column;
use tidemill_core::predictions::{PredictionBatch, Role};
use tidemill_core::spec::{InputSpec, NullPolicy, TextPolicy};

use crate::testing::{deployment, frame, route};
use crate::{
    Canary, InferRequest, Keep, LogOptions, PredictionLog, Pressure, Route, Router, ServeError, Server,
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
                texts: TextPolicy::Refuse,
                nulls: NullPolicy::Refuse,
            },
            ..route()
        },
    );
    let error = server.predict(request(1)).await.unwrap_err();
    assert_eq!(error.code(), "schema_mismatch");
    assert!(error.to_string().contains("field `c` row 0: `null`"), "{error}");
    assert_eq!(model.calls.load(Ordering::SeqCst), 0);
}
