//! Distributions of Kolmogorov-Smirnov statistics.
//!
//! Two samples: exact, by counting lattice paths that stay between two lines (Hodges 1958; scaled recursion of
//! Viehmann 2021). One sample: Simard & L'Ecuyer (2011) with the Durbin matrix (Marsaglia, Tsang & Wang 2003), the
//! exact one-sided sum (Birnbaum & Tingey 1951) and Pelz & Good (1976), as in scipy.

use crate::special::{horner, ln_choose};
use std::f64::consts::PI;

/// Greatest common divisor.
pub(crate) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// P(D ≥ statistic) for samples of `n1` and `n2` rows; `None` where lattice steps would overflow.
pub(crate) fn two_sample_exact_sf(statistic: f64, n1: u64, n2: u64) -> Option<f64> {
    let divisor = gcd(n1, n2);
    let multiple = n1 / divisor * n2;
    if (n1 / divisor) as f64 >= f64::from(i32::MAX) / (n2 / divisor) as f64 {
        return None;
    }
    let steps = (statistic * multiple as f64).round_ties_even() as u64;
    if steps == 0 {
        return Some(1.0);
    }
    let p = if n1 == n2 {
        outside_square(n1, steps)
    } else {
        outside_band(n1, n2, divisor, steps)
    };
    (0.0..=1.0).contains(&p).then_some(p)
}

/// Equal sizes: 2·(C(2n, n − h) − C(2n, n − 2h) + …)/C(2n, n), factored to avoid cancellation.
fn outside_square(n: u64, h: u64) -> f64 {
    let (n, h) = (n as f64, h as f64);
    let mut p = 0.0;
    let mut k = (n / h).floor();
    while k >= 0.0 {
        let mut factor = 1.0;
        let mut j = 0.0;
        while j < h {
            factor = (n - k * h - j) * factor / (n + k * h + j + 1.0);
            j += 1.0;
        }
        p = factor * (1.0 - p);
        k -= 1.0;
    }
    2.0 * p
}

/// Share of lattice paths from (0, 0) to (m, n) that touch |n·x − m·y| ≥ h·g, column by column over a sliding window.
fn outside_band(n1: u64, n2: u64, divisor: u64, h: u64) -> f64 {
    let (m, n) = (n1.max(n2) as i64, n1.min(n2) as i64);
    let (mg, ng, h) = (m / divisor as i64, n / divisor as i64, h as i64);
    let ceil_div = |a: i64, b: i64| -(-a).div_euclid(b);
    let (mut min_j, mut max_j) = (0_i64, ceil_div(h, mg).min(n + 1));
    let mut length = max_j - min_j;
    let mut column = vec![1.0_f64; (2 * max_j + 2).min(n + 1) as usize];
    column[min_j as usize..max_j as usize].fill(0.0);
    for i in 1..=m {
        let (last_min, last_length) = (min_j, length);
        min_j = ((ng * i - h).div_euclid(mg) + 1).max(0).min(n);
        max_j = ceil_div(ng * i + h, mg).min(n + 1);
        if max_j <= min_j {
            return 1.0;
        }
        let mut value = if min_j == 0 { 0.0 } else { 1.0 };
        length = max_j - min_j;
        for offset in 0..length {
            let j = offset + min_j;
            value = (column[(j - last_min) as usize] * i as f64 + value * j as f64) / (i + j) as f64;
            column[offset as usize] = value;
        }
        if last_length > length {
            column[length as usize..last_length as usize].fill(1.0);
        }
    }
    column[(length - 1) as usize]
}

/// P(D_n ≥ x), the two-sided one-sample statistic of `n` rows.
pub(crate) fn one_sample_sf(n: u64, x: f64) -> f64 {
    let rows = n as f64;
    if x >= 1.0 {
        return 0.0;
    }
    let t = rows * x;
    if t <= 0.5 {
        return 1.0;
    }
    if t <= 1.0 {
        // Ruben & Gambino: n!·(2t − 1)ⁿ/nⁿ.
        let ln_cdf: f64 = (1..=n).map(|i| (i as f64 / rows * (2.0 * t - 1.0)).ln()).sum();
        return 1.0 - ln_cdf.exp();
    }
    if t >= rows - 1.0 {
        return (2.0 * (1.0 - x).powf(rows)).min(1.0);
    }
    let squared = t * x;
    if x >= 0.5 || (n <= 140 && squared > 4.0) || (n > 140 && squared >= 2.2) {
        return if squared >= 370.0 {
            0.0
        } else {
            (2.0 * one_sided_sf(n, x)).min(1.0)
        };
    }
    if n <= 140 || (n <= 100_000 && rows * x.powf(1.5) <= 1.4) {
        return 1.0 - durbin_matrix_cdf(n, x);
    }
    1.0 - pelz_good_cdf(rows, x)
}

/// P(D⁺_n ≥ x) = x·Σ C(n, j)·(x + j/n)^(j−1)·(1 − x − j/n)^(n−j): every term is positive.
fn one_sided_sf(n: u64, x: f64) -> f64 {
    let rows = n as f64;
    let last = (rows * (1.0 - x)).floor() as u64;
    let term = |j: u64| {
        let j = j as f64;
        let rest = 1.0 - x - j / rows;
        if rest <= 0.0 {
            return if rows - j > 0.0 {
                0.0
            } else {
                (x + j / rows).powf(j - 1.0)
            };
        }
        (ln_choose(rows, j) + (j - 1.0) * (x + j / rows).ln() + (rows - j) * rest.ln()).exp()
    };
    (x * (0..=last).map(term).sum::<f64>()).min(1.0)
}

/// Scaling keeps intermediate powers inside the range of `f64`.
const SCALE_EXPONENT: i32 = 128;

fn durbin_matrix_cdf(n: u64, x: f64) -> f64 {
    let big = 2.0_f64.powi(SCALE_EXPONENT);
    let t = n as f64 * x;
    let k = t.ceil() as usize;
    let h = k as f64 - t;
    let m = 2 * k - 1;
    let mut weights = vec![0.0; m];
    let mut first = vec![0.0; m];
    let mut inverse_factorial = 1.0;
    for j in 1..=m {
        weights[j - 1] = inverse_factorial;
        inverse_factorial /= j as f64;
        first[j - 1] = (1.0 - h.powi(j as i32)) * inverse_factorial;
    }
    let corner = (2.0 * h - 1.0).max(0.0).powi(m as i32) - 2.0 * h.powi(m as i32);
    first[m - 1] = (1.0 + corner) * inverse_factorial;
    let mut base = vec![0.0; m * m];
    for column in 1..m {
        for row in column - 1..m {
            base[row * m + column] = weights[row + 1 - column];
        }
    }
    for row in 0..m {
        base[row * m] = first[row];
        base[(m - 1) * m + row] = first[m - 1 - row];
    }
    let mut power = vec![0.0; m * m];
    for i in 0..m {
        power[i * m + i] = 1.0;
    }
    let (mut exponent, mut base_exponent) = (0_i32, 0_i32);
    let mut left = n;
    while left > 0 {
        if left % 2 == 1 {
            power = product(&power, &base, m);
            exponent += base_exponent;
        }
        base = product(&base, &base, m);
        base_exponent *= 2;
        if base[(k - 1) * m + k - 1].abs() > big {
            for cell in &mut base {
                *cell /= big;
            }
            base_exponent += SCALE_EXPONENT;
        }
        left /= 2;
    }
    let mut p = power[(k - 1) * m + k - 1];
    for i in 1..=n {
        p = i as f64 * p / n as f64;
        if p.abs() < 1.0 / big {
            p *= big;
            exponent -= SCALE_EXPONENT;
        }
    }
    p * 2.0_f64.powi(exponent)
}

fn product(a: &[f64], b: &[f64], m: usize) -> Vec<f64> {
    let mut result = vec![0.0; m * m];
    for i in 0..m {
        for k in 0..m {
            let factor = a[i * m + k];
            if factor != 0.0 {
                for j in 0..m {
                    result[i * m + j] += factor * b[k * m + j];
                }
            }
        }
    }
    result
}

/// K₀ + K₁/√n + K₂/n + K₃/n^1.5 in Jacobi-theta form.
fn pelz_good_cdf(n: f64, x: f64) -> f64 {
    let z = n.sqrt() * x;
    let (z2, z4, z6) = (z * z, z.powi(4), z.powi(6));
    let (pi2, pi4, pi6) = (PI * PI, PI.powi(4), PI.powi(6));
    let exponent = -pi2 / 8.0 / z2;
    if exponent < -708.0 {
        return 0.0;
    }
    let q = exponent.exp();
    let by_power = [
        vec![1.0],
        vec![pi2 / 4.0, -z2],
        vec![
            pi4 * (1.0 - 2.0 * z2) / 16.0,
            (2.0 * z4 - 5.0 * z2) * pi2 / 4.0,
            6.0 * z6 + 2.0 * z4,
        ],
        vec![
            pi6 * (5.0 - 30.0 * z2) / 64.0,
            pi4 * (-60.0 * z2 + 212.0 * z4) / 16.0,
            pi2 * (135.0 * z4 - 96.0 * z6) / 4.0,
            -30.0 * z6 - 90.0 * z.powi(8),
        ],
    ];
    let terms = (16.0 * z / PI).ceil() as i32;
    let mut sums = [0.0; 4];
    for k in (1..=terms).rev() {
        let odd_squared = f64::from(2 * k - 1).powi(2);
        let factor = q.powi(8 * k);
        for (sum, coefficients) in sums.iter_mut().zip(&by_power) {
            *sum = *sum * factor + horner(odd_squared, coefficients);
        }
    }
    let root_2pi = (2.0 * PI).sqrt();
    for (sum, divisor) in sums
        .iter_mut()
        .zip([z, 6.0 * z4, 72.0 * z.powi(7), 6480.0 * z.powi(10)])
    {
        *sum *= q * root_2pi / divisor;
    }
    let q = (-pi2 / 2.0 / z2).exp();
    let root_3z = 3.0_f64.sqrt() * z;
    for k in 1..=terms {
        let k = f64::from(k);
        let power = q.powf(k * k);
        sums[2] -= k * k * power * pi2 * root_2pi / (36.0 * z.powi(3));
        sums[3] += (root_3z + PI * k) * (root_3z - PI * k) * k * k * power * pi2 * root_2pi / (216.0 * z6);
    }
    (sums[0] + sums[1] / n.sqrt() + sums[2] / n + sums[3] / n.powf(1.5)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_sample_tail_agrees_with_scipy() {
        // scipy.stats.kstwo.sf(x, n), scipy 1.17.1
        let cases = [
            (10, 0.07, 0.9999999619492741),
            (10, 0.3, 0.27053557479999946),
            (10, 0.6, 0.0005681672000000003),
            (50, 0.1, 0.6623112704658186),
            (140, 0.05, 0.8576480297656114),
            (140, 0.16, 0.001344016324418744),
            (141, 0.02, 0.9999999744561288),
            (1000, 0.01, 0.9999496745370611),
            (1000, 0.02, 0.8108971656895577),
            (1000, 0.045, 0.03378304014546085),
            (1000, 0.06, 0.001428597887952891),
            (27273, 0.005, 0.5013208575758898),
            (27273, 0.0099, 0.009470445416345914),
            (27273, 0.02, 6.589655714380475e-10),
            (200000, 0.001, 0.9881500208855729),
            (200000, 0.0025, 0.16380630168585164),
            (5, 0.9, 1.9999999999999978e-05),
        ];
        for (n, x, expected) in cases {
            let got = one_sample_sf(n, x);
            assert!(
                (got - expected).abs() <= 1e-11 + 1e-9 * expected,
                "n {n} x {x}: {got} instead of {expected}"
            );
        }
    }

    #[test]
    fn equal_and_unequal_sizes_agree_with_scipys_exact_values() {
        // scipy.stats.ks_2samp(method="exact") for d = 3/10 of 10 and 10 rows, and d = 7/12 of 4 and 6 rows
        assert!((two_sample_exact_sf(0.3, 10, 10).unwrap() - 0.7869297884777761).abs() < 1e-12);
        assert!((two_sample_exact_sf(7.0 / 12.0, 4, 6).unwrap() - 0.2952380952380953).abs() < 1e-12);
    }
}
