//! The loop on six weeks of flights: a first model from served traffic, alerts, retrainings, gates, rollouts, and their records.

use std::path::Path;

use serde_json::{Value, json};
use tidemill_control::delivery::rollouts::{Action, Evidence, Progress, Stage, decide};
use tidemill_core::clock::Timestamp;
use tidemill_core::spec::{self, RolloutSpec};

use crate::util::{Project, Server, texts};

const UNTIL: &str = "2013-02-12";

fn project() -> Project {
    Project::flights(
        &["2013-01", "2013-02"],
        &[
            ("first_after: 59d", "first_after: 8d"),
            ("window: 120d", "window: 14d\n  min_rows: 1000"),
            ("budget: 1.5", "budget: 0.2"),
            ("iterations: 40 ", "iterations: 15 "),
            ("holdout: 14d", "holdout: 3d"),
            ("margin: 0\n", "margin: 0.05\n"),
            ("horizon: 2d", "horizon: 1d"),
            ("cooldown: 30d", "cooldown: 6d"),
            (
                "shadow: {duration: 3d, min_labels: 500}",
                "shadow: {duration: 1d, min_labels: 300}",
            ),
            (
                "dwell: 2d, min_predictions: 100",
                "dwell: 1d, min_predictions: 50",
            ),
            ("loss_margin: 0.01", "loss_margin: 0.05"),
            ("max_duration: 21d", "max_duration: 6d"),
            ("window: 14d, min_rows: 2000", "window: 4d, min_rows: 1000"),
            (
                "window: 14d, max_drop: 0.05, min_labels: 2000",
                "window: 4d, max_drop: 0.05, min_labels: 1000",
            ),
        ],
    )
}

fn list(server: &Server, path: &str) -> Vec<Value> {
    server.get(path).as_array().unwrap().clone()
}

fn time(value: &Value) -> Timestamp {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn six_weeks_of_flights_drive_the_loop_and_every_decision_replays() {
    let project = project();
    let server = project.up(&["--virtual-clock", "2013-01-01"]);
    let played = project
        .run(&["replay", "--to", UNTIL, "--json", "--url", server.url()])
        .code(0)
        .json();
    println!(
        "played {} predictions in {} s",
        played["predictions"], played["wall_s"]
    );
    let ids = texts(&played["ids"]);

    the_first_model_is_trained_from_served_traffic(&server);
    alerts_start_one_retraining_each_and_keep_the_cool_down(&server, project.path());
    every_run_has_a_gate_decision_that_replays(&server);
    rollouts_go_from_shadow_to_canary_to_champion_or_back(&server);
    every_rollout_decision_replays(&server);
    a_prediction_leads_to_everything(&server, &ids);
    promotions_by_hand_stand_in_the_history(&project, &server);

    let version = server.get("/api/v1/status")["endpoints"][0]["champion"].clone();
    assert!(server.stop().success());
    let again = project
        .run(&["reproduce", &format!("flights/{version}"), "--json"])
        .code(0)
        .json();
    assert_eq!(
        again["identical"], true,
        "a version trained from served traffic is reproduced: {again}"
    );
}

fn the_first_model_is_trained_from_served_traffic(server: &Server) {
    let runs = list(server, "/api/v1/runs?limit=100");
    let first = runs
        .iter()
        .find(|r| r["trigger_kind"] == "first")
        .unwrap_or_else(|| panic!("no first run: {runs:?}"));
    assert_eq!(
        (&first["state"], &first["model_version"]),
        (&json!("succeeded"), &json!(1)),
        "{first}"
    );
    let snapshot = server.get(&format!(
        "/api/v1/snapshots/{}",
        first["snapshot"].as_str().unwrap()
    ));
    let manifest = if snapshot["manifest"].is_object() {
        &snapshot["manifest"]
    } else {
        &snapshot
    };
    let served = manifest["origin"]["served_rows"].as_u64().unwrap();
    assert!(
        served > 4_000 && served == snapshot["rows"],
        "all rows were served ones: {}",
        manifest["origin"]
    );
    assert_eq!(server.get("/api/v1/status")["endpoints"][0]["baseline"], 1);
}

fn alerts_start_one_retraining_each_and_keep_the_cool_down(server: &Server, folder: &Path) {
    let runs = list(server, "/api/v1/runs?limit=100");
    let alerts = list(server, "/api/v1/alerts?limit=1000");
    let by_alert: Vec<&Value> = runs.iter().filter(|r| r["trigger_ref"].is_string()).collect();
    assert!(
        !by_alert.is_empty(),
        "drift or a drop in performance starts a retraining: {alerts:?}"
    );
    for run in &by_alert {
        let alert = alerts.iter().find(|a| a["id"] == run["trigger_ref"]).unwrap();
        assert_eq!(
            (&alert["state"], &alert["run"]),
            (&json!("triggered"), &run["id"]),
            "{alert}"
        );
        assert_eq!(alert["monitor"], run["trigger_kind"], "{run}");
    }
    for alert in alerts.iter().filter(|a| a["state"] == "triggered") {
        let started = by_alert
            .iter()
            .filter(|r| r["trigger_ref"] == alert["id"])
            .count();
        assert_eq!(started, 1, "an alert starts exactly one run: {alert}");
    }
    let cooldown = spec::load(&folder.join("tidemill.yaml")).unwrap().cooldown;
    let mut times: Vec<Timestamp> = runs.iter().map(|r| time(&r["created_at"])).collect();
    times.sort();
    for pair in times.windows(2) {
        assert!(
            pair[1] - pair[0] >= cooldown,
            "two runs within the cool-down: {pair:?}"
        );
    }
}

fn every_run_has_a_gate_decision_that_replays(server: &Server) {
    let gates = list(server, "/api/v1/decisions?kind=gate&limit=1000");
    for run in list(server, "/api/v1/runs?limit=100")
        .iter()
        .filter(|r| r["model_version"].is_number())
    {
        let decision = gates
            .iter()
            .find(|d| d["id"] == run["decision"])
            .unwrap_or_else(|| panic!("no gate for {run}"));
        assert_eq!(decision["subject"], run["id"]);
        assert_eq!(decision["inputs"]["challenger"]["version"], run["model_version"]);
        assert_eq!(
            server.get(&format!("/api/v1/decisions/{}", decision["id"].as_str().unwrap())),
            *decision
        );
    }
    for gate in &gates {
        let checks = gate["result"]["checks"].as_array().unwrap();
        let again: Vec<&str> = checks.iter().map(verdict_of).collect();
        for (check, verdict) in checks.iter().zip(&again) {
            assert_eq!(check["verdict"], *verdict, "{check}");
        }
        let whole = ["fail", "inconclusive", "pass"]
            .into_iter()
            .find(|v| again.contains(v))
            .unwrap();
        assert_eq!(gate["verdict"], whole, "{gate}");
        assert!(
            gate["inputs"]["holdout"]["rows"].as_u64().unwrap() > 500,
            "{gate}"
        );
        assert!(
            gate["config_digest"].is_string() && gate["actor"] == "tidemill",
            "{gate}"
        );
    }
}

/// What a paired check's recorded bounds say.
fn verdict_of(check: &Value) -> &'static str {
    let number = |key: &str| check[key].as_f64();
    match (
        check["test"].as_str(),
        number("lower"),
        number("upper"),
        number("margin"),
    ) {
        (Some("none"), ..) => "pass",
        (_, Some(lower), _, Some(margin)) if lower > -margin => "pass",
        (_, _, Some(upper), _) if upper < 0.0 => "fail",
        _ => "inconclusive",
    }
}

fn rollouts_go_from_shadow_to_canary_to_champion_or_back(server: &Server) {
    let rollouts = list(server, "/api/v1/rollouts?limit=100");
    assert!(
        !rollouts.is_empty(),
        "a challenger that passed its gate is rolled out"
    );
    let passed = list(server, "/api/v1/decisions?kind=gate&limit=1000")
        .iter()
        .filter(|d| d["verdict"] == "pass")
        .count();
    assert_eq!(
        rollouts.len(),
        passed - 1,
        "each pass but the first model's starts one rollout"
    );
    let events = server.events();
    for rollout in &rollouts {
        let kinds: Vec<&str> = events
            .iter()
            .filter(|e| e["subject"] == json!(["rollout", rollout["id"]]))
            .map(|e| e["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds[0], "rollout.started", "{kinds:?}");
        match rollout["state"].as_str().unwrap() {
            "promoted" => {
                let whole = [
                    "rollout.started",
                    "rollout.canary",
                    "rollout.canary",
                    "rollout.promoted",
                ];
                assert_eq!(kinds, whole, "shadow, both canary steps, champion");
            }
            "rolled_back" => assert_eq!(*kinds.last().unwrap(), "rollout.rolled_back", "{kinds:?}"),
            "superseded" => assert_eq!(*kinds.last().unwrap(), "rollout.superseded", "{kinds:?}"),
            "shadow" | "canary" => assert!(rollout["ended_at"].is_null(), "{rollout}"),
            other => panic!("{other}: {rollout}"),
        }
    }
    let ended = rollouts.iter().filter(|r| !r["ended_at"].is_null()).count();
    assert!(ended > 0, "a rollout came to its end: {rollouts:?}");
}

fn every_rollout_decision_replays(server: &Server) {
    let decisions = list(server, "/api/v1/decisions?kind=rollout&limit=1000");
    assert!(!decisions.is_empty());
    for decision in &decisions {
        let inputs = &decision["inputs"];
        let plan: RolloutSpec = serde_json::from_value(inputs["plan"].clone()).unwrap();
        let evidence: Evidence = serde_json::from_value(inputs["evidence"].clone()).unwrap();
        let stage = match inputs["stage"].as_str().unwrap().strip_prefix("canary ") {
            Some(step) => Stage::Canary {
                step: step.parse().unwrap(),
            },
            None => Stage::Shadow,
        };
        let progress = Progress {
            stage,
            started_at: time(&inputs["started_at"]),
            entered_at: time(&inputs["entered_at"]),
        };
        let again = decide(&plan, progress, &evidence, time(&decision["at"]));
        let recorded: Action = serde_json::from_value(decision["result"].clone()).unwrap();
        assert_eq!(
            again, recorded,
            "the record of {} replays to the same verdict",
            decision["id"]
        );
        let word = match again {
            Action::Hold { .. } => "hold",
            Action::Advance { .. } => "advance",
            Action::Promote { .. } => "promote",
            Action::Rollback { .. } => "rollback",
        };
        assert_eq!(decision["verdict"], word);
    }
}

fn a_prediction_leads_to_everything(server: &Server, ids: &[String]) {
    let early = server.get(&format!("/api/v1/lineage/predictions/{}", ids[10]));
    assert_eq!(
        (&early["version"], &early["prediction"]["role"]),
        (&Value::Null, &json!("default")),
        "{early}"
    );
    assert!(
        !early["used_by"].as_array().unwrap().is_empty(),
        "the first model learnt from it: {early}"
    );

    let late = server.get(&format!("/api/v1/lineage/predictions/{}", ids[ids.len() - 10]));
    let run = late["run"]["id"].as_str().unwrap();
    assert_eq!(late["version"]["run"], run, "{late}");
    assert_eq!(late["version"]["snapshot"], late["snapshot"]["digest"]);
    assert_eq!(late["validation"]["success"], true);
    assert!(late["code"].is_object(), "{late}");
    let steps: Vec<&str> = late["run"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["snapshot", "train", "evaluate"], "{late}");
    let decisions = late["decisions"].as_array().unwrap();
    assert!(
        decisions
            .iter()
            .any(|d| d["kind"] == "gate" && d["subject"] == run),
        "{late}"
    );
    // Whatever brought a later version to the champion's place is named too.
    if late["version"]["version"] != 1 {
        assert!(decisions.iter().any(|d| d["kind"] == "rollout"), "{late}");
    }
    assert_eq!(late["prediction"]["features"].as_object().unwrap().len(), 17);
}

fn promotions_by_hand_stand_in_the_history(project: &Project, server: &Server) {
    let champion = |server: &Server| {
        server.get("/api/v1/status")["endpoints"][0]["champion"]
            .as_u64()
            .unwrap()
    };
    let versions = list(server, "/api/v1/models/flights/versions").len() as u64;
    assert!(versions >= 2, "{versions} versions");
    let other = if champion(server) == 1 { 2 } else { 1 };
    let before = champion(server);
    project
        .run(&[
            "promote",
            &other.to_string(),
            "--why",
            "tried by hand",
            "--url",
            server.url(),
            "--json",
        ])
        .code(0)
        .json();
    assert_eq!(champion(server), other);
    let rolled = project
        .run(&[
            "rollback",
            "--why",
            "it was a test",
            "--url",
            server.url(),
            "--json",
        ])
        .code(0)
        .json();
    assert_eq!(rolled["champion"], before, "{rolled}");
    assert_eq!(champion(server), before);

    let history = list(server, "/api/v1/models/flights/history");
    let of_champion: Vec<&Value> = history.iter().filter(|h| h["alias"] == "champion").collect();
    let last: Vec<(&Value, &Value)> = of_champion[of_champion.len() - 2..]
        .iter()
        .map(|h| (&h["version"], &h["why"]))
        .collect();
    let expected = [
        (&json!(other), &json!("tried by hand")),
        (&json!(before), &json!("it was a test")),
    ];
    assert_eq!(last, expected);
    let aliases = list(server, "/api/v1/models/flights/aliases");
    let alias = aliases.iter().find(|a| a["alias"] == "champion").unwrap();
    assert_eq!(alias["version"], before, "{aliases:?}");
    for change in &of_champion {
        let id = change["decision"]
            .as_str()
            .unwrap_or_else(|| panic!("no decision: {change}"));
        assert_eq!(server.get(&format!("/api/v1/decisions/{id}"))["id"], id);
    }
}
