//! Two models on the same rows. `a` is the champion, `b` the challenger; differences are `b − a`.

pub mod bootstrap;
pub mod delong;
pub mod mcnemar;
pub mod means;
pub mod noninferiority;
pub mod proportions;

pub use bootstrap::{Bootstrap, paired_bootstrap};
pub use delong::{DeLong, delong, delong_clustered};
pub use mcnemar::{McNemar, mcnemar};
pub use means::{PairedMean, paired_mean_difference};
pub use noninferiority::{Noninferiority, Verdict, noninferiority};
pub use proportions::{PairedProportions, paired_proportions};

use serde::{Deserialize, Serialize};

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Confidence, for instance 0.95.
    pub level: f64,
}
