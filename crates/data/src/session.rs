//! How DataFusion is set up here.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::FutureExt;

use crate::error::{DataError, Result};

/// Reads files, and turns a panic into an error: the Parquet decoder panics on some damaged pages.
///
/// What the work was changing is dropped with it, so nothing half-done is seen afterwards.
pub async fn guarded<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        Err(DataError::DataFusion(DataFusionError::Internal(
            "a reader panicked; the log has its message".to_owned(),
        )))
    })
}

/// A fresh session: names as the files write them, and rows in the order of the files.
///
/// One partition, because the order of rows decides the digest of a snapshot and the row numbers of a validation result. A session is made
/// for each operation, so that no listing or footer of an earlier state of the files is remembered.
pub fn session() -> SessionContext {
    session_on(Arc::default())
}

/// The same, on a runtime with limits of its own.
pub fn session_on(runtime: Arc<RuntimeEnv>) -> SessionContext {
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_batch_size(8_192)
        .with_information_schema(false)
        .with_collect_statistics(false);
    let options = config.options_mut();
    options.sql_parser.enable_ident_normalization = false;
    options.execution.parquet.schema_force_view_types = false;
    options.execution.parquet.pushdown_filters = true;
    SessionContext::new_with_config_rt(config, runtime)
}
