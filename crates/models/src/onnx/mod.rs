//! ONNX: files checked here, run by ONNX Runtime, which is loaded when the first model needs it.
//!
//! `proto` and `wire` read a file without copying it, `check`, `sizes` and `ends` refuse what would read other files, fill the memory or not end,
//! `library` finds ONNX Runtime, `sessions` keeps its sessions, `device` says on which processor, `bound` calls a GPU by pinned memory, `tensors` moves values between it and us, [`OnnxModel`] answers
//! tensors and `table` a table's rows, by our own tree engine where `trees` knows that it gives the same answers.

mod bound;
mod check;
mod columns;
mod device;
mod ends;
mod forest;
mod library;
mod proto;
mod servable;
mod sessions;
mod sizes;
mod table;
mod tensors;
mod trees;
mod wire;

use tidemill_core::ports::PortError;

pub use servable::OnnxModel;
pub(crate) use table::load as load_table;

/// Why an ONNX file is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OnnxError {
    /// It is damaged, or no ONNX file.
    #[error("is not an ONNX model: {0}; export it again")]
    Wire(String),
    /// It needs operators that are not there.
    #[error("{0}, which ONNX Runtime does not have; export it with opset 22 or lower and standard operators")]
    Opset(String),
    /// It would not end.
    #[error("makes no sense as a graph: {0}; export it again")]
    Cycle(String),
    /// It claims more than it holds, or more than a model may.
    #[error("is too large or does not hold what it claims: {0}; export it again")]
    TooLarge(String),
    /// Its weights are elsewhere.
    #[error(
        "has weights in other files: {0}; put these files into the bundle, beside the model, under plain names"
    )]
    ExternalData(String),
    /// A form that is not served.
    #[error("cannot be served: {0}")]
    Unsupported(String),
    /// ONNX Runtime is not here.
    #[error(
        "needs ONNX Runtime, which was not found: {0}; install it with `pip install onnxruntime`, or name its library in \
         TIDEMILL_ONNXRUNTIME"
    )]
    NoRuntime(String),
    /// The GPU that was asked for is not here.
    #[error("cannot run on {0}")]
    NoDevice(String),
    /// ONNX Runtime did not take it.
    #[error("is refused by ONNX Runtime: {0}")]
    Refused(String),
}

impl OnnxError {
    fn wire(what: impl Into<String>) -> Self {
        Self::Wire(what.into())
    }

    /// The error of a model's file.
    pub fn of(self, file: &str) -> PortError {
        let message = format!("`{file}` {self}");
        match self {
            Self::NoRuntime(_) => PortError::upstream("onnxruntime_missing", message),
            Self::NoDevice(_) => PortError::upstream("device_missing", message),
            _ => PortError::caller("model_broken", message),
        }
    }
}
