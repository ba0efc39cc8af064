//! Answers into a folder, a file for each part of the input.
//!
//! `_job.json` says what the job is, and a folder belongs to one job. A part's file appears whole, by a rename, once all its rows are
//! answered; a part whose file is there is not asked again. `_SUCCESS` comes last. A job that was killed at any instant is begun again with
//! the same command, and every row stands in the output once.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tidemill_core::digest::Digest;
use tidemill_core::spec::DataFormat;
use tidemill_data::BatchInput;

use super::{Args, Asked, answers, bar, joined, part_file};
use crate::exit::Code;

const JOB: &str = "_job.json";
const DONE: &str = "_SUCCESS";

/// What a folder's job is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Job {
    /// The names, sizes and modification marks of the input's files.
    input: Digest,
    endpoint: String,
    part_rows: usize,
    format: DataFormat,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    rows: u64,
    parts: u64,
    parts_found: u64,
}

pub async fn run(
    args: &Args<'_>,
    input: &BatchInput,
    asked: &Asked,
    folder: &Path,
    json: bool,
) -> Result<Code> {
    let format = args.format.map_or(input.format(), DataFormat::from);
    let job = Job {
        input: input.digest()?,
        endpoint: asked.endpoint.clone(),
        part_rows: args.part_rows.max(1),
        format,
    };
    claim(folder, &job)?;
    let id = Digest::of(serde_json::to_string(&job)?.as_bytes());
    let bar = bar();
    let mut outcome = Outcome::default();
    for file in 0..input.files().len() {
        bar.set_message(format!("file {} of {}", file + 1, input.files().len()));
        for (place, part) in input.parts(file, job.part_rows)?.enumerate() {
            let part = part?;
            let path = part_file(folder, file, place, format);
            outcome.parts += 1;
            outcome.rows += part.rows() as u64;
            bar.inc(part.rows() as u64);
            if path.exists() {
                outcome.parts_found += 1;
                continue;
            }
            let name = format!("{file}-{place}");
            let found = answers(asked, &part, Some((&id, &name))).await?;
            let columns = joined(&found)?;
            tokio::task::spawn_blocking(move || part.write(&path, format, &columns)).await??;
        }
    }
    bar.finish_and_clear();
    let said = serde_json::to_string(&outcome)?;
    put(&folder.join(DONE), &said)?;
    if json {
        println!("{said}");
    } else {
        let found = match outcome.parts_found {
            0 => String::new(),
            found => format!(" ({found} of the files were there already)"),
        };
        println!(
            "{} rows predicted in {} files of {}{found}",
            outcome.rows,
            outcome.parts,
            folder.display()
        );
    }
    Ok(Code::Success)
}

/// Makes the folder this job's, or finds that it is.
fn claim(folder: &Path, job: &Job) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(JOB);
    if let Ok(text) = std::fs::read_to_string(&path) {
        let before: Job = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a job's description", path.display()))?;
        if before != *job {
            bail!(
                "{} holds the output of another job (other input files, endpoint, rows a part or format); choose an empty folder",
                folder.display()
            );
        }
        return Ok(());
    }
    let mut there = std::fs::read_dir(folder)?;
    if let Some(entry) = there.next() {
        bail!(
            "{} is not empty: it holds `{}`; choose an empty folder",
            folder.display(),
            entry?.file_name().display()
        );
    }
    put(&path, &serde_json::to_string_pretty(job)?)
}

/// Writes a small file, whole or not at all.
fn put(path: &Path, text: &str) -> Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::File::open(&partial)?.sync_all())
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
