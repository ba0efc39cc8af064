//! Why a batch job could not be asked for, or ended badly.

use serde_json::{Map, Value, json};
use tidemill_core::ports::{Blame, PortError};
use tidemill_store::StoreError;

use crate::tracking::TrackingError;

/// Why a batch job could not be asked for, or ended badly.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct BatchError {
    /// Who has to act.
    pub blame: Blame,
    /// A stable code, one page each in `docs/errors/`.
    pub code: &'static str,
    /// What happened and what to do.
    pub message: String,
    /// Where, for machines: `file`, `row`, `field`, `value`.
    pub place: Map<String, Value>,
    /// Whether it may go well a little later.
    pub passing: bool,
}

/// The result of a piece of work.
pub type Result<T, E = BatchError> = std::result::Result<T, E>;

impl BatchError {
    fn of(blame: Blame, code: &'static str, message: String) -> Self {
        Self {
            blame,
            code,
            message,
            place: Map::new(),
            passing: false,
        }
    }

    /// What was asked cannot be done.
    pub fn refused(message: impl Into<String>) -> Self {
        PortError::caller("bad_batch_job", message).into()
    }

    /// This server may not go there.
    pub(super) fn denied(message: impl Into<String>) -> Self {
        PortError::caller("batch_place_denied", message).into()
    }

    /// What a job names is not there.
    pub(super) fn missing(message: impl Into<String>) -> Self {
        PortError::caller("batch_input_missing", message).into()
    }

    /// A file of the input cannot be worked on.
    pub(super) fn bad_input(message: impl Into<String>) -> Self {
        PortError::caller("bad_batch_input", message).into()
    }

    /// Somebody stopped it.
    pub(super) fn cancelled() -> Self {
        PortError::caller("batch_job_cancelled", "it was cancelled before it was answered").into()
    }

    /// A fault of ours.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        PortError::internal("internal", message).into()
    }

    /// The same, with where it was.
    #[must_use]
    pub fn at(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.place.insert(key.to_owned(), value.into());
        self
    }

    /// As it is stored and shown.
    pub fn shown(&self) -> Value {
        let mut shown = json!({ "code": self.code, "message": self.message });
        for (key, value) in &self.place {
            shown[key] = value.clone();
        }
        shown["docs"] = json!(format!("/docs/errors/{}", self.code));
        shown
    }
}

impl From<PortError> for BatchError {
    fn from(error: PortError) -> Self {
        Self::of(error.blame, error.code, error.message)
    }
}

impl From<StoreError> for BatchError {
    fn from(error: StoreError) -> Self {
        Self::of(error.blame(), error.code(), error.to_string())
    }
}

impl From<TrackingError> for BatchError {
    fn from(error: TrackingError) -> Self {
        match error {
            TrackingError::Store(error) => error.into(),
            TrackingError::Port(error) => error.into(),
            TrackingError::Denied(message) => Self::denied(message),
            TrackingError::NotFound(message) => Self::missing(message),
            TrackingError::Internal(message) => Self::internal(message),
            other => Self::refused(other.to_string()),
        }
    }
}
