//! Batches to Parquet.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Float64Builder, ListBuilder, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt16Array, UInt16Builder, UInt32Array, UInt32Builder, UInt64Array,
};
use arrow::datatypes::{Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use tidemill_core::frame::{Column, Scores};
use tidemill_core::predictions::PredictionBatch;

use super::{Description, Layout, METADATA_KEY};
use crate::columns::to_dictionary;
use crate::error::{DataError, Result};
use crate::parquet_file::properties;

/// One row of the file: a batch and a row of it, or a batch without rows.
type Place = (usize, Option<usize>);

/// Writes batches as one Parquet file.
pub fn encode(batches: &[PredictionBatch]) -> Result<Vec<u8>> {
    let mut layouts: Vec<Layout> = Vec::new();
    let mut places: Vec<Place> = Vec::new();
    for (b, batch) in batches.iter().enumerate() {
        check(batch, &batches[0])?;
        for scores in std::iter::once(&batch.scores).chain(batch.shadows.iter().map(|s| &s.scores)) {
            let layout = Layout::of(scores);
            if !layouts.contains(&layout) {
                layouts.push(layout);
            }
        }
        if batch.rows() == 0 {
            places.push((b, None));
        }
        places.extend((0..batch.rows()).map(|row| (b, Some(row))));
    }
    let columns = columns(batches, &places, &layouts)?;
    let description = Description {
        schema: batches
            .first()
            .map(|b| b.features.schema().as_ref().clone())
            .unwrap_or_default(),
        layouts,
    };
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(name, array.data_type().clone(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let rows = RecordBatch::try_new(
        Arc::clone(&schema),
        columns.into_iter().map(|(_, array)| array).collect(),
    )?;
    let properties = properties()?
        .set_key_value_metadata(Some(vec![KeyValue::new(
            METADATA_KEY.to_owned(),
            serde_json::to_string(&description)?,
        )]))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties))?;
    writer.write(&rows)?;
    writer.close()?;
    Ok(bytes)
}

fn check(batch: &PredictionBatch, first: &PredictionBatch) -> Result<()> {
    let refuse = |what: String| {
        Err(DataError::Predictions(format!(
            "the batch of request `{}` cannot be written: {what}",
            batch.request_id
        )))
    };
    if batch.features.schema() != first.features.schema() {
        return refuse(
            "its features differ from those of the first batch; write batches of unlike features to files of their own"
                .to_owned(),
        );
    }
    let rows = batch.rows();
    let lengths = [
        ("keys", batch.keys.len()),
        ("versions", batch.versions.len()),
        ("roles", batch.roles.len()),
        ("degraded", batch.degraded.len()),
        ("scores", batch.scores.rows()),
        ("features", batch.features.rows()),
    ];
    for (name, got) in lengths {
        // A frame without columns has no rows to count.
        if got != rows && !(name == "features" && batch.features.columns().is_empty()) {
            return refuse(format!("it has {rows} predictions and {got} {name}"));
        }
    }
    for shadow in &batch.shadows {
        if shadow.scores.rows() != rows {
            return refuse(format!(
                "shadow version {} answered {} of {rows} rows",
                shadow.version,
                shadow.scores.rows()
            ));
        }
    }
    Ok(())
}

fn columns(
    batches: &[PredictionBatch],
    places: &[Place],
    layouts: &[Layout],
) -> Result<Vec<(String, ArrayRef)>> {
    let of = |place: &Place| &batches[place.0];
    let layout_of = |scores: &Scores| -> u16 {
        let wanted = Layout::of(scores);
        layouts.iter().position(|l| *l == wanted).unwrap_or(0) as u16
    };
    let layout_of_batch: Vec<u16> = batches.iter().map(|b| layout_of(&b.scores)).collect();
    let row_text = |pick: &dyn Fn(&PredictionBatch, usize) -> Option<Arc<str>>| -> ArrayRef {
        Arc::new(
            places
                .iter()
                .map(|p| p.1.and_then(|row| pick(of(p), row)))
                .collect::<StringArray>(),
        )
    };
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let mut add = |name: &str, array: ArrayRef| columns.push((name.to_owned(), array));
    add(
        "batch",
        Arc::new(places.iter().map(|p| Some(p.0 as u32)).collect::<UInt32Array>()),
    );
    add(
        "endpoint",
        Arc::new(to_dictionary(
            places.iter().map(|p| Some(of(p).endpoint.as_str())),
        )?),
    );
    add(
        "at",
        Arc::new(
            places
                .iter()
                .map(|p| Some(of(p).at.as_micros()))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
    );
    add(
        "request_id",
        Arc::new(
            places
                .iter()
                .map(|p| Some(of(p).request_id.as_str()))
                .collect::<StringArray>(),
        ),
    );
    add(
        "prediction_id",
        Arc::new(
            places
                .iter()
                .map(|p| p.1.map(|row| of(p).ids[row].as_str()))
                .collect::<StringArray>(),
        ),
    );
    add("key", row_text(&|b, row| b.keys[row].clone()));
    add(
        "version",
        Arc::new(
            places
                .iter()
                .map(|p| p.1.map(|row| of(p).versions[row].0))
                .collect::<UInt32Array>(),
        ),
    );
    add(
        "role",
        Arc::new(to_dictionary(
            places.iter().map(|p| p.1.map(|row| of(p).roles[row].name())),
        )?),
    );
    add(
        "canary_share",
        Arc::new(
            places
                .iter()
                .map(|p| Some(of(p).canary_share))
                .collect::<Float64Array>(),
        ),
    );
    add("degraded", row_text(&|b, row| b.degraded[row].clone()));
    add(
        "latency_us",
        Arc::new(
            places
                .iter()
                .map(|p| Some(of(p).latency_us))
                .collect::<UInt64Array>(),
        ),
    );
    add(
        "layout",
        Arc::new(
            places
                .iter()
                .map(|p| Some(layout_of_batch[p.0]))
                .collect::<UInt16Array>(),
        ),
    );
    if batches.iter().all(|b| b.scores.width() == 1) {
        add(
            "score",
            Arc::new(
                places
                    .iter()
                    .map(|p| p.1.map(|row| of(p).scores.row(row)[0]))
                    .collect::<Float64Array>(),
            ),
        );
    } else {
        let mut list = ListBuilder::new(Float64Builder::new());
        for place in places {
            if let Some(row) = place.1 {
                list.values().append_slice(of(place).scores.row(row));
            }
            list.append(place.1.is_some());
        }
        add("scores", Arc::new(list.finish()));
    }
    if batches.iter().any(|b| !b.shadows.is_empty()) {
        for (name, array) in shadow_columns(batches, places, &layout_of) {
            add(name, array);
        }
    }
    let Some(schema) = batches.first().map(|b| b.features.schema()) else {
        return Ok(columns);
    };
    for (i, feature) in schema.features.iter().enumerate() {
        let array: ArrayRef = match &batches[0].features.columns()[i] {
            Column::Numeric(_) => Arc::new(
                places
                    .iter()
                    .map(|p| match (p.1, &of(p).features.columns()[i]) {
                        (Some(row), Column::Numeric(values)) => Some(values[row]).filter(|v| !v.is_nan()),
                        _ => None,
                    })
                    .collect::<Float64Array>(),
            ),
            Column::Categorical(_) => Arc::new(to_dictionary(places.iter().map(|p| {
                match (p.1, &of(p).features.columns()[i]) {
                    (Some(row), Column::Categorical(values)) => values[row].as_deref(),
                    _ => None,
                }
            }))?),
        };
        columns.push((format!("f:{}", feature.name), array));
    }
    Ok(columns)
}

/// Versions, layouts and answers of the shadows of each row's batch, one after the other.
fn shadow_columns(
    batches: &[PredictionBatch],
    places: &[Place],
    layout_of: &dyn Fn(&Scores) -> u16,
) -> [(&'static str, ArrayRef); 3] {
    let mut versions = ListBuilder::new(UInt32Builder::new());
    let mut layouts = ListBuilder::new(UInt16Builder::new());
    let mut scores = ListBuilder::new(Float64Builder::new());
    for place in places {
        for shadow in &batches[place.0].shadows {
            versions.values().append_value(shadow.version.0);
            layouts.values().append_value(layout_of(&shadow.scores));
            if let Some(row) = place.1 {
                scores.values().append_slice(shadow.scores.row(row));
            }
        }
        versions.append(true);
        layouts.append(true);
        scores.append(true);
    }
    [
        ("shadow_versions", Arc::new(versions.finish())),
        ("shadow_layouts", Arc::new(layouts.finish())),
        ("shadow_scores", Arc::new(scores.finish())),
    ]
}
