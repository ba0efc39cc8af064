//! Why a request was not answered, or the log not opened: free of HTTP, each with a stable code and who has to act.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::ports::{Blame, PortError};

use crate::guard::SchemaError;

/// Why a request was not answered, or the log not opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServeError {
    /// No endpoint of that name.
    #[error("there is no endpoint `{name}`; {}", known_names(.known))]
    UnknownEndpoint {
        /// The name asked for.
        name: EndpointName,
        /// The names that exist, sorted.
        known: Vec<String>,
    },
    /// The request does not fit the endpoint's schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The endpoint's schema changed between reading the request and answering it.
    #[error("the schema of endpoint `{endpoint}` changed while the request was read; send it again")]
    SchemaChanged {
        /// Which endpoint.
        endpoint: EndpointName,
    },
    /// The endpoint has neither a model nor a default answer.
    #[error(
        "endpoint `{endpoint}` has no model yet and no default answer; train a first version, or set `endpoint.default` in the spec"
    )]
    NoModel {
        /// Which endpoint.
        endpoint: EndpointName,
    },
    /// Every deployment that could have answered failed, and there is no default answer.
    #[error(
        "no deployment of endpoint `{endpoint}` could answer: {reasons}; set `endpoint.default` in the spec, or end a deployment's `fallback` with a `default`, to answer even so"
    )]
    AllFailed {
        /// Which endpoint.
        endpoint: EndpointName,
        /// What went wrong, deployment by deployment.
        reasons: String,
    },
    /// The version asked for is not loaded behind the endpoint.
    #[error("endpoint `{endpoint}` does not serve version {version}; loaded: {}", versions(.loaded))]
    UnknownVersion {
        /// Which endpoint.
        endpoint: EndpointName,
        /// The version asked for.
        version: VersionNumber,
        /// The versions that are loaded.
        loaded: Vec<VersionNumber>,
    },
    /// The payload does not fit what the deployment takes.
    #[error("endpoint `{endpoint}`: {message}")]
    Payload {
        /// Which endpoint.
        endpoint: EndpointName,
        /// What does not fit, and what would.
        message: String,
    },
    /// The deployment was unloaded.
    #[error("endpoint `{endpoint}` is unloaded; load it with `POST /v2/repository/models/{endpoint}/load`")]
    Unloaded {
        /// Which endpoint.
        endpoint: EndpointName,
    },
    /// The deployment's model could not be loaded.
    #[error("version {version} of endpoint `{endpoint}` cannot be loaded: {source}")]
    Load {
        /// Which endpoint.
        endpoint: EndpointName,
        /// Which version.
        version: VersionNumber,
        /// Why.
        source: PortError,
    },
    /// The model failed to answer.
    #[error("version {version} of endpoint `{endpoint}` failed: {source}")]
    Model {
        /// Which endpoint.
        endpoint: EndpointName,
        /// Which version.
        version: VersionNumber,
        /// Why.
        source: PortError,
    },
    /// The request was refused because too much is being asked: nothing was done, and it may be sent again later.
    #[error("endpoint `{endpoint}` is overloaded: {why}; send the request again later")]
    Overloaded {
        /// Which endpoint.
        endpoint: EndpointName,
        /// Which limit was met.
        why: String,
    },
    /// The time within which the answer was wanted is over.
    #[error("endpoint `{endpoint}` did not answer within the request's time: {stage}")]
    DeadlinePassed {
        /// Which endpoint.
        endpoint: EndpointName,
        /// Where the time went.
        stage: &'static str,
    },
    /// The disk of the prediction log is full: nothing was recorded, so nothing was answered.
    #[error("the prediction log's disk is full at `{}`, so the request was refused; free space there and send it again", .dir.display())]
    LogFull {
        /// The log's folder.
        dir: PathBuf,
    },
    /// The prediction log could not be read or written.
    #[error("the prediction log could not {action} `{}`: {source}", .path.display())]
    Log {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// A record that was once whole is not any more.
    #[error(
        "the prediction log is damaged: `{}` at byte {offset}: {reason}; restore the file from a backup, or move it away to start without its predictions",
        .path.display()
    )]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The log's writer has stopped, because the process is shutting down.
    #[error("the prediction log is closed; the process is shutting down")]
    Closed,
    /// A fault of ours.
    #[error("serving failed: {0}")]
    Internal(String),
}

impl ServeError {
    /// Who has to act.
    pub fn blame(&self) -> Blame {
        match self {
            Self::UnknownEndpoint { .. }
            | Self::Schema(_)
            | Self::UnknownVersion { .. }
            | Self::Payload { .. }
            | Self::Unloaded { .. }
            | Self::Overloaded { .. } => Blame::Caller,
            Self::Load { source, .. } | Self::Model { source, .. } => source.blame,
            Self::DeadlinePassed { .. } => Blame::Us,
            Self::SchemaChanged { .. }
            | Self::NoModel { .. }
            | Self::AllFailed { .. }
            | Self::Closed
            | Self::Internal(_) => Blame::Us,
            Self::LogFull { .. } | Self::Log { .. } | Self::Corrupt { .. } => Blame::Upstream,
        }
    }

    /// A stable code, one page each in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownEndpoint { .. } => "unknown_endpoint",
            Self::Schema(_) => "schema_mismatch",
            Self::SchemaChanged { .. } => "schema_changed",
            Self::NoModel { .. } => "no_model",
            Self::AllFailed { .. } => "all_failed",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::Payload { .. } => "bad_payload",
            Self::Unloaded { .. } => "unloaded",
            Self::Load { .. } => "load_failed",
            Self::Model { source, .. } => source.code,
            Self::Overloaded { .. } => "overloaded",
            Self::DeadlinePassed { .. } => "deadline_passed",
            Self::LogFull { .. } => "log_full",
            Self::Log { .. } => "log_failed",
            Self::Corrupt { .. } => "log_corrupt",
            Self::Closed => "log_closed",
            Self::Internal(_) => "serving_failed",
        }
    }

    /// Whether the same request may succeed later without a change.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Overloaded { .. })
            || (self.blame() != Blame::Caller && !matches!(self, Self::Corrupt { .. }))
    }

    pub(crate) fn log(action: &'static str, path: &Path, source: io::Error) -> Self {
        let full = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        if full {
            let dir = path.parent().unwrap_or(path).to_path_buf();
            return Self::LogFull { dir };
        }
        Self::Log {
            action,
            path: path.to_path_buf(),
            source: Arc::new(source),
        }
    }
}

fn known_names(known: &[String]) -> String {
    if known.is_empty() {
        return "there is none yet".to_owned();
    }
    let shown: Vec<String> = known.iter().take(20).map(|name| format!("`{name}`")).collect();
    format!("known: {}", shown.join(", "))
}

fn versions(loaded: &[VersionNumber]) -> String {
    if loaded.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<String> = loaded.iter().map(ToString::to_string).collect();
    shown.join(", ")
}
