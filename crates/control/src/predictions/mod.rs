//! The prediction log as the rest of the house reads it: Parquet files in the object store, plus what is still in the write-ahead log;
//! and the compaction that moves one into the other.

mod cache;
mod compact;
mod ids;
mod reading;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tidemill_core::clock::Clock;
use tidemill_core::ports::PredictionCodec;
use tidemill_serving::PredictionLog;
use tidemill_store::Store;

use cache::BatchCache;
use ids::IdCache;

/// The prediction log, wherever its parts are. Cheap to clone.
#[derive(Clone)]
pub struct Predictions {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    log: PredictionLog,
    codec: Arc<dyn PredictionCodec>,
    clock: Arc<dyn Clock>,
    batches: BatchCache,
    ids: IdCache,
}

impl std::fmt::Debug for Predictions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Predictions({})", self.inner.log.dir().display())
    }
}

impl Predictions {
    /// Over the write-ahead log and the store into which it is moved.
    pub fn new(
        store: Store,
        log: PredictionLog,
        codec: Arc<dyn PredictionCodec>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                log,
                codec,
                clock,
                batches: BatchCache::default(),
                ids: IdCache::default(),
            }),
        }
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn log(&self) -> &PredictionLog {
        &self.inner.log
    }
}
