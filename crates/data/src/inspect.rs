//! A first look at a data file: what `tidemill init` proposes a spec from.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use tidemill_core::clock::Timestamp;
use tidemill_core::ports::{ColumnSummary, SourceSummary};

use crate::columns::{is_number, is_text, is_time, to_micros, to_numbers, to_texts};
use crate::error::Result;
use crate::session::{guarded, session};
use crate::sources::{Source, first_bad_row};

const EXACT_DISTINCT: usize = 10_000;
const EXAMPLES: usize = 10;

/// What is known of a column so far.
struct Seen {
    nulls: u64,
    distinct: HashSet<u64>,
    min: Option<f64>,
    max: Option<f64>,
    examples: Vec<String>,
    /// Texts that are times, as far as every text so far is one.
    all_times: bool,
}

/// Reads a source once and sums up its columns.
pub async fn inspect(source: &Source) -> Result<SourceSummary> {
    match guarded(look(source)).await {
        Ok(summary) => Ok(summary),
        Err(error) => Err(first_bad_row(source, error).await),
    }
}

async fn look(source: &Source) -> Result<SourceSummary> {
    let context = session();
    let mut stream = source.dataframe(&context)?.execute_stream().await?;
    let hasher = RandomState::new();
    let mut seen: Vec<Seen> = source
        .schema
        .fields()
        .iter()
        .map(|_| Seen {
            nulls: 0,
            distinct: HashSet::new(),
            min: None,
            max: None,
            examples: Vec::new(),
            all_times: true,
        })
        .collect();
    let mut rows = 0;
    while let Some(batch) = stream.try_next().await? {
        rows += batch.num_rows() as u64;
        for (array, seen) in batch.columns().iter().zip(&mut seen) {
            seen.add(array, &hasher)?;
        }
    }
    Ok(SourceSummary {
        rows,
        columns: summaries(&source.schema, seen, rows),
    })
}

impl Seen {
    fn add(&mut self, array: &ArrayRef, hasher: &RandomState) -> Result<()> {
        let data_type = array.data_type();
        if *data_type == DataType::Null {
            self.nulls += array.len() as u64;
            return Ok(());
        }
        if is_number(data_type) {
            for (i, value) in to_numbers(array)?.iter().enumerate() {
                self.note(value.map(f64::to_bits), array, i, hasher)?;
                self.range(value);
            }
        } else if is_text(data_type) {
            for (i, value) in to_texts(array)?.iter().enumerate() {
                self.note(value, array, i, hasher)?;
                if let Some(text) = value {
                    self.all_times &= self.all_times && text.parse::<Timestamp>().is_ok();
                }
            }
        } else if is_time(data_type) {
            for (i, value) in to_micros(array)?.into_iter().enumerate() {
                self.note(value, array, i, hasher)?;
                self.range(value.map(|v| v as f64));
            }
        } else {
            for i in 0..array.len() {
                let text = array_value_to_string(array, i)?;
                self.note(array.is_valid(i).then_some(text), array, i, hasher)?;
            }
        }
        Ok(())
    }

    fn note<T: std::hash::Hash>(
        &mut self,
        value: Option<T>,
        array: &ArrayRef,
        row: usize,
        hasher: &RandomState,
    ) -> Result<()> {
        let Some(value) = value else {
            self.nulls += 1;
            return Ok(());
        };
        if self.distinct.len() < EXACT_DISTINCT
            && self.distinct.insert(hasher.hash_one(value))
            && self.examples.len() < EXAMPLES
        {
            self.examples.push(array_value_to_string(array, row)?);
        }
        Ok(())
    }

    fn range(&mut self, value: Option<f64>) {
        let Some(value) = value else { return };
        self.min = Some(self.min.map_or(value, |m| m.min(value)));
        self.max = Some(self.max.map_or(value, |m| m.max(value)));
    }

    /// Texts with few different values, or with many repeats, are categories; others are names or prose.
    fn role(&self, data_type: &DataType, rows: u64) -> &'static str {
        let present = rows - self.nulls;
        if *data_type == DataType::Null || present == 0 {
            "other"
        } else if is_number(data_type) {
            "numeric"
        } else if is_text(data_type) {
            let distinct = self.distinct.len() as u64;
            if self.all_times {
                "time"
            } else if distinct <= 1_000 || distinct * 2 < present {
                "categorical"
            } else {
                "other"
            }
        } else if is_time(data_type) {
            "time"
        } else {
            "other"
        }
    }
}

fn summaries(schema: &SchemaRef, seen: Vec<Seen>, rows: u64) -> Vec<ColumnSummary> {
    schema
        .fields()
        .iter()
        .zip(seen)
        .map(|(field, seen)| {
            let data_type = field.data_type();
            let text = |value: f64| {
                if is_number(data_type) {
                    value.to_string()
                } else {
                    Timestamp::from_micros(value as i64).to_string()
                }
            };
            ColumnSummary {
                name: field.name().clone(),
                data_type: data_type.to_string(),
                role: seen.role(data_type, rows).to_owned(),
                nulls: seen.nulls,
                distinct: seen.distinct.len() as u64,
                min: seen.min.map(text),
                max: seen.max.map(text),
                examples: seen.examples,
            }
        })
        .collect()
}
