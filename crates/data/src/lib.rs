//! Data: the only crate that knows DataFusion. It stands behind [`tidemill_core::ports::DataEngine`].
//!
//! - [`DataFusionEngine`] is the port; everything else is how it does it.
//! - `sources/` finds the files of `data.source` and reads them as one table; its errors name file, line, column and value.
//! - `query` turns the spec's time, label and `known_at` into expressions; `rows`, `replay` and `inspect` read with them.
//! - `snapshots/` builds, profiles, writes and loads content-addressed Parquet; `predictions/` is the codec of the prediction log.
//! - `batches/` cuts files into parts for batch jobs and writes their answers, behind [`tidemill_core::batches::BatchEngine`].
//! - `tables/` turns tables that clients keep into Parquet, and answers pages and SQL that only reads.
//! - `expectations/` validates in one scan, in Great Expectations' terms and JSON: one file per expectation, one line in a registry.
//!
//! Deliberately absent: SQL databases and object store drivers (bytes go through `store::objects`), the clock (times are arguments), models
//! and metrics, decisions about what a failed expectation or a drifted column means, and all of HTTP.

mod batches;
mod columns;
mod engine;
#[cfg(test)]
mod engine_tests;
pub mod error;
pub mod expectations;
mod inspect;
mod parquet_file;
mod predictions;
mod query;
mod replay;
mod rows;
mod session;
mod snapshots;
mod sources;
mod tables;

pub use batches::Batches;
pub use engine::DataFusionEngine;
pub use error::DataError;
pub use predictions::PredictionFiles;
pub use tables::Tables;
