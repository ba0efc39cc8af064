//! The port to files whose rows are predicted, and to the files that their answers become.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::digest::Digest;
use crate::ports::PortError;
use crate::spec::DataFormat;

/// Finds files to be predicted.
#[async_trait]
pub trait BatchEngine: Send + Sync {
    /// The files that `pattern` means (a file, a folder or a glob), which have to have the same columns. A relative one starts at `root`.
    async fn open(&self, root: &Path, pattern: &str) -> Result<Arc<dyn BatchFiles>, PortError>;
}

/// The parts of a file, in order.
pub type BatchParts = Box<dyn Iterator<Item = Result<Box<dyn BatchPart>, PortError>> + Send>;

/// Files to be predicted.
pub trait BatchFiles: Send + Sync {
    /// The files, sorted by path.
    fn files(&self) -> &[PathBuf];
    /// How they are written.
    fn format(&self) -> DataFormat;
    /// Their names, sizes and modification marks, as one digest.
    ///
    /// # Errors
    /// If a file is gone.
    fn digest(&self) -> Result<Digest, PortError>;
    /// The parts of a file, `rows` in each but the last: the same ones whenever it is asked. Blocking.
    ///
    /// # Errors
    /// If the file cannot be opened; what goes wrong later is an item.
    fn parts(&self, file: usize, rows: usize) -> Result<BatchParts, PortError>;
}

/// Some rows of a file.
pub trait BatchPart: Send + Sync {
    /// How many.
    fn rows(&self) -> usize;
    /// The names of its columns.
    fn columns(&self) -> Vec<String>;
    /// The rows `from..until` as a JSON list of lists. A number that is not a number is null, as missing values are in data frames.
    ///
    /// # Errors
    /// If a number is infinite, which JSON cannot say.
    fn json(&self, from: usize, until: usize) -> Result<String, PortError>;
    /// Writes the rows with the answers beside them: whole, or not at all. Blocking.
    ///
    /// # Errors
    /// If the file cannot be written.
    fn write(
        &self,
        path: &Path,
        format: DataFormat,
        answers: &[(String, Vec<Value>)],
    ) -> Result<(), PortError>;
}
