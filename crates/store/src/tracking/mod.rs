//! Experiments, runs, logged models and artifacts as MLflow's clients know them; one file a noun.

pub mod artifacts;
pub mod datasets;
pub mod eval_datasets;
pub mod experiments;
pub mod history;
pub mod import;
pub mod logged_models;
pub mod metrics;
pub mod params;
pub mod purges;
pub mod runs;
pub mod tables;
pub mod tags;
#[cfg(test)]
mod tests;

use crate::column::text_enum;

text_enum! {
    /// Whether an experiment or a run is there for everybody, or only waits to be purged or restored.
    Lifecycle {
        /// There.
        Active = "active",
        /// Deleted, and can be restored.
        Deleted = "deleted",
    }
}
