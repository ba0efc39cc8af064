//! The gate: what a challenger must show on held-out rows before it may see traffic. A pure function; the same inputs give the same
//! verdict, which is what makes a decision record replayable.

use serde::{Deserialize, Serialize};
use tidemill_core::clock::Timestamp;
use tidemill_core::frame::{Labels, Scores};
use tidemill_core::spec::{GateSpec, Metric};
use tidemill_stats::metrics::{binary, multiclass};
use tidemill_stats::paired::bootstrap::paired_bootstrap;
use tidemill_stats::paired::delong::{delong, delong_clustered};
use tidemill_stats::paired::means::paired_mean_difference;
use tidemill_stats::paired::noninferiority::{Noninferiority, Verdict, judge, noninferiority};
use tidemill_stats::{Result as StatsResult, StatsError};

use super::evaluation::value_of;

/// Resamples of the bootstrap: enough for a 95 % bound (`loop.md` §3.3).
const RESAMPLES: usize = 2_000;

/// What the gate looks at: both models' answers on the same held-out rows.
#[derive(Debug, Clone, Copy)]
pub struct GateInput<'a> {
    /// The checks.
    pub gates: &'a [GateSpec],
    /// Truth on the held-out rows.
    pub labels: &'a Labels,
    /// The time of each held-out row, for gates that cluster by time; may be empty otherwise.
    pub times: &'a [Timestamp],
    /// The challenger's answers.
    pub challenger: &'a Scores,
    /// The champion's answers on the same rows; absent for a first model.
    pub champion: Option<&'a Scores>,
    /// Seeds the bootstrap.
    pub seed: u64,
}

/// One check and what it measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateCheck {
    /// What was compared.
    pub metric: String,
    /// `delong`, `delong_clustered`, `paired_mean`, `paired_bootstrap`, `bound`, or `none` where there was nothing to compare with.
    pub test: String,
    /// The champion's value.
    pub champion: Option<f64>,
    /// The challenger's value.
    pub challenger: Option<f64>,
    /// By how much the challenger is better, in the metric's units (negative: worse).
    pub difference: Option<f64>,
    /// The difference's standard error.
    pub std_error: Option<f64>,
    /// One-sided lower bound of the difference.
    pub lower: Option<f64>,
    /// One-sided upper bound of the difference.
    pub upper: Option<f64>,
    /// How much worse is tolerated.
    pub margin: Option<f64>,
    /// Confidence of each bound.
    pub confidence: Option<f64>,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, in words.
    pub reason: String,
}

/// The gate's verdict and all that it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// Fail if any check fails, else inconclusive if any is, else pass.
    pub verdict: Verdict,
    /// The checks, in the spec's order.
    pub checks: Vec<GateCheck>,
}

/// Runs every check.
pub fn judge_gates(input: GateInput<'_>) -> GateResult {
    let mut checks = Vec::new();
    for gate in input.gates {
        if gate.min.is_some() || gate.max.is_some() {
            checks.push(bound_check(gate, &input));
        }
        if let Some(margin) = gate.margin {
            checks.push(match input.champion {
                Some(champion) => paired_check(gate, margin, champion, &input),
                None => first_model(gate, &input),
            });
        }
    }
    let verdict = if checks.iter().any(|c| c.verdict == Verdict::Fail) {
        Verdict::Fail
    } else if checks.iter().any(|c| c.verdict == Verdict::Inconclusive) {
        Verdict::Inconclusive
    } else {
        Verdict::Pass
    };
    GateResult { verdict, checks }
}

fn empty_check(gate: &GateSpec, test: &str) -> GateCheck {
    GateCheck {
        metric: gate.metric.name().to_owned(),
        test: test.to_owned(),
        champion: None,
        challenger: None,
        difference: None,
        std_error: None,
        lower: None,
        upper: None,
        margin: gate.margin,
        confidence: Some(gate.confidence),
        verdict: Verdict::Inconclusive,
        reason: String::new(),
    }
}

fn first_model(gate: &GateSpec, input: &GateInput<'_>) -> GateCheck {
    let challenger = value_of(gate.metric, input.labels, input.challenger)
        .ok()
        .map(|m| m.value);
    GateCheck {
        challenger,
        verdict: Verdict::Pass,
        reason: "there is no champion to compare with".into(),
        ..empty_check(gate, "none")
    }
}

/// A fixed bound is judged on the confidence bound of the value where its standard error is known, else on the value.
fn bound_check(gate: &GateSpec, input: &GateInput<'_>) -> GateCheck {
    let base = empty_check(gate, "bound");
    let measured = match value_of(gate.metric, input.labels, input.challenger) {
        Ok(measured) => measured,
        Err(error) => {
            return GateCheck {
                reason: error.to_string(),
                ..base
            };
        }
    };
    let half = measured.std_error.map_or(0.0, |se| {
        tidemill_stats::special::normal_quantile(gate.confidence) * se
    });
    let (lower, upper) = (measured.value - half, measured.value + half);
    let below = gate.min.is_some_and(|min| upper < min);
    let above = gate.max.is_some_and(|max| lower > max);
    let surely_in =
        gate.min.is_none_or(|min| measured.value >= min) && gate.max.is_none_or(|max| measured.value <= max);
    let verdict = if below || above {
        Verdict::Fail
    } else if surely_in {
        Verdict::Pass
    } else {
        Verdict::Inconclusive
    };
    let bounds = match (gate.min, gate.max) {
        (Some(min), Some(max)) => format!("between {min} and {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => "anything".to_owned(),
    };
    GateCheck {
        challenger: Some(measured.value),
        std_error: measured.std_error,
        lower: Some(lower),
        upper: Some(upper),
        margin: None,
        verdict,
        reason: format!(
            "{} is {:.4}, expected {bounds}",
            gate.metric.name(),
            measured.value
        ),
        ..base
    }
}

fn paired_check(gate: &GateSpec, margin: f64, champion: &Scores, input: &GateInput<'_>) -> GateCheck {
    let value = |scores| value_of(gate.metric, input.labels, scores).ok().map(|m| m.value);
    let base = GateCheck {
        champion: value(champion),
        challenger: value(input.challenger),
        ..empty_check(gate, paired_test_of(gate, input.labels))
    };
    match paired(gate, margin, champion, input) {
        Ok((found, std_error)) => GateCheck {
            difference: Some(found.difference),
            std_error: Some(std_error),
            lower: Some(found.lower),
            upper: Some(found.upper),
            verdict: found.verdict,
            reason: reason_of(&found, gate.metric),
            ..base
        },
        // Too few rows, or one class only: not enough data, which neither passes nor fails.
        Err(error) => GateCheck {
            reason: error.to_string(),
            ..base
        },
    }
}

fn reason_of(found: &Noninferiority, metric: Metric) -> String {
    let name = metric.name();
    match found.verdict {
        Verdict::Pass => format!(
            "{name} is no worse than the champion's by more than {}",
            found.margin
        ),
        Verdict::Fail => format!(
            "{name} is worse than the champion's by {:.4} (upper bound {:.4})",
            -found.difference, found.upper
        ),
        Verdict::Inconclusive => {
            format!(
                "the data cannot tell: the difference lies between {:.4} and {:.4}",
                found.lower, found.upper
            )
        }
    }
}

fn paired_test_of(gate: &GateSpec, labels: &Labels) -> &'static str {
    match (gate.metric, labels) {
        (Metric::Auc, Labels::Binary(_)) if gate.cluster.is_some() => "delong_clustered",
        (Metric::Auc, Labels::Binary(_)) => "delong",
        (Metric::LogLoss | Metric::Brier | Metric::Mae, _) => "paired_mean",
        _ => "paired_bootstrap",
    }
}

/// The difference (positive: the challenger is better) with its bounds, and its standard error.
fn paired(
    gate: &GateSpec,
    margin: f64,
    champion: &Scores,
    input: &GateInput<'_>,
) -> StatsResult<(Noninferiority, f64)> {
    let by_error = |difference: f64, std_error: f64| {
        noninferiority(difference, std_error, margin, gate.confidence).map(|n| (n, std_error))
    };
    match (gate.metric, input.labels, champion, input.challenger) {
        (Metric::Auc, Labels::Binary(y), Scores::Binary(a), Scores::Binary(b)) => {
            let test = match gate.cluster {
                Some(length) => {
                    let clusters: Vec<u64> = input
                        .times
                        .iter()
                        .map(|t| t.floor_to(length).as_micros() as u64)
                        .collect();
                    delong_clustered(y, a, b, &clusters)?
                }
                None => delong(y, a, b)?,
            };
            by_error(test.difference, test.std_error)
        }
        (Metric::LogLoss | Metric::Brier | Metric::Mae, ..) => {
            let test = paired_mean_difference(
                &row_losses(gate.metric, input.labels, input.challenger)?,
                &row_losses(gate.metric, input.labels, champion)?,
            )?;
            by_error(test.difference, test.std_error)
        }
        _ => {
            let sign = if gate.metric.higher_is_better() { 1.0 } else { -1.0 };
            let boot = paired_bootstrap(input.seed, RESAMPLES, input.labels.rows(), |rows| {
                let labels = input.labels.take(rows);
                let b = value_of(gate.metric, &labels, &input.challenger.take(rows))?.value;
                let a = value_of(gate.metric, &labels, &champion.take(rows))?.value;
                Ok(sign * (b - a))
            })?;
            // A two-sided interval of level 2c − 1 has one-sided bounds of confidence c.
            let interval = boot.percentile(2.0 * gate.confidence - 1.0)?;
            let found = judge(
                boot.estimate,
                interval.lower,
                interval.upper,
                margin,
                gate.confidence,
            )?;
            Ok((found, boot.std_error()))
        }
    }
}

fn row_losses(metric: Metric, labels: &Labels, scores: &Scores) -> StatsResult<Vec<f64>> {
    match (metric, labels, scores) {
        (Metric::LogLoss, Labels::Binary(y), Scores::Binary(p)) => binary::log_losses(y, p),
        (Metric::Brier, Labels::Binary(y), Scores::Binary(p)) => binary::brier_losses(y, p),
        (
            Metric::LogLoss,
            Labels::Multiclass { indices, .. },
            Scores::Multiclass {
                classes,
                probabilities,
            },
        ) => multiclass::log_losses(indices, probabilities, classes.len()),
        (
            Metric::Brier,
            Labels::Multiclass { indices, .. },
            Scores::Multiclass {
                classes,
                probabilities,
            },
        ) => multiclass::brier_losses(indices, probabilities, classes.len()),
        (Metric::Mae, Labels::Regression(y), Scores::Regression(p)) if y.len() == p.len() => {
            Ok(y.iter().zip(p).map(|(y, p)| (y - p).abs()).collect())
        }
        _ => Err(StatsError::NotApplicable {
            method: metric.name(),
            why: "labels and scores are of another task".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_stats::rng::SeededRng;

    fn gate(metric: Metric, margin: f64) -> GateSpec {
        GateSpec {
            metric,
            margin: Some(margin),
            confidence: 0.95,
            cluster: None,
            min: None,
            max: None,
        }
    }

    /// Labels and two models: one that sees the signal through little noise, one through `noise`.
    fn two_models(rows: usize, noise: f64) -> (Labels, Scores, Scores) {
        let mut rng = SeededRng::new(5);
        let (mut y, mut good, mut other) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rows {
            let signal = rng.uniform();
            y.push(rng.uniform() < signal);
            good.push((signal + 0.1 * (rng.uniform() - 0.5)).clamp(0.001, 0.999));
            other.push((signal + noise * (rng.uniform() - 0.5)).clamp(0.001, 0.999));
        }
        (Labels::Binary(y), Scores::Binary(good), Scores::Binary(other))
    }

    fn verdict(gates: &[GateSpec], labels: &Labels, champion: &Scores, challenger: &Scores) -> Verdict {
        judge_gates(GateInput {
            gates,
            labels,
            times: &[],
            challenger,
            champion: Some(champion),
            seed: 1,
        })
        .verdict
    }

    #[test]
    fn a_worse_challenger_fails_an_equal_one_passes_and_few_rows_decide_nothing() {
        for metric in [Metric::Auc, Metric::Brier, Metric::LogLoss] {
            let gates = [gate(metric, 0.01)];
            let (labels, good, bad) = two_models(4_000, 2.5);
            assert_eq!(verdict(&gates, &labels, &good, &bad), Verdict::Fail, "{metric:?}");
            assert_eq!(
                verdict(&gates, &labels, &good, &good),
                Verdict::Pass,
                "{metric:?}"
            );
        }
        let (labels, good, bad) = two_models(30, 1.0);
        assert_eq!(
            verdict(&[gate(Metric::Auc, 0.01)], &labels, &good, &bad),
            Verdict::Inconclusive
        );
    }

    #[test]
    fn one_class_only_is_inconclusive_and_a_first_model_passes_without_a_champion() {
        let labels = Labels::Binary(vec![true; 20]);
        let scores = Scores::Binary(vec![0.5; 20]);
        assert_eq!(
            verdict(&[gate(Metric::Auc, 0.0)], &labels, &scores, &scores),
            Verdict::Inconclusive
        );
        let first = judge_gates(GateInput {
            gates: &[gate(Metric::Auc, 0.0)],
            labels: &labels,
            times: &[],
            challenger: &scores,
            champion: None,
            seed: 1,
        });
        assert_eq!(
            (first.verdict, first.checks[0].test.as_str()),
            (Verdict::Pass, "none")
        );
    }

    #[test]
    fn a_bound_fails_only_when_the_data_show_it() {
        let (labels, good, _) = two_models(2_000, 1.0);
        let bound = |min| GateSpec {
            metric: Metric::Auc,
            margin: None,
            confidence: 0.95,
            cluster: None,
            min: Some(min),
            max: None,
        };
        let run = |min| {
            judge_gates(GateInput {
                gates: &[bound(min)],
                labels: &labels,
                times: &[],
                challenger: &good,
                champion: None,
                seed: 1,
            })
            .verdict
        };
        assert_eq!((run(0.6), run(0.99)), (Verdict::Pass, Verdict::Fail));
    }

    #[test]
    fn a_verdict_is_the_same_when_replayed() {
        let (labels, good, bad) = two_models(300, 0.8);
        let gates = [gate(Metric::F1, 0.02), gate(Metric::Accuracy, 0.02)];
        let run = || {
            judge_gates(GateInput {
                gates: &gates,
                labels: &labels,
                times: &[],
                challenger: &bad,
                champion: Some(&good),
                seed: 7,
            })
        };
        assert_eq!(run(), run());
    }
}
