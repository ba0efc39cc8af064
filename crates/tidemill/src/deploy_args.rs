//! What `deploy`, `bundle` and `serve` take.

use std::path::PathBuf;

use clap::Args;
use tidemill_core::spec::{Device, Span};

/// What goes into a bundle.
#[derive(Debug, Args, Clone, Default)]
pub struct BundleArgs {
    /// A file, folder or glob that goes along, beside the Python files of the function's folder.
    #[arg(long, value_name = "PATH", action = clap::ArgAction::Append)]
    pub include: Vec<String>,
    /// Make an environment on the server from this requirements file.
    #[arg(long, value_name = "FILE", conflicts_with = "lock")]
    pub requirements: Option<PathBuf>,
    /// Make an environment on the server from this lock: `uv.lock` (with its `pyproject.toml`) or `pylock.toml`.
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
    /// The Python on the server that runs it, or that its environment is made of; default: the server's own.
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// A variable that workers are given.
    #[arg(long, value_name = "NAME=VALUE", action = clap::ArgAction::Append)]
    pub env: Vec<String>,
    /// A module to import beforehand, so that workers begin sooner.
    #[arg(long, value_name = "MODULE", action = clap::ArgAction::Append)]
    pub preload: Vec<String>,
    /// The method of a pickled estimator that answers, such as `predict_proba`; default: `predict`.
    #[arg(long)]
    pub method: Option<String>,
    /// Inputs of a pickled estimator, such as `age:FP64,city:BYTES`; default: what it knows itself.
    #[arg(long, value_name = "NAME:DATATYPE,…", value_delimiter = ',')]
    pub inputs: Vec<String>,
}

/// How it is served.
#[derive(Debug, Args, Clone, Default)]
pub struct DeploymentArgs {
    /// CPU cores a worker.
    #[arg(long)]
    pub cpu: Option<f64>,
    /// The most memory that a worker may take, such as `512MiB` or `2GiB`.
    #[arg(long)]
    pub memory: Option<String>,
    /// Requests at once in one worker.
    #[arg(long)]
    pub concurrency: Option<u32>,
    /// A call that takes longer than this ends its worker, such as `5s`.
    #[arg(long, value_name = "TIME")]
    pub time_limit: Option<Span>,
    /// An answer has to be given within this time, such as `30s`.
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
    /// So many replicas stay, however idle they are; 0 lets it sleep.
    #[arg(long)]
    pub min: Option<u32>,
    /// At most so many replicas.
    #[arg(long)]
    pub max: Option<u32>,
    /// So many replicas are ready before the first request.
    #[arg(long)]
    pub provisioned: Option<u32>,
    /// A replica goes after this long without work, such as `10m`.
    #[arg(long, value_name = "TIME")]
    pub idle: Option<Span>,
    /// At most so many rows are answered together.
    #[arg(long, value_name = "ROWS")]
    pub batch: Option<u32>,
    /// A request waits at most this long for others to be answered together with, such as `5ms`.
    #[arg(long, value_name = "TIME")]
    pub batch_delay: Option<Span>,
    /// Where an ONNX model runs, and which GPUs a Python worker sees: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Device>,
    /// Answer without Python where the model can be converted and then answers samples as before: tree ensembles.
    #[arg(long)]
    pub convert: bool,
    /// More settings, as under `serving` in `tidemill.yaml`: a YAML or JSON file.
    #[arg(long, value_name = "FILE")]
    pub serving: Option<PathBuf>,
}
