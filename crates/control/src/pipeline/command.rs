//! A user's own trainer: a command with a contract by environment variables and files.
//!
//! | variable | what |
//! |---|---|
//! | `TIDEMILL_TRAIN_DATA` | Parquet files with features, label and time, separated by `:` |
//! | `TIDEMILL_FEATURES` | a JSON file: `[{"name", "kind"}]` in order |
//! | `TIDEMILL_LABEL`, `TIDEMILL_TASK` | the label column and `binary`, `multiclass` or `regression` |
//! | `TIDEMILL_PARAMS` | a JSON file with `training.params`, and over them what a sweep chose |
//! | `TIDEMILL_SEED` | makes training repeatable |
//! | `TIDEMILL_OUTPUT` | an empty folder: `model.json` (format, file, features with categories), the model's files, `metrics.json` |

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tidemill_core::frame::Task;
use tidemill_core::ports::{LabelledRows, ModelBundle, PortError, TrainOutput};
use tidemill_core::snapshot::SnapshotManifest;
use tidemill_core::spec::TrainingSpec;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::context::Context;
use crate::error::{ControlError, Result};

/// Lines of the command's output kept for the error message and the record.
const LOG_TAIL: usize = 40;

/// Runs the spec's command with these settings on `rows` in a fresh folder and reads what it wrote.
pub(crate) async fn train(
    ctx: &Context,
    (command, settings): (&str, &TrainingSpec),
    manifest: &SnapshotManifest,
    rows: &LabelledRows,
) -> Result<(TrainOutput, Vec<String>)> {
    let work = tempdir_in(&ctx.store.data_dir().join("work"))?;
    let result = run(ctx, (command, settings), manifest, rows, &work).await;
    // The folder only held copies of what is stored elsewhere.
    let _ = std::fs::remove_dir_all(&work);
    result
}

fn tempdir_in(parent: &Path) -> Result<std::path::PathBuf> {
    let path = parent.join(tidemill_core::ids::fresh(
        tidemill_core::clock::Timestamp::default(),
    ));
    std::fs::create_dir_all(path.join("output")).map_err(|e| io("create", &path, &e))?;
    Ok(path)
}

fn io(what: &str, path: &Path, error: &std::io::Error) -> ControlError {
    PortError::upstream(
        "training_io",
        format!("cannot {what} `{}`: {error}", path.display()),
    )
    .into()
}

async fn run(
    ctx: &Context,
    (command, settings): (&str, &TrainingSpec),
    manifest: &SnapshotManifest,
    rows: &LabelledRows,
    work: &Path,
) -> Result<(TrainOutput, Vec<String>)> {
    let spec = &ctx.spec;
    let (data, features, params, output) = (
        work.join("train.parquet"),
        work.join("features.json"),
        work.join("params.json"),
        work.join("output"),
    );
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).map_err(|e| io("write", path, &e));
    write(&data, &ctx.data.export_rows(manifest, rows).await?)?;
    let list = serde_json::to_vec(&spec.feature_schema().features).map_err(ControlError::internal)?;
    write(&features, &list)?;
    write(
        &params,
        &serde_json::to_vec(&settings.params).map_err(ControlError::internal)?,
    )?;
    let task = match spec.label.task {
        Task::Binary => "binary",
        Task::Multiclass => "multiclass",
        Task::Regression => "regression",
    };
    let mut child = tokio::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{command} 2>&1"))
        .current_dir(&ctx.root)
        .env("TIDEMILL_TRAIN_DATA", &data)
        .env("TIDEMILL_FEATURES", &features)
        .env("TIDEMILL_PARAMS", &params)
        .env("TIDEMILL_OUTPUT", &output)
        .env("TIDEMILL_LABEL", &spec.label.name)
        .env("TIDEMILL_TASK", task)
        .env("TIDEMILL_SEED", settings.seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| PortError::upstream("training_command", format!("cannot start `{command}`: {e}")))?;
    let stdout = child.stdout.take();
    let tail = async {
        let mut tail: std::collections::VecDeque<String> = std::collections::VecDeque::new();
        if let Some(stdout) = stdout {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                tracing::debug!(%line, "training command");
                if tail.len() == LOG_TAIL {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
        }
        Vec::from(tail)
    };
    let limit = Duration::from_micros(u64::try_from(settings.timeout.as_micros()).unwrap_or(u64::MAX));
    let done = tokio::time::timeout(limit, async { tokio::join!(tail, child.wait()) }).await;
    let Ok((log, status)) = done else {
        return Err(PortError::upstream(
            "training_timeout",
            format!("`{command}` did not end within {} and was stopped; raise `training.timeout` or train on less", settings.timeout),
        )
        .into());
    };
    let status = status.map_err(|e| PortError::upstream("training_command", format!("`{command}`: {e}")))?;
    if !status.success() {
        return Err(PortError::upstream(
            "training_command",
            format!(
                "`{command}` ended with {status}; its last lines were:\n{}",
                log.join("\n")
            ),
        )
        .into());
    }
    Ok((
        TrainOutput {
            bundle: read_bundle(&output, command)?,
            metrics: read_metrics(&output)?,
        },
        log,
    ))
}

fn read_bundle(output: &Path, command: &str) -> Result<ModelBundle> {
    let mut bundle = ModelBundle::new();
    let entries = std::fs::read_dir(output).map_err(|e| io("list", output, &e))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "metrics.json" && entry.path().is_file() {
            bundle.insert(
                name,
                std::fs::read(entry.path()).map_err(|e| io("read", &entry.path(), &e))?,
            );
        }
    }
    if bundle.contains_key("model.json") {
        return Ok(bundle);
    }
    Err(PortError::upstream(
        "training_output",
        format!("`{command}` ended well but left no `model.json` in $TIDEMILL_OUTPUT, so nothing says which file is the model and in which format"),
    )
    .into())
}

fn read_metrics(output: &Path) -> Result<BTreeMap<String, f64>> {
    let path = output.join("metrics.json");
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let text = std::fs::read_to_string(&path).map_err(|e| io("read", &path, &e))?;
    serde_json::from_str(&text).map_err(|e| {
        PortError::upstream(
            "training_output",
            format!("`metrics.json`: {e}; expected one object of names and finite numbers"),
        )
        .into()
    })
}
