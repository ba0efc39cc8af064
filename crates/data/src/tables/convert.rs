//! Files of rows turned into Parquet: read twice, first for the types, then for the values, and never held as a whole.

use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::reader::Format;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use tidemill_core::ports::{ByteSource, TableFormat, TableShape};
use tokio::runtime::Handle;

use super::bytes::{Trouble, Whole};
use super::columns::{Look, MOST_COLUMNS, Rows, described, with_distinct_names};
use super::halt::Halt;
use super::json;
use super::lines::Lines;
use crate::error::{DataError, Result};
use crate::parquet_file::properties;
use crate::sources::missing_values;

/// So many rows are gathered before they are written,
const BATCH_ROWS: usize = 8_192;
/// or about so many bytes.
const BATCH_BYTES: usize = 8 << 20;
/// A row group ends when about so many bytes wait in it: what reads it needs no more memory than that.
const GROUP_BYTES: usize = 32 << 20;
const GROUP_ROWS: usize = 128 * 1024;

/// Turns a file into Parquet, on a thread that may block.
pub fn to_parquet(
    name: &str,
    file: &Arc<dyn ByteSource>,
    format: TableFormat,
    handle: &Handle,
    halt: &Halt,
    out: impl Write + Send,
) -> Result<TableShape> {
    let trouble = Trouble::default();
    let whole = || Whole::new(Arc::clone(file), handle.clone(), halt.clone(), trouble.clone());
    let invalid = |reason: String| DataError::Table {
        table: name.to_owned(),
        reason,
    };
    let made = match format {
        TableFormat::JsonRows => from_json(&whole, out, &invalid),
        TableFormat::Separated(separator) => from_text(&whole, separator, out, &invalid),
        TableFormat::Parquet => Err(invalid("it is Parquet already".to_owned())),
    };
    made.map_err(|error| trouble.take().unwrap_or(error))
}

/// Parquet on its way, a row group at a time.
struct Out<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: SchemaRef,
    rows: u64,
}

impl<W: Write + Send> Out<W> {
    fn new(schema: &SchemaRef, out: W) -> Result<Self> {
        let properties = properties()?
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        Ok(Self {
            writer: ArrowWriter::try_new(out, Arc::clone(schema), Some(properties))?,
            schema: Arc::clone(schema),
            rows: 0,
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch)?;
        self.rows += batch.num_rows() as u64;
        if self.writer.in_progress_size() >= GROUP_BYTES {
            self.writer.flush()?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<TableShape> {
        self.writer.finish()?;
        self.writer
            .inner_mut()
            .flush()
            .map_err(|e| DataError::Upstream(e.to_string()))?;
        Ok(TableShape {
            rows: self.rows,
            columns: described(&self.schema),
        })
    }
}

fn from_json(
    whole: &dyn Fn() -> Whole,
    out: impl Write + Send,
    invalid: &dyn Fn(String) -> DataError,
) -> Result<TableShape> {
    let mut look = Look::default();
    let frame = json::read(whole(), &mut |row| look.add(&row)).map_err(invalid)?;
    if !frame.has_data {
        return Err(invalid("it has no `data`, the list of its rows".to_owned()));
    }
    let schema = look.schema(&frame.columns, &frame.times).map_err(invalid)?;
    if schema.fields().is_empty() {
        return Err(invalid("it has no columns".to_owned()));
    }
    let mut out = Out::new(&schema, out)?;
    let mut rows = Rows::new(schema);
    let mut failed = None;
    let mut write = |rows: &mut Rows| {
        let written = rows.batch().and_then(|batch| out.write(&batch));
        written.map_err(|error| {
            let text = error.to_string();
            failed = Some(error);
            text
        })
    };
    let read = json::read(whole(), &mut |row| {
        rows.push(row);
        if rows.len() >= BATCH_ROWS || rows.bytes >= BATCH_BYTES {
            write(&mut rows)?;
        }
        Ok(())
    });
    let ended = match read {
        Ok(_) if rows.len() > 0 => write(&mut rows),
        Ok(_) => Ok(()),
        Err(text) => Err(text),
    };
    match (ended, failed) {
        (_, Some(error)) => Err(error),
        (Err(text), None) => Err(invalid(text)),
        (Ok(()), None) => out.end(),
    }
}

fn from_text(
    whole: &dyn Fn() -> Whole,
    separator: char,
    out: impl Write + Send,
    invalid: &dyn Fn(String) -> DataError,
) -> Result<TableShape> {
    let separator = u8::try_from(separator).unwrap_or(b',');
    let format = Format::default()
        .with_header(true)
        .with_delimiter(separator)
        .with_truncated_rows(true)
        .with_null_regex(missing_values()?);
    let longest = Rc::default();
    let lines = || Lines::new(whole(), separator, Rc::clone(&longest));
    let (found, _) = format
        .infer_schema(lines(), None)
        .map_err(|e| invalid(e.to_string()))?;
    let found: SchemaRef = Arc::new(found);
    if found.fields().is_empty() || found.fields().len() > MOST_COLUMNS {
        return Err(invalid(format!(
            "it has {} columns: a table has between 1 and {MOST_COLUMNS} here",
            found.fields().len()
        )));
    }
    let schema = with_distinct_names(&as_text_where_null(&found));
    let reader = arrow::csv::ReaderBuilder::new(Arc::clone(&schema))
        .with_format(format)
        .with_batch_size((BATCH_BYTES / longest.get().max(1)).clamp(1, 1_024))
        .build(lines())?;
    let mut out = Out::new(&schema, out)?;
    for batch in reader {
        out.write(&batch.map_err(|e| invalid(e.to_string()))?)?;
    }
    out.end()
}

/// A column without any value is one of texts.
fn as_text_where_null(schema: &SchemaRef) -> SchemaRef {
    use arrow::datatypes::{DataType, Schema};
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| {
            let data_type = match field.data_type() {
                DataType::Null => DataType::Utf8,
                other => other.clone(),
            };
            field
                .as_ref()
                .clone()
                .with_data_type(data_type)
                .with_nullable(true)
        })
        .collect();
    Arc::new(Schema::new(fields))
}
