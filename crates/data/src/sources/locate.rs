//! Where in the files something is wrong. Read only after an error: the place is worth a second pass.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::panic::AssertUnwindSafe;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::PageIndexPolicy;
use tidemill_core::spec::DataFormat;

use super::resolve::SourceFiles;
use super::schema::{corrupt, plain};
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

/// Reads the files of a source once more to name the file, and the line or column, that `error` came from.
pub async fn first_bad_row(source: &Source, error: DataError) -> DataError {
    if !error.is_of_engine() {
        return error;
    }
    let source = source.clone();
    let found = tokio::task::spawn_blocking(move || find_bad_row(&source.files, &source.schema)).await;
    match found {
        Ok(Ok(Some(found))) => found,
        Ok(Ok(None) | Err(_)) | Err(_) => error,
    }
}

fn find_bad_row(source: &SourceFiles, schema: &SchemaRef) -> Result<Option<DataError>> {
    for file in &source.files {
        let found = match source.format {
            DataFormat::Parquet => bad_parquet_column(file)?,
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
            let reason = name_column(&plain(&e), schema);
            return Ok(Some(corrupt(file, DataFormat::Csv, reason)));
        }
    }
    Ok(None)
}

/// The first column of a Parquet file whose pages cannot be read, although its footer can.
fn bad_parquet_column(file: &Path) -> Result<Option<DataError>> {
    let damaged = |what: &str, reason: &str| {
        let reason = format!("{what} is damaged: {reason}; write the file again, or copy it again");
        Some(corrupt(file, DataFormat::Parquet, reason))
    };
    let open = || File::open(file).map_err(|e| DataError::io(file, e));
    // Queries read the page index too.
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let meta = match ArrowReaderMetadata::load(&open()?, options) {
        Ok(meta) => meta,
        Err(e) => return Ok(damaged("its footer or page index", &plain(&e.into()))),
    };
    for (i, field) in meta.schema().fields().iter().enumerate() {
        let only_this = ProjectionMask::roots(meta.parquet_schema(), [i]);
        let opened = open()?;
        // The decoder panics on some damaged pages.
        let read = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut batches = ParquetRecordBatchReaderBuilder::new_with_metadata(opened, meta.clone())
                .with_projection(only_this)
                .build()?;
            batches.try_for_each(|batch| batch.map(drop))
        }));
        let reason = match read {
            Ok(Ok(())) => continue,
            Ok(Err(e)) => plain(&e),
            Err(_) => "its pages cannot be decoded".to_owned(),
        };
        return Ok(damaged(&format!("column `{}`", field.name()), &reason));
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

/// Why infinite values are refused, and what to do.
pub const INFINITE: &str =
    "is infinite, which no model can learn from; write a finite number, or leave it empty for missing";

/// A text that keeps a column from being numeric.
pub struct NotNumber {
    /// File, line or row, and column.
    place: String,
    /// As written.
    value: String,
    /// What is wrong with it; `None` if it is just no number.
    problem: Option<&'static str>,
}

/// The first text of `column` that is no number, or that keeps the whole column from being read as numbers.
pub async fn first_not_number(source: &Source, column: &str) -> Result<Option<NotNumber>> {
    let fields: Vec<Field> = source
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
        .collect();
    let as_text = Source {
        files: source.files.clone(),
        schema: SchemaRef::new(Schema::new(fields)),
    };
    let format = source.files.format;
    let found = first_row_where(&as_text, column, |values, i| {
        values
            .as_string_opt::<i32>()
            .is_some_and(|texts| !texts.is_null(i) && judge(format, texts.value(i)) != Judgement::Number)
    })
    .await?;
    Ok(found.map(|(place, value)| NotNumber::new(format, place, value)))
}

/// The first text of `column` that is `text`, which is no number.
pub async fn first_such_text(source: &Source, column: &str, text: &str) -> Result<Option<NotNumber>> {
    let found = first_row_where(source, column, |values, i| {
        values
            .as_string_opt::<i32>()
            .is_some_and(|texts| !texts.is_null(i) && texts.value(i) == text)
    })
    .await?;
    Ok(found.map(|(place, value)| NotNumber::new(source.files.format, place, value)))
}

impl NotNumber {
    fn new(format: DataFormat, place: String, value: String) -> Self {
        let problem = match judge(format, &value) {
            Judgement::Odd(problem) => Some(problem),
            Judgement::Infinite => Some(INFINITE),
            Judgement::Word | Judgement::Number => None,
        };
        Self {
            place,
            value,
            problem,
        }
    }

    /// The error; `expected` goes on after "is not a number".
    pub fn refused(self, expected: &str) -> DataError {
        DataError::BadValue {
            place: self.place,
            value: self.value,
            problem: match self.problem {
                Some(problem) => problem.to_owned(),
                None => format!("is not a number, {expected}"),
            },
        }
    }
}

/// What a text is, seen as a number.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// A finite number as any CSV reader reads it.
    Number,
    /// No number.
    Word,
    /// Infinity, as a word or beyond the largest number.
    Infinite,
    /// A finite number in a form that makes Arrow take the column for text.
    Odd(&'static str),
}

/// Only in a CSV file does the way in which a number is written decide the column's type.
fn judge(format: DataFormat, text: &str) -> Judgement {
    match judge_number(text) {
        Judgement::Odd(_) if format != DataFormat::Csv => Judgement::Number,
        judgement => judgement,
    }
}

fn judge_number(text: &str) -> Judgement {
    let Ok(value) = text.trim().parse::<f64>() else {
        return Judgement::Word;
    };
    if value.is_infinite() {
        return Judgement::Infinite;
    }
    if value.is_nan() {
        return Judgement::Word;
    }
    if text.trim() != text || text.starts_with('+') {
        return Judgement::Odd("is a number with a sign `+` or spaces; write digits only, such as `-12.5`");
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.bytes().all(|b| b.is_ascii_digit()) && text.parse::<i64>().is_err() {
        return Judgement::Odd(
            "is a whole number of more than 64 bits; write it with a fraction such as `.0`, or declare the column categorical",
        );
    }
    Judgement::Number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_keep_a_column_from_being_numeric_are_told_apart() {
        for text in ["1", "-1.5", ".5", "1.", "1e-3", "2E5"] {
            assert_eq!(judge_number(text), Judgement::Number, "{text}");
        }
        for text in ["seven", "1,5", "0x10", "NAN", "", "true"] {
            assert_eq!(judge_number(text), Judgement::Word, "{text}");
        }
        for text in [
            "inf",
            "-inf",
            "+inf",
            "Infinity",
            "-Infinity",
            "INF",
            "1e999",
            "-1e999",
            " Infinity",
        ] {
            assert_eq!(judge_number(text), Judgement::Infinite, "{text}");
        }
        for text in ["+5", " 5", "5 ", "99999999999999999999"] {
            assert!(matches!(judge_number(text), Judgement::Odd(_)), "{text}");
        }
    }
}
