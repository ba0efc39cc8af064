//! Exit codes that mean something; `tidemill --help` lists them.

use std::process::ExitCode;

use tidemill_control::ControlError;
use tidemill_core::ports::{Blame, PortError};
use tidemill_core::spec::SpecError;
use tidemill_store::StoreError;

use crate::client::ApiFailure;

/// The command's input is wrong; the message says what was expected.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

/// Ends the command with a message about its input.
macro_rules! bad_input {
    ($($message:tt)*) => {
        return Err($crate::exit::BadInput(format!($($message)*)).into())
    };
}
pub(crate) use bad_input;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// As asked.
    Success,
    /// A fault of ours or of something below us.
    Failure,
    /// The input (spec, data, arguments) is wrong.
    BadInput,
    /// The answer is no: validation failed, the gate refused, digests differ.
    Refused,
    /// No server answers, or the data folder is in use.
    Unavailable,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        // 2 is clap's, for a command line that cannot be read.
        Self::from(match code {
            Code::Success => 0,
            Code::Failure => 1,
            Code::BadInput => 3,
            Code::Refused => 4,
            Code::Unavailable => 5,
        })
    }
}

/// The exit code of an error, from whoever has to act.
pub fn code_of(error: &anyhow::Error) -> Code {
    let by_blame = |blame: Blame| {
        if blame == Blame::Caller {
            Code::BadInput
        } else {
            Code::Failure
        }
    };
    for cause in error.chain() {
        if cause.is::<SpecError>() || cause.is::<BadInput>() {
            return Code::BadInput;
        }
        if let Some(e) = cause.downcast_ref::<ControlError>() {
            let locked = matches!(e, ControlError::Store(StoreError::Locked { .. }));
            return if locked {
                Code::Unavailable
            } else {
                by_blame(e.blame())
            };
        }
        if let Some(e) = cause.downcast_ref::<StoreError>() {
            return if matches!(e, StoreError::Locked { .. }) {
                Code::Unavailable
            } else {
                by_blame(e.blame())
            };
        }
        if let Some(e) = cause.downcast_ref::<PortError>() {
            return by_blame(e.blame);
        }
        if let Some(e) = cause.downcast_ref::<ApiFailure>() {
            return match e.status {
                400..=499 => Code::BadInput,
                0 => Code::Unavailable,
                _ => Code::Failure,
            };
        }
    }
    Code::Failure
}
