//! Tests of experiments, runs and metrics.

use std::sync::Arc;

use proptest::prelude::*;

use crate::testing::{on_sqlite, temp_store};
use crate::tracking::datasets::{self, Dataset, DatasetInput, InputTag};
use crate::tracking::experiments::{self, NewExperiment};
use crate::tracking::metrics::{self, KnownKeys, NewMetric, Point};
use crate::tracking::runs::{self, ModelDirection, ModelOutput, RunHead, RunKey, RunStatus, TrackedRun};
use crate::tracking::{Lifecycle, history, params, tags};
use crate::{Store, StoreError, Tx};

fn change<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
) -> T {
    store.write_blocking(work).unwrap()
}

fn experiment(store: &Store, name: &'static str) -> i64 {
    change(store, move |tx| {
        let new = NewExperiment {
            workspace: "default",
            name,
            created_ms: 5,
        };
        experiments::insert(tx, &new, |id| format!("root/{id}"))
    })
    .unwrap()
}

fn head(experiment: i64, run_id: &str) -> RunHead {
    RunHead {
        number: 0,
        run_id: run_id.to_owned(),
        experiment,
        name: "swift".to_owned(),
        user_id: "me".to_owned(),
        status: RunStatus::Running,
        lifecycle: Lifecycle::Active,
        start_ms: 7,
        end_ms: None,
        deleted_ms: None,
        artifact_uri: format!("root/{experiment}/{run_id}/artifacts"),
    }
}

fn run(store: &Store, experiment: i64, run_id: &str) -> RunKey {
    let head = head(experiment, run_id);
    let number = change(store, move |tx| runs::insert(tx, &head));
    RunKey {
        number,
        experiment,
        lifecycle: Lifecycle::Active,
    }
}

fn metric(key: &str, point: Point) -> NewMetric {
    NewMetric {
        key: key.to_owned(),
        point,
        model_id: None,
        dataset_name: None,
        dataset_digest: None,
    }
}

fn log(store: &Store, run: RunKey, known: &Arc<KnownKeys>, metrics: Vec<NewMetric>) {
    let held = Arc::clone(known);
    let found = change(store, move |tx| metrics::log(tx, run, &metrics, &held));
    known.remember(found);
}

fn load(store: &Store, numbers: Vec<i64>) -> Vec<TrackedRun> {
    store.read_blocking(|tx| runs::load(tx, &numbers)).unwrap()
}

fn points(store: &Store, run: RunKey, key: &str) -> Vec<Point> {
    store
        .read_blocking(|tx| match metrics::key_number(tx, key)? {
            Some(key) => history::page(tx, run.number, key, None, 1_000_000),
            None => Ok(Vec::new()),
        })
        .unwrap()
}

#[test]
fn experiments_come_back_in_the_order_asked_with_their_tags() {
    let (_dir, store) = temp_store();
    let ensured = change(&store, |tx| {
        experiments::ensure_default(tx, "default", "root/0", 3)
    });
    let again = change(&store, |tx| {
        experiments::ensure_default(tx, "default", "root/0", 4)
    });
    assert!(ensured && !again);
    let (a, b) = (experiment(&store, "a"), experiment(&store, "b"));
    assert!(a >= 1 && b > a);
    change(&store, move |tx| {
        experiments::set_tag(tx, b, "k", "1")?;
        experiments::set_tag(tx, b, "k", "2")?;
        experiments::rename(tx, a, "c", 9)
    });
    let found = store
        .read_blocking(|tx| experiments::load(tx, &[b, 0, 77, a]))
        .unwrap();
    let seen: Vec<_> = found
        .iter()
        .map(|e| (e.id, e.name.as_str(), e.artifact_location.clone(), e.updated_ms))
        .collect();
    assert_eq!(
        seen,
        [
            (b, "b", format!("root/{b}"), 5),
            (0, "Default", "root/0".to_owned(), 3),
            (a, "c", format!("root/{a}"), 9),
        ]
    );
    assert_eq!(found[0].tags, [("k".to_owned(), "2".to_owned())]);
    let taken = change(&store, |tx| {
        let new = NewExperiment {
            workspace: "default",
            name: "c",
            created_ms: 5,
        };
        experiments::insert(tx, &new, |id| id.to_string())
    });
    assert_eq!(taken, None);
    let other = store
        .read_blocking(|tx| experiments::head(tx, "other", a))
        .unwrap();
    assert_eq!(other, None);
}

#[test]
fn a_run_comes_back_whole_and_many_come_in_the_order_asked() {
    let (_dir, store) = temp_store();
    let experiment = experiment(&store, "a");
    let keys: Vec<RunKey> = (0..30)
        .map(|i| run(&store, experiment, &format!("r{i}")))
        .collect();
    let known = Arc::new(KnownKeys::default());
    for key in &keys {
        log(
            &store,
            *key,
            &known,
            vec![metric("m", Point::new(1, 2, key.number as f64))],
        );
    }
    let first = keys[0];
    change(&store, move |tx| {
        params::insert(tx, first.number, &[("p", "1"), ("q", "2")])?;
        tags::set(tx, first.number, &[("t", "1"), ("t", "2"), ("s", "3")])?;
        let input = |name: &str| DatasetInput {
            dataset: Dataset {
                name: name.to_owned(),
                digest: "d".to_owned(),
                source_type: "local".to_owned(),
                source: "s".to_owned(),
                schema: Some("{}".to_owned()),
                profile: None,
            },
            tags: vec![InputTag {
                key: datasets::CONTEXT_TAG.to_owned(),
                value: "training".to_owned(),
            }],
        };
        for name in ["z", "a", "z"] {
            datasets::add_input(tx, first.number, first.experiment, &input(name))?;
        }
        for (direction, model_id, step) in [
            (ModelDirection::Input, "m-1", 0),
            (ModelDirection::Output, "m-3", 4),
            (ModelDirection::Output, "m-2", 5),
        ] {
            let output = ModelOutput {
                model_id: model_id.to_owned(),
                step,
            };
            runs::add_model(tx, first.number, direction, &output)?;
        }
        Ok(())
    });
    let numbers: Vec<i64> = keys.iter().rev().map(|key| key.number).collect();
    let found = load(&store, numbers.clone());
    assert_eq!(
        found.iter().map(|run| run.head.number).collect::<Vec<_>>(),
        numbers
    );
    assert!(
        found
            .iter()
            .all(|run| run.metrics[0].point.value == run.head.number as f64)
    );
    let whole = &found[29];
    assert_eq!(whole.params, [("p".into(), "1".into()), ("q".into(), "2".into())]);
    assert_eq!(whole.tags, [("s".into(), "3".into()), ("t".into(), "2".into())]);
    let names: Vec<&str> = whole.datasets.iter().map(|d| d.dataset.name.as_str()).collect();
    assert_eq!(names, ["z", "a"]);
    assert_eq!(whole.model_inputs, ["m-1"]);
    let outputs: Vec<&str> = whole.model_outputs.iter().map(|m| m.model_id.as_str()).collect();
    assert_eq!(outputs, ["m-3", "m-2"]);
    let summaries = store
        .read_blocking(|tx| datasets::summaries(tx, &[experiment], 10))
        .unwrap();
    assert_eq!(summaries.len(), 2);
    assert_eq!(summaries[0].context.as_deref(), Some("training"));
}

#[test]
fn deleting_an_experiment_deletes_its_runs_and_restoring_restores_them() {
    let (_dir, store) = temp_store();
    let experiment = experiment(&store, "a");
    let key = run(&store, experiment, "r");
    for (lifecycle, deleted_ms) in [(Lifecycle::Deleted, Some(9)), (Lifecycle::Active, None)] {
        change(&store, move |tx| {
            experiments::set_lifecycle(tx, experiment, lifecycle, 9)
        });
        let found = load(&store, vec![key.number]);
        assert_eq!(found[0].head.lifecycle, lifecycle);
        assert_eq!(found[0].head.deleted_ms, deleted_ms);
    }
}

#[test]
fn a_point_of_a_logged_model_is_kept_with_the_model_too() {
    let (_dir, store) = temp_store();
    let experiment = experiment(&store, "a");
    let key = run(&store, experiment, "r");
    let known = Arc::new(KnownKeys::default());
    let of_unknown = NewMetric {
        model_id: Some("m-unknown".to_owned()),
        ..metric("m", Point::new(1, 2, 3.0))
    };
    log(&store, key, &known, vec![of_unknown]);
    assert_eq!(points(&store, key, "m"), [Point::new(1, 2, 3.0)]);
}

fn any_point() -> impl Strategy<Value = Point> {
    let value = prop_oneof![
        Just(f64::NAN),
        Just(0.0),
        Just(-0.0),
        Just(f64::INFINITY),
        -3.0..3.0_f64,
    ];
    (-3_i64..4, 0_i64..4, value).prop_map(|(step, at_ms, value)| Point::new(step, at_ms, value))
}

proptest! {
    // Each case makes a database, which takes a server two seconds.
    #![proptest_config(ProptestConfig { cases: if on_sqlite() { 24 } else { 4 }, ..ProptestConfig::default() })]

    /// However points arrive, in which order and in which batches, each is kept once and the latest is the largest by step, time and
    /// value.
    #[test]
    fn the_latest_point_is_the_same_whatever_the_order_of_arrival(
        logged in proptest::collection::vec((0..3_usize, any_point()), 1..40),
        sizes in proptest::collection::vec(1..8_usize, 40),
    ) {
        let (_dir, store) = temp_store();
        let experiment = experiment(&store, "a");
        let key = run(&store, experiment, "r");
        let known = Arc::new(KnownKeys::default());
        let names = ["x", "y", "z"];
        let mut rest = logged.as_slice();
        for size in sizes {
            let (batch, after) = rest.split_at(size.min(rest.len()));
            if !batch.is_empty() {
                log(&store, key, &known, batch.iter().map(|(name, point)| metric(names[*name], *point)).collect());
            }
            rest = after;
        }
        let latest = load(&store, vec![key.number]).remove(0).metrics;
        for (index, name) in names.iter().enumerate() {
            let mut mine: Vec<Point> = logged.iter().filter(|(i, _)| *i == index).map(|(_, p)| *p).collect();
            mine.sort_by(Point::order);
            mine.dedup();
            let found = latest.iter().find(|metric| metric.key == *name).map(|metric| metric.point);
            prop_assert_eq!(found, mine.last().copied());
            let mut kept = points(&store, key, name);
            prop_assert!(kept.windows(2).all(|w| (w[0].at_ms, w[0].step) <= (w[1].at_ms, w[1].step)));
            kept.sort_by(Point::order);
            prop_assert_eq!(kept, mine);
        }
    }

    /// Pages put together are the whole history, and a chart of any number of stretches keeps its extremes and counts every point.
    #[test]
    fn pages_and_charts_lose_no_point(
        logged in proptest::collection::vec(any_point(), 1..40),
        page in 1_u32..7,
        stretches in 1_usize..9,
    ) {
        let (_dir, store) = temp_store();
        let experiment = experiment(&store, "a");
        let key = run(&store, experiment, "r");
        log(&store, key, &Arc::new(KnownKeys::default()), logged.iter().map(|p| metric("x", *p)).collect());
        let all = points(&store, key, "x");
        let (paged, chart, steps) = store.read_blocking(|tx| {
            let number = metrics::key_number(tx, "x")?.unwrap();
            let mut paged: Vec<Point> = Vec::new();
            loop {
                let next = history::page(tx, key.number, number, paged.last().copied().as_ref(), page)?;
                if next.is_empty() {
                    break;
                }
                paged.extend(next);
            }
            let chart = history::downsample(tx, key.number, number, None, stretches)?;
            let steps = history::steps(tx, key.number, number)?;
            Ok((paged, chart, steps))
        }).unwrap();
        prop_assert_eq!(&paged, &all);
        prop_assert!(chart.len() <= stretches);
        prop_assert_eq!(chart.iter().map(|b| b.count).sum::<u64>(), all.len() as u64);
        prop_assert!(chart.windows(2).all(|w| w[0].last.step < w[1].first.step));
        let numbers = || all.iter().filter(|p| !p.is_nan).map(|p| p.value);
        let drawn = || chart.iter().filter(|b| b.nans < b.count);
        prop_assert_eq!(drawn().map(|b| b.min.value).reduce(f64::min), numbers().reduce(f64::min));
        prop_assert_eq!(drawn().map(|b| b.max.value).reduce(f64::max), numbers().reduce(f64::max));
        for bucket in &chart {
            match bucket.mean() {
                Some(mean) => {
                    let slack = 1e-9 * bucket.min.value.abs().max(bucket.max.value.abs());
                    prop_assert!(mean >= bucket.min.value - slack && mean <= bucket.max.value + slack, "{}", mean);
                }
                None => prop_assert_eq!(bucket.nans, bucket.count),
            }
        }
        let mut expected: Vec<i64> = all.iter().map(|p| p.step).collect();
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(steps, expected);
    }
}
