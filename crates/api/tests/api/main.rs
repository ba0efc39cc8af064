//! Every protocol over a real serving path with tiny models, through the router and without a network.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows both in test functions, and all of this is one

mod errors;
mod events;
mod fake;
mod mlflow;
mod open_inference;
mod page;
mod robustness;
mod tracking_runs;
mod v1;
mod wandb;
