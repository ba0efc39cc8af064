//! Why a call of a tracking client was refused, in MLflow's own kinds of error.

use tidemill_store::StoreError;

/// The result of a call.
pub type Result<T> = std::result::Result<T, TrackingError>;

/// Why a call was refused. The texts are MLflow's where MLflow has one, because clients match on them.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TrackingError {
    /// `INVALID_PARAMETER_VALUE`: a value of the request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// `RESOURCE_DOES_NOT_EXIST`: what the request names is not there.
    #[error("{0}")]
    NotFound(String),
    /// `RESOURCE_ALREADY_EXISTS`: the name is taken.
    #[error("{0}")]
    AlreadyExists(String),
    /// `INVALID_STATE`: not in the state that the thing is in.
    #[error("{0}")]
    InvalidState(String),
    /// `RESOURCE_CONFLICT`: the request contradicts what is stored.
    #[error("{0}")]
    Conflict(String),
    /// `PERMISSION_DENIED`: the caller may not do this.
    #[error("{0}")]
    Denied(String),
    /// `UNAUTHENTICATED`: the caller has not said who they are.
    #[error("{0}")]
    Unauthenticated(String),
    /// `REQUEST_LIMIT_EXCEEDED`: too many wrong passwords.
    #[error("the user was tried with too many wrong passwords: try again in {wait_s} seconds")]
    TooManyLogins {
        /// After so many seconds one is looked at again.
        wait_s: u64,
    },
    /// `NOT_IMPLEMENTED`: this server does not do that.
    #[error("{0}")]
    NotImplemented(String),
    /// `INTERNAL_ERROR`: wrong in a way that MLflow counts as its own fault.
    #[error("{0}")]
    Internal(String),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What stands behind a port refused or failed.
    #[error(transparent)]
    Port(#[from] tidemill_core::ports::PortError),
}

impl TrackingError {
    /// A stable code, one page each in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_parameter_value",
            Self::NotFound(_) => "resource_does_not_exist",
            Self::AlreadyExists(_) => "resource_already_exists",
            Self::InvalidState(_) => "invalid_state",
            Self::Conflict(_) => "resource_conflict",
            Self::Denied(_) => "permission_denied",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::TooManyLogins { .. } => "too_many_logins",
            Self::NotImplemented(_) => "not_implemented",
            Self::Internal(_) => "internal",
            Self::Store(e) => e.code(),
            Self::Port(e) => e.code,
        }
    }

    /// A value of the request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// What the request names is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::NotFound(message.into())
    }
}
