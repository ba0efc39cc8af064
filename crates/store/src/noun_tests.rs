//! Every noun comes back as it was written, each field in its place.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidemill_core::frame::{FeatureSchema, Task};
use tidemill_core::ids::VersionNumber;
use tidemill_core::snapshot::{SnapshotManifest, SnapshotOrigin};

use crate::alerts::{self, AlertRow, AlertState};
use crate::decisions::{self, DecisionRecord, Verdict};
use crate::rollouts::{self, RolloutRow, RolloutState};
use crate::runs::{self, RunRow, RunState, RunUpdate};
use crate::snapshots::{self, SnapshotRow};
use crate::specs::{self, SpecRow};
use crate::testing::{at, digest, temp_store};
use crate::windows::{self, WindowRow, WindowState};
use crate::{Store, StoreError, Tx, meta};

fn change<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
) -> T {
    store.write_blocking(work).unwrap()
}

#[test]
fn a_run_comes_back_and_an_update_reaches_every_field() {
    let (_dir, store) = temp_store();
    let full = RunRow {
        trigger_ref: Some("alert".to_owned()),
        state: RunState::Running,
        key: Some(digest("key")),
        lease: 1,
        started_at: Some(at(2)),
        ended_at: Some(at(3)),
        snapshot: Some(digest("snapshot")),
        params: json!({"budget": 0.5}),
        metrics: json!({"auc": 0.7}),
        code: json!({"git": "abc"}),
        bundle: Some(digest("bundle")),
        model_version: Some(VersionNumber(4)),
        error: Some("broke".to_owned()),
        decision: Some("d".into()),
        ..RunRow::queued("a".into(), "delay", "drift", "why", at(1))
    };
    let expected = full.clone();
    let (inserted, updated) = change(&store, move |tx| {
        runs::insert(tx, &full)?;
        let bare = RunRow {
            trigger_ref: full.trigger_ref.clone(),
            ..RunRow::queued("b".into(), "delay", "drift", "why", at(1))
        };
        runs::insert(tx, &bare)?;
        let lease = runs::acquire_lease(tx, &bare.id, at(1))?;
        let update = RunUpdate {
            state: Some(full.state),
            key: full.key,
            started_at: full.started_at,
            ended_at: full.ended_at,
            snapshot: full.snapshot,
            params: Some(full.params.clone()),
            metrics: Some(full.metrics.clone()),
            code: Some(full.code.clone()),
            bundle: full.bundle,
            model_version: full.model_version,
            error: full.error.clone(),
            decision: full.decision.clone(),
        };
        runs::update_with_lease(tx, &bare.id, lease, update)?;
        runs::update_with_lease(tx, &bare.id, lease, RunUpdate::default())?;
        Ok((runs::get(tx, &full.id)?, runs::get(tx, &bare.id)?))
    });
    assert_eq!(inserted, expected);
    assert_eq!(
        updated,
        RunRow {
            id: "b".into(),
            ..expected
        }
    );
}

#[test]
fn a_rollout_comes_back_as_it_was_last_written() {
    let (_dir, store) = temp_store();
    let row = RolloutRow {
        id: "r".into(),
        endpoint: "delay".into(),
        model: "model".into(),
        from_version: VersionNumber(1),
        to_version: VersionNumber(2),
        state: RolloutState::Shadow,
        step: 0,
        salt: "salt".to_owned(),
        started_at: at(1),
        entered_at: at(2),
        ended_at: None,
        statistics: Value::Null,
        decision: None,
        reason: "new".to_owned(),
        run: Some("run".into()),
    };
    let moved = RolloutRow {
        state: RolloutState::Promoted,
        step: 3,
        entered_at: at(4),
        ended_at: Some(at(5)),
        statistics: json!({"log_wealth": 1.25}),
        decision: Some("d".into()),
        reason: "better".to_owned(),
        ..row.clone()
    };
    let expected = (row.clone(), moved.clone());
    let read = change(&store, move |tx| {
        rollouts::insert(tx, &row)?;
        let first = rollouts::get(tx, &row.id)?;
        rollouts::update(tx, &moved)?;
        assert_eq!(rollouts::active(tx, &row.endpoint)?, None);
        Ok((first, rollouts::get(tx, &row.id)?))
    });
    assert_eq!(read, expected);
}

#[test]
fn decisions_come_back_and_cannot_be_rewritten() {
    let (_dir, store) = temp_store();
    let record = DecisionRecord {
        id: "d".into(),
        kind: "gate".to_owned(),
        subject: "delay/2".to_owned(),
        verdict: Verdict::Inconclusive,
        at: at(7),
        inputs: json!({"n": 3}),
        result: json!({"lower": -0.1}),
        config_digest: digest("config"),
        actor: "gates".to_owned(),
    };
    change(&store, move |tx| {
        decisions::insert(tx, &record)?;
        decisions::insert(tx, &record)?;
        let other = DecisionRecord {
            verdict: Verdict::Pass,
            ..record.clone()
        };
        assert_eq!(decisions::insert(tx, &other).unwrap_err().code(), "conflict");
        assert_eq!(decisions::get(tx, &record.id)?, record);
        assert_eq!(
            decisions::list(tx, Some("gate"), 5)?,
            std::slice::from_ref(&record)
        );
        assert!(decisions::list(tx, Some("rollout"), 5)?.is_empty());
        assert_eq!(decisions::by_subject(tx, "delay/2")?, [record]);
        Ok(())
    });
}

#[test]
fn alerts_come_back_with_what_became_of_them() {
    let (_dir, store) = temp_store();
    let alert = AlertRow {
        id: "a".into(),
        endpoint: "delay".into(),
        monitor: "drift".to_owned(),
        at: at(3),
        window_until: at(2),
        summary: "`dep_delay` drifted".to_owned(),
        signals: json!([1, 2]),
        state: AlertState::Open,
        run: None,
    };
    change(&store, move |tx| {
        assert!(alerts::insert(tx, &alert)?);
        assert!(!alerts::insert(tx, &alert)?);
        assert_eq!(alerts::last(tx, &alert.endpoint, "drift")?.as_ref(), Some(&alert));
        alerts::set_state(tx, &alert.id, AlertState::Triggered, Some(&"run".into()))?;
        alerts::set_state(tx, &alert.id, AlertState::Acknowledged, None)?;
        let seen = AlertRow {
            state: AlertState::Acknowledged,
            run: Some("run".into()),
            ..alert.clone()
        };
        assert_eq!(
            alerts::list(tx, Some(&alert.endpoint), 9)?,
            std::slice::from_ref(&seen)
        );
        assert_eq!(alerts::list(tx, None, 9)?, [seen]);
        let unknown = alerts::set_state(tx, &"z".into(), AlertState::Open, None);
        assert!(unknown.unwrap_err().is_not_found());
        Ok(())
    });
}

#[test]
fn snapshots_specs_windows_and_small_values_come_back() {
    let (_dir, store) = temp_store();
    let manifest = SnapshotManifest {
        digest: digest("snapshot"),
        dataset: "delay".to_owned(),
        features: FeatureSchema::default(),
        time: Some("at".to_owned()),
        label: "delayed".to_owned(),
        task: Task::Binary,
        classes: vec![],
        files: vec![],
        rows: 10,
        time_range: Some((at(1), at(2))),
        origin: SnapshotOrigin {
            source: Some(("*.csv".to_owned(), 10)),
            served_rows: 0,
            as_of: at(9),
        },
        profile: BTreeMap::from([("x".to_owned(), json!({"mean": 0.1}))]),
        validation: None,
        quarantined: true,
    };
    let spec = SpecRow {
        digest: digest("spec"),
        name: "delay".to_owned(),
        text: "{}".to_owned(),
        created_at: at(1),
    };
    let window = WindowRow {
        endpoint: "delay".into(),
        monitor: "drift".to_owned(),
        from: at(1),
        until: at(2),
        computed_at: at(3),
        version: VersionNumber(4),
        reference: Some(digest("snapshot")),
        signals: json!({"psi": 0.3}),
        state: WindowState::Alert,
    };
    change(&store, move |tx| {
        let snapshot = SnapshotRow::of(manifest, at(5));
        assert!(snapshots::insert(tx, &snapshot)?);
        assert!(!snapshots::insert(tx, &snapshot)?);
        assert_eq!(snapshots::get(tx, &snapshot.digest)?, snapshot);
        assert_eq!(snapshots::list(tx, "delay")?, [snapshot]);
        assert_eq!(snapshots::datasets(tx)?, ["delay"]);

        assert!(
            specs::set_current(tx, "delay", &spec.digest)
                .unwrap_err()
                .is_not_found()
        );
        assert!(specs::put(tx, &spec)?);
        assert!(!specs::put(tx, &spec)?);
        assert_eq!(specs::current(tx, "delay")?, None);
        specs::set_current(tx, "delay", &spec.digest)?;
        assert_eq!(specs::current(tx, "delay")?.as_ref(), Some(&spec));
        assert_eq!(
            specs::set_current(tx, "x", &spec.digest).unwrap_err().code(),
            "conflict"
        );
        assert_eq!(specs::list_current(tx)?, [spec]);

        windows::upsert(tx, &window)?;
        assert_eq!(windows::list(tx, &window.endpoint, None, at(0), 9)?, [window]);

        assert_eq!(meta::get::<i64>(tx, "clock")?, None);
        meta::set(tx, "clock", &at(9))?;
        meta::set(tx, "clock", &at(10))?;
        assert_eq!(meta::get(tx, "clock")?, Some(at(10)));
        assert!(meta::remove(tx, "clock")?);
        Ok(())
    });
}

proptest! {
    /// A decision replays to the same verdict only if its numbers come back to the last bit.
    #[test]
    fn numbers_in_json_come_back_to_the_last_bit(numbers in prop::collection::vec(prop::num::f64::NORMAL, 50)) {
        let text = serde_json::to_string(&json!(numbers)).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read, json!(numbers));
    }
}
