use super::*;
use crate::models as loops;
use crate::testing::{at, digest, temp_store};
use crate::tx::Tx;

fn who(seconds: i64) -> Who {
    Who {
        at: at(seconds),
        by: "ann".to_owned(),
        why: "because".to_owned(),
    }
}

fn model(tx: &Tx<'_>, number: i64) -> Model {
    load_models(tx, &[number]).unwrap().pop().unwrap()
}

fn new(source: &str) -> NewVersion {
    NewVersion {
        source: source.to_owned(),
        tags: vec![("a".to_owned(), "1".to_owned())],
        ..NewVersion::default()
    }
}

#[test]
fn a_models_versions_tags_and_aliases_are_read_together_in_the_order_asked_for() {
    let (_dir, store) = temp_store();
    store
        .write_blocking(|tx| {
            let tags = [("k".to_owned(), "v".to_owned())];
            let a = create(tx, "default", "a", "first", &tags, &who(1))?;
            let b = create(tx, "default", "b", "", &[], &who(1))?;
            for n in 1..=3 {
                assert_eq!(create_version(tx, a, &new("s3://x"), &who(n))?, n);
            }
            let am = model(tx, a);
            let to = |target| Move {
                model: &am,
                target,
                decision: None,
            };
            assert!(move_alias(tx, &to("best"), Some(2), &who(4))?);
            assert!(!move_alias(tx, &to("best"), Some(2), &who(5))?);
            move_stage(tx, &to("Production"), 1, "None", &who(6))?;
            let loaded = load_models(tx, &[b, 99, a])?;
            let names: Vec<&str> = loaded.iter().map(|m| m.name.as_str()).collect();
            assert_eq!(names, ["b", "a"]);
            assert_eq!(loaded[1].aliases, [("best".to_owned(), 2)]);
            let latest: Vec<(i64, &str)> = loaded[1]
                .latest
                .iter()
                .map(|v| (v.version, v.stage.as_str()))
                .collect();
            assert_eq!(latest, [(1, "Production"), (3, "None")]);
            let versions = load_versions(tx, &[(a, 3), (a, 2), (b, 1)])?;
            assert_eq!(versions.len(), 2);
            assert_eq!(versions[1].aliases, ["best"]);
            assert_eq!(versions[0].tags, [("a".to_owned(), "1".to_owned())]);
            Ok(())
        })
        .unwrap();
}

#[test]
fn numbers_do_not_come_back_and_the_history_outlives_names_versions_and_models() {
    let (_dir, store) = temp_store();
    store
        .write_blocking(|tx| {
            let number = create(tx, "default", "a", "", &[], &who(1))?;
            create_version(tx, number, &new("s3://x"), &who(2))?;
            let before = model(tx, number);
            let change = Move {
                model: &before,
                target: "best",
                decision: None,
            };
            move_alias(tx, &change, Some(1), &who(3))?;
            let version = find_version(tx, number, 1)?.unwrap();
            delete_version(tx, &before, &version, &who(4))?;
            assert_eq!(create_version(tx, number, &new("s3://y"), &who(5))?, 2);
            rename(tx, &before, "b", &who(6))?;
            let kinds = |entries: Vec<Entry>| entries.into_iter().map(|e| e.kind).collect::<Vec<_>>();
            let expected = [
                "created",
                "alias_moved",
                "alias_moved",
                "version_deleted",
                "renamed",
            ];
            assert_eq!(kinds(audit(tx, "default", "b", Some(number))?), expected);
            assert_eq!(kinds(audit(tx, "default", "a", None)?), expected);
            delete(tx, &model(tx, number), &who(7))?;
            assert_eq!(find(tx, "default", "b")?, None);
            let whole = kinds(audit(tx, "default", "b", None)?);
            assert_eq!(whole[..5], expected);
            assert_eq!(whole[5], "deleted");
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_loop_and_clients_share_the_numbers_of_a_model() {
    let (_dir, store) = temp_store();
    store
        .write_blocking(|tx| {
            let version = loops::NewVersion {
                model: "delay".into(),
                run: "r1".into(),
                bundle: digest("r1"),
                snapshot: digest("s"),
                signature: serde_json::Value::Null,
                metrics: serde_json::json!({"auc": 0.5}),
                created_at: at(1),
                description: String::new(),
            };
            loops::register_version(tx, version)?;
            let number = find(tx, "default", "delay")?.unwrap();
            assert_eq!(create_version(tx, number, &new("s3://x"), &who(2))?, 2);
            let loaded = load_versions(tx, &[(number, 1)])?;
            assert_eq!(loaded[0].metrics["auc"], 0.5);
            assert_eq!(loaded[0].source, "runs:/r1/model");
            assert_eq!(loops::list_versions(tx, &"delay".into())?.len(), 1);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_request_is_decided_once() {
    let (_dir, store) = temp_store();
    store
        .write_blocking(|tx| {
            let number = create(tx, "default", "a", "", &[], &who(1))?;
            create_version(tx, number, &new("s3://x"), &who(2))?;
            let id = ask(tx, (number, 1), ("alias", "champion"), &who(3))?;
            assert_eq!(
                find_request(tx, (number, 1), id)?.unwrap().state,
                RequestState::Open
            );
            assert!(find_request(tx, (number, 2), id)?.is_none());
            decide(tx, id, RequestState::Approved, &who(4))?;
            let requests = list_requests(tx, (number, 1))?;
            assert_eq!(requests[0].state, RequestState::Approved);
            assert_eq!(requests[0].comment.as_deref(), Some("because"));
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_not_there_is_left_out_of_a_runs_facts() {
    let (_dir, store) = temp_store();
    let facts = store
        .read_blocking(|tx| run_facts(tx, "default", "nobody"))
        .unwrap();
    assert!(facts.is_null());
    assert_eq!(
        store
            .read_blocking(|tx| logged_model(tx, "default", "m-1"))
            .unwrap(),
        None
    );
}
