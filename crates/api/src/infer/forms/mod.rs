//! Rows in the forms in which the bodies of MLflow, SageMaker and Vertex AI hold them: as columns for an endpoint of the loop
//! ([`json`], [`csv`]), as tensors for a deployment (here).

pub(crate) mod csv;
pub(crate) mod json;
pub(crate) mod parquet;
pub(crate) mod reply;

use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use tidemill_core::servable::Interface;
use tidemill_core::tensors::{DataType, Tensor, TensorSpec};

use super::tensors::{Input, JsonTensor, typed};
use super::values::adapted;
use super::{Cell, FlatCells};
use crate::error::ApiError;

/// The names under which a body holds rows; exactly one of them.
pub(crate) const FORMS: [&str; 4] = ["dataframe_split", "dataframe_records", "inputs", "instances"];

/// Rows, not yet fitted to a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Form {
    /// Names, and rows of as many values.
    Split {
        columns: Vec<String>,
        rows: Vec<Vec<Value>>,
    },
    /// Rows: objects, arrays or bare values.
    Rows(Vec<Value>),
    /// Whole columns, or tensors, by name.
    Columns(Map<String, Value>),
}

impl Form {
    /// Takes the form out of a body that has exactly one.
    pub(crate) fn taken(body: &mut Map<String, Value>) -> Result<Self, ApiError> {
        let came: Vec<&str> = FORMS
            .into_iter()
            .filter(|name| body.get(*name).is_some_and(|value| !value.is_null()))
            .collect();
        let [name] = came[..] else {
            return Err(not_one(&came));
        };
        let value = body.shift_remove(name).unwrap_or_default();
        Self::of(name, value)
    }

    fn of(name: &str, value: Value) -> Result<Self, ApiError> {
        let expected = match (name, value) {
            ("dataframe_split", Value::Object(mut split)) => {
                let columns = split.shift_remove("columns").unwrap_or_default();
                let rows = split.shift_remove("data").unwrap_or_default();
                match (serde_json::from_value(columns), serde_json::from_value(rows)) {
                    (Ok(columns), Ok(rows)) => return Self::split(columns, rows),
                    _ => "an object with `columns`, a list of names, and `data`, a list of rows",
                }
            }
            ("dataframe_split", _) => "an object with `columns`, a list of names, and `data`, a list of rows",
            ("dataframe_records" | "instances" | "inputs", Value::Array(rows)) => {
                return Ok(Self::Rows(rows));
            }
            ("inputs", Value::Object(columns)) => return Ok(Self::Columns(columns)),
            // TensorFlow Serving's clients send a bare value as the only input.
            ("inputs", value) if !value.is_null() => return Ok(Self::Rows(vec![value])),
            ("inputs", _) => "an object of columns or a list of rows",
            _ => "a list of rows",
        };
        Err(
            ApiError::bad_request("bad_body", format!("`{name}` is not {expected}"))
                .with_details(json!({ "field": name })),
        )
    }

    fn split(columns: Vec<String>, rows: Vec<Vec<Value>>) -> Result<Self, ApiError> {
        for (i, row) in rows.iter().enumerate() {
            if row.len() != columns.len() {
                return Err(ApiError::bad_request(
                    "bad_body",
                    format!(
                        "`dataframe_split.data` row {i} has {} values, expected {}, one a column",
                        row.len(),
                        columns.len()
                    ),
                ));
            }
        }
        Ok(Self::Split { columns, rows })
    }

    /// The tensors that a deployment takes.
    pub(crate) fn into_tensors(self, interface: &Interface) -> Result<Vec<Tensor>, ApiError> {
        if interface.inputs.is_empty() {
            return self.undeclared();
        }
        let inputs = &interface.inputs;
        let mut tensors = Vec::with_capacity(inputs.len());
        let alone = inputs.iter().filter(|spec| !spec.optional).count() <= 1;
        for (position, spec) in inputs.iter().enumerate() {
            let values = match self.named(&spec.name) {
                Some(values) => values,
                None => {
                    let whole = (alone && position == 0).then(|| self.whole(spec)).flatten();
                    match whole.or_else(|| self.at(position, inputs.len())) {
                        Some(values) => values,
                        None if spec.optional => continue,
                        None => return Err(self.missing(&spec.name)),
                    }
                }
            };
            let mut tensor = fitted(spec, &values)?;
            if NATIVE_TABLES.contains(&interface.platform.as_str()) {
                tensor
                    .data
                    .iter_mut()
                    .for_each(|cell| *cell = plain(cell, spec.datatype));
            }
            tensors.push(Input::Json(tensor));
        }
        typed(tensors)
    }

    /// The values of one column or tensor, by its name.
    fn named(&self, name: &str) -> Option<Value> {
        match self {
            Self::Columns(columns) => columns.get(name).cloned(),
            Self::Split { columns, rows } => {
                let at = columns.iter().position(|column| column == name)?;
                Some(rows.iter().map(|row| row[at].clone()).collect())
            }
            Self::Rows(rows) => {
                let known = rows.iter().any(|row| row.get(name).is_some());
                let value = |row: &Value| row.get(name).cloned().unwrap_or_default();
                known.then(|| rows.iter().map(value).collect())
            }
        }
    }

    /// Which names came.
    fn names(&self) -> Vec<&str> {
        match self {
            Self::Columns(columns) => columns.keys().map(String::as_str).collect(),
            Self::Split { columns, .. } => columns.iter().map(String::as_str).collect(),
            Self::Rows(rows) => {
                let first = rows.iter().find_map(Value::as_object);
                first.map_or(Vec::new(), |row| row.keys().map(String::as_str).collect())
            }
        }
    }

    fn missing(&self, name: &str) -> ApiError {
        let came = self.names();
        let also = if came.is_empty() {
            String::new()
        } else {
            format!("; `{}` came", came.join("`, `"))
        };
        ApiError::bad_request("bad_body", format!("input `{name}` is missing{also}"))
            .with_details(json!({ "field": name, "came": came }))
    }

    /// All values, for a model with one input. Columns that have other names are the columns of a matrix, and never the one column that is
    /// wanted under its own.
    fn whole(&self, spec: &TensorSpec) -> Option<Value> {
        let matrix = spec.shape.len() > 1 && spec.shape.last() != Some(&1);
        match self {
            Self::Rows(rows) if rows.iter().any(Value::is_object) && !matrix => None,
            Self::Split { columns, .. } if !matrix && !columns.iter().all(|name| is_place(name)) => None,
            Self::Rows(rows) if rows.iter().any(Value::is_object) => {
                let list = |row: &Value| {
                    row.as_object()
                        .map(|row| row.values().cloned().collect::<Value>())
                };
                rows.iter().map(list).collect()
            }
            Self::Rows(rows) => Some(Value::Array(rows.clone())),
            Self::Split { rows, .. } => Some(rows.iter().map(|row| Value::Array(row.clone())).collect()),
            Self::Columns(_) => None,
        }
    }

    /// One column of rows that are arrays, by its place.
    fn at(&self, position: usize, width: usize) -> Option<Value> {
        let Self::Rows(rows) = self else {
            return None;
        };
        let value = |row: &Value| {
            let row = row.as_array().filter(|row| row.len() == width)?;
            Some(row[position].clone())
        };
        rows.iter().map(value).collect()
    }

    /// For a model that has not said what it takes: every column is a tensor of what it holds.
    fn undeclared(self) -> Result<Vec<Tensor>, ApiError> {
        let names: Vec<String> = match &self {
            Self::Columns(columns) => columns.keys().cloned().collect(),
            Self::Split { columns, .. } => columns.clone(),
            Self::Rows(rows) => match rows.first() {
                Some(Value::Object(row)) => row.keys().cloned().collect(),
                _ => {
                    let Self::Rows(rows) = self else {
                        return Ok(Vec::new());
                    };
                    let values = Value::Array(rows);
                    return typed(vec![Input::Json(guessed("input", &values)?)]);
                }
            },
        };
        let one = |name: &String| -> Result<Input, ApiError> {
            let values = self.named(name).unwrap_or_default();
            Ok(Input::Json(guessed(name, &values)?))
        };
        typed(names.iter().map(one).collect::<Result<_, _>>()?)
    }
}

pub(super) fn not_one(came: &[&str]) -> ApiError {
    let got = if came.is_empty() {
        "none".to_owned()
    } else {
        format!("`{}`", came.join("`, `"))
    };
    ApiError::bad_request(
        "bad_body",
        format!("expected exactly one of `{}`; {got} came", FORMS.join("`, `")),
    )
    .with_details(json!({ "expected": FORMS, "came": came }))
}

/// Whether a column is called by its place, as those are that came without names.
fn is_place(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// What runs models whose categories are texts, whatever pandas had in the column: numbers and truth values are their texts there.
const NATIVE_TABLES: [&str; 4] = ["lightgbm", "xgboost", "sklearn_trees", "perpetual"];

/// A value as such a model takes it.
fn plain(cell: &Cell, datatype: DataType) -> Cell {
    match (datatype, cell) {
        (DataType::Bytes, Cell::Int(value)) => Cell::Text(value.to_string().into()),
        (DataType::Bytes, Cell::UInt(value)) => Cell::Text(value.to_string().into()),
        (DataType::Bytes, Cell::Float(value)) => Cell::Text(format!("{value:?}").into()),
        (DataType::Bytes, Cell::Bool(value)) => Cell::Text(value.to_string().into()),
        (DataType::Fp64, Cell::Bool(value)) => Cell::Int(i64::from(*value)),
        _ => cell.clone(),
    }
}

/// Nested arrays as a tensor of the declared datatype and number of dimensions.
fn fitted(spec: &TensorSpec, values: &Value) -> Result<JsonTensor, ApiError> {
    let mut shape = extents(&spec.name, values)?;
    let rank = spec.shape.len();
    // A column is wanted with one value a row, or a row came without the others around it.
    if shape.len() + 1 == rank && spec.shape.last() == Some(&1) {
        shape.push(1);
    }
    while shape.len() < rank && spec.shape[rank - shape.len() - 1] <= 1 {
        shape.insert(0, 1);
    }
    while shape.len() > rank && shape.last() == Some(&1) {
        shape.pop();
    }
    Ok(JsonTensor {
        name: spec.name.clone(),
        shape,
        datatype: spec.datatype.name().to_owned(),
        data: cells(values)?
            .into_iter()
            .map(|cell| adapted(cell, spec.datatype))
            .collect(),
    })
}

fn guessed(name: &str, values: &Value) -> Result<JsonTensor, ApiError> {
    let shape = match extents(name, values)? {
        shape if shape.is_empty() => vec![1],
        shape => shape,
    };
    let data = cells(values)?;
    let datatype = match data.iter().find(|cell| **cell != Cell::Null) {
        Some(Cell::Text(_)) => DataType::Bytes,
        Some(Cell::Bool(_)) if !data.contains(&Cell::Null) => DataType::Bool,
        Some(Cell::Int(_)) if data.iter().all(|cell| matches!(cell, Cell::Int(_))) => DataType::Int64,
        _ => DataType::Fp64,
    };
    Ok(JsonTensor {
        name: name.to_owned(),
        shape,
        datatype: datatype.name().to_owned(),
        data,
    })
}

fn cells(values: &Value) -> Result<Vec<Cell>, ApiError> {
    let list = if values.is_array() {
        FlatCells::deserialize(values)
    } else {
        FlatCells::deserialize(&Value::Array(vec![values.clone()]))
    };
    list.map(|cells| cells.0)
        .map_err(|error| ApiError::bad_request("bad_body", error.to_string()))
}

/// The extents of nested arrays, which all have to agree.
fn extents(name: &str, values: &Value) -> Result<Vec<i64>, ApiError> {
    let mut shape = Vec::new();
    let mut level: Vec<&Value> = vec![values];
    while let Some(Value::Array(first)) = level.first() {
        let extent = first.len();
        let mut next = Vec::with_capacity(level.len() * extent);
        for value in level {
            match value {
                Value::Array(items) if items.len() == extent => next.extend(items),
                _ => {
                    return Err(ApiError::bad_request(
                        "bad_body",
                        format!("input `{name}`: its arrays differ in length or depth"),
                    )
                    .with_details(json!({ "field": name })));
                }
            }
        }
        shape.push(extent as i64);
        level = next;
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(inputs: &[(&str, DataType, &[i64])]) -> Interface {
        Interface {
            inputs: inputs
                .iter()
                .map(|(name, datatype, shape)| TensorSpec::new(*name, *datatype, shape.to_vec()))
                .collect(),
            ..Interface::default()
        }
    }

    fn form(mut body: Value) -> Form {
        Form::taken(body.as_object_mut().unwrap()).unwrap()
    }

    #[test]
    fn every_form_gives_the_same_columns() {
        let table = interface(&[("a", DataType::Fp64, &[-1]), ("b", DataType::Bytes, &[-1])]);
        let forms = [
            json!({"dataframe_split": {"columns": ["b", "a"], "data": [["x", 1], ["y", 2.5]]}}),
            json!({"dataframe_records": [{"a": 1, "b": "x"}, {"b": "y", "a": 2.5}]}),
            json!({"instances": [[1, "x"], [2.5, "y"]]}),
            json!({"inputs": {"a": [1, 2.5], "b": ["x", "y"]}}),
        ];
        for body in forms {
            let tensors = form(body.clone()).into_tensors(&table).unwrap();
            assert_eq!(tensors[0].to_f64().unwrap(), [1.0, 2.5], "{body}");
            assert_eq!((tensors[1].name.as_str(), tensors[1].rows()), ("b", 2), "{body}");
        }
    }

    #[test]
    fn a_matrix_comes_from_rows_or_from_columns_and_a_column_gets_its_dimension() {
        let matrix = interface(&[("x", DataType::Fp32, &[-1, 2])]);
        for body in [
            json!({"instances": [[1, 2], [3, 4]]}),
            json!({"inputs": [[1, 2], [3, 4]]}),
            json!({"inputs": {"x": [[1, 2], [3, 4]]}}),
            json!({"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}),
            json!({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}}),
            json!({"dataframe_records": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}),
        ] {
            let tensors = form(body.clone()).into_tensors(&matrix).unwrap();
            assert_eq!((tensors.len(), &tensors[0].shape), (1, &vec![2, 2]), "{body}");
            assert_eq!(tensors[0].to_f64().unwrap(), [1.0, 2.0, 3.0, 4.0]);
        }
        let column = interface(&[("x", DataType::Int64, &[-1, 1])]);
        let tensors = form(json!({"instances": [1, 2, 3]}))
            .into_tensors(&column)
            .unwrap();
        assert_eq!(tensors[0].shape, [3, 1]);
    }

    #[test]
    fn one_column_is_wanted_under_its_name_or_without_any() {
        let column = interface(&[("age", DataType::Int64, &[-1])]);
        for body in [
            json!({"dataframe_records": [{"age": 5}]}),
            json!({"instances": [5.0]}),
            json!({"instances": [[true]]}),
            json!({"dataframe_split": {"columns": ["0"], "data": [[5]]}}),
        ] {
            assert!(form(body.clone()).into_tensors(&column).is_ok(), "{body}");
        }
        for body in [
            json!({"dataframe_records": [{"income": 5}]}),
            json!({"instances": [{"income": 5}]}),
            json!({"inputs": {"income": [5]}}),
            json!({"dataframe_split": {"columns": ["income"], "data": [[5]]}}),
        ] {
            let error = form(body.clone()).into_tensors(&column).unwrap_err();
            assert_eq!(error.message, "input `age` is missing; `income` came", "{body}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let table = interface(&[("a", DataType::Fp64, &[-1]), ("b", DataType::Int8, &[-1])]);
        for (body, expected) in [
            (json!({"instances": [[1], [2]]}), "input `a` is missing"),
            (json!({"inputs": {"a": [1], "b": [300]}}), "`300` is not INT8"),
            (json!({"inputs": {"a": [[1], 2], "b": [1]}}), "differ in length"),
            (
                json!({"inputs": {"a": [1], "b": [null]}}),
                "only floats and texts",
            ),
        ] {
            let error = form(body.clone()).into_tensors(&table).unwrap_err();
            assert!(error.message.contains(expected), "{body}: {error}");
        }
        let mut both = json!({"inputs": [1], "instances": [1]});
        let error = Form::taken(both.as_object_mut().unwrap()).unwrap_err();
        assert!(error.message.contains("exactly one of"), "{error}");
    }
}
