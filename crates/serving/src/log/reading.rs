//! Reading: a sealed segment in parts, so that no more of it is in memory as batches than is worked on; and what the segments hold, by
//! time and by id.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, PredictionId};
use tidemill_core::predictions::PredictionBatch;

use super::index::{Place, Trace, number};
use super::record::{Bad, Kind, LogEntry};
use super::recovery::{self, Walker};
use super::{PredictionLog, SegmentId, blocking};
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

    /// The next records, some `rows` predictions together; none at the end. What stands before damage is given before the damage is told.
    ///
    /// # Errors
    /// If the next record is damaged, or of another version of the program.
    pub fn next_part(&mut self, rows: usize) -> Result<Vec<LogEntry>, ServeError> {
        let mut part = Vec::new();
        let mut gathered = 0;
        while gathered < rows {
            match self.walker.next(&self.bytes) {
                None => break,
                Some(Ok(found)) => {
                    gathered += found.record.entry.note().ids.len().max(1);
                    part.push(found.record.entry);
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

impl PredictionLog {
    pub(super) async fn read_place(&self, place: Place) -> Result<LogEntry, ServeError> {
        let path = place.segment.path(&self.inner.dir);
        blocking(move || Ok(recovery::read_at(&path, place.offset)?.entry)).await
    }

    /// The batches of an endpoint served in `[from, until)` that are not removed yet, in the order of writing.
    ///
    /// # Errors
    /// If a segment cannot be read.
    pub async fn live_batches(
        &self,
        endpoint: &EndpointName,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Arc<PredictionBatch>>, ServeError> {
        let segments = self.segments_between(endpoint, Kind::Batch, from, until);
        if segments.is_empty() {
            return Ok(Vec::new());
        }
        let (dir, endpoint) = (self.inner.dir.clone(), endpoint.clone());
        blocking(move || {
            let mut batches = Vec::new();
            for id in segments {
                let Some(found) = recovery::read_unless_moved(&id.path(&dir))? else {
                    continue;
                };
                let records = found
                    .into_iter()
                    .filter_map(|found| found.record.entry.into_batch());
                let wanted = |batch: &PredictionBatch| {
                    batch.at >= from && batch.at < until && batch.endpoint == endpoint
                };
                batches.extend(records.filter(wanted).map(Arc::new));
            }
            Ok(batches)
        })
        .await
    }

    /// Which of these predictions are in batches that are not removed yet.
    ///
    /// # Errors
    /// If a segment cannot be read.
    pub async fn holds(&self, predictions: &[PredictionId]) -> Result<Vec<bool>, ServeError> {
        let mut held = Vec::with_capacity(predictions.len());
        for prediction in predictions {
            held.push(self.place(prediction).await?.is_some());
        }
        Ok(held)
    }

    pub(super) fn segments_between(
        &self,
        endpoint: &EndpointName,
        kind: Kind,
        from: Timestamp,
        until: Timestamp,
    ) -> Vec<SegmentId> {
        let index = self.inner.shared.read();
        index.segments_between(endpoint, kind, from, until)
    }

    /// What holds a prediction, if it is not removed yet.
    ///
    /// # Errors
    /// If its segment cannot be read.
    pub async fn find(&self, prediction: &PredictionId) -> Result<Option<LogEntry>, ServeError> {
        let Some(place) = self.place(prediction).await? else {
            return Ok(None);
        };
        let entry = match self.read_place(place).await {
            Ok(entry) => entry,
            // It has become Parquet meanwhile.
            Err(_) if !place.segment.path(&self.inner.dir).exists() => return Ok(None),
            Err(error) => return Err(error),
        };
        let holds = entry.note().ids.contains(prediction);
        Ok(holds.then_some(entry))
    }

    async fn place(&self, prediction: &PredictionId) -> Result<Option<Place>, ServeError> {
        let among = match self.inner.shared.read().trace(prediction) {
            Trace::At(place) => return Ok(Some(place)),
            Trace::Among(among) => among,
        };
        let wanted = number(prediction);
        for id in among {
            let path = id.path(&self.inner.dir);
            let shown = path.clone();
            let numbers = match blocking(move || recovery::look_through(&path)).await {
                Ok(numbers) => numbers,
                Err(_) if !shown.exists() => continue,
                Err(error) => return Err(error),
            };
            let found = numbers.find(wanted);
            self.inner.shared.write().remember(id, numbers);
            if let Some(offset) = found {
                return Ok(Some(Place { segment: id, offset }));
            }
        }
        Ok(None)
    }
}
