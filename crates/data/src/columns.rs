//! From Arrow arrays to what the rest of the house works with, and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Float64Array, Int32Array, StringArray, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type, TimeUnit, TimestampMicrosecondType};
use tidemill_core::frame::{Column, FeatureKind, Task};
use tidemill_core::predictions::LabelValue;

use crate::error::{DataError, Result};

/// Microseconds in UTC: every time in this crate.
pub fn utc_micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
}

/// Whether a column of this type can be a feature of this kind.
pub fn fits(kind: FeatureKind, data_type: &DataType) -> bool {
    match kind {
        FeatureKind::Numeric => is_number(data_type),
        FeatureKind::Categorical => is_text(data_type) || is_number(data_type),
    }
}

/// Numbers and booleans, and columns that are null throughout.
pub fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean | DataType::Null => true,
        DataType::Dictionary(_, value) => is_number(value),
        other => other.is_numeric(),
    }
}

/// Texts, also dictionary-encoded ones.
pub fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

/// Times, dates, and texts that may be times.
pub fn is_time(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64
    ) || (is_text(data_type) && *data_type != DataType::Null)
}

/// Numbers with null for missing: NaN becomes null, infinities stay for the caller to refuse.
pub fn to_numbers(array: &ArrayRef) -> Result<Float64Array> {
    let numbers = cast(array, &DataType::Float64)?;
    let numbers = numbers.as_primitive::<Float64Type>();
    if !numbers.values().iter().any(|v| v.is_nan()) {
        return Ok(numbers.clone());
    }
    Ok(numbers.iter().map(|v| v.filter(|v| !v.is_nan())).collect())
}

/// Texts. Whole numbers are written without a fraction, as a JSON client would write them.
pub fn to_texts(array: &ArrayRef) -> Result<StringArray> {
    if matches!(
        array.data_type(),
        DataType::Float64 | DataType::Float32 | DataType::Float16
    ) {
        let mut texts = StringBuilder::new();
        for value in &to_numbers(array)? {
            texts.append_option(value.map(|v| v.to_string()));
        }
        return Ok(texts.finish());
    }
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// Microseconds since the epoch, null where there is none.
pub fn to_micros(array: &ArrayRef) -> Result<Vec<Option<i64>>> {
    let micros = cast(array, &utc_micros())?;
    Ok(micros.as_primitive::<TimestampMicrosecondType>().iter().collect())
}

/// A feature as a model reads it.
pub fn to_column(kind: FeatureKind, array: &ArrayRef) -> Result<Column> {
    Ok(match kind {
        FeatureKind::Numeric => {
            Column::Numeric(to_numbers(array)?.iter().map(|v| v.unwrap_or(f64::NAN)).collect())
        }
        FeatureKind::Categorical => Column::Categorical(to_shared_texts(array)?),
    })
}

/// Texts of which equal ones of a dictionary share their bytes.
pub fn to_shared_texts(array: &ArrayRef) -> Result<Vec<Option<Arc<str>>>> {
    let encoded = cast(array, &dictionary_type()).or_else(|_| {
        let texts: ArrayRef = Arc::new(to_texts(array)?);
        cast(&texts, &dictionary_type()).map_err(DataError::from)
    })?;
    let encoded = encoded.as_dictionary::<Int32Type>();
    let words = encoded.values().as_string::<i32>();
    let shared: Vec<Option<Arc<str>>> = words.iter().map(|w| w.map(Arc::from)).collect();
    Ok(encoded
        .keys()
        .iter()
        .map(|key| key.and_then(|k| shared[k as usize].clone()))
        .collect())
}

/// Texts with their distinct values apart: what pandas reads as a categorical.
pub fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Encodes texts so that each distinct one stands once, in the order of its first row.
pub fn to_dictionary<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Result<DictionaryArray<Int32Type>> {
    let mut positions: std::collections::HashMap<&'a str, i32> = std::collections::HashMap::new();
    let mut words: Vec<&'a str> = Vec::new();
    let mut keys: Vec<Option<i32>> = Vec::new();
    for text in texts {
        keys.push(text.map(|text| {
            *positions.entry(text).or_insert_with(|| {
                words.push(text);
                words.len() as i32 - 1
            })
        }));
    }
    Ok(DictionaryArray::try_new(
        Int32Array::from(keys),
        Arc::new(StringArray::from(words)),
    )?)
}

/// Labels of rows, `None` where the truth is not known.
#[derive(Debug, Clone, PartialEq)]
pub enum LabelColumn {
    /// Yes or no.
    Binary(Vec<Option<bool>>),
    /// A number.
    Regression(Vec<Option<f64>>),
    /// A class.
    Multiclass(Vec<Option<Arc<str>>>),
}

/// A label that does not answer the task's question: the row, and its value as text.
#[derive(Debug, Clone, PartialEq)]
pub struct BadLabel {
    /// From 0.
    pub row: usize,
    /// As text.
    pub value: String,
    /// What it should have been.
    pub expected: &'static str,
}

impl LabelColumn {
    /// No rows yet.
    pub fn empty(task: Task) -> Self {
        match task {
            Task::Binary => Self::Binary(Vec::new()),
            Task::Regression => Self::Regression(Vec::new()),
            Task::Multiclass => Self::Multiclass(Vec::new()),
        }
    }

    /// Appends one label.
    pub fn push(&mut self, value: Option<&LabelValue>) -> Result<(), BadLabel> {
        let row = self.len();
        let bad = |expected: &'static str| BadLabel {
            row,
            value: value.map(LabelValue::as_class).unwrap_or_default(),
            expected,
        };
        match self {
            Self::Binary(rows) => rows.push(match value {
                None => None,
                Some(v) => Some(v.as_bool().ok_or_else(|| bad("true, false, 1 or 0"))?),
            }),
            Self::Regression(rows) => rows.push(match value {
                None => None,
                Some(v) => Some(
                    v.as_number()
                        .filter(|n| n.is_finite())
                        .ok_or_else(|| bad("a finite number"))?,
                ),
            }),
            Self::Multiclass(rows) => rows.push(value.map(|v| Arc::from(v.as_class()))),
        }
        Ok(())
    }

    /// Appends the labels of an array.
    pub fn extend(&mut self, array: &ArrayRef) -> Result<Result<(), BadLabel>> {
        if let Self::Multiclass(rows) = self {
            rows.extend(to_shared_texts(&label_texts(array)?)?);
            return Ok(Ok(()));
        }
        if is_number(array.data_type()) {
            for value in &to_numbers(array)? {
                if let Err(bad) = self.push(value.map(LabelValue::Number).as_ref()) {
                    return Ok(Err(bad));
                }
            }
        } else {
            for value in &to_texts(array)? {
                if let Err(bad) = self.push(value.map(|t| LabelValue::Text(t.to_owned())).as_ref()) {
                    return Ok(Err(bad));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Appends labels of the same task; those of another task change nothing.
    pub fn append(&mut self, other: Self) {
        match (self, other) {
            (Self::Binary(a), Self::Binary(b)) => a.extend(b),
            (Self::Regression(a), Self::Regression(b)) => a.extend(b),
            (Self::Multiclass(a), Self::Multiclass(b)) => a.extend(b),
            _ => debug_assert!(false, "labels of two tasks were joined"),
        }
    }

    /// The labels at `rows`, in that order.
    pub fn take(&self, rows: &[usize]) -> Self {
        match self {
            Self::Binary(v) => Self::Binary(rows.iter().map(|&i| v[i]).collect()),
            Self::Regression(v) => Self::Regression(rows.iter().map(|&i| v[i]).collect()),
            Self::Multiclass(v) => Self::Multiclass(rows.iter().map(|&i| v[i].clone()).collect()),
        }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Binary(rows) => rows.len(),
            Self::Regression(rows) => rows.len(),
            Self::Multiclass(rows) => rows.len(),
        }
    }

    /// The label of one row.
    pub fn get(&self, row: usize) -> Option<LabelValue> {
        match self {
            Self::Binary(rows) => rows[row].map(LabelValue::Bool),
            Self::Regression(rows) => rows[row].map(LabelValue::Number),
            Self::Multiclass(rows) => rows[row].as_ref().map(|c| LabelValue::Text(c.to_string())),
        }
    }
}

fn label_texts(array: &ArrayRef) -> Result<ArrayRef> {
    if is_text(array.data_type()) {
        return Ok(Arc::clone(array));
    }
    Ok(Arc::new(to_texts(array)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_become_texts_without_a_fraction_and_nan_is_missing() {
        let array: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(f64::NAN), None]));
        let texts = to_texts(&array).unwrap();
        assert_eq!(texts.iter().collect::<Vec<_>>(), [Some("1"), None, None]);
        assert_eq!(to_numbers(&array).unwrap().null_count(), 2);
    }

    #[test]
    fn labels_of_any_plain_type_are_read_and_others_named() {
        let mut labels = LabelColumn::empty(Task::Binary);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("true"), None, Some("0")]));
        labels.extend(&texts).unwrap().unwrap();
        assert_eq!(labels, LabelColumn::Binary(vec![Some(true), None, Some(false)]));
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![2.0]));
        let bad = labels.extend(&numbers).unwrap().unwrap_err();
        assert_eq!((bad.row, bad.value.as_str()), (3, "2"));
    }

    #[test]
    fn a_dictionary_keeps_the_order_of_first_rows() {
        let dictionary = to_dictionary([Some("b"), None, Some("a"), Some("b")].into_iter()).unwrap();
        let array: ArrayRef = Arc::new(dictionary);
        let texts = to_shared_texts(&array).unwrap();
        assert_eq!(texts[0].as_deref(), Some("b"));
        assert!(Arc::ptr_eq(
            texts[0].as_ref().unwrap(),
            texts[3].as_ref().unwrap()
        ));
        assert_eq!(texts[1], None);
    }
}
