//! Batches to Parquet.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Float64Builder, Int32Array, Int32Builder, Int64Array, Int64Builder, ListBuilder,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use tidemill_core::frame::{Column, FeatureSchema, Scores};
use tidemill_core::predictions::{BatchShape, PredictionBatch};

use super::{Description, Layout, METADATA_KEY};
use crate::columns::to_dictionary;
use crate::error::{DataError, Result};
use crate::parquet_file::properties;

/// One row of the file: a batch and a row of it, or a batch without rows.
type Place = (usize, Option<usize>);

/// A file of batches in the making.
pub struct Writer {
    shape: BatchShape,
    /// Of the first batch.
    schema: Option<Arc<FeatureSchema>>,
    layouts: Vec<Layout>,
    /// Batches written so far.
    written: usize,
    file: Option<ArrowWriter<Vec<u8>>>,
}

impl Writer {
    pub fn new(shape: BatchShape) -> Self {
        Self {
            shape,
            schema: None,
            layouts: Vec::new(),
            written: 0,
            file: None,
        }
    }

    /// Appends batches.
    pub fn push(&mut self, batches: &[PredictionBatch]) -> Result<()> {
        let Some(first) = batches.first() else {
            return Ok(());
        };
        let schema = self
            .schema
            .get_or_insert_with(|| Arc::clone(first.features.schema()));
        let mut places: Vec<Place> = Vec::new();
        for (b, batch) in batches.iter().enumerate() {
            check(batch, schema, self.shape)?;
            for scores in std::iter::once(&batch.scores).chain(batch.shadows.iter().map(|s| &s.scores)) {
                let known = self.layouts.iter().any(|layout| layout.is_of(scores));
                if !known {
                    self.layouts.push(Layout::of(scores));
                }
            }
            if batch.rows() == 0 {
                places.push((b, None));
            }
            places.extend((0..batch.rows()).map(|row| (b, Some(row))));
        }
        let source = Source {
            batches,
            places: &places,
            layouts: &self.layouts,
            first: self.written,
        };
        self.written += batches.len();
        let columns = columns(&source, self.shape)?;
        self.write(columns)
    }

    fn write(&mut self, columns: Vec<(String, ArrayRef)>) -> Result<()> {
        let field = |(name, array): &(String, ArrayRef)| Field::new(name, array.data_type().clone(), true);
        let fields: Vec<Field> = columns.iter().map(field).collect();
        let schema = Arc::new(Schema::new(fields));
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        let rows = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let properties = properties()?.build();
                self.file
                    .insert(ArrowWriter::try_new(Vec::new(), schema, Some(properties))?)
            }
        };
        Ok(file.write(&rows)?)
    }

    /// The whole file.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        if self.file.is_none() {
            let empty = Source {
                batches: &[],
                places: &[],
                layouts: &[],
                first: 0,
            };
            self.write(columns(&empty, self.shape)?)?;
        }
        let Some(mut file) = self.file else {
            return Ok(Vec::new());
        };
        let description = Description {
            schema: self
                .schema
                .map(|schema| schema.as_ref().clone())
                .unwrap_or_default(),
            layouts: self.layouts,
        };
        file.append_key_value_metadata(KeyValue::new(
            METADATA_KEY.to_owned(),
            serde_json::to_string(&description)?,
        ));
        Ok(file.into_inner()?)
    }
}

/// Writes batches as one Parquet file.
#[cfg(test)]
pub fn encode(batches: &[PredictionBatch]) -> Result<Vec<u8>> {
    let mut writer = Writer::new(BatchShape::of(batches));
    writer.push(batches)?;
    writer.finish()
}

/// What one part of the file is made from.
struct Source<'a> {
    batches: &'a [PredictionBatch],
    places: &'a [Place],
    layouts: &'a [Layout],
    /// The number of the first batch in the file.
    first: usize,
}

fn check(batch: &PredictionBatch, schema: &FeatureSchema, shape: BatchShape) -> Result<()> {
    let refuse = |what: String| {
        Err(DataError::Predictions(format!(
            "the batch of request `{}` cannot be written: {what}",
            batch.request_id
        )))
    };
    if **batch.features.schema() != *schema {
        return refuse(
            "its features differ from those of the first batch; write batches of unlike features to files of their own"
                .to_owned(),
        );
    }
    if (shape.single && batch.scores.width() != 1) || (!shape.shadows && !batch.shadows.is_empty()) {
        return refuse("its answers have another shape than the file's".to_owned());
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

fn columns(source: &Source<'_>, shape: BatchShape) -> Result<Vec<(String, ArrayRef)>> {
    let Source {
        batches,
        places,
        layouts,
        first,
    } = *source;
    let of = |place: &Place| &batches[place.0];
    let layout_of =
        |scores: &Scores| -> u16 { layouts.iter().position(|l| l.is_of(scores)).unwrap_or(0) as u16 };
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
        Arc::new(
            places
                .iter()
                .map(|p| Some((first + p.0) as i64))
                .collect::<Int64Array>(),
        ),
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
                .map(|p| p.1.map(|row| i64::from(of(p).versions[row].0)))
                .collect::<Int64Array>(),
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
                .map(|p| Some(of(p).latency_us as i64))
                .collect::<Int64Array>(),
        ),
    );
    add(
        "layout",
        Arc::new(
            places
                .iter()
                .map(|p| Some(i32::from(layout_of_batch[p.0])))
                .collect::<Int32Array>(),
        ),
    );
    if shape.single {
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
    if shape.shadows {
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
    let mut versions = ListBuilder::new(Int64Builder::new());
    let mut layouts = ListBuilder::new(Int32Builder::new());
    let mut scores = ListBuilder::new(Float64Builder::new());
    for place in places {
        for shadow in &batches[place.0].shadows {
            versions.values().append_value(i64::from(shadow.version.0));
            layouts
                .values()
                .append_value(i32::from(layout_of(&shadow.scores)));
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
