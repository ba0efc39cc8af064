//! What holds for every change, whatever its noun.

use std::sync::mpsc;
use std::task::{Context, Waker};
use std::time::Duration;

use serde_json::{Value, json};

use crate::testing::{at, fresh_database, on_sqlite, temp_store, temp_store_on};
use crate::{Store, StoreError, Tx, events, meta};

fn note(tx: &mut Tx<'_>, key: &str) -> Result<i64, StoreError> {
    meta::set(tx, key, &true)?;
    tx.event(at(1), "note.set", "note", key, Value::Null)
}

fn noted(store: &Store, key: &'static str) -> bool {
    store.read_blocking(|tx| meta::get(tx, key)).unwrap() == Some(true)
}

/// Holds the writing thread until the returned sender sends, so that what is submitted meanwhile forms one group.
fn hold(store: &Store) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let (started, starts) = mpsc::channel();
    let store = store.clone();
    std::thread::spawn(move || {
        store.write_blocking(move |_| {
            started.send(()).unwrap();
            held.recv_timeout(Duration::from_secs(30)).unwrap();
            Ok(())
        })
    });
    starts.recv().unwrap();
    release
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_stored_at_once_and_a_failing_change_takes_only_itself_back() {
    let (_dir, store) = temp_store();
    let mut announced = store.events();
    let release = hold(&store);
    let first = store.write(|tx| note(tx, "first"));
    let failing = store.write(|tx| {
        note(tx, "failing")?;
        Err::<(), _>(StoreError::conflict("note", "refused"))
    });
    let panicking = store.write(|tx| -> Result<(), StoreError> {
        note(tx, "panicking")?;
        panic!("boom");
    });
    let reader = store.clone();
    let last = store.write(move |tx| {
        note(tx, "last")?;
        // Inside the transaction the group's first change is there, outside it is not: both are in one transaction.
        let inside: Option<bool> = meta::get(tx, "first")?;
        Ok((inside, noted(&reader, "first")))
    });
    // Joined futures are polled in order: everything is in the queue before the writer goes on.
    let releasing = async move { release.send(()).unwrap() };
    let (first, failing, panicking, last, ()) = tokio::join!(first, failing, panicking, last, releasing);
    assert_eq!(first.unwrap(), 1);
    assert_eq!(failing.unwrap_err().code(), "conflict");
    assert!(panicking.unwrap_err().to_string().contains("boom"));
    assert_eq!(last.unwrap(), (Some(true), false));
    let seen = store.clone();
    let seen = tokio::task::spawn_blocking(move || {
        ["first", "last", "failing", "panicking"].map(|name| noted(&seen, name))
    });
    assert_eq!(seen.await.unwrap(), [true, true, false, false]);
    let subjects = [
        announced.recv().await.unwrap().subject,
        announced.recv().await.unwrap().subject,
    ];
    assert_eq!(subjects, ["first", "last"]);
    let logged = store
        .read(|tx| events::list_after(tx, 0, 10, None))
        .await
        .unwrap();
    // The numbers only grow: PostgreSQL does not give out again what a change that was taken back had.
    assert!(logged.len() == 2 && logged[0].seq < logged[1].seq);
}

#[test]
fn an_event_is_announced_only_once_it_is_stored() {
    let (_dir, store) = temp_store();
    let mut announced = store.events();
    let mut early = store.events();
    store
        .write_blocking(move |tx| {
            note(tx, "a")?;
            assert!(early.try_recv().is_err());
            Ok(())
        })
        .unwrap();
    let event = announced.blocking_recv().unwrap();
    assert_eq!(store.read_blocking(|tx| events::recent(tx, 1)).unwrap(), [event]);
}

#[test]
fn events_are_listed_by_the_start_of_their_kind() {
    let (_dir, store) = temp_store();
    store
        .write_blocking(|tx| {
            for kind in ["rollout.advanced", "rollout_x.y", "rollouts", "run.started"] {
                tx.event(at(1), kind, "thing", "a", json!({"n": 1}))?;
            }
            Ok(())
        })
        .unwrap();
    store
        .read_blocking(|tx| {
            let kinds = |prefix| -> Result<Vec<String>, StoreError> {
                let listed = events::list_after(tx, 0, 10, Some(prefix))?;
                Ok(listed.into_iter().map(|e| e.kind).collect())
            };
            assert_eq!(kinds("rollout.")?, ["rollout.advanced"]);
            assert_eq!(kinds("rollout_")?, ["rollout_x.y"]);
            assert_eq!(kinds("r")?.len(), 4);
            assert_eq!(events::of_subject(tx, "thing", "a", 3)?.len(), 3);
            assert_eq!(events::last_seq(tx)?, 4);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_full_disk_keeps_nothing_of_the_write_and_the_store_works_again_with_space() {
    if !on_sqlite() {
        // The limit is SQLite's own; PostgreSQL's disk is its server's.
        return;
    }
    let (_dir, store) = temp_store();
    let limit = |store: &Store, spare: i64| {
        store
            .write_blocking(move |tx| {
                let pages: i64 = tx.one("PRAGMA page_count", &[], |row| Ok(row.get_ref(0)?.as_i64()?))?;
                tx.one(&format!("PRAGMA max_page_count = {}", pages + spare), &[], |_| {
                    Ok(())
                })
            })
            .unwrap();
    };
    limit(&store, 2);
    let error = store
        .write_blocking(|tx| {
            note(tx, "small")?;
            meta::set(tx, "large", &"x".repeat(1 << 20))
        })
        .unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("free some space"));
    assert!(!noted(&store, "small"));
    limit(&store, 1_000);
    store
        .write_blocking(|tx| meta::set(tx, "large", &"x".repeat(1 << 20)))
        .unwrap();
}

#[test]
fn a_second_server_is_told_who_holds_the_folder() {
    let (dir, store) = temp_store();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { pid: Some(pid), .. } if pid == std::process::id()));
    assert!(error.to_string().contains("--data"), "{error}");
    drop(store);
    Store::open(dir.path()).unwrap();
}

#[test]
fn what_was_answered_is_there_after_the_folder_is_opened_again() {
    let (dir, store, database) = temp_store_on(fresh_database());
    store.write_blocking(|tx| note(tx, "a")).unwrap();
    drop(store);
    let store = Store::open_on(dir.path(), database.clone()).unwrap();
    assert!(noted(&store, "a"));
    // Numbers of events never repeat.
    assert_eq!(store.write_blocking(|tx| note(tx, "b")).unwrap(), 2);
}

#[test]
fn a_store_opened_for_reading_sees_what_the_running_server_writes_and_refuses_to_write() {
    let (dir, store, database) = temp_store_on(fresh_database());
    store.write_blocking(|tx| note(tx, "a")).unwrap();
    let inspector = Store::open_read_only_on(dir.path(), database.clone()).unwrap();
    assert!(noted(&inspector, "a"));
    store.write_blocking(|tx| note(tx, "b")).unwrap();
    assert!(noted(&inspector, "b"));
    let refused = inspector.write_blocking(|tx| note(tx, "c")).unwrap_err();
    assert!(matches!(refused, StoreError::ReadOnly));
    let empty = tempfile::tempdir().unwrap();
    assert!(Store::open_read_only(empty.path()).unwrap_err().is_not_found());
    // A closed database can be looked at too.
    drop(inspector);
    drop(store);
    assert!(noted(
        &Store::open_read_only_on(dir.path(), database.clone()).unwrap(),
        "a"
    ));
}

#[test]
fn a_schema_of_another_version_is_refused() {
    let (dir, store, database) = temp_store_on(fresh_database());
    let version = |store: &Store, version: u32| {
        store
            .write_blocking(move |tx| {
                tx.execute("DELETE FROM schema_migrations", &[])?;
                tx.insert("schema_migrations", "version", crate::column::bind![version])
            })
            .unwrap();
    };
    version(&store, 0);
    let older = Store::open_read_only_on(dir.path(), database.clone()).unwrap_err();
    assert!(
        matches!(older, StoreError::OlderSchema { found: 0, .. }),
        "{older}"
    );
    version(&store, 99);
    drop(store);
    let newer = Store::open_on(dir.path(), database.clone()).unwrap_err();
    assert!(
        matches!(newer, StoreError::NewerSchema { found: 99, .. }),
        "{newer}"
    );
    assert_eq!(newer.code(), "store_newer_schema");
}

#[test]
fn many_threads_write_and_read_at_once() {
    let (_dir, store) = temp_store();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let store = store.clone();
            std::thread::spawn(move || {
                for i in 0..20 {
                    let key = format!("{thread}/{i}");
                    let written = key.clone();
                    store.write_blocking(move |tx| note(tx, &written)).unwrap();
                    // What was answered is seen by every later reader.
                    let seen: Option<bool> = store.read_blocking(|tx| meta::get(tx, &key)).unwrap();
                    assert_eq!(seen, Some(true));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(store.read_blocking(events::last_seq).unwrap(), 160);
}

#[test]
fn the_last_owner_may_be_a_change_itself() {
    let (dir, store, database) = temp_store_on(fresh_database());
    let owner = store.clone();
    let (go, gone) = mpsc::channel::<()>();
    let (send, receive) = mpsc::channel();
    // Nobody waits for this change: it holds the last handle when it ends.
    let change = store.write(move |tx| {
        gone.recv().unwrap();
        note(tx, "b")?;
        send.send(()).unwrap();
        drop(owner);
        Ok(())
    });
    let mut change = Box::pin(change);
    let poll = change.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_pending());
    drop(change);
    drop(store);
    go.send(()).unwrap();
    receive.recv().unwrap();
    // The folder is free as soon as the writer has ended.
    let reopened = loop {
        match Store::open_on(dir.path(), database.clone()) {
            Err(StoreError::Locked { .. }) => std::thread::yield_now(),
            opened => break opened.unwrap(),
        }
    };
    assert!(noted(&reopened, "b"));
}
