//! `tidemill validate`: the spec against its data, and the data against its expectations.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};
use tidemill_core::clock::{Clock, WallClock};
use tidemill_core::ports::{DataEngine, SnapshotRequest};

use super::replay::engine;
use super::train::spinner;
use crate::cli::Project;
use crate::compose;
use crate::exit::Code;

pub async fn run(project: &Project, json: bool) -> Result<Code> {
    let files = compose::read_project(&project.project, project.data.as_deref())?;
    let engine = engine()?;
    let bar = spinner("validating");
    engine.0.check_spec(&files.root, &files.spec).await?;
    let manifest = engine
        .0
        .build_snapshot(SnapshotRequest {
            spec: Arc::clone(&files.spec),
            root: files.root.clone(),
            source: Some((None, None)),
            served: Vec::new(),
            labels: Vec::new(),
            as_of: WallClock.now(),
        })
        .await?;
    bar.finish_and_clear();
    if json {
        println!(
            "{}",
            json!({ "snapshot": manifest.digest, "rows": manifest.rows, "quarantined": manifest.quarantined, "validation": manifest.validation })
        );
    } else {
        println!(
            "{} labelled rows, snapshot {}",
            manifest.rows,
            manifest.digest.short()
        );
        for result in manifest
            .validation
            .iter()
            .filter_map(|v| v["results"].as_array())
            .flatten()
        {
            print_result(result);
        }
        println!(
            "{}",
            if manifest.quarantined {
                "a critical expectation failed: the snapshot is quarantined"
            } else {
                "fit to train on"
            }
        );
    }
    Ok(if manifest.quarantined {
        Code::Refused
    } else {
        Code::Success
    })
}

fn print_result(result: &Value) {
    let config = &result["expectation_config"];
    let mark = if result["success"] == true { "ok  " } else { "FAIL" };
    let column = config["kwargs"]["column"]
        .as_str()
        .map(|c| format!(" on `{c}`"))
        .unwrap_or_default();
    println!("{mark} {}{column}", config["type"].as_str().unwrap_or(""));
    if result["success"] == true {
        return;
    }
    let found = &result["result"];
    if let Some(message) = result["exception_info"]["exception_message"].as_str() {
        println!("     {message}");
    }
    if !found["unexpected_count"].is_null() {
        println!(
            "     {} unexpected of {}, such as {}",
            found["unexpected_count"], found["element_count"], found["partial_unexpected_list"]
        );
        println!("     in rows {}", found["unexpected_index_list"]);
    } else if !found["observed_value"].is_null() {
        println!("     observed {}", found["observed_value"]);
    }
}
