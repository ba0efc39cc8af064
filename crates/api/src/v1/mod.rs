//! Our own protocol, `/api/v1`: what the page, the CLI and scripts speak. One file a noun.

pub(crate) mod automations;
pub(crate) mod batch_jobs;
pub(crate) mod clock;
pub(crate) mod deployment_routing;
pub(crate) mod deployments;
pub(crate) mod endpoints;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod feedback;
pub(crate) mod import;
pub(crate) mod lists;
pub(crate) mod models;
pub(crate) mod openapi;
pub(crate) mod predictions;
pub(crate) mod purge;
pub(crate) mod registry;
pub(crate) mod runs;
pub(crate) mod spec;
pub(crate) mod status;
pub(crate) mod sweeps;
pub(crate) mod tables;
pub(crate) mod tokens;

use axum::Json;
use serde_json::Value;

use crate::error::ApiError;

/// What most handlers give.
pub(crate) type Answer<T = Value> = Result<Json<T>, ApiError>;
