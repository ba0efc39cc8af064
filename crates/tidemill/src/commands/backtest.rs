//! `tidemill backtest`: the same data under several policies, each through a server of its own, so that a team chooses by evidence.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use tidemill_control::view::{Month, Timeline};
use tidemill_core::spec::{Spec, TriggerKind, TriggerSpec};

use super::replay::{Range, bounds, engine, play_with_bar};
use crate::cli::Project;
use crate::client::Client;
use crate::compose::{self, ClockChoice, ProjectFiles};
use crate::exit::{Code, bad_input};
use crate::output;
use crate::player::Plan;

/// What a policy earned and cost.
#[derive(Debug, Serialize)]
struct Row {
    policy: String,
    metric: String,
    /// Mean over the months from the first model on, weighted by labels.
    mean: Option<f64>,
    worst: Option<f64>,
    worst_month: String,
    /// Mean gain over the first model, kept as it was.
    gain: Option<f64>,
    trainings: u64,
    refused: u64,
    promoted: u64,
    rolled_back: u64,
    training_s: f64,
    outcome: Option<f64>,
    wall_s: f64,
}

pub async fn run(project: &Project, range: Range, policies: &[String], json: bool) -> Result<Code> {
    let files = compose::read_project(&project.project, project.data.as_deref())?;
    let specs: Vec<(String, Arc<Spec>)> = policies
        .iter()
        .map(|p| Ok((p.clone(), Arc::new(policy(&files.spec, p)?))))
        .collect::<Result<_>>()?;
    let mut rows = Vec::new();
    for (name, spec) in specs {
        eprintln!("policy `{name}`");
        rows.push(play_one(&files, &name, spec, range).await?);
    }
    if json {
        println!("{}", serde_json::to_string(&rows)?);
        return Ok(Code::Success);
    }
    let metric = rows.first().map_or("metric", |r| r.metric.as_str()).to_owned();
    let mut table = output::table(&[
        "policy",
        &format!("mean {metric}"),
        "gain over frozen",
        "worst month",
        "trainings",
        "refused",
        "promoted",
        "rolled back",
        "training s",
        "outcome",
    ]);
    for row in &rows {
        table.add_row([
            row.policy.clone(),
            output::number(row.mean),
            row.gain.map_or_else(|| "–".into(), |g| format!("{g:+.3}")),
            format!("{} ({})", output::number(row.worst), row.worst_month),
            row.trainings.to_string(),
            row.refused.to_string(),
            row.promoted.to_string(),
            row.rolled_back.to_string(),
            format!("{:.1}", row.training_s),
            row.outcome.map_or_else(|| "–".into(), |o| format!("{o:.0}")),
        ]);
    }
    println!("{table}");
    Ok(Code::Success)
}

/// The project's spec with another policy of retraining; everything else stays.
fn policy(spec: &Spec, name: &str) -> Result<Spec> {
    let mut spec = spec.clone();
    let on = |kind| TriggerSpec {
        on: kind,
        schedule: None,
        count: None,
    };
    match name {
        "spec" => {}
        "never" => spec.triggers.clear(),
        "monthly" => {
            let mut cron = on(TriggerKind::Cron);
            cron.schedule = Some("0 3 1 * *".into());
            spec.triggers = vec![cron];
        }
        "drift" => spec.triggers = vec![on(TriggerKind::Drift)],
        other => bad_input!("`{other}` is not a policy: expected never, monthly, drift or spec"),
    }
    // What a policy is compared with: the first model, kept as it was.
    spec.endpoint.baseline = true;
    Ok(spec)
}

async fn play_one(files: &ProjectFiles, name: &str, spec: Arc<Spec>, range: Range) -> Result<Row> {
    let scratch = tempfile::Builder::new().prefix("tidemill-backtest-").tempdir()?;
    let project = ProjectFiles {
        root: files.root.clone(),
        spec,
        data: scratch.path().to_owned(),
        settings: compose::Settings::default(),
    };
    let engine = engine()?;
    let (from, to) = bounds(&engine.0, &project, range).await?;
    let app = compose::open(&project, ClockChoice::Virtual(from)).await?;
    let running = compose::serve(app, SocketAddr::from(([127, 0, 0, 1], 0)), false).await?;
    let client = Client::new(&running.url())?;
    let plan = Plan::of(&engine.0, &project, (from, to));
    let played = play_with_bar(&client, &plan).await?;
    let timeline: Timeline = client
        .get(&format!("/api/v1/endpoints/{}/timeline", project.spec.name))
        .await?;
    let training_s = training_seconds(&client).await?;
    running.stop().await?;
    Ok(summarise(name, &timeline, training_s, played.wall_s))
}

async fn training_seconds(client: &Client) -> Result<f64> {
    let runs: Vec<Value> = client.get("/api/v1/runs?limit=1000").await?;
    let mut seconds = 0.0;
    for run in runs {
        let detail: Value = client
            .get(&format!(
                "/api/v1/runs/{}",
                run["id"].as_str().unwrap_or_default()
            ))
            .await?;
        let steps = detail["steps"].as_array().cloned().unwrap_or_default();
        seconds += steps
            .iter()
            .filter(|s| s["name"] == "train")
            .filter_map(|s| s["output"]["seconds"].as_f64())
            .sum::<f64>();
    }
    Ok(seconds)
}

fn summarise(name: &str, timeline: &Timeline, training_s: f64, wall_s: f64) -> Row {
    let first = timeline
        .events
        .iter()
        .find(|e| e.kind == "version.promoted")
        .map(|e| e.at.month());
    let judged: Vec<_> = timeline
        .months
        .iter()
        .filter(|m| m.predictions > 0 && first.as_ref().is_some_and(|first| m.month >= *first))
        .collect();
    // A month of which only a day was played says little: means are weighted by labels, and such a month is no worst month.
    let mean = |value: &dyn Fn(&Month) -> Option<f64>| {
        let known: Vec<(f64, f64)> = judged
            .iter()
            .filter_map(|m| Some((value(m)?, m.labels as f64)))
            .collect();
        let weight: f64 = known.iter().map(|(_, labels)| labels).sum();
        (weight > 0.0).then(|| known.iter().map(|(value, labels)| value * labels).sum::<f64>() / weight)
    };
    let sign = if timeline.higher_is_better { 1.0 } else { -1.0 };
    let enough = judged.iter().map(|m| m.labels).max().unwrap_or(0) / 10;
    let worst = judged
        .iter()
        .filter(|m| m.labels >= enough)
        .filter_map(|m| Some((m.champion?, m.month.clone())))
        .min_by(|a, b| (sign * a.0).total_cmp(&(sign * b.0)));
    let total = |f: fn(&Month) -> u64| timeline.months.iter().map(f).sum();
    let outcomes: Vec<f64> = judged.iter().filter_map(|m| m.outcome).collect();
    Row {
        policy: name.to_owned(),
        metric: timeline.metric.clone(),
        mean: mean(&|m| m.champion),
        gain: mean(&|m| Some(sign * (m.champion? - m.frozen?))),
        worst: worst.as_ref().map(|w| w.0),
        worst_month: worst.map_or_else(String::new, |w| w.1),
        trainings: total(|m| m.retrainings),
        refused: total(|m| m.refused),
        promoted: total(|m| m.promoted),
        rolled_back: total(|m| m.rolled_back),
        training_s,
        outcome: (!outcomes.is_empty()).then(|| outcomes.iter().sum()),
        wall_s,
    }
}
