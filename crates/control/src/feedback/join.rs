//! Predictions with their labels, as known at a given time.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_core::clock::Timestamp;
use tidemill_core::frame::{Labels, Scores, Task};
use tidemill_core::ids::{EndpointName, PredictionId, VersionNumber};
use tidemill_core::ports::ServedLabel;
use tidemill_core::predictions::{LabelValue, PredictionBatch, Role};
use tidemill_core::spec::OnTimeout;
use tidemill_store::labels;

use crate::context::Context;
use crate::error::Result;

/// Labelled rows of a stretch of time, batch by batch.
pub(crate) struct Joined {
    /// The batches.
    pub(crate) batches: Vec<Arc<PredictionBatch>>,
    /// For each batch: the rows with a label, and the label.
    pub(crate) rows: Vec<Vec<(usize, LabelValue)>>,
}

impl Joined {
    /// Predictions in all.
    pub(crate) fn predictions(&self) -> u64 {
        self.batches.iter().map(|b| b.rows() as u64).sum()
    }

    /// Of these, labelled.
    pub(crate) fn labelled(&self) -> u64 {
        self.rows.iter().map(|r| r.len() as u64).sum()
    }

    /// The labelled rows' labels and the scores that `pick` finds for them; a row for which it finds none is left out.
    pub(crate) fn scored<'a>(
        &'a self,
        task: Task,
        pick: impl Fn(&'a PredictionBatch, usize) -> Option<&'a [f64]>,
    ) -> Option<(Labels, Scores)> {
        let template = self.batches.first()?.scores.with_values(Vec::new());
        let classes: Arc<[String]> = match &template {
            Scores::Multiclass { classes, .. } => Arc::clone(classes),
            _ => Arc::from([]),
        };
        let (mut values, mut binary, mut numbers, mut indices) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (batch, rows) in self.batches.iter().zip(&self.rows) {
            for (row, label) in rows {
                let Some(score) = pick(batch, *row) else { continue };
                match task {
                    Task::Binary => match label.as_bool() {
                        Some(b) => binary.push(b),
                        None => continue,
                    },
                    Task::Regression => match label.as_number() {
                        Some(n) => numbers.push(n),
                        None => continue,
                    },
                    Task::Multiclass => {
                        let class = label.as_class();
                        match classes.iter().position(|c| *c == class) {
                            Some(index) => indices.push(index),
                            None => continue,
                        }
                    }
                }
                values.extend_from_slice(score);
            }
        }
        let labels = match task {
            Task::Binary => Labels::Binary(binary),
            Task::Regression => Labels::Regression(numbers),
            Task::Multiclass => Labels::Multiclass { classes, indices },
        };
        (labels.rows() > 0).then(|| (labels, template.with_values(values)))
    }

    /// The labels alone, for a snapshot.
    pub(crate) fn served_labels(&self) -> Vec<ServedLabel> {
        let mut all = Vec::new();
        for (batch, rows) in self.batches.iter().zip(&self.rows) {
            for (row, value) in rows {
                all.push(ServedLabel {
                    prediction_id: batch.ids[*row].clone(),
                    value: value.clone(),
                });
            }
        }
        all
    }
}

/// What `version` said of a row: as the answer, or as a shadow.
pub(crate) fn score_of(batch: &PredictionBatch, row: usize, version: VersionNumber) -> Option<&[f64]> {
    if batch.versions[row] == version {
        return Some(batch.scores.row(row));
    }
    let shadow = batch.shadows.iter().find(|s| s.version == version)?;
    // It was not asked of this row.
    (!shadow.scores.is_abstained(row)).then(|| shadow.scores.row(row))
}

/// What was served; `None` where nobody answered.
pub(crate) fn served_score(batch: &PredictionBatch, row: usize) -> Option<&[f64]> {
    (batch.roles[row] != Role::Abstained).then(|| batch.scores.row(row))
}

/// Joins the predictions of `[from, until)` with the labels known at `as_of`. The compaction must have passed `until`.
pub(crate) async fn joined(
    ctx: &Context,
    endpoint: &EndpointName,
    from: Timestamp,
    until: Timestamp,
    as_of: Timestamp,
) -> Result<Joined> {
    let batches = ctx.predictions.between(endpoint, from, until).await?;
    let label = ctx.spec.label.name.clone();
    let ids: Vec<PredictionId> = batches
        .iter()
        .flat_map(|batch| batch.ids.iter().cloned())
        .collect();
    let known: HashMap<PredictionId, LabelValue> = ctx
        .store
        .read(move |tx| labels::labels_of(tx, &ids, &label, as_of))
        .await?
        .into_iter()
        .map(|row| (row.prediction_id, row.value))
        .collect();
    let negative = ctx.spec.label.on_timeout == OnTimeout::Negative;
    let rows = batches
        .iter()
        .map(|batch| {
            let timed_out = negative && batch.at + ctx.spec.label.horizon <= as_of;
            batch
                .ids
                .iter()
                .enumerate()
                .filter_map(|(row, id)| match known.get(id) {
                    Some(value) => Some((row, value.clone())),
                    None => timed_out.then_some((row, LabelValue::Bool(false))),
                })
                .collect()
        })
        .collect();
    Ok(Joined { batches, rows })
}
