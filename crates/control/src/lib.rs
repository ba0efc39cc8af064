//! The loop: everything that decides. Each decision is a pure function of state, event and time; thin shells load, decide, and commit
//! state, events and decision records in one transaction.
//!
//! - [`pipeline`]: triggers → runs → steps (snapshot, train, evaluate, gate, register), with leases.
//! - [`monitor`]: windows → signals → alerts.
//! - [`delivery`]: gates, rollouts, the registry's aliases, routes.
//! - [`predictions`]: the prediction log, in segments and in Parquet.
//! - [`feedback`]: what clients say of predictions, and the join of predictions with labels.
//! - [`batch`]: jobs that predict the rows of files, in the background.
//! - [`tracking`]: experiments, runs, registry and artifacts, as MLflow's clients know them.
//! - [`users`]: who may do what to those.
//! - [`view`]: what the API and the page show.
//!
//! Deliberately absent: SQL (in `store`), DataFusion and trainers (behind `core::ports`), HTTP (in `api`), formulas (in `stats`).

pub mod batch;
mod context;
mod control;
pub mod delivery;
mod error;
pub mod feedback;
mod lineage;
mod memory;
pub mod monitor;
pub mod pipeline;
pub mod predictions;
mod report;
mod reproduce;
pub mod tracking;
pub mod users;
mod usual;
pub mod view;

pub use context::Parts;
pub use control::Control;
pub use error::{ControlError, Result};
pub use report::described;
