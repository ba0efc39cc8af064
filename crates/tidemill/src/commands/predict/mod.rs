//! `tidemill predict`: the rows of files, through the same code path as online.
//!
//! Without a folder to write to, the answers are JSON lines. Into a folder they go part by part, each file whole or not at all, so that a
//! job that was cut short goes on where it stood ([`folder`]). The same can be left to the server ([`job`]).

mod folder;
pub mod job;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tidemill_control::batch::rows::{Asked, REQUEST_ROWS};
use tidemill_core::batches::{BatchEngine as _, BatchFiles};
use tidemill_core::spec::DataFormat;
use tidemill_data::Batches;
use tidemill_store::Database;

use crate::cli::Target;
use crate::client::Client;
use crate::exit::Code;
use crate::session::Session;

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
struct Server {
    client: Client,
    endpoint: String,
}

pub async fn run(args: Args<'_>, json: bool) -> Result<Code> {
    let input = Batches.open(&std::env::current_dir()?, args.input).await?;
    let session = Session::open_tracking(args.target, &Database::default()).await?;
    let done = predict(&args, &input, &session.client, json).await;
    session.close().await?;
    done
}

async fn predict(args: &Args<'_>, input: &Arc<dyn BatchFiles>, client: &Client, json: bool) -> Result<Code> {
    let server = Server {
        client: client.clone(),
        endpoint: endpoint(args, client).await?,
    };
    match args.output {
        Some(output) if is_folder(output) => folder::run(args, input, &server, output, json).await,
        output => lines(input, &server, output, json).await,
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
async fn lines(
    input: &Arc<dyn BatchFiles>,
    server: &Server,
    output: Option<&Path>,
    json: bool,
) -> Result<Code> {
    let mut sink: Box<dyn Write> = match output {
        Some(path) => Box::new(std::io::BufWriter::new(
            std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
        )),
        None => Box::new(std::io::stdout()),
    };
    let bar = bar();
    let mut row = 0;
    for (number, file) in input.files().iter().enumerate() {
        let mut first_row = 0;
        for part in input.parts(number, REQUEST_ROWS * AT_ONCE)? {
            let part = part?;
            let asked = Asked {
                ask: server,
                file,
                first_row,
                at_once: AT_ONCE,
            };
            first_row += part.rows();
            for answer in asked.answers(part.as_ref(), None).await? {
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
