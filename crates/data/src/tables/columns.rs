//! The columns of a table that is read row by row: first what they hold, then their values as Arrow.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMillisecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tidemill_core::ports::TableColumn;

use super::json::Cell;
use crate::error::{DataError, Result};

/// So many columns a table has at most.
pub const MOST_COLUMNS: usize = 4_096;
/// Under this key a field says what the file calls its column.
const TITLE: &str = "tidemill.title";
/// Under this key a field of texts says that these are JSON.
const NESTED: &str = "tidemill.json";

/// What a column has been seen to hold.
#[derive(Clone, Copy, Default)]
struct Seen {
    bools: bool,
    ints: bool,
    floats: bool,
    infinite: bool,
    texts: bool,
    nested: bool,
}

/// What columns hold, row by row.
#[derive(Default)]
pub struct Look {
    seen: Vec<Seen>,
    /// How many rows.
    pub rows: u64,
}

impl Look {
    /// Looks at a row.
    pub fn add(&mut self, row: &[Cell]) -> std::result::Result<(), String> {
        if row.len() > MOST_COLUMNS {
            return Err(format!(
                "a row has {} values: a table has at most {MOST_COLUMNS} columns here",
                row.len()
            ));
        }
        if row.len() > self.seen.len() {
            self.seen.resize(row.len(), Seen::default());
        }
        for (cell, seen) in row.iter().zip(&mut self.seen) {
            match cell {
                Cell::Null => {}
                Cell::Bool(_) => seen.bools = true,
                Cell::Int(_) => seen.ints = true,
                Cell::Float(value) => {
                    seen.floats = true;
                    seen.infinite |= !value.is_finite();
                }
                Cell::Text(_) => seen.texts = true,
                Cell::Nested(_) => seen.nested = true,
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// The schema: names made to differ, types by what was seen and by which columns are said to be times.
    pub fn schema(&self, titles: &[String], times: &[String]) -> Result<SchemaRef, String> {
        let width = titles.len().max(self.seen.len());
        if width > MOST_COLUMNS {
            return Err(format!(
                "it has {width} columns: a table has at most {MOST_COLUMNS} here"
            ));
        }
        let mut titles = titles.to_vec();
        titles.resize(width, String::new());
        let mut fields = Vec::with_capacity(width);
        for (i, name) in distinct(&titles).into_iter().enumerate() {
            let seen = self.seen.get(i).copied().unwrap_or_default();
            let is_time = times.contains(&titles[i]);
            let mut notes = HashMap::new();
            if name != titles[i] {
                notes.insert(TITLE.to_owned(), titles[i].clone());
            }
            let data_type = match seen {
                Seen { texts: true, .. } => DataType::Utf8,
                Seen {
                    nested: true,
                    bools,
                    ints,
                    floats,
                    ..
                } => {
                    if !(bools || ints || floats) {
                        notes.insert(NESTED.to_owned(), String::new());
                    }
                    DataType::Utf8
                }
                Seen {
                    bools: true,
                    ints: false,
                    floats: false,
                    ..
                } => DataType::Boolean,
                Seen { bools: true, .. } => DataType::Utf8,
                Seen {
                    ints,
                    floats,
                    infinite: false,
                    ..
                } if is_time && (ints || floats) => {
                    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
                }
                Seen { floats: true, .. } => DataType::Float64,
                Seen { ints: true, .. } => DataType::Int64,
                // Nothing at all.
                _ => DataType::Utf8,
            };
            fields.push(Field::new(name, data_type, true).with_metadata(notes));
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

/// Names that are not empty and differ, in order: `column_3` for an empty one, `x_2` for the second `x`.
pub fn distinct(titles: &[String]) -> Vec<String> {
    let mut taken: HashSet<String> = HashSet::new();
    let mut next: HashMap<String, usize> = HashMap::new();
    let written: HashSet<&str> = titles.iter().map(String::as_str).collect();
    let mut names = Vec::with_capacity(titles.len());
    for (i, title) in titles.iter().enumerate() {
        let wanted = if title.is_empty() {
            format!("column_{}", i + 1)
        } else {
            title.clone()
        };
        let mut name = wanted.clone();
        while taken.contains(&name) || (name != *title && written.contains(name.as_str())) {
            let number = next.entry(wanted.clone()).or_insert(1);
            *number += 1;
            name = format!("{wanted}_{number}");
        }
        taken.insert(name.clone());
        names.push(name);
    }
    names
}

/// The schema with names that differ; the columns stay where they are.
pub fn with_distinct_names(schema: &SchemaRef) -> SchemaRef {
    let titles: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let names = distinct(&titles);
    if names == titles {
        return Arc::clone(schema);
    }
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .zip(names)
        .map(|(field, name)| {
            let mut notes = field.metadata().clone();
            if name != *field.name() {
                notes.insert(TITLE.to_owned(), field.name().clone());
            }
            field.as_ref().clone().with_name(name).with_metadata(notes)
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// The columns of a schema in our words.
pub fn described(schema: &Schema) -> Vec<TableColumn> {
    let columns = schema.fields().iter().map(|field| TableColumn {
        name: field.name().clone(),
        data_type: word(field),
        title: field.metadata().get(TITLE).cloned(),
    });
    columns.collect()
}

fn word(field: &Field) -> String {
    let of = match field.data_type() {
        DataType::Dictionary(_, of) => of,
        of => of,
    };
    let known = match of {
        DataType::Boolean => "boolean",
        of if of.is_integer() => "integer",
        of if of.is_floating() => "float",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
            if field.metadata().contains_key(NESTED) =>
        {
            "json"
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Timestamp(..) => "timestamp",
        DataType::Date32 | DataType::Date64 => "date",
        other => return other.to_string(),
    };
    known.to_owned()
}

enum Builder {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Time(TimestampMillisecondBuilder),
    Text(StringBuilder),
}

/// Rows on their way into a batch.
pub struct Rows {
    schema: SchemaRef,
    builders: Vec<Builder>,
    held: usize,
    /// About how many bytes are held.
    pub bytes: usize,
}

fn builder(of: &DataType) -> Builder {
    match of {
        DataType::Boolean => Builder::Bool(BooleanBuilder::new()),
        DataType::Int64 => Builder::Int(Int64Builder::new()),
        DataType::Float64 => Builder::Float(Float64Builder::new()),
        DataType::Timestamp(..) => Builder::Time(TimestampMillisecondBuilder::new().with_timezone("UTC")),
        _ => Builder::Text(StringBuilder::new()),
    }
}

fn as_float(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Int(value) => Some(*value as f64),
        Cell::Float(value) => Some(*value),
        _ => None,
    }
}

fn as_text(cell: Cell) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Bool(value) => Some(value.to_string()),
        Cell::Int(value) => Some(value.to_string()),
        Cell::Float(value) if value.is_finite() => Some(value.to_string()),
        Cell::Float(value) if value.is_nan() => Some("NaN".to_owned()),
        Cell::Float(value) if value > 0.0 => Some("Infinity".to_owned()),
        Cell::Float(_) => Some("-Infinity".to_owned()),
        Cell::Text(text) | Cell::Nested(text) => Some(text),
    }
}

impl Rows {
    /// No rows yet.
    pub fn new(schema: SchemaRef) -> Self {
        let builders = schema.fields().iter().map(|field| builder(field.data_type()));
        Self {
            builders: builders.collect(),
            schema,
            held: 0,
            bytes: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Takes a row; what it lacks at its end is null.
    pub fn push(&mut self, row: Vec<Cell>) {
        let mut cells = row.into_iter();
        for builder in &mut self.builders {
            let cell = cells.next().unwrap_or(Cell::Null);
            self.bytes += 8;
            match builder {
                Builder::Bool(values) => values.append_option(match cell {
                    Cell::Bool(value) => Some(value),
                    _ => None,
                }),
                Builder::Int(values) => values.append_option(match cell {
                    Cell::Int(value) => Some(value),
                    _ => None,
                }),
                Builder::Float(values) => values.append_option(as_float(&cell)),
                Builder::Time(values) => values.append_option(match cell {
                    Cell::Int(value) => Some(value),
                    other => as_float(&other).map(|ms| ms.round() as i64),
                }),
                Builder::Text(values) => {
                    let text = as_text(cell);
                    self.bytes += text.as_ref().map_or(0, String::len);
                    values.append_option(text);
                }
            }
        }
        self.held += 1;
    }

    /// The rows as a batch; none are left.
    pub fn batch(&mut self) -> Result<RecordBatch> {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.builders.len());
        for builder in &mut self.builders {
            arrays.push(match builder {
                Builder::Bool(values) => Arc::new(values.finish()),
                Builder::Int(values) => Arc::new(values.finish()),
                Builder::Float(values) => Arc::new(values.finish()),
                Builder::Time(values) => Arc::new(values.finish()),
                Builder::Text(values) => Arc::new(values.finish()),
            });
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.held));
        (self.held, self.bytes) = (0, 0);
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).map_err(DataError::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_to_differ_and_never_take_one_that_is_written() {
        let names = |titles: &[&str]| distinct(&titles.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            names(&["a", "", "a", "a_2", "a"]),
            ["a", "column_2", "a_3", "a_2", "a_4"]
        );
        assert_eq!(names(&["", "column_1"]), ["column_1_2", "column_1"]);
    }
}
