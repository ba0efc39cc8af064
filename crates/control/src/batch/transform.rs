//! `SageMaker`'s batch transform: each file of the input becomes one of the same name with `.out` behind it, answered record by record or in
//! batches of lines.

mod records;

use bytes::Bytes;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::ask::AskBody;
use super::error::{BatchError, Result};
use super::jsonpath::JsonPath;
use super::ledger::Ledger;
use super::lines::{Line, Lines};
use super::places::{Found, Place, Places};
use super::worker::Worker;
pub(super) use records::fields;
use records::{Records, Writing};

/// What goes into one request at most, whatever a job asks.
const MOST: u64 = 64 << 20;
/// So many requests of one job are under way at most, and so many bytes of all of them.
const MOST_AT_ONCE: u32 = 64;
const MOST_UNDER_WAY: u64 = 100 << 20;

/// What a batch transform is to do.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Transform {
    /// A file, or what the paths of files begin with.
    pub input: String,
    /// The folder of the output.
    pub output: String,
    /// The type of the files.
    pub content_type: String,
    /// The type that is wanted back; empty for the model's own.
    pub accept: String,
    /// Whether each line of a file is a record; otherwise the whole file is one.
    pub split_lines: bool,
    /// Whether each record goes in a request of its own.
    pub one_record: bool,
    /// Whether an answer ends with the end of a line.
    pub assemble_lines: bool,
    /// Bytes in one request at most; 0 for as many as are taken at all.
    pub max_payload: u64,
    /// Requests that are under way at once.
    pub at_once: u32,
    /// Which part of a record is sent.
    pub input_filter: String,
    /// Which part of an answer, or of a joined record, is kept.
    pub output_filter: String,
    /// Whether records are kept with their answers beside them.
    pub join: bool,
    /// How long one request may take, in seconds, where something is said.
    pub timeout_s: Option<u64>,
}

impl Transform {
    /// Refuses what cannot be done.
    pub(super) fn check(&self, places: &Places) -> Result<()> {
        places.find(&self.input)?;
        places.find(&self.output)?;
        self.check_size()?;
        let (input, output) = (
            JsonPath::parse(&self.input_filter)?,
            JsonPath::parse(&self.output_filter)?,
        );
        let looks_inside = self.join || !input.is_whole() || !output.is_whole();
        if looks_inside && Writing::of(&self.content_type).is_none() {
            return Err(BatchError::refused(format!(
                "`DataProcessing` needs records of `text/csv`, `application/json` or `application/jsonlines`, and `ContentType` is `{}`",
                self.content_type
            )));
        }
        if self.join && (!self.split_lines || !self.assemble_lines) {
            return Err(BatchError::refused(
                "`JoinSource` is `Input`, so `SplitType` and `AssembleWith` have to be `Line`",
            ));
        }
        if (self.join || !output.is_whole()) && Writing::of(&self.accept) != Writing::of(&self.content_type) {
            return Err(BatchError::refused(format!(
                "`JoinSource` and `OutputFilter` need an `Accept` that is the `ContentType`: they are `{}` and `{}`",
                self.accept, self.content_type
            )));
        }
        Ok(())
    }

    /// Refuses more bytes under way at once than `SageMaker` allows.
    pub(super) fn check_size(&self) -> Result<()> {
        let under_way = self.most().saturating_mul(u64::from(self.at_once.max(1)));
        if under_way > MOST_UNDER_WAY {
            return Err(BatchError::refused(format!(
                "`MaxConcurrentTransforms` times `MaxPayloadInMB` is {} MB, expected at most {} (a `MaxPayloadInMB` of 0 counts as {})",
                under_way >> 20,
                MOST_UNDER_WAY >> 20,
                MOST >> 20
            )));
        }
        Ok(())
    }

    fn most(&self) -> u64 {
        match self.max_payload {
            0 => MOST,
            asked => asked.min(MOST),
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// Records that are answered.
    rows: u64,
    /// Requests that took.
    requests: u64,
    files_done: u64,
    files: u64,
}

/// What was counted of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    rows: u64,
    requests: u64,
}

/// Lines that go in one request.
struct Batch {
    number: usize,
    first_line: u64,
    lines: Vec<Bytes>,
}

impl Worker {
    /// Does the transform, or what is left of it. A file that cannot be done does not keep the others from being done.
    pub(super) async fn transform(&self, asked: &Transform) -> Result<()> {
        let place = self.places.find(&asked.input)?;
        let output = self.places.find(&asked.output)?;
        let files = self.inputs(&place, asked.input.ends_with('/')).await?;
        let records = Records::of(asked)?;
        let mut ledger = Ledger::<Counted>::open(&self.folder)?;
        let mut progress = Progress {
            files: files.len() as u64,
            ..Progress::default()
        };
        let mut failed: Option<BatchError> = None;
        for (number, (name, file)) in files.iter().enumerate() {
            let before = progress;
            if let Some(counted) = ledger.get(name) {
                progress.rows += counted.rows;
                progress.requests += counted.requests;
            } else {
                let target = output.below(&format!("{name}.out"));
                let work = FileWork {
                    worker: self,
                    asked,
                    records: &records,
                    number,
                };
                let tell = |counted: &Counted| {
                    self.told.tell(&Progress {
                        rows: before.rows + counted.rows,
                        requests: before.requests + counted.requests,
                        ..before
                    });
                };
                match work.run(file, &target, &tell).await {
                    Ok(counted) => {
                        ledger.add(name, &counted)?;
                        progress.rows += counted.rows;
                        progress.requests += counted.requests;
                    }
                    Err(mut error) => {
                        error.message = format!("`{}`: {}", file.shown(), error.message);
                        failed.get_or_insert(error.at("file", file.shown()));
                        self.told.tell(&progress);
                        continue;
                    }
                }
            }
            progress.files_done += 1;
            self.told.tell(&progress);
        }
        failed.map_or(Ok(()), Err)
    }

    /// The files of the input: the one that is named, or all whose paths begin so; with the name that each has in the output.
    pub(super) async fn inputs(&self, place: &Place, is_folder: bool) -> Result<Vec<(String, Place)>> {
        let mut found: Vec<Found> = self.places.files(&self.caller, place).await?;
        if let [file] = &found[..]
            && file.path.is_empty()
        {
            return Ok(vec![(place.parted().1, place.clone())]);
        }
        let mut base = place.clone();
        if found.is_empty() && !is_folder {
            found = self.places.prefixed(&self.caller, place).await?;
            base = place.parted().0;
        }
        if found.is_empty() {
            return Err(BatchError::missing(format!(
                "there is no file at `{}`",
                place.shown()
            )));
        }
        Ok(found
            .into_iter()
            .map(|file| (file.path.clone(), base.below(&file.path)))
            .collect())
    }
}

/// The work on one file.
struct FileWork<'a> {
    worker: &'a Worker,
    asked: &'a Transform,
    records: &'a Records,
    number: usize,
}

impl FileWork<'_> {
    async fn run(&self, file: &Place, target: &Place, tell: &(dyn Fn(&Counted) + Sync)) -> Result<Counted> {
        let worker = self.worker;
        let Some(open) = worker.places.open(&worker.caller, file).await? else {
            return Err(BatchError::missing("it is gone"));
        };
        let most = self.asked.most();
        let mut counted = Counted::default();
        let mut upload = worker.places.upload(&worker.caller, target).await?;
        if !self.asked.split_lines {
            let size = open.size();
            let Some(bytes) = open.rest(most).await? else {
                return Err(BatchError::bad_input(format!(
                    "it has {size} bytes, and one request takes {most}: raise `MaxPayloadInMB`, or split it by `SplitType: Line`"
                )));
            };
            let batch = Batch {
                number: 0,
                first_line: 1,
                lines: vec![bytes.into()],
            };
            upload.write(self.answer(&batch).await?).await?;
            counted = Counted { rows: 1, requests: 1 };
            upload.finish().await?;
            return Ok(counted);
        }
        let lines = Lines::of(open, usize::try_from(most).unwrap_or(usize::MAX));
        let batches = self.batches(lines);
        let answers = batches.map(|batch| async {
            let batch = batch?;
            let answer = self.answer(&batch).await?;
            Ok::<_, BatchError>((batch.lines.len() as u64, answer))
        });
        // A job that was stored earlier may ask for more.
        let fits = u32::try_from(MOST_UNDER_WAY / most.max(1))
            .unwrap_or(u32::MAX)
            .max(1);
        let at_once = self.asked.at_once.clamp(1, MOST_AT_ONCE.min(fits)) as usize;
        let mut answers = std::pin::pin!(answers.buffered(at_once));
        while let Some(answered) = answers.next().await {
            let (rows, answer) = answered?;
            upload.write(answer).await?;
            counted.rows += rows;
            counted.requests += 1;
            tell(&counted);
        }
        upload.finish().await?;
        Ok(counted)
    }

    /// Lines in as many as go into one request.
    fn batches(&self, lines: Lines) -> impl futures::Stream<Item = Result<Batch>> {
        let (most, one) = (self.asked.most(), self.asked.one_record);
        let begin = (lines, None::<Line>, 0_usize);
        futures::stream::try_unfold(begin, move |(mut lines, held, number)| async move {
            let first = match held {
                Some(line) => line,
                None => match lines.next().await? {
                    Some(line) => line,
                    None => return Ok(None),
                },
            };
            let mut batch = Batch {
                number,
                first_line: first.number,
                lines: vec![first.text],
            };
            let mut size = batch.lines[0].len() as u64 + 1;
            let mut held = None;
            while !one && let Some(line) = lines.next().await? {
                if size + line.text.len() as u64 + 1 > most {
                    held = Some(line);
                    break;
                }
                size += line.text.len() as u64 + 1;
                batch.lines.push(line.text);
            }
            Ok(Some((batch, (lines, held, number + 1))))
        })
    }

    /// What is written for a batch.
    async fn answer(&self, batch: &Batch) -> Result<Bytes> {
        let located = |mut error: BatchError| {
            let row = error.place.get("row").and_then(serde_json::Value::as_u64);
            let line = batch.first_line + row.unwrap_or(0);
            if self.asked.split_lines {
                error.message = format!("from line {line}: {}", error.message);
                return error.at("row", line);
            }
            error
        };
        let (content_type, bytes) = self.records.request(&batch.lines).map_err(located)?;
        let id = format!("batch-{}-{}-{}", self.worker.id, self.number, batch.number);
        let asking = self.worker.asking(
            AskBody::Body {
                content_type,
                accept: self.records.accept.clone(),
                bytes,
                parameters: serde_json::Map::new(),
            },
            Some(id),
        );
        let limit = self.asked.timeout_s;
        let given = self
            .worker
            .ask
            .ask_within(asking, limit.map(std::time::Duration::from_secs))
            .await;
        let given = given.and_then(|given| {
            given.ok_or_else(|| {
                BatchError::bad_input(format!(
                    "a request took longer than {} s (`InvocationsTimeoutInSeconds`)",
                    limit.unwrap_or_default()
                ))
            })
        });
        let answer = given.map_err(located)?.bytes();
        self.records.written(&batch.lines, answer).map_err(located)
    }
}
