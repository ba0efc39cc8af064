//! An endpoint's life as the page and the demo's table show it: month by month, window by window, event by event.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::spec::{DriftMethod, Metric, Span};
use tidemill_store::endpoints::EndpointRow;
use tidemill_store::windows::{self, WindowRow, WindowState};
use tidemill_store::{endpoints, events};

use crate::context::Context;
use crate::error::{ControlError, Result};
use crate::feedback::join;
use crate::monitor::windows::{drift_scores, frozen_score, measured, outcome_of};
use crate::view::{DriftPoint, Month, PerformancePoint, Timeline, TimelineEvent};

/// Windows and events shown at most; more would not fit a screen.
const LIMIT: u32 = 5_000;

/// The monitor's name under which finished months are stored.
const MONTH: &str = "month";

/// The months that are not over yet, as last measured.
#[derive(Default)]
pub(crate) struct MonthMemo {
    months: Mutex<BTreeMap<String, (Timestamp, Month)>>,
}

/// Assembles the timeline.
pub(crate) async fn timeline(ctx: &Context, memo: &MonthMemo) -> Result<Timeline> {
    let name = ctx.endpoint();
    let (endpoint, all, events) = ctx
        .store
        .read(move |tx| {
            let endpoint = endpoints::get(tx, &name)?;
            let windows = windows::list(tx, &name, None, Timestamp::default(), LIMIT)?;
            let mut events = events::recent(tx, LIMIT)?;
            events.reverse();
            Ok((endpoint, windows, events))
        })
        .await?;
    let events: Vec<TimelineEvent> = events
        .into_iter()
        .filter(|e| e.kind != "window.closed" && e.kind != "run.queued")
        .map(described)
        .collect();
    let metric = leading(ctx);
    let plan = &ctx.spec.monitors.drift;
    let months = months(ctx, memo, &endpoint, &all, &events).await?;
    Ok(Timeline {
        endpoint: endpoint.name,
        metric: metric.name().to_owned(),
        higher_is_better: metric.higher_is_better(),
        drift_method: (method_name(plan.method).to_owned(), plan.threshold, plan.share),
        performance_window: ctx.spec.monitors.performance.window,
        months,
        performance: all
            .iter()
            .filter(|w| w.monitor == "performance")
            .map(performance_point)
            .collect(),
        drift: all
            .iter()
            .filter(|w| w.monitor == "drift")
            .map(|w| drift_point(w, plan.method))
            .collect(),
        events,
    })
}

pub(crate) fn leading(ctx: &Context) -> Metric {
    ctx.spec.metrics().first().copied().unwrap_or(Metric::LogLoss)
}

fn method_name(method: DriftMethod) -> &'static str {
    match method {
        DriftMethod::Psi => "psi",
        DriftMethod::JensenShannon => "jensen_shannon",
        DriftMethod::Wasserstein => "wasserstein",
        DriftMethod::Ks => "ks",
    }
}

fn performance_point(window: &WindowRow) -> PerformancePoint {
    let value = |key: &str| window.signals[key]["value"].as_f64();
    PerformancePoint {
        until: window.until,
        champion: value("served"),
        frozen: value("frozen"),
        labels: window.signals["labels"].as_u64().unwrap_or(0),
        version: window.version,
    }
}

fn drift_point(window: &WindowRow, method: DriftMethod) -> DriftPoint {
    DriftPoint {
        until: window.until,
        features: drift_scores(&window.signals, method),
        share: window.signals["share"].as_f64().unwrap_or(0.0),
        state: window.state.to_string(),
    }
}

/// One line for people.
pub fn described(event: events::Event) -> TimelineEvent {
    let field = |key: &str| match &event.payload[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let text = match event.kind.as_str() {
        "alert.raised" => format!("{} alert: {}", field("monitor"), field("summary")),
        "run.started" => format!("training started ({}: {})", field("trigger"), field("reason")),
        "run.finished" => format!(
            "training gave version {} (gate: {})",
            field("version"),
            field("verdict")
        ),
        "run.failed" => format!("training failed: {}", field("error")),
        "version.registered" => format!("version {} registered", field("version")),
        "gate.passed" => format!("gate passed by version {}: {}", field("version"), field("reason")),
        "gate.refused" => format!("gate refused version {}: {}", field("version"), field("reason")),
        "gate.inconclusive" => format!(
            "gate could not decide on version {}: {}",
            field("version"),
            field("reason")
        ),
        "rollout.started" => format!("version {} shadows version {}", field("to"), field("from")),
        "rollout.canary" => {
            let share = event.payload["share"].as_f64().unwrap_or(0.0) * 100.0;
            format!(
                "version {} answers {share:.0} % as canary: {}",
                field("to"),
                field("reason")
            )
        }
        "rollout.promoted" => format!("version {} is champion: {}", field("to"), field("reason")),
        "rollout.rolled_back" => format!("version {} was taken back: {}", field("to"), field("reason")),
        "rollout.superseded" => format!("rollout superseded by version {}", field("by")),
        "rollout.aborted" => format!("rollout ended by {}", field("by")),
        "version.promoted" => format!("version {} is champion: {}", field("version"), field("reason")),
        "version.rolled_back" => format!("back to version {}: {}", field("version"), field("reason")),
        "snapshot.quarantined" => format!("snapshot of {} rows quarantined", field("rows")),
        "snapshot.created" => format!("snapshot of {} rows", field("rows")),
        other => other.to_owned(),
    };
    TimelineEvent {
        seq: event.seq,
        at: event.at,
        kind: event.kind,
        text,
        subject: (event.subject_kind, event.subject),
    }
}

/// The first moment of the month after that of `t`.
fn next_month(t: Timestamp) -> Timestamp {
    let mut probe = t.floor_to(Span::DAY) + Span::DAY;
    while probe.month() == t.month() {
        probe = probe + Span::DAY;
    }
    probe
}

fn first_of_month(t: Timestamp) -> Timestamp {
    let mut probe = t.floor_to(Span::DAY);
    while (probe - Span::DAY).month() == t.month() {
        probe = probe - Span::DAY;
    }
    probe
}

/// Measures every month that is over and whose labels have matured, once, and stores it beside the other windows: later questions
/// about the year need not read it again. A label that comes or is corrected after that no longer changes its month.
pub(crate) async fn close_months(ctx: &Context) -> Result<()> {
    let name = ctx.endpoint();
    let (endpoint, last) = ctx
        .store
        .read(move |tx| Ok((endpoints::get(tx, &name)?, windows::last_until(tx, &name, MONTH)?)))
        .await?;
    let Some(first) = endpoint.first_served_at else {
        return Ok(());
    };
    let now = ctx.now();
    let mut start = last.unwrap_or_else(|| first_of_month(first));
    loop {
        let end = next_month(start);
        if end + ctx.spec.label.horizon > now {
            return Ok(());
        }
        let month = measure(
            ctx,
            &endpoint.name,
            start.month(),
            (start, end),
            endpoint.baseline,
        )
        .await?;
        let row = WindowRow {
            endpoint: endpoint.name.clone(),
            monitor: MONTH.to_owned(),
            from: start,
            until: end,
            computed_at: now,
            version: endpoint.champion.unwrap_or_default(),
            reference: None,
            signals: serde_json::to_value(&month).map_err(ControlError::internal)?,
            state: WindowState::Ok,
        };
        ctx.store.write(move |tx| windows::upsert(tx, &row)).await?;
        start = end;
    }
}

async fn months(
    ctx: &Context,
    memo: &MonthMemo,
    endpoint: &EndpointRow,
    all: &[WindowRow],
    events: &[TimelineEvent],
) -> Result<Vec<Month>> {
    let Some(first) = endpoint.first_served_at else {
        return Ok(Vec::new());
    };
    let now = ctx.now();
    let mut months: Vec<Month> = Vec::new();
    let mut start = first_of_month(first);
    for row in all.iter().filter(|w| w.monitor == MONTH) {
        months.push(serde_json::from_value(row.signals.clone()).map_err(ControlError::internal)?);
        start = row.until;
    }
    // What is not over yet is remembered for one monitoring period, which keeps a page that follows a replay cheap.
    let upto = now.floor_to(ctx.spec.monitors.every);
    while start <= now {
        let end = next_month(start);
        let key = start.month();
        let remembered = lock(memo)
            .get(&key)
            .filter(|(at, _)| *at == upto)
            .map(|(_, month)| month.clone());
        let month = match remembered {
            Some(month) => month,
            None => {
                let month =
                    measure(ctx, &endpoint.name, key.clone(), (start, end), endpoint.baseline).await?;
                lock(memo).insert(key, (upto, month.clone()));
                month
            }
        };
        months.push(month);
        start = end;
    }
    for month in &mut months {
        count_events(month, events);
    }
    Ok(months)
}

fn lock(memo: &MonthMemo) -> std::sync::MutexGuard<'_, BTreeMap<String, (Timestamp, Month)>> {
    memo.months.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn measure(
    ctx: &Context,
    endpoint: &EndpointName,
    month: String,
    range: (Timestamp, Timestamp),
    baseline: Option<VersionNumber>,
) -> Result<Month> {
    let joined = join::joined(ctx, endpoint, range.0, range.1, ctx.now()).await?;
    let (metric, task) = (leading(ctx), ctx.spec.label.task);
    let value = |found: Option<(crate::delivery::evaluation::Measured, u64)>| found.map(|(m, _)| m.value);
    Ok(Month {
        month,
        predictions: joined.predictions(),
        labels: joined.labelled(),
        frozen: value(measured(metric, task, &joined, |b, i| {
            frozen_score(b, i, baseline)
        })),
        champion: value(measured(metric, task, &joined, join::served_score)),
        retrainings: 0,
        refused: 0,
        inconclusive: 0,
        promoted: 0,
        rolled_back: 0,
        outcome: ctx
            .spec
            .monitors
            .outcome
            .as_ref()
            .and_then(|plan| outcome_of(plan, &joined))
            .map(|o| o.0),
    })
}

fn count_events(month: &mut Month, events: &[TimelineEvent]) {
    let of_month = events.iter().filter(|e| e.at.month() == month.month);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for event in of_month {
        *counts.entry(event.kind.as_str()).or_default() += 1;
    }
    let count = |kind: &str| counts.get(kind).copied().unwrap_or(0);
    month.retrainings = count("run.finished");
    month.refused = count("gate.refused");
    month.inconclusive = count("gate.inconclusive");
    month.promoted = count("rollout.promoted") + count("version.promoted");
    month.rolled_back = count("rollout.rolled_back") + count("version.rolled_back");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_and_end_at_midnight_utc() {
        let t: Timestamp = "2013-02-17T13:00:00Z".parse().unwrap();
        assert_eq!(first_of_month(t).to_string(), "2013-02-01T00:00:00Z");
        assert_eq!(next_month(t).to_string(), "2013-03-01T00:00:00Z");
        let t: Timestamp = "2013-12-31T23:59:59Z".parse().unwrap();
        assert_eq!(next_month(t).to_string(), "2014-01-01T00:00:00Z");
    }
}
