//! Every protocol over a real serving path with tiny models, through the router and without a network.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows both in test functions, and all of this is one

mod artifacts;
mod automations;
mod deployments;
mod errors;
mod eval_datasets;
mod events;
mod fake;
mod graphql;
mod graphs;
mod grounds;
mod grpc;
mod hosted;
mod imports;
mod logged_models;
mod mlflow;
mod models;
mod open_inference;
mod page;
mod previews;
mod purge;
mod registry;
mod rights;
mod robustness;
mod sagemaker;
mod security;
mod signatures;
mod slow_clients;
mod tables;
mod tracking_runs;
mod tracking_search;
mod users;
mod v1;
mod vertex;
mod wandb;
mod wandb_artifacts;
