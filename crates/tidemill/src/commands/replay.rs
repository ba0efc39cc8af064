//! `tidemill replay`: a data set as traffic.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tidemill_control::view::Status;
use tidemill_core::clock::Timestamp;
use tidemill_core::ports::DataEngine;
use tidemill_core::spec::Span;

use crate::cli::Target;
use crate::client::Client;
use crate::compose::{self, ClockChoice, ProjectFiles};
use crate::exit::{Code, bad_input};
use crate::player::{Plan, Played, play};
use crate::session::{Session, is_locked};

/// Which part of the data.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// From here,
    pub from: Option<Timestamp>,
    /// up to here.
    pub to: Option<Timestamp>,
}

pub async fn run(target: &Target, range: Range, speed: &str, patience: u64, json: bool) -> Result<Code> {
    let project = compose::read_project(&target.project.project, target.project.data.as_deref())?;
    let engine = engine()?;
    let (from, to) = bounds(&engine.0, &project, range).await?;
    let session = if target.url.is_some() {
        Session::open(target).await?.0
    } else {
        // A server of our own on a virtual clock for the replay's time, unless one uses the folder already.
        match compose::open(&project, ClockChoice::Virtual(from)).await {
            Ok(app) => Session::own(app).await?,
            Err(error) if is_locked(&error) => Session::open(target).await?.0,
            Err(error) => return Err(error),
        }
    };
    let status: Status = session.client.get("/api/v1/status").await?;
    if !status.virtual_clock {
        bad_input!(
            "the server at {} runs on the machine's clock; start one with `tidemill up --virtual-clock {from}`",
            session.client.base()
        );
    }
    let from = if range.from.is_none() {
        from.max(status.now)
    } else {
        from
    };
    let speed = speed_of(speed)?;
    let plan = Plan {
        speed,
        patience: Duration::from_secs(patience),
        keep_ids: json,
        ..Plan::of(&engine.0, &project, (from, to))
    };
    let played = play_with_bar(&session.client, &plan).await?;
    if json {
        println!(
            "{}",
            json!({ "predictions": played.predictions, "labels": played.labels, "wall_s": played.wall_s, "ids": played.ids })
        );
    } else {
        println!(
            "{} predictions and {} labels in {:.1} s",
            played.predictions, played.labels, played.wall_s
        );
    }
    session.close().await?;
    Ok(Code::Success)
}

/// A data engine of the command's own, with a store for objects that nobody needs afterwards.
pub fn engine() -> Result<(tidemill_data::DataFusionEngine, tempfile::TempDir)> {
    let scratch = tempfile::tempdir()?;
    let objects = tidemill_store::Objects::local(scratch.path())?;
    Ok((tidemill_data::DataFusionEngine::new(objects), scratch))
}

/// The range to play: what was asked for, else all of the data.
pub async fn bounds(
    engine: &dyn DataEngine,
    project: &ProjectFiles,
    range: Range,
) -> Result<(Timestamp, Timestamp)> {
    let Some((first, last)) = engine.time_range(&project.root, &project.spec).await? else {
        bad_input!(
            "`{}` holds no row with a time; a replay needs `data.time`",
            project.spec.data.source
        );
    };
    let from = range.from.unwrap_or_else(|| first.floor_to(Span::DAY));
    let to = range.to.unwrap_or_else(|| last.floor_to(Span::HOUR) + Span::HOUR);
    if from >= to {
        bad_input!("nothing to play: from {from} is not before {to}");
    }
    Ok((from, to))
}

fn speed_of(text: &str) -> Result<Option<f64>> {
    if text == "max" {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(speed) if speed > 0.0 && speed.is_finite() => Ok(Some(speed)),
        _ => bad_input!(
            "`{text}` is not a speed: expected `max`, or how many virtual seconds pass in a real one, such as 3600"
        ),
    }
}

/// Plays with a progress bar on standard error.
pub async fn play_with_bar(client: &Client, plan: &Plan<'_>) -> Result<Played> {
    let bar = ProgressBar::new(u64::try_from((plan.to - plan.from).as_micros()).unwrap_or(1));
    bar.set_style(
        ProgressStyle::with_template("{prefix} [{bar:40}] {percent:>3} % {msg} {elapsed} (ends in {eta})")?
            .progress_chars("=> "),
    );
    let from = plan.from;
    let played = play(client, plan, |now, predictions| {
        bar.set_position(u64::try_from((now - from).as_micros()).unwrap_or(0));
        bar.set_prefix(now.day());
        bar.set_message(format!("{predictions} predictions"));
    })
    .await;
    bar.finish_and_clear();
    played
}
