//! Many tests at once: how often may one of them cry wolf?

use crate::error::{Result, StatsError, open_unit};
use std::f64::consts::PI;

/// Benjamini-Hochberg adjusted p-values (JRSS-B 1995), in the order of the input: rejecting those at most q keeps the
/// false discovery rate at q for independent (or positively dependent) tests.
pub fn benjamini_hochberg(p_values: &[f64]) -> Result<Vec<f64>> {
    check_p(p_values)?;
    let order = crate::ranks::argsort(p_values);
    let n = p_values.len() as f64;
    let mut adjusted = vec![0.0; p_values.len()];
    let mut smallest = 1.0_f64;
    for (position, index) in order.iter().enumerate().rev() {
        smallest = smallest.min(p_values[*index as usize] * n / (position + 1) as f64);
        adjusted[*index as usize] = smallest;
    }
    Ok(adjusted)
}

/// Holm's adjusted p-values (1979): rejecting those at most α keeps the chance of any false rejection at α, under any
/// dependence.
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>> {
    check_p(p_values)?;
    let order = crate::ranks::argsort(p_values);
    let n = p_values.len();
    let mut adjusted = vec![0.0; n];
    let mut largest = 0.0_f64;
    for (position, index) in order.iter().enumerate() {
        largest = largest.max((p_values[*index as usize] * (n - position) as f64).min(1.0));
        adjusted[*index as usize] = largest;
    }
    Ok(adjusted)
}

/// Bonferroni's adjusted p-values: min(1, n·p).
pub fn bonferroni(p_values: &[f64]) -> Result<Vec<f64>> {
    check_p(p_values)?;
    Ok(p_values
        .iter()
        .map(|p| (p * p_values.len() as f64).min(1.0))
        .collect())
}

/// e-BH (Wang & Ramdas, JRSS-B 2022) on log e-values: which hypotheses to reject at false discovery rate `alpha`, under
/// *any* dependence. Rejects the k with the largest e-values, for the largest k with e₍ₖ₎ ≥ n/(αk).
pub fn e_bh(log_e_values: &[f64], alpha: f64) -> Result<Vec<bool>> {
    open_unit("alpha", alpha)?;
    if let Some(index) = log_e_values.iter().position(|e| e.is_nan()) {
        return Err(StatsError::NotFinite {
            index,
            value: log_e_values[index],
        });
    }
    let mut order = crate::ranks::argsort(log_e_values);
    order.reverse();
    let n = log_e_values.len() as f64;
    let passes = |position: usize| {
        log_e_values[order[position] as usize] >= (n / (alpha * (position + 1) as f64)).ln()
    };
    let rejected = (0..order.len())
        .rev()
        .find(|position| passes(*position))
        .map_or(0, |last| last + 1);
    let mut reject = vec![false; log_e_values.len()];
    for index in &order[..rejected] {
        reject[*index as usize] = true;
    }
    Ok(reject)
}

/// The arithmetic mean of e-values, as a logarithm: again an e-value, under any dependence (Vovk & Wang 2021).
pub fn merge_log_e(log_e_values: &[f64]) -> Result<f64> {
    crate::error::not_empty("log_e_values", log_e_values.len())?;
    Ok(crate::special::log_sum_exp(log_e_values) - (log_e_values.len() as f64).ln())
}

/// Turns a p-value into a log e-value by the calibrator e = ½·p^(−½) (Vovk & Wang 2021).
pub fn log_e_from_p(p_value: f64) -> Result<f64> {
    check_p(&[p_value])?;
    Ok(0.5_f64.ln() - 0.5 * p_value.max(f64::MIN_POSITIVE).ln())
}

/// The level for the `use_number`-th test (from 1) on one held-out set: α·6/(π²k²), which sums to α over all uses.
pub fn spent_level(alpha: f64, use_number: u64) -> Result<f64> {
    open_unit("alpha", alpha)?;
    if use_number == 0 {
        return Err(StatsError::ParameterOutOfRange {
            name: "use_number",
            value: 0.0,
            expected: "1 or more",
        });
    }
    Ok(alpha * 6.0 / (PI * use_number as f64).powi(2))
}

fn check_p(p_values: &[f64]) -> Result<()> {
    match p_values.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        None => Ok(()),
        Some(value) => Err(StatsError::ParameterOutOfRange {
            name: "p_values",
            value: *value,
            expected: "numbers from 0 to 1",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: &[f64], expected: &[f64]) {
        assert!(
            got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-12),
            "{got:?}"
        );
    }

    #[test]
    fn adjusted_p_values_agree_with_r() {
        // R: p.adjust(c(.01, .04, .03, .005), "BH"), "holm", "bonferroni"
        let p = [0.01, 0.04, 0.03, 0.005];
        close(&benjamini_hochberg(&p).unwrap(), &[0.02, 0.04, 0.04, 0.02]);
        close(&holm(&p).unwrap(), &[0.03, 0.06, 0.06, 0.02]);
        close(&bonferroni(&p).unwrap(), &[0.04, 0.16, 0.12, 0.02]);
    }

    #[test]
    fn e_bh_rejects_the_strong_ones() {
        let log_e: Vec<f64> = [100.0_f64, 30.0, 1.0, 45.0].iter().map(|e| e.ln()).collect();
        assert_eq!(e_bh(&log_e, 0.05).unwrap(), [true, true, false, true]);
        assert_eq!(e_bh(&log_e[2..3], 0.05).unwrap(), [false]);
    }

    #[test]
    fn levels_spent_on_one_test_set_sum_to_alpha() {
        let spent: f64 = (1..100_000).map(|k| spent_level(0.05, k).unwrap()).sum();
        assert!(spent < 0.05 && spent > 0.0499);
    }
}
