//! Searches of what there are few of: workspaces, what the caller may see, ties, prompts, datasets.

use crate::column::bind;
use crate::search::sample::add_experiment;
use crate::search::{
    Attribute, Clause, Compare, DatasetScope, ModelScope, OrderKey, Query, RunScope, Subject, Test, View,
    Visible, experiments, logged_models, model_versions, registered_models, runs,
};
use crate::testing::temp_store;
use crate::{ReadTx, Store, StoreError, Tx};

fn write(store: &Store, work: impl FnOnce(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static) {
    store.write_blocking(work).unwrap();
}

fn read<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&ReadTx<'_>) -> Result<T, StoreError> + Send + 'static,
) -> T {
    store.read_blocking(work).unwrap()
}

fn all() -> Query {
    Query {
        limit: 100,
        ..Query::default()
    }
}

fn asking(subject: Subject, test: Test) -> Query {
    Query {
        filter: vec![Clause { subject, test }],
        ..all()
    }
}

fn by(attribute: Attribute, ascending: bool) -> Query {
    Query {
        order: vec![OrderKey::by(Subject::Attribute(attribute), ascending)],
        ..all()
    }
}

#[test]
fn experiments_stay_in_their_workspace_and_the_newest_come_first() {
    let (_dir, store) = temp_store();
    write(&store, |tx| {
        tx.insert("workspaces", "name, created_ms", bind!["other", 0_i64])?;
        for id in 1..=4 {
            add_experiment(tx, id, "default")?;
        }
        add_experiment(tx, 5, "other")?;
        tx.execute("UPDATE experiments SET lifecycle = 'deleted' WHERE id = 2", &[])?;
        tx.execute("UPDATE experiments SET created_ms = 7 WHERE id IN (3, 4)", &[])?;
        tx.insert(
            "experiment_tags",
            "experiment, key, value",
            bind![1_i64, "k", "v"],
        )
    });
    let found = |workspace: &'static str, view, query: Query| {
        read(&store, move |tx| experiments(tx, workspace, view, &query)).items
    };
    assert_eq!(found("default", View::Active, all()), [3, 4, 1]);
    assert_eq!(found("default", View::All, all()), [3, 4, 2, 1]);
    assert_eq!(found("default", View::Deleted, all()), [2]);
    assert_eq!(found("other", View::Active, all()), [5]);
    assert_eq!(
        found("default", View::Active, by(Attribute::CreationTime, false)),
        [4, 3, 1]
    );
    let tag = || Subject::Tag("k".to_owned());
    assert_eq!(
        found(
            "default",
            View::Active,
            asking(tag(), Test::Equals("v".to_owned()))
        ),
        [1]
    );
    assert_eq!(
        found("default", View::Active, asking(tag(), Test::IsNull)),
        [3, 4]
    );
    let id = Subject::Attribute(Attribute::ExperimentId);
    assert_eq!(
        found(
            "default",
            View::Active,
            asking(id, Test::In(vec!["3".to_owned(), "x".to_owned()]))
        ),
        [3]
    );
    let visible = Query {
        visible: Visible::Only(vec![1, 4, 5]),
        ..all()
    };
    assert_eq!(found("default", View::Active, visible.clone()), [4, 1]);
    let hidden = Query {
        visible: Visible::Except(vec![4]),
        ..all()
    };
    let rest = found("default", View::Active, hidden);
    assert!(!rest.contains(&4) && rest.contains(&1));

    // Runs of another workspace's experiments are not found, whoever asks.
    write(&store, |tx| {
        for experiment in [1_i64, 4, 5] {
            let columns = "run_id, experiment, name, user_id, status, lifecycle, start_ms, artifact_uri";
            let id = format!("run {experiment}");
            tx.insert(
                "tracked_runs",
                columns,
                bind![id, experiment, "n", "u", "RUNNING", "active", 1_i64, "uri"],
            )?;
        }
        Ok(())
    });
    let runs_of = |ids: Option<&'static [i64]>, query: Query| {
        let work = move |tx: &ReadTx<'_>| {
            let scope = RunScope {
                workspace: "default",
                experiments: ids,
                view: View::Active,
            };
            runs(tx, &scope, &query)
        };
        read(&store, work).items.len()
    };
    assert_eq!(runs_of(Some(&[1, 5]), all()), 1);
    assert_eq!(runs_of(None, all()), 2);
    assert_eq!(
        runs_of(
            None,
            Query {
                visible: Visible::Only(vec![4]),
                ..all()
            }
        ),
        1
    );
    let hidden = Query {
        visible: Visible::Except(vec![4]),
        ..all()
    };
    assert_eq!(runs_of(None, hidden), runs_of(None, all()) - 1);
    assert_eq!(runs_of(Some(&[]), all()), 0);
}

#[test]
fn prompts_are_registered_models_that_only_a_filter_on_their_tag_finds() {
    let (_dir, store) = temp_store();
    write(&store, |tx| {
        for (number, name) in [(1_i64, "b"), (2, "a"), (3, "p")] {
            let columns = "number, workspace, name, description, created_at, updated_at, next_version";
            tx.insert(
                "models",
                columns,
                bind![number, "default", name, "", 0_i64, number, 3_i64],
            )?;
            for version in [1_i64, 2] {
                let columns = "model, version, signature, metrics, created_at, updated_at, description, user_id, source, stage, status";
                let row = bind![
                    number,
                    version,
                    "{}",
                    "{}",
                    0_i64,
                    10 - number,
                    "",
                    "u",
                    "s",
                    "None",
                    "READY"
                ];
                tx.insert("model_versions", columns, row)?;
            }
        }
        let prompt = "mlflow.prompt.is_prompt";
        tx.insert("model_tags", "model, key, value", bind![3_i64, prompt, "true"])?;
        tx.insert(
            "model_version_tags",
            "model, version, key, value",
            bind![3_i64, 1_i64, prompt, "true"],
        )
    });
    let models = |query: Query| read(&store, move |tx| registered_models(tx, "default", &query)).items;
    let versions = |query: Query| read(&store, move |tx| model_versions(tx, "default", &query)).items;
    let is_prompt = |test| asking(Subject::Tag("mlflow.prompt.is_prompt".to_owned()), test);
    let word = |text: &str| text.to_owned();
    assert_eq!(models(all()), [2, 1]);
    assert_eq!(models(by(Attribute::LastUpdatedTimestamp, true)), [1, 2]);
    assert_eq!(models(is_prompt(Test::Equals(word("true")))), [3]);
    assert_eq!(models(is_prompt(Test::Differs(word("false")))), [3]);
    assert_eq!(models(is_prompt(Test::Equals(word("false")))), [2, 1]);
    assert_eq!(models(is_prompt(Test::Differs(word("true")))), [2, 1]);
    assert_eq!(
        models(Query {
            visible: Visible::Only(vec![1, 3]),
            ..all()
        }),
        [1]
    );
    assert_eq!(versions(all()), [(1, 2), (1, 1), (2, 2), (2, 1)]);
    assert_eq!(
        versions(by(Attribute::Version, true)),
        [(2, 1), (1, 1), (2, 2), (1, 2)]
    );
    assert_eq!(versions(is_prompt(Test::Equals(word("true")))), [(3, 1)]);
    let first = read(&store, |tx| {
        model_versions(
            tx,
            "default",
            &Query {
                limit: 3,
                ..Query::default()
            },
        )
    });
    assert_eq!(first.items.len(), 3);
    assert_eq!(
        versions(Query {
            after: first.next,
            ..all()
        }),
        [(2, 1)]
    );
}

#[test]
fn a_cursor_of_another_order_is_refused_and_never_reaches_the_database() {
    let (_dir, store) = temp_store();
    write(&store, |tx| {
        add_experiment(tx, 1, "default")?;
        add_experiment(tx, 2, "default")
    });
    let page = read(&store, |tx| {
        experiments(
            tx,
            "default",
            View::All,
            &Query {
                limit: 1,
                ..Query::default()
            },
        )
    });
    let query = Query {
        after: page.next,
        ..by(Attribute::Name, true)
    };
    let refused = store.read_blocking(move |tx| experiments(tx, "default", View::All, &query));
    assert!(
        matches!(
            refused,
            Err(StoreError::Conflict {
                noun: "page token",
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn metrics_of_logged_models_count_on_the_datasets_asked_for() {
    let (_dir, store) = temp_store();
    write(&store, |tx| {
        add_experiment(tx, 1, "default")?;
        tx.insert("metric_keys", "number, name", bind![1_i64, "acc"])?;
        for (number, stage) in [(1_i64, "active"), (2, "active"), (3, "active"), (4, "deleted")] {
            let columns = "number, model_id, experiment, name, model_type, source_run_id, artifact_location, status, lifecycle, created_ms, updated_ms";
            let id = format!("m-{number}");
            tx.insert(
                "logged_models",
                columns,
                bind![
                    number, id, 1_i64, "n", "", "", "uri", "READY", stage, 5_i64, number
                ],
            )?;
        }
        let rows = [
            (1_i64, "d1", 3_i64, 0.3, false),
            (1, "d2", 4, 0.9, false),
            (2, "d1", 3, 0.5, false),
            (2, "d1", 1, 0.1, false),
            (3, "d2", 1, 0.0, true),
        ];
        for (model, dataset, at, value, is_nan) in rows {
            let columns = "model, key, dataset_name, dataset_digest, run, step, at_ms, value, is_nan";
            tx.insert(
                "logged_model_metrics",
                columns,
                bind![model, 1_i64, dataset, "x", 1_i64, 0_i64, at, value, is_nan],
            )?;
        }
        Ok(())
    });
    let found = |datasets: Vec<DatasetScope>, query: Query| {
        let work = move |tx: &ReadTx<'_>| {
            let scope = ModelScope {
                workspace: "default",
                experiments: Some(&[1]),
                datasets: &datasets,
            };
            logged_models(tx, &scope, &query)
        };
        read(&store, work).items
    };
    let dataset = |name: &str| DatasetScope {
        name: name.to_owned(),
        digest: None,
    };
    let above = |value| {
        asking(
            Subject::Metric("acc".to_owned()),
            Test::Number(Compare::Greater, value),
        )
    };
    let by_metric = |ascending, name: Option<&str>| {
        let mut key = OrderKey::by(Subject::Metric("acc".to_owned()), ascending);
        key.dataset_name = name.map(str::to_owned);
        Query {
            order: vec![key],
            ..all()
        }
    };
    assert_eq!(found(vec![], all()), [1, 2, 3]);
    assert_eq!(found(vec![dataset("d1")], all()), [1, 2]);
    assert_eq!(found(vec![], above(0.4)), [1, 2]);
    assert_eq!(found(vec![dataset("d1")], above(0.4)), [2]);
    assert_eq!(found(vec![dataset("d1"), dataset("d2")], above(0.6)), [1]);
    // The latest value of each; NaN before what is missing, both last.
    assert_eq!(found(vec![], by_metric(true, None)), [2, 1, 3]);
    assert_eq!(found(vec![], by_metric(false, None)), [1, 2, 3]);
    assert_eq!(found(vec![], by_metric(true, Some("d1"))), [1, 2, 3]);
    assert_eq!(found(vec![], by_metric(false, Some("d2"))), [1, 3, 2]);
}
