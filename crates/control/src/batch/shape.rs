//! What a job is to do, in its caller's shape.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::spec::DataFormat;
use tidemill_store::batch_jobs::{BatchJob, BatchKind};

use super::error::{BatchError, Result};
use super::invoke::Invoke;
use super::places::Places;
use super::transform::Transform;
use super::vertex::Vertex;

/// Rows in each file of the output, at most and where nothing is said.
const PART_ROWS: (usize, usize) = (1_000_000, 10_000);

/// What a job is to do, in its caller's shape.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all = "snake_case")]
pub enum Shape {
    /// The rows of files, with their answers beside them.
    Rows {
        /// Where the rows are.
        input: String,
        /// Where their answers go.
        output: String,
        /// How these are written; as the input's if nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<DataFormat>,
        /// Rows in each file of the output.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part_rows: Option<usize>,
    },
    /// `SageMaker`'s batch transform.
    Transform(Transform),
    /// Vertex AI's batch prediction.
    Vertex(Vertex),
    /// `SageMaker`'s asynchronous inference.
    Invoke(Invoke),
}

impl Shape {
    pub(super) fn kind(&self) -> BatchKind {
        match self {
            Self::Rows { .. } => BatchKind::Rows,
            Self::Transform(_) => BatchKind::Transform,
            Self::Vertex(_) => BatchKind::Vertex,
            Self::Invoke(_) => BatchKind::Invoke,
        }
    }

    /// How many rows a file of the output has.
    pub(super) fn rows_in(part_rows: Option<usize>) -> usize {
        part_rows.unwrap_or(PART_ROWS.1)
    }

    pub(super) fn check(&self, places: &Places) -> Result<()> {
        match self {
            Self::Transform(transform) => transform.check(places),
            Self::Vertex(vertex) => vertex.check(places),
            Self::Invoke(invoke) => invoke.check(places),
            Self::Rows {
                input,
                output,
                part_rows,
                ..
            } => {
                places.find(input).map_err(|error| error.at("field", "input"))?;
                places.find(output).map_err(|error| error.at("field", "output"))?;
                if part_rows.is_some_and(|rows| rows == 0 || rows > PART_ROWS.0) {
                    return Err(BatchError::refused(format!(
                        "`part_rows` is `{}`, expected 1 to {}",
                        part_rows.unwrap_or_default(),
                        PART_ROWS.0
                    ))
                    .at("field", "part_rows"));
                }
                Ok(())
            }
        }
    }
}

/// A job that is asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct NewJob {
    /// What its caller calls it; its id if nothing is said.
    pub name: Option<String>,
    /// Who answers; whoever takes the request has looked that there is one.
    pub endpoint: EndpointName,
    /// Which version, if one is named.
    pub version: Option<VersionNumber>,
    /// What is to be done.
    pub shape: Shape,
    /// What its caller said beside it and wants to hear again.
    pub said: Value,
}

/// What is stored of what was asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    pub shape: Shape,
    #[serde(default)]
    pub said: Value,
}

/// A job as it is looked at.
#[derive(Clone, PartialEq, Debug)]
pub struct JobView {
    /// As it is stored, with the latest progress.
    pub job: BatchJob,
    /// What is to be done.
    pub shape: Shape,
    /// What its caller said beside it.
    pub said: Value,
}

impl JobView {
    /// Whether it was asked to stop, and has not yet.
    pub fn is_stopping(&self) -> bool {
        self.job.stop_at.is_some() && !self.job.state.is_final()
    }
}
