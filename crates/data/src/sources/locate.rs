//! Where in the files something is wrong. Read only after an error: the place is worth a second pass.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::TryStreamExt;
use tidemill_core::spec::DataFormat;

use super::resolve::{SourceFiles, format_name};
use super::schema::plain;
use super::table::Source;
use crate::error::{DataError, Result};
use crate::session::session;

/// The first line of a JSON lines file that is no JSON object.
pub fn bad_json_line(file: &Path) -> Result<Option<DataError>> {
    let reader = BufReader::new(File::open(file).map_err(|e| DataError::io(file, e))?);
    for (i, line) in reader.lines().enumerate() {
        let line = line.map_err(|e| DataError::io(file, e))?;
        if line.trim().is_empty() {
            continue;
        }
        let problem = match serde_json::from_str::<serde_json::Value>(&line) {
            Ok(serde_json::Value::Object(_)) => continue,
            Ok(_) => "is not a JSON object; expected one object a line".to_owned(),
            Err(e) => format!("is not JSON: {e}; expected one object a line"),
        };
        return Ok(Some(DataError::BadValue {
            place: format!("`{}` line {}", file.display(), i + 1),
            value: line.chars().take(80).collect(),
            problem,
        }));
    }
    Ok(None)
}

/// Reads the text files of a source once more to name the file, line and column that `error` came from.
pub fn first_bad_row(source: &Source, error: DataError) -> DataError {
    let DataError::DataFusion(_) = &error else {
        return error;
    };
    match find_bad_row(&source.files, &source.schema) {
        Ok(Some(found)) => found,
        Ok(None) | Err(_) => error,
    }
}

fn find_bad_row(source: &SourceFiles, schema: &SchemaRef) -> Result<Option<DataError>> {
    for file in &source.files {
        let found = match source.format {
            DataFormat::Parquet => None,
            DataFormat::Jsonl => bad_json_line(file)?,
            DataFormat::Csv => bad_csv_line(file, schema)?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn bad_csv_line(file: &Path, schema: &SchemaRef) -> Result<Option<DataError>> {
    let reader = super::csv::reader(file, schema, None)?;
    for batch in reader {
        if let Err(e) = batch {
            return Ok(Some(DataError::Corrupt {
                file: file.to_owned(),
                format: format_name(DataFormat::Csv),
                reason: name_column(&plain(&e), schema),
            }));
        }
    }
    Ok(None)
}

/// Arrow says `for column 3`; people want its name.
fn name_column(message: &str, schema: &Schema) -> String {
    let Some((before, after)) = message.split_once("column ") else {
        return message.to_owned();
    };
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    match digits.parse::<usize>().ok().and_then(|i| schema.fields().get(i)) {
        Some(field) => format!("{before}column `{}`{}", field.name(), &after[digits.len()..]),
        None => message.to_owned(),
    }
}

/// The first row of `column`, file by file, that `is_bad` says so of: the place in words and the value as text.
pub async fn first_row_where(
    source: &Source,
    column: &str,
    is_bad: impl Fn(&dyn Array, usize) -> bool,
) -> Result<Option<(String, String)>> {
    for file in &source.files.files {
        let one = Source {
            files: SourceFiles {
                files: vec![file.clone()],
                ..source.files.clone()
            },
            schema: SchemaRef::clone(&source.schema),
        };
        let context = session();
        let mut stream = one
            .dataframe(&context)?
            .select_columns(&[column])?
            .execute_stream()
            .await?;
        let mut row = 0;
        while let Some(batch) = stream.try_next().await? {
            let values = batch.column(0);
            for i in 0..values.len() {
                if is_bad(values.as_ref(), i) {
                    let text = arrow::util::display::array_value_to_string(values.as_ref(), i)?;
                    return Ok(Some((place(source, file, row + i, column), text)));
                }
            }
            row += values.len();
        }
    }
    Ok(None)
}

/// `file line 7, column x` for text formats, `file row 6, column x` for Parquet (rows count from 0, as pandas does).
fn place(source: &Source, file: &Path, row: usize, column: &str) -> String {
    let spot = match source.files.format {
        DataFormat::Parquet => format!("row {row}"),
        DataFormat::Csv => format!("line {}", row + 2),
        DataFormat::Jsonl => format!("line {}", row + 1),
    };
    format!("`{}` {spot}, column `{column}`", file.display())
}

/// The first text of `column` that is no number.
pub async fn first_not_number(source: &Source, column: &str) -> Result<Option<(String, String)>> {
    let schema = Schema::new(
        source
            .schema
            .fields()
            .iter()
            .map(|f| {
                if f.name() == column {
                    Field::new(f.name(), DataType::Utf8, true)
                } else {
                    f.as_ref().clone()
                }
            })
            .collect::<Vec<_>>(),
    );
    let as_text = Source {
        files: source.files.clone(),
        schema: SchemaRef::new(schema),
    };
    first_row_where(&as_text, column, |values, i| {
        values
            .as_string_opt::<i32>()
            .is_some_and(|texts| !texts.is_null(i) && texts.value(i).trim().parse::<f64>().is_err())
    })
    .await
}
