//! Parquet to batches.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidemill_core::clock::Timestamp;
use tidemill_core::frame::{Column, FeatureSchema, Frame, Scores, Task};
use tidemill_core::ids::{EndpointName, PredictionId, VersionNumber};
use tidemill_core::predictions::{PredictionBatch, Role, ShadowScores};

use super::{Description, METADATA_KEY};
use crate::columns::{to_column, to_shared_texts};
use crate::error::{DataError, Result};

/// A kind of answers with its classes shared.
enum Answers {
    Binary,
    Regression,
    Multiclass(Arc<[String]>),
}

impl Answers {
    fn width(&self) -> usize {
        match self {
            Self::Binary | Self::Regression => 1,
            Self::Multiclass(classes) => classes.len(),
        }
    }

    fn with(&self, values: Vec<f64>) -> Scores {
        match self {
            Self::Binary => Scores::Binary(values),
            Self::Regression => Scores::Regression(values),
            Self::Multiclass(classes) => Scores::Multiclass {
                classes: Arc::clone(classes),
                probabilities: values,
            },
        }
    }
}

fn broken(what: impl std::fmt::Display) -> DataError {
    DataError::Predictions(format!("these bytes are no prediction log: {what}"))
}

fn role_of(name: &str) -> Result<Role> {
    Role::named(name).ok_or_else(|| broken(format!("`{name}` is no role")))
}

/// Reads the batches that [`super::encode`] wrote.
pub fn decode(parquet: &[u8]) -> Result<Vec<PredictionBatch>> {
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(parquet)).map_err(broken)?;
    let description = builder
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .and_then(|pairs| pairs.iter().find(|p| p.key == METADATA_KEY))
        .and_then(|pair| pair.value.as_deref())
        .ok_or_else(|| broken("they do not describe themselves"))?;
    let description: Description = serde_json::from_str(description).map_err(broken)?;
    let rows = builder.metadata().file_metadata().num_rows().max(1) as usize;
    let mut reader = builder.with_batch_size(rows).build()?;
    let Some(rows) = reader.next().transpose()? else {
        return Ok(Vec::new());
    };
    File::open(&rows, &description)?.batches()
}

fn wide(array: &ArrayRef) -> Result<Vec<i64>> {
    let array = cast(array, &DataType::Int64)?;
    Ok(array.as_primitive::<Int64Type>().values().to_vec())
}

/// The columns of a file, ready to be cut into batches.
struct File<'a> {
    rows: &'a RecordBatch,
    schema: Arc<FeatureSchema>,
    answers: Vec<Answers>,
    features: Vec<Column>,
    keys: Vec<Option<Arc<str>>>,
    degraded: Vec<Option<Arc<str>>>,
    endpoints: Vec<Option<Arc<str>>>,
    roles: Vec<Option<Arc<str>>>,
}

impl<'a> File<'a> {
    fn open(rows: &'a RecordBatch, description: &Description) -> Result<Self> {
        let column = |name: &str| {
            rows.column_by_name(name)
                .ok_or_else(|| broken(format!("column `{name}` is missing")))
        };
        let features = description
            .schema
            .features
            .iter()
            .map(|f| to_column(f.kind, column(&format!("f:{}", f.name))?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            rows,
            schema: Arc::new(description.schema.clone()),
            answers: description
                .layouts
                .iter()
                .map(|layout| match layout.task {
                    Task::Binary => Answers::Binary,
                    Task::Regression => Answers::Regression,
                    Task::Multiclass => Answers::Multiclass(Arc::from(layout.classes.clone())),
                })
                .collect(),
            features,
            keys: to_shared_texts(column("key")?)?,
            degraded: to_shared_texts(column("degraded")?)?,
            endpoints: to_shared_texts(column("endpoint")?)?,
            roles: to_shared_texts(column("role")?)?,
        })
    }

    fn column(&self, name: &str) -> Result<&'a ArrayRef> {
        self.rows
            .column_by_name(name)
            .ok_or_else(|| broken(format!("column `{name}` is missing")))
    }

    fn texts(&self, name: &str) -> Result<&'a StringArray> {
        self.column(name)?
            .as_string_opt::<i32>()
            .ok_or_else(|| broken(format!("column `{name}` is no text")))
    }

    fn numbers<T: arrow::datatypes::ArrowPrimitiveType>(&self, name: &str) -> Result<&'a [T::Native]> {
        self.column(name)?
            .as_primitive_opt::<T>()
            .map(|array| -> &'a [T::Native] { array.values() })
            .ok_or_else(|| broken(format!("column `{name}` has another type")))
    }

    /// Whole numbers of any width: files of earlier versions of the program have unsigned ones.
    fn whole(&self, name: &str) -> Result<Vec<i64>> {
        wide(self.column(name)?)
    }

    fn answers(&self, layout: i64) -> Result<&Answers> {
        self.answers
            .get(usize::try_from(layout).unwrap_or(usize::MAX))
            .ok_or_else(|| broken(format!("there is no layout {layout}")))
    }

    fn batches(&self) -> Result<Vec<PredictionBatch>> {
        let numbers = self.whole("batch")?;
        let ids = self.texts("prediction_id")?;
        let request_ids = self.texts("request_id")?;
        let at = self.numbers::<TimestampMicrosecondType>("at")?;
        let versions = self.whole("version")?;
        let shares = self.numbers::<Float64Type>("canary_share")?;
        let latencies = self.whole("latency_us")?;
        let layouts = self.whole("layout")?;
        let mut batches = Vec::new();
        let mut start = 0;
        while start < numbers.len() {
            let number = numbers[start];
            let length = numbers[start..].iter().take_while(|n| **n == number).count();
            let (first, next) = (start, start + length);
            start = next;
            let span = if ids.is_null(first) {
                first..first
            } else {
                first..next
            };
            let endpoint = self.endpoints[first].as_deref().unwrap_or_default();
            batches.push(PredictionBatch {
                endpoint: EndpointName::from(endpoint),
                at: Timestamp::from_micros(at[first]),
                request_id: request_ids.value(first).to_owned(),
                ids: span.clone().map(|i| PredictionId::from(ids.value(i))).collect(),
                keys: self.keys[span.clone()].to_vec(),
                versions: versions[span.clone()]
                    .iter()
                    .map(|version| VersionNumber(*version as u32))
                    .collect(),
                roles: self.roles[span.clone()]
                    .iter()
                    .map(|r| role_of(r.as_deref().unwrap_or_default()))
                    .collect::<Result<_>>()?,
                canary_share: shares[first],
                degraded: self.degraded[span.clone()].to_vec(),
                scores: self.scores(self.answers(layouts[first])?, span.clone())?,
                shadows: self.shadows(first, span.clone())?,
                features: self.frame(span)?,
                latency_us: latencies[first] as u64,
            });
        }
        Ok(batches)
    }

    fn frame(&self, span: std::ops::Range<usize>) -> Result<Frame> {
        let columns = self
            .features
            .iter()
            .map(|column| match column {
                Column::Numeric(values) => Column::Numeric(values[span.clone()].to_vec()),
                Column::Categorical(values) => Column::Categorical(values[span.clone()].to_vec()),
            })
            .collect();
        Ok(Frame::new(Arc::clone(&self.schema), columns)?)
    }

    fn scores(&self, answers: &Answers, span: std::ops::Range<usize>) -> Result<Scores> {
        if self.rows.column_by_name("score").is_some() {
            return Ok(answers.with(self.numbers::<Float64Type>("score")?[span].to_vec()));
        }
        let lists = self
            .column("scores")?
            .as_list_opt::<i32>()
            .ok_or_else(|| broken("column `scores` is no list"))?;
        let mut values = Vec::with_capacity(span.len() * answers.width());
        for i in span {
            values.extend_from_slice(lists.value(i).as_primitive::<Float64Type>().values());
        }
        Ok(answers.with(values))
    }

    fn shadows(&self, first: usize, span: std::ops::Range<usize>) -> Result<Vec<ShadowScores>> {
        let Some(versions) = self.rows.column_by_name("shadow_versions") else {
            return Ok(Vec::new());
        };
        let no_list = || broken("a shadow's column is no list");
        let versions = versions.as_list_opt::<i32>().ok_or_else(no_list)?.value(first);
        let layouts = self.column("shadow_layouts")?;
        let layouts = layouts.as_list_opt::<i32>().ok_or_else(no_list)?.value(first);
        let scores = self.column("shadow_scores")?;
        let scores = scores.as_list_opt::<i32>().ok_or_else(no_list)?;
        let mut shadows = Vec::new();
        let mut offset = 0;
        let (versions, layouts) = (wide(&versions)?, wide(&layouts)?);
        let pairs = versions.iter().zip(&layouts);
        for (version, layout) in pairs {
            let answers = self.answers(*layout)?;
            let width = answers.width();
            let mut values = Vec::with_capacity(span.len() * width);
            for i in span.clone() {
                let row = scores.value(i);
                let row = row.as_primitive::<Float64Type>().values();
                values.extend_from_slice(row.get(offset..offset + width).ok_or_else(no_list)?);
            }
            offset += width;
            shadows.push(ShadowScores {
                version: VersionNumber(*version as u32),
                scores: answers.with(values),
            });
        }
        Ok(shadows)
    }
}
