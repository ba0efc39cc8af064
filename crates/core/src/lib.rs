//! What every crate of Tidemill shares: ids, time, the project spec, the columnar frame, and the ports.
//!
//! - [`clock`]: the only place that reads the machine's clock or sleeps.
//! - [`spec`]: `tidemill.yaml`, one model's whole life, with errors that name file, line, column and key.
//! - [`frame`]: a typed columnar batch, the currency between protocols, models and the prediction log.
//! - [`ports`]: object-safe traits behind which DataFusion and the model runtimes stand.
//! - [`deployments`]: what a bundle says of itself, and the port that unpacks and loads it.
//! - [`batches`]: the port to files whose rows are predicted.
//! - [`tensors`], [`servable`]: named tensors, and the port of the models that are asked by them.
//! - [`predictions`], [`calls`]: what the prediction log holds, of endpoints of the loop and of deployments.
//!
//! Deliberately absent: SQL, object stores, HTTP, statistics, model code. A type that one crate alone uses lives there.

pub mod batches;
pub mod calls;
mod calls_json;
pub mod clock;
pub mod deployments;
pub mod digest;
pub mod frame;
pub mod ids;
pub mod ports;
pub mod predictions;
pub mod servable;
pub mod snapshot;
pub mod spec;
pub mod tensors;
