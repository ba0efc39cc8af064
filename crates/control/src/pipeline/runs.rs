//! A training run from its lease to its record. Execution is at least once, recording exactly once: every write carries the lease, and
//! one transaction at the end makes version, decision, rollout and run visible together.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_core::clock::{Stopwatch, Timestamp};
use tidemill_core::digest::Digest;
use tidemill_core::ids::{DecisionId, RunId, VersionNumber, derived};
use tidemill_core::ports::PortError;
use tidemill_core::snapshot::SnapshotManifest;
use tidemill_core::spec::TrainingSpec;
use tidemill_stats::paired::noninferiority::Verdict;
use tidemill_store::decisions::{self, DecisionRecord};
use tidemill_store::models::{self, AliasChange, NewVersion};
use tidemill_store::objects::ObjectKey;
use tidemill_store::runs::{self, RunRow, RunState, RunUpdate};
use tidemill_store::snapshots::{self, SnapshotRow};
use tidemill_store::steps::{self, StepRow, StepState};
use tidemill_store::{StoreError, endpoints};

use crate::context::Context;
use crate::delivery::reconcile::{self, NewRollout};
use crate::delivery::{bundles, endpoints as intended, routes};
use crate::error::{ControlError, Result};
use crate::pipeline::key::{Code, params};
use crate::pipeline::train::{self, Evaluation};
use crate::pipeline::{sweep, tracked};
use crate::tracking::automations;

/// Executes a queued or orphaned run to its end, and records how it ended.
pub(crate) async fn execute(ctx: &Context, id: &RunId) -> Result<()> {
    let (run, lease) = take_lease(ctx, id).await?;
    if run.state.is_final() {
        return Ok(());
    }
    tracing::info!(run = %id, trigger = %run.trigger_kind, "training run begins");
    match steps_of(ctx, &run, lease).await {
        Ok(()) => Ok(()),
        Err(ControlError::Store(StoreError::StaleLease { .. })) => {
            tracing::warn!(run = %id, "another holder of the run's lease took over; nothing was recorded here");
            Ok(())
        }
        Err(error) => {
            tracing::warn!(run = %id, %error, "training run failed");
            fail(ctx, &run, lease, &error).await
        }
    }
}

async fn take_lease(ctx: &Context, id: &RunId) -> Result<(RunRow, i64)> {
    let (id, now, project) = (id.clone(), ctx.now(), ctx.spec.name.clone());
    Ok(ctx
        .store
        .write(move |tx| {
            let run = runs::get(tx, &id)?;
            if run.state.is_final() {
                return Ok((run, 0));
            }
            let lease = runs::acquire_lease(tx, &id, now)?;
            let update = RunUpdate {
                state: Some(RunState::Running),
                started_at: Some(now),
                ..RunUpdate::default()
            };
            runs::update_with_lease(tx, &id, lease, update)?;
            tracked::begin(tx, &project, &run, now)?;
            let payload =
                json!({ "trigger": run.trigger_kind, "reason": run.trigger_reason, "attempt": lease });
            tx.event(now, "run.started", "run", id.as_str(), payload)?;
            Ok((run, lease))
        })
        .await?)
}

async fn fail(ctx: &Context, run: &RunRow, lease: i64, error: &ControlError) -> Result<()> {
    let (id, now, message, code) = (run.id.clone(), ctx.now(), error.to_string(), error.code());
    ctx.store
        .write(move |tx| {
            let update = RunUpdate {
                state: Some(RunState::Failed),
                ended_at: Some(now),
                error: Some(message.clone()),
                ..RunUpdate::default()
            };
            runs::update_with_lease(tx, &id, lease, update)?;
            tracked::fail(tx, id.as_str(), &message, now)?;
            tx.event(
                now,
                "run.failed",
                "run",
                id.as_str(),
                json!({ "error": message, "code": code }),
            )?;
            Ok(())
        })
        .await?;
    Ok(())
}

/// Records that a step ended, under the run's lease.
async fn step(
    ctx: &Context,
    run: &RunRow,
    lease: i64,
    name: &str,
    watch: Stopwatch,
    output: Value,
) -> Result<()> {
    let now = ctx.now();
    let mut output = output;
    output["seconds"] = json!(watch.elapsed().as_secs_f64());
    let row = StepRow {
        run: run.id.clone(),
        name: name.to_owned(),
        attempt: u32::try_from(lease).unwrap_or(u32::MAX),
        lease,
        state: StepState::Succeeded,
        started_at: Some(now),
        ended_at: Some(now),
        output,
        error: None,
    };
    ctx.store
        .write(move |tx| steps::upsert_with_lease(tx, &row))
        .await?;
    Ok(())
}

async fn steps_of(ctx: &Context, run: &RunRow, lease: i64) -> Result<()> {
    let as_of = run.created_at;
    let name = ctx.endpoint();
    let endpoint = ctx.store.read(move |tx| endpoints::get(tx, &name)).await?;
    ctx.predictions.compact().await?;

    let watch = Stopwatch::start();
    let manifest = train::snapshot(ctx, endpoint.first_served_at, as_of).await?;
    record_snapshot(ctx, run, lease, &manifest).await?;
    let detail =
        json!({ "snapshot": manifest.digest, "rows": manifest.rows, "quarantined": manifest.quarantined });
    step(ctx, run, lease, "snapshot", watch, detail).await?;
    if manifest.quarantined {
        return Err(PortError::caller("snapshot_quarantined", quarantine_message(&manifest)).into());
    }

    let code = Code::of(&ctx.spec, &ctx.root, ctx.trainer.identity())?;
    let key = code.key(&ctx.spec, &manifest.digest)?;
    let rows = ctx.data.load_snapshot(&manifest).await?;
    train::check_enough(&rows, ctx.spec.training.min_rows)?;
    let split = train::split(&rows, &ctx.spec.evaluation);
    drop(rows);
    let trained_until = split.train.times.last().copied();
    let train_rows = split.train.labels.rows();

    let watch = Stopwatch::start();
    let earlier = ctx
        .store
        .read(move |tx| runs::find_succeeded_by_key(tx, &key))
        .await?;
    let earlier = earlier.and_then(|r| r.bundle.map(|b| (b, r.id, r.params)));
    let (bundle, train_metrics, settings, reused) = match earlier {
        Some((bundle, from, params)) => {
            let settings = sweep::settings_of(&ctx.spec, &params)?;
            (bundle, BTreeMap::new(), settings, Some(from))
        }
        None => {
            let searched = Stopwatch::start();
            let settings = match sweep::search(ctx, run, lease, &manifest, &split.train).await? {
                Some(found) => {
                    step(ctx, run, lease, "sweep", searched, found.detail).await?;
                    found.settings
                }
                None => ctx.spec.training.clone(),
            };
            let (output, log) = train::train(ctx, &settings, &manifest, split.train).await?;
            if !log.is_empty() {
                let attempt = u32::try_from(lease).unwrap_or(u32::MAX);
                let key = ObjectKey::RunLog {
                    run: run.id.clone(),
                    attempt,
                };
                ctx.store.objects().put(&key, log.join("\n").into()).await?;
            }
            (
                ctx.store.objects().put_bundle(&output.bundle).await?,
                output.metrics,
                settings,
                None,
            )
        }
    };
    let detail =
        json!({ "bundle": bundle, "rows": train_rows, "metrics": train_metrics, "reused_from": reused });
    step(ctx, run, lease, "train", watch, detail).await?;

    let watch = Stopwatch::start();
    let champion = match endpoint.champion {
        Some(version) => {
            let model = ctx.model();
            let row = ctx
                .store
                .read(move |tx| models::get_version(tx, &model, version))
                .await?;
            let until = row
                .metrics
                .get("trained_until")
                .and_then(|v| serde_json::from_value(v.clone()).ok());
            Some((version, bundles::load(ctx, &row.bundle).await?, until))
        }
        None => None,
    };
    let evaluation = train::evaluate(ctx, &bundle, champion, split.holdout, split.holdout_range).await?;
    let detail = json!({ "metrics": evaluation.metrics, "verdict": evaluation.gate.verdict });
    step(ctx, run, lease, "evaluate", watch, detail).await?;

    let finished = Finished {
        manifest,
        code: code.parts,
        key,
        bundle,
        settings,
        reused: reused.is_some(),
        train_metrics,
        train_rows,
        trained_until,
        holdout: split.holdout_range,
        evaluation,
    };
    record(ctx, run, lease, finished).await
}

fn quarantine_message(manifest: &SnapshotManifest) -> String {
    let failed: Vec<String> = manifest
        .validation
        .as_ref()
        .and_then(|v| v["results"].as_array())
        .into_iter()
        .flatten()
        .filter(|r| r["success"] == false)
        .map(|r| {
            format!(
                "{} on {} ({} unexpected)",
                r["expectation_config"]["type"]
                    .as_str()
                    .unwrap_or("an expectation"),
                r["expectation_config"]["kwargs"]["column"]
                    .as_str()
                    .unwrap_or("the table"),
                r["result"]["unexpected_count"]
            )
        })
        .collect();
    format!(
        "the snapshot {} is quarantined and nothing was trained on it: {}; mend the data or the expectation, `tidemill validate` shows the rows",
        manifest.digest.short(),
        failed.join("; ")
    )
}

async fn record_snapshot(ctx: &Context, run: &RunRow, lease: i64, manifest: &SnapshotManifest) -> Result<()> {
    let (id, now, row) = (
        run.id.clone(),
        ctx.now(),
        SnapshotRow::of(manifest.clone(), ctx.now()),
    );
    ctx.store
        .write(move |tx| {
            let fresh = snapshots::insert(tx, &row)?;
            let update = RunUpdate {
                snapshot: Some(row.digest),
                ..RunUpdate::default()
            };
            runs::update_with_lease(tx, &id, lease, update)?;
            if fresh {
                let kind = if row.quarantined {
                    "snapshot.quarantined"
                } else {
                    "snapshot.created"
                };
                tx.event(
                    now,
                    kind,
                    "snapshot",
                    &row.digest.to_string(),
                    json!({ "rows": row.rows, "run": id }),
                )?;
            }
            Ok(())
        })
        .await?;
    Ok(())
}

/// Everything that the last transaction of a run records.
struct Finished {
    manifest: SnapshotManifest,
    code: Value,
    key: Digest,
    bundle: Digest,
    settings: TrainingSpec,
    reused: bool,
    train_metrics: BTreeMap<String, f64>,
    train_rows: usize,
    trained_until: Option<Timestamp>,
    holdout: Option<(Timestamp, Timestamp)>,
    evaluation: Evaluation,
}

async fn record(ctx: &Context, run: &RunRow, lease: i64, done: Finished) -> Result<()> {
    let now = ctx.now();
    let signature = serde_json::to_value(&done.evaluation.signature).map_err(ControlError::internal)?;
    let metrics = json!({
        "holdout": done.evaluation.metrics,
        "train": done.train_metrics,
        "train_rows": done.train_rows,
        "trained_until": done.trained_until,
        "holdout_range": done.holdout,
        "holdout_span": train::span_of(done.holdout),
        "prediction_reference": done.evaluation.prediction_reference,
    });
    let run_metrics: Value = done
        .evaluation
        .metrics
        .iter()
        .map(|(name, m)| (name.clone(), json!(m.value)))
        .chain(
            done.train_metrics
                .iter()
                .map(|(name, v)| (name.clone(), json!(v))),
        )
        .collect::<serde_json::Map<_, _>>()
        .into();
    // Derived from the run, which has one gate decision at most.
    let decision_id = DecisionId::new(derived(now, [b"gate".as_slice(), run.id.as_str().as_bytes()]));
    let verdict = done.evaluation.gate.verdict;
    let version = NewVersion {
        model: ctx.model(),
        run: run.id.clone(),
        bundle: done.bundle,
        snapshot: done.manifest.digest,
        signature,
        metrics,
        created_at: now,
        description: format!(
            "trained on {} rows, triggered by {}: {}",
            done.train_rows, run.trigger_kind, run.trigger_reason
        ),
    };
    let decision = DecisionRecord {
        id: decision_id.clone(),
        kind: "gate".into(),
        subject: run.id.to_string(),
        verdict: recorded(verdict),
        at: now,
        inputs: done.evaluation.inputs,
        result: serde_json::to_value(&done.evaluation.gate).map_err(ControlError::internal)?,
        config_digest: ctx.spec_digest,
        actor: "tidemill".into(),
    };
    let update = RunUpdate {
        state: Some(if done.reused {
            RunState::Reused
        } else {
            RunState::Succeeded
        }),
        key: Some(done.key),
        ended_at: Some(now),
        params: Some(params(&done.settings)),
        metrics: Some(run_metrics),
        code: Some(done.code),
        bundle: Some(done.bundle),
        decision: Some(decision_id),
        ..RunUpdate::default()
    };
    let manifest = done.manifest;
    let (id, name, spec, reason) = (
        run.id.clone(),
        ctx.endpoint(),
        Arc::clone(&ctx.spec),
        run.trigger_reason.clone(),
    );
    let (version, changed) = ctx
        .store
        .write(move |tx| {
            commit(
                tx,
                Commit {
                    id,
                    lease,
                    name,
                    spec,
                    reason,
                    version,
                    decision,
                    update,
                    verdict,
                    manifest,
                    now,
                },
            )
        })
        .await?;
    if let Some(row) = changed {
        routes::apply(ctx, &row).await?;
    }
    tracing::info!(run = %run.id, %version, verdict = word(verdict), "training run ended");
    Ok(())
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Inconclusive => "inconclusive",
    }
}

fn recorded(verdict: Verdict) -> decisions::Verdict {
    match verdict {
        Verdict::Pass => decisions::Verdict::Pass,
        Verdict::Fail => decisions::Verdict::Fail,
        Verdict::Inconclusive => decisions::Verdict::Inconclusive,
    }
}

struct Commit {
    id: RunId,
    lease: i64,
    name: tidemill_core::ids::EndpointName,
    spec: Arc<tidemill_core::spec::Spec>,
    reason: String,
    version: NewVersion,
    decision: DecisionRecord,
    update: RunUpdate,
    verdict: Verdict,
    manifest: SnapshotManifest,
    now: Timestamp,
}

/// The last transaction of a run: all of it, or nothing. Returns the endpoint if its route changed.
fn commit(
    tx: &mut tidemill_store::Tx<'_>,
    c: Commit,
) -> std::result::Result<(VersionNumber, Option<endpoints::EndpointRow>), StoreError> {
    let (now, model) = (c.now, c.version.model.clone());
    // First, so that a stale lease writes nothing at all.
    let (params, metrics) = (
        c.update.params.clone().unwrap_or_default(),
        c.update.metrics.clone().unwrap_or_default(),
    );
    runs::update_with_lease(tx, &c.id, c.lease, c.update)?;
    let version = models::register_version(tx, c.version)?.version;
    let number = RunUpdate {
        model_version: Some(version),
        ..RunUpdate::default()
    };
    runs::update_with_lease(tx, &c.id, c.lease, number)?;
    let outcome = tracked::Outcome {
        params: &params,
        metrics: &metrics,
        manifest: &c.manifest,
        version,
        verdict: word(c.verdict),
    };
    tracked::finish(tx, c.id.as_str(), &outcome, now)?;
    let mut decision = c.decision;
    decision.inputs["challenger"]["version"] = json!(version);
    decisions::insert(tx, &decision)?;
    let subject = format!("{model}/{version}");
    tx.event(
        now,
        "version.registered",
        "version",
        &subject,
        json!({ "run": c.id, "version": version }),
    )?;
    let kind = match c.verdict {
        Verdict::Pass => "gate.passed",
        Verdict::Fail => "gate.refused",
        Verdict::Inconclusive => "gate.inconclusive",
    };
    let why = decision.result["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|check| check["verdict"] == word(c.verdict));
    let payload = json!({
        "run": c.id, "version": version, "decision": decision.id,
        "reason": why.map(|check| check["reason"].clone()).unwrap_or_default(),
    });
    tx.event(now, kind, "decision", decision.id.as_str(), payload)?;
    tx.event(
        now,
        "run.finished",
        "run",
        c.id.as_str(),
        json!({ "version": version, "verdict": word(c.verdict) }),
    )?;
    if c.verdict != Verdict::Pass {
        return Ok((version, None));
    }
    let row = endpoints::get(tx, &c.name)?;
    let alias = |alias: &str, why: &str| AliasChange {
        model: model.clone(),
        alias: alias.to_owned(),
        version: Some(version),
        at: now,
        by: "tidemill".into(),
        why: why.to_owned(),
        decision: Some(decision.id.clone()),
    };
    let reason = format!("{}: {}", c.id, c.reason);
    if row.champion.is_none() {
        let stored = intended::store(
            tx,
            intended::promoted(row, version, c.spec.endpoint.baseline),
            now,
        )?;
        automations::set_alias(tx, &alias("champion", "the first version"))?;
        tx.event(
            now,
            "version.promoted",
            "version",
            &subject,
            json!({ "version": version, "reason": "the first version" }),
        )?;
        return Ok((version, Some(stored)));
    }
    automations::set_alias(tx, &alias("challenger", &reason))?;
    let new = NewRollout {
        to: version,
        run: Some(c.id),
        reason,
    };
    let stored = reconcile::start(tx, &c.spec.rollout, row, &new, now)?;
    Ok((version, Some(stored)))
}
