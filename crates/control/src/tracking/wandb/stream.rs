//! The stream of lines that a run's client sends every few seconds: history, system metrics, summary, console output, and that it
//! lives or has ended.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tidemill_store::sweeps::TrialState;
use tidemill_store::tracking::metrics::{self, KnownKeys, NewMetric, Point};
use tidemill_store::tracking::runs::RunKey;
use tidemill_store::tracking::tags;
use tidemill_store::wandb::runs::{self, WandbName, WandbRun, WandbState};
use tidemill_store::{StoreError, Tx};

use super::alerts::unknown_run;
use super::lines;
use super::runs::{end, number_of};
use super::system;
use super::values::{LONGEST_TAG, cut};
use crate::tracking::automations::{self, Event};
use crate::tracking::sweeps::{RunNews, Space, tell};
use crate::tracking::{Result, Tracking};

type Stored<T> = std::result::Result<T, StoreError>;
/// Names of metrics whose numbers were not known.
type NewKeys = Vec<(String, i64)>;

/// Lines of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Such as `wandb-history.jsonl`.
    pub file: String,
    /// The number of the first line.
    pub offset: i64,
    /// The lines.
    pub lines: Vec<String>,
}

/// What a client sends at once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileStream {
    /// Lines.
    pub chunks: Vec<Chunk>,
    /// Whether the run has ended.
    pub complete: bool,
    /// With which code.
    pub exit_code: Option<i64>,
}

/// What the client is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Whether it shall end the run.
    pub stopped: bool,
}

/// The lines of a chunk that are not stored yet, with the number of the first; and moves the mark behind them. What a client sends
/// again, because it did not hear our answer, lies below the mark.
fn unseen<'c>(chunk: &'c Chunk, mark: &mut i64) -> (i64, &'c [String]) {
    let skip = usize::try_from(*mark - chunk.offset)
        .unwrap_or(0)
        .min(chunk.lines.len());
    let from = chunk.offset + skip as i64;
    let fresh = &chunk.lines[skip..];
    *mark = (*mark).max(from + fresh.len() as i64);
    (from, fresh)
}

fn metric(key: String, step: i64, at_ms: i64, value: f64) -> NewMetric {
    NewMetric {
        key,
        point: Point::new(step, at_ms, value),
        model_id: None,
        dataset_name: None,
        dataset_digest: None,
    }
}

/// What a stream adds to a tracked run.
#[derive(Default)]
struct Gathered {
    metrics: Vec<NewMetric>,
    tags: Vec<(String, String)>,
    history: Vec<(i64, Vec<(String, f64)>)>,
}

fn history(run: &mut WandbRun, chunk: &Chunk, now_ms: i64, gathered: &mut Gathered) {
    let (from, fresh) = unseen(chunk, &mut run.history_lines);
    for (number, text) in (from..).zip(fresh) {
        let Some(line) = lines::read(text) else {
            continue;
        };
        let (step, at_ms) = (line.step.unwrap_or(number), line.at_ms.unwrap_or(now_ms));
        for (name, value) in &line.numbers {
            gathered.metrics.push(metric(name.clone(), step, at_ms, *value));
        }
        gathered.history.push((step, line.numbers));
    }
    if let Some(last) = fresh.last() {
        run.history_tail.clone_from(last);
    }
}

fn system_metrics(run: &mut WandbRun, chunk: &Chunk, now_ms: i64, gathered: &mut Gathered) {
    let (from, fresh) = unseen(chunk, &mut run.events_lines);
    for (number, text) in (from..).zip(fresh) {
        let Some(line) = lines::read(text) else {
            continue;
        };
        for (name, value) in line
            .numbers
            .iter()
            .filter(|(name, _)| name.starts_with("system."))
        {
            let (name, factor) = system::renamed(name);
            gathered
                .metrics
                .push(metric(name, number, line.at_ms.unwrap_or(now_ms), value * factor));
        }
    }
    if let Some(last) = fresh.last() {
        run.events_tail.clone_from(last);
    }
}

/// A summary's numbers become metrics if no history has them, its texts and media become tags.
fn summary(
    tx: &Tx<'_>,
    run: &mut WandbRun,
    key: RunKey,
    chunk: &Chunk,
    now_ms: i64,
    gathered: &mut Gathered,
) -> Stored<()> {
    let Some(map) = chunk.lines.last().and_then(|text| lines::parse(text)) else {
        return Ok(());
    };
    let step = map.get("_step").and_then(Value::as_i64).unwrap_or(0);
    let seconds = map.get("_timestamp").and_then(Value::as_f64);
    let at_ms = seconds.map_or(now_ms, |seconds| (seconds * 1e3).round() as i64);
    let (numbers, texts) = lines::summary(&map);
    let before = run.summary.as_object().map(lines::summary).unwrap_or_default().0;
    let mut known: HashSet<String> = gathered
        .history
        .iter()
        .flat_map(|(_, numbers)| numbers)
        .map(|(name, _)| name.clone())
        .collect();
    // Only what is new or other than before: the whole summary comes every time.
    let changed: Vec<&(String, f64)> = numbers
        .iter()
        .filter(|(name, value)| {
            !known.contains(name) && !before.iter().any(|(n, v)| n == name && same(*v, *value))
        })
        .collect();
    if !changed.is_empty() {
        let stored = tidemill_store::tracking::runs::load(tx, &[key.number])?;
        known.extend(
            stored
                .into_iter()
                .flat_map(|run| run.metrics)
                .filter(|m| !was_from_summary(&before, &m.key))
                .map(|m| m.key),
        );
    }
    for (name, value) in changed {
        if !known.contains(name) {
            gathered.metrics.push(metric(name.clone(), step, at_ms, *value));
        }
    }
    for (name, text) in texts {
        gathered
            .tags
            .push((format!("wandb.summary.{name}"), cut(&text, LONGEST_TAG)));
    }
    run.summary = Value::Object(map);
    Ok(())
}

fn same(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

/// Whether an earlier summary had the name: then its metric may stem from there.
fn was_from_summary(before: &[(String, f64)], name: &str) -> bool {
    before.iter().any(|(known, _)| known == name)
}

fn console(tx: &mut Tx<'_>, run: &mut WandbRun, chunk: &Chunk) -> Stored<()> {
    runs::put_log_lines(tx, &run.run_id, chunk.offset, &chunk.lines)?;
    run.log_lines = run.log_lines.max(chunk.offset + chunk.lines.len() as i64);
    Ok(())
}

/// Tells the run's sweep what the run measured.
fn tell_sweep(tx: &mut Tx<'_>, run: &WandbRun, gathered: &Gathered, now_ms: i64) -> Stored<()> {
    let Some(sweep_id) = run.sweep.as_deref() else {
        return Ok(());
    };
    let Some(sweep) = tidemill_store::sweeps::get(tx, &run.at.workspace, sweep_id)? else {
        return Ok(());
    };
    let Some(name) = Space::read(&sweep.config).ok().and_then(|space| space.metric) else {
        return ended(tx, run, sweep_id, Vec::new(), None, now_ms);
    };
    let points: Vec<(i64, f64)> = gathered
        .history
        .iter()
        .filter_map(|(step, numbers)| {
            numbers
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*step, *value))
        })
        .collect();
    let summary = run.summary.as_object().map(lines::summary).unwrap_or_default().0;
    let objective = summary
        .iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| *value);
    ended(tx, run, sweep_id, points, objective, now_ms)
}

fn ended(
    tx: &mut Tx<'_>,
    run: &WandbRun,
    sweep_id: &str,
    points: Vec<(i64, f64)>,
    objective: Option<f64>,
    now_ms: i64,
) -> Stored<()> {
    let ended = match run.state {
        WandbState::Running => None,
        WandbState::Finished => Some(TrialState::Finished),
        WandbState::Failed | WandbState::Killed | WandbState::Crashed => Some(TrialState::Failed),
    };
    let news = RunNews {
        sweep_id,
        run_name: &run.at.name,
        points,
        objective: objective.filter(|value| value.is_finite()),
        ended,
    };
    tell(tx, &run.at.workspace, news, now_ms)
}

/// Stores all that a client sent, or nothing of it.
fn store(
    tx: &mut Tx<'_>,
    at: &WandbName,
    stream: &FileStream,
    known: &KnownKeys,
    now_ms: i64,
) -> Stored<Option<(Answer, NewKeys)>> {
    let Some(mut run) = runs::find(tx, at)? else {
        return Ok(None);
    };
    let key = number_of(tx, &run)?;
    let mut gathered = Gathered::default();
    // History first: a summary adds only what no history has.
    for chunk in &stream.chunks {
        match chunk.file.as_str() {
            "wandb-history.jsonl" => history(&mut run, chunk, now_ms, &mut gathered),
            "wandb-events.jsonl" => system_metrics(&mut run, chunk, now_ms, &mut gathered),
            _ => {}
        }
    }
    for chunk in &stream.chunks {
        match chunk.file.as_str() {
            "wandb-summary.json" => summary(tx, &mut run, key, chunk, now_ms, &mut gathered)?,
            "output.log" => console(tx, &mut run, chunk)?,
            _ => {}
        }
    }
    automations::fire_metrics(tx, &at.workspace, (key, &run.run_id), &gathered.metrics)?;
    let keys = metrics::log(tx, key, &gathered.metrics, known)?;
    if !gathered.tags.is_empty() {
        let set: Vec<(&str, &str)> = gathered
            .tags
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        tags::set(tx, key.number, &set)?;
    }
    run.heartbeat_ms = run.heartbeat_ms.max(now_ms);
    let state = if stream.complete || stream.exit_code.is_some() {
        run.exit_code = Some(stream.exit_code.unwrap_or(0));
        match run.exit_code {
            Some(0) => WandbState::Finished,
            _ if run.stop_requested => WandbState::Killed,
            _ => WandbState::Failed,
        }
    } else {
        WandbState::Running
    };
    if state != run.state {
        run.state = state;
        end(tx, &run, key, now_ms)?;
    }
    tell_sweep(tx, &run, &gathered, now_ms)?;
    runs::put(tx, &run)?;
    Ok(Some((
        Answer {
            stopped: run.stop_requested,
        },
        keys,
    )))
}

impl Tracking {
    /// Stores what a client sent of a run, once however often it sends it.
    pub async fn wandb_stream(&self, at: WandbName, stream: FileStream) -> Result<Answer> {
        let (now_ms, name) = (self.now_ms(), at.name.clone());
        let known = Arc::clone(self.metric_keys());
        let stored = self
            .store()
            .write(move |tx| store(tx, &at, &stream, &known, now_ms))
            .await?;
        let (answer, keys) = stored.ok_or_else(|| unknown_run(&name))?;
        self.metric_keys().remember(keys);
        if self.awaits(Event::MetricThreshold) || self.awaits(Event::RunFinished) {
            self.webhooks_written();
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn however_chunks_are_sent_again_each_line_is_taken_once(
            cuts in prop::collection::vec((0_usize..40, 1_usize..12), 1..30),
        ) {
            let all: Vec<String> = (0..60).map(|line| line.to_string()).collect();
            let (mut mark, mut taken) = (0, Vec::new());
            for (back, length) in cuts {
                let offset = usize::try_from(mark).unwrap().saturating_sub(back);
                let lines = all[offset..(offset + length).min(all.len())].to_vec();
                let chunk = Chunk { file: String::new(), offset: offset as i64, lines };
                let (from, fresh) = unseen(&chunk, &mut mark);
                prop_assert!(fresh.is_empty() || from as usize == taken.len());
                taken.extend_from_slice(fresh);
            }
            prop_assert_eq!(&taken[..], &all[..taken.len()]);
        }
    }
}
