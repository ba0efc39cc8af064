//! Tests of imports: whatever is sent again, in whichever part, ends alike.

use serde_json::json;

use super::*;
use crate::Tx;
use crate::error::StoreError;
use crate::store::Store;
use crate::testing::temp_store;

fn origin() -> Origin {
    Origin {
        workspace: "default".to_owned(),
        source: "file:///mlruns".to_owned(),
        at_ms: 5,
    }
}

fn experiment(id: &str, name: &str) -> Experiment {
    Experiment {
        id: id.to_owned(),
        name: name.to_owned(),
        lifecycle: "active".to_owned(),
        created_ms: 1,
        updated_ms: 2,
        tags: vec![("k".to_owned(), "v".to_owned())],
    }
}

fn location(id: i64) -> String {
    format!("mlflow-artifacts:/{id}")
}

fn run(experiment: i64) -> Run {
    Run {
        run_id: "r".repeat(32),
        experiment,
        name: "n".to_owned(),
        status: "FINISHED".to_owned(),
        lifecycle: "active".to_owned(),
        start_ms: 1,
        end_ms: Some(9),
        artifact_uri: "mlflow-artifacts:/1/r/artifacts".to_owned(),
        params: vec![("p".to_owned(), "1".to_owned())],
        tags: vec![("t".to_owned(), "1".to_owned())],
        datasets: vec![Dataset {
            name: "d".to_owned(),
            digest: "1".to_owned(),
            tags: vec![("mlflow.data.context".to_owned(), "training".to_owned())],
            ..Dataset::default()
        }],
        model_inputs: vec!["m-1".to_owned()],
        ..Run::default()
    }
}

fn point(step: i64, value: f64) -> Metric {
    Metric {
        key: "loss".to_owned(),
        step,
        at_ms: 10 * step,
        value,
        is_nan: false,
    }
}

fn change<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
) -> T {
    store.write_blocking(work).unwrap()
}

#[test]
fn an_experiment_keeps_its_id_unless_that_is_anothers_and_finds_its_place_again() {
    let (_dir, store) = temp_store();
    let placed = change(&store, |tx| {
        let mut placed = Vec::new();
        for (id, name) in [("41", "a"), ("41", "b"), ("7", "a"), ("43", "c"), ("words", "d")] {
            // As from another source each: otherwise 41 would be known.
            let origin = Origin {
                source: format!("{id}{name}"),
                ..origin()
            };
            placed.push(put_experiment(tx, &origin, &experiment(id, name), location)?);
            let again = put_experiment(tx, &origin, &experiment(id, name), location)?;
            assert_eq!(again, Placed::Present(placed[placed.len() - 1].id()));
        }
        Ok(placed)
    });
    assert_eq!(placed[0], Placed::Created(41));
    assert_eq!(placed[1], Placed::Renumbered(42));
    assert_eq!(placed[2], Placed::Joined(41));
    assert_eq!(placed[3], Placed::Created(43));
    assert_eq!(placed[4], Placed::Created(44));
}

#[test]
fn a_run_that_is_sent_again_in_other_parts_is_the_same_run() {
    let (_dir, store) = temp_store();
    change(&store, |tx| {
        let id = put_experiment(tx, &origin(), &experiment("1", "a"), location)?.id();
        let run = run(id);
        assert_eq!(put_run(tx, "default", &run)?, Put::Created);
        let points: Vec<Metric> = (0..10).map(|step| point(step, 1.0 / (step + 1) as f64)).collect();
        assert_eq!(append_metrics(tx, "default", &run.run_id, &points[5..])?, Some(5));
        assert_eq!(append_metrics(tx, "default", &run.run_id, &points)?, Some(5));
        assert_eq!(append_metrics(tx, "default", &run.run_id, &points[..3])?, Some(0));
        assert_eq!(put_run(tx, "default", &run)?, Put::Present);
        let latest: i64 = tx.one("SELECT step FROM latest_metrics", &[], |row| {
            crate::column::Fields::of(row).next()
        })?;
        assert_eq!(latest, 9);

        let gone_on = Run {
            status: "FAILED".to_owned(),
            tags: vec![("t".to_owned(), "2".to_owned())],
            ..run.clone()
        };
        assert_eq!(put_run(tx, "default", &gone_on)?, Put::Updated);
        let other = put_experiment(tx, &origin(), &experiment("2", "b"), location)?.id();
        let elsewhere = Run {
            experiment: other,
            ..run.clone()
        };
        assert!(matches!(put_run(tx, "default", &elsewhere)?, Put::Refused(_)));
        assert_eq!(append_metrics(tx, "default", "absent", &points)?, None);
        Ok(())
    });
}

#[test]
fn what_has_come_whole_is_known_until_it_changes_or_goes() {
    let (_dir, store) = temp_store();
    change(&store, |tx| {
        let id = put_experiment(tx, &origin(), &experiment("1", "a"), location)?.id();
        let run = run(id);
        put_run(tx, "default", &run)?;
        let done = Mark {
            id: run.run_id.clone(),
            target: run.run_id.clone(),
            fingerprint: Some("f".to_owned()),
            counts: json!({ "metrics": 3 }),
        };
        mark(tx, &origin(), "run", &done)?;
        let ask =
            |tx: &Tx<'_>, print: &str| known(tx, &origin(), "run", &[(run.run_id.clone(), print.to_owned())]);
        assert_eq!(ask(tx, "f")?, [done]);
        assert_eq!(ask(tx, "g")?, []);
        tx.execute("DELETE FROM tracked_runs", &[])?;
        assert_eq!(ask(tx, "f")?, []);
        Ok(())
    });
}

#[test]
fn a_version_does_not_take_anothers_number_and_an_alias_set_here_stays() {
    let (_dir, store) = temp_store();
    change(&store, |tx| {
        let model = RegisteredModel {
            name: "m".to_owned(),
            last_version: 4,
            updated_ms: 1,
            ..RegisteredModel::default()
        };
        let (number, put) = put_model(tx, &origin(), &model)?;
        assert_eq!(put, Put::Created);
        let version = Version {
            version: 2,
            source: "runs:/r/model".to_owned(),
            stage: "Staging".to_owned(),
            status: "READY".to_owned(),
            updated_ms: 1,
            ..Version::default()
        };
        let at = (number, "m");
        assert_eq!(put_version(tx, &origin(), at, &version)?, Put::Created);
        assert_eq!(put_version(tx, &origin(), at, &version)?, Put::Present);
        let moved = Version {
            stage: "Production".to_owned(),
            updated_ms: 2,
            ..version.clone()
        };
        assert_eq!(put_version(tx, &origin(), at, &moved)?, Put::Updated);
        let stranger = Origin {
            source: "elsewhere".to_owned(),
            ..origin()
        };
        let other = Version {
            source: "runs:/x/model".to_owned(),
            ..version.clone()
        };
        assert!(matches!(put_version(tx, &stranger, at, &other)?, Put::Refused(_)));

        let third = Version {
            version: 3,
            ..version
        };
        put_version(tx, &origin(), at, &third)?;
        assert_eq!(put_alias(tx, &origin(), at, "champion", 2)?, Put::Created);
        assert_eq!(put_alias(tx, &origin(), at, "champion", 2)?, Put::Present);
        assert_eq!(put_alias(tx, &origin(), at, "champion", 3)?, Put::Updated);
        tx.execute("UPDATE aliases SET version = 2", &[])?;
        assert!(matches!(
            put_alias(tx, &origin(), at, "champion", 3)?,
            Put::Refused(_)
        ));
        assert!(matches!(
            put_alias(tx, &origin(), at, "other", 9)?,
            Put::Refused(_)
        ));
        let next: i64 = tx.one("SELECT next_version FROM models", &[], |row| {
            crate::column::Fields::of(row).next()
        })?;
        assert_eq!(next, 5);
        Ok(())
    });
}
