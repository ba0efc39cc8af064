//! The command line: JSON for programs, exit codes that mean something, completions and the schema.

use std::process::Command;

use serde_json::{Value, json};

use crate::util::{Project, repository, tidemill};

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}")))
        .collect()
}

#[test]
fn every_command_prints_json_that_a_program_can_read_without_a_server() {
    let project = Project::small();
    let written = project
        .run(&["init", "rows.csv", "--output", "first.yaml", "--json"])
        .code(0)
        .json();
    assert_eq!(
        (&written["task"], &written["label"]),
        (&json!("binary"), &json!("y")),
        "{written}"
    );

    assert_eq!(project.run(&["validate", "--json"]).code(0).json()["rows"], 240);
    let doctor = project.run(&["doctor", "--json"]).code(0).json();
    assert!(
        doctor.as_array().unwrap().iter().all(|f| f["ok"] == true),
        "{doctor}"
    );

    let trained = project
        .run(&["train", "--reason", "for a test", "--json"])
        .code(0)
        .json();
    assert_eq!(trained["run"]["trigger_reason"], "for a test", "{trained}");
    let again = project.run(&["train", "--json"]).code(0).json();
    assert_eq!(
        (&again["run"]["state"], &again["run"]["model_version"]),
        (&json!("reused"), &json!(2)),
        "{again}"
    );
    assert_eq!(
        again["run"]["bundle"], trained["run"]["bundle"],
        "the same key reuses the result"
    );

    let evaluated = project.run(&["evaluate", "1", "--json"]).code(0).json();
    assert_eq!(
        evaluated["metrics"]["auc"]["value"], trained["run"]["metrics"]["auc"],
        "{evaluated}"
    );

    project.write(
        "more.jsonl",
        "{\"x\": 1.5, \"colour\": \"red\"}\n{\"x\": null, \"colour\": \"blue\"}\n",
    );
    let answers = lines(
        &project
            .run(&["predict", "--input", "more.jsonl", "--json"])
            .code(0)
            .stdout,
    );
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(
        answers
            .iter()
            .all(|a| a["prediction"].is_f64() && a["model_version"] == 1),
        "{answers:?}"
    );
    let id = answers[0]["prediction_id"].as_str().unwrap();

    let told = project.run(&["feedback", id, "true", "--json"]).code(0).json();
    assert_eq!(
        (&told["outcomes"][0]["outcome"], &told["outcomes"][0]["joined"]),
        (&json!("created"), &json!(true))
    );
    let file = format!(
        "{{\"prediction_id\": {}, \"value\": false}}\n",
        answers[1]["prediction_id"]
    );
    project.write("truth.jsonl", &file);
    project
        .run(&["feedback", "--input", "truth.jsonl", "--json"])
        .code(0)
        .json();

    let status = project.run(&["status", "--json"]).code(0).json();
    assert_eq!(
        (&status["predictions"], &status["labels"]),
        (&json!(2), &json!(2)),
        "{status}"
    );
    let lineage = project.run(&["lineage", id, "--json"]).code(0).json();
    assert_eq!(lineage["labels"][0]["value"], true, "{lineage}");

    let promoted = project
        .run(&["promote", "2", "--why", "newer", "--json"])
        .code(0)
        .json();
    assert_eq!(promoted["champion"], 2, "{promoted}");
    let back = project
        .run(&["rollback", "--why", "older", "--json"])
        .code(0)
        .json();
    assert_eq!(back["champion"], 1, "{back}");
    assert_eq!(
        project.run(&["reproduce", "small/1", "--json"]).code(0).json()["identical"],
        true
    );
    assert!(project.run(&["schema", "--json"]).code(0).json()["properties"]["features"].is_object());
}

#[test]
fn every_command_says_something_to_people_too() {
    let project = Project::small();
    for args in [
        &["validate"][..],
        &["train"],
        &["evaluate"],
        &["status"],
        &["doctor"],
        &["promote", "1", "--why", "test"],
        &["reproduce", "small/1"],
    ] {
        let said = project.run(args).code(0);
        assert!(!said.stdout.trim().is_empty(), "{args:?}");
        assert!(
            serde_json::from_str::<Value>(&said.stdout).is_err(),
            "{args:?}: {}",
            said.stdout
        );
    }
}

#[test]
fn a_replay_without_a_server_runs_one_for_its_time() {
    let project = Project::small();
    let played = project
        .run(&["replay", "--to", "2024-01-04", "--json"])
        .code(0)
        .json();
    assert_eq!(
        (&played["predictions"], &played["labels"]),
        (&json!(72), &json!(72)),
        "{played}"
    );
    let rest = project
        .run(&["replay", "--from", "2024-01-08", "--json"])
        .code(0)
        .json();
    assert_eq!(rest["predictions"], 72, "{rest}");
    let status = project.run(&["status", "--json"]).code(0).json();
    assert_eq!(
        (&status["predictions"], &status["virtual_clock"]),
        (&json!(144), &json!(true)),
        "{status}"
    );
    let wall = Project::small();
    let server = wall.up(&[]);
    let refused = wall.run(&["replay", "--url", server.url()]);
    assert_ne!(refused.code, 0);
    refused.names(&["--virtual-clock"]);
}

#[test]
fn a_demo_prints_last_one_object_on_one_line() {
    let project = Project::small();
    project.change("training:", "training:\n  first_after: 2d");
    let path = project.path().to_str().unwrap();
    let said = tidemill(
        project.path(),
        &["demo", "--project", path, "--port", "0", "--exit", "--json"],
    )
    .code(0);
    let summary = lines(said.stdout.lines().last().unwrap()).remove(0);
    for key in [
        "predictions",
        "labels",
        "wall_s",
        "peak_rss_mb",
        "months",
        "champion_version",
    ] {
        assert!(!summary[key].is_null(), "{key}: {summary}");
    }
    assert_eq!(
        (&summary["predictions"], &summary["champion_version"]),
        (&json!(240), &json!(1)),
        "{summary}"
    );
    let month = &summary["months"][0];
    for key in [
        "month",
        "auc_frozen",
        "auc_champion",
        "retrainings",
        "refused",
        "promoted",
        "rolled_back",
    ] {
        assert!(month.get(key).is_some(), "{key}: {month}");
    }
}

#[test]
fn a_backtest_compares_policies_on_the_same_data() {
    let project = Project::small();
    project.change("training:", "training:\n  first_after: 3d");
    let rows = project
        .run(&["backtest", "--policies", "never,drift,spec", "--json"])
        .code(0)
        .json();
    let rows = rows.as_array().unwrap();
    assert_eq!(
        rows.iter()
            .map(|r| r["policy"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["never", "drift", "spec"]
    );
    assert!(
        rows.iter().all(|r| r["trainings"].as_u64().unwrap() >= 1),
        "{rows:?}"
    );
    assert!(
        !project.path().join("tidemill-data").exists(),
        "a backtest leaves the project's data alone"
    );
    project
        .run(&["backtest", "--policies", "sometimes"])
        .names(&["`sometimes`", "monthly"]);
}

#[test]
fn exit_codes_mean_what_the_help_says() {
    let project = Project::small();
    assert_eq!(project.run(&["nonsense"]).code, 2, "an unreadable command line");
    assert_eq!(project.run(&["train", "--nonsense"]).code, 2);
    assert_eq!(project.run(&["reproduce", "small"]).code, 3, "not MODEL/VERSION");
    assert_eq!(project.run(&["backtest", "--policies", "sometimes"]).code, 3);
    assert_eq!(project.run(&["init", "rows.csv"]).code, 3, "the spec exists");
    assert_eq!(project.run(&["init", "no.csv", "--output", "a.yaml"]).code, 3);
    assert_eq!(project.run(&["feedback"]).code, 3, "neither an id nor a file");
    assert_eq!(
        tidemill(&project.path().join(".."), &["validate", "--project", "nowhere"]).code,
        3
    );

    // 4, the answer is no: data that break a critical expectation are quarantined, with the rows named.
    project.change(
        "training:",
        "expectations:\n  list:\n  - type: expect_column_values_to_be_between\n    kwargs: {column: x, min_value: 0, max_value: 9.85}\ntraining:",
    );
    let said = project.run(&["validate"]).code(4);
    for part in [
        "FAIL expect_column_values_to_be_between",
        "`x`",
        "unexpected",
        "quarantined",
    ] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    let trained = project.run(&["train", "--json"]);
    assert_eq!(trained.code, 1, "a run that failed: {}", trained.stdout);
    assert!(
        trained.json()["run"]["error"]
            .as_str()
            .unwrap()
            .contains("quarantined"),
        "{}",
        trained.stdout
    );

    // 4 too: a gate that refuses.
    let project = Project::small();
    project.change("endpoint:", "gates:\n- metric: auc\n  min: 0.9999\nendpoint:");
    let refused = project.run(&["train", "--json"]).code(4).json();
    assert_eq!(refused["decision"]["verdict"], "fail", "{refused}");
    assert!(project.run(&["status", "--json"]).code(0).json()["endpoints"][0]["champion"].is_null());
}

#[test]
fn doctor_says_what_is_wrong_and_exits_with_4() {
    let project = Project::small();
    project.change("  colour: categorical", "  color: categorical");
    let findings = project.run(&["doctor", "--json"]).code(4).json();
    let data = findings
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["check"] == "data")
        .unwrap()
        .clone();
    assert_eq!(data["ok"], false);
    assert!(data["detail"].as_str().unwrap().contains("`color`"), "{data}");
    let empty = Project::empty();
    assert_eq!(empty.run(&["doctor"]).code, 4, "no spec");
}

#[test]
fn completions_are_a_script_that_bash_reads() {
    let said = tidemill(&repository(), &["completions", "bash"]).code(0);
    assert!(said.stdout.contains("_tidemill"));
    let checked = Command::new("bash")
        .args(["-n", "-c", &said.stdout])
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    for shell in ["zsh", "fish"] {
        assert!(
            !tidemill(&repository(), &["completions", shell])
                .code(0)
                .stdout
                .is_empty()
        );
    }
}

#[test]
fn the_schema_in_docs_is_the_binarys_own() {
    let printed = tidemill(&repository(), &["schema"]).code(0).stdout;
    let path = repository().join("docs/tidemill.schema.json");
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == printed,
        "{} is not what `tidemill schema` prints; make it again: cargo run -p tidemill -- schema > docs/tidemill.schema.json",
        path.display()
    );
}

#[test]
fn help_lists_every_command_of_the_manual() {
    let help = tidemill(&repository(), &["--help"]).code(0).stdout;
    for command in [
        "init",
        "up",
        "demo",
        "validate",
        "train",
        "evaluate",
        "promote",
        "rollback",
        "predict",
        "feedback",
        "replay",
        "backtest",
        "reproduce",
        "lineage",
        "status",
        "doctor",
        "schema",
        "completions",
    ] {
        assert!(
            help.lines()
                .any(|line| line.trim_start().starts_with(&format!("{command} "))),
            "{command}: {help}"
        );
        assert!(
            tidemill(&repository(), &[command, "--help"])
                .code(0)
                .stdout
                .contains("--json"),
            "{command}"
        );
    }
}
