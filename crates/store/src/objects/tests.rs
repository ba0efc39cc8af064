use std::fs;

use object_store::memory::InMemory;

use super::*;
use crate::testing::temp_store;

fn log(run: &str) -> ObjectKey {
    ObjectKey::RunLog {
        run: run.into(),
        attempt: 1,
    }
}

#[tokio::test]
async fn objects_come_back_as_they_were_put_in_a_folder_and_elsewhere() {
    let (_dir, store) = temp_store();
    for objects in [store.objects().clone(), Objects::over(Arc::new(InMemory::new()))] {
        let digest = objects
            .put_content(ContentKind::Artifact, "hello".into())
            .await
            .unwrap();
        let again = objects
            .put_content(ContentKind::Artifact, "hello".into())
            .await
            .unwrap();
        assert_eq!((digest, again), (Digest::of(b"hello"), digest));
        let key = ObjectKey::Artifact(digest);
        assert_eq!(objects.get(&key).await.unwrap(), "hello");
        assert_eq!(objects.head(&key).await.unwrap(), Some(5));
        objects.put(&log("a"), "one".into()).await.unwrap();
        objects.put(&log("a"), "two".into()).await.unwrap();
        assert_eq!(objects.get(&log("a")).await.unwrap(), "two");
        assert_eq!(objects.list("").await.unwrap().len(), 2);
        let listed = objects.list("runs").await.unwrap();
        assert_eq!(
            listed,
            [ObjectInfo {
                path: objects.path(&log("a")).to_string(),
                size: 3
            }]
        );
        objects.delete(&log("a")).await.unwrap();
        objects.delete(&log("a")).await.unwrap();
        assert_eq!(objects.head(&log("a")).await.unwrap(), None);
        assert!(objects.get(&log("a")).await.unwrap_err().is_not_found());
    }
}

#[tokio::test]
async fn a_corrupt_object_is_named_with_both_digests() {
    let (_dir, store) = temp_store();
    let objects = store.objects();
    let digest = objects
        .put_content(ContentKind::Snapshot, "data".into())
        .await
        .unwrap();
    let key = ObjectKey::Snapshot(digest);
    fs::write(objects.file(&key).unwrap(), "dat4").unwrap();
    let error = objects.get(&key).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.code(), "store_corrupt");
    assert!(
        text.contains(&digest.to_string()) && text.contains(&Digest::of(b"dat4").to_string()),
        "{text}"
    );
    assert!(text.contains("snapshots/data/"), "{text}");
    // Neither is such a thing stored in the first place.
    let error = objects.put(&key, "dat4".into()).await.unwrap_err();
    assert_eq!(error.code(), "store_corrupt");
}

#[tokio::test]
async fn what_a_killed_write_left_is_listed_nowhere_and_goes_at_the_next_start() {
    let (dir, store) = temp_store();
    store.objects().put(&log("a"), "one".into()).await.unwrap();
    let left = dir.path().join("objects/.unfinished/1#7");
    fs::write(&left, "hal").unwrap();
    assert_eq!(store.objects().list("").await.unwrap().len(), 1);
    drop(store);
    let store = crate::Store::open(dir.path()).unwrap();
    assert!(!left.exists());
    assert_eq!(store.objects().get(&log("a")).await.unwrap(), "one");
    // A write that fails leaves nothing either: here its folder cannot be made, because a file stands there.
    fs::write(dir.path().join("objects/runs/b"), "").unwrap();
    let failed = store.objects().put(&log("b"), "x".into()).await;
    assert!(failed.is_err());
    let unfinished = fs::read_dir(dir.path().join("objects/.unfinished")).unwrap();
    assert_eq!(unfinished.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_object_put_by_many_at_once_is_whole() {
    let (_dir, store) = temp_store();
    let bytes = Bytes::from(vec![7u8; 1 << 20]);
    let puts = (0..8).map(|_| {
        let (objects, bytes) = (store.objects().clone(), bytes.clone());
        tokio::spawn(async move { objects.put_content(ContentKind::Artifact, bytes).await })
    });
    for put in futures::future::join_all(puts).await {
        let digest = put.unwrap().unwrap();
        let read = store.objects().get(&ObjectKey::Artifact(digest)).await.unwrap();
        assert_eq!(read, bytes);
    }
}

#[tokio::test]
async fn a_model_comes_back_file_by_file_and_the_same_files_are_the_same_model() {
    let (_dir, store) = temp_store();
    let objects = store.objects();
    let bundle = tidemill_core::ports::ModelBundle::from([
        ("model.json".to_owned(), b"{}".to_vec()),
        ("weights".to_owned(), vec![1, 2, 3]),
    ]);
    let digest = objects.put_bundle(&bundle).await.unwrap();
    assert_eq!(objects.put_bundle(&bundle).await.unwrap(), digest);
    assert_eq!(objects.get_bundle(&digest).await.unwrap(), bundle);
    assert_eq!(objects.bundle_files(&digest).await.unwrap()["weights"].size, 3);
    let missing = objects.get_bundle(&Digest::of(b"none")).await.unwrap_err();
    assert!(missing.is_not_found());
}

#[tokio::test]
async fn a_large_object_arrives_and_leaves_in_pieces_and_is_kept_once() {
    let (_dir, store) = temp_store();
    let objects = store.objects();
    let bytes: Vec<u8> = (0..3_500_000u32).map(|i| (i % 251) as u8).collect();
    for _ in 0..2 {
        let mut incoming = objects.incoming().await.unwrap();
        for piece in bytes.chunks(100_000) {
            incoming.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        let arrived = incoming.finish().await.unwrap();
        let kept = objects.keep(arrived, ContentKind::Artifact).await.unwrap();
        assert_eq!((kept.digest, kept.size), (Digest::of(&bytes), bytes.len() as u64));
    }
    assert_eq!(objects.list("").await.unwrap().len(), 1);
    let digest = Digest::of(&bytes);
    let opened = objects
        .open(ContentKind::Artifact, digest)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(opened.rest(u64::MAX).await.unwrap().unwrap(), bytes);
    let mut part = objects
        .open(ContentKind::Artifact, digest)
        .await
        .unwrap()
        .unwrap();
    part.only(1_000_000, 2_200_000);
    assert_eq!(
        part.rest(u64::MAX).await.unwrap().unwrap(),
        bytes[1_000_000..2_200_000]
    );
    let whole = objects
        .open(ContentKind::Artifact, digest)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(whole.rest(1_000).await.unwrap(), None);

    let alone = objects.alone().await;
    objects
        .remove_unreferenced(&alone, ContentKind::Artifact, &[digest])
        .await
        .unwrap();
    assert!(
        objects
            .open(ContentKind::Artifact, digest)
            .await
            .unwrap()
            .is_none()
    );
}
