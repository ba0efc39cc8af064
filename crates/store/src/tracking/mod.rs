//! Experiments and runs as MLflow's clients know them; one file a noun.

pub mod import;
