//! Plays a data set as traffic: batched requests as a client would send them, labels when they become known, and the server's virtual
//! clock moved in between. Everything goes over HTTP; the player knows nothing that a client would not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tidemill_core::clock::{Stopwatch, Timestamp, real_sleep};
use tidemill_core::frame::Column;
use tidemill_core::ports::{DataEngine, ReplayChunk};
use tidemill_core::predictions::LabelValue;
use tidemill_core::spec::{Span, Spec};

use crate::client::{Client, is_unreachable};
use crate::compose::ProjectFiles;

/// Rows in one request at most.
const BATCH: usize = 256;
/// Labels in one request at most.
const LABELS: usize = 1_000;
/// How much of the source is read at once, which bounds the player's memory.
const CHUNK: Span = Span::days(14);

/// What to play, and how.
pub struct Plan<'a> {
    /// Reads the source.
    pub engine: &'a dyn DataEngine,
    /// The project's folder.
    pub root: &'a Path,
    /// The project.
    pub spec: &'a Arc<Spec>,
    /// From here,
    pub from: Timestamp,
    /// up to here.
    pub to: Timestamp,
    /// The server's clock moves in steps of this.
    pub step: Span,
    /// Virtual seconds in a real one; `None` is as fast as it goes.
    pub speed: Option<f64>,
    /// How long to wait for a server that went away.
    pub patience: Duration,
    /// Keep the ids of all predictions, for a report.
    pub keep_ids: bool,
}

impl<'a> Plan<'a> {
    /// Plays `range` of a project's own data as fast as it goes.
    pub fn of(engine: &'a dyn DataEngine, project: &'a ProjectFiles, range: (Timestamp, Timestamp)) -> Self {
        Self {
            engine,
            root: &project.root,
            spec: &project.spec,
            from: range.0,
            to: range.1,
            step: Span::HOUR,
            speed: None,
            patience: Duration::ZERO,
            keep_ids: false,
        }
    }
}

/// What was played.
#[derive(Debug, Clone, Default)]
pub struct Played {
    /// Predictions that the server acknowledged.
    pub predictions: u64,
    /// Labels that the server acknowledged.
    pub labels: u64,
    /// Ids of the acknowledged predictions, in order; kept only where asked for.
    pub ids: Vec<String>,
    /// Wall-clock seconds.
    pub wall_s: f64,
}

/// A label on its way: when it becomes known, for which prediction.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    at: Timestamp,
    prediction_id: String,
    value: String,
}

/// Plays the plan; `progress` is told the virtual time and the predictions so far.
pub async fn play(
    client: &Client,
    plan: &Plan<'_>,
    mut progress: impl FnMut(Timestamp, u64),
) -> Result<Played> {
    let watch = Stopwatch::start();
    let mut played = Played::default();
    let mut pending: BinaryHeap<Reverse<Pending>> = BinaryHeap::new();
    let mut chunk_start = plan.from;
    while chunk_start < plan.to {
        let chunk_end = (chunk_start + CHUNK).min(plan.to);
        let chunk = plan
            .engine
            .read_replay(plan.root, plan.spec, chunk_start, chunk_end)
            .await?;
        let mut next = 0;
        let mut now = chunk_start;
        while now < chunk_end {
            let step_end = (now.floor_to(plan.step) + plan.step).min(chunk_end);
            advance(client, plan, now).await?;
            played.labels += tell(client, plan, &mut pending, now).await?;
            let begin = next;
            while next < chunk.meta.len() && chunk.meta[next].at < step_end {
                next += 1;
            }
            for part in (begin..next).collect::<Vec<_>>().chunks(BATCH) {
                predict(client, plan, &chunk, part, &mut pending, &mut played).await?;
            }
            progress(step_end, played.predictions);
            if let Some(speed) = plan.speed {
                pace(&watch, plan.from, step_end, speed).await;
            }
            now = step_end;
        }
        chunk_start = chunk_end;
    }
    advance(client, plan, plan.to).await?;
    played.labels += tell(client, plan, &mut pending, plan.to).await?;
    // Labels that are known only after the end still belong to the predictions played: wait for them, up to the horizon.
    let mut end = plan.to;
    let last = plan.to + plan.spec.label.horizon + plan.spec.monitors.every;
    while end < last {
        end = (end + plan.step).min(last);
        let due = pending.peek().is_some_and(|p| p.0.at <= end);
        if due || end == last {
            advance(client, plan, end).await?;
            played.labels += tell(client, plan, &mut pending, end).await?;
        }
    }
    played.wall_s = watch.elapsed().as_secs_f64();
    Ok(played)
}

async fn pace(watch: &Stopwatch, from: Timestamp, now: Timestamp, speed: f64) {
    let due = (now - from).as_micros() as f64 / 1e6 / speed;
    let ahead = due - watch.elapsed().as_secs_f64();
    if ahead > 0.0 {
        real_sleep(Duration::from_secs_f64(ahead)).await;
    }
}

/// Asks again while the server is away: every request here is safe to repeat (ids and idempotency keys are the client's own).
async fn insist(client: &Client, plan: &Plan<'_>, path: &str, body: &Value) -> Result<Value> {
    let watch = Stopwatch::start();
    loop {
        match client.post(path, body).await {
            Err(error) if is_unreachable(&error) && watch.elapsed() < plan.patience => {
                real_sleep(Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
}

async fn advance(client: &Client, plan: &Plan<'_>, to: Timestamp) -> Result<()> {
    insist(client, plan, "/api/v1/clock/advance", &json!({ "to": to })).await?;
    Ok(())
}

async fn tell(
    client: &Client,
    plan: &Plan<'_>,
    pending: &mut BinaryHeap<Reverse<Pending>>,
    now: Timestamp,
) -> Result<u64> {
    let mut told = 0;
    loop {
        let mut batch = Vec::new();
        while batch.len() < LABELS && pending.peek().is_some_and(|p| p.0.at <= now) {
            if let Some(Reverse(label)) = pending.pop() {
                let value: Value = serde_json::from_str(&label.value)?;
                batch.push(json!({
                    "prediction_id": label.prediction_id, "value": value, "event_time": label.at,
                    "source": "replay", "idempotency_key": label.prediction_id,
                }));
            }
        }
        if batch.is_empty() {
            return Ok(told);
        }
        told += batch.len() as u64;
        let answer = insist(client, plan, "/api/v1/feedback", &json!({ "feedback": batch })).await?;
        let conflicts = answer["outcomes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|o| o["outcome"] == "conflict")
            .count();
        if conflicts > 0 {
            bail!(
                "{conflicts} labels contradict what was told under the same key before; is another replay running?"
            );
        }
    }
}

async fn predict(
    client: &Client,
    plan: &Plan<'_>,
    chunk: &ReplayChunk,
    rows: &[usize],
    pending: &mut BinaryHeap<Reverse<Pending>>,
    played: &mut Played,
) -> Result<()> {
    let mut inputs = Vec::with_capacity(chunk.rows.columns().len() + 1);
    for (feature, column) in chunk.rows.schema().features.iter().zip(chunk.rows.columns()) {
        let (datatype, data): (&str, Vec<Value>) = match column {
            Column::Numeric(values) => (
                "FP64",
                rows.iter()
                    .map(|&i| {
                        if values[i].is_nan() {
                            Value::Null
                        } else {
                            json!(values[i])
                        }
                    })
                    .collect(),
            ),
            Column::Categorical(values) => (
                "BYTES",
                rows.iter().map(|&i| json!(values[i].as_deref())).collect(),
            ),
        };
        inputs
            .push(json!({ "name": feature.name, "shape": [rows.len()], "datatype": datatype, "data": data }));
    }
    if let Some(key) = &plan.spec.data.key {
        let data: Vec<Value> = rows
            .iter()
            .map(|&i| json!(chunk.meta[i].key.as_deref()))
            .collect();
        inputs.push(json!({ "name": key, "shape": [rows.len()], "datatype": "BYTES", "data": data }));
    }
    let first = &chunk.meta[rows[0]];
    let id = format!(
        "replay-{}-{}",
        first.at.as_micros(),
        first.key.as_deref().unwrap_or("0")
    );
    let body = json!({ "id": id, "inputs": inputs, "outputs": [{ "name": "prediction_id" }] });
    let answer = insist(
        client,
        plan,
        &format!("/v2/models/{}/infer", plan.spec.name),
        &body,
    )
    .await?;
    let ids = answer["outputs"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|o| o["name"] == "prediction_id")
        .and_then(|o| o["data"].as_array())
        .context("the answer has no `prediction_id` output")?;
    if ids.len() != rows.len() {
        bail!("{} rows were sent, {} were answered", rows.len(), ids.len());
    }
    played.predictions += ids.len() as u64;
    for (&row, id) in rows.iter().zip(ids) {
        let (meta, id) = (&chunk.meta[row], id.as_str().unwrap_or_default().to_owned());
        if let (Some(value), Some(at)) = (&meta.label, meta.label_at) {
            pending.push(Reverse(Pending {
                at,
                prediction_id: id.clone(),
                value: text_of(value)?,
            }));
        }
        if plan.keep_ids {
            played.ids.push(id);
        }
    }
    Ok(())
}

fn text_of(value: &LabelValue) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}
