//! The work of one job.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tidemill_core::batches::{BatchEngine, BatchFiles};
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::spec::DataFormat;

use super::ask::{AskBody, Asking, Patient};
use super::error::{BatchError, Result};
use super::folder::{LocalFolder, OutFolder};
use super::places::{Place, Places, local_path};
use super::rows::{self, AskRows, RowsJob, RowsOutcome};
use super::shape::Shape;
use super::shelf::Elsewhere;
use crate::tracking::Caller;

/// Requests of one job that are under way at once; all jobs together have fewer places on a small machine.
const REQUESTS: usize = 4;

/// How far a job is.
pub(super) struct Told(Mutex<Value>);

impl Told {
    pub fn new(progress: Value) -> Self {
        Self(Mutex::new(progress))
    }

    /// What was told last.
    pub fn latest(&self) -> Value {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells.
    pub fn tell(&self, progress: &impl Serialize) {
        if let Ok(value) = serde_json::to_value(progress) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
        }
    }
}

/// Whoever works on one job.
pub(super) struct Worker {
    pub id: String,
    pub endpoint: EndpointName,
    pub version: Option<VersionNumber>,
    pub shape: Shape,
    pub caller: Caller,
    pub places: Places,
    pub files: Arc<dyn BatchEngine>,
    pub ask: Patient,
    pub told: Arc<Told>,
    /// When the attempt began.
    pub begun: Timestamp,
    /// For what the job needs while it is worked on.
    pub folder: PathBuf,
}

impl Worker {
    /// Does the job, or what is left of it.
    pub async fn run(&self) -> Result<()> {
        match &self.shape {
            Shape::Transform(asked) => self.transform(asked).await,
            Shape::Vertex(asked) => self.vertex(asked).await,
            Shape::Invoke(asked) => self.invoke(asked, self.begun).await,
            Shape::Rows {
                input,
                output,
                format,
                part_rows,
            } => {
                self.rows(input, output, *format, Shape::rows_in(*part_rows))
                    .await
            }
        }
    }

    /// A request of this job.
    pub fn asking(&self, body: AskBody, id: Option<String>) -> Asking {
        Asking {
            endpoint: self.endpoint.clone(),
            version: self.version,
            id,
            body,
        }
    }

    async fn rows(
        &self,
        input: &str,
        output: &str,
        format: Option<DataFormat>,
        part_rows: usize,
    ) -> Result<()> {
        let files = self.open(&self.places.find(input)?).await?;
        let job = RowsJob {
            endpoint: self.endpoint.to_string(),
            version: self.version,
            part_rows,
            format: format.unwrap_or_else(|| files.format()),
            at_once: REQUESTS,
            id: Some(self.id.clone()),
        };
        let out = self.out(self.places.find(output)?)?;
        let tell = |outcome: &RowsOutcome| self.told.tell(outcome);
        rows::run(&job, &files, out.as_ref(), self, &tell).await?;
        Ok(())
    }

    /// The files of the input, on this machine.
    async fn open(&self, input: &Place) -> Result<Arc<dyn BatchFiles>> {
        let (root, pattern) = match local_path(input)? {
            Some(path) => (path.clone(), path),
            None => {
                let into = self.folder.join("input");
                let names = self.places.fetch(&self.caller, input, &into).await?;
                match &names[..] {
                    [] => {
                        return Err(BatchError::missing(format!(
                            "there is nothing at `{}`",
                            input.shown()
                        )));
                    }
                    [one] => (into, one.clone()),
                    _ => (into.clone(), into),
                }
            }
        };
        let files = self
            .files
            .open(Path::new("/"), &pattern.to_string_lossy())
            .await?;
        // A glob or a link may have led elsewhere.
        let root = within(&root, input);
        for file in files.files() {
            if !file.canonicalize().is_ok_and(|file| file.starts_with(&root)) {
                return Err(BatchError::denied(format!(
                    "`{}` leads out of `{}`",
                    file.display(),
                    root.display()
                )));
            }
        }
        Ok(files)
    }

    fn out(&self, output: Place) -> Result<Box<dyn OutFolder>> {
        Ok(match local_path(&output)? {
            Some(path) => Box::new(LocalFolder(path)),
            None => Box::new(Elsewhere {
                places: self.places.clone(),
                caller: self.caller.clone(),
                place: output,
                drafts: self.folder.join("output"),
            }),
        })
    }
}

/// The folder that files of the input may lie in, with links followed.
fn within(fetched: &Path, input: &Place) -> PathBuf {
    let folder = match input {
        Place::Local { root, .. } => root,
        Place::Artifacts { .. } => fetched,
    };
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

/// Removes what a job needed while it was worked on.
pub(super) fn remove(folder: &Path) {
    if folder.exists()
        && let Err(error) = std::fs::remove_dir_all(folder)
    {
        tracing::warn!(%error, folder = %folder.display(), "what a batch job needed is still there");
    }
}

impl AskRows for Worker {
    type Error = BatchError;

    async fn ask(&self, body: String, id: Option<String>) -> Result<Value> {
        self.ask.ask(self.asking(AskBody::Split(body), id)).await?.json()
    }

    fn at(mut error: BatchError, file: &Path, first_row: usize) -> BatchError {
        let row = error.place.get("row").and_then(Value::as_u64);
        let row = row.map_or(first_row as u64, |row| row + first_row as u64);
        error.message = format!("`{}` from row {row}: {}", file.display(), error.message);
        error.at("file", file.display().to_string()).at("row", row)
    }
}
