//! A bounded memory of decoded prediction files: daily windows overlap, and decoding the same files every day would be most of the work.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::predictions::PredictionBatch;

/// Rows kept decoded; at some 20 features a row this is about 12 MB.
pub(crate) const MAX_ROWS: usize = 30_000;

/// The batches of one stored file.
pub(crate) type Batches = Arc<Vec<Arc<PredictionBatch>>>;

/// Decoded files, least recently used first.
#[derive(Default)]
pub(crate) struct BatchCache {
    files: Mutex<VecDeque<(i64, Batches)>>,
}

impl BatchCache {
    /// The batches of file `id`, if they are remembered.
    pub(crate) fn get(&self, id: i64) -> Option<Batches> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let position = files.iter().position(|(file, _)| *file == id)?;
        let entry = files.remove(position)?;
        let batches = Arc::clone(&entry.1);
        files.push_back(entry);
        Some(batches)
    }

    /// Remembers the batches of file `id`, forgetting the least recently used ones beyond the limit.
    pub(crate) fn put(&self, id: i64, batches: Batches) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|(file, _)| *file != id);
        files.push_back((id, batches));
        let rows = |batches: &Batches| batches.iter().map(|b| b.rows()).sum::<usize>();
        let mut total: usize = files.iter().map(|(_, batches)| rows(batches)).sum();
        while total > MAX_ROWS && files.len() > 1 {
            if let Some((_, batches)) = files.pop_front() {
                total -= rows(&batches);
            }
        }
    }
}
