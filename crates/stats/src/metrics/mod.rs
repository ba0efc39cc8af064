//! How good one model is on labelled rows. Definitions follow scikit-learn and Evidently (reference/monitoring.md §2.5).

pub mod binary;
pub mod calibration;
pub mod multiclass;
pub mod regression;
