//! The Parquet file of a snapshot: features, label, time, prediction id.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidemill_core::clock::Timestamp;
use tidemill_core::frame::{Column, Frame};
use tidemill_core::ids::PredictionId;
use tidemill_core::snapshot::SnapshotManifest;

use crate::columns::{LabelColumn, to_column, to_dictionary, to_micros};
use crate::error::{DataError, Result};
use crate::parquet_file::properties;

/// Rows a row group: small enough to keep the writer's memory low, large enough for good compression.
const ROW_GROUP: usize = 128 * 1024;

fn array_of(column: &Column) -> Result<ArrayRef> {
    Ok(match column {
        Column::Numeric(values) => Arc::new(
            values
                .iter()
                .map(|v| Some(*v).filter(|v| !v.is_nan()))
                .collect::<Float64Array>(),
        ),
        Column::Categorical(values) => Arc::new(to_dictionary(values.iter().map(|v| v.as_deref()))?),
    })
}

/// The labels as an array: booleans, numbers or texts.
pub fn array_of_labels(labels: &LabelColumn) -> Result<ArrayRef> {
    Ok(match labels {
        LabelColumn::Binary(rows) => Arc::new(BooleanArray::from(rows.clone())),
        LabelColumn::Regression(rows) => Arc::new(Float64Array::from(rows.clone())),
        LabelColumn::Multiclass(rows) => Arc::new(to_dictionary(rows.iter().map(|v| v.as_deref()))?),
    })
}

/// The rows as Arrow columns: features, label, and where there are any, time and prediction id.
pub fn to_batch(
    features: &Frame,
    label: (&str, &LabelColumn),
    time: Option<(&str, &[Option<i64>])>,
    prediction_ids: Option<&[Option<PredictionId>]>,
) -> Result<RecordBatch> {
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (feature, column) in features.schema().features.iter().zip(features.columns()) {
        columns.push((feature.name.clone(), array_of(column)?));
    }
    columns.push((label.0.to_owned(), array_of_labels(label.1)?));
    if let Some((name, times)) = time {
        let times = TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC");
        columns.push((name.to_owned(), Arc::new(times)));
    }
    if let Some(ids) = prediction_ids {
        let ids: StringArray = ids
            .iter()
            .map(|id| id.as_ref().map(PredictionId::as_str))
            .collect();
        columns.push(("prediction_id".to_owned(), Arc::new(ids)));
    }
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(name, array.data_type().clone(), true))
        .collect();
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns.into_iter().map(|(_, array)| array).collect(),
    )?)
}

/// Writes rows as Parquet. The same rows give the same bytes.
pub fn write_file(
    features: &Frame,
    label: (&str, &LabelColumn),
    time: Option<(&str, &[Option<i64>])>,
    prediction_ids: Option<&[Option<PredictionId>]>,
) -> Result<Vec<u8>> {
    let batch = to_batch(features, label, time, prediction_ids)?;
    let properties = properties()?.set_max_row_group_row_count(Some(ROW_GROUP)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(bytes)
}

/// Reads features, labels and times (empty where the manifest names no time column).
pub fn read_file(
    manifest: &SnapshotManifest,
    parquet: Bytes,
) -> Result<(Frame, LabelColumn, Vec<Timestamp>)> {
    let broken = |what: String| {
        DataError::Stored(format!(
            "snapshot `{}` cannot be read: {what}; rebuild it",
            manifest.digest.short()
        ))
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(parquet)
        .map_err(|e| broken(e.to_string()))?
        .with_batch_size(16 * 1024)
        .build()?;
    let schema = Arc::new(manifest.features.clone());
    let mut columns: Vec<Column> = schema.features.iter().map(|f| Column::empty(f.kind)).collect();
    let mut labels = LabelColumn::empty(manifest.task);
    let mut times = Vec::new();
    for batch in reader {
        let batch = batch?;
        let column = |name: &str| {
            batch
                .column_by_name(name)
                .ok_or_else(|| broken(format!("column `{name}` is missing")))
        };
        for (feature, target) in schema.features.iter().zip(&mut columns) {
            target.append(&to_column(feature.kind, column(&feature.name)?)?)?;
        }
        labels
            .extend(column(&manifest.label)?)?
            .map_err(|bad| broken(format!("row {} has label `{}`", bad.row, bad.value)))?;
        if let Some(name) = &manifest.time {
            for time in to_micros(column(name)?)? {
                times.push(Timestamp::from_micros(time.unwrap_or_default()));
            }
        }
    }
    let features = if columns.is_empty() {
        Frame::empty(schema)
    } else {
        Frame::new(schema, columns)?
    };
    Ok((features, labels, times))
}
