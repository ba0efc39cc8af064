//! kill -9 at random moments of a replay: nothing acknowledged is lost, nothing is recorded twice.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::util::{Dice, Project, Server, binary, eventually, free_port, texts};

/// At least so many kills, and no more than would let nothing get done.
const KILLS: usize = 6;
const MOST_KILLS: usize = 20;

#[test]
fn a_server_killed_at_random_moments_loses_and_doubles_nothing() {
    let mut dice = Dice::new();
    // Everything happens within days: a first model, drift alerts, retrainings, shadows and canaries.
    let project = Project::flights(
        &["2013-01"],
        &[
            ("first_after: 59d", "first_after: 3d"),
            ("window: 120d", "window: 6d\n  min_rows: 500"),
            ("budget: 1.5", "budget: 0.1"),
            ("iterations: 40 ", "iterations: 8 "),
            ("holdout: 14d", "holdout: 1d"),
            ("margin: 0\n", "margin: 0.2\n"),
            ("horizon: 2d", "horizon: 1d"),
            ("cooldown: 30d", "cooldown: 2d"),
            (
                "shadow: {duration: 3d, min_labels: 500}",
                "shadow: {duration: 12h, min_labels: 100}",
            ),
            (
                "steps: [10, 50], dwell: 2d, min_predictions: 100",
                "steps: [20, 50], dwell: 12h, min_predictions: 20",
            ),
            ("loss_margin: 0.01", "loss_margin: 0.2"),
            ("max_duration: 21d", "max_duration: 4d"),
            (
                "threshold: 0.25, share: 0.3, window: 14d, min_rows: 2000",
                "threshold: 0.1, share: 0.1, window: 2d, min_rows: 500",
            ),
            (
                "window: 14d, max_drop: 0.05, min_labels: 2000",
                "window: 2d, max_drop: 0.05, min_labels: 500",
            ),
        ],
    );
    let port = free_port().to_string();
    let args = ["--virtual-clock", "2013-01-01", "--port", &port];
    let mut server = project.up(&args);
    let url = server.url().to_owned();

    let (out, err) = (
        project.path().join("replay.json"),
        project.path().join("replay.err"),
    );
    let mut replay = Command::new(binary())
        .args([
            "replay",
            "--from",
            "2013-01-01",
            "--to",
            "2013-01-16",
            "--json",
            "--url",
            &url,
        ])
        .current_dir(project.path())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let mut kills = 0;
    let begin = Instant::now();
    while replay.try_wait().unwrap().is_none() {
        assert!(
            begin.elapsed() < Duration::from_mins(5),
            "the replay does not end"
        );
        std::thread::sleep(Duration::from_millis(if kills < MOST_KILLS {
            dice.between(50, 1_500)
        } else {
            200
        }));
        if kills < MOST_KILLS && replay.try_wait().unwrap().is_none() {
            server.kill();
            kills += 1;
            // A port of a killed server may linger for a moment.
            server = eventually("a new server", Duration::from_secs(20), || {
                Server::try_start(project.path(), &args).ok()
            });
        }
    }
    println!("{kills} kills in {:?}", begin.elapsed());
    let said = std::fs::read_to_string(&err).unwrap();
    assert!(
        replay.wait().unwrap().success(),
        "the replay rides through:\n{said}"
    );
    assert!(
        kills >= KILLS,
        "only {kills} kills before the replay ended; make it longer"
    );

    let played: Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    let ids = texts(&played["ids"]);
    let unique: HashSet<&String> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "no id is given twice");
    assert_eq!(played["predictions"], ids.len());
    assert!(ids.len() > 8_000, "{} predictions", ids.len());

    let status = server.get("/api/v1/status");
    assert_eq!(
        status["predictions"], played["predictions"],
        "predictions are stored exactly once: {status}"
    );
    assert_eq!(
        status["labels"], played["labels"],
        "labels are stored exactly once: {status}"
    );
    assert_eq!(status["unmatched_labels"], 0, "{status}");
    for _ in 0..200 {
        let id = &ids[usize::try_from(dice.between(0, ids.len() as u64)).unwrap()];
        let lineage = server.get(&format!("/api/v1/lineage/predictions/{id}"));
        assert_eq!(lineage["prediction_id"], *id);
        assert!(lineage["labels"].as_array().unwrap().len() <= 1, "{lineage}");
    }
    nothing_is_recorded_twice(&server);

    // And once more, after a clean end: what was stored is what is found.
    assert!(server.stop().success());
    let server = project.up(&args);
    assert_eq!(server.get("/api/v1/status")["predictions"], played["predictions"]);
    assert_eq!(server.ask("/v2/health/ready").0, 200);
}

fn nothing_is_recorded_twice(server: &Server) {
    let list = |path: &str| server.get(path).as_array().unwrap().clone();
    let runs = list("/api/v1/runs?limit=1000");
    let versions = list("/api/v1/models/flights/versions");
    assert!(!versions.is_empty(), "a first model was trained: {runs:?}");
    let ids: HashSet<&str> = runs.iter().map(|r| r["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), runs.len(), "{runs:?}");
    assert!(
        runs.iter()
            .all(|r| !matches!(r["state"].as_str(), Some("queued" | "running"))),
        "no run is left open: {runs:?}"
    );
    assert!(
        runs.iter().all(|r| r["state"] != "failed"),
        "no run failed: {runs:?}"
    );

    // Versions and the runs that made them are one to one.
    let mut of_runs: Vec<u64> = runs.iter().filter_map(|r| r["model_version"].as_u64()).collect();
    of_runs.sort_unstable();
    let mut numbers: Vec<u64> = versions.iter().map(|v| v["version"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(of_runs, numbers, "runs: {runs:?}");
    let makers: HashSet<&str> = versions.iter().map(|v| v["run"].as_str().unwrap()).collect();
    assert_eq!(makers.len(), versions.len());

    // An alert starts one run at most, and each run has one gate decision.
    let triggers: Vec<&str> = runs.iter().filter_map(|r| r["trigger_ref"].as_str()).collect();
    let alerts: HashSet<&&str> = triggers.iter().collect();
    assert_eq!(alerts.len(), triggers.len(), "{runs:?}");
    assert_eq!(
        runs.iter().filter(|r| r["trigger_kind"] == "first").count(),
        1,
        "{runs:?}"
    );
    let gates = list("/api/v1/decisions?kind=gate&limit=1000");
    let subjects: HashSet<&str> = gates.iter().map(|d| d["subject"].as_str().unwrap()).collect();
    assert_eq!(
        (subjects.len(), gates.len()),
        (versions.len(), versions.len()),
        "{gates:?}"
    );

    // Each window was closed once.
    let windows = list("/api/v1/windows?limit=10000");
    let keys: HashSet<(&str, &str)> = windows
        .iter()
        .map(|w| (w["monitor"].as_str().unwrap(), w["until"].as_str().unwrap()))
        .collect();
    assert_eq!(keys.len(), windows.len());
    let events = server.events();
    let count = |kind: &str| events.iter().filter(|e| e["kind"] == kind).count();
    assert_eq!(count("version.registered"), versions.len());
    let rollouts = list("/api/v1/rollouts?limit=1000");
    assert_eq!(count("rollout.started"), rollouts.len(), "{rollouts:?}");
    let days = windows.iter().filter(|w| w["monitor"] == "quality").count();
    assert_eq!(count("window.closed"), days, "an event a window, no more");
}
