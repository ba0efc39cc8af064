//! The prediction log as the rest of the house reads it: Parquet files in the object store, plus what is still in the write-ahead log;
//! and the compaction that moves one into the other.

mod cache;
mod compact;
mod delta;
mod ids;
mod reading;
pub(crate) mod replay;
#[cfg(test)]
mod tests;
pub(crate) mod view;

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::calls::CallRecord;
use tidemill_core::clock::{Clock, real_sleep};
use tidemill_core::ports::PredictionCodec;
use tidemill_core::spec::Span;
use tidemill_serving::{Hosting, PredictionLog};
use tidemill_store::Store;

use crate::error::Result;
use crate::lineage;
use crate::view::Lineage;

use cache::BatchCache;
use ids::IdCache;
pub use reading::Prediction;
pub use replay::Replay;

/// How often it is looked whether there is something to compact, by the machine's clock.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// So many predictions are compacted at once,
const MANY: usize = 100_000;
/// and fewer after so long.
const LONG: Span = Span::from_micros(900_000_000);

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

    /// From a call of a deployment to everything behind it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn lineage_of_call(&self, call: &CallRecord) -> Result<Lineage> {
        lineage::of_call(self.store(), call).await
    }

    /// Asks the version that answered a call again.
    ///
    /// # Errors
    /// If it was not recorded whole, no model answered, or the model is gone.
    pub async fn replay_call(&self, hosting: &Hosting, call: &CallRecord) -> Result<Replay> {
        replay::of_call(self.store(), hosting, call).await
    }

    /// Compacts for ever, where no loop does: when much has gathered, and what has gathered for a while.
    pub async fn keep_house(&self) {
        loop {
            real_sleep(LOOK_EVERY).await;
            let stats = self.log().live_stats();
            let waited = stats.oldest.map(|oldest| self.inner.clock.now() - oldest);
            let due = stats.rows >= MANY || waited.is_some_and(|waited| waited >= LONG);
            if due && let Err(error) = self.compact().await {
                tracing::error!(%error, "the prediction log could not be moved into Parquet; it is tried again");
            }
        }
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn log(&self) -> &PredictionLog {
        &self.inner.log
    }
}
