//! Searches of runs give what plain reading gives, page by page, in either database; and how long they take.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::search::runs::runs_with;
use crate::search::sample::{Question, Run, add_experiment, add_world, questions, world};
use crate::search::{
    Attribute, Clause, Compare, Cursor, OrderKey, Query, RunScope, Subject, Test, View, Visible, runs,
};
use crate::testing::temp_store;
use crate::{Store, StoreError};

/// All pages of a search. Each token goes through JSON, as it does on its way to a client and back.
fn all_pages(store: &Store, question: &Question) -> Vec<i64> {
    let mut found = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let query = Query {
            filter: question.filter.clone(),
            order: question.order.clone(),
            after: after.take(),
            limit: question.limit,
            visible: Visible::default(),
        };
        let question = question.clone();
        let page = store
            .read_blocking(move |tx| {
                let scope = RunScope {
                    workspace: "default",
                    experiments: Some(&question.experiments),
                    view: question.view,
                };
                runs_with(tx, &scope, &query, question.few)
            })
            .unwrap();
        found.extend(&page.items);
        let Some(next) = page.next else {
            return found;
        };
        assert_eq!(page.items.len(), question.limit as usize);
        let json = serde_json::to_string(&next).unwrap();
        after = Some(serde_json::from_str(&json).unwrap());
    }
}

#[test]
fn pages_put_together_are_what_plain_reading_gives() {
    let worlds = world().prop_flat_map(|runs| (questions(&runs), Just(runs)));
    let config = Config {
        cases: 12,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&worlds, |(questions, runs): (Vec<Question>, Vec<Run>)| {
        let (_dir, store) = temp_store();
        let given = runs.clone();
        store.write_blocking(move |tx| add_world(tx, &given)).unwrap();
        for question in questions {
            let expected = question.answer(&runs);
            prop_assert_eq!(all_pages(&store, &question), expected, "{:#?}", question);
        }
        Ok(())
    });
    outcome.unwrap();
}

const MANY: i64 = 1_000_000;
const LARGE: i64 = 10_000;

/// Experiment 1 with 10,000 runs of 5 metrics, 5 parameters and 2 tags each, and experiment 2 with a million of one metric each.
fn fill(store: &Store) -> Result<(), StoreError> {
    store.write_blocking(|tx| {
        for id in [1, 2] {
            add_experiment(tx, id, "default")?;
        }
        for (experiment, count) in [(1_i64, LARGE), (2, MANY)] {
            let sql = "INSERT INTO tracked_runs (run_id, experiment, name, user_id, status, lifecycle, start_ms, artifact_uri)
                WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?1)
                SELECT 'run-of-' || ?2 || '-' || n, ?3, 'name', 'me', 'FINISHED', 'active', (n * 7919) % 1000003, 'uri' FROM c";
            let name = experiment.to_string();
            tx.execute(sql, &[&count, &name, &experiment])?;
        }
        for key in 1_i64..=5 {
            tx.execute("INSERT INTO metric_keys (number, name) VALUES (?1, ?2)", &[&key, &format!("m{key}")])?;
            let sql = "INSERT INTO latest_metrics (run, key, step, at_ms, value, is_nan)
                SELECT number, ?1, 0, 0, ((number * 7919 + ?2) % 10007) / 10007.0, number % 100 = 7 FROM tracked_runs
                WHERE experiment = 1 OR ?3 = 1";
            tx.execute(sql, &[&key, &(key * 31), &key])?;
            let sql = "INSERT INTO run_params (run, key, value)
                SELECT number, ?1, 'v' || (number % 10) FROM tracked_runs WHERE experiment = 1";
            tx.execute(sql, &[&format!("p{key}")])?;
        }
        for key in ["t1", "t2"] {
            let sql = "INSERT INTO run_tags (run, key, value)
                SELECT number, ?1, 'v' || (number % 500) FROM tracked_runs WHERE experiment = 1";
            tx.execute(sql, &[&key])?;
        }
        Ok(())
    })
}

/// `cargo nextest run -p tidemill-store how_long --run-ignored all --no-capture`
#[test]
#[ignore = "prints how long searches take; fills a million runs"]
#[allow(clippy::disallowed_methods, clippy::type_complexity)] // it measures
fn how_long_searches_take() {
    let (_dir, store) = temp_store();
    let begun = std::time::Instant::now();
    fill(&store).unwrap();
    println!("filled in {:?}", begun.elapsed());
    if !crate::testing::on_sqlite() {
        store.write_blocking(|tx| tx.execute("ANALYZE", &[])).unwrap();
    }
    let metric = |key: &str| Subject::Metric(key.to_owned());
    let clause = |subject, test| Clause { subject, test };
    let above = |key: &str, value| clause(metric(key), Test::Number(Compare::Greater, value));
    let param =
        |key: &str, value: &str| clause(Subject::Param(key.to_owned()), Test::Equals(value.to_owned()));
    let tag = |key: &str, value: &str| clause(Subject::Tag(key.to_owned()), Test::Equals(value.to_owned()));
    let by = |subject| vec![OrderKey::by(subject, false)];
    let hundred: Vec<Clause> = (0..100)
        .map(|i| above(&format!("m{}", i % 5 + 1), f64::from(i) / 1e6))
        .collect();
    let searches: Vec<(&str, i64, Vec<Clause>, Vec<OrderKey>, u32)> = vec![
        (
            "10,000 runs: metric and param, by metric, 100",
            1,
            vec![above("m1", 0.3), param("p1", "v3")],
            by(metric("m2")),
            100,
        ),
        (
            "10,000 runs: metric, param, tag, by metric, 100",
            1,
            vec![above("m1", 0.3), param("p1", "v3"), tag("t1", "v3")],
            by(metric("m2")),
            100,
        ),
        (
            "10,000 runs: selective metric, natural order, 100",
            1,
            vec![above("m2", 0.99)],
            vec![],
            100,
        ),
        (
            "10,000 runs: 100 metric clauses, by metric, 100",
            1,
            hundred,
            by(metric("m2")),
            100,
        ),
        ("10,000 runs: by metric, 1,000", 1, vec![], by(metric("m1")), 1000),
        (
            "10,000 runs: by param and metric, 1,000",
            1,
            vec![],
            vec![
                OrderKey::by(Subject::Param("p1".to_owned()), true),
                OrderKey::by(metric("m1"), false),
            ],
            1000,
        ),
        (
            "10,000 runs: by status, 1,000",
            1,
            vec![],
            by(Subject::Attribute(Attribute::Status)),
            1000,
        ),
        (
            "10,000 runs: LIKE on a param, 1,000",
            1,
            vec![clause(
                Subject::Param("p1".to_owned()),
                Test::Like("%3".to_owned()),
            )],
            vec![],
            1000,
        ),
        ("1,000,000 runs: natural order, 100", 2, vec![], vec![], 100),
        ("1,000,000 runs: natural order, 1,000", 2, vec![], vec![], 1000),
        (
            "1,000,000 runs: half by metric, natural order, 100",
            2,
            vec![above("m1", 0.5)],
            vec![],
            100,
        ),
        (
            "1,000,000 runs: one in 1,000 by metric, natural order, 100",
            2,
            vec![above("m1", 0.999)],
            vec![],
            100,
        ),
        ("1,000,000 runs: by metric, 100", 2, vec![], by(metric("m1")), 100),
        (
            "1,000,000 runs: by metric ascending, 1,000",
            2,
            vec![],
            vec![OrderKey::by(metric("m1"), true)],
            1000,
        ),
    ];
    for (name, experiment, filter, order, limit) in searches {
        let mut after = None;
        for page in ["first page", "second page"] {
            let mut times = Vec::new();
            let mut next = None;
            let mut count = 0;
            for _ in 0..5 {
                let query = Query {
                    filter: filter.clone(),
                    order: order.clone(),
                    after: after.clone(),
                    limit,
                    visible: Visible::default(),
                };
                let begun = std::time::Instant::now();
                let found = store
                    .read_blocking(move |tx| {
                        let ids = [experiment];
                        let scope = RunScope {
                            workspace: "default",
                            experiments: Some(&ids),
                            view: View::Active,
                        };
                        runs(tx, &scope, &query)
                    })
                    .unwrap();
                times.push(begun.elapsed());
                count = found.items.len();
                next = found.next;
            }
            times.sort_unstable();
            println!(
                "{name}, {page}: {count} runs, {:?} (first time {:?})",
                times[2],
                times.last()
            );
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
}
