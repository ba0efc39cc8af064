//! `tidemill up`: the server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tidemill_api::Security;
use tidemill_control::batch::PlaceOptions;
use tidemill_control::tracking::{Destination, TrackingOptions};
use tidemill_control::users::AuthOptions;
use tidemill_core::clock::Timestamp;
use tidemill_store::Database;
use tidemill_store::objects::Bucket;

use crate::cli::{Listen, Project, ServingArgs, TrackingArgs};
use crate::compose::{self, ClockChoice, Running, Settings};
use crate::exit::{BadInput, Code, bad_input};
use crate::webhooks;

/// The clock that the flags ask for.
pub fn choice(virtual_clock: Option<Timestamp>, wall_clock: bool) -> ClockChoice {
    match virtual_clock {
        Some(start) => ClockChoice::Virtual(start),
        None if wall_clock => ClockChoice::Wall,
        None => ClockChoice::AsStored,
    }
}

pub async fn run(
    project: &Project,
    listen: &Listen,
    serving: &ServingArgs,
    tracking: &TrackingArgs,
    choice: ClockChoice,
    json: bool,
) -> Result<Code> {
    let settings = Settings {
        grpc_port: serving.grpc_port,
        shared_memory: serving.shared_memory,
        batches: batches(serving)?,
        model_memory: serving.model_memory.map(|mib| mib << 20),
        ..settings(tracking)?
    };
    look_at_buckets(&settings.tracking);
    if !listen.host.is_loopback() && !tracking.auth {
        if !tracking.no_auth {
            bad_input!(
                "anybody who reaches {} could use this server: let only users in with `--auth`, or say `--no-auth`",
                listen.host
            );
        }
        eprintln!(
            "warning: listening on {} without authentication; anybody who reaches this port can use it",
            listen.host
        );
    }
    // A folder that was named has to have a project; where none was, tracking needs none.
    let named = project.project != Path::new(".");
    let (app, name) = if named || compose::has_project(&project.project) {
        let mut files = compose::read_project(&project.project, project.data.as_deref())?;
        files.settings = settings;
        let name = files.spec.name.clone();
        (compose::open(&files, choice).await?, Some(name))
    } else {
        let data = project
            .data
            .clone()
            .unwrap_or_else(|| PathBuf::from("tidemill-data"));
        (compose::open_without_project(&data, &settings).await?, None)
    };
    let virtual_time = app
        .control
        .as_ref()
        .is_some_and(|control| control.clock().as_virtual().is_some());
    let running = compose::serve(app, SocketAddr::from((listen.host, listen.port)), !virtual_time).await?;
    announce(&running, name.as_deref(), json);
    stop_signal().await;
    running.stop().await?;
    Ok(Code::Success)
}

/// Where batch jobs may read and write.
fn batches(serving: &ServingArgs) -> Result<PlaceOptions> {
    let mut gs = BTreeMap::new();
    for text in &serving.gs_bucket {
        match text.split_once('=') {
            Some((name, place)) if !name.is_empty() && !place.is_empty() => {
                gs.insert(name.to_owned(), place.to_owned());
            }
            _ => bad_input!("`--gs-bucket {text}`: expected BUCKET=FOLDER or BUCKET=s3://BUCKET/PREFIX"),
        }
    }
    Ok(PlaceOptions {
        roots: serving.batch_root.clone(),
        gs,
    })
}

fn bucket(uri: &str) -> Result<Bucket> {
    let environment = |name: &str| std::env::var(name).ok();
    Bucket::open(uri, &environment).map_err(|error| BadInput(error.to_string()).into())
}

fn destination(text: &str) -> Result<Destination> {
    if Bucket::is_uri(text) {
        return Ok(Destination::Bucket(bucket(text)?));
    }
    let folder = text.strip_prefix("file://").unwrap_or(text);
    if folder.contains("://") {
        bad_input!("`--artifacts-destination {text}`: a folder and `s3://bucket/prefix` are known here");
    }
    Ok(Destination::Folder(PathBuf::from(folder)))
}

/// The buckets that clients use by themselves, and this server looks into.
fn buckets(args: &TrackingArgs) -> Result<Vec<Bucket>> {
    let root = Some(&args.default_artifact_root).filter(|root| Bucket::is_uri(root));
    root.into_iter()
        .chain(&args.artifact_roots)
        .map(|uri| bucket(uri))
        .collect()
}

/// Says in the log what is wrong with the buckets, before the first client meets it. The server starts all the same: a bucket may
/// come back.
fn look_at_buckets(options: &TrackingOptions) {
    let mut buckets = options.buckets.clone();
    if let Some(Destination::Bucket(bucket)) = &options.artifacts_destination {
        buckets.push(bucket.clone());
    }
    tokio::spawn(async move {
        for bucket in buckets {
            if let Err(error) = bucket.check().await {
                tracing::warn!(%error, uri = bucket.uri(), "artifacts cannot be kept there as it is");
            }
        }
    });
}

fn settings(args: &TrackingArgs) -> Result<Settings> {
    Ok(Settings {
        database: Database::parse(&args.database)?,
        tracking: TrackingOptions {
            default_artifact_root: args.default_artifact_root.clone(),
            artifacts_destination: args
                .artifacts_destination
                .as_deref()
                .map(destination)
                .transpose()?,
            buckets: buckets(args)?,
            bucket_urls: !args.no_bucket_urls,
            strict_sources: args.strict_sources,
            auth: if args.auth {
                Some(
                    AuthOptions::load(args.auth_config.as_deref())
                        .map_err(|error| BadInput(error.to_string()))?,
                )
            } else {
                None
            },
            webhooks: webhooks::options_from_env()?,
            ..TrackingOptions::default()
        },
        security: Security {
            allowed_hosts: args.allowed_hosts.clone(),
            allowed_origins: args.cors_allowed_origins.clone(),
        },
        ..Settings::default()
    })
}

/// Says where the server is. The first line is for programs that started it.
fn announce(running: &Running, project: Option<&str>, json: bool) {
    if json {
        println!(
            "{}",
            serde_json::json!({
                "url": running.url(),
                "grpc": running.grpc.to_string(),
                "project": project,
                "pid": std::process::id(),
            })
        );
    } else if let Some(project) = project {
        println!(
            "tidemill serves `{project}` at {}  (page, API under /api/v1, Ctrl-C stops)",
            running.url()
        );
    } else {
        println!(
            "tidemill tracks at {}  (no `tidemill.yaml` here, so no loop; MLFLOW_TRACKING_URI={0}, Ctrl-C stops)",
            running.url()
        );
    }
}

/// Waits for Ctrl-C or SIGTERM.
pub async fn stop_signal() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}
