//! How DataFusion is set up here.

use datafusion::prelude::{SessionConfig, SessionContext};

/// A fresh session: names as the files write them, and rows in the order of the files.
///
/// One partition, because the order of rows decides the digest of a snapshot and the row numbers of a validation result. A session is made
/// for each operation, so that no listing or footer of an earlier state of the files is remembered.
pub fn session() -> SessionContext {
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_batch_size(8_192)
        .with_information_schema(false)
        .with_collect_statistics(false);
    let options = config.options_mut();
    options.sql_parser.enable_ident_normalization = false;
    options.execution.parquet.schema_force_view_types = false;
    options.execution.parquet.pushdown_filters = true;
    SessionContext::new_with_config(config)
}
