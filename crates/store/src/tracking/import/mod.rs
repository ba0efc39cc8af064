//! What an import brings: things with ids, times and histories that they had elsewhere.
//!
//! Every function here may be called again with the same thing, which then changes nothing: a transfer that was interrupted is
//! simply made again. Marks remember what has come whole. The structs are also what an importer sends.

mod experiments;
mod logged_models;
mod marks;
mod registered;
mod runs;
#[cfg(test)]
mod tests;

pub use experiments::{Experiment, Placed, put_experiment};
pub use logged_models::{LoggedModel, ModelMetric, put_logged_model};
pub use marks::{Mark, Origin, known, mark, target};
pub use registered::{RegisteredModel, Version, put_alias, put_model, put_version};
pub use runs::{Dataset, Metric, ModelOutput, Run, append_metrics, put_run};

/// Key and value.
pub type Pair = (String, String);

/// What became of a thing that was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Put {
    /// It is new here.
    Created,
    /// It was here, and has changed.
    Updated,
    /// It was here, as it was sent.
    Present,
    /// Something else is in its place; nothing was written.
    Refused(String),
}
