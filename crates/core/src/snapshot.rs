//! The manifest of a snapshot: an immutable, content-addressed version of a dataset.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::frame::{FeatureSchema, Task};

/// A file of a snapshot, stored under its digest in the object store.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// The BLAKE3 digest of the bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Rows.
    pub rows: u64,
}

/// What came in and from where.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SnapshotOrigin {
    /// The source pattern of the spec, and the rows that it gave.
    pub source: Option<(String, u64)>,
    /// Rows that came from served predictions and their labels.
    pub served_rows: u64,
    /// Labels were read as known at this time.
    pub as_of: Timestamp,
}

/// An immutable version of a dataset. Its id is the digest of its canonical JSON without the validation result.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SnapshotManifest {
    /// The digest that names it.
    pub digest: Digest,
    /// The dataset's name: the project's.
    pub dataset: String,
    /// The model's inputs.
    pub features: FeatureSchema,
    /// The time column.
    pub time: Option<String>,
    /// The label column.
    pub label: String,
    /// Which question the label answers.
    pub task: Task,
    /// The classes of a multiclass label, sorted.
    pub classes: Vec<String>,
    /// The data, Parquet, sorted by time.
    pub files: Vec<SnapshotFile>,
    /// Rows in all.
    pub rows: u64,
    /// The first and last time in the data.
    pub time_range: Option<(Timestamp, Timestamp)>,
    /// Where the rows came from.
    pub origin: SnapshotOrigin,
    /// The profile of each column: what monitors compare with (JSON, written by `data`, read through `stats`).
    pub profile: BTreeMap<String, serde_json::Value>,
    /// Great Expectations' validation result of the suite on this snapshot; `None` if the spec has no expectation.
    pub validation: Option<serde_json::Value>,
    /// A critical expectation failed: never train on it.
    pub quarantined: bool,
}
