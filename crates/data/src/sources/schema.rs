//! The columns of each file, and of all files of a source together.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use tidemill_core::spec::DataFormat;

use super::locate::bad_json_line;
use super::resolve::{SourceFiles, format_name};
use crate::error::{DataError, Result};

/// A file as it was when its columns were read.
#[derive(Clone, PartialEq, Eq)]
struct Mark {
    size: u64,
    modified: Option<std::time::SystemTime>,
}

/// Columns of files that have not changed since: reading a CSV file's types means reading all of it.
#[derive(Default, Clone)]
pub struct SchemaCache(Arc<Mutex<HashMap<PathBuf, (Mark, FileColumns)>>>);

/// What reading the columns of a file tells.
#[derive(Clone)]
struct FileColumns {
    schema: SchemaRef,
    /// A text file whose types come from its rows, and that has none. A Parquet file names its types without a row.
    is_empty: bool,
}

impl SchemaCache {
    fn columns_of(&self, file: &Path, format: DataFormat) -> Result<FileColumns> {
        let meta = std::fs::metadata(file).map_err(|e| DataError::io(file, e))?;
        let mark = Mark {
            size: meta.len(),
            modified: meta.modified().ok(),
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((old, columns)) = known.get(file)
            && *old == mark
        {
            return Ok(columns.clone());
        }
        let (schema, is_empty) = read_schema(file, format)?;
        let columns = FileColumns {
            schema: Arc::new(schema),
            is_empty,
        };
        known.insert(file.to_owned(), (mark, columns.clone()));
        Ok(columns)
    }

    /// The columns of all files together. One of several files may be without rows, but not all of them.
    pub fn schema(&self, source: &SourceFiles) -> Result<SchemaRef> {
        let mut whole: Option<(SchemaRef, &Path)> = None;
        let mut has_rows = false;
        for file in &source.files {
            let FileColumns { schema, is_empty } = self.columns_of(file, source.format)?;
            has_rows |= !is_empty;
            whole = Some(match whole {
                None => (schema, file),
                Some((known, first)) => (
                    Arc::new(unify(source.format, (&known, first), (&schema, file))?),
                    first,
                ),
            });
        }
        let (schema, first) =
            whole.ok_or_else(|| DataError::Spec(format!("`{}` names no file", source.pattern)))?;
        if !has_rows {
            return Err(DataError::Empty {
                file: first.to_owned(),
                what: match source.format {
                    DataFormat::Csv => "it has a header line and no row; write at least one row below it",
                    DataFormat::Jsonl | DataFormat::Parquet => "it has no row",
                },
            });
        }
        Ok(schema)
    }
}

pub fn corrupt(file: &Path, format: DataFormat, reason: impl ToString) -> DataError {
    DataError::Corrupt {
        file: file.to_owned(),
        format: format_name(format),
        reason: reason.to_string(),
    }
}

/// The columns of a file, and whether it is a text file without a row.
fn read_schema(file: &Path, format: DataFormat) -> Result<(Schema, bool)> {
    let mut reader = File::open(file).map_err(|e| DataError::io(file, e))?;
    let size = reader.metadata().map_err(|e| DataError::io(file, e))?.len();
    if size == 0 {
        return Err(DataError::Empty {
            file: file.to_owned(),
            what: match format {
                DataFormat::Csv => "it has no header line",
                DataFormat::Jsonl => "it has no line",
                DataFormat::Parquet => "it has no footer; was its writer interrupted?",
            },
        });
    }
    match format {
        DataFormat::Parquet => {
            if size < 12 {
                return Err(corrupt(file, format, "it is too short to hold a footer"));
            }
            let mut magic = [0u8; 4];
            reader
                .read_exact(&mut magic)
                .map_err(|e| DataError::io(file, e))?;
            if &magic != b"PAR1" {
                return Err(corrupt(
                    file,
                    format,
                    "it does not start with `PAR1`, so it is no Parquet file",
                ));
            }
            let meta = ArrowReaderMetadata::load(&reader, ArrowReaderOptions::default())
                .map_err(|e| corrupt(file, format, format!("{e}; was its writer interrupted?")))?;
            Ok((Schema::new(meta.schema().fields().clone()), false))
        }
        DataFormat::Csv => csv_schema(file, reader),
        DataFormat::Jsonl => {
            let mut reader = BufReader::new(reader);
            match arrow::json::reader::infer_json_schema(&mut reader, None) {
                Ok((schema, rows)) => Ok((schema, rows == 0)),
                Err(e) => Err(bad_json_line(file)?.unwrap_or_else(|| corrupt(file, format, e))),
            }
        }
    }
}

fn csv_schema(file: &Path, reader: File) -> Result<(Schema, bool)> {
    let mut reader = BufReader::new(reader);
    let start = reader.fill_buf().map_err(|e| DataError::io(file, e))?;
    if start.starts_with(b"PAR1") || start.contains(&0) {
        return Err(corrupt(
            file,
            DataFormat::Csv,
            "it holds binary data, so it is no text file",
        ));
    }
    let format = arrow::csv::reader::Format::default()
        .with_header(true)
        .with_null_regex(super::csv::missing()?);
    let (schema, rows) = format
        .infer_schema(reader, None)
        .map_err(|e| corrupt(file, DataFormat::Csv, plain(&e)))?;
    for (i, field) in schema.fields().iter().enumerate() {
        if schema.fields()[..i].iter().any(|f| f.name() == field.name()) {
            return Err(corrupt(
                file,
                DataFormat::Csv,
                format!("its header names column `{}` twice", field.name()),
            ));
        }
    }
    Ok((schema, rows == 0))
}

/// What Arrow and Parquet put before a message.
const PREFIXES: [&str; 6] = [
    "Csv error: ",
    "Parser error: ",
    "Json error: ",
    "Parquet argument error: ",
    "Parquet error: ",
    "External: ",
];

/// Arrow's message without its own prefixes.
pub fn plain(error: &arrow::error::ArrowError) -> String {
    let text = error.to_string();
    let mut rest = text.as_str();
    while let Some(shorter) = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = shorter;
    }
    rest.to_owned()
}

fn unify(
    format: DataFormat,
    (known, first): (&Schema, &Path),
    (next, file): (&Schema, &Path),
) -> Result<Schema> {
    if format == DataFormat::Csv {
        let names = |s: &Schema| -> Vec<String> { s.fields().iter().map(|f| f.name().clone()).collect() };
        let (ours, theirs) = (names(known), names(next));
        if ours != theirs {
            return Err(DataError::UnlikeFiles(format!(
                "`{}` and `{}` have different header lines: {}; give the files of one source the same columns in the same order",
                first.display(),
                file.display(),
                header_difference(&ours, &theirs)
            )));
        }
    }
    let mut fields: Vec<Field> = known.fields().iter().map(|f| f.as_ref().clone()).collect();
    for field in next.fields() {
        let Some(mine) = fields.iter_mut().find(|f| f.name() == field.name()) else {
            fields.push(field.as_ref().clone().with_nullable(true));
            continue;
        };
        let Some(common) = common_type(mine.data_type(), field.data_type()) else {
            if format == DataFormat::Csv {
                // Numbers in one file and words in another are words: the check of the features names the first one.
                *mine = Field::new(mine.name(), DataType::Utf8, true);
                continue;
            }
            return Err(DataError::UnlikeFiles(format!(
                "column `{}` is {} in `{}` and {} in `{}`; give the files of one source the same types",
                field.name(),
                mine.data_type(),
                first.display(),
                field.data_type(),
                file.display()
            )));
        };
        *mine = Field::new(field.name(), common, true);
    }
    Ok(Schema::new(fields))
}

fn header_difference(ours: &[String], theirs: &[String]) -> String {
    match ours.iter().zip(theirs).position(|(a, b)| a != b) {
        Some(i) => format!("column {} is `{}` and `{}`", i + 1, ours[i], theirs[i]),
        None => format!("{} and {} columns", ours.len(), theirs.len()),
    }
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Date32, Date64, Float64, Int64, Null, Timestamp, UInt64, Utf8};
    Some(match (a, b) {
        (a, b) if a == b => a.clone(),
        (Null, other) | (other, Null) => other.clone(),
        (a, b) if a.is_integer() && b.is_integer() => {
            if *a == UInt64 || *b == UInt64 {
                Float64
            } else {
                Int64
            }
        }
        (a, b) if a.is_numeric() && b.is_numeric() => Float64,
        (a, b) if is_text(a) && is_text(b) => Utf8,
        (Timestamp(_, zone), Timestamp(_, other)) if zone == other => {
            Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        (Timestamp(_, zone), Date32 | Date64) | (Date32 | Date64, Timestamp(_, zone)) => {
            Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        (Date32, Date64) | (Date64, Date32) => Date64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::resolve;

    fn schema(files: &[(&str, &str)]) -> Result<SchemaRef> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        SchemaCache::default().schema(&resolve(dir.path(), ".", None)?)
    }

    #[test]
    fn missing_words_of_r_and_pandas_do_not_turn_numbers_into_text() {
        let schema = schema(&[("a.csv", "x,y,t\n1,a,2013-01-01 05:00:00\nNA,b,\n")]).unwrap();
        assert_eq!(schema.field(0).data_type(), &DataType::Int64);
        assert_eq!(schema.field(1).data_type(), &DataType::Utf8);
        assert!(matches!(schema.field(2).data_type(), DataType::Timestamp(_, _)));
    }

    #[test]
    fn files_of_one_source_widen_to_common_types() {
        let schema = schema(&[("a.csv", "x\n1\n"), ("b.csv", "x\n1.5\n"), ("c.csv", "x\n")]).unwrap();
        assert_eq!(schema.field(0).data_type(), &DataType::Float64);
    }

    #[test]
    fn broken_files_are_named_with_what_is_wrong() {
        let message = |files: &[(&str, &str)]| schema(files).unwrap_err().to_string();
        assert!(message(&[("a.csv", "")]).contains("a.csv` is empty: it has no header line"));
        assert!(message(&[("a.csv", "x,y\n")]).contains("a.csv` is empty: it has a header line and no row"));
        assert!(message(&[("a.jsonl", "\n")]).contains("a.jsonl` is empty: it has no row"));
        let ragged = message(&[("a.csv", "x,y\n1,2\n3\n")]);
        assert!(ragged.contains("a.csv") && ragged.contains("line 3"), "{ragged}");
        let parquet = message(&[("a.parquet", "PAR1 this is no parquet file")]);
        assert!(
            parquet.contains("a.parquet` cannot be read as Parquet"),
            "{parquet}"
        );
        let json = message(&[("a.jsonl", "{\"x\":1}\n{\"x\":\n")]);
        assert!(json.contains("line 2"), "{json}");
        let headers = message(&[("a.csv", "x,y\n"), ("b.csv", "y,x\n")]);
        assert!(headers.contains("column 1 is `x` and `y`"), "{headers}");
    }
}
