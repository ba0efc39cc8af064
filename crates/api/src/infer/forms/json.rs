//! The four JSON forms of a scoring request, for an endpoint of the loop.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::{FORMS, not_one};
use crate::error::ApiError;
use crate::extract::parse_json;
use crate::infer::{Call, Cell, CellColumn, Cells, Findings, Record};

#[derive(Deserialize)]
struct Request {
    dataframe_split: Option<Split>,
    dataframe_records: Option<Vec<Record>>,
    inputs: Option<Inputs>,
    instances: Option<Vec<Cells>>,
    params: Option<Value>,
}

/// pandas' `orient="split"`; the index is read past.
#[derive(Deserialize)]
struct Split {
    columns: Vec<String>,
    data: Vec<Vec<Cell>>,
}

/// TensorFlow Serving's column form, or rows.
enum Inputs {
    Columns(Vec<(String, Cells)>),
    Rows(Vec<Cells>),
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InputsVisitor;
        impl<'de> Visitor<'de> for InputsVisitor {
            type Value = Inputs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of columns or an array of rows")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Inputs, A::Error> {
                let mut rows = Vec::new();
                while let Some(row) = seq.next_element()? {
                    rows.push(row);
                }
                Ok(Inputs::Rows(rows))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Inputs, A::Error> {
                let mut columns = Vec::new();
                while let Some(column) = map.next_entry()? {
                    columns.push(column);
                }
                Ok(Inputs::Columns(columns))
            }
        }
        deserializer.deserialize_any(InputsVisitor)
    }
}

/// The columns, and the caller's id of the request from `params.request_id`.
pub(crate) fn read(body: &[u8], call: &Call) -> Result<(Vec<CellColumn>, Option<String>), ApiError> {
    let request: Request = parse_json(body)?;
    let id = request_id(request.params.as_ref())?;
    // In the order of `FORMS`.
    let given = [
        request.dataframe_split.is_some(),
        request.dataframe_records.is_some(),
        request.inputs.is_some(),
        request.instances.is_some(),
    ];
    let came: Vec<&str> = FORMS
        .into_iter()
        .zip(given)
        .filter_map(|(name, here)| here.then_some(name))
        .collect();
    if came.len() != 1 {
        return Err(not_one(&came));
    }

    let mut findings = Findings::default();
    let columns = if let Some(split) = request.dataframe_split {
        from_lists("dataframe_split.data", split.columns, split.data, &mut findings)
    } else if let Some(records) = request.dataframe_records {
        from_records(records.into_iter().map(|record| record.0).collect())
    } else if let Some(rows) = request.instances {
        from_rows("instances", rows, call, &mut findings)
    } else {
        match request.inputs {
            Some(Inputs::Columns(columns)) => from_columns(columns, &mut findings),
            Some(Inputs::Rows(rows)) => from_rows("inputs", rows, call, &mut findings),
            None => Vec::new(),
        }
    };
    findings.finish()?;
    Ok((columns, id))
}

fn request_id(params: Option<&Value>) -> Result<Option<String>, ApiError> {
    let wrong = |got: &Value, field: &str, expected: &str| {
        let message = format!("`{field}` is `{got}`, expected {expected}");
        ApiError::bad_request("bad_body", message).with_details(json!({ "field": field }))
    };
    match params {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(params)) => match params.get("request_id") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(id)) => Ok(Some(id.clone())),
            Some(other) => Err(wrong(other, "params.request_id", "a text")),
        },
        Some(other) => Err(wrong(other, "params", "an object")),
    }
}

/// Rows of equal length under the given names.
fn from_lists(
    form: &str,
    names: Vec<String>,
    rows: Vec<Vec<Cell>>,
    findings: &mut Findings,
) -> Vec<CellColumn> {
    let mut columns: Vec<CellColumn> = names
        .into_iter()
        .map(|name| CellColumn {
            name,
            cells: Vec::with_capacity(rows.len()),
        })
        .collect();
    for (i, row) in rows.into_iter().enumerate() {
        if row.len() != columns.len() {
            let got = format!("an array of {} values", row.len());
            findings.row(form, i, &got, format!("{}, one a column", columns.len()));
            continue;
        }
        for (column, cell) in columns.iter_mut().zip(row) {
            column.cells.push(cell);
        }
    }
    columns
}

/// Objects; a column that some rows lack is missing there, as pandas reads it.
fn from_records(records: Vec<Vec<(String, Cell)>>) -> Vec<CellColumn> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut columns: Vec<CellColumn> = Vec::new();
    for (row, record) in records.into_iter().enumerate() {
        for (i, (name, cell)) in record.into_iter().enumerate() {
            // Most clients write the same columns in the same order in every row.
            let guess = columns
                .get(i)
                .is_some_and(|column| column.name == name)
                .then_some(i);
            let place = guess.or_else(|| places.get(&name).copied()).unwrap_or_else(|| {
                places.insert(name.clone(), columns.len());
                columns.push(CellColumn {
                    name,
                    cells: Vec::new(),
                });
                columns.len() - 1
            });
            let cells = &mut columns[place].cells;
            cells.resize(row, Cell::Null);
            cells.push(cell);
        }
        for column in &mut columns {
            column.cells.resize(row + 1, Cell::Null);
        }
    }
    columns
}

/// Columns by name; a bare value is a column of one row.
fn from_columns(columns: Vec<(String, Cells)>, findings: &mut Findings) -> Vec<CellColumn> {
    let mut read = Vec::with_capacity(columns.len());
    for (name, cells) in columns {
        let cells = match cells {
            Cells::List(cells) => cells,
            Cells::One(cell) => vec![cell],
            Cells::Record(_) => {
                findings.field(&name, "an object", "an array of values, one a row".to_owned());
                continue;
            }
        };
        read.push(CellColumn { name, cells });
    }
    read
}

/// Rows as objects, as arrays in the schema's order, or as bare values of a single feature; all of one sort.
fn from_rows(form: &str, rows: Vec<Cells>, call: &Call, findings: &mut Findings) -> Vec<CellColumn> {
    let names = || -> Vec<String> {
        call.route
            .schema
            .features
            .iter()
            .map(|f| f.name.clone())
            .collect()
    };
    if matches!(rows.first(), Some(Cells::Record(_))) {
        let mut records = Vec::with_capacity(rows.len());
        for (i, row) in rows.into_iter().enumerate() {
            match row {
                Cells::Record(record) => records.push(record),
                Cells::List(_) | Cells::One(_) => {
                    findings.row(form, i, "an array or a value", "an object as in row 0".to_owned());
                }
            }
        }
        return from_records(records);
    }
    let mut lists = Vec::with_capacity(rows.len());
    for (i, row) in rows.into_iter().enumerate() {
        match row {
            Cells::List(list) => lists.push(list),
            Cells::One(cell) => lists.push(vec![cell]),
            Cells::Record(_) => findings.row(form, i, "an object", "an array as in row 0".to_owned()),
        }
    }
    from_lists(form, names(), lists, findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_lack_a_column_are_missing_there() {
        let records = serde_json::from_str::<Vec<Record>>(r#"[{"a":1},{"b":2,"a":3},{"b":4}]"#).unwrap();
        let columns = from_records(records.into_iter().map(|r| r.0).collect());
        assert_eq!(columns[0].name, "a");
        assert_eq!(columns[0].cells, [Cell::Int(1), Cell::Int(3), Cell::Null]);
        assert_eq!(columns[1].cells, [Cell::Null, Cell::Int(2), Cell::Int(4)]);
    }
}
