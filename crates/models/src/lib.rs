//! Models: the only crate that knows a runtime or a trainer.
//!
//! - [`Runtime`] turns a bundle (`model.json` and its files) into a loaded model, by the manifest's `format`.
//! - [`BuiltinTrainer`] trains gradient-boosted trees with the `perpetual` crate; the same request gives the same bytes.
//! - `trees` is one engine that answers for every tree format, bit for bit as the format's own library does;
//!   `lightgbm`, `xgboost`, `sklearn` and `perpetual` translate into it.
//! - `onnx` checks ONNX files and runs them on ONNX Runtime, or on `trees` where that is exact; [`OnnxModel`] answers tensors.
//! - `encode` turns typed columns into the numbers that trees compare.
//!
//! - [`python`] runs models and functions in processes of their own; [`bundle`] packs and unpacks what is deployed; [`Deployer`] is the
//!   port over both; `convert` makes a native model of what Python loads, where that answers alike.
//!
//! Deliberately absent: stores, HTTP, files and async outside those three (and the search for ONNX Runtime), clocks (but for the limits of
//! workers), batching and routing (see `serving`), and gates (see `control`).

pub mod bundle;
mod convert;
mod encode;
mod engine;
mod error;
mod lightgbm;
mod manifest;
mod native;
mod onnx;
mod perpetual;
pub mod python;
mod runtime;
mod sklearn;
mod trainer;
mod tree_model;
mod trees;
mod xgboost;

pub use convert::Conversion;
pub use engine::Deployer;
pub use onnx::OnnxModel;
pub use runtime::{Runtime, SUPPORTED_FORMATS};
pub use sklearn::SKLEARN_TREES_PY;
pub use trainer::BuiltinTrainer;
