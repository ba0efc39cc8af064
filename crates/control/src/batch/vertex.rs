//! Vertex AI's batch prediction: instances of files, each with its prediction beside it, a file of results for each file of the input. An
//! instance that cannot be predicted is written with its error, and does not keep the others from being predicted.

use std::fmt::Write as _;
use std::path::PathBuf;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::ask::AskBody;
use super::error::{BatchError, Result};
use super::ledger::Ledger;
use super::lines::{Line, Lines};
use super::places::{Place, Places};
use super::worker::Worker;

/// The longest line.
const LONGEST: usize = 16 << 20;
/// Lines of so many bytes together end a batch, however few they are.
const BATCH_BYTES: usize = 8 << 20;
/// Requests that are under way at once.
const AT_ONCE: usize = 4;

/// How instances are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VertexInstances {
    /// A JSON value a line.
    Jsonl,
    /// A line of names, then lines of values; each becomes a list.
    CsvLists,
    /// The same; each becomes an object.
    CsvObjects,
}

/// What a batch prediction is to do.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Vertex {
    /// Files; the last name of each may have `*` in it.
    pub inputs: Vec<String>,
    /// How these are written.
    pub instances: VertexInstances,
    /// The folder of the output, which is this job's own.
    pub output: String,
    /// Instances in one request.
    pub batch_size: usize,
    /// What goes with each request.
    pub parameters: Value,
}

impl Vertex {
    /// Refuses what cannot be done.
    pub(super) fn check(&self, places: &Places) -> Result<()> {
        if self.inputs.is_empty() {
            return Err(BatchError::refused(
                "no input is named: `gcsSource.uris` is empty",
            ));
        }
        for input in &self.inputs {
            places.find(input)?;
        }
        places.find(&self.output).map(|_| ())
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// Instances that are predicted.
    rows: u64,
    /// Instances that could not be.
    rows_failed: u64,
    files_done: u64,
    files: u64,
}

/// What was counted of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    rows: u64,
    failed: u64,
}

/// An instance, or why a line is none.
type Read = std::result::Result<Value, Box<(Value, BatchError)>>;

/// Instances that go in one request.
struct Batch {
    number: usize,
    first_line: u64,
    instances: Vec<Read>,
}

/// What is written of a batch.
#[derive(Default)]
struct Written {
    results: String,
    errors: String,
    counted: Counted,
}

impl Written {
    fn result(&mut self, instance: &Value, prediction: &Value) {
        let line = json!({ "instance": instance, "prediction": prediction });
        // Writing to a text cannot fail.
        let _ = writeln!(self.results, "{line}");
        self.counted.rows += 1;
    }

    fn error(&mut self, instance: &Value, error: &BatchError) {
        // Google's code for an argument that is wrong, and for a fault of the server.
        let code = match error.blame {
            tidemill_core::ports::Blame::Caller => 3,
            _ => 13,
        };
        let status = json!({ "code": code, "message": error.message });
        let line = json!({ "instance": instance, "error": status });
        let _ = writeln!(self.errors, "{line}");
        self.counted.failed += 1;
    }
}

impl Worker {
    /// Does the prediction, or what is left of it.
    pub(super) async fn vertex(&self, asked: &Vertex) -> Result<()> {
        let mut files = Vec::new();
        for input in &asked.inputs {
            files.extend(self.named(input).await?);
        }
        let output = self.places.find(&asked.output)?;
        let mut ledger = Ledger::<Counted>::open(&self.folder)?;
        let mut progress = Progress {
            files: files.len() as u64,
            ..Progress::default()
        };
        for (number, file) in files.iter().enumerate() {
            let name = file.shown();
            let key = format!("{number} {name}");
            let counted = match ledger.get(&key) {
                Some(counted) => *counted,
                None => {
                    let before = progress;
                    let tell = |counted: &Counted| {
                        self.told.tell(&Progress {
                            rows: before.rows + counted.rows,
                            rows_failed: before.rows_failed + counted.failed,
                            ..before
                        });
                    };
                    let results = format!("prediction.results-{number:05}-of-{:05}", files.len());
                    let work = FileWork {
                        worker: self,
                        asked,
                        number,
                    };
                    let counted =
                        work.run(file, &output.below(&results), &tell)
                            .await
                            .map_err(|mut error| {
                                error.message = format!("`{name}`: {}", error.message);
                                error.at("file", name.clone())
                            })?;
                    ledger.add(&key, &counted)?;
                    counted
                }
            };
            progress.rows += counted.rows;
            progress.rows_failed += counted.failed;
            progress.files_done += 1;
            self.told.tell(&progress);
        }
        self.gather_errors(files.len(), &output).await
    }

    /// The files that an input names.
    async fn named(&self, input: &str) -> Result<Vec<Place>> {
        let Some((before, after)) = input.rsplit('/').next().and_then(|name| name.split_once('*')) else {
            let place = self.places.find(input)?;
            let files = self.inputs(&place, input.ends_with('/')).await?;
            return Ok(files.into_iter().map(|(_, file)| file).collect());
        };
        let (folder, _) = self.places.find(input)?.parted();
        let mut found = self.places.files(&self.caller, &folder).await?;
        found.retain(|file| {
            let name = &file.path;
            let long = name.len() >= before.len() + after.len() && !name.contains('/');
            long && name.starts_with(before) && name.ends_with(after)
        });
        if found.is_empty() {
            return Err(BatchError::missing(format!("no file fits `{input}`")));
        }
        Ok(found.iter().map(|file| folder.below(&file.path)).collect())
    }

    fn errors_of(&self, number: usize) -> PathBuf {
        self.folder.join(format!("errors-{number}.jsonl"))
    }

    /// The errors of all files as one.
    async fn gather_errors(&self, files: usize, output: &Place) -> Result<()> {
        let target = output.below("prediction.errors_stats-00000-of-00001");
        let mut upload = self.places.upload(&self.caller, &target).await?;
        for number in 0..files {
            upload.pour(&self.errors_of(number)).await?;
        }
        upload.finish().await
    }
}

/// The work on one file.
struct FileWork<'a> {
    worker: &'a Worker,
    asked: &'a Vertex,
    number: usize,
}

impl FileWork<'_> {
    async fn run(&self, file: &Place, target: &Place, tell: &(dyn Fn(&Counted) + Sync)) -> Result<Counted> {
        let worker = self.worker;
        let Some(open) = worker.places.open(&worker.caller, file).await? else {
            return Err(BatchError::missing("it is gone"));
        };
        let mut lines = Lines::of(open, LONGEST);
        let names = match self.asked.instances {
            VertexInstances::Jsonl => Vec::new(),
            VertexInstances::CsvLists | VertexInstances::CsvObjects => match lines.next().await? {
                Some(line) => csv_fields(&line)?,
                None => {
                    return Err(BatchError::bad_input(
                        "its first line has to hold the columns' names",
                    ));
                }
            },
        };
        let kept = worker.errors_of(self.number);
        let failed = |error: std::io::Error| {
            BatchError::internal(format!("cannot write `{}`: {error}", kept.display()))
        };
        let mut errors = std::fs::File::create(&kept).map_err(failed)?;
        let mut counted = Counted::default();
        let mut upload = worker.places.upload(&worker.caller, target).await?;
        let batches = self.batches(lines, names);
        let answers = batches.map(|batch| async { self.answer(batch?).await });
        let mut answers = std::pin::pin!(answers.buffered(AT_ONCE));
        while let Some(written) = answers.next().await {
            let written = written?;
            counted.rows += written.counted.rows;
            counted.failed += written.counted.failed;
            if !written.results.is_empty() {
                upload.write(written.results.into()).await?;
            }
            std::io::Write::write_all(&mut errors, written.errors.as_bytes()).map_err(failed)?;
            tell(&counted);
        }
        errors.sync_all().map_err(failed)?;
        upload.finish().await?;
        Ok(counted)
    }

    fn batches(&self, lines: Lines, names: Vec<String>) -> impl futures::Stream<Item = Result<Batch>> {
        let (size, how) = (self.asked.batch_size.max(1), self.asked.instances);
        futures::stream::try_unfold(
            (lines, names, 0_usize),
            move |(mut lines, names, number)| async move {
                let mut batch = Batch {
                    number,
                    first_line: 0,
                    instances: Vec::new(),
                };
                let mut bytes = 0;
                while batch.instances.len() < size
                    && bytes < BATCH_BYTES
                    && let Some(line) = lines.next().await?
                {
                    if batch.instances.is_empty() {
                        batch.first_line = line.number;
                    }
                    bytes += line.text.len();
                    batch.instances.push(instance(how, &names, &line));
                }
                let any = !batch.instances.is_empty();
                Ok(any.then_some((batch, (lines, names, number + 1))))
            },
        )
    }

    /// Predicts a batch; where it cannot be predicted as a whole, each of its instances by itself.
    async fn answer(&self, batch: Batch) -> Result<Written> {
        let good: Vec<Value> = batch
            .instances
            .iter()
            .filter_map(|read| read.as_ref().ok().cloned())
            .collect();
        let id = format!("batch-{}-{}-{}", self.worker.id, self.number, batch.number);
        let together = match good.len() {
            0 => Ok(Vec::new()),
            _ => self.predictions(good, id.clone()).await,
        };
        let mut together = match together {
            Ok(predictions) => Some(predictions.into_iter()),
            // Trying one by one would not help.
            Err(error) if error.passing => return Err(error),
            Err(_) => None,
        };
        let mut written = Written::default();
        for (place, read) in batch.instances.iter().enumerate() {
            let instance = match read {
                Ok(instance) => instance,
                Err(wrong) => {
                    written.error(&wrong.0, &wrong.1);
                    continue;
                }
            };
            if let Some(predictions) = &mut together {
                written.result(instance, &predictions.next().unwrap_or_default());
                continue;
            }
            match self
                .predictions(vec![instance.clone()], format!("{id}-{place}"))
                .await
            {
                Ok(one) => written.result(instance, one.first().unwrap_or(&Value::Null)),
                Err(error) if error.passing => return Err(error),
                Err(mut error) => {
                    error.message = format!("from line {}: {}", batch.first_line, error.message);
                    written.error(instance, &error);
                }
            }
        }
        Ok(written)
    }

    async fn predictions(&self, instances: Vec<Value>, id: String) -> Result<Vec<Value>> {
        let count = instances.len();
        let body = AskBody::Instances(instances, self.asked.parameters.clone());
        let asking = self.worker.asking(body, Some(id));
        match self.worker.ask.ask(asking).await?.json()? {
            Value::Array(predictions) if predictions.len() == count => Ok(predictions),
            Value::Array(predictions) => Err(BatchError::bad_input(format!(
                "{count} instances were sent and {} predictions came",
                predictions.len()
            ))),
            _ => Err(BatchError::bad_input("the answer is no list of predictions")),
        }
    }
}

/// A line as an instance.
fn instance(how: VertexInstances, names: &[String], line: &Line) -> Read {
    let text = || Value::String(String::from_utf8_lossy(&line.text).into_owned());
    let wrong = |error: BatchError| Box::new((text(), error));
    if how == VertexInstances::Jsonl {
        return serde_json::from_slice(&line.text).map_err(|error| {
            wrong(BatchError::bad_input(format!(
                "line {} is not JSON: {error}",
                line.number
            )))
        });
    }
    let fields = csv_fields(line).map_err(wrong)?;
    if fields.len() != names.len() {
        return Err(wrong(BatchError::bad_input(format!(
            "line {} has {} values, and there are {} columns",
            line.number,
            fields.len(),
            names.len()
        ))));
    }
    let values = fields.into_iter().map(cell);
    Ok(match how {
        VertexInstances::CsvObjects => names.iter().cloned().zip(values).collect::<Map<_, _>>().into(),
        _ => values.collect(),
    })
}

/// A value of a CSV file: a number if it reads as one.
fn cell(text: String) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(number @ Value::Number(_)) => number,
        _ => Value::String(text),
    }
}

fn csv_fields(line: &Line) -> Result<Vec<String>> {
    let text = std::str::from_utf8(&line.text).map_err(|error| {
        BatchError::bad_input(format!("line {} is not UTF-8: {error}", line.number)).at("row", line.number)
    })?;
    Ok(super::transform::fields(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_instances_or_say_why_not() {
        let line = |text: &'static str| Line {
            number: 2,
            text: bytes::Bytes::from_static(text.as_bytes()),
        };
        let names = ["a".to_owned(), "b".to_owned()];
        let read = |how, text| instance(how, &names, &line(text));
        assert_eq!(read(VertexInstances::Jsonl, "[1,2]").unwrap(), json!([1, 2]));
        assert_eq!(
            read(VertexInstances::CsvLists, "1.5,\"x,y\"").unwrap(),
            json!([1.5, "x,y"])
        );
        assert_eq!(
            read(VertexInstances::CsvObjects, "1,").unwrap(),
            json!({ "a": 1, "b": null })
        );
        let (kept, error) = *read(VertexInstances::CsvLists, "1").unwrap_err();
        assert_eq!(kept, json!("1"));
        assert!(error.message.contains("line 2 has 1 values"), "{error}");
        assert!(
            read(VertexInstances::Jsonl, "{")
                .unwrap_err()
                .1
                .message
                .contains("line 2 is not JSON")
        );
    }
}
