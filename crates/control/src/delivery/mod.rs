//! How a version comes to answer: evaluation, gates, rollouts, the registry's aliases, and the routes that follow from them.

mod artifacts;
pub(crate) mod bundles;
pub mod deployments;
pub(crate) mod endpoints;
pub mod evaluation;
pub mod gates;
mod graphs;
mod loaders;
pub mod outcomes;
pub(crate) mod reconcile;
pub mod rollouts;
pub(crate) mod routes;
mod shelf;
