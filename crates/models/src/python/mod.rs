//! Models and functions in Python, each in a process of its own: never in this one.
//!
//! - [`PythonModels`] keeps one fork server an environment: a warm interpreter that forks a worker in milliseconds.
//! - [`PythonDeployment`] says what a worker loads; its loader gives a `Servable` whose calls go over a socket (`wire`).
//! - `worker` watches memory and time, and says what became of a worker; `servable` begins a new one, with back-off.
//!
//! The Python sources lie in `python/` of the repository and are part of the binary.

mod deployment;
mod environment;
mod fork_server;
mod logs;
mod pieces;
mod pool;
mod servable;
mod sources;
mod start;
mod wire;
mod worker;

pub use deployment::{PythonDeployment, PythonModel};
pub(crate) use environment::Environments;
pub(crate) use fork_server::clean as clean_environment;
pub use pool::PythonModels;
