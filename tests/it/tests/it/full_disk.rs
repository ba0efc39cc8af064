//! A full disk: a data folder on a tmpfs of a few megabytes.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::util::{Project, Server, texts};

/// A small file system that goes away with the value.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tidemill-it"])
            .arg(path)
            .output()
            .unwrap();
        if mounted.status.success() {
            return Some(Self {
                path: path.to_owned(),
            });
        }
        let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(
            std::env::var("TIDEMILL_NO_TMPFS").is_ok_and(|v| v == "1"),
            "cannot mount a tmpfs, so the full disk cannot be tested: {said}\nrun the tests as root, or set TIDEMILL_NO_TMPFS=1 to go without"
        );
        println!("NOT TESTED: a full disk, because no tmpfs can be mounted: {said}");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that it goes even if a server that failed the test still has files open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn rows(n: usize) -> Value {
    let data: Vec<Value> = (0..n)
        .map(|i| json!([i as f64 / 7.0, format!("a rather long colour number {i}")]))
        .collect();
    json!({ "dataframe_split": { "columns": ["x", "colour"], "data": data } })
}

/// Predicts until the server says that there is no room; gives the acknowledged ids and the refusals.
fn fill(server: &Server) -> (Vec<String>, Vec<(u16, Value)>) {
    let (mut ids, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..2_000 {
        let (status, body) = server.tell("/invocations/small", &rows(200));
        if status == 200 {
            ids.extend(texts(&body["prediction_ids"]));
        } else {
            refused.push((status, body));
            if refused.len() == 3 {
                break;
            }
        }
    }
    (ids, refused)
}

#[test]
fn a_full_disk_is_answered_with_507_loses_nothing_and_needs_no_restart() {
    let project = Project::small();
    let Some(disk) = SmallDisk::mount(&project.path().join("disk"), 18) else {
        return;
    };
    let data = disk.path.join("data");
    let ballast = disk.path.join("ballast");
    std::fs::write(&ballast, vec![0_u8; 14 << 20]).unwrap();
    let args = ["--data", data.to_str().unwrap()];
    let mut server = project.up(&args);

    let (mut ids, refused) = fill(&server);
    assert!(!ids.is_empty(), "something fits");
    assert_eq!(refused.len(), 3, "the disk fills up");
    for (status, body) in &refused {
        assert_eq!(
            (*status, &body["error_code"]),
            (507, &json!("TEMPORARILY_UNAVAILABLE")),
            "{body}"
        );
        assert!(
            body["message"].as_str().unwrap().contains("disk is full"),
            "{body}"
        );
    }
    let tensor = |name: &str, datatype: &str, data: Value| json!({ "name": name, "shape": [200], "datatype": datatype, "data": data });
    let (x, colour): (Vec<f64>, Vec<String>) =
        (0..200).map(|i| (f64::from(i), format!("colour {i}"))).unzip();
    let inputs =
        json!({ "inputs": [tensor("x", "FP64", json!(x)), tensor("colour", "BYTES", json!(colour))] });
    // A small remainder may be left; a big request has no room in it.
    let (status, body) = server.tell("/v2/models/small/infer", &inputs);
    if status == 200 {
        ids.extend(texts(&json!(crate::util::output(&body, "prediction_id"))));
    } else {
        assert_eq!(status, 507, "{body}");
        assert!(body["error"].as_str().unwrap().contains("disk is full"), "{body}");
    }

    // Feedback either has room in the database, or says 507; never anything else.
    let mut labels = 0;
    for part in ids.chunks(500).take(20) {
        let items: Vec<Value> = part
            .iter()
            .map(|id| json!({ "prediction_id": id, "value": true }))
            .collect();
        let (status, body) = server.tell("/api/v1/feedback", &json!({ "feedback": items }));
        match status {
            201 => labels += part.len(),
            507 => assert!(
                body["error"]["message"]
                    .as_str()
                    .unwrap()
                    .contains("disk is full"),
                "{body}"
            ),
            other => panic!("{other}: {body}"),
        }
    }
    let status = server.get("/api/v1/status");
    assert_eq!(
        (&status["predictions"], &status["labels"]),
        (&json!(ids.len()), &json!(labels)),
        "{status}"
    );

    // kill -9 on a full disk, and start again: still all there.
    server.kill();
    let server = project.up(&args);
    let status = server.get("/api/v1/status");
    assert_eq!(
        (&status["predictions"], &status["labels"]),
        (&json!(ids.len()), &json!(labels)),
        "{status}"
    );

    // Space comes back: it works again, without a restart.
    std::fs::remove_file(&ballast).unwrap();
    let (status, body) = server.tell("/invocations/small", &rows(200));
    assert_eq!(status, 200, "{body}");
    ids.extend(texts(&body["prediction_ids"]));
    server.post(
        "/api/v1/feedback",
        &json!({ "prediction_id": ids[ids.len() - 1], "value": false }),
    );
    let status = server.get("/api/v1/status");
    assert_eq!(
        (&status["predictions"], &status["labels"]),
        (&json!(ids.len()), &json!(labels + 1)),
        "{status}"
    );
    for id in ids.iter().step_by(ids.len() / 50 + 1) {
        assert_eq!(
            server.get(&format!("/api/v1/lineage/predictions/{id}"))["prediction_id"],
            *id
        );
    }
    assert!(
        server.stop().success(),
        "a clean end compacts the log into the space that is there"
    );
    let server = project.up(&args);
    assert_eq!(server.get("/api/v1/status")["predictions"], ids.len());
}
