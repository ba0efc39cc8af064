//! Why the loop could not do something: free of HTTP, with who has to act and a stable code.

use tidemill_core::ports::{Blame, PortError};
use tidemill_serving::ServeError;
use tidemill_stats::StatsError;
use tidemill_store::StoreError;

/// An error of the loop.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Data or model work failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The serving side refused or failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A statistic could not be had.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// Something that was asked for does not exist.
    #[error("there is no {noun} `{key}`{hint}")]
    NotFound {
        /// What kind of thing.
        noun: &'static str,
        /// Which one.
        key: String,
        /// What to do, beginning with `; ` if there is something to say.
        hint: String,
    },
    /// The request makes no sense as it stands.
    #[error("{message}")]
    Refused {
        /// A stable code.
        code: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// The request contradicts the present state.
    #[error("{message}")]
    Conflict {
        /// A stable code.
        code: &'static str,
        /// What is in the way and what to do.
        message: String,
    },
    /// A fault of ours.
    #[error("{message}")]
    Internal {
        /// What happened.
        message: String,
    },
}

impl ControlError {
    /// Who has to act.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Store(e) => e.blame(),
            Self::Port(e) => e.blame,
            Self::Serve(e) => e.blame(),
            Self::NotFound { .. } | Self::Refused { .. } | Self::Conflict { .. } => Blame::Caller,
            Self::Stats(_) | Self::Internal { .. } => Blame::Us,
        }
    }

    /// A stable code, one page each in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(e) => e.code(),
            Self::Port(e) => e.code,
            Self::Serve(e) => e.code(),
            Self::Stats(_) => "statistic_unavailable",
            Self::NotFound { .. } => "not_found",
            Self::Refused { code, .. } | Self::Conflict { code, .. } => code,
            Self::Internal { .. } => "internal",
        }
    }

    pub(crate) fn not_found(noun: &'static str, key: impl ToString, hint: &str) -> Self {
        Self::NotFound {
            noun,
            key: key.to_string(),
            hint: hint.to_owned(),
        }
    }

    pub(crate) fn internal(message: impl ToString) -> Self {
        Self::Internal {
            message: message.to_string(),
        }
    }
}

/// The result of a piece of control work.
pub type Result<T> = std::result::Result<T, ControlError>;
