//! An endpoint's life as the page and the demo's table show it: month by month, window by window, event by event.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::spec::{DriftMethod, Metric, Span};
use tidemill_store::windows::{self, WindowRow};
use tidemill_store::{endpoints, events};

use crate::context::Context;
use crate::error::Result;
use crate::feedback::join;
use crate::monitor::windows::{drift_scores, frozen_score, measured, outcome_of};
use crate::view::{DriftPoint, Month, PerformancePoint, Timeline, TimelineEvent};

/// Windows and events shown at most; more would not fit a screen.
const LIMIT: u32 = 5_000;

/// Months that are over and whose labels have matured do not change; they are remembered.
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
    let events: Vec<TimelineEvent> =
        events.into_iter().filter(|e| e.kind != "window.closed" && e.kind != "run.queued").map(described).collect();
    let metric = leading(ctx);
    let plan = &ctx.spec.monitors.drift;
    let months = months(ctx, memo, &endpoint.name, endpoint.first_served_at, endpoint.baseline, &events).await?;
    Ok(Timeline {
        endpoint: endpoint.name,
        metric: metric.name().to_owned(),
        higher_is_better: metric.higher_is_better(),
        drift_method: (method_name(plan.method).to_owned(), plan.threshold, plan.share),
        performance_window: ctx.spec.monitors.performance.window,
        months,
        performance: all.iter().filter(|w| w.monitor == "performance").map(performance_point).collect(),
        drift: all.iter().filter(|w| w.monitor == "drift").map(|w| drift_point(w, plan.method)).collect(),
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
        "run.finished" => format!("training gave version {} (gate: {})", field("version"), field("verdict")),
        "run.failed" => format!("training failed: {}", field("error")),
        "version.registered" => format!("version {} registered", field("version")),
        "gate.passed" => format!("gate passed by version {}: {}", field("version"), field("reason")),
        "gate.refused" => format!("gate refused version {}: {}", field("version"), field("reason")),
        "gate.inconclusive" => format!("gate could not decide on version {}: {}", field("version"), field("reason")),
        "rollout.started" => format!("version {} shadows version {}", field("to"), field("from")),
        "rollout.canary" => {
            let share = event.payload["share"].as_f64().unwrap_or(0.0) * 100.0;
            format!("version {} answers {share:.0} % as canary: {}", field("to"), field("reason"))
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
    TimelineEvent { seq: event.seq, at: event.at, kind: event.kind, text, subject: (event.subject_kind, event.subject) }
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

async fn months(
    ctx: &Context,
    memo: &MonthMemo,
    endpoint: &EndpointName,
    first: Option<Timestamp>,
    baseline: Option<VersionNumber>,
    events: &[TimelineEvent],
) -> Result<Vec<Month>> {
    let Some(first) = first else { return Ok(Vec::new()) };
    let now = ctx.now();
    // Monthly figures lag by at most one monitoring period, which keeps a page that follows a replay cheap.
    let upto = now.floor_to(ctx.spec.monitors.every);
    let mut start = first_of_month(first);
    let mut months = Vec::new();
    while start <= now {
        let end = next_month(start);
        let matured = end + ctx.spec.label.horizon <= now;
        let key = start.month();
        let remembered = memo.months.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let mut month = match remembered {
            Some((at, month)) if at == Timestamp::from_micros(i64::MAX) || at == upto => month,
            _ => {
                let month = measure(ctx, endpoint, key.clone(), (start, end), baseline).await?;
                let at = if matured { Timestamp::from_micros(i64::MAX) } else { upto };
                memo.months.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (at, month.clone()));
                month
            }
        };
        count_events(&mut month, events);
        months.push(month);
        start = end;
    }
    Ok(months)
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
        frozen: value(measured(metric, task, &joined, |b, i| frozen_score(b, i, baseline))),
        champion: value(measured(metric, task, &joined, |b, i| Some(b.scores.row(i)))),
        retrainings: 0,
        refused: 0,
        inconclusive: 0,
        promoted: 0,
        rolled_back: 0,
        outcome: ctx.spec.monitors.outcome.as_ref().and_then(|plan| outcome_of(plan, &joined)).map(|o| o.0),
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
