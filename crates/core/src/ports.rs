//! Object-safe ports: plain data in, plain data out. `control`, `serving` and `api` call these; `data` and `models` stand behind
//! them, so the tests of the former link neither DataFusion nor a trainer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::calls::CallRecord;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::frame::{FeatureSchema, Frame, Labels, Scores, Task};
use crate::ids::PredictionId;
use crate::predictions::{BatchShape, LabelValue, PredictionBatch};
use crate::snapshot::SnapshotManifest;
use crate::spec::Spec;

/// Who has to act on an error, which decides its status at the edge and whether a retry helps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blame {
    /// The caller's input: do not retry unchanged.
    Caller,
    /// A fault of ours: retry may help.
    Us,
    /// Something we depend on (disk, store, user's command).
    Upstream,
}

/// Why a port could not do its work. `message` is written for the reader: what, where, expected, what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    /// Who has to act.
    pub blame: Blame,
    /// A stable code, one page each in `docs/errors/`.
    pub code: &'static str,
    /// What happened, where, and what to do.
    pub message: String,
    /// Where in a user's code it was raised, for whoever may see that.
    pub trace: Option<Arc<str>>,
}

impl PortError {
    /// An error in the caller's input.
    pub fn caller(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            blame: Blame::Caller,
            code,
            message: message.into(),
            trace: None,
        }
    }

    /// A fault of ours.
    pub fn internal(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            blame: Blame::Us,
            code,
            message: message.into(),
            trace: None,
        }
    }

    /// A fault of something we depend on.
    pub fn upstream(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            blame: Blame::Upstream,
            code,
            message: message.into(),
            trace: None,
        }
    }
}

/// A model that is loaded and answers. Cheap to share; called from many threads at once.
pub trait Model: Send + Sync + std::fmt::Debug {
    /// What it needs and gives.
    fn signature(&self) -> &ModelSignature;
    /// Answers a batch of rows whose schema is the signature's.
    ///
    /// # Errors
    /// If the rows do not fit, or an answer is not finite.
    fn predict(&self, rows: &Frame) -> Result<Scores, PortError>;
    /// Whether training saw this value of a categorical feature, which is given by its place in the signature; `None` for a model that
    /// cannot say it.
    fn knows(&self, _feature: usize, _value: &str) -> Option<bool> {
        None
    }
    /// How much each feature adds to each answer; `None` for a model that cannot say it.
    ///
    /// # Errors
    /// If the rows do not fit.
    fn contributions(&self, _rows: &Frame) -> Result<Option<Contributions>, PortError> {
        Ok(None)
    }
}

/// How much each feature adds to each answer, before the answer becomes a probability or the like (`TreeSHAP`).
#[derive(Clone, PartialEq, Debug)]
pub struct Contributions {
    /// Sums that are explained: 1, or one a class.
    pub outputs: usize,
    /// Row by row, for each sum one number a feature in the signature's order, then the sum's expected value. They add up to the sum.
    pub values: Vec<f64>,
}

/// What a model needs and gives.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ModelSignature {
    /// Its inputs, in order.
    pub features: Arc<FeatureSchema>,
    /// The question it answers.
    pub task: Task,
    /// The classes of a multiclass model, in the order of its probabilities.
    pub classes: Arc<[String]>,
}

/// A stored model: its files by name. `model.json` is always there and says the format.
pub type ModelBundle = BTreeMap<String, Vec<u8>>;

/// Turns bundles into models.
pub trait ModelRuntime: Send + Sync {
    /// Loads a bundle.
    ///
    /// # Errors
    /// If the format is unknown or the files are broken.
    fn load(&self, bundle: &ModelBundle) -> Result<Arc<dyn Model>, PortError>;
}

/// What the built-in trainer gets.
#[derive(Debug)]
pub struct TrainRequest {
    /// Inputs.
    pub rows: Frame,
    /// Truth, one a row.
    pub labels: Labels,
    /// How long to search: perpetual's budget.
    pub budget: f64,
    /// At most so many rounds of boosting (perpetual's `iteration_limit`); `None` leaves it to the budget.
    pub iterations: Option<u32>,
    /// Makes the result repeatable.
    pub seed: u64,
}

/// A trained model and what training measured.
#[derive(Debug)]
pub struct TrainOutput {
    /// The model's files.
    pub bundle: ModelBundle,
    /// Numbers by name, such as the number of trees.
    pub metrics: BTreeMap<String, f64>,
}

/// The built-in trainer. Blocking: call it from a blocking thread.
pub trait Trainer: Send + Sync {
    /// Trains. The same request gives the same bytes.
    ///
    /// # Errors
    /// If the data cannot be learnt from (one class only, no rows), or the trainer fails.
    fn train(&self, request: TrainRequest) -> Result<TrainOutput, PortError>;
    /// Name and version of the algorithm, part of the run key.
    fn identity(&self) -> &'static str;
}

/// A served row with its label, on the way into a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedLabel {
    /// Which prediction.
    pub prediction_id: PredictionId,
    /// What was true.
    pub value: LabelValue,
}

/// What a snapshot is made of.
pub struct SnapshotRequest {
    /// The project.
    pub spec: Arc<Spec>,
    /// The folder that holds `tidemill.yaml`; relative sources start there.
    pub root: PathBuf,
    /// Rows of the source with a time in `[from, until)`; `None` leaves the source out. A bound that is `None` is open.
    pub source: Option<(Option<Timestamp>, Option<Timestamp>)>,
    /// Served predictions, and
    pub served: Vec<Arc<PredictionBatch>>,
    /// their labels; predictions without one are left out.
    pub labels: Vec<ServedLabel>,
    /// Labels of source rows count only if known by now.
    pub as_of: Timestamp,
}

/// The rows of a snapshot in memory, sorted by time.
#[derive(Debug, Clone)]
pub struct LabelledRows {
    /// Inputs.
    pub rows: Frame,
    /// Truth.
    pub labels: Labels,
    /// The time of each row; empty if the spec has no time column.
    pub times: Vec<Timestamp>,
}

/// A row of a source on its way through a replay.
#[derive(Debug, Clone)]
pub struct ReplayRow {
    /// When it is to be predicted.
    pub at: Timestamp,
    /// Its key.
    pub key: Option<Arc<str>>,
    /// What was true, if ever known.
    pub label: Option<LabelValue>,
    /// When that became known.
    pub label_at: Option<Timestamp>,
}

/// Part of a source, sorted by time: the inputs, and for each row when and what.
#[derive(Debug, Clone)]
pub struct ReplayChunk {
    /// Inputs.
    pub rows: Frame,
    /// One a row.
    pub meta: Vec<ReplayRow>,
}

/// What `tidemill init` and `doctor` learn about a column of a data file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ColumnSummary {
    /// Its name.
    pub name: String,
    /// Arrow's name of its type.
    pub data_type: String,
    /// `numeric`, `categorical`, `time` or `other`.
    pub role: String,
    /// Rows that are null.
    pub nulls: u64,
    /// Distinct values, exact up to 10,000.
    pub distinct: u64,
    /// Smallest, for numbers and times, as text.
    pub min: Option<String>,
    /// Largest, for numbers and times, as text.
    pub max: Option<String>,
    /// Up to ten values.
    pub examples: Vec<String>,
}

/// A look at a data file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceSummary {
    /// Rows in all.
    pub rows: u64,
    /// The columns, in the file's order.
    pub columns: Vec<ColumnSummary>,
}

/// Everything that DataFusion, Arrow and Parquet do for the rest of the house.
#[async_trait]
pub trait DataEngine: Send + Sync {
    /// Looks at a data file, folder or glob.
    async fn inspect(&self, root: &std::path::Path, source: &str) -> Result<SourceSummary, PortError>;

    /// Checks that the spec's columns and expressions exist in its source with fitting types.
    async fn check_spec(&self, root: &std::path::Path, spec: &Spec) -> Result<(), PortError>;

    /// Builds, validates and stores a snapshot. A quarantined one is stored too: the manifest says so.
    async fn build_snapshot(&self, request: SnapshotRequest) -> Result<SnapshotManifest, PortError>;

    /// Reads a snapshot's rows.
    async fn load_snapshot(&self, manifest: &SnapshotManifest) -> Result<LabelledRows, PortError>;

    /// Writes labelled rows as one Parquet file for a user's own trainer: features, label column, time column.
    async fn export_rows(
        &self,
        manifest: &SnapshotManifest,
        rows: &LabelledRows,
    ) -> Result<Vec<u8>, PortError>;

    /// Reads the rows of the spec's source with a time in `[from, until)`, sorted by time, with their labels.
    async fn read_replay(
        &self,
        root: &std::path::Path,
        spec: &Spec,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<ReplayChunk, PortError>;

    /// Reads the spec's features from another file, in the file's order: rows to be predicted, without label or time.
    async fn read_features(&self, file: &std::path::Path, spec: &Spec) -> Result<Frame, PortError>;

    /// The first and last time in the spec's source.
    async fn time_range(
        &self,
        root: &std::path::Path,
        spec: &Spec,
    ) -> Result<Option<(Timestamp, Timestamp)>, PortError>;

    /// The names, sizes and modification marks of the source's files, as one digest: it changes when data arrives.
    async fn source_digest(&self, root: &std::path::Path, spec: &Spec) -> Result<Digest, PortError>;
}

/// The prediction log as Parquet.
pub trait PredictionCodec: Send + Sync {
    /// Begins a file of batches of one endpoint, all of this shape and with the same features.
    fn batches(&self, shape: BatchShape) -> Box<dyn BatchWriter>;

    /// The batches of such a file; equal to what was written, request by request.
    fn decode_batches(&self, parquet: &[u8]) -> Result<Vec<PredictionBatch>, PortError>;

    /// Begins a file of calls of one deployment. `columns`: inputs that stand in columns of their own too, each a list of numbers or of
    /// texts a call.
    fn calls(&self, columns: Vec<CallColumn>) -> Box<dyn CallWriter>;

    /// The calls of such a file; equal to what was written.
    fn decode_calls(&self, parquet: &[u8]) -> Result<Vec<CallRecord>, PortError>;

    /// How many rows a file has, and its columns with their types in the words of Delta tables.
    fn delta_columns(&self, parquet: &[u8]) -> Result<(u64, Vec<(String, serde_json::Value)>), PortError>;
}

/// An input that stands in a column of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallColumn {
    /// Its name.
    pub name: String,
    /// Numbers, not texts.
    pub numeric: bool,
}

/// A Parquet file (zstd) of calls in the making.
pub trait CallWriter: Send {
    /// Appends calls.
    fn push(&mut self, calls: &[CallRecord]) -> Result<(), PortError>;
    /// The whole file.
    fn finish(self: Box<Self>) -> Result<Vec<u8>, PortError>;
}

/// A Parquet file (zstd) in the making.
pub trait BatchWriter: Send {
    /// Appends batches; what is kept in memory of them is compressed.
    fn push(&mut self, batches: &[PredictionBatch]) -> Result<(), PortError>;
    /// The whole file.
    fn finish(self: Box<Self>) -> Result<Vec<u8>, PortError>;
}

/// Bytes that can be read in parts, wherever they are.
#[async_trait]
pub trait ByteSource: Send + Sync {
    /// How many.
    fn size(&self) -> u64;
    /// All of those in a range.
    async fn read(&self, range: std::ops::Range<u64>) -> Result<Vec<u8>, PortError>;
}

/// Takes bytes piece by piece.
#[async_trait]
pub trait ByteSink: Send {
    /// Takes the next piece.
    async fn write(&mut self, piece: Vec<u8>) -> Result<(), PortError>;
}

/// How the rows of a file are written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableFormat {
    /// A JSON object with `columns` and `data`, a list of rows, as W&B's tables and MLflow's `log_table` are.
    JsonRows,
    /// Lines of values with a separator, the first of them names.
    Separated(char),
    /// Parquet.
    Parquet,
}

/// A column of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableColumn {
    /// Its name here: not empty, and no other column's.
    pub name: String,
    /// `boolean`, `integer`, `float`, `text`, `json`, `timestamp`, `date`, or Arrow's name of another type.
    #[serde(rename = "type")]
    pub data_type: String,
    /// What the file calls it, if that is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// What a table is made of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableShape {
    /// How many rows.
    pub rows: u64,
    /// Its columns, in order.
    pub columns: Vec<TableColumn>,
}

/// A table that can be asked for rows: Parquet, and what to call it in errors.
#[derive(Clone)]
pub struct NamedTable {
    /// Its name in queries and errors.
    pub name: String,
    /// Parquet.
    pub parquet: Arc<dyn ByteSource>,
}

/// Which rows of a table are wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TablePage {
    /// Only these columns, in this order; all of them if empty.
    pub columns: Vec<String>,
    /// Only rows for which this SQL expression is true.
    pub filter: Option<String>,
    /// By which columns to order, and whether downwards.
    pub order: Vec<(String, bool)>,
    /// How many rows to pass over.
    pub offset: u64,
    /// At most so many rows.
    pub limit: u32,
}

/// In which form rows are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowsFormat {
    /// A JSON list of lists.
    Json,
    /// Arrow's IPC stream.
    Arrow,
    /// Parquet.
    Parquet,
}

/// Rows of a table.
#[derive(Clone, PartialEq, Debug)]
pub struct TableRows {
    /// The columns, in order.
    pub columns: Vec<TableColumn>,
    /// How many rows there are here.
    pub rows: u64,
    /// How many rows the question would give without a limit, where that is known.
    pub total: Option<u64>,
    /// Whether there is more.
    pub more: bool,
    /// The rows in the form that was asked for.
    pub body: Vec<u8>,
}

/// Tables in files: turned into Parquet, looked into, and asked in SQL that only reads.
#[async_trait]
pub trait TableEngine: Send + Sync {
    /// Turns a file into Parquet, in memory that does not grow with the file.
    async fn to_parquet(
        &self,
        name: &str,
        file: Arc<dyn ByteSource>,
        format: TableFormat,
        sink: &mut dyn ByteSink,
    ) -> Result<TableShape, PortError>;

    /// What a Parquet file is made of.
    async fn shape(&self, table: NamedTable) -> Result<TableShape, PortError>;

    /// A page of rows.
    async fn page(
        &self,
        table: NamedTable,
        page: TablePage,
        format: RowsFormat,
    ) -> Result<TableRows, PortError>;

    /// The tables that a query names, if it is one that only reads.
    fn tables_in(&self, sql: &str) -> Result<Vec<String>, PortError>;

    /// Answers a query over tables, with at most `limit` rows.
    async fn query(
        &self,
        tables: Vec<NamedTable>,
        sql: &str,
        limit: u32,
        format: RowsFormat,
    ) -> Result<TableRows, PortError>;
}
