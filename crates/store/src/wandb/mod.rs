//! What Weights & Biases' client tells that MLflow's nouns have no place for: streams of lines, alerts, artifacts with versions.

pub mod artifacts;
pub mod links;
pub mod retired;
pub mod runs;
#[cfg(test)]
mod wandb_tests;
