//! Sample ratio mismatch: do the arms get the traffic they should? (F2)
//!
//! Fixed: Pearson's χ², alarm at p < 0.001 (Fabijan et al., KDD 2019). Sequential: the Dirichlet-multinomial Bayes
//! factor of Lindon & Malek (NeurIPS 2022), valid at every look.

use crate::error::{Result, StatsError, all_finite, not_empty, positive, same_length};
use crate::exact_float;
use crate::special::{chi_squared_sf, ln_gamma};
use serde::{Deserialize, Serialize};

/// The p-value below which a mismatch makes an experiment invalid.
pub const ALARM_P: f64 = 0.001;
/// The prior's weight in [`srm_log_bayes_factor`], as in the authors' code.
pub const DEFAULT_CONCENTRATION: f64 = 100.0;

/// Result of the fixed test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SrmChiSquared {
    /// Σ (n_i − N·θ_i)² / (N·θ_i).
    pub chi_squared: f64,
    /// Its p-value with arms − 1 degrees of freedom. Not valid under repeated looks.
    pub p_value: f64,
}

/// χ² test of arm `counts` against the intended `shares` (which sum to 1).
pub fn srm_chi_squared(counts: &[u64], shares: &[f64]) -> Result<SrmChiSquared> {
    check_shares(counts.len(), shares)?;
    let total: u64 = counts.iter().sum();
    not_empty("counts", total as usize)?;
    let term = |(count, share): (&u64, &f64)| {
        let expected = total as f64 * share;
        (*count as f64 - expected).powi(2) / expected
    };
    let chi_squared: f64 = counts.iter().zip(shares).map(term).sum();
    Ok(SrmChiSquared {
        chi_squared,
        p_value: chi_squared_sf(chi_squared, (counts.len() - 1) as f64),
    })
}

/// ln B_n = lnΓ(k) − lnΓ(k + n) + Σ[lnΓ(kθ_i + n_i) − lnΓ(kθ_i)] − Σ n_i·ln θ_i, with k the `concentration`.
pub fn srm_log_bayes_factor(counts: &[u64], shares: &[f64], concentration: f64) -> Result<f64> {
    check_shares(counts.len(), shares)?;
    positive("concentration", concentration)?;
    let total: u64 = counts.iter().sum();
    let arms: f64 = counts
        .iter()
        .zip(shares)
        .map(|(count, share)| {
            let (count, prior) = (*count as f64, concentration * share);
            ln_gamma(prior + count) - ln_gamma(prior) - count * share.ln()
        })
        .sum();
    Ok(ln_gamma(concentration) - ln_gamma(concentration + total as f64) + arms)
}

/// The sequential test under ramping: a phase per traffic split, evidence multiplied over phases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequentialSrm {
    /// Shares of the current phase.
    #[serde(with = "exact_float::list")]
    shares: Vec<f64>,
    /// Counts of the current phase.
    counts: Vec<u64>,
    #[serde(with = "exact_float")]
    concentration: f64,
    /// ln B of the phases that are over.
    #[serde(with = "exact_float")]
    closed_log_e: f64,
    #[serde(with = "exact_float")]
    peak_log_e: f64,
}

impl SequentialSrm {
    /// Starts with the intended `shares` of each arm.
    pub fn new(shares: &[f64]) -> Result<Self> {
        check_shares(shares.len(), shares)?;
        Ok(Self {
            shares: shares.to_vec(),
            counts: vec![0; shares.len()],
            concentration: DEFAULT_CONCENTRATION,
            closed_log_e: 0.0,
            peak_log_e: 0.0,
        })
    }

    /// Adds units that went to each arm since the last call.
    pub fn observe(&mut self, new_units: &[u64]) -> Result<()> {
        same_length("new_units", self.counts.len(), new_units.len())?;
        for (count, new) in self.counts.iter_mut().zip(new_units) {
            *count += new;
        }
        self.peak_log_e = self.peak_log_e.max(self.log_e()?);
        Ok(())
    }

    /// Starts a phase with another split.
    pub fn change_shares(&mut self, shares: &[f64]) -> Result<()> {
        check_shares(self.shares.len(), shares)?;
        self.closed_log_e = self.log_e()?;
        self.shares = shares.to_vec();
        self.counts = vec![0; shares.len()];
        Ok(())
    }

    /// Evidence of a mismatch so far.
    pub fn log_e(&self) -> Result<f64> {
        Ok(self.closed_log_e + srm_log_bayes_factor(&self.counts, &self.shares, self.concentration)?)
    }

    /// The anytime-valid p-value: it only falls.
    pub fn p_value(&self) -> f64 {
        super::p_from_log_e(self.peak_log_e)
    }
}

fn check_shares(arms: usize, shares: &[f64]) -> Result<()> {
    same_length("shares", arms, shares.len())?;
    if arms < 2 {
        return Err(StatsError::ParameterOutOfRange {
            name: "shares",
            value: arms as f64,
            expected: "2 arms or more",
        });
    }
    all_finite(shares)?;
    let sum: f64 = shares.iter().sum();
    if shares.iter().any(|s| *s <= 0.0) || (sum - 1.0).abs() > 1e-9 {
        return Err(StatsError::ParameterOutOfRange {
            name: "shares",
            value: sum,
            expected: "shares above 0 that sum to 1",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_multiply_their_evidence_and_the_p_value_only_falls() {
        let mut test = SequentialSrm::new(&[0.95, 0.05]).unwrap();
        test.observe(&[9400, 600]).unwrap();
        let first = test.log_e().unwrap();
        let p = test.p_value();
        test.change_shares(&[0.5, 0.5]).unwrap();
        test.observe(&[5000, 5000]).unwrap();
        let balanced = srm_log_bayes_factor(&[5000, 5000], &[0.5, 0.5], 100.0).unwrap();
        assert!((test.log_e().unwrap() - first - balanced).abs() < 1e-9);
        assert_eq!(test.p_value(), p);
    }

    #[test]
    fn shares_that_do_not_sum_to_one_are_refused() {
        assert!(matches!(
            srm_chi_squared(&[1, 2], &[0.5, 0.6]),
            Err(StatsError::ParameterOutOfRange { .. })
        ));
    }
}
