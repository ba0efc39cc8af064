//! A sweep before a training: trials on older rows, the winner judged on rows that had no say.

use serde_json::{Value, json};

use crate::util::Project;

const SWEEP: &str = "  sweep:\n    trials: 9\n    parameters:\n      iterations: {min: 1, max: 40}\n      budget: {values: [0.1, 0.4]}\n";

fn swept(sweep: &str) -> Project {
    let project = Project::small();
    project.change("  iterations: 10\n", &format!("  iterations: 10\n{sweep}"));
    project
}

fn objective(trial: &Value) -> f64 {
    trial["value"].as_f64().unwrap_or(f64::NEG_INFINITY)
}

#[test]
fn a_training_takes_the_best_of_its_trials_and_each_trial_is_a_run_below_it() {
    let project = swept(SWEEP);
    let trained = project.run(&["train", "--json"]).code(0).json();
    assert_eq!(trained["run"]["state"], "succeeded", "{trained}");
    let run = trained["run"]["id"].as_str().unwrap().to_owned();

    let server = project.up(&[]);
    let sweeps = server.get("/api/v1/sweeps");
    let sweeps = sweeps["items"].as_array().unwrap();
    assert_eq!(sweeps.len(), 1, "{sweeps:?}");
    assert_eq!(sweeps[0]["state"], "FINISHED");
    let id = sweeps[0]["sweep_id"].as_str().unwrap();
    let sweep = server.get(&format!("/api/v1/sweeps/{id}"));
    let trials = sweep["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 9, "{sweep}");
    assert!(trials.iter().all(|trial| trial["state"] == "finished"), "{sweep}");
    let best = trials.iter().fold(&trials[0], |best, trial| {
        if objective(trial) > objective(best) {
            trial
        } else {
            best
        }
    });
    let params = &trained["run"]["params"];
    assert_eq!(
        params["iterations"], best["params"]["iterations"],
        "{trained}\n{sweep}"
    );
    assert_eq!(params["budget"], best["params"]["budget"]);

    let found = server.post(
        "/api/2.0/mlflow/runs/search",
        &json!({
            "experiment_ids": ["1", "0"], "order_by": ["metrics.auc DESC", "attributes.start_time ASC"],
            "filter": format!("tags.`mlflow.parentRunId` = '{run}'"),
        }),
    );
    let below = found["runs"].as_array().unwrap();
    assert_eq!(below.len(), 9, "{found}");
    assert!(below.iter().all(|trial| trial["info"]["status"] == "FINISHED"));
    let top = below[0]["data"]["metrics"][0]["value"].as_f64().unwrap();
    assert!((top - objective(best)).abs() < 1e-12, "{found}");
    assert!(server.stop().success());

    // What a sweep found is found again, and not searched twice for the same rows.
    let again = project.run(&["reproduce", "small/1", "--json"]).code(0).json();
    assert_eq!(again["identical"], true, "{again}");
    let reused = project.run(&["train", "--json"]).code(0).json();
    assert_eq!(reused["run"]["state"], "reused", "{reused}");
    assert_eq!(reused["run"]["params"], *params);
}

#[test]
fn a_sweep_of_which_no_trial_can_be_trained_says_why_and_one_that_cannot_be_read_starts_nothing() {
    let project = swept(
        "  run: echo no room; exit 3\n  sweep:\n    trials: 2\n    parameters:\n      depth: {values: [1, 2]}\n",
    );
    let failed = project.run(&["train"]);
    assert_ne!(failed.code, 0);
    failed.names(&["none of the 2 trials", "exit 3", "no room"]);

    let project = swept("  sweep:\n    parameters:\n      iterations: {min: 50, max: 5}\n");
    let refused = project.run(&["train"]);
    assert_ne!(refused.code, 0);
    refused.names(&["training.sweep", "parameters.iterations", "min"]);

    let project = swept("  sweep:\n    parameters:\n      depth: {min: 1, max: 5}\n");
    let refused = project.run(&["train"]);
    assert_ne!(refused.code, 0);
    refused.names(&[
        "tidemill.yaml",
        "no parameter `depth`",
        "`budget` or `iterations`",
    ]);
}
