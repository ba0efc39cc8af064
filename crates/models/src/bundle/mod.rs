//! Bundles: code, lock and model files in one archive whose bytes are a function of its content, and back, safely.
//!
//! An archive is a tar stream, compressed by zstd: `tidemill.json` first, then the files by name, without times and owners.

mod collect;
mod pack;
mod recognise;
mod unpack;

pub use collect::{Collected, Include, collect};
pub use pack::pack;
pub(crate) use recognise::mlmodel;
pub use recognise::{Recognised, recognise};
pub use unpack::unpack;

pub use crate::engine::mebibytes;
