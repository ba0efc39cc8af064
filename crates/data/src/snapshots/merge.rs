//! Served rows with their labels, and how they join the rows of the source.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_core::frame::{Column, Frame};
use tidemill_core::ids::PredictionId;
use tidemill_core::ports::ServedLabel;
use tidemill_core::predictions::{LabelValue, PredictionBatch};
use tidemill_core::spec::Spec;

use crate::columns::LabelColumn;
use crate::error::{DataError, Result};
use crate::rows::Rows;

/// The rows of a snapshot.
#[derive(Clone)]
pub struct SnapshotRows {
    /// The model's inputs.
    pub features: Frame,
    /// What was true.
    pub labels: LabelColumn,
    /// The time of each row, microseconds.
    pub times: Vec<Option<i64>>,
    /// Which prediction a row was, if it was served.
    pub prediction_ids: Vec<Option<PredictionId>>,
}

impl SnapshotRows {
    /// What the file calls its time column, see [`time_name`]; `None` if some rows have no time.
    pub fn time_name(&self, spec: &Spec) -> Option<String> {
        let all_served = self.prediction_ids.iter().all(Option::is_some);
        time_name(spec).filter(|_| all_served || spec.data.time.is_some())
    }

    /// The rows by time; equal times keep their order.
    pub fn sorted(self) -> Self {
        if self.times.is_sorted() {
            return self;
        }
        let mut order: Vec<usize> = (0..self.labels.len()).collect();
        order.sort_by_key(|&i| self.times[i]);
        Self {
            features: self.features.take(&order),
            labels: self.labels.take(&order),
            times: order.iter().map(|&i| self.times[i]).collect(),
            prediction_ids: order.iter().map(|&i| self.prediction_ids[i].clone()).collect(),
        }
    }
}

/// The time column of served rows: as the spec says, else `time`, unless something else has that name.
pub fn time_name(spec: &Spec) -> Option<String> {
    spec.data.time.clone().or_else(|| {
        let is_free = spec.label.name != "time" && !spec.features.contains_key("time");
        is_free.then(|| "time".to_owned())
    })
}

/// The served rows that have a label, sorted by time and prediction id; the last label of a prediction counts.
pub fn served_rows(
    spec: &Spec,
    batches: &[Arc<PredictionBatch>],
    labels: &[ServedLabel],
) -> Result<SnapshotRows> {
    let schema = Arc::new(spec.feature_schema());
    let known: HashMap<&PredictionId, &LabelValue> =
        labels.iter().map(|l| (&l.prediction_id, &l.value)).collect();
    let mut order: Vec<(i64, &PredictionId, usize, usize)> = Vec::new();
    for (b, batch) in batches.iter().enumerate() {
        for (row, id) in batch.ids.iter().enumerate() {
            if known.contains_key(id) {
                order.push((batch.at.as_micros(), id, b, row));
            }
        }
    }
    order.sort();
    order.dedup_by(|a, b| a.1 == b.1);
    let mut columns: Vec<Column> = Vec::with_capacity(schema.features.len());
    for feature in &schema.features {
        let mut column = Column::empty(feature.kind);
        for &(_, id, b, row) in &order {
            let batch = &batches[b];
            let unfit = || {
                DataError::Spec(format!(
                    "prediction `{id}` of {} was served without feature `{}` as the spec declares it now; \
                     build the snapshot from predictions that were served with the present features",
                    batch.at, feature.name
                ))
            };
            let served = batch.features.column(&feature.name).ok_or_else(unfit)?;
            match (&mut column, served) {
                (Column::Numeric(to), Column::Numeric(from)) => to.push(from[row]),
                (Column::Categorical(to), Column::Categorical(from)) => to.push(from[row].clone()),
                _ => return Err(unfit()),
            }
        }
        columns.push(column);
    }
    let mut truth = LabelColumn::empty(spec.label.task);
    for &(_, id, _, _) in &order {
        truth
            .push(known.get(id).copied())
            .map_err(|bad| DataError::BadValue {
                place: format!("the label of prediction `{id}`"),
                value: bad.value,
                problem: format!(
                    "does not answer a {:?} task; expected {}",
                    spec.label.task, bad.expected
                ),
            })?;
    }
    Ok(SnapshotRows {
        features: Frame::new(schema, columns)?,
        labels: truth,
        times: order.iter().map(|o| Some(o.0)).collect(),
        prediction_ids: order.iter().map(|o| Some(o.1.clone())).collect(),
    })
}

/// Source rows, then served rows. Without a time column in the spec, served rows lose theirs: half a time column helps nobody.
pub fn merge(spec: &Spec, source: Rows, served: SnapshotRows) -> Result<SnapshotRows> {
    let source_rows = source.labels.len();
    let mut merged = SnapshotRows {
        features: source.features,
        labels: source.labels,
        times: source.times,
        prediction_ids: vec![None; source_rows],
    };
    if source_rows == 0 {
        return Ok(served);
    }
    if served.labels.len() > 0 {
        merged.features.append(&served.features)?;
        merged.labels.append(served.labels);
        if spec.data.time.is_some() {
            merged.times.extend(served.times);
        } else {
            merged.times.resize(merged.labels.len(), None);
        }
        merged.prediction_ids.extend(served.prediction_ids);
    }
    Ok(merged)
}
