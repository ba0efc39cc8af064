//! `tidemill predict`: the rows of files, through the same code path as online.
//!
//! Without a folder to write to, the answers are JSON lines. Into a folder they go part by part, each file whole or not at all, so that a
//! job that was cut short goes on where it stood ([`folder`]).

mod folder;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tidemill_core::digest::Digest;
use tidemill_core::spec::DataFormat;
use tidemill_data::{Added, BatchInput, Part};
use tidemill_store::Database;

use crate::cli::Target;
use crate::client::{Client, encoded};
use crate::exit::Code;
use crate::session::Session;

/// Rows in one request.
const REQUEST_ROWS: usize = 500;
/// Requests that are under way at once.
const AT_ONCE: usize = 4;

/// What `predict` was asked.
pub struct Args<'a> {
    pub target: &'a Target,
    /// A file, a folder or a glob.
    pub input: &'a str,
    pub output: Option<&'a Path>,
    /// Whose answers; the project's own endpoint if none is named.
    pub endpoint: Option<&'a str>,
    /// Rows in each file of the output.
    pub part_rows: usize,
    pub format: Option<OutputFormat>,
}

/// How output files are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum OutputFormat {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

impl From<OutputFormat> for DataFormat {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Parquet => Self::Parquet,
            OutputFormat::Csv => Self::Csv,
            OutputFormat::Jsonl => Self::Jsonl,
        }
    }
}

/// Whom to ask.
struct Asked {
    client: Client,
    endpoint: String,
}

pub async fn run(args: Args<'_>, json: bool) -> Result<Code> {
    let input = BatchInput::open(args.input).await?;
    let session = Session::open_tracking(args.target, &Database::default()).await?;
    let done = predict(&args, &input, &session.client, json).await;
    session.close().await?;
    done
}

async fn predict(args: &Args<'_>, input: &BatchInput, client: &Client, json: bool) -> Result<Code> {
    let asked = Asked {
        client: client.clone(),
        endpoint: endpoint(args, client).await?,
    };
    match args.output {
        Some(output) if is_folder(output) => folder::run(args, input, &asked, output, json).await,
        output => lines(input, &asked, output, json).await,
    }
}

/// The endpoint that is asked: the one that was named, or the only one that there is.
async fn endpoint(args: &Args<'_>, client: &Client) -> Result<String> {
    if let Some(name) = args.endpoint {
        return Ok(name.to_owned());
    }
    let listed: Value = client.post("/v2/repository/index", &json!({})).await?;
    let mut names: Vec<&str> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["name"].as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    match names[..] {
        [name] => Ok(name.to_owned()),
        [] => bail!("the server has no endpoint; deploy a model, or train one"),
        _ => {
            let status: Value = client.get("/api/v1/status").await.unwrap_or_default();
            let own = status["project"].as_str();
            match own.filter(|own| names.contains(own)) {
                Some(own) => Ok(own.to_owned()),
                None => bail!("say which endpoint with `--endpoint`: `{}`", names.join("`, `")),
            }
        }
    }
}

fn is_folder(output: &Path) -> bool {
    output.is_dir() || output.extension().is_none() || output.to_string_lossy().ends_with('/')
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    // The template is a constant, and one that is understood.
    if let Ok(style) = ProgressStyle::with_template("{human_pos} rows  {per_sec}  {elapsed}  {msg}") {
        bar.set_style(style);
    }
    bar
}

/// JSON lines, to a file or to standard output.
async fn lines(input: &BatchInput, asked: &Asked, output: Option<&Path>, json: bool) -> Result<Code> {
    let mut sink: Box<dyn Write> = match output {
        Some(path) => Box::new(std::io::BufWriter::new(
            std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
        )),
        None => Box::new(std::io::stdout()),
    };
    let bar = bar();
    let mut row = 0;
    for file in 0..input.files().len() {
        for part in input.parts(file, REQUEST_ROWS * AT_ONCE)? {
            let part = part?;
            for answer in answers(asked, &part, None).await? {
                for line in answer.lines(&mut row)? {
                    writeln!(sink, "{line}")?;
                }
            }
            bar.inc(part.rows() as u64);
        }
    }
    sink.flush()?;
    bar.finish_and_clear();
    if output.is_some() && !json {
        println!("{row} rows predicted");
    }
    Ok(Code::Success)
}

/// What one request was answered.
struct Answer {
    rows: usize,
    body: Value,
}

/// The answers to the rows of a part, in order. `job` and the part's name make a repeated request the same request.
async fn answers(asked: &Asked, part: &Part, job: Option<(&Digest, &str)>) -> Result<Vec<Answer>> {
    let head = json!(part.columns());
    let mut requests = Vec::new();
    for from in (0..part.rows()).step_by(REQUEST_ROWS) {
        let until = (from + REQUEST_ROWS).min(part.rows());
        let body = format!(
            r#"{{"dataframe_split":{{"columns":{head},"data":{}}}}}"#,
            part.json(from, until)?
        );
        let id = job.map(|(job, name)| format!("batch-{}-{name}-{from}", &job.to_string()[..16]));
        requests.push((until - from, body, id));
    }
    let path = format!("/invocations/{}", encoded(&asked.endpoint, false));
    let sent = requests.into_iter().map(|(rows, body, id)| {
        let path = &path;
        async move {
            let body: Value = asked.client.post_json(path, body, id.as_deref()).await?;
            Ok::<Answer, anyhow::Error>(Answer { rows, body })
        }
    });
    let mut stream = futures::stream::iter(sent).buffered(AT_ONCE);
    let mut found = Vec::new();
    while let Some(answer) = stream.next().await {
        found.push(answer?);
    }
    Ok(found)
}

impl Answer {
    /// The answer as columns: predictions, and what the endpoint says beside them.
    fn columns(&self) -> Result<Vec<(String, Vec<Value>)>> {
        let mut columns = Vec::new();
        match &self.body["predictions"] {
            Value::Array(values) => columns.push(("prediction".to_owned(), values.clone())),
            Value::Object(outputs) => {
                for (name, values) in outputs {
                    let values = values.as_array().cloned().unwrap_or_default();
                    columns.push((name.clone(), values));
                }
            }
            other => columns.push(("prediction".to_owned(), vec![other.clone(); self.rows])),
        }
        for (key, column) in [
            ("probabilities", "probabilities"),
            ("prediction_ids", "prediction_id"),
            ("model_versions", "model_version"),
            ("degraded", "degraded"),
        ] {
            if let Some(values) = self.body[key].as_array() {
                columns.push((column.to_owned(), values.clone()));
            }
        }
        for (name, values) in &columns {
            if values.len() != self.rows {
                bail!(
                    "{} rows were sent, `{name}` has {} answers; an endpoint for files answers each row",
                    self.rows,
                    values.len()
                );
            }
        }
        Ok(columns)
    }

    fn lines(&self, row: &mut usize) -> Result<Vec<Value>> {
        let columns = self.columns()?;
        let mut lines = Vec::with_capacity(self.rows);
        for i in 0..self.rows {
            let mut line = json!({ "row": *row });
            for (name, values) in &columns {
                line[name] = values[i].clone();
            }
            lines.push(line);
            *row += 1;
        }
        Ok(lines)
    }
}

/// The columns of several answers, one after the other.
fn joined(answers: &[Answer]) -> Result<Vec<(String, Added)>> {
    let mut all: Vec<(String, Vec<Value>)> = Vec::new();
    let mut rows = 0;
    for answer in answers {
        for (name, values) in answer.columns()? {
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some((_, column)) => column.extend(values),
                // Only degraded answers say so: those before were not.
                None => {
                    let mut column = vec![Value::Null; rows];
                    column.extend(values);
                    all.push((name, column));
                }
            }
        }
        rows += answer.rows;
        for (_, column) in &mut all {
            column.resize(rows, Value::Null);
        }
    }
    Ok(all
        .into_iter()
        .map(|(name, values)| (name, Added::of(&values)))
        .collect())
}

/// The name of a part's file.
fn part_file(folder: &Path, file: usize, part: usize, format: DataFormat) -> PathBuf {
    let ending = match format {
        DataFormat::Parquet => "parquet",
        DataFormat::Csv => "csv",
        DataFormat::Jsonl => "jsonl",
    };
    folder.join(format!("part-{file:05}-{part:05}.{ending}"))
}
