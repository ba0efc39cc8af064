//! Tests that may be looked at after every row without inflating errors (reference/loop.md §2).
//!
//! An e-process is a bet against the null hypothesis: its expectation stays at most 1 while the null holds, so by
//! Ville's inequality it ever reaches 1/α with probability at most α. All e-values here are natural logarithms: decide
//! at `log_e >= -alpha.ln()`. State is plain data: persist it, or feed the same rows again, and get the same
//! bits, on any platform (logarithms come from `libm`, not from the system).

pub mod asymptotic_cs;
pub mod betting;
pub mod events_needed;
pub mod msprt;
pub mod paired_loss;
pub mod rare_events;
pub mod srm;

pub use asymptotic_cs::{AsymptoticCs, Moments, ipw_increment};
pub use betting::BettingEProcess;
pub use events_needed::{EventsNeeded, events_needed, events_needed_noninferiority};
pub use msprt::msprt_log_lambda;
pub use paired_loss::{PairedDecision, PairedLossEProcess};
pub use rare_events::{RateRatioEProcess, beta_mixture_log_e};
pub use srm::{SequentialSrm, srm_chi_squared, srm_log_bayes_factor};

/// Has the evidence `log_e` reached 1/α?
pub fn rejects(log_e: f64, alpha: f64) -> bool {
    log_e >= -libm::log(alpha)
}

/// The anytime-valid p-value of an e-process: min(1, 1/E). Feed it the peak of the process.
pub fn p_from_log_e(log_e: f64) -> f64 {
    (-log_e).exp().min(1.0)
}
