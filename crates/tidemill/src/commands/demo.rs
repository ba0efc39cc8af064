//! `tidemill demo`: a year of flights through the whole loop.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;
use tidemill_control::view::{Status, Timeline};
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::VersionNumber;

use super::replay::{Range, bounds, engine, play_with_bar};
use super::up::stop_signal;
use crate::cli::Listen;
use crate::client::Client;
use crate::compose::{self, ClockChoice};
use crate::exit::Code;
use crate::output;
use crate::player::Plan;

pub struct Args {
    pub project: PathBuf,
    pub listen: Listen,
    pub data: Option<PathBuf>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    pub exit: bool,
}

pub async fn run(args: Args, json: bool) -> Result<Code> {
    let scratch = if args.data.is_none() {
        Some(tempfile::Builder::new().prefix("tidemill-demo-").tempdir()?)
    } else {
        None
    };
    let data = args
        .data
        .clone()
        .or_else(|| scratch.as_ref().map(|s| s.path().to_owned()));
    let project = compose::read_project(&found(args.project), data.as_deref())?;
    let engine = engine()?;
    let (from, to) = bounds(
        &engine.0,
        &project,
        Range {
            from: args.from,
            to: args.to,
        },
    )
    .await?;
    let app = compose::open(&project, ClockChoice::Virtual(from)).await?;
    let running = listen(app, &args.listen).await?;
    eprintln!(
        "{} from {} to {}; watch it at {}",
        project.spec.name,
        from.day(),
        to.day(),
        running.url()
    );
    let client = Client::new(&running.url())?;
    let plan = Plan::of(&engine.0, &project, (from, to));
    let played = play_with_bar(&client, &plan).await?;
    let timeline: Timeline = client
        .get(&format!("/api/v1/endpoints/{}/timeline", project.spec.name))
        .await?;
    let status: Status = client.get("/api/v1/status").await?;
    // The months that were played; the days after the end only wait for the last labels.
    let months: Vec<_> = timeline
        .months
        .iter()
        .filter(|m| m.predictions > 0)
        .cloned()
        .collect();
    if !json {
        println!("{}", output::months(&timeline.metric, &months));
        println!(
            "{} predictions and {} labels in {:.0} s, peak memory {:.0} MB; {}",
            played.predictions,
            played.labels,
            played.wall_s,
            status.peak_rss_mb,
            champion(&status).map_or_else(
                || "no model yet".to_owned(),
                |v| format!("version {v} is champion")
            )
        );
    }
    if args.exit {
        running.stop().await?;
    } else {
        eprintln!("still serving at {} (Ctrl-C stops)", running.url());
        stop_signal().await;
        running.stop().await?;
    }
    if json {
        let summary = json!({
            "predictions": status.predictions,
            "labels": status.labels,
            "wall_s": played.wall_s,
            "peak_rss_mb": status.peak_rss_mb,
            "months": months,
            "champion_version": champion(&status),
        });
        println!("{summary}");
    }
    Ok(Code::Success)
}

/// The example where this binary was built, for a demo that is started from another folder.
const BUILT_WITH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/flights");

/// The project as asked for, or the example that came with the source.
fn found(project: PathBuf) -> PathBuf {
    if !project.exists() && project.ends_with("examples/flights") {
        PathBuf::from(BUILT_WITH)
    } else {
        project
    }
}

fn champion(status: &Status) -> Option<VersionNumber> {
    status.endpoints.first().and_then(|e| e.champion)
}

/// The usual port, or any free one where that is taken: a demo should not fail over a port.
async fn listen(app: compose::App, listen: &Listen) -> Result<compose::Running> {
    let wanted = SocketAddr::from((listen.host, listen.port));
    let free = tokio::net::TcpListener::bind(wanted).await.is_ok();
    let address = if free {
        wanted
    } else {
        SocketAddr::from((listen.host, 0))
    };
    compose::serve(app, address, false).await
}
