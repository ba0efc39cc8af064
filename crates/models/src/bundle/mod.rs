//! Bundles: code, lock and model files in one archive whose bytes are a function of its content, and back, safely.
//!
//! An archive is a tar stream, compressed by zstd: `tidemill.json` first, then the files by name, without times and owners.

mod collect;
mod pack;
mod recognise;
mod unpack;

use std::path::Path;

pub use collect::{Collected, Include, collect};
pub use pack::pack;
pub(crate) use recognise::mlmodel;
pub use recognise::{Recognised, file_named_by, recognise};
pub use unpack::unpack;

pub use crate::engine::mebibytes;

/// Whether a file's name has this ending, such as `onnx`, in whatever case.
pub(crate) fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(extension))
}
