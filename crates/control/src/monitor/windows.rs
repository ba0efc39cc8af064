//! Closes windows: once a period is over, its signals are computed, stored with their state, and alerts raised, in one transaction a
//! window. A window is computed from the log and the labels alone, so computing it again gives the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::frame::{Frame, Scores, Task};
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::predictions::{PredictionBatch, Role};
use tidemill_core::spec::{Metric, OutcomeMonitor};
use tidemill_store::models::{self, ModelVersion};
use tidemill_store::windows::{self, WindowRow, WindowState};
use tidemill_store::{endpoints, snapshots};

use crate::context::Context;
use crate::delivery::evaluation::{Measured, value_of};
use crate::error::Result;
use crate::feedback::join::{self, Joined};
use crate::monitor::alerts;
use crate::monitor::signals::{ColumnReference, drift_signals, prediction_column, quality_signals};

/// One-sided 95 %: a drop counts when it exceeds what sampling explains.
const Z: f64 = 1.644_853_626_951_472_7;

/// What the windows of a champion are compared with.
struct Reference {
    version: VersionNumber,
    row: ModelVersion,
    snapshot: Digest,
    /// The training snapshot's columns, read once for all windows that close together.
    columns: BTreeMap<String, ColumnReference>,
    /// The predictions at evaluation.
    predictions: ColumnReference,
}

/// Computes every window that has ended by now and was not computed yet. Returns how many.
pub(crate) async fn close_due(ctx: &Context) -> Result<usize> {
    let now = ctx.now();
    let every = ctx.spec.monitors.every;
    let name = ctx.endpoint();
    let (endpoint, last) = ctx
        .store
        .read(move |tx| {
            Ok((
                endpoints::get(tx, &name)?,
                windows::last_until(tx, &name, "quality")?,
            ))
        })
        .await?;
    let Some(first) = endpoint.first_served_at else {
        return Ok(0);
    };
    let mut until = last.unwrap_or_else(|| first.floor_to(every)) + every;
    if until > now {
        return Ok(0);
    }
    // The log must be indexed up to the windows' ends, or labels would not find their predictions.
    ctx.predictions.compact().await?;
    let reference = reference_of(ctx, endpoint.champion).await?;
    let mut closed = 0;
    while until <= now {
        close(ctx, &endpoint.name, until, reference.as_ref(), endpoint.baseline).await?;
        until = until + every;
        closed += 1;
    }
    Ok(closed)
}

async fn reference_of(ctx: &Context, champion: Option<VersionNumber>) -> Result<Option<Reference>> {
    let Some(version) = champion else { return Ok(None) };
    let model = ctx.model();
    let (row, snapshot) = ctx
        .store
        .read(move |tx| {
            let row = models::get_version(tx, &model, version)?;
            let snapshot = snapshots::get(tx, &row.snapshot)?;
            Ok((row, snapshot))
        })
        .await?;
    Ok(Some(Reference {
        version,
        snapshot: snapshot.digest,
        columns: ColumnReference::of_profile(&snapshot.manifest.profile),
        predictions: ColumnReference::of_histogram(row.metrics.get("prediction_reference")),
        row,
    }))
}

async fn close(
    ctx: &Context,
    endpoint: &EndpointName,
    until: Timestamp,
    reference: Option<&Reference>,
    baseline: Option<VersionNumber>,
) -> Result<()> {
    let monitors = &ctx.spec.monitors;
    let mut rows = Vec::new();
    let from = until - monitors.drift.window.max(monitors.every);
    let batches = ctx.predictions.between(endpoint, from, until).await?;
    let since = |start: Timestamp| {
        batches
            .iter()
            .filter(move |b| b.at >= start)
            .cloned()
            .collect::<Vec<_>>()
    };
    rows.push(quality(
        ctx,
        endpoint,
        until,
        reference,
        &since(until - monitors.every),
    ));
    rows.push(drift(
        ctx,
        endpoint,
        until,
        reference,
        &since(until - monitors.drift.window),
    ));
    let judged = until - ctx.spec.label.horizon;
    let from = judged - monitors.performance.window;
    let joined = join::joined(ctx, endpoint, from, judged, ctx.now()).await?;
    rows.push(performance(
        ctx,
        endpoint,
        (from, until),
        reference,
        baseline,
        &joined,
    ));
    if let Some(outcome) = &monitors.outcome {
        let start = judged - monitors.every;
        let latest = Joined {
            batches: joined.batches.iter().filter(|b| b.at >= start).cloned().collect(),
            rows: joined
                .batches
                .iter()
                .zip(&joined.rows)
                .filter(|(b, _)| b.at >= start)
                .map(|(_, r)| r.clone())
                .collect(),
        };
        rows.push(outcome_window(
            ctx,
            endpoint,
            (start, until),
            reference,
            outcome,
            &latest,
        ));
    }
    let (cooldown, now) = (ctx.spec.cooldown, ctx.now());
    ctx.store
        .write(move |tx| {
            for (window, summary) in &rows {
                windows::upsert(tx, window)?;
                alerts::apply(tx, window, summary, cooldown, now)?;
            }
            let states: serde_json::Map<String, Value> = rows
                .iter()
                .map(|(w, _)| (w.monitor.clone(), json!(w.state)))
                .collect();
            if let Some((window, _)) = rows.first() {
                tx.event(
                    now,
                    "window.closed",
                    "endpoint",
                    window.endpoint.as_str(),
                    json!({ "until": window.until, "states": states }),
                )?;
            }
            Ok(())
        })
        .await?;
    Ok(())
}

type Judged = (WindowRow, String);

fn window(
    ctx: &Context,
    endpoint: &EndpointName,
    monitor: &str,
    range: (Timestamp, Timestamp),
    reference: Option<&Reference>,
) -> WindowRow {
    WindowRow {
        endpoint: endpoint.clone(),
        monitor: monitor.to_owned(),
        from: range.0,
        until: range.1,
        computed_at: ctx.now(),
        version: reference.map_or(VersionNumber::DEFAULT, |r| r.version),
        reference: reference.map(|r| r.snapshot),
        signals: Value::Null,
        state: WindowState::Insufficient,
    }
}

/// All feature rows of some batches in one frame.
fn features_of(batches: &[Arc<PredictionBatch>]) -> Option<Frame> {
    let mut all = Frame::empty(Arc::clone(batches.first()?.features.schema()));
    for batch in batches {
        all.append(&batch.features).ok()?;
    }
    Some(all)
}

/// The answers that a model gave, in one column.
fn answers_of(batches: &[Arc<PredictionBatch>]) -> Option<tidemill_core::frame::Column> {
    let mut values = Vec::new();
    let mut template: Option<&Scores> = None;
    for batch in batches {
        for row in 0..batch.rows() {
            if batch.roles[row].is_model() {
                values.extend_from_slice(batch.scores.row(row));
                template = Some(&batch.scores);
            }
        }
    }
    template.map(|t| prediction_column(&t.with_values(values)))
}

fn quality(
    ctx: &Context,
    endpoint: &EndpointName,
    until: Timestamp,
    reference: Option<&Reference>,
    batches: &[Arc<PredictionBatch>],
) -> Judged {
    let plan = &ctx.spec.monitors.quality;
    let mut row = window(
        ctx,
        endpoint,
        "quality",
        (until - ctx.spec.monitors.every, until),
        reference,
    );
    let (Some(features), Some(reference)) = (features_of(batches), reference) else {
        row.signals = json!({ "rows": 0 });
        return (row, String::new());
    };
    let signals = quality_signals(plan, &reference.columns, &features);
    let degraded = batches
        .iter()
        .flat_map(|b| &b.degraded)
        .filter(|d| d.is_some())
        .count();
    let problems: Vec<&str> = signals.values().filter_map(|s| s.problem.as_deref()).collect();
    let summary = problems.join("; ");
    if features.rows() as u64 >= plan.min_rows {
        row.state = if problems.is_empty() {
            WindowState::Ok
        } else {
            WindowState::Alert
        };
    }
    row.signals = json!({ "rows": features.rows(), "degraded": degraded, "columns": signals });
    (row, summary)
}

fn drift(
    ctx: &Context,
    endpoint: &EndpointName,
    until: Timestamp,
    reference: Option<&Reference>,
    batches: &[Arc<PredictionBatch>],
) -> Judged {
    let plan = &ctx.spec.monitors.drift;
    let mut row = window(ctx, endpoint, "drift", (until - plan.window, until), reference);
    let (Some(features), Some(reference)) = (features_of(batches), reference) else {
        row.signals = json!({ "rows": 0 });
        return (row, String::new());
    };
    let predictions = answers_of(batches);
    let signals = drift_signals(
        plan,
        &reference.columns,
        &reference.predictions,
        &features,
        predictions.as_ref(),
    );
    let mut drifted: Vec<(&str, f64)> = signals
        .columns
        .iter()
        .filter(|(_, s)| s.drifted)
        .filter_map(|(name, s)| Some((name.as_str(), s.deciding(plan.method)?)))
        .collect();
    drifted.sort_by(|a, b| b.1.total_cmp(&a.1));
    let worst: Vec<String> = drifted
        .iter()
        .take(4)
        .map(|(name, score)| format!("{name} {score:.2}"))
        .collect();
    let summary = format!(
        "{:.0} % of the features have drifted: {}",
        signals.share * 100.0,
        worst.join(", ")
    );
    if signals.rows >= plan.min_rows {
        row.state = if signals.share >= plan.share {
            WindowState::Alert
        } else {
            WindowState::Ok
        };
    }
    row.signals = serde_json::to_value(&signals).unwrap_or_default();
    (row, summary)
}

fn performance(
    ctx: &Context,
    endpoint: &EndpointName,
    range: (Timestamp, Timestamp),
    reference: Option<&Reference>,
    baseline: Option<VersionNumber>,
    joined: &Joined,
) -> Judged {
    let plan = &ctx.spec.monitors.performance;
    let metric = plan
        .metric
        .or_else(|| ctx.spec.metrics().first().copied())
        .unwrap_or(Metric::LogLoss);
    let mut row = window(ctx, endpoint, "performance", range, reference);
    let task = ctx.spec.label.task;
    let served = measured(metric, task, joined, join::served_score);
    let frozen = measured(metric, task, joined, |b, i| frozen_score(b, i, baseline));
    let expected = reference.and_then(|r| {
        let value = r.row.metrics["holdout"][metric.name()].clone();
        serde_json::from_value::<Measured>(value).ok()
    });
    let version = reference.map(|r| r.version);
    let own = version.and_then(|v| {
        measured(metric, task, joined, |b, i| {
            (b.versions[i] == v).then(|| b.scores.row(i))
        })
    });
    let labels = own.map_or(0, |(_, n)| n);
    let mut summary = String::new();
    if let (Some((own, labels)), Some(expected)) = (own, expected)
        && labels >= plan.min_labels
    {
        let sign = if metric.higher_is_better() { 1.0 } else { -1.0 };
        let drop = sign * (expected.value - own.value);
        let error = own
            .std_error
            .unwrap_or(0.0)
            .hypot(expected.std_error.unwrap_or(0.0));
        let bad = drop - Z * error > plan.max_drop;
        row.state = if bad { WindowState::Alert } else { WindowState::Ok };
        summary = format!(
            "{} is {:.3} on {labels} labelled predictions, {:.3} at evaluation (drop {drop:.3}, tolerated {})",
            metric.name(),
            own.value,
            expected.value,
            plan.max_drop
        );
    }
    row.signals = json!({
        "metric": metric,
        "served": served.map(|s| s.0),
        "frozen": frozen.map(|s| s.0),
        "champion": own.map(|s| s.0),
        "expected": expected,
        "labels": joined.labelled(),
        "champion_labels": labels,
        "predictions": joined.predictions(),
    });
    (row, summary)
}

/// What the first version would have said; before there was one, what was served.
pub(crate) fn frozen_score(
    batch: &PredictionBatch,
    row: usize,
    baseline: Option<VersionNumber>,
) -> Option<&[f64]> {
    // What was served is measured on the same rows.
    if batch.roles[row] == Role::Abstained {
        return None;
    }
    let found = baseline.and_then(|v| join::score_of(batch, row, v));
    found.or_else(|| (batch.roles[row] == Role::Default).then(|| batch.scores.row(row)))
}

pub(crate) fn measured<'a>(
    metric: Metric,
    task: Task,
    joined: &'a Joined,
    pick: impl Fn(&'a PredictionBatch, usize) -> Option<&'a [f64]>,
) -> Option<(Measured, u64)> {
    let (labels, scores) = joined.scored(task, pick)?;
    Some((value_of(metric, &labels, &scores).ok()?, labels.rows() as u64))
}

fn outcome_window(
    ctx: &Context,
    endpoint: &EndpointName,
    range: (Timestamp, Timestamp),
    reference: Option<&Reference>,
    plan: &OutcomeMonitor,
    joined: &Joined,
) -> Judged {
    let mut row = window(ctx, endpoint, "outcome", range, reference);
    let worth = outcome_of(plan, joined);
    if worth.is_some() {
        row.state = WindowState::Ok;
    }
    row.signals =
        json!({ "name": plan.name, "total": worth.map(|w| w.0), "predictions": worth.map(|w| w.1) });
    (row, String::new())
}

/// The worth of labelled predictions as served, and how many they were.
pub(crate) fn outcome_of(plan: &OutcomeMonitor, joined: &Joined) -> Option<(f64, u64)> {
    let (labels, scores) = joined.scored(Task::Binary, |b, i| Some(b.scores.row(i)))?;
    let tidemill_core::frame::Labels::Binary(labels) = labels else {
        return None;
    };
    let total = labels
        .iter()
        .zip(scores.values())
        .map(|(label, score)| match (*score >= plan.threshold, label) {
            (true, true) => plan.true_positive,
            (true, false) => plan.false_positive,
            (false, true) => plan.false_negative,
            (false, false) => plan.true_negative,
        })
        .sum();
    Some((total, labels.len() as u64))
}

/// Names of the features by their latest drift score, for reports.
pub(crate) fn drift_scores(
    signals: &Value,
    method: tidemill_core::spec::DriftMethod,
) -> BTreeMap<String, f64> {
    let Ok(parsed) = serde_json::from_value::<crate::monitor::signals::DriftSignals>(signals.clone()) else {
        return BTreeMap::new();
    };
    parsed
        .columns
        .into_iter()
        .filter_map(|(name, s)| Some((name, s.deciding(method)?)))
        .collect()
}
