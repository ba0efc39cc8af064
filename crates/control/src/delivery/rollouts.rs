//! The rollout machine: shadow → canary in steps → champion, or back. A pure function of the plan, the state, the evidence and the
//! time; evidence is anytime-valid (`loop.md` §2.3), so looking at every tick costs no error control.

use serde::{Deserialize, Serialize};
use tidemill_core::clock::Timestamp;
use tidemill_core::spec::{RolloutSpec, RolloutTimeout};
use tidemill_stats::StatsError;
use tidemill_stats::sequential::paired_loss::{PairedDecision, PairedLossEProcess};
use tidemill_stats::sequential::rare_events::RateRatioEProcess;
use tidemill_stats::sequential::rejects;
use tidemill_stats::sequential::srm::SequentialSrm;

/// With fewer canary errors than this a ratio of rates says nothing, and the guardrail does not hold a step back.
const MIN_CANARY_ERRORS: u64 = 5;

/// Below this p-value the split of traffic is not what was asked for, and the experiment is invalid (`loop.md` F2).
const SRM_ALPHA: f64 = 0.001;

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The challenger answers nobody.
    Shadow,
    /// The challenger answers the share of this step.
    Canary {
        /// From 0.
        step: usize,
    },
}

/// Everything that has been observed, as sufficient statistics: serialisable, and replayable bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Losses of champion and challenger on the same labelled rows.
    pub losses: PairedLossEProcess,
    /// Failed answers: does the canary fail more often?
    pub errors: RateRatioEProcess,
    /// Is the split what was asked for?
    pub split: Option<SequentialSrm>,
    /// Labelled pairs so far.
    pub labels: u64,
    /// Predictions routed to the canary at this step.
    pub canary_predictions: u64,
    /// Of all so far: routed to the canary, to the champion.
    pub routed: (u64, u64),
    /// Of all so far: failures of the canary, of the champion.
    pub failed: (u64, u64),
    /// Predictions up to here have been counted for errors and split.
    pub counted_until: Timestamp,
    /// Predictions up to here have been judged by their labels.
    pub judged_until: Timestamp,
}

impl Evidence {
    /// Nothing observed yet.
    ///
    /// # Errors
    /// If the plan's margin is not below 1.
    pub fn new(plan: &RolloutSpec, now: Timestamp) -> Result<Self, StatsError> {
        Ok(Self {
            losses: PairedLossEProcess::new(plan.loss_margin)?,
            errors: RateRatioEProcess::harm(),
            split: None,
            labels: 0,
            canary_predictions: 0,
            routed: (0, 0),
            failed: (0, 0),
            counted_until: now,
            judged_until: now,
        })
    }

    /// Adds labelled pairs: the losses of champion and challenger, each from 0 to 1.
    ///
    /// # Errors
    /// If a loss is out of range.
    pub fn add_losses(&mut self, champion: &[f64], challenger: &[f64]) -> Result<(), StatsError> {
        for (a, b) in champion.iter().zip(challenger) {
            self.losses.update(*a, *b)?;
            self.labels += 1;
        }
        Ok(())
    }

    /// Adds answered predictions under `share`, in the order in which they were served: whether the canary was asked, and whether it
    /// (or the champion) failed. The order matters: evidence is looked at after every event, so sorting the events by arm would show
    /// harm where there is none.
    ///
    /// # Errors
    /// If the share is not between 0 and 1.
    pub fn add_answers(
        &mut self,
        share: f64,
        answers: impl IntoIterator<Item = (bool, bool)>,
    ) -> Result<(), StatsError> {
        let (mut routed, mut failed) = ((0, 0), (0, 0));
        for (canary, failure) in answers {
            let (asked, broken) = if canary {
                (&mut routed.0, &mut failed.0)
            } else {
                (&mut routed.1, &mut failed.1)
            };
            *asked += 1;
            if failure {
                *broken += 1;
                self.errors.update(canary, share)?;
            }
        }
        if routed == (0, 0) {
            return Ok(());
        }
        let mut split = match self.split.take() {
            Some(split) => split,
            None => SequentialSrm::new(&[share, 1.0 - share])?,
        };
        split.observe(&[routed.0, routed.1])?;
        self.split = Some(split);
        self.canary_predictions += routed.0;
        self.routed = (self.routed.0 + routed.0, self.routed.1 + routed.1);
        self.failed = (self.failed.0 + failed.0, self.failed.1 + failed.1);
        Ok(())
    }

    /// A new step begins: counts of the step start again, the evidence goes on.
    ///
    /// # Errors
    /// If the share is not between 0 and 1.
    pub fn enter_step(&mut self, share: f64) -> Result<(), StatsError> {
        self.canary_predictions = 0;
        match &mut self.split {
            Some(split) => split.change_shares(&[share, 1.0 - share]),
            None => {
                self.split = Some(SequentialSrm::new(&[share, 1.0 - share])?);
                Ok(())
            }
        }
    }
}

/// A rollout on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Where it stands.
    pub stage: Stage,
    /// When it began.
    pub started_at: Timestamp,
    /// When the stage or step began.
    pub entered_at: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Action {
    /// Stay: not enough evidence, or not long enough. The reason says what is missing.
    Hold {
        /// What is missing.
        reason: String,
    },
    /// Go to the next stage.
    Advance {
        /// Which.
        to: Stage,
        /// Its share of traffic, 0 to 1.
        share: f64,
        /// What was shown.
        reason: String,
    },
    /// Make the challenger champion.
    Promote {
        /// What was shown.
        reason: String,
    },
    /// Take it back, now.
    Rollback {
        /// What was shown.
        reason: String,
    },
}

/// Decides. Harm is looked at first, and needs neither time nor a minimum of data; no data never advances and never rolls back.
pub fn decide(plan: &RolloutSpec, progress: Progress, evidence: &Evidence, now: Timestamp) -> Action {
    if rejects(evidence.errors.peak_log_e(), plan.harm_alpha) {
        return Action::Rollback {
            reason: format!(
                "the canary fails more often: {} of {} answers against {} of {} (e-value {:.3e})",
                evidence.failed.0,
                evidence.routed.0,
                evidence.failed.1,
                evidence.routed.1,
                evidence.errors.peak_log_e().exp()
            ),
        };
    }
    let paired = evidence.losses.decision(plan.advance_alpha, plan.harm_alpha);
    if paired == PairedDecision::Worse {
        return Action::Rollback {
            reason: format!(
                "the challenger's loss is worse by {:.4} on {} labelled pairs, more than the margin of {} (e-value {:.3e})",
                -evidence.losses.mean_difference().unwrap_or(0.0),
                evidence.labels,
                plan.loss_margin,
                evidence.losses.log_e_worse().exp()
            ),
        };
    }
    match blocked(plan, progress, evidence, paired, now) {
        None => forward(plan, progress.stage, evidence),
        Some(reason) if now - progress.started_at >= plan.max_duration => match plan.on_timeout {
            RolloutTimeout::Rollback => Action::Rollback {
                reason: format!("undecided after {}: {reason}", plan.max_duration),
            },
            RolloutTimeout::Hold => Action::Hold {
                reason: format!(
                    "undecided after {}, waiting for a person: {reason}",
                    plan.max_duration
                ),
            },
        },
        Some(reason) => Action::Hold { reason },
    }
}

/// Why the rollout may not go on yet; `None` if it may.
fn blocked(
    plan: &RolloutSpec,
    progress: Progress,
    evidence: &Evidence,
    paired: PairedDecision,
    now: Timestamp,
) -> Option<String> {
    if let Some(split) = &evidence.split
        && split.p_value() < SRM_ALPHA
    {
        return Some(format!(
            "the split is not what was asked for ({} canary, {} champion, p = {:.1e}): the comparison is invalid",
            evidence.routed.0,
            evidence.routed.1,
            split.p_value()
        ));
    }
    if evidence.labels < plan.shadow.min_labels {
        return Some(format!(
            "{} of {} labelled pairs",
            evidence.labels, plan.shadow.min_labels
        ));
    }
    if paired == PairedDecision::Undecided {
        return Some(format!(
            "the labels do not yet show non-inferiority (e-value {:.2} of {:.0})",
            evidence.losses.log_e_noninferior().exp(),
            1.0 / plan.advance_alpha
        ));
    }
    let (least, what) = match progress.stage {
        Stage::Shadow => (plan.shadow.duration, "shadow"),
        Stage::Canary { .. } => (plan.canary.dwell, "this step"),
    };
    let spent = now - progress.entered_at;
    if spent < least {
        return Some(format!("{spent} of {least} in {what}"));
    }
    if let Stage::Canary { .. } = progress.stage {
        if evidence.canary_predictions < plan.canary.min_predictions {
            return Some(format!(
                "{} of {} canary predictions",
                evidence.canary_predictions, plan.canary.min_predictions
            ));
        }
        let rate = |failed: u64, routed: u64| failed as f64 / routed.max(1) as f64;
        let canary = rate(evidence.failed.0, evidence.routed.0);
        let champion = rate(evidence.failed.1, evidence.routed.1);
        if evidence.failed.0 >= MIN_CANARY_ERRORS && canary > plan.error_ratio * champion {
            return Some(format!(
                "the canary's error rate {canary:.4} is above {} times the champion's {champion:.4}",
                plan.error_ratio
            ));
        }
    }
    None
}

fn forward(plan: &RolloutSpec, stage: Stage, evidence: &Evidence) -> Action {
    let reason = format!(
        "not inferior on {} labelled pairs: mean loss lower by {:.5} (e-value {:.3e}), {} failed canary answers",
        evidence.labels,
        evidence.losses.mean_difference().unwrap_or(0.0),
        evidence.losses.log_e_noninferior().exp(),
        evidence.failed.0
    );
    let next = match stage {
        Stage::Shadow => 0,
        Stage::Canary { step } => step + 1,
    };
    match plan.canary.steps.get(next) {
        Some(percent) => Action::Advance {
            to: Stage::Canary { step: next },
            share: percent / 100.0,
            reason,
        },
        None => Action::Promote { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_core::spec::Span;
    use tidemill_stats::rng::SeededRng;

    const T0: Timestamp = Timestamp::from_micros(1_400_000_000_000_000);

    fn plan() -> RolloutSpec {
        RolloutSpec::default()
    }

    /// Plays a rollout whose challenger is worse by `shift` in loss and fails at `error_rate`, the champion at `base_rate`.
    fn play(seed: u64, shift: f64, error_rate: f64, base_rate: f64, labels_per_day: usize) -> (Action, i64) {
        let plan = plan();
        let mut rng = SeededRng::new(seed);
        let mut evidence = Evidence::new(&plan, T0).unwrap();
        let mut progress = Progress {
            stage: Stage::Shadow,
            started_at: T0,
            entered_at: T0,
        };
        for day in 1..60 {
            let now = T0 + Span::days(day);
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for _ in 0..labels_per_day {
                let champion = 0.3 * rng.uniform();
                a.push(champion);
                b.push((champion + shift + 0.1 * (rng.uniform() - 0.5)).clamp(0.0, 1.0));
            }
            evidence.add_losses(&a, &b).unwrap();
            if let Stage::Canary { step } = progress.stage {
                let share = plan.canary.steps[step] / 100.0;
                let answers: Vec<(bool, bool)> = (0..1_000)
                    .map(|_| {
                        let canary = rng.uniform() < share;
                        (
                            canary,
                            rng.uniform() < if canary { error_rate } else { base_rate },
                        )
                    })
                    .collect();
                evidence.add_answers(share, answers).unwrap();
            }
            match decide(&plan, progress, &evidence, now) {
                Action::Hold { .. } => {}
                Action::Advance { to, share, .. } => {
                    evidence.enter_step(share).unwrap();
                    progress = Progress {
                        stage: to,
                        entered_at: now,
                        ..progress
                    };
                }
                end => return (end, day),
            }
        }
        (
            Action::Hold {
                reason: "never decided".into(),
            },
            60,
        )
    }

    #[test]
    fn a_good_challenger_is_promoted_through_every_stage() {
        let (end, day) = play(1, -0.01, 0.0, 0.0, 900);
        assert!(matches!(end, Action::Promote { .. }), "{end:?}");
        assert!((5..12).contains(&day), "{day}");
    }

    #[test]
    fn a_worse_challenger_is_rolled_back_in_shadow() {
        let (end, day) = play(2, 0.05, 0.0, 0.0, 900);
        assert!(
            matches!(&end, Action::Rollback { reason } if reason.contains("loss is worse")),
            "{end:?}"
        );
        assert!(day <= 3, "{day}");
    }

    #[test]
    fn a_failing_canary_is_rolled_back_at_once() {
        let (end, _) = play(3, -0.01, 0.2, 0.001, 900);
        assert!(
            matches!(&end, Action::Rollback { reason } if reason.contains("fails more often")),
            "{end:?}"
        );
    }

    #[test]
    fn failures_in_both_arms_alike_do_not_roll_back() {
        let promoted = (0..20)
            .filter(|seed| matches!(play(*seed, -0.01, 0.05, 0.05, 900).0, Action::Promote { .. }))
            .count();
        assert!(promoted >= 18, "{promoted} of 20");
    }

    #[test]
    fn no_labels_hold_and_the_timeout_takes_it_back() {
        let (end, day) = play(4, 0.0, 0.0, 0.0, 0);
        assert!(
            matches!(&end, Action::Rollback { reason } if reason.contains("undecided") && reason.contains("0 of 500")),
            "{end:?}"
        );
        assert_eq!(day, 28);
    }

    proptest! {
        /// Serialised in the middle and read back, the evidence decides the same, bit for bit.
        #[test]
        fn evidence_replays_bit_for_bit(losses in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64), 1..200), cut in 0usize..200) {
            let plan = plan();
            let mut straight = Evidence::new(&plan, T0).unwrap();
            let mut stored = straight.clone();
            for (i, (a, b)) in losses.iter().enumerate() {
                straight.add_losses(&[*a], &[*b]).unwrap();
                if i == cut {
                    stored = serde_json::from_str(&serde_json::to_string(&stored).unwrap()).unwrap();
                }
                stored.add_losses(&[*a], &[*b]).unwrap();
            }
            prop_assert_eq!(straight, stored);
        }

        /// Whatever the evidence, a rollout never skips the shadow stage's minimum of labels.
        #[test]
        fn too_few_labels_never_advance(n in 0usize..499, better in 0.0..0.2f64) {
            let plan = plan();
            let mut evidence = Evidence::new(&plan, T0).unwrap();
            evidence.add_losses(&vec![0.3; n], &vec![0.3 - better; n]).unwrap();
            let progress = Progress { stage: Stage::Shadow, started_at: T0, entered_at: T0 };
            let action = decide(&plan, progress, &evidence, T0 + Span::days(10));
            let held = matches!(action, Action::Hold { .. });
            prop_assert!(held);
        }
    }
}
