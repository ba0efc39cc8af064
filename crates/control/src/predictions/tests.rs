//! Compaction and finding again, on a store in a folder and a codec that writes JSON.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_core::calls::CallRecord;
use tidemill_core::clock::{Clock, Timestamp, VirtualClock};
use tidemill_core::digest::Digest;
use tidemill_core::frame::{Column, Feature, FeatureKind, FeatureSchema, Frame, Scores};
use tidemill_core::ids::{self, PredictionId, VersionNumber};
use tidemill_core::ports::{BatchWriter, CallColumn, CallWriter, PortError, PredictionCodec};
use tidemill_core::predictions::{BatchShape, LabelValue, PredictionBatch, Role};
use tidemill_serving::{LogOptions, PredictionLog, SegmentId};
use tidemill_store::labels::{self, LabelKind, LabelRow, WaitingLabel};
use tidemill_store::objects::ObjectKey;
use tidemill_store::predictions::{FileKind, PredictionFile};
use tidemill_store::{Store, events, predictions as index};

use super::{Prediction, Predictions};
use crate::error::ControlError;

struct Json;

struct JsonWriter(Vec<PredictionBatch>);

impl PredictionCodec for Json {
    fn batches(&self, _shape: BatchShape) -> Box<dyn BatchWriter> {
        Box::new(JsonWriter(Vec::new()))
    }

    fn decode_batches(&self, bytes: &[u8]) -> Result<Vec<PredictionBatch>, PortError> {
        Ok(serde_json::from_slice(bytes).unwrap())
    }

    fn calls(&self, _columns: Vec<CallColumn>) -> Box<dyn CallWriter> {
        Box::new(JsonCalls(Vec::new()))
    }

    fn decode_calls(&self, bytes: &[u8]) -> Result<Vec<CallRecord>, PortError> {
        Ok(serde_json::from_slice(bytes).unwrap())
    }

    fn delta_columns(&self, bytes: &[u8]) -> Result<(u64, Vec<(String, Value)>), PortError> {
        let batches = self.decode_batches(bytes)?;
        let features = &batches[0].features.schema().features;
        let columns = features
            .iter()
            .map(|feature| (feature.name.clone(), json!("double")));
        Ok((batches.len() as u64, columns.collect()))
    }
}

struct JsonCalls(Vec<CallRecord>);

impl CallWriter for JsonCalls {
    fn push(&mut self, calls: &[CallRecord]) -> Result<(), PortError> {
        self.0.extend_from_slice(calls);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, PortError> {
        Ok(serde_json::to_vec(&self.0).unwrap())
    }
}

impl BatchWriter for JsonWriter {
    fn push(&mut self, batches: &[PredictionBatch]) -> Result<(), PortError> {
        self.0.extend_from_slice(batches);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, PortError> {
        Ok(serde_json::to_vec(&self.0).unwrap())
    }
}

struct Place {
    dir: TempDir,
    store: Store,
    log: PredictionLog,
    predictions: Predictions,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (log, _) = PredictionLog::open(&dir.path().join("wal"), LogOptions::default()).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::new(at(9)));
        let predictions = Predictions::new(store.clone(), log.clone(), Arc::new(Json), clock);
        Self {
            dir,
            store,
            log,
            predictions,
        }
    }

    async fn serve(&self, endpoint: &str, second: i64, feature: &str) -> PredictionId {
        let id = PredictionId::new(ids::fresh(at(second)));
        self.log
            .append(batch(endpoint, second, feature, id.clone()))
            .await
            .unwrap();
        id
    }

    async fn found(&self, id: &PredictionId) -> Option<Timestamp> {
        self.predictions.find(id).await.ok().map(|found| {
            let Prediction::Row(batch, row) = found else {
                panic!("a call");
            };
            assert_eq!(batch.ids[row], *id);
            batch.at
        })
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros((1_600_000_000 + second) * 1_000_000)
}

fn batch(endpoint: &str, second: i64, feature: &str, id: PredictionId) -> PredictionBatch {
    let schema = Arc::new(FeatureSchema {
        features: vec![Feature {
            name: feature.to_owned(),
            kind: FeatureKind::Numeric,
        }],
    });
    PredictionBatch {
        endpoint: endpoint.into(),
        at: at(second),
        request_id: id.to_string(),
        ids: vec![id],
        keys: vec![None],
        versions: vec![VersionNumber(1)],
        roles: vec![Role::Champion],
        canary_share: 0.0,
        degraded: vec![None],
        scores: Scores::Regression(vec![0.5]),
        shadows: vec![],
        features: Frame::new(schema, vec![Column::Numeric(vec![1.0])]).unwrap(),
        latency_us: 1,
    }
}

#[tokio::test]
async fn what_is_compacted_is_found_by_id_and_by_time_whatever_is_left_beside_it() {
    let place = Place::new();
    let early = place.serve("a", 1, "x").await;
    let other = place.serve("b", 1, "x").await;
    // The same endpoint after its features changed, and on another day.
    let changed = place.serve("a", 2, "y").await;
    let next_day = place.serve("a", 90_000, "y").await;
    assert_eq!(place.predictions.compact().await.unwrap(), 4);
    assert_eq!(place.predictions.compact().await.unwrap(), 0);
    let live = place.serve("a", 90_001, "y").await;
    for (id, second) in [
        (&early, 1),
        (&other, 1),
        (&changed, 2),
        (&next_day, 90_000),
        (&live, 90_001),
    ] {
        assert_eq!(place.found(id).await, Some(at(second)));
    }
    assert_eq!(place.found(&PredictionId::new(ids::fresh(at(1)))).await, None);
    assert_eq!(place.found(&"x".into()).await, None);
    let between = place
        .predictions
        .between(&"a".into(), at(2), at(90_001))
        .await
        .unwrap();
    let times: Vec<Timestamp> = between.iter().map(|batch| batch.at).collect();
    assert_eq!(times, [at(2), at(90_000)]);

    // The ids beside a file are only a shortcut.
    let files = place
        .store
        .read(|tx| index::files_at(tx, at(1), 0))
        .await
        .unwrap();
    let (file, objects) = (&files[0], place.store.objects());
    let key = ObjectKey::PredictionIds {
        endpoint: file.endpoint.clone(),
        digest: file.digest,
    };
    objects.put(&key, b"nonsense".as_slice().into()).await.unwrap();
    let fresh = Predictions::new(
        place.store.clone(),
        place.log.clone(),
        Arc::new(Json),
        Arc::new(VirtualClock::new(at(9))),
    );
    assert!(matches!(fresh.find(&early).await.unwrap(), Prediction::Row(batch, 0) if batch.at == at(1)));
    assert_ne!(objects.get(&key).await.unwrap(), b"nonsense".as_slice());
}

#[tokio::test]
async fn a_damaged_segment_is_put_aside_with_an_event_and_holds_up_no_other() {
    let place = Place::new();
    let first = place.serve("a", 1, "x").await;
    let lost = place.serve("a", 2, "x").await;
    place.log.seal().await.unwrap();
    let behind = place.serve("a", 3, "x").await;
    let path = SegmentId(0).path(&place.dir.path().join("wal"));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() - 10;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(place.predictions.compact().await.unwrap(), 2);
    assert_eq!(place.found(&first).await, Some(at(1)));
    assert_eq!(place.found(&behind).await, Some(at(3)));
    assert_eq!(place.found(&lost).await, None);
    assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), bytes);
    let told = place
        .store
        .read(|tx| events::list_after(tx, 0, 10, None))
        .await
        .unwrap();
    assert_eq!(told[0].kind, "prediction_log.segment_damaged");
    assert_eq!(told[0].payload["predictions_kept"], 1);
    assert_eq!(place.predictions.compact().await.unwrap(), 0);
}

#[tokio::test]
async fn a_label_that_came_first_waits_until_its_prediction_is_in_a_file() {
    let place = Place::new();
    let id = PredictionId::new(ids::fresh(at(5)));
    let never = PredictionId::new(ids::fresh(at(5)));
    let label = |name: &str, prediction: &PredictionId| LabelRow {
        id: name.to_owned(),
        prediction_id: prediction.clone(),
        label: "y".to_owned(),
        value: LabelValue::Number(1.0),
        kind: LabelKind::GroundTruth,
        source: "test".to_owned(),
        idempotency_key: None,
        event_time: at(6),
        ingest_time: at(6),
        retracted: false,
    };
    let rows = [label("f1", &id), label("f2", &never)];
    let known = place
        .predictions
        .known(vec![id.clone(), never.clone()])
        .await
        .unwrap();
    assert!(known.ids.is_empty());
    let waiting: Vec<WaitingLabel> = rows
        .iter()
        .map(|row| WaitingLabel {
            label_id: row.id.clone(),
            prediction_id: row.prediction_id.clone(),
            ingest_time: row.ingest_time,
            checked: known.newest,
        })
        .collect();
    place
        .store
        .write(move |tx| {
            labels::record(tx, &rows)?;
            labels::wait(tx, &waiting)
        })
        .await
        .unwrap();
    let unmatched = || place.store.read(|tx| labels::unmatched(tx, at(7)));
    place.predictions.match_waiting_labels().await.unwrap();
    assert_eq!(unmatched().await.unwrap(), 2);
    place.log.append(batch("a", 5, "x", id.clone())).await.unwrap();
    place.predictions.compact().await.unwrap();
    place.predictions.match_waiting_labels().await.unwrap();
    assert_eq!(unmatched().await.unwrap(), 1);
    let known = place.predictions.known(vec![id.clone(), never]).await.unwrap();
    assert_eq!(known.ids, [id].into());
}

#[tokio::test]
async fn the_files_of_an_endpoint_are_a_delta_table_that_takes_new_columns() {
    let place = Place::new();
    place.serve("a", 1, "x").await;
    place.predictions.compact().await.unwrap();
    place.serve("a", 90_000, "y").await;
    // As if an entry had been written before a crash.
    let entry = |version: u64| ObjectKey::PredictionTableEntry {
        endpoint: "a".into(),
        version,
    };
    let objects = place.store.objects();
    assert!(
        objects
            .put_new(&entry(1), b"{}\n".as_slice().into())
            .await
            .unwrap()
    );
    assert!(
        !objects
            .put_new(&entry(1), b"other".as_slice().into())
            .await
            .unwrap()
    );
    place.predictions.compact().await.unwrap();
    let lines = async |version: u64| -> Vec<Value> {
        let text = objects.get(&entry(version)).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let first = lines(0).await;
    assert_eq!(first[0]["protocol"]["minReaderVersion"], 1);
    let path = first[2]["add"]["path"].as_str().unwrap();
    let listed = objects.list("predictions/a").await.unwrap();
    assert!(
        listed
            .iter()
            .any(|object| object.path == format!("predictions/a/{path}"))
    );
    assert_eq!(first[2]["add"]["partitionValues"]["day"], "2020-09-13");
    let second = lines(2).await;
    let schema: Value =
        serde_json::from_str(second[0]["metaData"]["schemaString"].as_str().unwrap()).unwrap();
    let names: Vec<&str> = schema["fields"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|f| f["name"].as_str())
        .collect();
    assert_eq!(names, ["x", "y", "day"]);
    assert_eq!(second[0]["metaData"]["id"], first[1]["metaData"]["id"]);
    // Nothing new, no entry.
    place.predictions.compact().await.unwrap();
    assert_eq!(objects.head(&entry(3)).await.unwrap(), None);
}

#[tokio::test]
async fn a_file_that_is_gone_or_damaged_is_left_out_of_the_table_and_holds_up_nothing() {
    let place = Place::new();
    let file = |name: &str| PredictionFile {
        id: 0,
        segment: name.to_owned(),
        endpoint: "a".into(),
        kind: FileKind::Rows,
        day: at(1).day(),
        digest: Digest::of(name.as_bytes()),
        size: 1,
        rows: 1,
        from_at: at(1),
        until_at: at(1),
        created_at: at(1),
    };
    let (gone, damaged) = (file("gone"), file("damaged"));
    let objects = place.store.objects();
    let key = super::reading::key_of(&damaged);
    objects.put(&key, b"damaged".as_slice().into()).await.unwrap();
    fs::write(objects.file(&key).unwrap(), b"other").unwrap();
    place
        .store
        .write(move |tx| {
            index::record_file(tx, &gone)?;
            index::record_file(tx, &damaged)
        })
        .await
        .unwrap();
    place.serve("a", 2, "x").await;
    assert_eq!(place.predictions.compact().await.unwrap(), 1);
    let left = place.store.read(|tx| index::outside_tables(tx, 9)).await.unwrap();
    assert_eq!(left, []);
    let entry = ObjectKey::PredictionTableEntry {
        endpoint: "a".into(),
        version: 0,
    };
    let text = String::from_utf8(objects.get(&entry).await.unwrap().to_vec()).unwrap();
    assert_eq!(text.matches("\"add\"").count(), 1, "{text}");
}

#[tokio::test]
async fn the_latest_rows_are_read_from_as_few_files_as_hold_them() {
    let place = Place::new();
    for second in [1, 2, 3, 4] {
        place.serve("a", second, "x").await;
        place.predictions.compact().await.unwrap();
    }
    let live = place.serve("a", 5, "x").await;
    let oldest = place
        .store
        .read(|tx| index::files_at(tx, at(1), 0))
        .await
        .unwrap();
    let objects = place.store.objects();
    objects.delete(&super::reading::key_of(&oldest[0])).await.unwrap();
    let fresh = Predictions::new(
        place.store.clone(),
        place.log.clone(),
        Arc::new(Json),
        Arc::new(VirtualClock::new(at(9))),
    );
    let times = async |limit: usize| -> Result<Vec<Timestamp>, ControlError> {
        let latest = fresh
            .latest(&"a".into(), Some(Timestamp::from_micros(0)), limit)
            .await?;
        Ok(latest
            .into_iter()
            .map(|found| match found {
                Prediction::Row(batch, _) => batch.at,
                Prediction::Call(call) => call.facts.at,
            })
            .collect())
    };
    assert_eq!(times(1).await.unwrap(), [at(5)]);
    assert_eq!(times(4).await.unwrap(), [at(5), at(4), at(3), at(2)]);
    // Only whoever wants the oldest, too, finds that its file is gone.
    times(5).await.unwrap_err();
    assert_eq!(place.found(&live).await, Some(at(5)));
}

#[tokio::test]
async fn a_segment_whose_name_is_taken_by_another_is_kept_beside_it() {
    let place = Place::new();
    let first = place.serve("a", 1, "x").await;
    place.predictions.compact().await.unwrap();
    // The folder of the log is lost, and numbers begin anew.
    let (log, _) = PredictionLog::open(&place.dir.path().join("other"), LogOptions::default()).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(VirtualClock::new(at(9)));
    let place = Place {
        predictions: Predictions::new(place.store.clone(), log.clone(), Arc::new(Json), clock),
        log,
        ..place
    };
    let second = place.serve("a", 2, "x").await;
    assert_eq!(place.predictions.compact().await.unwrap(), 1);
    assert_eq!(place.found(&first).await, Some(at(1)));
    assert_eq!(place.found(&second).await, Some(at(2)));
}
