//! An endpoint's intended state as pure transitions; whoever changes it stores the row and then applies the route.

use tidemill_core::clock::Timestamp;
use tidemill_core::ids::VersionNumber;
use tidemill_store::endpoints::{self, EndpointRow};
use tidemill_store::{StoreError, Tx};

/// The endpoint as it is before anything was trained or served.
pub(crate) fn fresh(name: &str, default_answer: serde_json::Value, now: Timestamp) -> EndpointRow {
    EndpointRow {
        name: name.into(),
        model: name.into(),
        champion: None,
        previous: None,
        baseline: None,
        canary: None,
        canary_share: 0.0,
        salt: String::new(),
        shadows: Vec::new(),
        generation: 0,
        updated_at: now,
        first_served_at: None,
        default_answer,
    }
}

/// Stores the intended state; returns it with its new generation.
pub(crate) fn store(
    tx: &mut Tx<'_>,
    mut row: EndpointRow,
    now: Timestamp,
) -> Result<EndpointRow, StoreError> {
    row.updated_at = now;
    row.generation = endpoints::upsert(tx, &row)?;
    Ok(row)
}

/// The permanent shadow, where it is not the champion itself.
fn baseline_shadow(row: &EndpointRow) -> Vec<VersionNumber> {
    row.baseline
        .filter(|b| Some(*b) != row.champion)
        .into_iter()
        .collect()
}

/// `version` takes over; the one in charge becomes the fallback.
pub(crate) fn promoted(mut row: EndpointRow, version: VersionNumber, keep_baseline: bool) -> EndpointRow {
    if row.champion != Some(version) {
        row.previous = row.champion;
        row.champion = Some(version);
    }
    if keep_baseline && row.baseline.is_none() {
        row.baseline = Some(version);
    }
    settled(row)
}

/// Nobody but the champion and the baseline: after a rollout ended, one way or the other.
pub(crate) fn settled(mut row: EndpointRow) -> EndpointRow {
    row.canary = None;
    row.canary_share = 0.0;
    row.salt = String::new();
    row.shadows = baseline_shadow(&row);
    row
}

/// The challenger answers nobody and is recorded for every row.
pub(crate) fn shadowing(mut row: EndpointRow, challenger: VersionNumber) -> EndpointRow {
    row.canary = None;
    row.canary_share = 0.0;
    row.shadows = baseline_shadow(&row);
    push_once(&mut row.shadows, challenger);
    row
}

/// The challenger answers `share`; both it and the champion are recorded for the rows that the other one answers.
pub(crate) fn canary(mut row: EndpointRow, challenger: VersionNumber, share: f64, salt: &str) -> EndpointRow {
    row.canary = Some(challenger);
    row.canary_share = share;
    salt.clone_into(&mut row.salt);
    row.shadows = baseline_shadow(&row);
    push_once(&mut row.shadows, challenger);
    if let Some(champion) = row.champion {
        push_once(&mut row.shadows, champion);
    }
    row
}

fn push_once(list: &mut Vec<VersionNumber>, version: VersionNumber) {
    if !list.contains(&version) {
        list.push(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_keeps_the_baseline_in_the_shadow_and_the_old_champion_as_fallback() {
        let v = VersionNumber;
        let row = promoted(
            fresh("m", serde_json::Value::Null, Timestamp::default()),
            v(1),
            true,
        );
        assert_eq!(
            (row.champion, row.baseline, row.shadows.len()),
            (Some(v(1)), Some(v(1)), 0)
        );
        let row = shadowing(row, v(2));
        assert_eq!(row.shadows, vec![v(2)]);
        let row = canary(row, v(2), 0.1, "s");
        assert_eq!((row.canary, row.shadows.clone()), (Some(v(2)), vec![v(2), v(1)]));
        let row = promoted(row, v(2), true);
        assert_eq!(
            (row.champion, row.previous, row.canary),
            (Some(v(2)), Some(v(1)), None)
        );
        assert_eq!(row.shadows, vec![v(1)], "the first version goes on as baseline");
        let row = promoted(row, v(3), true);
        assert_eq!((row.previous, row.baseline), (Some(v(2)), Some(v(1))));
    }
}
