//! The same work, left to the server: a batch job. And what the server has of them.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};
use tidemill_control::batch::rows::RowsOutcome;
use tidemill_core::clock::real_sleep;
use tidemill_store::Database;

use super::folder::said;
use super::{Args, bar};
use crate::cli::Target;
use crate::client::{Client, encoded};
use crate::exit::{Code, bad_input};
use crate::session::Session;

/// How often a job is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Leaves the work to the server; with `detach` does not wait for its end.
pub async fn start(args: &Args<'_>, detach: bool, json: bool) -> Result<Code> {
    let Some(output) = args.output.and_then(|path| path.to_str()) else {
        bad_input!("say with `--output` where the server is to write the answers");
    };
    let mut asked = json!({ "input": args.input, "output": output, "part_rows": args.part_rows });
    if let Some(endpoint) = args.endpoint {
        asked["endpoint"] = json!(endpoint);
    }
    if let Some(format) = args.format {
        asked["format"] = serde_json::to_value(tidemill_core::spec::DataFormat::from(format))?;
    }
    let session = Session::open_tracking(args.target, &Database::default()).await?;
    let done = async {
        if args.endpoint.is_none() {
            asked["endpoint"] = json!(super::endpoint(args, &session.client).await?);
        }
        let job: Value = session.client.post("/api/v1/batch-jobs", &asked).await?;
        let id = job["id"].as_str().unwrap_or_default().to_owned();
        if detach {
            print(&job, json);
            return Ok(Code::Success);
        }
        wait(&session.client, &id, json).await
    }
    .await;
    session.close().await?;
    done
}

/// What is asked about jobs.
pub struct About<'a> {
    pub target: &'a Target,
    /// Which one; all of them if none is named.
    pub id: Option<&'a str>,
    /// Wait for its end.
    pub wait: bool,
    /// Stop it.
    pub cancel: bool,
}

/// Lists jobs, or looks at one, waits for it or stops it.
pub async fn about(about: &About<'_>, json: bool) -> Result<Code> {
    let session = Session::open_tracking(about.target, &Database::default()).await?;
    let done = async {
        let client = &session.client;
        let Some(id) = about.id else {
            let listed: Value = client.get("/api/v1/batch-jobs").await?;
            if json {
                println!("{listed}");
                return Ok(Code::Success);
            }
            for job in listed["items"].as_array().into_iter().flatten() {
                print(job, false);
            }
            return Ok(Code::Success);
        };
        if about.cancel {
            let path = format!("{}/cancel", path(id));
            let job: Value = client.post(&path, &Map::new()).await?;
            if !about.wait {
                print(&job, json);
                return Ok(Code::Success);
            }
        }
        if about.wait {
            return wait(client, id, json).await;
        }
        let job: Value = client.get(&path(id)).await?;
        print(&job, json);
        Ok(Code::Success)
    }
    .await;
    session.close().await?;
    done
}

fn path(id: &str) -> String {
    format!("/api/v1/batch-jobs/{}", encoded(id, false))
}

/// Shows how far a job is until it ends.
async fn wait(client: &Client, id: &str, json: bool) -> Result<Code> {
    let bar = bar();
    let job = loop {
        let job: Value = client.get(&path(id)).await?;
        let progress = &job["progress"];
        bar.set_position(progress["rows"].as_u64().unwrap_or(0));
        bar.set_message(match progress["files"].as_u64() {
            Some(files) => format!(
                "file {} of {files}",
                (progress["files_done"].as_u64().unwrap_or(0) + 1).min(files)
            ),
            None => job["state"].as_str().unwrap_or_default().to_owned(),
        });
        if matches!(job["state"].as_str(), Some("succeeded" | "failed" | "cancelled")) {
            break job;
        }
        real_sleep(LOOK).await;
    };
    bar.finish_and_clear();
    if job["state"] == "failed" {
        bail!(
            "job `{id}` failed: {}",
            job["error"]["message"].as_str().unwrap_or("no reason is known")
        );
    }
    let outcome: Option<RowsOutcome> = serde_json::from_value(job["progress"].clone()).ok();
    match outcome.filter(|_| !json && job["state"] == "succeeded") {
        Some(outcome) => println!("{}", said(&outcome, job["output"].as_str().unwrap_or_default())),
        None => print(&job, json),
    }
    Ok(if job["state"] == "succeeded" {
        Code::Success
    } else {
        Code::Refused
    })
}

fn print(job: &Value, json: bool) {
    if json {
        println!("{job}");
        return;
    }
    let text = |key: &str| job[key].as_str().unwrap_or_default().to_owned();
    let rows = job["progress"]["rows"].as_u64().unwrap_or(0);
    let why = match job["error"]["message"].as_str() {
        Some(message) => format!("  {message}"),
        None => String::new(),
    };
    println!(
        "{}  {:<9}  {:>10} rows  {} → {}  by {}{why}",
        text("id"),
        text("state"),
        rows,
        text("input"),
        text("output"),
        text("endpoint")
    );
}
