//! Tails and quantiles of the distributions used here: thin names over `statrs` (incomplete gamma and beta) and `libm`
//! (full precision for erfc and ln Γ, where `statrs` 0.18 has 11 digits; and the same bits on every platform).

use statrs::distribution::{ChiSquared, ContinuousCDF, StudentsT};
use statrs::function::{beta, gamma};
use std::f64::consts::{PI, SQRT_2};

/// Φ(z), the standard normal distribution function.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / SQRT_2)
}

/// 1 − Φ(z), exact in the far tail.
pub fn normal_sf(z: f64) -> f64 {
    0.5 * libm::erfc(z / SQRT_2)
}

/// Two-sided p-value of a standard normal statistic.
pub fn normal_two_sided(z: f64) -> f64 {
    libm::erfc(z.abs() / SQRT_2).min(1.0)
}

/// Φ⁻¹(p): Acklam's rational start (2003), two Halley steps on Φ; −∞ at 0 and ∞ at 1.
pub fn normal_quantile(p: f64) -> f64 {
    if p.is_nan() || !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p == 0.0 || p == 1.0 {
        return if p == 0.0 {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        };
    }
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    let mut z = if p < 0.02425 {
        let q = (-2.0 * p.ln()).sqrt();
        let numerator = horner(
            q,
            &[
                -7.784894002430293e-3,
                -3.223964580411365e-1,
                -2.400758277161838,
                -2.549732539343734,
                4.374664141464968,
                2.938163982698783,
            ],
        );
        let denominator = horner(
            q,
            &[
                7.784695709041462e-3,
                3.224671290700398e-1,
                2.445134137142996,
                3.754408661907416,
                1.0,
            ],
        );
        numerator / denominator
    } else {
        let q = p - 0.5;
        let r = q * q;
        let numerator = horner(
            r,
            &[
                -3.969683028665376e1,
                2.209460984245205e2,
                -2.759285104469687e2,
                1.38357751867269e2,
                -3.066479806614716e1,
                2.506628277459239,
            ],
        );
        let denominator = horner(
            r,
            &[
                -5.447609879822406e1,
                1.615858368580409e2,
                -1.556989798598866e2,
                6.680131188771972e1,
                -1.328068155288572e1,
                1.0,
            ],
        );
        q * numerator / denominator
    };
    for _ in 0..2 {
        let error = normal_cdf(z) - p;
        let step = error * (2.0 * PI).sqrt() * (z * z / 2.0).exp();
        if !step.is_finite() {
            break;
        }
        z -= step / (1.0 + z * step / 2.0);
    }
    z
}

/// Evaluates a polynomial with the highest power first.
pub(crate) fn horner(x: f64, coefficients: &[f64]) -> f64 {
    coefficients.iter().fold(0.0, |sum, c| sum * x + c)
}

/// ln Γ(x) for x > 0.
pub fn ln_gamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// ln B(a, b).
pub fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Upper tail of the χ² distribution with `degrees` of freedom.
pub fn chi_squared_sf(x: f64, degrees: f64) -> f64 {
    if x.is_nan() || degrees.is_nan() {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 1.0;
    }
    if x == f64::INFINITY {
        return 0.0;
    }
    gamma::gamma_ur(degrees / 2.0, x / 2.0)
}

/// The `p` quantile of the χ² distribution.
pub fn chi_squared_quantile(p: f64, degrees: f64) -> f64 {
    ChiSquared::new(degrees).map_or(f64::NAN, |d| d.inverse_cdf(p))
}

/// Two-sided p-value of Student's t with `degrees` of freedom.
pub fn student_two_sided(t: f64, degrees: f64) -> f64 {
    if t.is_nan() || degrees.is_nan() {
        return f64::NAN;
    }
    if t.is_infinite() {
        return 0.0;
    }
    beta::beta_reg(degrees / 2.0, 0.5, degrees / (degrees + t * t))
}

/// The `p` quantile of Student's t; beyond 10⁶ degrees of freedom that of the normal distribution.
pub fn student_quantile(p: f64, degrees: f64) -> f64 {
    if degrees > 1e6 {
        return normal_quantile(p);
    }
    if p < 0.5 {
        return -student_quantile(1.0 - p, degrees);
    }
    let mut t = StudentsT::new(0.0, 1.0, degrees).map_or(f64::NAN, |d| d.inverse_cdf(p));
    // statrs bisects to a coarse tolerance: two Newton steps on the tail bring full precision.
    let ln_scale =
        ln_gamma(f64::midpoint(degrees, 1.0)) - ln_gamma(degrees / 2.0) - 0.5 * (degrees * PI).ln();
    for _ in 0..2 {
        let density = (ln_scale - f64::midpoint(degrees, 1.0) * (t * t / degrees).ln_1p()).exp();
        let step = (student_two_sided(t, degrees) / 2.0 - (1.0 - p)) / density;
        if step.is_finite() {
            t += step;
        }
    }
    t
}

/// P(X ≤ k) for X binomial with `n` trials of success probability `p`.
pub fn binomial_cdf(k: u64, n: u64, p: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    beta::beta_reg((n - k) as f64, k as f64 + 1.0, 1.0 - p)
}

/// P(X = k) for X binomial with `n` trials of success probability `p`.
pub fn binomial_pmf(k: u64, n: u64, p: f64) -> f64 {
    if k > n {
        return 0.0;
    }
    if p <= 0.0 || p >= 1.0 {
        let certain = if p <= 0.0 { 0 } else { n };
        return f64::from(u8::from(k == certain));
    }
    let (k, n) = (k as f64, n as f64);
    (ln_choose(n, k) + k * p.ln() + (n - k) * (-p).ln_1p()).exp()
}

/// ln of the binomial coefficient "n over k".
pub fn ln_choose(n: f64, k: f64) -> f64 {
    ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0)
}

/// e^(−q)·K_¼(q) for q > 0, by the trapezoid rule on ∫ exp(−q(cosh t + 1))·cosh(t/4) dt over t ≥ 0, which converges
/// exponentially for this integrand (Trefethen & Weideman 2014).
pub(crate) fn scaled_bessel_k_quarter(q: f64) -> f64 {
    let step = 1.0 / 64.0;
    let mut sum = 0.5 * (-2.0 * q).exp();
    for i in 1..20_000_u32 {
        let t = f64::from(i) * step;
        let term = (-q * (t.cosh() + 1.0)).exp() * (t / 4.0).cosh();
        sum += term;
        if term < sum * 1e-17 {
            break;
        }
    }
    sum * step
}

/// ln(Σ eˣ) without overflow; −∞ for an empty list. The same bits on every platform.
pub fn log_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max.is_infinite() {
        return max;
    }
    max + libm::log(values.iter().map(|v| libm::exp(v - max)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!(
            (got - expected).abs() <= 1e-11 + 1e-11 * expected.abs(),
            "{got} instead of {expected}"
        );
    }

    #[test]
    fn tails_and_quantiles_agree_with_scipy() {
        // scipy 1.17.1
        close(normal_cdf(1.0), 0.8413447460685429);
        close(normal_sf(8.0) * 1e15, 0.6220960574271786);
        close(normal_quantile(0.975), 1.959963984540054);
        close(normal_quantile(1e-10), -6.361340902404056);
        close(chi_squared_sf(3.841458820694124, 1.0), 0.05);
        close(chi_squared_sf(120.0, 100.0), 0.08440668109369187);
        close(student_two_sided(2.0, 7.0), 0.08561932856297605);
        close(student_quantile(0.975, 10.0), 2.2281388519649385);
        close(student_quantile(0.025, 3.0), -3.1824463052837086);
        close(binomial_cdf(8, 28, 0.5), 0.017849069088697433);
        close(binomial_pmf(8, 28, 0.5), 0.011578593403100978);
        close(
            scaled_bessel_k_quarter(0.5),
            (-0.5_f64).exp() * 0.9603163249318826,
        );
    }

    #[test]
    fn a_sum_of_large_logs_does_not_overflow() {
        close(log_sum_exp(&[1000.0, 1000.0]), 1000.0 + 2.0_f64.ln());
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
    }
}
