//! Numbers in, numbers out: every statistic that a Tidemill decision rests on.
//!
//! - [`metrics`]: how good one model is (binary, regression, multiclass, calibration).
//! - [`paired`]: two models on the same rows: DeLong, McNemar, bootstrap, non-inferiority verdicts.
//! - [`sequential`]: tests that may be looked at all the time: SRM, confidence sequences, e-processes.
//! - [`drift`]: one method per file, one registry; stored references for production windows.
//! - [`multiplicity`]: many tests at once: Benjamini-Hochberg, e-BH, Holm, Bonferroni.
//!
//! Deliberately absent: I/O, clocks, async, tables and columns, decisions about rollouts, and any randomness
//! without an explicit seed. Formulas name their source; the same input gives the same bits. A number that cannot
//! be had is a typed [`StatsError`], never a silent NaN.

#![warn(missing_docs)]

pub mod drift;
mod error;
pub mod exact_float;
mod kolmogorov;
pub mod metrics;
pub mod multiplicity;
pub mod paired;
pub mod ranks;
pub mod rng;
pub mod sequential;
pub mod special;

pub use error::{Result, StatsError};
