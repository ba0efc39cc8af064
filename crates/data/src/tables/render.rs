//! Rows in the forms that they leave in.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef, UInt64Type};
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ArrowWriter;
use tidemill_core::ports::RowsFormat;

use crate::error::Result;
use crate::parquet_file::properties;

/// JSON ends with the row that makes it longer than this.
const LONGEST_JSON: usize = 8 << 20;

/// Integers beyond this are texts in JSON: many readers have only numbers with 53 bits.
const EXACT: u64 = 1 << 53;

/// The rows, how many of them there are in the answer.
pub fn render(schema: &SchemaRef, batches: &[RecordBatch], format: RowsFormat) -> Result<(Vec<u8>, u64)> {
    let all: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    match format {
        RowsFormat::Json => json(batches),
        RowsFormat::Arrow => {
            let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
            for batch in batches {
                writer.write(batch)?;
            }
            writer.finish()?;
            Ok((writer.into_inner()?, all))
        }
        RowsFormat::Parquet => {
            let properties = properties()?.build();
            let mut writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(schema), Some(properties))?;
            for batch in batches {
                writer.write(batch)?;
            }
            Ok((writer.into_inner()?, all))
        }
    }
}

fn json(batches: &[RecordBatch]) -> Result<(Vec<u8>, u64)> {
    let mut out = String::from("[");
    let mut rows = 0;
    for batch in batches {
        let columns: Vec<Column> = batch.columns().iter().map(Column::of).collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            if rows > 0 {
                out.push(',');
            }
            out.push('[');
            for (i, column) in columns.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                column.write(row, &mut out)?;
            }
            out.push(']');
            rows += 1;
            if out.len() > LONGEST_JSON {
                out.push(']');
                return Ok((out.into_bytes(), rows));
            }
        }
    }
    out.push(']');
    Ok((out.into_bytes(), rows))
}

/// A column as values of JSON.
enum Column {
    Bool(ArrayRef),
    Int(ArrayRef),
    Unsigned(ArrayRef),
    Float(ArrayRef),
    Text(ArrayRef),
    /// Anything else, as Arrow writes it.
    Other(ArrayRef),
}

impl Column {
    fn of(array: &ArrayRef) -> Result<Self> {
        let plain = match array.data_type() {
            DataType::Dictionary(_, of) => cast(array, of)?,
            _ => ArrayRef::clone(array),
        };
        Ok(match plain.data_type() {
            DataType::Boolean => Self::Bool(plain),
            DataType::UInt64 => Self::Unsigned(plain),
            of if of.is_integer() => Self::Int(cast(&plain, &DataType::Int64)?),
            of if of.is_floating() => Self::Float(cast(&plain, &DataType::Float64)?),
            DataType::Utf8 => Self::Text(plain),
            DataType::LargeUtf8 | DataType::Utf8View => Self::Text(cast(&plain, &DataType::Utf8)?),
            _ => Self::Other(plain),
        })
    }

    fn write(&self, row: usize, out: &mut String) -> Result<()> {
        use arrow::datatypes::{Float64Type, Int64Type};
        let (Self::Bool(array)
        | Self::Int(array)
        | Self::Unsigned(array)
        | Self::Float(array)
        | Self::Text(array)
        | Self::Other(array)) = self;
        if array.is_null(row) || *array.data_type() == DataType::Null {
            out.push_str("null");
            return Ok(());
        }
        // Writing to a string cannot fail.
        match self {
            Self::Bool(array) => out.push_str(if array.as_boolean().value(row) {
                "true"
            } else {
                "false"
            }),
            Self::Int(array) => {
                let value = array.as_primitive::<Int64Type>().value(row);
                let _ = if value.unsigned_abs() > EXACT {
                    write!(out, "\"{value}\"")
                } else {
                    write!(out, "{value}")
                };
            }
            Self::Unsigned(array) => {
                let value = array.as_primitive::<UInt64Type>().value(row);
                let _ = if value > EXACT {
                    write!(out, "\"{value}\"")
                } else {
                    write!(out, "{value}")
                };
            }
            Self::Float(array) => {
                let value = array.as_primitive::<Float64Type>().value(row);
                if value.is_finite() {
                    out.push_str(&serde_json::to_string(&value)?);
                } else if value.is_nan() {
                    out.push_str("\"NaN\"");
                } else {
                    out.push_str(if value > 0.0 {
                        "\"Infinity\""
                    } else {
                        "\"-Infinity\""
                    });
                }
            }
            Self::Text(array) => out.push_str(&serde_json::to_string(array.as_string::<i32>().value(row))?),
            Self::Other(array) => {
                let options = FormatOptions::default();
                let text = ArrayFormatter::try_new(array.as_ref(), &options)?
                    .value(row)
                    .to_string();
                out.push_str(&serde_json::to_string(&text)?);
            }
        }
        Ok(())
    }
}
