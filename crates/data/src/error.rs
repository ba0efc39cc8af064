//! What can go wrong with data, in words for the person who has to act.

use std::path::{Path, PathBuf};

use tidemill_core::ports::{Blame, PortError};

/// Why data could not be read, checked or written. Every message names the file, the place, the value, what was expected, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Nothing lies where the source points.
    #[error("no file for `{source_pattern}` under `{}`{hint}", root.display())]
    NoSuchSource {
        /// The pattern of the spec.
        source_pattern: String,
        /// Where it started.
        root: PathBuf,
        /// The nearest existing name, or what is accepted.
        hint: String,
    },
    /// A file whose ending tells no format.
    #[error(
        "`{}` has no known ending: expected `.parquet`, `.csv`, `.jsonl` or `.ndjson`; rename it or set `data.format`",
        file.display()
    )]
    UnknownFormat {
        /// The file.
        file: PathBuf,
    },
    /// Files of several formats or with unlike columns in one source.
    #[error("{0}")]
    UnlikeFiles(String),
    /// A source without rows.
    #[error("`{}` is empty: {what}", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// A file that is not what its ending says.
    #[error("`{}` cannot be read as {format}: {reason}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What it should be.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A value that does not fit.
    #[error("{place}: `{value}` {problem}")]
    BadValue {
        /// File, line or row, and column.
        place: String,
        /// The value.
        value: String,
        /// What was expected and what to do.
        problem: String,
    },
    /// A column that is not there.
    #[error("{what} names column `{column}`, which `{source_pattern}` does not have{hint}")]
    NoSuchColumn {
        /// What names it, such as `features`.
        what: String,
        /// The name.
        column: String,
        /// The source.
        source_pattern: String,
        /// The nearest names.
        hint: String,
    },
    /// A column of an unfit type.
    #[error("{what} `{column}` is {found}, expected {expected}")]
    ColumnType {
        /// What names it.
        what: String,
        /// The column or expression.
        column: String,
        /// What it is.
        found: String,
        /// What it should be, and what to do.
        expected: String,
    },
    /// An SQL expression that does not parse or plan.
    #[error("{what} `{expression}` is not a valid expression over `{source_pattern}`: {reason}")]
    Expression {
        /// Which setting.
        what: &'static str,
        /// Its text.
        expression: String,
        /// The source.
        source_pattern: String,
        /// Why not.
        reason: String,
    },
    /// The spec asks for something that its own parts do not allow.
    #[error("{0}")]
    Spec(String),
    /// An expectation suite that cannot be read, or an expectation that cannot be checked.
    #[error("{0}")]
    Suite(String),
    /// No labelled row.
    #[error("{0}")]
    SnapshotEmpty(String),
    /// Prediction batches that do not fit into one file, or a file that holds none.
    #[error("{0}")]
    Predictions(String),
    /// A stored file does not hold what its manifest says.
    #[error("{0}")]
    Stored(String),
    /// A file that cannot be read as a table.
    #[error("table `{table}` cannot be read: {reason}")]
    Table {
        /// Which.
        table: String,
        /// Why not, and where.
        reason: String,
    },
    /// A question about tables that cannot be answered.
    #[error("{0}")]
    Query(String),
    /// A question about tables that takes too much.
    #[error("{0}")]
    QueryLimit(String),
    /// The file system.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// DataFusion.
    #[error("the query engine failed: {0}")]
    DataFusion(#[from] datafusion::error::DataFusionError),
    /// Arrow.
    #[error("the columnar engine failed: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Parquet.
    #[error("the Parquet codec failed: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// A frame that does not fit together.
    #[error(transparent)]
    Frame(#[from] tidemill_core::frame::FrameError),
    /// The object store, or a worker thread.
    #[error("{0}")]
    Upstream(String),
    /// JSON of ours that does not serialize.
    #[error("a JSON document could not be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// What this crate's functions return.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

impl DataError {
    /// A file system error at `path`.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// The stable code, one page each in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSuchSource { .. } => "source_not_found",
            Self::UnknownFormat { .. } => "source_format_unknown",
            Self::UnlikeFiles(_) => "source_files_differ",
            Self::Empty { .. } => "source_empty",
            Self::Corrupt { .. } => "source_corrupt",
            Self::BadValue { .. } => "source_bad_value",
            Self::NoSuchColumn { .. } => "column_not_found",
            Self::ColumnType { .. } => "column_type",
            Self::Expression { .. } => "expression_invalid",
            Self::Spec(_) => "spec_invalid",
            Self::Suite(_) => "expectation_invalid",
            Self::SnapshotEmpty(_) => "snapshot_empty",
            Self::Predictions(_) => "predictions_invalid",
            Self::Stored(_) => "stored_data_broken",
            Self::Table { .. } => "table_invalid",
            Self::Query(_) => "query_invalid",
            Self::QueryLimit(_) => "query_limit",
            Self::Io { .. } => "io",
            Self::Upstream(_) => "object_store",
            Self::DataFusion(_) | Self::Arrow(_) | Self::Parquet(_) | Self::Frame(_) | Self::Json(_) => {
                "data_engine"
            }
        }
    }

    /// Whether an engine failed, in words that name no file: worth a look for the place.
    pub fn is_of_engine(&self) -> bool {
        matches!(self, Self::DataFusion(_) | Self::Arrow(_) | Self::Parquet(_))
    }

    /// Whether an engine failed to read a file, and not to compute with what it had read.
    pub fn is_of_reading(&self) -> bool {
        use arrow::error::ArrowError;
        use datafusion::error::DataFusionError;
        let arrow_read = |e: &ArrowError| {
            matches!(
                e,
                ArrowError::ParquetError(_)
                    | ArrowError::CsvError(_)
                    | ArrowError::JsonError(_)
                    | ArrowError::IoError(_, _)
            )
        };
        match self {
            Self::Parquet(_) => true,
            Self::Arrow(e) => arrow_read(e),
            Self::DataFusion(e) => match e.find_root() {
                DataFusionError::ParquetError(_)
                | DataFusionError::IoError(_)
                | DataFusionError::ObjectStore(_) => true,
                DataFusionError::ArrowError(e, _) => arrow_read(e),
                DataFusionError::External(e) => {
                    e.is::<DataError>() || e.is::<parquet::errors::ParquetError>()
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Io { .. } | Self::Upstream(_) => Blame::Upstream,
            Self::Predictions(_)
            | Self::Stored(_)
            | Self::DataFusion(_)
            | Self::Arrow(_)
            | Self::Parquet(_)
            | Self::Frame(_)
            | Self::Json(_) => Blame::Us,
            _ => Blame::Caller,
        }
    }
}

impl From<DataError> for PortError {
    fn from(error: DataError) -> Self {
        Self {
            blame: error.blame(),
            code: error.code(),
            message: error.to_string(),
            trace: None,
        }
    }
}

/// ` (did you mean …?)` for the names nearest to `wanted`, or the first few names there are; empty where there is none.
pub fn suggest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let mut scored: Vec<(f64, &str)> = names
        .into_iter()
        .map(|name| {
            let likeness = strsim::jaro_winkler(&wanted.to_lowercase(), &name.to_lowercase());
            (likeness, name)
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let near: Vec<String> = scored
        .iter()
        .take_while(|(likeness, _)| *likeness > 0.75)
        .take(3)
        .map(|(_, name)| format!("`{name}`"))
        .collect();
    if !near.is_empty() {
        return format!("; did you mean {}?", near.join(", "));
    }
    if scored.is_empty() {
        return String::new();
    }
    let shown: Vec<String> = scored
        .iter()
        .take(8)
        .map(|(_, name)| format!("`{name}`"))
        .collect();
    let more = if scored.len() > shown.len() { ", …" } else { "" };
    format!("; there are {}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_otherwise_the_names_are_listed() {
        assert_eq!(
            suggest("dep_dely", ["dep_delay", "carrier"]),
            "; did you mean `dep_delay`?"
        );
        assert_eq!(suggest("zzz", ["carrier"]), "; there are `carrier`");
        assert_eq!(suggest("zzz", []), "");
    }
}
