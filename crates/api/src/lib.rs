//! HTTP and gRPC: every protocol is a skin over the same functions, and none calls another.
//!
//! - [`router`]: all routes, as a table of contents; the OpenAPI document is derived from it.
//! - `open_inference`: the Open Inference Protocol v2; `mlflow`: MLflow's scoring protocol; `v1`: our own, one file a noun; `wandb`: W&B's
//!   client; `sagemaker` and `vertex`: the runtimes of AWS and Google.
//! - `grpc`: the Open Inference Protocol and gRPC's health, on the same port.
//! - `infer`: the way that all prediction protocols share: a name is resolved, `tidemill_serving` asked, tensors or rows come out.
//! - `batch`: the requests of batch jobs, which go the same way.
//! - `auth`: who sends a request and what they may do, one rule a route; [`security`]: what a browser may be made to send.
//! - [`control_plane`]: the port behind which the rest of the house stands; [`error`]: errors, and each protocol's shape of them.
//! - `page` and `docs`: the embedded page and error pages; `prometheus`: `/metrics`; [`server`]: listening and stopping.
//!
//! Deliberately absent: SQL, decisions, model code, the clock, and any state of its own. A handler parses, calls one function and
//! writes the answer.

mod auth;
mod batch;
pub mod control_plane;
mod docs;
mod edge;
pub mod error;
mod extract;
mod graphql;
mod grpc;
mod infer;
mod mlflow;
mod open_inference;
mod page;
mod prometheus;
pub mod router;
mod sagemaker;
pub mod security;
pub mod server;
mod v1;
mod vertex;
mod wandb;

pub use batch::asks;
pub use control_plane::{ControlPlane, ListQuery, Noun};
pub use error::{ApiError, Kind};
pub use infer::shared::SharedMemory;
pub use router::{router, router_with};
pub use security::Security;
pub use server::{Patience, serve, serve_patiently};
