//! `tidemill predict` into a folder, and batch jobs of the server: cut short at any time and begun again, every row stands in the output once.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::util::{Project, Server, binary, eventually};

const ROWS: usize = 6_000;

fn project() -> Project {
    let project = Project::small();
    let mut text = "id,x,colour,note\n".to_owned();
    for row in 0..ROWS {
        let x = if row % 11 == 0 {
            String::new()
        } else {
            format!("{}", row % 97)
        };
        writeln!(
            text,
            "row-{row},{x},{},note {row}",
            ["red", "green", "blue"][row % 3]
        )
        .unwrap();
    }
    project.write("more.csv", &text);
    project
}

fn lines(folder: &Path) -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "csv"))
        .collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    files.iter().flat_map(read).collect()
}

#[test]
fn a_job_killed_again_and_again_ends_with_every_row_once() {
    let project = project();
    let server = project.up(&[]);
    let out = project.path().join("out");
    let start = || {
        Command::new(binary())
            .args([
                "predict",
                "--url",
                server.url(),
                "--input",
                "more.csv",
                "--output",
                "out",
                "--part-rows",
                "500",
                "--json",
            ])
            .current_dir(project.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut killed = 0;
    for kill in 1..=3_usize {
        let mut child = start();
        let begin = Instant::now();
        // Once more files are there than before, in the middle of the next.
        while child.try_wait().unwrap().is_none() && begin.elapsed() < Duration::from_secs(30) {
            let there = if out.is_dir() { lines(&out).len() / 500 } else { 0 };
            if there >= 2 * kill {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            killed += 1;
        }
        child.wait().unwrap();
    }
    assert!(killed > 0, "it was never killed in time");
    assert!(!out.join("_SUCCESS").exists() || killed < 3);

    let mut child = start();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    let outcome: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (outcome["rows"].as_u64(), outcome["parts"].as_u64()),
        (Some(ROWS as u64), Some(12))
    );
    assert!(outcome["parts_found"].as_u64().unwrap() >= 2, "{outcome}");
    let lines = lines(&out);
    assert_eq!(lines.len(), ROWS);
    for (row, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("row-{row},")), "{line}");
        assert!(
            line.contains(&format!("note {row},0.5")),
            "the endpoint's default answer: {line}"
        );
    }
    assert!(out.join("_SUCCESS").exists());
    let left = std::fs::read_dir(&out).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".partial")
    });
    assert!(left.count() <= killed, "at most one for each kill");

    // The folder belongs to this job.
    let other = project.run(&[
        "predict",
        "--url",
        server.url(),
        "--input",
        "more.csv",
        "--output",
        "out",
        "--part-rows",
        "600",
    ]);
    other.code(3).names(&["holds the output of another job"]);
}

#[test]
fn a_bad_row_of_a_file_is_named_and_nothing_half_is_left() {
    let project = Project::small();
    let server = project.up(&[]);
    project.write(
        "bad.jsonl",
        "{\"x\": 1.0, \"colour\": \"red\"}\n{\"x\": \"much\", \"colour\": \"red\"}\n",
    );
    let said = project.run(&[
        "predict",
        "--url",
        server.url(),
        "--input",
        "bad.jsonl",
        "--output",
        "out",
    ]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains('x'), "{}", said.stderr);
    assert!(!project.path().join("out/_SUCCESS").exists());
}

/// A job as the server tells of it.
fn job(server: &Server, id: &str) -> Value {
    server.get(&format!("/api/v1/batch-jobs/{id}"))
}

fn ended(server: &Server, id: &str) -> Value {
    eventually("the job's end", Duration::from_mins(1), || {
        let job = job(server, id);
        matches!(job["state"].as_str(), Some("succeeded" | "failed" | "cancelled")).then_some(job)
    })
}

#[test]
fn a_job_of_the_server_that_is_killed_again_and_again_ends_with_every_row_once() {
    let project = project();
    std::fs::create_dir_all(project.path().join("tidemill-data/batches")).unwrap();
    std::fs::rename(
        project.path().join("more.csv"),
        project.path().join("tidemill-data/batches/more.csv"),
    )
    .unwrap();
    let mut server = project.up(&[]);
    let asked = json!({ "input": "more.csv", "output": "out", "part_rows": 250, "name": "nightly" });
    let created = server.post("/api/v1/batch-jobs", &asked);
    let id = created["id"].as_str().unwrap().to_owned();
    let out = project.path().join("tidemill-data/batches/out");
    let mut killed = 0;
    for kill in 1..=3_usize {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(30) {
            let there = if out.is_dir() { lines(&out).len() / 250 } else { 0 };
            if there >= 5 * kill || out.join("_SUCCESS").exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if !out.join("_SUCCESS").exists() {
            killed += 1;
        }
        server.kill();
        server = project.up(&[]);
    }
    assert!(killed > 0, "it was never killed in time");
    let job = ended(&server, &id);
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(
        (
            job["progress"]["rows"].as_u64(),
            job["progress"]["parts"].as_u64()
        ),
        (Some(ROWS as u64), Some(24))
    );
    assert!(job["attempt"].as_u64().unwrap() > 1, "{job}");
    assert!(job["progress"]["parts_found"].as_u64().unwrap() >= 5, "{job}");
    let lines = lines(&out);
    assert_eq!(lines.len(), ROWS);
    for (row, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("row-{row},")), "{line}");
        assert!(line.contains(&format!("note {row},0.5")), "{line}");
    }
    assert!(
        !project.path().join("tidemill-data/batch-work").join(&id).exists(),
        "what it needed on the way is gone"
    );
}

#[test]
fn the_command_leaves_work_to_the_server_and_shows_what_it_has() {
    let project = project();
    let rows = project.path().join("rows");
    std::fs::create_dir(&rows).unwrap();
    std::fs::rename(project.path().join("more.csv"), rows.join("more.csv")).unwrap();
    let server = project.up(&["--batch-root", "rows"]);
    let predict = |output: &str, more: &[&str]| {
        let mut args = vec![
            "predict",
            "--job",
            "--url",
            server.url(),
            "--input",
            "more.csv",
            "--output",
            output,
        ];
        args.extend(more);
        project.run(&args)
    };
    let said = predict("out", &["--format", "parquet"]).code(0);
    assert!(
        said.stdout.contains("6000 rows predicted in 1 files"),
        "{}",
        said.stdout
    );
    assert!(rows.join("out/part-00000-00000.parquet").is_file());
    let begun = predict("again", &["--detach", "--json"]).code(0).json();
    let id = begun["id"].as_str().unwrap();
    let waited = project.run(&["batch-jobs", "--url", server.url(), id, "--wait", "--json"]);
    assert_eq!(waited.code(0).json()["state"], "succeeded");
    let listed = project.run(&["batch-jobs", "--url", server.url()]).code(0);
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    assert!(
        listed.stdout.lines().next().unwrap().contains("again"),
        "the newest comes first"
    );

    let outside = project.path().join("tidemill.yaml").display().to_string();
    let refused = project.run(&[
        "predict",
        "--job",
        "--url",
        server.url(),
        "--input",
        &outside,
        "--output",
        "other",
    ]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("--batch-root"), "{}", refused.stderr);
}
