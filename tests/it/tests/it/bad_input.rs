//! Bad input: every message names the file, the line or field, the value, and nothing is lost.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::util::{Project, Server};

/// Wrong input, in the exit codes' words.
const WRONG_INPUT: i32 = 3;
/// A training run that failed: the spec was read, and the run's record says what was wrong with the data.
const RUN_FAILED: i32 = 1;
/// No server, or the data folder is in use.
const UNAVAILABLE: i32 = 5;

#[test]
fn a_spec_with_an_unknown_key_names_its_place_and_the_nearest_key() {
    let project = Project::small();
    project.change("training:", "trainign:");
    let spec = std::fs::read_to_string(project.spec()).unwrap();
    let line = spec.lines().position(|l| l == "trainign:").unwrap() + 1;
    for command in [&["validate"][..], &["train"], &["status"]] {
        project.run(command).code(WRONG_INPUT).names(&[
            &format!("tidemill.yaml:{line}:1"),
            "unknown key `trainign`",
            "did you mean `training`?",
        ]);
    }
    let refused = Server::try_start(project.path(), &[]).err().unwrap();
    assert!(
        refused.contains("exit status: 3") && refused.contains("`trainign`"),
        "{refused}"
    );
}

#[test]
fn a_missing_column_is_named_with_the_nearest_one() {
    let project = Project::small();
    project.change("  colour: categorical", "  color: categorical");
    project
        .run(&["validate"])
        .code(WRONG_INPUT)
        .names(&["`color`", "rows.csv", "`colour`"]);
    project
        .run(&["train"])
        .code(RUN_FAILED)
        .names(&["`color`", "`colour`"]);
}

#[test]
fn a_label_among_the_features_is_refused() {
    let project = Project::small();
    project.change("  x: numeric", "  x: numeric\n  y: categorical");
    project
        .run(&["validate"])
        .code(WRONG_INPUT)
        .names(&["tidemill.yaml:", "`features`", "the label `y`"]);

    // So is a column that the label is computed from.
    let project = Project::small();
    project.change("  name: y\n", "  name: late\n  expression: x > 5\n");
    project
        .run(&["validate"])
        .code(WRONG_INPUT)
        .names(&["`x` is used by the label"]);
}

#[test]
fn a_corrupt_parquet_file_is_named_and_nothing_is_trained() {
    let project = Project::flights(&["2013-01", "2013-02"], &[]);
    let path = project.path().join("data/2013-02.parquet");
    let whole = std::fs::read(&path).unwrap();

    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    project
        .run(&["validate"])
        .code(WRONG_INPUT)
        .names(&["2013-02.parquet", "cannot be read as Parquet"]);

    // A page in the middle overwritten: the footer is sound, the data are not.
    let mut broken = whole.clone();
    let middle = broken.len() / 2;
    broken[middle..middle + 4_096].fill(0xa5);
    std::fs::write(&path, &broken).unwrap();
    project
        .run(&["validate"])
        .code(WRONG_INPUT)
        .names(&["2013-02.parquet"]);
    project
        .run(&["train"])
        .code(RUN_FAILED)
        .names(&["2013-02.parquet"]);

    std::fs::write(&path, "not Parquet at all").unwrap();
    project
        .run(&["validate"])
        .code(WRONG_INPUT)
        .names(&["2013-02.parquet"]);
}

#[test]
fn an_empty_csv_is_named_whether_it_has_a_header_or_not() {
    let project = Project::small();
    for text in ["", "id,at,x,colour,y\n"] {
        project.write("rows.csv", text);
        project
            .run(&["validate"])
            .code(WRONG_INPUT)
            .names(&["rows.csv", "is empty"]);
        project.run(&["train"]).code(RUN_FAILED).names(&["rows.csv"]);
        project
            .run(&["init", "rows.csv", "--output", "other.yaml"])
            .code(WRONG_INPUT)
            .names(&["rows.csv"]);
        assert!(!project.path().join("other.yaml").exists());
    }
}

/// The small project's CSV with one row's `x` replaced; gives the line number.
fn with_x(project: &Project, row: usize, x: &str) -> usize {
    let text = std::fs::read_to_string(project.path().join("rows.csv")).unwrap();
    let mut changed = String::new();
    for (i, line) in text.lines().enumerate() {
        let mut cells: Vec<&str> = line.split(',').collect();
        if i == row {
            cells[2] = x;
        }
        writeln!(changed, "{}", cells.join(",")).unwrap();
    }
    project.write("rows.csv", &changed);
    row + 1
}

#[test]
fn nan_in_a_csv_is_a_missing_value_and_infinity_is_refused_with_its_line() {
    let project = Project::small();
    with_x(&project, 7, "NaN");
    let validated = project.run(&["validate", "--json"]).code(0).json();
    assert_eq!(
        validated["rows"], 240,
        "a row with a missing value is a row: {validated}"
    );

    for infinite in ["inf", "-Infinity", "1e999"] {
        let project = Project::small();
        let line = with_x(&project, 100, infinite);
        project
            .run(&["validate"])
            .code(WRONG_INPUT)
            .names(&["rows.csv", &line.to_string(), "x"]);
        project.run(&["train"]).code(RUN_FAILED).names(&["rows.csv"]);
    }
}

#[test]
fn a_word_where_a_number_should_be_in_a_csv_is_named_with_its_line() {
    let project = Project::small();
    let line = with_x(&project, 200, "seven");
    project
        .run(&["validate"])
        .code(WRONG_INPUT)
        .names(&["rows.csv", &line.to_string(), "seven", "x"]);
}

fn oip(x: &str, colour: &str) -> String {
    format!(
        r#"{{"inputs": [{{"name": "x", "shape": [2], "datatype": "FP64", "data": [1.5, {x}]}},
 {{"name": "colour", "shape": [2], "datatype": "BYTES", "data": ["red", {colour}]}}]}}"#
    )
}

fn split(x: &str, colour: &str) -> String {
    format!(
        r#"{{"dataframe_split": {{"columns": ["x", "colour"], "data": [[1.5, "red"], [{x}, {colour}]]}}}}"#
    )
}

/// Sends a row both ways; gives status and message of each.
fn both(server: &Server, x: &str, colour: &str) -> [(u16, String); 2] {
    let (status, body) = server.tell_text("/v2/models/small/infer", "application/json", oip(x, colour));
    let (other, answer) = server.tell_text("/invocations/small", "application/json", split(x, colour));
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    [(status, text(&body["error"])), (other, text(&answer["message"]))]
}

#[test]
fn a_value_of_the_wrong_type_in_a_request_is_a_400_that_names_field_row_and_value() {
    let project = Project::small();
    let server = project.up(&[]);
    for (status, message) in both(&server, "\"seven\"", "\"blue\"") {
        assert_eq!(status, 400, "{message}");
        for part in ["`x`", "row 1", "`seven`"] {
            assert!(message.contains(part), "`{part}` in: {message}");
        }
    }
    for (status, message) in both(&server, "2", "[1]") {
        assert_eq!(status, 400, "{message}");
        assert!(
            message.contains("colour") && message.contains("row 1"),
            "{message}"
        );
    }
    // Nothing of it was recorded, and the server goes on.
    assert_eq!(server.get("/api/v1/status")["predictions"], 0);
    assert!(
        both(&server, "2", "\"blue\"")
            .iter()
            .all(|(status, _)| *status == 200)
    );
    assert!(
        both(&server, "null", "null")
            .iter()
            .all(|(status, _)| *status == 200),
        "null is missing"
    );
    assert_eq!(server.get("/api/v1/status")["predictions"], 8);
}

#[test]
fn nan_and_infinite_values_in_a_request_are_a_400_that_names_the_place() {
    let project = Project::small();
    let server = project.up(&[]);
    for x in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"] {
        for (status, message) in both(&server, x, "\"blue\"") {
            assert_eq!(status, 400, "{x}: {message}");
            assert!(message.contains("line 1, column"), "{x}: {message}");
        }
    }
    for x in ["\"NaN\"", "\"inf\""] {
        for (status, message) in both(&server, x, "\"blue\"") {
            assert_eq!(status, 400, "{x}: {message}");
            assert!(
                message.contains("`x`") && message.contains("row 1"),
                "{x}: {message}"
            );
        }
    }
    assert_eq!(server.get("/api/v1/status")["predictions"], 0);
}

#[test]
fn an_unknown_field_model_or_body_is_refused_in_each_protocols_own_shape() {
    let project = Project::small();
    let server = project.up(&[]);
    let (status, body) = server.tell("/v2/models/other/infer", &json!({ "inputs": [] }));
    assert_eq!((status, body["error"].is_string()), (404, true), "{body}");
    let (status, body) = server.tell("/invocations/other", &json!({ "inputs": [] }));
    assert_eq!(
        (status, &body["error_code"]),
        (404, &json!("RESOURCE_DOES_NOT_EXIST")),
        "{body}"
    );
    let (status, body) = server.tell("/invocations/small", &json!({ "inputs": { "x": [1] } }));
    assert_eq!(status, 400);
    assert!(
        body["message"].as_str().unwrap().contains("`colour` is missing"),
        "{body}"
    );
    let (status, body) = server.tell_text("/invocations/small", "application/json", "{".into());
    assert_eq!(
        (status, &body["error_code"]),
        (400, &json!("BAD_REQUEST")),
        "{body}"
    );
    let (status, body) = server.ask("/api/v1/runs/nothing");
    assert_eq!(status, 404, "{body}");
    let docs = body["error"]["docs"].as_str().unwrap();
    assert_eq!(server.ask(docs).0, 200, "{docs} explains the error");
}

#[test]
fn feedback_for_an_unknown_prediction_waits_for_it_and_a_malformed_id_is_a_400() {
    let project = Project::small();
    let server = project.up(&[]);
    let unknown = "0123456789abcdef0123456789abcdef";
    let told = server.post(
        "/api/v1/feedback",
        &json!({ "prediction_id": unknown, "value": true }),
    );
    assert_eq!(told["outcomes"][0]["joined"], false, "{told}");
    assert_eq!(told["outcomes"][0]["outcome"], "created");
    assert_eq!(server.get("/api/v1/status")["labels"], 1);
    assert_eq!(
        server.ask(&format!("/api/v1/lineage/predictions/{unknown}")).0,
        404
    );

    for (bad, part) in [
        (
            json!({ "prediction_id": "nonsense", "value": true }),
            "`nonsense`",
        ),
        (
            json!({ "prediction_id": unknown, "value": "perhaps" }),
            "`perhaps`",
        ),
        (json!({ "prediction_id": unknown }), "value"),
        (
            json!({ "prediction_id": unknown, "value": true, "colour": "red" }),
            "`colour`",
        ),
        (
            json!({ "prediction_id": unknown, "value": true, "kind": "rumour" }),
            "`rumour`",
        ),
    ] {
        // A good item beside a bad one is not stored: all of a request or nothing.
        let good = json!({ "prediction_id": "fedcba9876543210fedcba9876543210", "value": false });
        let (status, body) = server.tell("/api/v1/feedback", &json!({ "feedback": [good, bad] }));
        assert_eq!(status, 400, "{body}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(
            message.contains(part) && message.contains("feedback[1]"),
            "{part} in: {message}"
        );
    }
    assert_eq!(
        server.get("/api/v1/status")["labels"],
        1,
        "nothing of a bad request is stored"
    );
}

#[test]
fn a_data_folder_in_use_is_refused_with_the_other_servers_process_and_path() {
    let project = Project::small();
    let data = project.path().join("somewhere");
    let folder = data.to_str().unwrap();
    let mut server = project.up(&["--data", folder]);
    let refused = project.run(&["up", "--port", "0", "--data", folder]);
    refused
        .code(UNAVAILABLE)
        .names(&[folder, &server.pid().to_string()]);
    assert_eq!(server.ask("/v2/health/ready").0, 200, "the first server goes on");

    // A command finds the running server by itself instead.
    let status = project
        .run(&["status", "--json", "--data", folder])
        .code(0)
        .json();
    assert_eq!(status["project"], "small");

    // The lock dies with its holder.
    server.kill();
    let again = project.up(&["--data", folder]);
    assert_eq!(again.ask("/v2/health/ready").0, 200);
}

#[test]
fn no_server_at_a_url_is_exit_code_5_and_a_server_that_says_no_is_3() {
    let project = Project::small();
    let port = crate::util::free_port();
    let nobody = format!("http://127.0.0.1:{port}");
    project
        .run(&["status", "--url", &nobody])
        .code(UNAVAILABLE)
        .names(&[&nobody]);
    let server = project.up(&[]);
    project
        .run(&["lineage", "nothing", "--url", server.url()])
        .code(WRONG_INPUT)
        .names(&["`nothing`"]);
    project
        .run(&["promote", "7", "--why", "test", "--url", server.url()])
        .code(WRONG_INPUT)
        .names(&["small/7"]);
    project
        .run(&["rollback", "--why", "test", "--url", server.url()])
        .code(WRONG_INPUT);
}
