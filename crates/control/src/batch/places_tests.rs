use std::sync::Arc;

use tidemill_core::clock::WallClock;
use tidemill_store::Store;

use super::*;
use crate::tracking::TrackingOptions;

fn places(dir: &Path) -> Places {
    let store = Store::open(&dir.join("data")).unwrap();
    let tracking = Tracking::new(store, Arc::new(WallClock), TrackingOptions::default());
    let options = PlaceOptions {
        roots: vec![dir.join("one"), dir.join("two")],
        gs: [("cloud".to_owned(), dir.join("gs").display().to_string())].into(),
    };
    Places::new(tracking, options)
}

#[tokio::test]
async fn jobs_go_only_where_the_operator_said() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let local = |root: &str, path: &str| Place::Local {
        root: dir.path().join(root),
        path: path.to_owned(),
    };
    let two = dir.path().join("two/b.csv").display().to_string();
    for (location, expected) in [
        ("a/b.csv", local("one", "a/b.csv")),
        ("./a", local("one", "a")),
        (two.as_str(), local("two", "b.csv")),
        (&format!("file://{two}"), local("two", "b.csv")),
        ("gs://cloud/a/b", local("gs", "a/b")),
        (
            "s3://bucket/a/",
            Place::Artifacts {
                uri: "s3://bucket/a".to_owned(),
            },
        ),
    ] {
        assert_eq!(places.find(location).unwrap(), expected, "{location}");
    }
    std::os::unix::fs::symlink("/etc", dir.path().join("one/link")).unwrap();
    for location in [
        "/etc/passwd",
        "file:///etc/passwd",
        "../two/../../x",
        "a/../../b",
        "link/passwd",
        "gs://cloud/../x",
        "gs://elsewhere/x",
    ] {
        let error = places.find(location).unwrap_err();
        assert_eq!(error.code, "batch_place_denied", "{location}: {error}");
    }
    for location in ["", "/", "https://example.com/x", "file://host/x"] {
        assert_eq!(
            places.find(location).unwrap_err().code,
            "bad_batch_job",
            "{location}"
        );
    }
}

#[tokio::test]
async fn files_are_written_listed_by_folder_and_prefix_and_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let caller = Caller::default();
    for base in ["in", "mlflow-artifacts:/in"] {
        let place = places.find(base).unwrap();
        for name in ["b.csv", "a.csv", "deep/er/c.csv", "_SUCCESS", "bc/d.csv"] {
            places
                .write(&caller, &place.below(name), name.into())
                .await
                .unwrap();
        }
        let names = |found: Vec<Found>| found.into_iter().map(|file| file.path).collect::<Vec<_>>();
        let all = places.files(&caller, &place).await.unwrap();
        assert_eq!(
            names(all),
            ["a.csv", "b.csv", "bc/d.csv", "deep/er/c.csv"],
            "{base}"
        );
        let one = places.files(&caller, &place.below("a.csv")).await.unwrap();
        assert_eq!((one.len(), one[0].path.as_str(), one[0].size), (1, "", 5));
        let some = places.prefixed(&caller, &place.below("b")).await.unwrap();
        assert_eq!(names(some), ["b.csv", "bc/d.csv"]);
        let into = dir.path().join("fetched");
        let fetched = places.fetch(&caller, &place, &into).await.unwrap();
        assert_eq!(fetched.len(), 4);
        assert_eq!(
            std::fs::read_to_string(into.join("deep/er/c.csv")).unwrap(),
            "deep/er/c.csv"
        );
        assert!(
            places
                .open(&caller, &place.below("nothing"))
                .await
                .unwrap()
                .is_none()
        );
    }
    let elsewhere = places.find("s3://bucket/in").unwrap();
    let error = places.files(&caller, &elsewhere).await.unwrap_err();
    assert_eq!(error.code, "batch_place_denied", "{error}");
}
