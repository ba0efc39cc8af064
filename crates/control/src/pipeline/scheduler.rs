//! The shell around [`super::triggers::decide`]: gathers what has happened, and queues a run together with what it consumes.

use serde_json::{Value, json};
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{RunId, fresh};
use tidemill_core::spec::{Span, TriggerKind};
use tidemill_store::alerts::{self, AlertState};
use tidemill_store::runs::{self, RunRow};
use tidemill_store::{endpoints, labels, meta, rollouts};

use crate::context::Context;
use crate::error::Result;
use crate::pipeline::triggers::{Fired, TriggerState, decide, next_cron};

const CRON_CHECKED: &str = "trigger.cron_checked_at";
const SOURCE_SEEN: &str = "trigger.source_digest";

/// How many alerts are looked at; the rest wait.
const ALERTS: u32 = 100;

/// Looks at the triggers and queues a run if one is due.
pub(crate) async fn tick(ctx: &Context) -> Result<Option<RunId>> {
    let now = ctx.now();
    let state = gather(ctx, now).await?;
    let Some(fired) = decide(&ctx.spec, &state, now) else {
        mark_cron(ctx, &state, now).await?;
        return Ok(None);
    };
    let run = queue(ctx, &fired, state.source.map(|(current, _)| current)).await?;
    Ok(Some(run))
}

/// When the triggers have to be looked at again if nothing else happens before: at the next scheduled time, or after `pause`.
pub(crate) fn next_look(ctx: &Context, now: Timestamp, pause: Span) -> Timestamp {
    ctx.spec
        .triggers
        .iter()
        .filter_map(|t| t.schedule.as_deref())
        .filter_map(|schedule| next_cron(schedule, now))
        .fold(now + pause, Timestamp::min)
}

async fn gather(ctx: &Context, now: Timestamp) -> Result<TriggerState> {
    let (name, pipeline, label) = (ctx.endpoint(), ctx.spec.name.clone(), ctx.spec.label.name.clone());
    let mut state = ctx
        .store
        .read(move |tx| {
            let endpoint = endpoints::get(tx, &name)?;
            let last = runs::list(tx, 1, Some(&pipeline))?.into_iter().next();
            let last_run_at = last.as_ref().map(|r| r.created_at);
            Ok(TriggerState {
                has_champion: endpoint.champion.is_some(),
                run_open: !runs::open_runs(tx)?.is_empty(),
                rollout_open: rollouts::active(tx, &name)?.is_some(),
                first_served_at: endpoint.first_served_at,
                last_run_at,
                cron_checked_at: meta::get(tx, CRON_CHECKED)?,
                open_alerts: alerts::list(tx, Some(&name), ALERTS)?
                    .into_iter()
                    .rev()
                    .filter(|a| a.state == AlertState::Open)
                    .map(|a| (a.id, a.monitor, a.summary))
                    .collect(),
                source: None,
                new_labels: labels::count_since(tx, &label, last_run_at.unwrap_or_default())?,
            })
        })
        .await?;
    if state.cron_checked_at.is_none() {
        state.cron_checked_at = Some(now);
    }
    if ctx.spec.triggers.iter().any(|t| t.on == TriggerKind::NewData) {
        let current = ctx.data.source_digest(&ctx.root, &ctx.spec).await?;
        let seen: Option<Digest> = ctx.store.read(|tx| meta::get(tx, SOURCE_SEEN)).await?;
        match seen {
            Some(seen) => state.source = Some((current, seen)),
            // The first look is what later looks are compared with.
            None => {
                ctx.store
                    .write(move |tx| meta::set(tx, SOURCE_SEEN, &current))
                    .await?;
            }
        }
    }
    Ok(state)
}

async fn mark_cron(ctx: &Context, state: &TriggerState, now: Timestamp) -> Result<()> {
    let scheduled = ctx.spec.triggers.iter().any(|t| t.on == TriggerKind::Cron);
    if scheduled && !state.run_open {
        ctx.store
            .write(move |tx| meta::set(tx, CRON_CHECKED, &now))
            .await?;
    }
    Ok(())
}

/// Queues a run; the alert that caused it is spent in the same transaction, so it starts exactly one.
pub(crate) async fn queue(ctx: &Context, fired: &Fired, source: Option<Digest>) -> Result<RunId> {
    let now = ctx.now();
    let id = RunId::new(fresh(now));
    let mut run = RunRow::queued(id.clone(), &ctx.spec.name, &fired.kind, &fired.reason, now);
    run.trigger_ref = fired.alert.as_ref().map(ToString::to_string);
    run.params = Value::Object(serde_json::Map::new());
    let (fired, name) = (fired.clone(), ctx.endpoint());
    ctx.store
        .write(move |tx| {
            runs::insert(tx, &run)?;
            // Alerts of the other monitors speak of the same world; this run answers them all.
            for alert in alerts::list(tx, Some(&name), ALERTS)?
                .into_iter()
                .filter(|a| a.state == AlertState::Open)
            {
                let spent = Some(&alert.id) == fired.alert.as_ref();
                let state = if spent {
                    AlertState::Triggered
                } else {
                    AlertState::CooledDown
                };
                alerts::set_state(tx, &alert.id, state, Some(&run.id))?;
            }
            meta::set(tx, CRON_CHECKED, &now)?;
            if let Some(source) = source {
                meta::set(tx, SOURCE_SEEN, &source)?;
            }
            let payload = json!({ "trigger": fired.kind, "reason": fired.reason, "alert": fired.alert });
            tx.event(now, "run.queued", "run", run.id.as_str(), payload)?;
            Ok(())
        })
        .await?;
    Ok(id)
}
