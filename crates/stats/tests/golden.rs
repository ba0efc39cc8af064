//! Published values: pROC's and statsmodels' own tests, and the simulations behind reference/loop.md (see
//! `tests/data`: `golden.json` and the aSAH data of the R package pROC).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use tidemill_stats::metrics::binary::auc;
use tidemill_stats::paired::{delong, mcnemar, paired_bootstrap, paired_proportions};
use tidemill_stats::sequential::{AsymptoticCs, beta_mixture_log_e, srm_chi_squared, srm_log_bayes_factor};

fn golden() -> Value {
    serde_json::from_str(include_str!("data/golden.json")).unwrap()
}

#[track_caller]
fn close(got: f64, expected: f64, relative: f64) {
    assert!(
        (got - expected).abs() <= relative * expected.abs().max(1e-300),
        "{got} instead of {expected}"
    );
}

struct Asah {
    poor: Vec<bool>,
    wfns: Vec<f64>,
    s100b: Vec<f64>,
    ndka: Vec<f64>,
}

fn asah() -> Asah {
    let mut rows = Asah {
        poor: vec![],
        wfns: vec![],
        s100b: vec![],
        ndka: vec![],
    };
    for line in include_str!("data/aSAH.csv").lines().skip(1) {
        let cells: Vec<&str> = line.split(',').map(|cell| cell.trim_matches('"')).collect();
        rows.poor.push(cells[1] == "Poor");
        rows.wfns.push(cells[4].parse().unwrap());
        rows.s100b.push(cells[5].parse().unwrap());
        rows.ndka.push(cells[6].parse().unwrap());
    }
    assert_eq!(rows.poor.len(), 113);
    rows
}

#[test]
fn delong_gives_the_values_of_procs_own_tests() {
    let Asah {
        poor,
        wfns,
        s100b,
        ndka,
    } = asah();
    let golden = golden();
    let cases = [
        ("wfns_vs_s100b", &wfns, &s100b),
        ("s100b_vs_ndka", &s100b, &ndka),
        ("wfns_vs_ndka", &wfns, &ndka),
    ];
    for (name, a, b) in cases {
        let expected = &golden[format!("delong_aSAH_{name}")];
        let number = |pointer: &str| expected.pointer(pointer).and_then(Value::as_f64).unwrap();
        let got = delong(&poor, a, b).unwrap();
        close(got.auc_a, number("/auc/0"), 1e-13);
        close(got.auc_b, number("/auc/1"), 1e-13);
        close(got.var_a, number("/var/0"), 1e-11);
        close(got.var_b, number("/var/1"), 1e-11);
        close(got.cov, number("/cov"), 1e-11);
        close(-got.z, number("/Z"), 1e-11);
        close(got.p_two_sided, number("/p"), 1e-10);
        close(auc(&poor, a).unwrap(), got.auc_a, 1e-13);
    }
    // test-roc.test.R: Z = 2.20898359144091, p = .0271757822291882, CI .0104061769564846 to .174214419249478
    let got = delong(&poor, &s100b, &wfns).unwrap();
    close(got.z, 2.20898359144091, 1e-12);
    let interval = got.interval(0.95).unwrap();
    close(interval.lower, 0.0104061769564846, 1e-10);
    close(interval.upper, 0.174214419249478, 1e-12);
}

#[test]
fn the_bootstrap_of_an_auc_difference_agrees_with_delong() {
    let Asah {
        poor, wfns, s100b, ..
    } = asah();
    let pick = |values: &[f64], rows: &[usize]| rows.iter().map(|row| values[*row]).collect::<Vec<f64>>();
    let statistic = |rows: &[usize]| {
        let labels: Vec<bool> = rows.iter().map(|row| poor[*row]).collect();
        Ok(auc(&labels, &pick(&wfns, rows))? - auc(&labels, &pick(&s100b, rows))?)
    };
    let boot = paired_bootstrap(42, 2000, poor.len(), statistic).unwrap();
    let expected = delong(&poor, &s100b, &wfns).unwrap();
    close(boot.estimate, expected.difference, 1e-12);
    close(boot.std_error(), expected.std_error, 0.08);
    for interval in [boot.percentile(0.95).unwrap(), boot.bca(0.95).unwrap()] {
        let delong_interval = expected.interval(0.95).unwrap();
        assert!(
            (interval.lower - delong_interval.lower).abs() < 0.02,
            "{interval:?}"
        );
        assert!(
            (interval.upper - delong_interval.upper).abs() < 0.02,
            "{interval:?}"
        );
    }
}

#[test]
fn mcnemar_gives_the_values_of_statsmodels() {
    let golden = golden();
    let small = &golden["mcnemar_b8_c20"];
    let got = mcnemar(8, 20);
    close(got.p_exact, small["exact"].as_f64().unwrap(), 1e-10);
    close(got.p_mid, small["midp"].as_f64().unwrap(), 1e-10);
    close(got.corrected, small["chi2_corr"].as_f64().unwrap(), 1e-13);
    close(got.p_corrected, small["p_corr"].as_f64().unwrap(), 1e-10);
    let got = mcnemar(150, 86);
    close(got.chi_squared, 17.35593220338983, 1e-13);
    close(got.p_chi_squared, 3.099293441045215e-05, 1e-9);
    close(got.corrected, 16.81779661016949, 1e-13);
    close(got.p_corrected, 4.114562281345944e-05, 1e-9);
    close(
        got.p_exact,
        golden["mcnemar_794_86_150_570_exact=True_corr=False"]["p"]
            .as_f64()
            .unwrap(),
        1e-9,
    );
    let shares = paired_proportions(150, 86, 1600).unwrap();
    close(shares.difference, -0.04, 1e-12);
}

#[test]
fn sample_ratio_mismatch_gives_the_values_of_the_authors_code() {
    let golden = golden();
    let cases = [
        ("srm_[5000, 5000]_[0.5, 0.5]", [5000, 5000], [0.5, 0.5]),
        ("srm_[5200, 4800]_[0.5, 0.5]", [5200, 4800], [0.5, 0.5]),
        ("srm_[9400, 600]_[0.95, 0.05]", [9400, 600], [0.95, 0.05]),
        ("srm_[95200, 4800]_[0.95, 0.05]", [95200, 4800], [0.95, 0.05]),
    ];
    for (name, counts, shares) in cases {
        let expected = |field: &str| golden[name][field].as_f64().unwrap();
        close(
            srm_log_bayes_factor(&counts, &shares, 100.0).unwrap(),
            expected("log_bf_k100"),
            1e-7,
        );
        close(
            srm_log_bayes_factor(&counts, &shares, 2.0).unwrap(),
            expected("log_bf_k2"),
            1e-7,
        );
        let fixed = srm_chi_squared(&counts, &shares).unwrap();
        assert!((fixed.chi_squared - expected("chi2")).abs() < 1e-9);
        close(fixed.p_value, expected("chi2_p"), 1e-9);
    }
}

#[test]
fn confidence_sequences_have_the_published_widths() {
    let golden = golden();
    for (n, variance, alpha) in [
        (100, 0.25, 0.05),
        (1000, 0.25, 0.05),
        (10_000, 0.25, 0.05),
        (1000, 0.09, 0.01),
    ] {
        let expected = &golden[format!("asympcs_n{n}_v{variance}_a{alpha}")];
        let sequence = AsymptoticCs::new(alpha, 1000.0).unwrap();
        close(
            sequence.rho(),
            expected["rho_opt(t*=1000)"].as_f64().unwrap(),
            1e-12,
        );
        close(
            sequence.half_width(n, variance).unwrap(),
            expected["halfwidth_eq_iid"].as_f64().unwrap(),
            1e-12,
        );
        assert!(sequence.one_sided_width(n, variance).unwrap() < sequence.half_width(n, variance).unwrap());
    }
}

#[test]
fn the_beta_mixture_of_rare_events_has_the_published_values() {
    let golden = golden();
    for (x, n, pi) in [(3, 20, 0.1), (8, 20, 0.1), (12, 60, 0.1), (40, 60, 0.5)] {
        let expected = golden[format!("ebeta_x{x}_n{n}_pi{pi}")]["log_e"]
            .as_f64()
            .unwrap();
        close(beta_mixture_log_e(x, n, pi).unwrap(), expected, 1e-10);
    }
}
