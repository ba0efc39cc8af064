//! How SQLite answers the queries that people wait for: the index that each was written for is the one it takes, and no table that
//! grows is read from end to end. Without statistics a plan depends on the schema and the text of the query alone, so an empty
//! database shows what a full one does.

use std::cell::RefCell;

use crate::column::{Fields, bind};
use crate::db::{Connection, Params};
use crate::search::{
    self, Attribute, Clause, Compare, ModelScope, OrderKey, Query, RunScope, Subject, Test, View, Visible,
};
use crate::tracking::{experiments, history, runs};
use crate::tx::ReadTx;
use crate::{Database, Store, StoreError};

thread_local! {
    static NOTED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Notes how a statement is answered, while a test listens.
pub(crate) fn note(conn: &Connection, sql: &str, params: Params<'_>) {
    let listens = NOTED.with_borrow(Option::is_some);
    if !listens {
        return;
    }
    let steps = conn.rows(&format!("EXPLAIN QUERY PLAN {sql}"), params, |row| {
        let mut fields = Fields::of(row);
        let _: (i64, i64, i64) = (fields.next()?, fields.next()?, fields.next()?);
        fields.next::<String>()
    });
    NOTED.with_borrow_mut(|noted| {
        if let Some(noted) = noted {
            noted.extend(steps.unwrap());
        }
    });
}

/// The steps of all statements of a query, none of which reads a whole table or index.
fn steps<T: Send + 'static>(
    store: &Store,
    query: impl FnOnce(&ReadTx<'_>) -> Result<T, StoreError> + Send + 'static,
) -> Vec<String> {
    let steps = store
        .read_blocking(move |tx| {
            NOTED.set(Some(Vec::new()));
            let answered = query(tx);
            let steps = NOTED.take().unwrap_or_default();
            answered.map(|_| steps)
        })
        .unwrap();
    assert!(!steps.is_empty());
    for step in &steps {
        let whole =
            step.starts_with("SCAN ") && !step.starts_with("SCAN few") && !step.contains("CONSTANT ROW");
        assert!(!whole, "`{step}` in {steps:#?}");
    }
    steps
}

/// A store in SQLite, whatever the other tests use, with an experiment, a run and a metric, so that no query ends before it begins.
fn small_store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_on(dir.path(), Database::Sqlite).unwrap();
    store
        .write_blocking(|tx| {
            for id in [1_i64, 2] {
                let sql = "INSERT INTO experiments (id, workspace, name, artifact_location, lifecycle, created_ms, updated_ms)
                           VALUES (?1, 'default', ?2, 'x', 'active', 1, 1)";
                tx.execute(sql, bind![id, id.to_string()])?;
            }
            tx.execute("INSERT INTO metric_keys (number, name) VALUES (1, 'acc')", bind![])?;
            tx.execute(
                "INSERT INTO tracked_runs (number, run_id, experiment, name, user_id, status, lifecycle, start_ms, artifact_uri)
                 VALUES (1, 'r', 1, 'r', 'u', 'RUNNING', 'active', 1, 'x')",
                bind![],
            )?;
            Ok(())
        })
        .unwrap();
    (dir, store)
}

fn runs_of(filter: Vec<Clause>, order: Vec<OrderKey>) -> Vec<String> {
    let (_dir, store) = small_store();
    steps(&store, move |tx| {
        let scope = RunScope {
            workspace: "default",
            experiments: Some(&[1]),
            view: View::Active,
        };
        let query = Query {
            filter,
            order,
            limit: 100,
            ..Query::default()
        };
        let page = search::runs(tx, &scope, &query)?;
        runs::load(tx, &page.items)
    })
}

fn clause(subject: Subject, test: Test) -> Clause {
    Clause { subject, test }
}

fn has(steps: &[String], part: &str) {
    assert!(
        steps.iter().any(|step| step.contains(part)),
        "no `{part}` in {steps:#?}"
    );
}

fn sorts(steps: &[String]) -> bool {
    steps.iter().any(|step| step.contains("TEMP B-TREE FOR ORDER BY"))
}

#[test]
fn the_latest_runs_are_read_off_an_index() {
    let steps = runs_of(vec![], vec![]);
    has(
        &steps,
        "COVERING INDEX tracked_runs_by_start (experiment=? AND lifecycle=?)",
    );
    assert!(!sorts(&steps), "{steps:#?}");
}

#[test]
fn an_order_by_an_attribute_sorts_the_runs_of_the_experiments_alone() {
    for attribute in [Attribute::RunName, Attribute::Status, Attribute::EndTime] {
        let steps = runs_of(vec![], vec![OrderKey::by(Subject::Attribute(attribute), true)]);
        has(
            &steps,
            "USING INDEX tracked_runs_by_start (experiment=? AND lifecycle=?)",
        );
    }
}

#[test]
fn an_order_by_a_metric_probes_the_latest_of_each_run() {
    let steps = runs_of(
        vec![],
        vec![OrderKey::by(Subject::Metric("acc".to_owned()), false)],
    );
    has(&steps, "tracked_runs_by_start");
    has(&steps, "PRIMARY KEY (run=? AND key=?)");
}

#[test]
fn a_filter_of_a_metric_begins_at_the_few_runs_that_it_lets_through() {
    let test = Test::Number(Compare::Greater, 0.9);
    let steps = runs_of(vec![clause(Subject::Metric("acc".to_owned()), test)], vec![]);
    has(
        &steps,
        "SEARCH x USING COVERING INDEX latest_metrics_by_value (key=? AND",
    );
}

#[test]
fn a_filter_of_a_parameter_and_a_tag_begins_at_their_values() {
    let equals = || Test::Equals("x".to_owned());
    let filter = vec![
        clause(Subject::Param("p".to_owned()), equals()),
        clause(Subject::Tag("t".to_owned()), equals()),
    ];
    let steps = runs_of(filter, vec![]);
    has(&steps, "run_params_by_value (key=? AND <expr>=?)");
}

#[test]
fn a_filter_that_lets_many_through_is_a_probe_for_each_run() {
    let filter = vec![
        clause(Subject::Param("p".to_owned()), Test::Differs("x".to_owned())),
        clause(Subject::Tag("t".to_owned()), Test::Like("x%".to_owned())),
    ];
    let steps = runs_of(filter, vec![]);
    has(&steps, "tracked_runs_by_start");
    has(&steps, "PRIMARY KEY (run=? AND key=?)");
    assert!(!sorts(&steps), "{steps:#?}");
}

#[test]
fn runs_that_are_named_are_looked_up() {
    let test = Test::In(vec!["a".to_owned(), "b".to_owned()]);
    let steps = runs_of(vec![clause(Subject::Attribute(Attribute::RunId), test)], vec![]);
    has(&steps, "(run_id=?)");
}

#[test]
fn a_page_of_a_history_is_a_range_of_the_table() {
    let (_dir, store) = small_store();
    let steps = steps(&store, |tx| history::page(tx, 1, 1, None, 100));
    has(&steps, "SEARCH metrics USING PRIMARY KEY (run=? AND key=?)");
    assert!(!sorts(&steps), "{steps:#?}");
}

#[test]
fn lists_of_a_workspace_are_read_off_its_indexes() {
    let (_dir, store) = small_store();
    let query = || Query {
        limit: 100,
        visible: Visible::default(),
        ..Query::default()
    };
    let of_experiments = steps(&store, move |tx| {
        let page = search::experiments(tx, "default", View::Active, &query())?;
        experiments::load(tx, &page.items)
    });
    has(
        &of_experiments,
        "experiments_by_time (workspace=? AND lifecycle=?)",
    );
    assert!(!sorts(&of_experiments), "{of_experiments:#?}");
    let of_datasets = steps(&store, move |tx| {
        search::eval_datasets(tx, "default", Some(&[1]), false, &query())
    });
    has(&of_datasets, "eval_datasets_by_time (workspace=?)");
    assert!(!sorts(&of_datasets), "{of_datasets:#?}");
    let of_models = steps(&store, move |tx| {
        search::registered_models(tx, "default", &query())
    });
    has(&of_models, "(workspace=?)");
    let of_logged = steps(&store, move |tx| {
        let scope = ModelScope {
            workspace: "default",
            experiments: Some(&[1]),
            datasets: &[],
        };
        search::logged_models(tx, &scope, &query())
    });
    has(&of_logged, "(experiment=?");
}

#[test]
fn versions_of_a_model_are_found_by_its_name_and_those_of_a_run_by_the_run() {
    let (_dir, store) = small_store();
    let versions = |attribute, value: &str| {
        let query = Query {
            filter: vec![clause(
                Subject::Attribute(attribute),
                Test::Equals(value.to_owned()),
            )],
            limit: 100,
            ..Query::default()
        };
        steps(&store, move |tx| search::model_versions(tx, "default", &query))
    };
    let by_name = versions(Attribute::Name, "m");
    has(&by_name, "(workspace=? AND name=?)");
    let by_run = versions(Attribute::RunId, "r");
    has(&by_run, "(tracked_run=?)");
}
