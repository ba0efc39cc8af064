//! Databases of other programs, read and never written: what an import takes from MLflow's own tables.
//!
//! The calls wait for the database: they are for threads that may.

mod mlflow;
mod mlflow_registry;

pub use mlflow::{ForeignExperiment, ForeignRun, Mlflow};
pub use mlflow_registry::ForeignModel;
