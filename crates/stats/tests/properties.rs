//! Laws that hold for every input, and the promise of the sequential tests: under the null hypothesis, looking after
//! every row, a false rejection happens with probability at most α.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use tidemill_stats::drift::{METHODS, Sample, by_name, psi_quantile, score};
use tidemill_stats::metrics::binary::auc;
use tidemill_stats::multiplicity::{benjamini_hochberg, bonferroni, holm};
use tidemill_stats::paired::{Verdict, delong, noninferiority};
use tidemill_stats::rng::SeededRng;
use tidemill_stats::sequential::{
    AsymptoticCs, BettingEProcess, Moments, PairedLossEProcess, RateRatioEProcess, SequentialSrm,
    ipw_increment, rejects,
};

fn labelled_scores() -> impl Strategy<Value = (Vec<bool>, Vec<f64>, Vec<f64>)> {
    let rows = proptest::collection::vec((any::<bool>(), -8i32..8, -8i32..8), 6..60);
    rows.prop_filter_map("both classes twice", |rows| {
        let labels: Vec<bool> = rows.iter().map(|row| row.0).collect();
        let positives = labels.iter().filter(|label| **label).count();
        (positives >= 2 && labels.len() - positives >= 2).then(|| {
            let scores = |pick: fn(&(bool, i32, i32)) -> i32| {
                rows.iter().map(|row| f64::from(pick(row)) / 4.0).collect()
            };
            (labels, scores(|row| row.1), scores(|row| row.2))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn auc_ignores_monotone_transforms((labels, scores, _) in labelled_scores()) {
        let transformed: Vec<f64> = scores.iter().map(|s| s.exp() * 3.0 - 7.0).collect();
        prop_assert_eq!(auc(&labels, &scores), auc(&labels, &transformed));
    }

    #[test]
    fn auc_of_negated_scores_is_the_complement((labels, scores, _) in labelled_scores()) {
        let negated: Vec<f64> = scores.iter().map(|s| -s).collect();
        prop_assert!((auc(&labels, &scores).unwrap() + auc(&labels, &negated).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn delong_is_symmetric((labels, a, b) in labelled_scores()) {
        match (delong(&labels, &a, &b), delong(&labels, &b, &a)) {
            (Ok(one), Ok(other)) => {
                prop_assert!((one.difference + other.difference).abs() < 1e-12);
                prop_assert!((one.std_error - other.std_error).abs() < 1e-9);
                prop_assert!((one.p_two_sided - other.p_two_sided).abs() < 1e-6);
                prop_assert!((one.auc_a - auc(&labels, &a).unwrap()).abs() < 1e-12);
            }
            (one, other) => prop_assert_eq!(one.is_err(), other.is_err()),
        }
    }

    #[test]
    fn psi_is_never_negative_and_zero_on_itself(
        a in proptest::collection::vec(-1e6f64..1e6, 1..200),
        b in proptest::collection::vec(-1e6f64..1e6, 1..200),
    ) {
        let (a, b) = (Sample::Numeric(&a), Sample::Numeric(&b));
        let method = by_name("psi").unwrap();
        prop_assert!(score(method, &a, &b).unwrap().score >= 0.0);
        prop_assert!(score(method, &a, &a).unwrap().score == 0.0);
        prop_assert!(psi_quantile(&a, &b, 10).unwrap() >= 0.0);
        prop_assert!(psi_quantile(&a, &a, 10).unwrap() < 1e-12);
    }

    #[test]
    fn no_method_gives_nan_or_panics_whatever_the_values(
        a in proptest::collection::vec(any::<f64>(), 0..40),
        b in proptest::collection::vec(any::<f64>(), 0..40),
        integers in any::<bool>(),
    ) {
        let sample = |values| if integers { Sample::Integer(values) } else { Sample::Numeric(values) };
        for method in METHODS {
            if let Ok(got) = score(method, &sample(&a), &sample(&b)) {
                prop_assert!(got.score.is_finite(), "{} gave {}", method.name, got.score);
                prop_assert!(!method.direction.is_p_value() || (-1e-9..=1.0 + 1e-9).contains(&got.score));
            }
        }
    }

    #[test]
    fn adjusted_p_values_are_ordered(p in proptest::collection::vec(0.0f64..=1.0, 1..40)) {
        let (bh, holm, bonferroni) =
            (benjamini_hochberg(&p).unwrap(), holm(&p).unwrap(), bonferroni(&p).unwrap());
        for i in 0..p.len() {
            prop_assert!(p[i] <= bh[i] + 1e-15 && bh[i] <= holm[i] + 1e-12 && holm[i] <= bonferroni[i] + 1e-15);
        }
    }

    #[test]
    fn more_data_never_turns_pass_into_fail(difference in -0.1f64..0.1, std_error in 1e-6f64..0.1, margin in 0.0f64..0.1) {
        let at = |scale: f64| noninferiority(difference, std_error * scale, margin, 0.95).unwrap().verdict;
        prop_assert!(at(1.0) != Verdict::Pass || at(0.5) == Verdict::Pass);
    }

    #[test]
    fn persisted_e_processes_continue_bit_for_bit(seed in any::<u64>(), cut in 1usize..100) {
        let mut rng = SeededRng::new(seed);
        let mut whole = PairedLossEProcess::new(0.013).unwrap();
        let mut rates = RateRatioEProcess::harm();
        let (mut restored, mut restored_rates) = (whole.clone(), rates.clone());
        for step in 0..100 {
            if step == cut {
                restored = serde_json::from_str(&serde_json::to_string(&restored).unwrap()).unwrap();
                restored_rates = serde_json::from_str(&serde_json::to_string(&restored_rates).unwrap()).unwrap();
            }
            let (a, b, canary) = (rng.uniform(), rng.uniform(), rng.uniform() < 0.3);
            whole.update(a, b).unwrap();
            restored.update(a, b).unwrap();
            rates.update(canary, 0.1).unwrap();
            restored_rates.update(canary, 0.1).unwrap();
        }
        prop_assert_eq!(serde_json::to_string(&whole).unwrap(), serde_json::to_string(&restored).unwrap());
        prop_assert_eq!(whole, restored);
        prop_assert_eq!(rates, restored_rates);
    }
}

/// The share of `runs` streams on which the test ever rejects.
fn false_rejections(runs: u64, mut stream_rejects: impl FnMut(&mut SeededRng) -> bool) -> f64 {
    (0..runs)
        .filter(|run| stream_rejects(&mut SeededRng::new(run + 1)))
        .count() as f64
        / runs as f64
}

/// α plus three standard errors of a share over that many runs.
fn at_most(alpha: f64, runs: u64) -> f64 {
    alpha + 3.0 * (alpha * (1.0 - alpha) / runs as f64).sqrt()
}

#[test]
fn betting_keeps_its_level_under_continuous_looking() {
    let (runs, alpha) = (1000, 0.05);
    let share = false_rejections(runs, |rng| {
        let mut process = BettingEProcess::new(1.0).unwrap();
        for _ in 0..2000 {
            // Mean 0, skewed: -0.1 with probability .9, 0.9 with probability .1.
            process
                .update(if rng.uniform() < 0.1 { 0.9 } else { -0.1 })
                .unwrap();
        }
        rejects(process.peak_log_e_up(), alpha)
    });
    assert!(share <= at_most(alpha, runs), "{share}");
}

#[test]
fn betting_on_weighted_increments_keeps_its_level_while_the_share_ramps() {
    let (runs, alpha) = (500, 0.05);
    let share = false_rejections(runs, |rng| {
        let mut process = BettingEProcess::new(20.0).unwrap();
        for step in 0..3000 {
            let pi = [0.05, 0.1, 0.25, 0.5][step / 750];
            process.set_bound(1.0 / pi).unwrap();
            let base_rate = if step < 1500 { 0.2 } else { 0.1 };
            let outcome = f64::from(u8::from(rng.uniform() < base_rate));
            process
                .update(ipw_increment(outcome, 0.15, rng.uniform() < pi, pi).unwrap())
                .unwrap();
        }
        rejects(
            process.peak_log_e_up().max(process.peak_log_e_down()),
            alpha / 2.0,
        )
    });
    assert!(share <= at_most(alpha, runs), "{share}");
}

#[test]
fn rare_event_tests_keep_their_level_under_continuous_looking() {
    let (runs, alpha) = (1000, 0.05);
    for pi in [0.05, 0.5] {
        let harm = false_rejections(runs, |rng| {
            let mut process = RateRatioEProcess::harm();
            for _ in 0..1000 {
                process.update(rng.uniform() < pi, pi).unwrap();
            }
            rejects(process.peak_log_e(), alpha)
        });
        assert!(harm <= at_most(alpha, runs), "harm at {pi}: {harm}");
        let at_limit = 1.5 * pi / (1.5 * pi + 1.0 - pi);
        let advance = false_rejections(runs, |rng| {
            let mut process = RateRatioEProcess::noninferiority(1.5).unwrap();
            for _ in 0..1000 {
                process.update(rng.uniform() < at_limit, pi).unwrap();
            }
            rejects(process.peak_log_e(), alpha)
        });
        assert!(
            advance <= at_most(alpha, runs),
            "non-inferiority at {pi}: {advance}"
        );
    }
}

#[test]
fn paired_losses_at_the_margin_are_rarely_called_noninferior() {
    let (runs, alpha, margin) = (500, 0.05, 0.05);
    let share = false_rejections(runs, |rng| {
        let mut process = PairedLossEProcess::new(margin).unwrap();
        for _ in 0..2000 {
            // The challenger's loss is higher by exactly the margin on average.
            let challenger = if rng.uniform() < 0.5 {
                0.4 + 2.0 * margin
            } else {
                0.4
            };
            process.update(0.4, challenger).unwrap();
        }
        rejects(process.log_e_noninferior(), alpha)
    });
    assert!(share <= at_most(alpha, runs), "{share}");
}

#[test]
fn the_sequential_ratio_test_keeps_its_level() {
    let (runs, alpha) = (500, 0.05);
    let share = false_rejections(runs, |rng| {
        let mut test = SequentialSrm::new(&[0.9, 0.1]).unwrap();
        for _ in 0..1000 {
            let arm = usize::from(rng.uniform() < 0.1);
            test.observe(&[1 - arm as u64, arm as u64]).unwrap();
        }
        test.p_value() <= alpha
    });
    assert!(share <= at_most(alpha, runs), "{share}");
}

#[test]
fn asymptotic_sequences_cover_the_mean_at_all_looks_together() {
    let (runs, alpha) = (500, 0.05);
    let sequence = AsymptoticCs::new(alpha, 500.0).unwrap();
    let share = false_rejections(runs, |rng| {
        let mut moments = Moments::default();
        (0..3000).any(|step| {
            moments.update(rng.uniform()).unwrap();
            let interval = sequence.interval(&moments);
            step >= 30 && interval.is_ok_and(|i| i.lower > 0.5 || i.upper < 0.5)
        })
    });
    assert!(share <= at_most(alpha, runs), "{share}");
}

#[test]
fn delong_answers_on_fifty_thousand_rows() {
    let mut rng = SeededRng::new(1);
    let labels: Vec<bool> = (0..50_000).map(|_| rng.uniform() < 0.3).collect();
    let scores = |rng: &mut SeededRng| -> Vec<f64> {
        labels
            .iter()
            .map(|label| rng.uniform() + f64::from(u8::from(*label)) * 0.3)
            .collect()
    };
    let (a, b) = (scores(&mut rng), scores(&mut rng));
    let got = delong(&labels, &a, &b).unwrap();
    assert!(got.p_two_sided > 1e-6 && got.std_error < 0.01, "{got:?}");
}
