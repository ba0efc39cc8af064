//! What starts a training run: a pure function of what has happened since the last one.

use std::str::FromStr;

use croner::Cron;
use serde::{Deserialize, Serialize};
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids::AlertId;
use tidemill_core::spec::{Spec, TriggerKind};

/// What has happened.
#[derive(Debug, Clone, Default)]
pub struct TriggerState {
    /// The endpoint has a champion.
    pub has_champion: bool,
    /// A training run is queued or running.
    pub run_open: bool,
    /// A rollout is under way: a further challenger would only get in its way.
    pub rollout_open: bool,
    /// When the endpoint first answered.
    pub first_served_at: Option<Timestamp>,
    /// When the last training run was created.
    pub last_run_at: Option<Timestamp>,
    /// When the cron schedule was last looked at.
    pub cron_checked_at: Option<Timestamp>,
    /// Alerts that nobody acted upon, oldest first: id, monitor, summary.
    pub open_alerts: Vec<(AlertId, String, String)>,
    /// The source's digest now, and when the last run was created.
    pub source: Option<(Digest, Digest)>,
    /// Labels that came since the last run.
    pub new_labels: u64,
}

/// A training run to be created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fired {
    /// `first`, `cron`, `drift`, `performance`, `new_data` or `new_labels`.
    pub kind: String,
    /// One line for people.
    pub reason: String,
    /// The alert that did it.
    pub alert: Option<AlertId>,
}

/// Whether a training run is due at `now`. At most one fires; the rest waits or cools down.
pub fn decide(spec: &Spec, state: &TriggerState, now: Timestamp) -> Option<Fired> {
    if state.run_open {
        return None;
    }
    if !state.has_champion {
        return first(spec, state, now);
    }
    if let Some(fired) = cron(spec, state, now) {
        return Some(fired);
    }
    let cooling = state.last_run_at.is_some_and(|last| now - last < spec.cooldown);
    if cooling || state.rollout_open {
        return None;
    }
    spec.triggers.iter().find_map(|trigger| match trigger.on {
        TriggerKind::Drift => from_alert(state, "drift"),
        TriggerKind::Performance => from_alert(state, "performance"),
        TriggerKind::NewData => state
            .source
            .filter(|(current, last)| current != last)
            .map(|(current, _)| Fired {
                kind: "new_data".into(),
                reason: format!("the source changed (digest {})", current.short()),
                alert: None,
            }),
        TriggerKind::NewLabels => trigger
            .count
            .filter(|count| state.new_labels >= *count)
            .map(|count| Fired {
                kind: "new_labels".into(),
                reason: format!("{} new labels, {count} asked for", state.new_labels),
                alert: None,
            }),
        TriggerKind::Manual | TriggerKind::Cron => None,
    })
}

fn first(spec: &Spec, state: &TriggerState, now: Timestamp) -> Option<Fired> {
    let after = spec.training.first_after?;
    let since = state.first_served_at?;
    // A first training that failed is tried again after the cool-down, not at every tick.
    if state.last_run_at.is_some_and(|last| now - last < spec.cooldown) {
        return None;
    }
    (now - since >= after).then(|| Fired {
        kind: "first".into(),
        reason: format!("no model yet, and {after} of traffic collected"),
        alert: None,
    })
}

fn from_alert(state: &TriggerState, monitor: &str) -> Option<Fired> {
    let (id, _, summary) = state.open_alerts.iter().find(|(_, m, _)| m == monitor)?;
    Some(Fired {
        kind: monitor.to_owned(),
        reason: summary.clone(),
        alert: Some(id.clone()),
    })
}

/// The schedule fired between the last look and now. A person's schedule is kept whatever the cool-down says.
fn cron(spec: &Spec, state: &TriggerState, now: Timestamp) -> Option<Fired> {
    let checked = state.cron_checked_at?;
    spec.triggers
        .iter()
        .filter(|t| t.on == TriggerKind::Cron)
        .find_map(|trigger| {
            let schedule = trigger.schedule.as_deref()?;
            let due = next_cron(schedule, checked)?;
            (due <= now).then(|| Fired {
                kind: "cron".into(),
                reason: format!("schedule `{schedule}`"),
                alert: None,
            })
        })
}

/// The first time after `after` at which the schedule fires, in UTC.
pub fn next_cron(schedule: &str, after: Timestamp) -> Option<Timestamp> {
    let cron = Cron::from_str(schedule).ok()?;
    let start = chrono::DateTime::from_timestamp_micros(after.as_micros())?;
    let next = cron.find_next_occurrence(&start, false).ok()?;
    Some(Timestamp::from_micros(next.timestamp_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_core::spec::{Span, parse};

    fn spec(extra: &str) -> Spec {
        let text = format!(
            "name: m\ndata:\n  source: a.csv\nlabel:\n  name: y\n  task: binary\nfeatures:\n  x: numeric\ncooldown: 10d\n{extra}"
        );
        parse(std::path::Path::new("tidemill.yaml"), &text).unwrap()
    }

    fn at(day: i64) -> Timestamp {
        Timestamp::from_micros(0) + Span::days(day)
    }

    fn served() -> TriggerState {
        TriggerState {
            has_champion: true,
            first_served_at: Some(at(0)),
            last_run_at: Some(at(0)),
            ..TriggerState::default()
        }
    }

    fn alert(monitor: &str) -> (AlertId, String, String) {
        (
            AlertId::from("a1"),
            monitor.to_owned(),
            "psi of temp is 1.2".to_owned(),
        )
    }

    #[test]
    fn a_drift_alert_starts_one_run_and_then_the_cool_down_holds() {
        let spec = spec("triggers:\n- on: drift\n");
        let mut state = TriggerState {
            open_alerts: vec![alert("drift")],
            ..served()
        };
        assert_eq!(decide(&spec, &state, at(5)), None, "still cooling down");
        let fired = decide(&spec, &state, at(10)).unwrap();
        assert_eq!(
            (fired.kind.as_str(), fired.alert),
            ("drift", Some(AlertId::from("a1")))
        );
        state.run_open = true;
        assert_eq!(decide(&spec, &state, at(11)), None);
        state = TriggerState {
            last_run_at: Some(at(10)),
            run_open: false,
            rollout_open: true,
            ..state
        };
        assert_eq!(decide(&spec, &state, at(25)), None, "a rollout is under way");
    }

    #[test]
    fn an_alert_without_its_trigger_starts_nothing() {
        let state = TriggerState {
            open_alerts: vec![alert("performance")],
            ..served()
        };
        assert_eq!(decide(&spec("triggers:\n- on: drift\n"), &state, at(30)), None);
    }

    #[test]
    fn the_first_model_waits_for_its_traffic() {
        let spec = spec("training:\n  first_after: 59d\n");
        let state = TriggerState {
            first_served_at: Some(at(0)),
            ..TriggerState::default()
        };
        assert_eq!(decide(&spec, &state, at(58)), None);
        assert_eq!(decide(&spec, &state, at(59)).unwrap().kind, "first");
        assert_eq!(
            decide(&spec, &TriggerState::default(), at(59)),
            None,
            "nothing was served"
        );
    }

    #[test]
    fn a_schedule_fires_once_for_each_due_time_and_ignores_the_cool_down() {
        let spec = spec("triggers:\n- on: cron\n  schedule: \"0 3 1 * *\"\n");
        let mut state = TriggerState {
            cron_checked_at: Some(at(20)),
            last_run_at: Some(at(28)),
            ..served()
        };
        assert_eq!(decide(&spec, &state, at(30)), None);
        assert_eq!(decide(&spec, &state, at(32)).unwrap().kind, "cron");
        state.cron_checked_at = Some(at(32));
        assert_eq!(decide(&spec, &state, at(33)), None);
    }

    proptest! {
        /// However alerts, labels and data come, two runs are never closer than the cool-down (cron apart).
        #[test]
        fn runs_keep_their_distance(days in prop::collection::vec((any::<bool>(), 0u64..400), 1..120)) {
            let spec = spec("triggers:\n- on: drift\n- on: new_labels\n  count: 300\n");
            let mut state = served();
            let mut runs = Vec::new();
            for (day, (drifted, labels)) in days.into_iter().enumerate() {
                let now = at(day as i64);
                state.open_alerts = if drifted { vec![alert("drift")] } else { vec![] };
                state.new_labels = labels;
                if decide(&spec, &state, now).is_some() {
                    state.last_run_at = Some(now);
                    runs.push(day);
                }
            }
            prop_assert!(runs.windows(2).all(|pair| pair[1] - pair[0] >= 10));
        }
    }
}
