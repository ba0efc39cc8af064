//! The hot path: routing table, guards and fallbacks, prediction log.
//!
//! - [`Router`]: the immutable routing table, swapped whole; reading it takes no lock.
//! - [`coerce`]: the guard at the door; JSON-like values become a typed frame, or an error that names field, row and value.
//! - [`Server`]: route → guard → champion or canary by sticky position → fallbacks → shadows → log → answer.
//! - [`Hosting`]: deployments that are asked by tensors or bodies, loaded when needed.
//! - [`Explanation`]: what each input contributed to an answer, by the model itself or by asking it about mixed rows.
//! - [`PredictionLog`]: a write-ahead log of prediction batches; what was answered is on disk before the answer leaves.
//! - [`Metrics`]: counters and a latency histogram, all atomics.
//!
//! Deliberately absent: SQL, object stores, Parquet, HTTP, gRPC and every protocol's words, model formats, statistics, and any
//! decision about rollouts: whoever decides builds a [`Route`] and puts it in the [`Router`].

#![warn(missing_docs)]

mod answer;
mod breaker;
mod error;
mod explain;
pub mod graphs;
mod guard;
mod hosting;
mod inputs;
mod log;
mod metrics;
#[cfg(test)]
mod policy_tests;
mod pressure;
mod routing;
mod server;
#[cfg(test)]
mod server_tests;
mod tallies;
#[cfg(test)]
mod testing;

pub use answer::{CANARY_FAILED, CHAMPION_FAILED, NO_MODEL_YET, NOT_ASKED, PREVIOUS_FAILED};
pub use error::ServeError;
pub use explain::{ExplainOptions, ExplainedInput, Explanation};
pub use guard::{Finding, MAX_FINDINGS, RawColumn, RawValue, SchemaError, coerce, coerce_by};
pub use hosting::{
    BanditArm, BanditState, BatchStatistics, BreakerState, BreakerStatistics, Call, CallAnswer, CallAnswers,
    DurationStatistics, Hosted, HostedVersion, Hosting, IndexEntry, ResponseStatistics, RoutingStatistics,
    ShadowStatistics, VersionState, VersionStatistics,
};
pub use log::{
    Durability, LiveStats, LogEntry, LogOptions, PredictionLog, Recovery, SegmentId, SegmentReader,
};
pub use metrics::{Latency, Metrics};
pub use pressure::{Pressure, PressureGauge};
pub use routing::{Canary, Deployment, Keep, Route, Router, RoutingTable, Rule, Step, default_row};
pub use server::{InferRequest, InferResponse, Server};
