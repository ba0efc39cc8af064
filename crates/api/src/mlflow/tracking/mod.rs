//! MLflow's REST API for tracking, registry and artifacts. One file a noun; each handler reads the request's fields, calls one
//! method of [`tidemill_control::tracking::Tracking`] and writes MLflow's message.

pub(crate) mod artifacts;
mod caller;
pub(crate) mod eval_datasets;
pub(crate) mod experiments;
pub(crate) mod graphql;
pub(crate) mod history;
pub(crate) mod inputs;
pub(crate) mod logged_models;
pub(crate) mod logging;
pub(crate) mod messages;
pub(crate) mod permissions;
pub(crate) mod registry;
mod registry_messages;
mod request;
pub(crate) mod roles;
pub(crate) mod runs;
pub(crate) mod search;
pub(crate) mod server;
pub(crate) mod webhooks;

pub(crate) use registry_messages::{model_message, version_message};
pub(crate) mod signup;
pub(crate) mod users;
pub(crate) mod workspaces;

pub(crate) use caller::{Called, User, named_workspace};
pub(crate) use request::{Fields, as_integer, as_number, form_pairs, require_json};
