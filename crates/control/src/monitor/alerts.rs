//! From a window's state to alerts: one is raised when a monitor first goes bad, and not again within the cool-down.

use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{AlertId, EndpointName, derived};
use tidemill_core::spec::Span;
use tidemill_store::alerts::{self, AlertRow, AlertState};
use tidemill_store::windows::{WindowRow, WindowState};
use tidemill_store::{StoreError, Tx};

/// What a window means for the alerts of its monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Raise a new one.
    Raise,
    /// The open one is over: the monitor is well again and nothing was started.
    Expire,
    /// Nothing.
    None,
}

/// A pure decision: what the window's state means, given the monitor's last alert.
pub(crate) fn decide(
    state: WindowState,
    last: Option<(AlertState, Timestamp)>,
    cooldown: Span,
    now: Timestamp,
) -> Change {
    match (state, last) {
        (WindowState::Alert, Some((AlertState::Open, _))) => Change::None,
        (WindowState::Alert, Some((_, at))) if now - at < cooldown => Change::None,
        (WindowState::Alert, _) => Change::Raise,
        (WindowState::Ok, Some((AlertState::Open, _))) => Change::Expire,
        _ => Change::None,
    }
}

/// Applies [`decide`] in the window's own transaction.
pub(crate) fn apply(
    tx: &mut Tx<'_>,
    window: &WindowRow,
    summary: &str,
    cooldown: Span,
    now: Timestamp,
) -> Result<(), StoreError> {
    let last = alerts::last(tx, &window.endpoint, &window.monitor)?;
    match decide(
        window.state,
        last.as_ref().map(|a| (a.state, a.at)),
        cooldown,
        now,
    ) {
        Change::None => {}
        Change::Expire => {
            if let Some(last) = last {
                alerts::set_state(tx, &last.id, AlertState::CooledDown, None)?;
            }
        }
        Change::Raise => {
            let alert = AlertRow {
                id: id_of(&window.endpoint, &window.monitor, window.until),
                endpoint: window.endpoint.clone(),
                monitor: window.monitor.clone(),
                at: now,
                window_until: window.until,
                summary: summary.to_owned(),
                signals: window.signals.clone(),
                state: AlertState::Open,
                run: None,
            };
            if alerts::insert(tx, &alert)? {
                let payload = serde_json::json!({ "monitor": window.monitor, "endpoint": window.endpoint, "summary": summary });
                tx.event(now, "alert.raised", "alert", alert.id.as_str(), payload)?;
            }
        }
    }
    Ok(())
}

/// The same window always gives the same alert, so computing it twice raises one.
fn id_of(endpoint: &EndpointName, monitor: &str, until: Timestamp) -> AlertId {
    AlertId::new(derived(until, [endpoint.as_str().as_bytes(), monitor.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_raised_once_expires_when_well_and_cools_down() {
        let t = |days| Timestamp::from_micros(0) + Span::days(days);
        let cooldown = Span::days(10);
        let at = |state, last, day| decide(state, last, cooldown, t(day));
        assert_eq!(at(WindowState::Alert, None, 0), Change::Raise);
        assert_eq!(
            at(WindowState::Alert, Some((AlertState::Open, t(0))), 30),
            Change::None
        );
        assert_eq!(
            at(WindowState::Ok, Some((AlertState::Open, t(0))), 3),
            Change::Expire
        );
        assert_eq!(
            at(WindowState::Alert, Some((AlertState::Triggered, t(0))), 9),
            Change::None
        );
        assert_eq!(
            at(WindowState::Alert, Some((AlertState::Triggered, t(0))), 10),
            Change::Raise
        );
        assert_eq!(at(WindowState::Insufficient, None, 1), Change::None);
    }
}
