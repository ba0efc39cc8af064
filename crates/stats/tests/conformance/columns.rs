//! Reads columns of the conformance data: Parquet, CSV with one comma-free column each, and arrays inside JSON.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use tidemill_stats::drift::Sample;

/// A column as a drift method sees it.
#[derive(Clone)]
pub enum Column {
    Numeric { values: Vec<f64>, integer: bool },
    Categorical(Vec<Option<String>>),
}

impl Column {
    pub fn with_sample<T>(&self, use_sample: impl FnOnce(&Sample<'_>) -> T) -> T {
        match self {
            Self::Numeric {
                values,
                integer: true,
            } => use_sample(&Sample::Integer(values)),
            Self::Numeric {
                values,
                integer: false,
            } => use_sample(&Sample::Numeric(values)),
            Self::Categorical(values) => {
                let borrowed: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
                use_sample(&Sample::Categorical(&borrowed))
            }
        }
    }

    pub fn numbers(self) -> Vec<f64> {
        match self {
            Self::Numeric { values, .. } => values,
            Self::Categorical(_) => panic!("a numeric column was expected"),
        }
    }
}

/// One part (reference or current) of a data set.
pub enum Table {
    Arrow(HashMap<String, ArrayRef>),
    Csv(HashMap<String, Vec<String>>),
    Inline { document: Value, part: &'static str },
}

impl Table {
    pub fn open(folder: &Path, dataset: &str, part: &'static str) -> Self {
        if dataset == "edge_inline" {
            let text = std::fs::read_to_string(folder.join("edge_inline.json")).unwrap();
            return Self::Inline {
                document: serde_json::from_str(&text).unwrap(),
                part,
            };
        }
        let parquet = folder.join(format!("{dataset}.{part}.parquet"));
        if parquet.is_file() {
            Self::open_parquet(&parquet)
        } else {
            Self::open_csv(folder, dataset, part)
        }
    }

    fn open_parquet(path: &Path) -> Self {
        let file = std::fs::File::open(path).unwrap();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let schema = builder.schema().clone();
        let batches: Vec<_> = builder.build().unwrap().map(|batch| batch.unwrap()).collect();
        let batch = arrow::compute::concat_batches(&schema, &batches).unwrap();
        let names = schema.fields().iter().map(|field| field.name().clone());
        Self::Arrow(names.zip(batch.columns().iter().cloned()).collect())
    }

    fn open_csv(folder: &Path, dataset: &str, part: &str) -> Self {
        let text = std::fs::read_to_string(folder.join(format!("{dataset}.{part}.csv"))).unwrap();
        let mut lines = text
            .lines()
            .map(|line| line.split(',').map(str::to_owned).collect::<Vec<String>>());
        let header = lines.next().unwrap();
        let rows: Vec<Vec<String>> = lines.collect();
        let column = |index: usize| rows.iter().map(|row| row[index].clone()).collect();
        Self::Csv(
            header
                .into_iter()
                .enumerate()
                .map(|(index, name)| (name, column(index)))
                .collect(),
        )
    }

    pub fn column(&self, name: &str, kind: &str) -> Column {
        match self {
            Self::Arrow(columns) => from_arrow(&columns[name], kind),
            Self::Csv(columns) => from_texts(&columns[name], kind),
            Self::Inline { document, part } => from_json(&document[name], part, kind),
        }
    }
}

fn from_arrow(array: &ArrayRef, kind: &str) -> Column {
    if kind == "num" {
        let floats = cast(array, &DataType::Float64).unwrap();
        let values = floats
            .as_primitive::<Float64Type>()
            .iter()
            .map(|v| v.unwrap_or(f64::NAN))
            .collect();
        return Column::Numeric {
            values,
            integer: array.data_type().is_integer() && array.null_count() == 0,
        };
    }
    let texts = cast(array, &DataType::Utf8).unwrap();
    Column::Categorical(
        texts
            .as_string::<i32>()
            .iter()
            .map(|v| v.map(str::to_owned))
            .collect(),
    )
}

fn from_texts(texts: &[String], kind: &str) -> Column {
    if kind == "num" {
        return Column::Numeric {
            values: texts.iter().map(|t| t.parse().unwrap()).collect(),
            integer: false,
        };
    }
    Column::Categorical(texts.iter().map(|t| (!t.is_empty()).then(|| t.clone())).collect())
}

fn from_json(column: &Value, part: &str, kind: &str) -> Column {
    let cells = column[part].as_array().unwrap();
    if kind == "num" {
        let number = |cell: &Value| match cell {
            Value::Null => f64::NAN,
            Value::String(text) => match text.as_str() {
                "NaN" => f64::NAN,
                "Infinity" => f64::INFINITY,
                "-Infinity" => f64::NEG_INFINITY,
                other => panic!("`{other}` is not a number"),
            },
            cell => cell.as_f64().unwrap(),
        };
        let integer = column["dtype"]
            .as_str()
            .is_some_and(|dtype| dtype.starts_with("int"));
        return Column::Numeric {
            values: cells.iter().map(number).collect(),
            integer,
        };
    }
    let text = |cell: &Value| match cell {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    Column::Categorical(cells.iter().map(text).collect())
}
