//! Mixture sequential probability ratio test (F4; Johari, Koomen, Pekelis & Walsh, KDD 2017).

use crate::error::{Result, StatsError, positive};

/// ln Λ = ½·ln(v/(v + τ²)) + Δ²τ²/(2v(v + τ²)), with v the variance of the difference Δ (s₁²/n₁ + s₀²/n₀) and τ the
/// standard deviation of effects that are expected. Needs the start rule of the confidence sequence.
pub fn msprt_log_lambda(difference: f64, variance_of_difference: f64, tau: f64) -> Result<f64> {
    positive("variance_of_difference", variance_of_difference)?;
    positive("tau", tau)?;
    if !difference.is_finite() {
        return Err(StatsError::NotFinite {
            index: 0,
            value: difference,
        });
    }
    let (v, mixture) = (variance_of_difference, tau * tau);
    Ok(0.5 * (v / (v + mixture)).ln() + difference * difference * mixture / (2.0 * v * (v + mixture)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closed_form_is_the_mixture_integral() {
        let (difference, v, tau) = (0.03_f64, 1e-4_f64, 0.02_f64);
        let steps = 20_000;
        let width = 16.0 * tau / f64::from(steps);
        let integral: f64 = (0..steps)
            .map(|i| {
                let effect = -8.0 * tau + (f64::from(i) + 0.5) * width;
                let prior = (-effect * effect / (2.0 * tau * tau)).exp()
                    / (tau * (2.0 * std::f64::consts::PI).sqrt());
                prior * (difference * effect / v - effect * effect / (2.0 * v)).exp() * width
            })
            .sum();
        assert!((msprt_log_lambda(difference, v, tau).unwrap() - integral.ln()).abs() < 1e-9);
    }
}
