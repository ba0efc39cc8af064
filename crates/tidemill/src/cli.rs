//! The command line, declared once: parsing, help and completions come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tidemill_core::clock::Timestamp;

use crate::deploy_args::{BundleArgs, DeploymentArgs};

/// From a notebook to production, and good there.
#[derive(Debug, Parser)]
#[command(
    name = "tidemill",
    version,
    about,
    after_help = "exit codes: 0 as asked, 1 a fault, 2 unreadable command line, 3 wrong input, 4 the answer is no \
                  (validation failed, gate refused, digests differ), 5 no server or the data folder is in use"
)]
pub struct Cli {
    /// Say more on standard error (-v: what happens, -vv: details). `TIDEMILL_LOG` sets it finely.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Print JSON on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// Where the project and its data are.
#[derive(Debug, Args, Clone)]
pub struct Project {
    /// The folder with `tidemill.yaml`, or the file itself.
    #[arg(short, long, default_value = ".", global = true)]
    pub project: PathBuf,
    /// The data folder; default: `tidemill-data` beside the spec.
    #[arg(short, long, env = "TIDEMILL_DATA", global = true)]
    pub data: Option<PathBuf>,
}

/// How to reach the project: through its running server, or by opening its data folder.
#[derive(Debug, Args, Clone)]
pub struct Target {
    #[command(flatten)]
    pub project: Project,
    /// A running server; default: the one that uses the data folder, else the folder is opened for this command.
    #[arg(long, env = "TIDEMILL_URL")]
    pub url: Option<String>,
}

/// Where to listen.
#[derive(Debug, Args, Clone)]
pub struct Listen {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
    /// Port to listen on; 0 lets the system pick one.
    #[arg(long, default_value_t = 7878)]
    pub port: u16,
}

/// How predictions are asked for.
#[derive(Debug, Args, Clone)]
pub struct ServingArgs {
    /// Listen on this port too, for clients that want gRPC on one of its own; 0 lets the system pick one. The main port speaks both.
    #[arg(long, value_name = "PORT")]
    pub grpc_port: Option<u16>,
    /// Let clients on this machine hand tensors over by system shared memory: this server then reads and writes the files in /dev/shm that
    /// they name.
    #[arg(long)]
    pub shared_memory: bool,
    /// Batch jobs may read and write below this folder; may be given several times, and relative places start at the first. Default:
    /// `batches` in the data folder.
    #[arg(long, value_name = "DIR")]
    pub batch_root: Vec<PathBuf>,
    /// What stands for a bucket of Google Cloud Storage in batch jobs: a folder, or `s3://bucket/prefix`.
    #[arg(long, value_name = "BUCKET=PLACE")]
    pub gs_bucket: Vec<String>,
    /// MiB that the loaded models of deployments may take together; above, those that were not asked for longest are put to sleep.
    /// Default: all the memory there is.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub model_memory: Option<u64>,
}

/// How an import is done.
#[derive(Debug, Args, Clone)]
pub struct ImportArgs {
    #[command(flatten)]
    pub target: Target,
    /// Where the metadata is, if no server runs and there is no project: as for `up`.
    #[arg(
        long,
        env = "TIDEMILL_DATABASE",
        default_value = "sqlite",
        hide_env_values = true
    )]
    pub database: String,
    /// Leave artifacts where they are.
    #[arg(long)]
    pub no_artifacts: bool,
    /// Read and count, and bring nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Look again at what an earlier import has brought whole.
    #[arg(long)]
    pub recheck: bool,
}

/// What is imported.
#[derive(Debug, Subcommand)]
pub enum ImportSource {
    /// From MLflow: experiments, runs, models, artifacts.
    Mlflow {
        /// `http(s)://server`, an `mlruns` folder (a path or `file://`), `sqlite:///path` or `postgresql://…`.
        #[arg(long)]
        uri: String,
        /// The folder in which the source's server keeps proxied artifacts, where `--uri` is its database or folder.
        #[arg(long, value_name = "DIR")]
        artifacts_destination: Option<PathBuf>,
        #[command(flatten)]
        how: ImportArgs,
    },
    /// From Weights & Biases' offline runs.
    Wandb {
        /// A folder with `offline-run-*` or `run-*` folders, or one of these.
        folder: PathBuf,
        #[command(flatten)]
        how: ImportArgs,
    },
}

/// Tracking, registry and artifacts.
#[derive(Debug, Args, Clone)]
pub struct TrackingArgs {
    /// Where the metadata is: `sqlite`, in the data folder, or `postgres://user:password@host:port/database`, with
    /// `?sslmode=verify-full&sslrootcert=FILE` and the like for how it is encrypted.
    #[arg(
        long,
        env = "TIDEMILL_DATABASE",
        default_value = "sqlite",
        hide_env_values = true
    )]
    pub database: String,
    /// Where the artifacts of new experiments go: the server's own proxy, or a URI that clients reach by themselves, such as
    /// `s3://bucket/prefix`.
    #[arg(long, value_name = "URI", default_value = "mlflow-artifacts:/")]
    pub default_artifact_root: String,
    /// Keep proxied artifacts under their own names in a folder or in `s3://bucket/prefix`; default: content-addressed, in the data
    /// folder. Buckets are reached by AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION, MLFLOW_S3_ENDPOINT_URL and the like.
    #[arg(long, value_name = "DIR|URI")]
    pub artifacts_destination: Option<String>,
    /// Other buckets, as `s3://bucket/prefix`, in which the server lists, shows and deletes artifacts that clients put there.
    #[arg(long, value_name = "URIS", value_delimiter = ',')]
    pub artifact_roots: Vec<String>,
    /// Give clients no URLs of the bucket for large files: all bytes pass through this server.
    #[arg(long)]
    pub no_bucket_urls: bool,
    /// Take a model version's source only from the run or model that the request names (MLflow 3.17's rule).
    #[arg(long)]
    pub strict_sources: bool,
    /// Let only users in. The first administrator comes from `TIDEMILL_ADMIN_USERNAME` (default `admin`) and
    /// `TIDEMILL_ADMIN_PASSWORD`, or from `--auth-config`.
    #[arg(long)]
    pub auth: bool,
    /// Settings of `--auth` in the form of MLflow's `basic_auth.ini`.
    #[arg(long, value_name = "FILE", requires = "auth")]
    pub auth_config: Option<PathBuf>,
    /// Listen on other addresses than this machine's own without knowing who calls.
    #[arg(long, conflicts_with = "auth")]
    pub no_auth: bool,
    /// Names under which the server is reached, beside addresses and `localhost`; `*` for any.
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may use the server, such as `https://app.example.com`.
    #[arg(long, value_name = "ORIGINS", value_delimiter = ',')]
    pub cors_allowed_origins: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a first `tidemill.yaml` from a look at a data file.
    Init {
        /// A Parquet, CSV or JSON-lines file, a folder or a glob.
        source: String,
        /// Where to write the spec.
        #[arg(long, default_value = "tidemill.yaml")]
        output: PathBuf,
        /// The label column; default: guessed from names and values.
        #[arg(long)]
        label: Option<String>,
        /// The project's name; default: from the file's.
        #[arg(long)]
        name: Option<String>,
        /// Overwrite an existing spec.
        #[arg(long)]
        force: bool,
    },
    /// Start the server: tracking and registry, and with a project endpoints and the loop.
    Up {
        #[command(flatten)]
        project: Project,
        #[command(flatten)]
        listen: Listen,
        #[command(flatten)]
        serving: ServingArgs,
        #[command(flatten)]
        tracking: TrackingArgs,
        /// Run on a clock that stands at this time and is moved by a replay (or where it stood, if the data folder has one).
        #[arg(long, value_name = "TIME")]
        virtual_clock: Option<Timestamp>,
        /// Return to the machine's clock in a data folder that was used with a virtual one.
        #[arg(long, conflicts_with = "virtual_clock")]
        wall_clock: bool,
    },
    /// Play a year of flights through the whole loop, then keep serving.
    Demo {
        /// The demo project.
        #[arg(short, long, default_value = "examples/flights")]
        project: PathBuf,
        #[command(flatten)]
        listen: Listen,
        /// Keep the data here; default: a folder that is removed at the end.
        #[arg(short, long)]
        data: Option<PathBuf>,
        /// Play from this time.
        #[arg(long)]
        from: Option<Timestamp>,
        /// Play up to this time.
        #[arg(long)]
        to: Option<Timestamp>,
        /// End after the table.
        #[arg(long)]
        exit: bool,
    },
    /// Check the spec, and the data against its expectations.
    Validate {
        #[command(flatten)]
        project: Project,
    },
    /// Train a version now; the gate decides what becomes of it.
    Train {
        #[command(flatten)]
        target: Target,
        /// Why, for the record.
        #[arg(long, default_value = "by hand")]
        reason: String,
    },
    /// Measure a version on the latest labelled rows.
    Evaluate {
        #[command(flatten)]
        target: Target,
        /// Which version; default: the champion.
        version: Option<u32>,
    },
    /// Make a version champion by hand.
    Promote {
        #[command(flatten)]
        target: Target,
        /// Which version.
        version: u32,
        /// Why, for the record.
        #[arg(long)]
        why: String,
    },
    /// Take a rollout back, or return to the previous champion.
    Rollback {
        #[command(flatten)]
        target: Target,
        /// Why, for the record.
        #[arg(long)]
        why: String,
    },
    /// Predict the rows of files.
    Predict {
        #[command(flatten)]
        target: Target,
        /// CSV, JSON lines or Parquet with the features: a file, a folder or a glob.
        #[arg(long)]
        input: String,
        /// Where to write the answers. A folder gets the rows with their answers beside them, a file for each part, and a job that was cut
        /// short goes on where it stood; a file, like standard output by default, gets JSON lines.
        #[arg(long)]
        output: Option<PathBuf>,
        /// Whose answers: the endpoint's or deployment's name. Default: the project's, or the only one that there is.
        #[arg(long)]
        endpoint: Option<String>,
        /// Rows in each file of an output folder.
        #[arg(long, default_value_t = 10_000)]
        part_rows: usize,
        /// How files in an output folder are written. Default: as the input's.
        #[arg(long, value_enum)]
        format: Option<crate::commands::predict::OutputFormat>,
        /// Leave the work to the server, as a batch job: `--input` and `--output` are places of the server then, below its folder of
        /// batch jobs (`--batch-root` of `up`), or URIs such as `s3://bucket/rows/`.
        #[arg(long)]
        job: bool,
        /// Do not wait for the job's end.
        #[arg(long, requires = "job")]
        detach: bool,
    },
    /// Batch jobs of the server, newest first; or one of them.
    BatchJobs {
        #[command(flatten)]
        target: Target,
        /// The job's id.
        id: Option<String>,
        /// Wait for its end.
        #[arg(long, requires = "id")]
        wait: bool,
        /// Stop it.
        #[arg(long, requires = "id")]
        cancel: bool,
    },
    /// Tell what was true of predictions.
    Feedback {
        #[command(flatten)]
        target: Target,
        /// The prediction's id; leave out with `--input`.
        prediction_id: Option<String>,
        /// What was true.
        value: Option<String>,
        /// A JSON-lines file of `{"prediction_id", "value", …}`.
        #[arg(long)]
        input: Option<PathBuf>,
    },
    /// Play a data set as traffic through a server on a virtual clock, with labels arriving at their time.
    Replay {
        #[command(flatten)]
        target: Target,
        /// Play from this time; default: where the data begin, or where the server's clock stands.
        #[arg(long)]
        from: Option<Timestamp>,
        /// Play up to this time; default: where the data end.
        #[arg(long)]
        to: Option<Timestamp>,
        /// `max`, or how many virtual seconds pass in a real one.
        #[arg(long, default_value = "max")]
        speed: String,
        /// Keep trying for so many seconds when the server goes away.
        #[arg(long, default_value_t = 30)]
        patience: u64,
    },
    /// Play the same data under several retraining policies and compare quality and cost.
    Backtest {
        #[command(flatten)]
        project: Project,
        /// Play from this time.
        #[arg(long)]
        from: Option<Timestamp>,
        /// Play up to this time.
        #[arg(long)]
        to: Option<Timestamp>,
        /// Which policies: `never`, `monthly`, `drift`, `spec` (the project's own triggers).
        #[arg(long, value_delimiter = ',', default_value = "never,monthly,drift")]
        policies: Vec<String>,
    },
    /// Train a version again from its record and compare every digest.
    Reproduce {
        #[command(flatten)]
        target: Target,
        /// `MODEL/VERSION`.
        version: String,
    },
    /// Look at recorded predictions, and ask their models again.
    Predictions {
        #[command(subcommand)]
        action: PredictionsCommand,
    },
    /// Follow a prediction to everything that led to it.
    Lineage {
        #[command(flatten)]
        target: Target,
        /// The prediction's id.
        prediction_id: String,
    },
    /// Bring experiments, runs, models and artifacts from elsewhere; may be interrupted and started again.
    Import {
        #[command(subcommand)]
        source: ImportSource,
    },
    /// Make a function or a model answer under a name, and wait until it does.
    Deploy {
        #[command(flatten)]
        target: Target,
        /// `app.py:function`, a model file, a folder with `MLmodel`, `models:/NAME/VERSION` or `models:/NAME@ALIAS`, or a bundle.
        what: String,
        /// The deployment's name; default: the function's, the file's or the model's.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        bundle: BundleArgs,
        #[command(flatten)]
        serving: DeploymentArgs,
    },
    /// What is deployed.
    Deployments {
        #[command(flatten)]
        target: Target,
    },
    /// Take a deployment away.
    Undeploy {
        #[command(flatten)]
        target: Target,
        /// Its name.
        name: String,
    },
    /// Pack a function or a model into one file that can be deployed elsewhere.
    Bundle {
        /// `app.py:function`, a model file, or a folder with `MLmodel`.
        what: String,
        /// The name under which it will be deployed; default: the function's or the file's.
        #[arg(long)]
        name: Option<String>,
        /// Where to write it.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        bundle: BundleArgs,
        #[command(flatten)]
        serving: DeploymentArgs,
    },
    /// Make a model that needs no Python of a pickle or an MLflow model of trees, if it answers samples as the original does.
    Convert {
        /// A pickle or joblib file, or a folder with `MLmodel`. It is loaded in a process of its own, which runs what it says.
        what: String,
        /// The folder to write; deploy it by its name.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        #[command(flatten)]
        bundle: BundleArgs,
    },
    /// Start a server with nothing but these bundles, models or functions.
    Serve {
        /// Bundles, `app.py:function`, model files, folders with `MLmodel`.
        #[arg(required = true)]
        what: Vec<String>,
        #[command(flatten)]
        listen: Listen,
        /// Keep what is unpacked here, for a quicker next start; default: a folder that is removed at the end.
        #[arg(short, long)]
        data: Option<PathBuf>,
        /// Listen on other addresses than this machine's own without knowing who calls.
        #[arg(long)]
        no_auth: bool,
        #[command(flatten)]
        bundle: BundleArgs,
        #[command(flatten)]
        serving: DeploymentArgs,
    },
    /// What is served, and what the loop is doing.
    Status {
        #[command(flatten)]
        target: Target,
    },
    /// Check this machine, the project and its data folder.
    Doctor {
        #[command(flatten)]
        project: Project,
    },
    /// Print the JSON Schema of `tidemill.yaml`, for editors.
    Schema,
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// What is done with recorded predictions.
#[derive(Debug, Subcommand)]
pub enum PredictionsCommand {
    /// Show what is recorded of a prediction.
    Show {
        #[command(flatten)]
        target: Target,
        /// The prediction's id.
        prediction_id: String,
    },
    /// Ask the version that answered again, and compare bit by bit.
    Replay {
        #[command(flatten)]
        target: Target,
        /// The prediction's id.
        prediction_id: String,
    },
}
