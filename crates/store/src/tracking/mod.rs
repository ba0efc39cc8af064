//! Experiments, runs, logged models and artifacts, as MLflow's clients know them. One file a noun.

pub mod artifacts;
pub mod logged_models;
