//! Answers as columns.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Float64Builder, Int64Array, ListBuilder, RecordBatch,
    StringArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;

use crate::error::Result;

/// A column of answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Added {
    /// Yes or no.
    Bools(Vec<Option<bool>>),
    /// Whole numbers.
    Integers(Vec<Option<i64>>),
    /// Numbers.
    Numbers(Vec<Option<f64>>),
    /// Several numbers a row.
    Lists(Vec<Option<Vec<Option<f64>>>>),
    /// Texts, and whatever is none of the others as JSON.
    Texts(Vec<Option<String>>),
}

impl Added {
    /// The narrowest column that holds these values.
    pub fn of(values: &[Value]) -> Self {
        let all = |fits: &dyn Fn(&Value) -> bool| values.iter().all(|value| value.is_null() || fits(value));
        let list = |value: &Value| {
            let items = value.as_array();
            items.is_some_and(|items| items.iter().all(|item| item.is_null() || item.is_number()))
        };
        // What is missing everywhere could be anything; numbers are what most answers are.
        if values.iter().all(Value::is_null) {
            Self::Numbers(vec![None; values.len()])
        } else if all(&Value::is_boolean) {
            Self::Bools(values.iter().map(Value::as_bool).collect())
        } else if all(&Value::is_i64) {
            Self::Integers(values.iter().map(Value::as_i64).collect())
        } else if all(&Value::is_number) {
            Self::Numbers(values.iter().map(Value::as_f64).collect())
        } else if all(&list) {
            let numbers = |value: &Value| {
                let items = value.as_array()?;
                Some(items.iter().map(Value::as_f64).collect())
            };
            Self::Lists(values.iter().map(numbers).collect())
        } else {
            let text = |value: &Value| match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            Self::Texts(values.iter().map(text).collect())
        }
    }

    pub(super) fn array(&self) -> ArrayRef {
        match self {
            Self::Bools(values) => Arc::new(BooleanArray::from(values.clone())),
            Self::Integers(values) => Arc::new(Int64Array::from(values.clone())),
            Self::Numbers(values) => Arc::new(Float64Array::from(values.clone())),
            Self::Texts(values) => Arc::new(StringArray::from(values.clone())),
            Self::Lists(values) => {
                let mut builder = ListBuilder::new(Float64Builder::new());
                for value in values {
                    match value {
                        Some(items) => builder.append_value(items.iter().copied()),
                        None => builder.append_null(),
                    }
                }
                Arc::new(builder.finish())
            }
        }
    }
}

/// The rows with every nested column as text, for formats that have none.
pub(super) fn flat(rows: &RecordBatch) -> Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if !column.data_type().is_nested() {
            fields.push(Arc::clone(field));
            columns.push(ArrayRef::clone(column));
            continue;
        }
        let options = FormatOptions::default();
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
        let texts: Vec<Option<String>> = (0..column.len())
            .map(|row| (!column.is_null(row)).then(|| formatter.value(row).to_string()))
            .collect();
        fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
        columns.push(Arc::new(StringArray::from(texts)));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
