//! Models: the only crate that knows a runtime or a trainer.
//!
//! - [`Runtime`] turns a bundle (`model.json` and its files) into a loaded model, by the manifest's `format`.
//! - [`BuiltinTrainer`] trains gradient-boosted trees with the `perpetual` crate; the same request gives the same bytes.
//! - `trees` is one engine of flat arrays that answers for every tree format, bit for bit as the format's own library does;
//!   `lightgbm`, `xgboost`, `sklearn` and `perpetual` translate into it.
//! - `encode` turns typed columns into the numbers that trees compare.
//!
//! Deliberately absent: stores and files (bundles come and go as bytes), HTTP, async, clocks, batching and routing (see
//! `serving`), and gates (see `control`). ONNX comes with a later release.

mod encode;
mod error;
mod lightgbm;
mod manifest;
mod onnx;
mod perpetual;
mod runtime;
mod sklearn;
mod trainer;
mod tree_model;
mod trees;
mod xgboost;

pub use onnx::OnnxModel;
pub use runtime::{Runtime, SUPPORTED_FORMATS};
pub use sklearn::SKLEARN_TREES_PY;
pub use trainer::BuiltinTrainer;
