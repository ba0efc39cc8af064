use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::Store;
use crate::testing::{at, temp_store};

fn label(id: &str, prediction: &str, value: bool, told: i64) -> LabelRow {
    LabelRow {
        id: id.to_owned(),
        prediction_id: prediction.into(),
        label: "delayed".to_owned(),
        value: LabelValue::Bool(value),
        kind: LabelKind::GroundTruth,
        source: "ops".to_owned(),
        idempotency_key: None,
        event_time: at(told),
        ingest_time: at(told),
        retracted: false,
    }
}

fn keyed(key: &str, row: LabelRow) -> LabelRow {
    LabelRow {
        idempotency_key: Some(key.to_owned()),
        ..row
    }
}

fn tell(store: &Store, rows: Vec<LabelRow>) -> Vec<(String, Outcome)> {
    let receipts = store.write_blocking(move |tx| record(tx, &rows)).unwrap();
    receipts.into_iter().map(|r| (r.feedback_id, r.outcome)).collect()
}

/// The labels of these predictions as known at a time.
fn known(store: &Store, ids: &[&str], as_of: i64) -> Vec<(String, LabelValue)> {
    let ids: Vec<PredictionId> = ids.iter().map(|id| PredictionId::new(*id)).collect();
    let labels = store
        .read_blocking(|tx| labels_of(tx, &ids, "delayed", at(as_of)))
        .unwrap();
    labels
        .into_iter()
        .map(|l| (l.prediction_id.to_string(), l.value))
        .collect()
}

#[test]
fn a_key_stands_for_one_body() {
    let (_dir, store) = temp_store();
    let told = tell(&store, vec![keyed("k", label("f1", "p", true, 10))]);
    assert_eq!(told, [("f1".to_owned(), Outcome::Created)]);
    // The retry arrives later, and its time of event was filled in again.
    let again = tell(&store, vec![keyed("k", label("f2", "p", true, 20))]);
    assert_eq!(again, [("f1".to_owned(), Outcome::Repeated)]);
    let other = tell(&store, vec![keyed("k", label("f3", "p", false, 30))]);
    assert_eq!(other, [("f1".to_owned(), Outcome::Conflict)]);
    let other_source = LabelRow {
        source: "crm".to_owned(),
        ..keyed("k", label("f4", "p", true, 40))
    };
    assert_eq!(tell(&store, vec![other_source])[0].1, Outcome::Created);
    assert_eq!(store.read_blocking(|tx| count(tx, "delayed")).unwrap(), 2);
}

#[test]
fn another_value_corrects_and_the_same_one_repeats() {
    let (_dir, store) = temp_store();
    let told = tell(
        &store,
        vec![
            label("f1", "p", true, 10),
            label("f2", "p", true, 11),
            keyed("new", label("f3", "p", true, 12)),
            label("f4", "p", false, 13),
            // An id that is taken by something else.
            label("f4", "q", false, 14),
            label("f4", "p", false, 15),
        ],
    );
    let outcomes: Vec<_> = told.iter().map(|(_, outcome)| *outcome).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Created,
            Outcome::Repeated,
            Outcome::Repeated,
            Outcome::Corrected,
            Outcome::Conflict,
            Outcome::Repeated
        ]
    );
    let history = store.read_blocking(|tx| history_of(tx, &"p".into())).unwrap();
    assert_eq!(history.iter().map(|l| &l.id).collect::<Vec<_>>(), ["f1", "f4"]);
    store
        .read_blocking(|tx| {
            assert_eq!(count_since(tx, "delayed", at(10))?, 1);
            assert_eq!(count_since(tx, "other", at(0))?, 0);
            Ok(())
        })
        .unwrap();
}

#[test]
fn labels_are_read_as_known_at_a_time_and_may_come_before_their_prediction() {
    let (_dir, store) = temp_store();
    tell(&store, vec![label("f1", "early", true, 5)]);
    let retraction = LabelRow {
        retracted: true,
        ..label("f4", "late", false, 30)
    };
    tell(
        &store,
        vec![
            label("f2", "late", true, 10),
            label("f3", "late", false, 20),
            retraction,
        ],
    );
    let yes = |id: &str| (id.to_owned(), LabelValue::Bool(true));
    let no = |id: &str| (id.to_owned(), LabelValue::Bool(false));
    let ids = ["late", "unknown", "early"];
    assert_eq!(known(&store, &ids, 4), []);
    assert_eq!(known(&store, &ids, 10), [yes("late"), yes("early")]);
    assert_eq!(known(&store, &ids, 29), [no("late"), yes("early")]);
    assert_eq!(known(&store, &ids, 30), [yes("early")]);
    assert_eq!(known(&store, &[], 30), []);
}

#[test]
fn labels_wait_for_their_prediction_until_it_is_found_or_every_file_was_looked_into() {
    let (_dir, store) = temp_store();
    let one = |id: &str, told, checked| WaitingLabel {
        label_id: id.to_owned(),
        prediction_id: "p".into(),
        ingest_time: at(told),
        checked,
    };
    store
        .write_blocking(move |tx| wait(tx, &[one("a", 1, 0), one("b", 2, 3), one("c", 3, 0)]))
        .unwrap();
    let left = |newest| -> Vec<String> {
        let waiting = store.read_blocking(|tx| waiting(tx, newest, 10)).unwrap();
        waiting.into_iter().map(|label| label.label_id).collect()
    };
    let count = |older| store.read_blocking(|tx| unmatched(tx, at(older))).unwrap();
    assert_eq!(
        (left(0), left(3), left(4)),
        (vec![], ids(&["a", "c"]), ids(&["a", "b", "c"]))
    );
    assert_eq!((count(1), count(3), count(9)), (0, 2, 3));
    store.write_blocking(|tx| found(tx, &["a".to_owned()])).unwrap();
    store
        .write_blocking(move |tx| wait(tx, &[one("c", 3, 3)]))
        .unwrap();
    assert_eq!((left(3), count(9)), (vec![], 2));
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

#[test]
fn labels_survive_their_column_whatever_their_type() {
    let (_dir, store) = temp_store();
    let values = [
        LabelValue::Number(0.1 + 0.2),
        LabelValue::Number(3.0),
        LabelValue::Text("1".to_owned()),
        LabelValue::Bool(false),
    ];
    let rows = values.iter().enumerate().map(|(i, value)| LabelRow {
        value: value.clone(),
        ..label(&i.to_string(), &i.to_string(), true, 1)
    });
    tell(&store, rows.collect());
    let ids: Vec<PredictionId> = (0..4).map(|i: i32| i.to_string().into()).collect();
    let read = store
        .read_blocking(|tx| labels_of(tx, &ids, "delayed", at(1)))
        .unwrap();
    assert_eq!(read.into_iter().map(|r| r.value).collect::<Vec<_>>(), values);
}

#[test]
fn a_label_that_is_no_number_is_refused_before_it_spoils_what_is_read() {
    let (_dir, store) = temp_store();
    let row = LabelRow {
        value: LabelValue::Number(f64::NAN),
        ..label("f1", "p", true, 1)
    };
    let error = store.write_blocking(move |tx| record(tx, &[row])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "label: `f1` has the value `NaN`: expected a finite number, a text, true or false"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is told, and in whatever batches, reads as of any time as a plain list of what was kept would.
    #[test]
    fn labels_as_of_a_time_are_the_latest_that_was_told(
        said in prop::collection::vec((0u8..3, any::<bool>(), 0i64..6, any::<bool>()), 1..30),
        as_of in 0i64..200,
        batch in 1usize..7,
    ) {
        let (_dir, store) = temp_store();
        let mut told = 0;
        let mut rows = Vec::new();
        for (i, (prediction, value, pause, retracted)) in said.into_iter().enumerate() {
            told += pause;
            rows.push(LabelRow { retracted, ..label(&i.to_string(), &prediction.to_string(), value, told) });
        }
        let mut expected: BTreeMap<String, (bool, LabelValue)> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.ingest_time <= at(as_of)) {
            expected.insert(row.prediction_id.to_string(), (row.retracted, row.value.clone()));
        }
        for chunk in rows.chunks(batch) {
            tell(&store, chunk.to_vec());
        }
        let expected: Vec<_> =
            expected.into_iter().filter(|(_, (retracted, _))| !retracted).map(|(id, (_, value))| (id, value)).collect();
        prop_assert_eq!(known(&store, &["0", "1", "2"], as_of), expected);
    }
}

fn many(predictions: usize, batch: usize) {
    let (_dir, store) = temp_store();
    let watch = tidemill_core::clock::Stopwatch::start();
    let id = |i: usize| PredictionId::new(format!("{i:032x}"));
    for from in (0..predictions).step_by(batch) {
        let rows = (from..(from + batch).min(predictions)).map(|i| {
            keyed(
                &i.to_string(),
                label(&i.to_string(), id(i).as_str(), i % 3 == 0, 10),
            )
        });
        let told = tell(&store, rows.collect());
        assert!(told.iter().all(|(_, outcome)| *outcome == Outcome::Created));
    }
    let labelled = watch.elapsed();
    let all: Vec<PredictionId> = (0..predictions).map(id).collect();
    let labels = store
        .read_blocking(|tx| labels_of(tx, &all, "delayed", at(10)))
        .unwrap();
    let read = watch.elapsed();
    assert_eq!(labels.len(), predictions);
    // Each time is from the start.
    println!("{predictions} predictions: labelled by {labelled:?}, read by {read:?}");
}

#[test]
fn ten_thousand_labels_go_in_and_come_out() {
    many(10_000, 400);
}

/// `cargo test -p tidemill-store --release -- --ignored --nocapture three_hundred`
#[test]
#[ignore = "a benchmark"]
fn three_hundred_thousand_labels_go_in_and_come_out() {
    many(300_000, 1_000);
}
