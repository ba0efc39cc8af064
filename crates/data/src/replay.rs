//! Rows of a source in the order of time, for a replay of history.

use tidemill_core::clock::Timestamp;
use tidemill_core::ports::{ReplayChunk, ReplayRow};
use tidemill_core::spec::Spec;

use crate::error::{DataError, Result};
use crate::query::{SpecSource, Wanted};
use crate::rows::read_rows;

/// The rows with a time in `[from, until)`, sorted by time and key, with their labels.
///
/// A label whose time of becoming known is null was never known.
pub async fn read_replay(
    opened: &SpecSource,
    spec: &Spec,
    from: Timestamp,
    until: Timestamp,
) -> Result<ReplayChunk> {
    if opened.time.is_none() {
        return Err(DataError::Spec(
            "a replay needs `data.time`, the column that says when each row was to be predicted".to_owned(),
        ));
    }
    let wanted = Wanted {
        from: Some(from),
        until: Some(until),
        labelled_by: None,
    };
    let rows = read_rows(opened, spec, wanted).await?;
    let mut order: Vec<usize> = (0..rows.labels.len()).collect();
    order.sort_by(|&a, &b| {
        rows.times[a]
            .cmp(&rows.times[b])
            .then_with(|| rows.keys[a].cmp(&rows.keys[b]))
    });
    let meta = order
        .iter()
        .map(|&i| {
            let label_at = rows.known_at[i].map(Timestamp::from_micros);
            let label = if label_at.is_some() {
                rows.labels.get(i)
            } else {
                None
            };
            ReplayRow {
                at: Timestamp::from_micros(rows.times[i].unwrap_or_default()),
                key: rows.keys[i].clone(),
                label_at: label_at.filter(|_| label.is_some()),
                label,
            }
        })
        .collect();
    Ok(ReplayChunk {
        rows: rows.features.take(&order),
        meta,
    })
}
