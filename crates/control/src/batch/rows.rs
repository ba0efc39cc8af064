//! Our own shape of a batch job: the rows of files with their answers beside them, a file for each part of the input.
//!
//! `_job.json` says what the job is, and a folder belongs to one job. A part's file appears whole once all its rows are answered; a part
//! whose file is there is not asked again. `_SUCCESS` comes last. A job that was killed at any instant is begun again as it was, and every
//! row stands in the output once.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidemill_core::batches::{BatchFiles, BatchPart, BatchParts};
use tidemill_core::digest::Digest;
use tidemill_core::ids::VersionNumber;
use tidemill_core::ports::PortError;
use tidemill_core::spec::DataFormat;

use super::answers::{Answer, joined};
use super::folder::OutFolder;

/// Rows in one request.
pub const REQUEST_ROWS: usize = 500;

const JOB: &str = "_job.json";
const DONE: &str = "_SUCCESS";

/// Held while a folder becomes a job's: of two jobs that want one, one gets it.
static CLAIMING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Whoever answers rows of a table.
pub trait AskRows: Sync {
    /// Why it did not.
    type Error: From<PortError> + Send;
    /// Answers a body with `dataframe_split` as MLflow's scoring protocol does. The same `id` is the same request.
    fn ask(
        &self,
        body: String,
        id: Option<String>,
    ) -> impl Future<Output = Result<Value, Self::Error>> + Send;
    /// An error with where it happened: which file, and which row of it comes first in the request.
    fn at(error: Self::Error, file: &Path, first_row: usize) -> Self::Error;
}

/// What is to be done.
#[derive(Debug, Clone)]
pub struct RowsJob {
    /// Who answers.
    pub endpoint: String,
    /// Which version, if one is named.
    pub version: Option<VersionNumber>,
    /// Rows in each file of the output.
    pub part_rows: usize,
    /// How those are written.
    pub format: DataFormat,
    /// Requests that are under way at once.
    pub at_once: usize,
    /// The job's id, where it has one.
    pub id: Option<String>,
}

/// What a folder's job is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Claim {
    /// The names, sizes and modification marks of the input's files.
    input: Digest,
    endpoint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<VersionNumber>,
    part_rows: usize,
    format: DataFormat,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<String>,
}

/// How far it is, and in the end what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsOutcome {
    /// Rows that have their answers in files.
    pub rows: u64,
    /// Files that are there.
    pub parts: u64,
    /// Of these, how many were there already.
    pub parts_found: u64,
    /// Files of the input that are done.
    pub files_done: u64,
    /// Files of the input.
    pub files: u64,
}

/// Does the job, or what is left of it.
///
/// # Errors
/// If the folder is another job's, something cannot be read, answered or written.
pub async fn run<A: AskRows>(
    job: &RowsJob,
    input: &Arc<dyn BatchFiles>,
    out: &dyn OutFolder,
    ask: &A,
    told: &(dyn Fn(&RowsOutcome) + Sync),
) -> Result<RowsOutcome, A::Error> {
    let claim = Claim {
        input: input.digest()?,
        endpoint: job.endpoint.clone(),
        version: job.version,
        part_rows: job.part_rows.max(1),
        format: job.format,
        job: job.id.clone(),
    };
    let there = claimed(out, &claim).await?;
    let name = Digest::of(written(&claim)?.as_bytes()).to_string();
    let files = input.files();
    let mut outcome = RowsOutcome {
        files: files.len() as u64,
        ..RowsOutcome::default()
    };
    told(&outcome);
    for (file, path) in files.iter().enumerate() {
        let (reading, size) = (Arc::clone(input), claim.part_rows);
        let mut parts = blocking(move || reading.parts(file, size)).await?;
        let mut place = 0;
        while let Some(part) = next(&mut parts).await? {
            let target = part_file(file, place, job.format);
            outcome.parts += 1;
            let rows = part.rows() as u64;
            if there.contains(&target) {
                outcome.parts_found += 1;
            } else {
                let asked = Asked {
                    ask,
                    file: path,
                    first_row: place * claim.part_rows,
                    at_once: job.at_once,
                };
                let ids = format!("batch-{}-{file}-{place}", &name[..16]);
                let columns = joined(&asked.answers(part.as_ref(), Some(&ids)).await?)?;
                let (draft, format) = (out.draft(&target), job.format);
                blocking(move || part.write(&draft, format, &columns)).await?;
                out.keep(&target).await?;
            }
            outcome.rows += rows;
            told(&outcome);
            place += 1;
        }
        outcome.files_done += 1;
    }
    out.put(DONE, written(&outcome)?.into()).await?;
    told(&outcome);
    Ok(outcome)
}

/// Some rows on their way to whoever answers.
pub struct Asked<'a, A> {
    /// Who answers.
    pub ask: &'a A,
    /// Where the rows are from.
    pub file: &'a Path,
    /// Which row of the file comes first.
    pub first_row: usize,
    /// Requests that are under way at once.
    pub at_once: usize,
}

impl<A: AskRows> Asked<'_, A> {
    /// The answers to the rows of a part, in order. `ids` makes a repeated request the same request.
    ///
    /// # Errors
    /// If a request is not answered.
    pub async fn answers(&self, part: &dyn BatchPart, ids: Option<&str>) -> Result<Vec<Answer>, A::Error> {
        let head = json!(part.columns());
        let mut requests = Vec::new();
        for from in (0..part.rows()).step_by(REQUEST_ROWS) {
            let until = (from + REQUEST_ROWS).min(part.rows());
            let body = format!(
                r#"{{"dataframe_split":{{"columns":{head},"data":{}}}}}"#,
                part.json(from, until)?
            );
            requests.push((from, until - from, body, ids.map(|ids| format!("{ids}-{from}"))));
        }
        let sent = requests.into_iter().map(|(from, rows, body, id)| async move {
            let answered = self.ask.ask(body, id).await;
            match answered {
                Ok(body) => Ok(Answer { rows, body }),
                Err(error) => Err(A::at(error, self.file, self.first_row + from)),
            }
        });
        let mut stream = futures::stream::iter(sent).buffered(self.at_once.max(1));
        let mut found = Vec::new();
        while let Some(answer) = stream.next().await {
            found.push(answer?);
        }
        Ok(found)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(PortError::internal(
            "internal",
            format!("a batch's work failed: {error}"),
        ))
    })
}

/// The next part. Reading may take long, and holds up nobody else.
async fn next(parts: &mut BatchParts) -> Result<Option<Box<dyn BatchPart>>, PortError> {
    let mut reading = std::mem::replace(parts, Box::new(std::iter::empty()));
    let (part, rest) = blocking(move || {
        let part = reading.next().transpose()?;
        Ok((part, reading))
    })
    .await?;
    *parts = rest;
    Ok(part)
}

fn written(value: &impl Serialize) -> Result<String, PortError> {
    serde_json::to_string(value).map_err(|error| PortError::internal("internal", error.to_string()))
}

/// Makes the folder this job's, or finds that it is; what is there already.
async fn claimed(
    out: &dyn OutFolder,
    claim: &Claim,
) -> Result<std::collections::BTreeSet<String>, PortError> {
    let _one = CLAIMING.lock().await;
    let there = out.names().await?;
    if let Some(text) = out.read(JOB).await? {
        let before: Claim = serde_json::from_str(&text).map_err(|error| {
            PortError::caller(
                "batch_output_taken",
                format!("`{}/{JOB}` is not a job's description: {error}", out.shown()),
            )
        })?;
        if before != *claim {
            return Err(PortError::caller(
                "batch_output_taken",
                format!(
                    "{} holds the output of another job (other input files, endpoint, rows a part or format); choose an empty folder",
                    out.shown()
                ),
            ));
        }
        return Ok(there);
    }
    if let Some(name) = there.first() {
        return Err(PortError::caller(
            "batch_output_taken",
            format!(
                "{} is not empty: it holds `{name}`; choose an empty folder",
                out.shown()
            ),
        ));
    }
    out.put(JOB, written(claim)?.into()).await?;
    Ok(there)
}

/// The name of a part's file.
fn part_file(file: usize, part: usize, format: DataFormat) -> String {
    format!("part-{file:05}-{part:05}.{}", ending(format))
}

/// The ending of a format's files.
pub(super) fn ending(format: DataFormat) -> &'static str {
    match format {
        DataFormat::Parquet => "parquet",
        DataFormat::Csv => "csv",
        DataFormat::Jsonl => "jsonl",
    }
}
