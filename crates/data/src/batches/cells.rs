//! Cells as a request's JSON says them.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{DataError, Result};

/// The rows as a list of lists; `first` is the number of the first row, for errors.
pub fn json(rows: &RecordBatch, first: usize) -> Result<String> {
    let columns: Vec<(String, ArrayRef)> = rows
        .schema()
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| Ok((field.name().clone(), plain(column)?)))
        .collect::<Result<_>>()?;
    let mut out = String::from("[");
    for row in 0..rows.num_rows() {
        out.push_str(if row == 0 { "[" } else { ",[" });
        for (place, (name, column)) in columns.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            cell(name, column, row, first, &mut out)?;
        }
        out.push(']');
    }
    out.push(']');
    Ok(out)
}

/// Dictionaries and views become what they stand for, narrow floats wide ones.
fn plain(column: &ArrayRef) -> Result<ArrayRef> {
    let column = match column.data_type() {
        DataType::Dictionary(_, of) => cast(column, of)?,
        _ => ArrayRef::clone(column),
    };
    Ok(match column.data_type() {
        DataType::LargeUtf8 | DataType::Utf8View => cast(&column, &DataType::Utf8)?,
        of if of.is_floating() => cast(&column, &DataType::Float64)?,
        _ => column,
    })
}

fn cell(name: &str, column: &ArrayRef, row: usize, first: usize, out: &mut String) -> Result<()> {
    if column.is_null(row) || *column.data_type() == DataType::Null {
        out.push_str("null");
        return Ok(());
    }
    match column.data_type() {
        DataType::Boolean => out.push_str(if column.as_boolean().value(row) {
            "true"
        } else {
            "false"
        }),
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            if value.is_infinite() {
                return Err(DataError::Spec(format!(
                    "column `{name}` row {} is infinite, expected a number; make it missing or finite",
                    first + row
                )));
            }
            if value.is_nan() {
                out.push_str("null");
            } else {
                out.push_str(&serde_json::to_string(&value)?);
            }
        }
        DataType::Utf8 => out.push_str(&serde_json::to_string(column.as_string::<i32>().value(row))?),
        of => {
            let shown = ArrayFormatter::try_new(column.as_ref(), &FormatOptions::default())?
                .value(row)
                .to_string();
            if of.is_integer() {
                // Writing to a string cannot fail.
                let _ = write!(out, "{shown}");
            } else {
                out.push_str(&serde_json::to_string(&shown)?);
            }
        }
    }
    Ok(())
}
