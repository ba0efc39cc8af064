//! The transfer itself: experiments, then runs with their histories and files, then models.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tidemill_control::tracking::import::{
    Experiments, Known, Mark, Marks, Metric, PlacedExperiment, Run, RunMetrics, RunOutcomes, Runs,
    run_artifacts,
};
use tokio::sync::mpsc;

use super::artifacts;
use super::source::{Place, Source, SourceRun};
use super::tally::Tally;
use crate::client::{Client, is_unreachable};

mod models;

/// So many runs travel at once.
const TOGETHER: usize = 8;

/// How it is done.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether artifacts come too.
    pub artifacts: bool,
    /// Whether nothing is sent.
    pub dry_run: bool,
    /// Whether what has come whole is looked at again.
    pub recheck: bool,
    /// Whether there is no bar.
    pub quiet: bool,
}

/// A transfer.
pub struct Transfer<'s> {
    source: &'s dyn Source,
    client: Option<Client>,
    options: Options,
    name: String,
    tally: Mutex<Tally>,
    /// Where the artifacts of runs and logged models were and are, by id.
    moved: Mutex<HashMap<String, (String, String)>>,
    bar: ProgressBar,
}

/// What came of one run.
enum Came {
    Whole(Mark),
    InPart,
}

impl<'s> Transfer<'s> {
    /// From `source` to the server of `client`; without one, and only for a dry run, everything is new.
    pub fn new(source: &'s dyn Source, client: Option<Client>, options: Options) -> Self {
        let bar = if options.quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::new_spinner()
        };
        Self {
            source,
            client,
            options,
            name: source.name(),
            tally: Mutex::default(),
            moved: Mutex::default(),
            bar,
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does it; what was counted, and the error that ended it before its end.
    pub async fn run(self) -> (Tally, Result<()>) {
        let ended = self.all().await;
        self.bar.finish_and_clear();
        let tally = self.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        (tally, ended)
    }

    async fn all(&self) -> Result<()> {
        if let Some(remark) = self.source.remark() {
            self.tally().notes.push(remark);
        }
        for (what, count, reason) in self.source.left_out().await? {
            *self
                .tally()
                .left_out
                .entry(format!("{what}: {reason}"))
                .or_default() += count;
        }
        self.show(self.source.run_count().await);
        let experiments = self.experiments().await?;
        for (id, here) in &experiments {
            self.runs(id, *here).await?;
        }
        for (id, here) in &experiments {
            self.logged_models(id, *here).await?;
        }
        self.registered_models().await
    }

    fn show(&self, runs: Option<u64>) {
        if let Some(runs) = runs {
            self.bar.set_length(runs);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} runs {eta} {msg}") {
                self.bar.set_style(style);
            }
        } else if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} runs {elapsed} {msg}") {
            self.bar.set_style(style);
        }
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    /// Sends, unless this is a dry run.
    async fn post<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        body: &impl serde::Serialize,
    ) -> Result<Option<T>> {
        match &self.client {
            Some(client) if !self.options.dry_run => {
                let path = format!("/api/v1/tracking/import/{what}");
                client.post(&path, body).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// What has come whole before, by id.
    async fn known(&self, kind: &str, things: Vec<(String, String)>) -> Result<HashMap<String, Mark>> {
        let Some(client) = self
            .client
            .as_ref()
            .filter(|_| !self.options.recheck && !things.is_empty())
        else {
            return Ok(HashMap::new());
        };
        let asked = Marks {
            source: self.name.clone(),
            kind: kind.to_owned(),
            things: things
                .into_iter()
                .map(|(id, fingerprint)| mark(&id, &fingerprint, json!({})))
                .collect(),
        };
        let known: Known = client.post("/api/v1/tracking/import/known", &asked).await?;
        Ok(known
            .known
            .into_iter()
            .map(|mark| (mark.id.clone(), mark))
            .collect())
    }

    async fn remember(&self, kind: &str, things: Vec<Mark>) -> Result<()> {
        if things.is_empty() {
            return Ok(());
        }
        let done = Marks {
            source: self.name.clone(),
            kind: kind.to_owned(),
            things,
        };
        self.post::<Value>("marks", &done).await?;
        Ok(())
    }

    /// The experiments' ids in the source and here.
    async fn experiments(&self) -> Result<Vec<(String, i64)>> {
        let page = self.source.experiments().await?;
        self.tally().broken(page.broken);
        let body = Experiments {
            source: self.name.clone(),
            experiments: page.items,
        };
        let answer: Option<Value> = self.post("experiments", &body).await?;
        let Some(mut answer) = answer else {
            let mut tally = self.tally();
            for experiment in &body.experiments {
                tally.outcome("experiments", &experiment.id, "created", None);
            }
            return Ok(body.experiments.into_iter().map(|e| (e.id, 0)).collect());
        };
        let placed: Vec<PlacedExperiment> = serde_json::from_value(answer["experiments"].take())?;
        let mut tally = self.tally();
        for (place, experiment) in placed.iter().zip(&body.experiments) {
            tally.outcome("experiments", &place.source_id, &place.outcome, None);
            let (id, name, here) = (&place.source_id, &experiment.name, place.experiment);
            match place.outcome.as_str() {
                "renumbered" => tally.notes.push(format!(
                    "experiment {id} `{name}` is {here} here: its number was another's"
                )),
                "joined" => tally.notes.push(format!(
                    "experiment {id} `{name}` went into {here}, which has that name here"
                )),
                _ => {}
            }
        }
        Ok(placed.into_iter().map(|p| (p.source_id, p.experiment)).collect())
    }

    async fn runs(&self, experiment: &str, here: i64) -> Result<()> {
        let mut from = None;
        loop {
            let page = match self.source.runs(experiment, from).await {
                Ok(page) => page,
                Err(error) => {
                    self.tally()
                        .fail("experiments", experiment, &format!("{error:#}"), false);
                    return Ok(());
                }
            };
            self.tally().broken(page.broken);
            let things = page
                .items
                .iter()
                .map(|run| (run.run.run_id.clone(), self.fingerprint(run)));
            let known = self.known("run", things.collect()).await?;
            let mut todo = Vec::new();
            for run in page.items {
                match known.get(&run.run.run_id) {
                    Some(mark) => self.skip(&run, here, mark),
                    None => todo.push(run),
                }
            }
            let came: Vec<Result<Came>> = futures::stream::iter(todo)
                .map(|run| self.bring(run, here))
                .buffer_unordered(TOGETHER)
                .collect()
                .await;
            let mut whole = Vec::new();
            let mut ended = Ok(());
            for each in came {
                match each {
                    Ok(Came::Whole(mark)) => whole.push(mark),
                    Ok(Came::InPart) => {}
                    Err(error) => ended = Err(error),
                }
            }
            self.remember("run", whole).await?;
            ended?;
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn fingerprint(&self, run: &SourceRun) -> String {
        // A later import with artifacts has something left to do.
        let with = if self.options.artifacts {
            ""
        } else {
            " without artifacts"
        };
        format!("{}{with}", run.fingerprint)
    }

    fn note_moved(&self, id: &str, from: &str, to: String) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.insert(id.to_owned(), (from.to_owned(), to));
    }

    fn skip(&self, run: &SourceRun, here: i64, mark: &Mark) {
        let (id, from) = (&run.run.run_id, &run.run.artifact_uri);
        if !matches!(run.files, Place::Remote(_)) {
            self.note_moved(id, from, run_artifacts(here, id));
        }
        let mut tally = self.tally();
        tally.outcome("runs", id, "present", None);
        for (kind, name) in [("metrics", "metrics"), ("artifacts", "artifacts")] {
            let count = mark.counts[name].as_u64().unwrap_or(0);
            tally.of(kind).found += count;
            tally.of(kind).already_there += count;
        }
        drop(tally);
        self.bar.inc(1);
    }

    async fn bring(&self, found: SourceRun, here: i64) -> Result<Came> {
        let id = found.run.run_id.clone();
        let came = self.bring_run(&found, here).await;
        self.bar.inc(1);
        match came {
            Ok(came) => Ok(came),
            // Without a destination nothing can go on.
            Err(error) if is_unreachable(&error) => Err(error),
            Err(error) => {
                let mut tally = self.tally();
                tally.of("runs").found += 1;
                let source_is_wrong = error
                    .chain()
                    .all(|c| !c.is::<reqwest::Error>() && !c.is::<crate::client::ApiFailure>());
                tally.fail("runs", &id, &format!("{error:#}"), source_is_wrong);
                Ok(Came::InPart)
            }
        }
    }

    async fn bring_run(&self, found: &SourceRun, here: i64) -> Result<Came> {
        let id = &found.run.run_id;
        let run = Run {
            experiment: here,
            artifact_uri: match &found.files {
                Place::Remote(uri) => uri.clone(),
                _ => String::new(),
            },
            ..found.run.clone()
        };
        let (pages, mut receive) = mpsc::channel(2);
        let read = async {
            self.source.history(found, pages.clone()).await?;
            // An empty page says that this was all; without it the source failed. Nobody listens only where the run was refused.
            let _ = pages.send(Vec::new()).await;
            drop(pages);
            anyhow::Ok(())
        };
        let send = async {
            let sent = self.send_run(run, &mut receive).await;
            // Nobody takes what the source still has to say, also where sending failed: it must not wait for ever.
            receive.close();
            sent
        };
        let (read, sent) = tokio::join!(read, send);
        // The source's error says more than what came of it.
        read?;
        let Brought {
            outcome,
            reason,
            points,
            fresh_points,
        } = sent?;
        {
            let mut tally = self.tally();
            tally.outcome("runs", id, &outcome, reason.as_deref());
            if outcome == "refused" {
                return Ok(Came::InPart);
            }
            let metrics = tally.of("metrics");
            metrics.found += points;
            metrics.imported += fresh_points;
            metrics.already_there += points.saturating_sub(fresh_points);
        }
        let target = run_artifacts(here, id);
        if !matches!(found.files, Place::Remote(_)) {
            self.note_moved(id, &found.run.artifact_uri, target.clone());
        }
        let files = self
            .bring_files(id, &found.files, &target, outcome == "created")
            .await?;
        let ended = !matches!(found.run.status.as_str(), "RUNNING" | "SCHEDULED");
        match files {
            Some(count) if ended && !self.options.dry_run => {
                let counts = json!({ "metrics": points, "artifacts": count });
                Ok(Came::Whole(mark(id, &self.fingerprint(found), counts)))
            }
            _ => Ok(Came::InPart),
        }
    }

    /// Sends a run with its first points, then the others as they come.
    async fn send_run(&self, run: Run, pages: &mut mpsc::Receiver<Vec<Metric>>) -> Result<Brought> {
        let id = run.run_id.clone();
        let mut brought = Brought::default();
        let mut run = Some(run);
        while let Some(metrics) = pages.recv().await {
            if metrics.is_empty() && run.is_none() {
                break;
            }
            let points = metrics.len() as u64;
            let body = Runs {
                source: self.name.clone(),
                runs: run.take().into_iter().collect(),
                metrics: vec![RunMetrics {
                    run_id: id.clone(),
                    metrics,
                }],
            };
            let answer: Option<RunOutcomes> = self.post("runs", &body).await?;
            brought.points += points;
            match answer {
                Some(answer) => {
                    brought.fresh_points += answer.metrics as u64;
                    if let Some(first) = answer.runs.into_iter().next() {
                        brought.outcome = first.outcome;
                        brought.reason = first.reason;
                    }
                }
                None => {
                    brought.fresh_points += points;
                    "created".clone_into(&mut brought.outcome);
                }
            }
            if brought.outcome == "refused" {
                pages.close();
                break;
            }
        }
        Ok(brought)
    }

    /// How many files there are of a run or model, if all of them came or are meant to stay.
    async fn bring_files(&self, id: &str, place: &Place, target: &str, fresh: bool) -> Result<Option<u64>> {
        match place {
            Place::Nowhere => return Ok(Some(0)),
            Place::Remote(uri) => {
                let scheme = uri.split(':').next().unwrap_or_default();
                let reason = format!("folders stay in `{scheme}://`, where clients reach them by themselves");
                self.tally().leave("artifacts", 1, &reason);
                return Ok(Some(0));
            }
            Place::Unreachable(reason) => {
                self.tally().leave("artifacts", 1, reason);
                return Ok(None);
            }
            Place::Folder(_) | Place::Proxy(_) => {}
        }
        if !self.options.artifacts {
            self.tally()
                .leave("artifacts", 1, "folders, as `--no-artifacts` says");
            return Ok(Some(0));
        }
        let Some(client) = self.client.as_ref().filter(|_| !self.options.dry_run) else {
            let files = super::source::files_of(place, self.source.server()).await?;
            let mut tally = self.tally();
            tally.of("artifacts").found += files.len() as u64;
            tally.of("artifacts").imported += files.len() as u64;
            return Ok(None);
        };
        let sent = artifacts::send(self.source, client, place, target, fresh).await?;
        let mut tally = self.tally();
        let count = tally.of("artifacts");
        count.found += sent.found;
        count.imported += sent.uploaded;
        count.already_there += sent.present;
        tally.bytes += sent.bytes;
        let whole = sent.failed.is_empty();
        for (path, error) in sent.failed {
            tally.fail("artifacts", &format!("{id}/{path}"), &format!("{error:#}"), false);
        }
        Ok(whole.then_some(sent.found))
    }
}

/// What came of a run's numbers.
#[derive(Debug, Default)]
struct Brought {
    outcome: String,
    reason: Option<String>,
    points: u64,
    fresh_points: u64,
}

fn mark(id: &str, fingerprint: &str, counts: Value) -> Mark {
    Mark {
        id: id.to_owned(),
        target: id.to_owned(),
        fingerprint: Some(fingerprint.to_owned()),
        counts,
    }
}
