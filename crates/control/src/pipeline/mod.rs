//! From a trigger to a registered version: triggers, runs and their steps.

pub(crate) mod command;
pub(crate) mod key;
pub(crate) mod runs;
pub(crate) mod scheduler;
pub(crate) mod sweep;
mod tracked;
pub(crate) mod train;
pub mod triggers;
