//! The shell around the rollout machine: gathers evidence from the prediction log and the labels, lets [`super::rollouts::decide`]
//! decide, and commits state, decision record and events together. Also the manual way: promote and roll back by hand.

use serde_json::json;
use tidemill_core::clock::Timestamp;
use tidemill_core::frame::Task;
use tidemill_core::ids::{DecisionId, RolloutId, RunId, VersionNumber, derived, fresh};
use tidemill_core::predictions::{PredictionBatch, Role};
use tidemill_serving::{CANARY_FAILED, NOT_ASKED};
use tidemill_store::decisions::{self, DecisionRecord, Verdict};
use tidemill_store::endpoints::{self, EndpointRow};
use tidemill_store::models::AliasChange;
use tidemill_store::rollouts::{self, RolloutRow, RolloutState};
use tidemill_store::{StoreError, Tx, models, snapshots};

use crate::context::Context;
use crate::delivery::evaluation::bounded_losses;
use crate::delivery::rollouts::{Action, Evidence, Progress, Stage, decide};
use crate::delivery::{endpoints as intended, routes};
use crate::error::{ControlError, Result};
use crate::feedback::join;
use crate::tracking::automations;

/// A rollout that starts, before it has a row.
pub(crate) struct NewRollout {
    pub(crate) to: VersionNumber,
    pub(crate) run: Option<RunId>,
    pub(crate) reason: String,
}

/// Starts a rollout inside a transaction: an active one is superseded. Returns the endpoint's new state.
pub(crate) fn start(
    tx: &mut Tx<'_>,
    ctx_spec: &tidemill_core::spec::RolloutSpec,
    row: EndpointRow,
    new: &NewRollout,
    now: Timestamp,
) -> std::result::Result<EndpointRow, StoreError> {
    let from = row.champion.unwrap_or_default();
    if let Some(mut active) = rollouts::active(tx, &row.name)? {
        active.state = RolloutState::Superseded;
        active.ended_at = Some(now);
        active.reason = format!("superseded by version {}", new.to);
        rollouts::update(tx, &active)?;
        tx.event(
            now,
            "rollout.superseded",
            "rollout",
            active.id.as_str(),
            json!({ "by": new.to }),
        )?;
    }
    let evidence =
        Evidence::new(ctx_spec, now).map_err(|e| StoreError::conflict("rollout", e.to_string()))?;
    // Derived, not random: the salt that splits the traffic follows from it, so a replay of the same history splits it alike.
    let parts = [
        b"rollout".as_slice(),
        row.name.as_str().as_bytes(),
        &new.to.0.to_le_bytes(),
    ];
    let id = RolloutId::new(derived(now, parts));
    let rollout = RolloutRow {
        id: id.clone(),
        endpoint: row.name.clone(),
        model: row.model.clone(),
        from_version: from,
        to_version: new.to,
        state: RolloutState::Shadow,
        step: 0,
        salt: id.to_string(),
        started_at: now,
        entered_at: now,
        ended_at: None,
        statistics: serde_json::to_value(&evidence)
            .map_err(|e| StoreError::conflict("rollout", e.to_string()))?,
        decision: None,
        reason: new.reason.clone(),
        run: new.run.clone(),
    };
    rollouts::insert(tx, &rollout)?;
    let next = intended::shadowing(row, new.to);
    let stored = intended::store(tx, next, now)?;
    tx.event(
        now,
        "rollout.started",
        "rollout",
        id.as_str(),
        json!({ "endpoint": stored.name, "from": from, "to": new.to, "stage": "shadow", "reason": new.reason }),
    )?;
    Ok(stored)
}

/// Looks at the active rollout of the endpoint, if there is one. Idempotent; `judge` asks for the labels too, which costs a read of
/// the log. Returns whether anything changed.
pub(crate) async fn reconcile(ctx: &Context, judge: bool) -> Result<bool> {
    let endpoint = ctx.endpoint();
    let name = endpoint.clone();
    let active = ctx
        .store
        .read(move |tx| Ok((rollouts::active(tx, &name)?, endpoints::get(tx, &name)?)))
        .await?;
    let (Some(row), endpoint_row) = active else {
        return Ok(false);
    };
    let now = ctx.now();
    let mut evidence: Evidence =
        serde_json::from_value(row.statistics.clone()).map_err(ControlError::internal)?;
    let stage = match row.state {
        RolloutState::Canary => Stage::Canary {
            step: row.step as usize,
        },
        _ => Stage::Shadow,
    };
    let mut changed = false;
    if let Stage::Canary { step } = stage {
        changed |= count_answers(ctx, &row, step, &mut evidence, now).await?;
    }
    if judge {
        changed |= judge_labels(ctx, &row, &mut evidence, now).await?;
    }
    let progress = Progress {
        stage,
        started_at: row.started_at,
        entered_at: row.entered_at,
    };
    let action = decide(&ctx.spec.rollout, progress, &evidence, now);
    match &action {
        Action::Hold { reason } => {
            if changed || judge {
                hold(ctx, row, &evidence, reason).await?;
            }
            Ok(false)
        }
        _ => {
            act(ctx, row, endpoint_row, evidence, (action, "tidemill"), now).await?;
            Ok(true)
        }
    }
}

async fn hold(ctx: &Context, mut row: RolloutRow, evidence: &Evidence, reason: &str) -> Result<()> {
    row.statistics = serde_json::to_value(evidence).map_err(ControlError::internal)?;
    reason.clone_into(&mut row.reason);
    ctx.store.write(move |tx| rollouts::update(tx, &row)).await?;
    Ok(())
}

/// Counts the answers since the last look: how many went to each arm, and how many of each failed.
async fn count_answers(
    ctx: &Context,
    row: &RolloutRow,
    step: usize,
    evidence: &mut Evidence,
    now: Timestamp,
) -> Result<bool> {
    let share = ctx.spec.rollout.canary.steps.get(step).copied().unwrap_or(50.0) / 100.0;
    let from = evidence.counted_until;
    if from >= now {
        return Ok(false);
    }
    let batches = ctx.predictions.between(&row.endpoint, from, now).await?;
    let mut answers = Vec::new();
    for batch in batches.iter().filter(|b| b.canary_share > 0.0) {
        for i in 0..batch.rows() {
            let mark = batch.degraded[i].as_deref().unwrap_or("");
            // Neither arm had a part in it.
            if mark.starts_with(NOT_ASKED) {
                continue;
            }
            let canary = batch.roles[i] == Role::Canary || mark.starts_with(CANARY_FAILED);
            answers.push((canary, !mark.is_empty()));
        }
    }
    evidence.counted_until = now;
    let failures = answers.iter().any(|(_, failed)| *failed);
    evidence.add_answers(share, answers)?;
    Ok(failures)
}

/// Adds the predictions whose horizon has passed since the last look, with both versions' losses on each labelled row.
async fn judge_labels(
    ctx: &Context,
    row: &RolloutRow,
    evidence: &mut Evidence,
    now: Timestamp,
) -> Result<bool> {
    let matured = now - ctx.spec.label.horizon;
    let from = evidence.judged_until;
    if matured <= from {
        return Ok(false);
    }
    let joined = join::joined(ctx, &row.endpoint, from, matured, now).await?;
    evidence.judged_until = matured;
    let task = ctx.spec.label.task;
    let both = |batch: &PredictionBatch, i: usize| {
        join::score_of(batch, i, row.from_version).is_some()
            && join::score_of(batch, i, row.to_version).is_some()
    };
    let champion = joined.scored(task, |b, i| {
        if both(b, i) {
            join::score_of(b, i, row.from_version)
        } else {
            None
        }
    });
    let challenger = joined.scored(task, |b, i| {
        if both(b, i) {
            join::score_of(b, i, row.to_version)
        } else {
            None
        }
    });
    if let (Some((labels, champion)), Some((_, challenger))) = (champion, challenger) {
        let range = label_range(ctx, row.to_version).await?;
        evidence.add_losses(
            &bounded_losses(&labels, &champion, range)?,
            &bounded_losses(&labels, &challenger, range)?,
        )?;
    }
    Ok(true)
}

/// The spread of the label in the challenger's training snapshot, which scales a regression's loss to `[0, 1]` alike at every look;
/// 1 for classes.
async fn label_range(ctx: &Context, version: VersionNumber) -> Result<f64> {
    if ctx.spec.label.task != Task::Regression {
        return Ok(1.0);
    }
    let (model, label) = (ctx.model(), ctx.spec.label.name.clone());
    Ok(ctx
        .store
        .read(move |tx| {
            let version = models::get_version(tx, &model, version)?;
            let profile = snapshots::get(tx, &version.snapshot)?.manifest.profile;
            let bound = |key: &str| profile.get(&label).and_then(|p| p[key].as_f64());
            Ok(bound("max").zip(bound("min")).map_or(1.0, |(max, min)| max - min))
        })
        .await?)
}

async fn act(
    ctx: &Context,
    mut row: RolloutRow,
    endpoint: EndpointRow,
    mut evidence: Evidence,
    (action, actor): (Action, &str),
    now: Timestamp,
) -> Result<()> {
    let keep_baseline = ctx.spec.endpoint.baseline;
    let inputs = json!({
        "plan": ctx.spec.rollout,
        "stage": if row.state == RolloutState::Canary { format!("canary {}", row.step) } else { "shadow".into() },
        "started_at": row.started_at,
        "entered_at": row.entered_at,
        "evidence": evidence,
    });
    let to = row.to_version;
    let (next, verdict, kind, reason) = match &action {
        Action::Advance {
            to: Stage::Canary { step },
            share,
            reason,
        } => {
            evidence.enter_step(*share)?;
            evidence.counted_until = now;
            row.state = RolloutState::Canary;
            row.step = *step as u32;
            row.entered_at = now;
            (
                intended::canary(endpoint, to, *share, &row.salt),
                Verdict::Advance,
                "rollout.canary",
                reason.clone(),
            )
        }
        Action::Promote { reason } => {
            row.state = RolloutState::Promoted;
            row.ended_at = Some(now);
            (
                intended::promoted(endpoint, to, keep_baseline),
                Verdict::Promote,
                "rollout.promoted",
                reason.clone(),
            )
        }
        Action::Rollback { reason } => {
            row.state = RolloutState::RolledBack;
            row.ended_at = Some(now);
            (
                intended::settled(endpoint),
                Verdict::Rollback,
                "rollout.rolled_back",
                reason.clone(),
            )
        }
        Action::Advance {
            to: Stage::Shadow, ..
        }
        | Action::Hold { .. } => return Ok(()),
    };
    row.reason.clone_from(&reason);
    row.statistics = serde_json::to_value(&evidence).map_err(ControlError::internal)?;
    let decision = DecisionRecord {
        id: DecisionId::new(fresh(now)),
        kind: "rollout".into(),
        subject: row.id.to_string(),
        verdict,
        at: now,
        inputs,
        result: serde_json::to_value(&action).map_err(ControlError::internal)?,
        config_digest: ctx.spec_digest,
        actor: actor.to_owned(),
    };
    row.decision = Some(decision.id.clone());
    let payload = json!({
        "endpoint": row.endpoint, "from": row.from_version, "to": to, "step": row.step,
        "share": next.canary_share, "reason": reason, "decision": decision.id,
    });
    let stored = ctx
        .store
        .write(move |tx| {
            decisions::insert(tx, &decision)?;
            rollouts::update(tx, &row)?;
            let stored = intended::store(tx, next, now)?;
            let change = |alias: &str, version| AliasChange {
                model: row.model.clone(),
                alias: alias.to_owned(),
                version,
                at: now,
                by: decision.actor.clone(),
                why: row.reason.clone(),
                decision: Some(decision.id.clone()),
            };
            match row.state {
                RolloutState::Promoted => {
                    automations::set_alias(tx, &change("champion", Some(to)))?;
                    automations::set_alias(tx, &change("challenger", None))?;
                }
                RolloutState::RolledBack => {
                    automations::set_alias(tx, &change("challenger", None))?;
                }
                _ => {}
            }
            tx.event(now, kind, "rollout", row.id.as_str(), payload)?;
            Ok(stored)
        })
        .await?;
    routes::apply(ctx, &stored).await
}

/// By hand: `version` becomes champion at once; an active rollout ends.
pub(crate) async fn promote(
    ctx: &Context,
    version: VersionNumber,
    why: &str,
    by: &str,
) -> Result<serde_json::Value> {
    let (model, endpoint) = (ctx.model(), ctx.endpoint());
    let exists = {
        let model = model.clone();
        ctx.store
            .read(move |tx| models::get_version(tx, &model, version))
            .await
    };
    exists.map_err(|e| {
        if e.is_not_found() {
            ControlError::not_found(
                "version",
                format!("{model}/{version}"),
                "; `tidemill status` lists what there is",
            )
        } else {
            e.into()
        }
    })?;
    take_over(ctx, endpoint, version, Verdict::Promote, why, by).await
}

/// By hand: an active rollout is taken back; without one the previous champion takes over again.
pub(crate) async fn rollback(ctx: &Context, why: &str, by: &str) -> Result<serde_json::Value> {
    let endpoint = ctx.endpoint();
    let name = endpoint.clone();
    let (active, row) = ctx
        .store
        .read(move |tx| Ok((rollouts::active(tx, &name)?, endpoints::get(tx, &name)?)))
        .await?;
    if let Some(rollout) = active {
        let evidence = serde_json::from_value(rollout.statistics.clone()).map_err(ControlError::internal)?;
        let reason = format!("by {by}: {why}");
        let (id, version) = (rollout.id.clone(), rollout.to_version);
        act(
            ctx,
            rollout,
            row,
            evidence,
            (Action::Rollback { reason }, by),
            ctx.now(),
        )
        .await?;
        return Ok(json!({ "rolled_back": version, "rollout": id }));
    }
    let Some(previous) = row.previous else {
        return Err(ControlError::Conflict {
            code: "nothing_to_roll_back",
            message:
                "no rollout is under way and no earlier champion is known, so there is nothing to go back to"
                    .into(),
        });
    };
    take_over(ctx, endpoint, previous, Verdict::Rollback, why, by).await
}

async fn take_over(
    ctx: &Context,
    endpoint: tidemill_core::ids::EndpointName,
    version: VersionNumber,
    verdict: Verdict,
    why: &str,
    by: &str,
) -> Result<serde_json::Value> {
    let now = ctx.now();
    let decision = DecisionRecord {
        id: DecisionId::new(fresh(now)),
        kind: "manual".into(),
        subject: format!("{}/{version}", ctx.model()),
        verdict,
        at: now,
        inputs: json!({ "why": why, "by": by }),
        result: json!({ "champion": version }),
        config_digest: ctx.spec_digest,
        actor: by.to_owned(),
    };
    let (model, keep, why, by) = (
        ctx.model(),
        ctx.spec.endpoint.baseline,
        why.to_owned(),
        by.to_owned(),
    );
    let kind = if verdict == Verdict::Rollback {
        "version.rolled_back"
    } else {
        "version.promoted"
    };
    let answer = json!({ "champion": version, "decision": decision.id });
    let stored = ctx
        .store
        .write(move |tx| {
            let row = endpoints::get(tx, &endpoint)?;
            if let Some(mut active) = rollouts::active(tx, &endpoint)? {
                active.state = RolloutState::Aborted;
                active.ended_at = Some(now);
                active.reason = format!("version {version} was put in charge by {by}");
                rollouts::update(tx, &active)?;
                tx.event(
                    now,
                    "rollout.aborted",
                    "rollout",
                    active.id.as_str(),
                    json!({ "by": by }),
                )?;
            }
            decisions::insert(tx, &decision)?;
            let stored = intended::store(tx, intended::promoted(row, version, keep), now)?;
            automations::set_alias(
                tx,
                &AliasChange {
                    model: model.clone(),
                    alias: "champion".into(),
                    version: Some(version),
                    at: now,
                    by: by.clone(),
                    why: why.clone(),
                    decision: Some(decision.id.clone()),
                },
            )?;
            let subject = format!("{model}/{version}");
            tx.event(
                now,
                kind,
                "version",
                &subject,
                json!({ "version": version, "by": by, "reason": why, "decision": decision.id }),
            )?;
            Ok(stored)
        })
        .await?;
    routes::apply(ctx, &stored).await?;
    Ok(answer)
}
