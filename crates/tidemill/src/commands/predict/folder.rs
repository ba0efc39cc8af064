//! Answers into a folder, a file for each part of the input: the same work that the server does for batch jobs.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tidemill_control::batch::folder::LocalFolder;
use tidemill_control::batch::rows::{self, AskRows, RowsJob, RowsOutcome};
use tidemill_core::batches::BatchFiles;
use tidemill_core::spec::DataFormat;

use super::{AT_ONCE, Args, Server, bar};
use crate::client::encoded;
use crate::exit::Code;

impl AskRows for Server {
    type Error = anyhow::Error;

    async fn ask(&self, body: String, id: Option<String>) -> Result<Value> {
        let path = format!("/invocations/{}", encoded(&self.endpoint, false));
        self.client.post_json(&path, body, id.as_deref()).await
    }

    fn at(error: anyhow::Error, file: &Path, first_row: usize) -> anyhow::Error {
        error.context(format!("{}, from row {first_row}", file.display()))
    }
}

pub async fn run(
    args: &Args<'_>,
    input: &Arc<dyn BatchFiles>,
    server: &Server,
    folder: &Path,
    json: bool,
) -> Result<Code> {
    let job = RowsJob {
        endpoint: server.endpoint.clone(),
        version: None,
        part_rows: args.part_rows,
        format: args.format.map_or(input.format(), DataFormat::from),
        at_once: AT_ONCE,
        id: None,
    };
    let bar = bar();
    let told = |outcome: &RowsOutcome| {
        bar.set_position(outcome.rows);
        let file = (outcome.files_done + 1).min(outcome.files);
        bar.set_message(format!("file {file} of {}", outcome.files));
    };
    let out = LocalFolder(folder.to_owned());
    let outcome = rows::run(&job, input, &out, server, &told).await?;
    bar.finish_and_clear();
    if json {
        println!(
            "{}",
            serde_json::to_string(&outcome).context("an outcome is JSON")?
        );
    } else {
        println!("{}", said(&outcome, &folder.display().to_string()));
    }
    Ok(Code::Success)
}

/// What came of it, for people.
pub fn said(outcome: &RowsOutcome, folder: &str) -> String {
    let found = match outcome.parts_found {
        0 => String::new(),
        found => format!(" ({found} of the files were there already)"),
    };
    format!(
        "{} rows predicted in {} files of {folder}{found}",
        outcome.rows, outcome.parts
    )
}
