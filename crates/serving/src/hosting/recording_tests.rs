//! What the log gets of calls: all of them, what is allowed of them, and without anybody waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_core::calls::{CallRecord, Recorded, RecordedValues};
use tidemill_core::clock::{Stopwatch, Timestamp, WallClock};
use tidemill_core::digest::Digest;
use tidemill_core::ids::VersionNumber;
use tidemill_core::ports::PortError;
use tidemill_core::servable::{Answers, CallContext, Interface, Loader, Payload, Servable, Work};
use tidemill_core::tensors::{DataType, Tensor, TensorSpec};

use super::{Call, Hosted, HostedVersion};
use crate::error::ServeError;
use crate::log::{Durability, LogEntry, LogOptions, PredictionLog};
use crate::routing::Router;
use crate::server::Server;

/// Adds 1 to `x`; fails below zero; gives `x` pieces where it streams.
#[derive(Debug)]
struct Model(Interface);

#[derive(Debug)]
struct Loads(bool);

#[async_trait]
impl Loader for Loads {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        Ok(Arc::new(Model(Interface {
            inputs: vec![
                TensorSpec::new("x", DataType::Fp64, vec![-1]),
                TensorSpec::new("name", DataType::Bytes, vec![-1]),
            ],
            outputs: vec![TensorSpec::new("y", DataType::Fp64, vec![-1])],
            columns: true,
            batches: true,
            decoupled: self.0,
            ..Interface::default()
        })))
    }
}

fn plus_one(payload: &Payload) -> Result<(f64, Payload), PortError> {
    let Payload::Tensors(tensors) = payload else {
        return Err(PortError::caller("model_broken", "no tensors"));
    };
    let x = tensors[0].to_f64().unwrap()[0];
    if x < 0.0 {
        return Err(PortError::internal("model_broken", "below zero"));
    }
    let y = Tensor::of_f64("y", vec![1], &[x + 1.0]).unwrap();
    Ok((x, Payload::Tensors(vec![y])))
}

#[async_trait]
impl Servable for Model {
    fn interface(&self) -> &Interface {
        &self.0
    }
    fn work(&self) -> Work {
        Work::Light
    }
    async fn call(&self, payload: Payload, _: &CallContext) -> Result<Payload, PortError> {
        plus_one(&payload).map(|(_, answer)| answer)
    }
    async fn stream(&self, payload: Payload, _: &CallContext) -> Result<Option<Answers>, PortError> {
        let (x, answer) = plus_one(&payload)?;
        let pieces = vec![Ok(answer); x as usize];
        Ok(Some(Box::pin(futures_util::stream::iter(pieces))))
    }
}

struct Place {
    dir: TempDir,
    server: Server,
    disk: Arc<AtomicU64>,
}

impl Place {
    fn new(settings: &Value, streams: bool) -> Self {
        Self::with(settings, streams, LogOptions::default())
    }

    fn with(settings: &Value, streams: bool, options: LogOptions) -> Self {
        let dir = TempDir::new().unwrap();
        let disk = Arc::new(AtomicU64::new(u64::MAX));
        let options = LogOptions {
            disk: Some(Arc::clone(&disk)),
            ..options
        };
        let (log, _) = PredictionLog::open(dir.path(), options).unwrap();
        let server = Server::new(Arc::new(Router::new()), log, Arc::new(WallClock));
        server.hosting().put(Hosted {
            name: "plus".into(),
            spec: Arc::new(serde_json::from_value(settings.clone()).unwrap()),
            versions: vec![HostedVersion {
                number: VersionNumber(3),
                loader: Arc::new(Loads(streams)),
                bundle: Some(Digest::of(b"bundle")),
            }],
        });
        Self { dir, server, disk }
    }

    async fn calls(&self) -> Vec<CallRecord> {
        let (from, until) = (Timestamp::from_micros(0), Timestamp::from_micros(i64::MAX));
        let log = self.server.log();
        log.live_calls(&"plus".into(), from, until).await.unwrap()
    }
}

fn call(x: f64) -> Call {
    let x = Tensor::of_f64("x", vec![1], &[x]).unwrap();
    let name = Tensor::strings("name", vec![1], vec![Some(Bytes::from_static(b"Ada"))]).unwrap();
    let mut call = Call::new("plus".into(), Payload::Tensors(vec![x, name]), Stopwatch::start());
    call.context.request_id = "r".to_owned();
    call.context.parameters = json!({ "a": 1 }).as_object().cloned().unwrap();
    call
}

#[tokio::test]
async fn a_call_is_recorded_with_all_that_led_to_its_answer_and_found_by_its_id() {
    let place = Place::new(&json!({}), false);
    let asked = call(1.0);
    let payload = asked.payload.clone();
    let answer = place.server.hosting().call(asked).await.unwrap();
    let id = answer.prediction_id.clone().unwrap();
    let failed = place.server.hosting().call(call(-1.0)).await.unwrap_err();
    // Not routed anywhere: not recorded.
    let mut other = call(1.0);
    other.version = Some(VersionNumber(9));
    place.server.hosting().call(other).await.unwrap_err();

    let log = place.server.log().clone();
    let Some(LogEntry::Call(found)) = log.find(&id).await.unwrap() else {
        panic!("no call");
    };
    assert_eq!(found.inputs.to_payload().unwrap(), payload);
    assert_eq!(found.answers[0].to_payload().unwrap(), answer.payload);
    let facts = &found.facts;
    assert_eq!(
        (facts.request_id.as_str(), facts.version),
        ("r", VersionNumber(3))
    );
    assert_eq!(facts.bundle, Some(Digest::of(b"bundle")));
    assert_eq!(
        (facts.route.as_str(), facts.rows, facts.columns),
        ("newest", 1, true)
    );
    assert_eq!(facts.parameters, r#"{"a":1}"#);
    let recorded = place.calls().await;
    assert_eq!(recorded.len(), 2);
    let fault = recorded[1].facts.fault.clone().unwrap();
    assert_eq!(
        (fault.code.as_str(), fault.message),
        (failed.code(), failed.to_string())
    );
    assert!(recorded[1].answers.is_empty());
    let metrics = place.server.metrics();
    assert_eq!((metrics.appended_calls, metrics.dropped_calls), (2, 0));

    // After the end of the process they are there again.
    let Place { dir, server, .. } = place;
    drop((log, server));
    let (log, recovery) = PredictionLog::open(dir.path(), LogOptions::default()).unwrap();
    assert_eq!(recovery.batches, 2);
    assert!(matches!(log.find(&id).await.unwrap(), Some(LogEntry::Call(again)) if again == found));
}

#[tokio::test]
async fn what_may_not_be_recorded_is_not_and_what_is_too_large_is_marked() {
    let place = Place::new(&json!({ "log": { "redact": ["name"] } }), false);
    place.server.hosting().call(call(1.0)).await.unwrap();
    let recorded = &place.calls().await[0];
    let Recorded::Tensors(tensors) = &recorded.inputs else {
        panic!("no tensors");
    };
    assert_eq!(tensors[1].values, RecordedValues::Redacted);
    assert!(!recorded.inputs.is_whole() && recorded.answers[0].is_whole());
    let file = std::fs::read(place.dir.path().join("00000000000000000000.wal")).unwrap();
    assert!(!file.windows(3).any(|part| part == b"Ada"));
    let mut asked = call(-1.0);
    asked.context.parameters = json!({ "a": 1, "of": { "name": "Ada" } })
        .as_object()
        .cloned()
        .unwrap();
    let failed = place.server.hosting().call(asked).await.unwrap_err();
    let facts = place.calls().await.pop().unwrap().facts;
    assert_eq!(facts.parameters, r#"{"a":1,"of":{"name":null}}"#);
    let fault = facts.fault.unwrap();
    assert_eq!(fault.code, failed.code());
    assert!(!fault.message.contains("below zero"), "{}", fault.message);

    let place = Place::new(&json!({ "log": { "max_bytes": 9 } }), false);
    place.server.hosting().call(call(1.0)).await.unwrap();
    let recorded = &place.calls().await[0];
    assert_eq!(recorded.inputs, Recorded::Omitted { bytes: 15 });
    assert!(recorded.answers[0].is_whole());
    assert_eq!(place.server.metrics().omitted_payloads, 1);

    for settings in [
        json!({ "log": { "sample": 0 } }),
        json!({ "log": { "enabled": false } }),
    ] {
        let place = Place::new(&settings, false);
        let answer = place.server.hosting().call(call(1.0)).await.unwrap();
        assert_eq!((answer.prediction_id, place.calls().await.len()), (None, 0));
    }
}

#[tokio::test]
async fn on_a_full_disk_a_call_is_answered_and_counted_or_refused_as_its_deployment_wants() {
    let place = Place::new(&json!({}), false);
    place.disk.store(3, Ordering::SeqCst);
    let answer = place.server.hosting().call(call(1.0)).await.unwrap();
    assert_eq!(answer.prediction_id, None);
    assert_eq!(place.server.metrics().dropped_calls, 1);

    let place = Place::new(&json!({ "log": { "on_failure": "refuse" } }), false);
    place.disk.store(3, Ordering::SeqCst);
    let error = place.server.hosting().call(call(1.0)).await.unwrap_err();
    assert!(matches!(error, ServeError::LogFull { .. }), "{error}");
    place.disk.store(u64::MAX, Ordering::SeqCst);
    let answer = place.server.hosting().call(call(1.0)).await.unwrap();
    assert!(answer.prediction_id.is_some());
}

#[tokio::test]
async fn a_call_that_waits_in_line_is_told_its_id_once_it_is_recorded_and_not_before() {
    for (failures, told) in [(0, true), (1_000, false)] {
        let options = LogOptions {
            durability: Durability::Synced,
            fsync_failures: Some(Arc::new(AtomicU64::new(failures))),
            ..LogOptions::default()
        };
        let place = Place::with(&json!({}), false, options);
        // The first moments of a disk may be slow ones.
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.extend(
                place
                    .server
                    .hosting()
                    .call(call(1.0))
                    .await
                    .unwrap()
                    .prediction_id,
            );
        }
        assert_eq!(!ids.is_empty(), told);
        for id in ids {
            assert!(place.server.log().find(&id).await.unwrap().is_some());
        }
    }
}

#[tokio::test]
async fn a_stream_is_recorded_at_its_end_with_what_was_sent() {
    let place = Place::new(&json!({}), true);
    let answers = place.server.hosting().stream(call(3.0)).await.unwrap();
    let answers: Vec<_> = answers.collect().await;
    let id = answers[0].as_ref().unwrap().prediction_id.clone().unwrap();
    let mut left = place.server.hosting().stream(call(5.0)).await.unwrap();
    left.next().await.unwrap().unwrap();
    drop(left);
    place.server.hosting().stream(call(-1.0)).await.err().unwrap();
    let recorded = place.calls().await;
    let told: Vec<_> = recorded
        .iter()
        .map(|call| (call.answers.len(), call.facts.streamed, call.facts.cut_short))
        .collect();
    assert_eq!(told, [(3, true, false), (1, true, true), (0, false, false)]);
    assert_eq!(recorded[0].facts.id, id);
    assert!(recorded[2].facts.fault.is_some());
}
