//! A sealed segment, read in parts, so that no more of it is in memory as batches than is worked on.

use std::path::{Path, PathBuf};

use tidemill_core::predictions::PredictionBatch;

use super::record::Bad;
use super::recovery::{self, Walker};
use crate::error::ServeError;

/// A sealed segment that is being read.
#[derive(Debug)]
pub struct SegmentReader {
    path: PathBuf,
    bytes: Vec<u8>,
    walker: Walker,
}

impl SegmentReader {
    pub(super) fn open(path: &Path) -> Result<Self, ServeError> {
        Ok(Self {
            path: path.to_owned(),
            bytes: recovery::read(path)?,
            walker: Walker::default(),
        })
    }

    /// The next batches, some `rows` rows together; none at the end. What stands before damage is given before the damage is told.
    ///
    /// # Errors
    /// If the next record is damaged, or of another version of the program.
    pub fn next_part(&mut self, rows: usize) -> Result<Vec<PredictionBatch>, ServeError> {
        let mut part = Vec::new();
        let mut gathered = 0;
        while gathered < rows {
            match self.walker.next(&self.bytes) {
                None => break,
                Some(Ok(found)) => {
                    gathered += found.record.batch.rows().max(1);
                    part.push(found.record.batch);
                }
                Some(Err(_)) if !part.is_empty() => break,
                Some(Err(Bad::Torn(reason) | Bad::Unreadable(reason))) => {
                    return Err(recovery::corrupt(&self.path, self.walker.good, reason));
                }
            }
        }
        Ok(part)
    }
}
