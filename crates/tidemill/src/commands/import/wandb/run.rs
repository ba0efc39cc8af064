//! What a W&B log says of its run, in the terms in which a live W&B client's runs are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value as Json};
use tidemill_control::tracking::import::{Metric, Run};
use tidemill_control::tracking::wandb::values::{
    LONGEST_PARAM, LONGEST_TAG, cut, each_leaf, number, renamed, shown,
};
use tidemill_core::digest::Digest;
use tokio::sync::mpsc::Sender;

use super::NO_PROJECT;
use super::log::Log;
use super::message::{Value, fields};
use crate::commands::import::source::{METRICS_PAGE, metric};

/// The entity of a run that names none, as for a live client who has no name.
const NOBODY: &str = "tidemill";

/// The kinds of records that are read, by their field's number in W&B's `Record`.
mod kind {
    pub const HISTORY: u64 = 2;
    pub const SUMMARY: u64 = 3;
    pub const CONFIG: u64 = 5;
    pub const STATS: u64 = 7;
    pub const ARTIFACT: u64 = 8;
    pub const ALERT: u64 = 10;
    pub const RUN: u64 = 17;
    pub const EXIT: u64 = 18;
    pub const ENVIRONMENT: u64 = 26;
}

/// A run, and what is not brought of it.
pub struct Read {
    /// The run.
    pub run: Run,
    /// How many artifacts it logged.
    pub artifacts: u64,
    /// How many alerts it raised.
    pub alerts: u64,
}

#[derive(Default)]
struct Told {
    id: String,
    entity: String,
    project: String,
    display_name: String,
    notes: String,
    group: String,
    job_type: String,
    tags: Vec<String>,
    sweep: String,
    host: String,
    commit: String,
    program: String,
    start_ms: i64,
    last_ms: i64,
    runtime_s: Option<i64>,
    exit_code: Option<i64>,
    config: Map<String, Json>,
    summary: Map<String, Json>,
    in_history: BTreeSet<String>,
    artifacts: u64,
    alerts: u64,
}

/// The project that a log's run belongs to.
pub fn project_of(path: &Path) -> Result<String> {
    let mut log = Log::open(path)?;
    while let Some(record) = log.next()? {
        for field in fields(&record) {
            let (number, value) = field.with_context(|| path.display().to_string())?;
            if number == kind::RUN {
                let mut told = Told::default();
                told.run(value.message())?;
                return Ok(told.project());
            }
        }
    }
    bail!("{} ends before it says which run it is of", path.display())
}

/// Everything but the numbers.
pub fn read(path: &Path) -> Result<Read> {
    let told = Told::read(path)?;
    let run_id = run_id(&told);
    let mut tags: BTreeMap<String, String> = BTreeMap::new();
    let mut tag = |key: &str, value: String| {
        if !value.is_empty() {
            tags.insert(key.to_owned(), cut(&value, LONGEST_TAG));
        }
    };
    tag("wandb.run_id", told.id.clone());
    tag("wandb.entity", told.entity());
    tag("wandb.project", told.project());
    tag("mlflow.runName", told.name());
    tag("mlflow.user", told.entity());
    tag("mlflow.note.content", told.notes.clone());
    tag("wandb.group", told.group.clone());
    tag("wandb.job_type", told.job_type.clone());
    tag("wandb.sweep", told.sweep.clone());
    tag("wandb.host", told.host.clone());
    tag("mlflow.source.name", told.program.clone());
    tag("mlflow.source.git.commit", told.commit.clone());
    if !told.tags.is_empty() {
        tag("wandb.tags", Json::from(told.tags.clone()).to_string());
    }
    let mut params = Vec::new();
    for (key, value) in told.config.iter().filter(|(key, _)| !key.starts_with('_')) {
        each_leaf(key, value, &mut |name, value| {
            params.push((name, cut(&shown(value), LONGEST_PARAM)));
        });
    }
    for (key, value) in told.summary.iter().filter(|(key, _)| !key.starts_with('_')) {
        each_leaf(key, value, &mut |name, value| {
            if number(value).is_none() && !value.is_null() {
                tag(&format!("wandb.summary.{name}"), shown(value));
            }
        });
    }
    let end_ms = match told.runtime_s {
        Some(seconds) if seconds > 0 => told.start_ms + seconds * 1_000,
        _ => told.last_ms.max(told.start_ms),
    };
    let status = match told.exit_code {
        Some(0) => "FINISHED",
        // Its process was killed before it could say how it ended.
        Some(_) | None => "FAILED",
    };
    Ok(Read {
        artifacts: told.artifacts,
        alerts: told.alerts,
        run: Run {
            run_id,
            name: told.name(),
            user_id: told.entity(),
            status: status.to_owned(),
            lifecycle: "active".to_owned(),
            start_ms: told.start_ms,
            end_ms: Some(end_ms),
            params,
            tags: tags.into_iter().collect(),
            ..Run::default()
        },
    })
}

/// The id that a live client's run of these names has here.
fn run_id(told: &Told) -> String {
    let (entity, project) = (told.entity(), told.project());
    let parts = ["default", &entity, &project, &told.id];
    let digest = Digest::of_parts(parts.into_iter().map(str::as_bytes));
    digest.to_string().chars().take(32).collect()
}

impl Told {
    fn read(path: &Path) -> Result<Self> {
        let mut told = Self::default();
        each_record(path, |number, message| told.take(number, message))?;
        if told.id.is_empty() {
            bail!("{} does not say which run it is of", path.display());
        }
        Ok(told)
    }

    fn entity(&self) -> String {
        or(&self.entity, NOBODY)
    }

    fn project(&self) -> String {
        or(&self.project, NO_PROJECT)
    }

    fn name(&self) -> String {
        or(&self.display_name, &self.id)
    }

    fn take(&mut self, number: u64, message: &[u8]) -> Result<()> {
        match number {
            kind::RUN => self.run(message)?,
            kind::CONFIG => update(&mut self.config, message)?,
            kind::SUMMARY => update(&mut self.summary, message)?,
            kind::EXIT => {
                self.exit_code = Some(0);
                for field in fields(message) {
                    match field? {
                        // Of 32 bits and signed.
                        (1, value) => self.exit_code = Some(i64::from(value.integer() as i32)),
                        (2, value) => self.runtime_s = Some(value.integer()),
                        _ => {}
                    }
                }
            }
            kind::HISTORY => {
                let line = history(message)?;
                self.last_ms = self.last_ms.max(line.at_ms.unwrap_or(0));
                self.in_history
                    .extend(line.numbers.into_iter().map(|(name, _)| name));
            }
            kind::ENVIRONMENT => {
                for field in fields(message) {
                    match field? {
                        (6, value) if !value.message().is_empty() => self.program = value.text(),
                        (9, value) => self.git(value.message())?,
                        (12, value) if !value.message().is_empty() => self.host = value.text(),
                        _ => {}
                    }
                }
            }
            kind::ARTIFACT => self.artifacts += 1,
            kind::ALERT => self.alerts += 1,
            _ => {}
        }
        Ok(())
    }

    fn run(&mut self, message: &[u8]) -> Result<()> {
        for field in fields(message) {
            let (number, value) = field?;
            match number {
                1 => self.id = value.text(),
                2 => self.entity = value.text(),
                3 => self.project = value.text(),
                4 => update(&mut self.config, value.message())?,
                5 => update(&mut self.summary, value.message())?,
                6 => self.group = value.text(),
                7 => self.job_type = value.text(),
                8 => self.display_name = value.text(),
                9 => self.notes = value.text(),
                10 => {
                    let tag = value.text();
                    if !self.tags.contains(&tag) {
                        self.tags.push(tag);
                    }
                }
                12 => self.sweep = value.text(),
                13 => self.host = value.text(),
                17 => self.start_ms = time_ms(value.message())?,
                21 => self.git(value.message())?,
                _ => {}
            }
        }
        Ok(())
    }

    fn git(&mut self, message: &[u8]) -> Result<()> {
        for field in fields(message) {
            if let (2, value) = field? {
                self.commit = value.text();
            }
        }
        Ok(())
    }
}

/// Sends every number: of the history, of the machine, and of the summary what the history does not have.
pub fn send_history(path: &Path, pages: &Sender<Vec<Metric>>) -> Result<()> {
    let told = Told::read(path)?;
    let mut held = Vec::new();
    let mut wanted = true;
    let (mut lines, mut samples, mut last_step) = (0, 0, 0);
    let mut push = |point: Metric| {
        held.push(point);
        if wanted && held.len() >= METRICS_PAGE {
            // Nobody listens only where the run was refused.
            wanted = pages.blocking_send(std::mem::take(&mut held)).is_ok();
        }
    };
    each_record(path, |number, message| {
        match number {
            kind::HISTORY => {
                let line = history(message)?;
                last_step = line.step.unwrap_or(lines);
                let at = line.at_ms.unwrap_or(told.start_ms);
                for (name, value) in line.numbers {
                    push(metric(&name, value, at, last_step));
                }
                lines += 1;
            }
            kind::STATS => {
                let (at, numbers) = stats(message)?;
                for (name, value) in numbers {
                    push(metric(&name, value, at, samples));
                }
                samples += 1;
            }
            _ => {}
        }
        Ok(())
    })?;
    for (key, value) in told.summary.iter().filter(|(key, _)| !key.starts_with('_')) {
        each_leaf(key, value, &mut |name, value| {
            if let Some(value) = number(value)
                && !told.in_history.contains(&name)
            {
                push(metric(&name, value, told.last_ms.max(told.start_ms), last_step));
            }
        });
    }
    if wanted && !held.is_empty() {
        let _ = pages.blocking_send(held);
    }
    Ok(())
}

fn each_record(path: &Path, mut take: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let mut log = Log::open(path)?;
    while let Some(record) = log.next()? {
        for field in fields(&record) {
            let (number, value) = field.with_context(|| path.display().to_string())?;
            if let Value::Bytes(message) = value {
                take(number, message).with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok(())
}

/// Applies a `ConfigRecord` or a `SummaryRecord`: both have updates (1) and removals (2) of items with a key (1), a nested key (2)
/// and a JSON value (16).
fn update(map: &mut Map<String, Json>, message: &[u8]) -> Result<()> {
    for field in fields(message) {
        let (number, item) = field?;
        if !matches!(number, 1 | 2) {
            continue;
        }
        let (path, value) = read_item(item.message())?;
        set(map, &path, (number == 1).then_some(value));
    }
    Ok(())
}

/// Sets or removes what lies at a path.
fn set(map: &mut Map<String, Json>, path: &[String], value: Option<Json>) {
    match (path, value) {
        ([], _) => {}
        ([last], Some(value)) => {
            map.insert(last.clone(), value);
        }
        ([last], None) => {
            map.remove(last);
        }
        ([first, rest @ ..], value) => {
            let inner = map.entry(first.clone()).or_insert(Json::Null);
            if !inner.is_object() {
                *inner = Json::Object(Map::new());
            }
            if let Json::Object(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

/// Where an item belongs, and its value.
fn read_item(message: &[u8]) -> Result<(Vec<String>, Json)> {
    let (mut key, mut nested, mut json) = (String::new(), Vec::new(), Json::Null);
    for field in fields(message) {
        let (number, value) = field?;
        match number {
            1 => key = value.text(),
            2 => nested.push(value.text()),
            // A history's item may have its value in a field of its own type.
            4 => json = Json::from(value.integer() != 0),
            5 => json = Json::from(value.zigzag()),
            6 => {
                let number = serde_json::Number::from_f64(value.double());
                json = number.map_or_else(|| constant(value.double()), Json::Number);
            }
            7 => json = Json::from(value.text()),
            8 | 16 => json = parse(&value.text()),
            _ => {}
        }
    }
    let path = if nested.is_empty() { vec![key] } else { nested };
    Ok((path.into_iter().filter(|part| !part.is_empty()).collect(), json))
}

fn constant(value: f64) -> Json {
    Json::from(if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    })
}

/// JSON in which Python's and Go's constants may stand alone.
fn parse(text: &str) -> Json {
    match text.trim() {
        "NaN" => Json::from("NaN"),
        "Infinity" | "+Infinity" => Json::from("Infinity"),
        "-Infinity" => Json::from("-Infinity"),
        other => serde_json::from_str(other).unwrap_or_else(|_| Json::from(other)),
    }
}

struct Line {
    step: Option<i64>,
    at_ms: Option<i64>,
    numbers: Vec<(String, f64)>,
}

fn history(message: &[u8]) -> Result<Line> {
    let mut line = Line {
        step: None,
        at_ms: None,
        numbers: Vec::new(),
    };
    // Tables and media come in pieces, of which only the whole says what it is.
    let mut map = Map::new();
    for field in fields(message) {
        match field? {
            (1, item) => {
                let (path, value) = read_item(item.message())?;
                set(&mut map, &path, Some(value));
            }
            (2, step) => {
                for field in fields(step.message()) {
                    if let (1, value) = field? {
                        line.step = Some(value.integer());
                    }
                }
            }
            _ => {}
        }
    }
    for (name, value) in &map {
        match name.as_str() {
            "_step" => line.step = value.as_i64().or(line.step),
            "_timestamp" => line.at_ms = value.as_f64().map(|seconds| (seconds * 1e3).round() as i64),
            hidden if hidden.starts_with('_') => {}
            _ => each_leaf(name, value, &mut |name, value| {
                line.numbers.extend(number(value).map(|value| (name, value)));
            }),
        }
    }
    Ok(line)
}

/// Measurements of the machine, under the names that MLflow's clients use where there is one.
fn stats(message: &[u8]) -> Result<(i64, Vec<(String, f64)>)> {
    let (mut at, mut numbers) = (0, Vec::new());
    for field in fields(message) {
        match field? {
            (2, time) => at = time_ms(time.message())?,
            (3, item) => {
                let (path, value) = read_item(item.message())?;
                if let Some(value) = number(&value) {
                    let (name, factor) = renamed(&path.join("."));
                    numbers.push((name, value * factor));
                }
            }
            _ => {}
        }
    }
    Ok((at, numbers))
}

/// A text, or what stands for an empty one.
fn or(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise } else { text }.to_owned()
}

/// A `google.protobuf.Timestamp`.
fn time_ms(message: &[u8]) -> Result<i64> {
    let mut ms = 0;
    for field in fields(message) {
        match field? {
            (1, seconds) => ms += seconds.integer() * 1_000,
            (2, nanos) => ms += nanos.integer() / 1_000_000,
            _ => {}
        }
    }
    Ok(ms)
}
