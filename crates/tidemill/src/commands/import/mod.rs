//! `tidemill import`: brings what was tracked elsewhere. It reads the source and sends everything to the server by its public API.

mod artifacts;
mod mlflow_server;
mod mlruns;
mod source;
mod sql;
mod tally;
mod transfer;
mod wandb;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;
use tidemill_store::Database;

use self::source::Source;
use self::tally::Tally;
use self::transfer::{Options, Transfer};
use crate::cli::{ImportArgs, ImportSource, Target};
use crate::client::Client;
use crate::exit::{Code, bad_input};
use crate::session::Session;

/// Runs the command.
pub async fn run(source: ImportSource, json: bool) -> Result<Code> {
    match source {
        ImportSource::Mlflow {
            uri,
            artifacts_destination,
            how,
        } => {
            let source = open_mlflow(&uri, artifacts_destination.as_deref()).await?;
            import(source.as_ref(), &how, json).await
        }
        ImportSource::Wandb { folder, how } => {
            let source = wandb::Wandb::open(&folder)?;
            import(&source, &how, json).await
        }
    }
}

async fn open_mlflow(uri: &str, artifacts: Option<&Path>) -> Result<Box<dyn Source>> {
    let scheme = uri.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    Ok(match scheme.as_deref() {
        Some("http" | "https") => Box::new(mlflow_server::MlflowServer::open(uri).await?),
        Some("file") => match source::local_path(uri) {
            Some(path) => Box::new(mlruns::Mlruns::open(&path, artifacts)?),
            None => bad_input!("`{uri}` is no folder of this machine"),
        },
        Some(_) if uri.contains("://") => Box::new(sql::MlflowSql::open(uri, artifacts).await?),
        _ => Box::new(mlruns::Mlruns::open(Path::new(uri), artifacts)?),
    })
}

/// A dry run looks at a destination that is there, and makes none.
async fn destination(how: &ImportArgs, database: &Database) -> Result<Option<Session>> {
    let Target { url, project } = &how.target;
    let data = project.data.clone().unwrap_or_else(|| {
        let folder = if project.project.is_dir() {
            project.project.clone()
        } else {
            PathBuf::from(".")
        };
        folder.join("tidemill-data")
    });
    if how.dry_run && url.is_none() && !data.exists() {
        return Ok(None);
    }
    Session::open_tracking(&how.target, database).await.map(Some)
}

async fn import(source: &dyn Source, how: &ImportArgs, json: bool) -> Result<Code> {
    let database = Database::parse(&how.database)?;
    let session = destination(how, &database).await?;
    let options = Options {
        artifacts: !how.no_artifacts,
        dry_run: how.dry_run,
        recheck: how.recheck,
        quiet: json,
    };
    let client = session.as_ref().map(|session| session.client.clone());
    // What MLflow's variables say is for the source then.
    let client = match source.server() {
        Some(_) => client.map(Client::without_mlflows_credentials),
        None => client,
    };
    let transfer = Transfer::new(source, client, options);
    // What was brought until something failed is told too.
    let (tally, ended) = transfer.run().await;
    if let Some(session) = session {
        session.close().await?;
    }
    if json {
        let error = ended.as_ref().err().map(|error| format!("{error:#}"));
        println!(
            "{}",
            json!({ "source": source.name(), "dry_run": how.dry_run, "tally": tally, "error": error })
        );
    } else {
        tally.print(how.dry_run);
    }
    ended?;
    Ok(code(&tally))
}

fn code(tally: &Tally) -> Code {
    if tally.failures.is_empty() {
        Code::Success
    } else if tally.failures.iter().all(|failure| failure.source_is_wrong) {
        Code::BadInput
    } else {
        Code::Failure
    }
}
