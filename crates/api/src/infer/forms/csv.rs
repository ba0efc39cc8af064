//! A scoring request as CSV; the schema says which columns are numbers.

use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_core::frame::FeatureKind;
use tidemill_core::servable::Interface;
use tidemill_core::tensors::DataType;

use super::Form;
use crate::error::ApiError;
use crate::infer::{Call, Cell, CellColumn};

/// What pandas reads as missing in a column of numbers.
const MISSING: [&str; 7] = ["", "NA", "N/A", "NaN", "nan", "null", "NULL"];

/// Whether the first line of a CSV body holds names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// It does.
    There,
    /// It does not: the values stand in the schema's order.
    Absent,
    /// It does if one of its fields is a name that the model knows.
    IfKnown,
}

impl Header {
    fn is_there(self, first: &csv::StringRecord, known: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::There => true,
            Self::Absent => false,
            Self::IfKnown => first.iter().any(|field| known(field.trim())),
        }
    }
}

/// Every line, as far as they have the same number of fields.
fn lines(body: &[u8]) -> Result<Vec<csv::StringRecord>, ApiError> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(body);
    let records: Result<Vec<_>, _> = reader.records().collect();
    records.map_err(|error| malformed(&error))
}

/// Columns for an endpoint of the loop.
pub(crate) fn read(body: &[u8], call: &Call, header: Header) -> Result<Vec<CellColumn>, ApiError> {
    let schema = &call.route.schema;
    let mut records = lines(body)?.into_iter().peekable();
    let features = || schema.features.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
    let known = |field: &str| schema.index_of(field).is_some() || call.key.as_deref() == Some(field);
    let names = match records.peek() {
        Some(first) if header.is_there(first, known) => {
            let names = first.iter().map(str::to_owned).collect();
            records.next();
            names
        }
        _ => features(),
    };
    let numeric: Vec<bool> = names
        .iter()
        .map(|name| {
            let feature = schema.index_of(name).map(|i| &schema.features[i]);
            feature.is_some_and(|feature| feature.kind == FeatureKind::Numeric)
        })
        .collect();
    let mut columns: Vec<CellColumn> = names
        .into_iter()
        .map(|name| CellColumn {
            name,
            cells: Vec::new(),
        })
        .collect();
    for (row, record) in records.enumerate() {
        check_width(row, record.len(), columns.len())?;
        for (i, text) in record.iter().enumerate() {
            columns[i].cells.push(cell(text, numeric[i]));
        }
    }
    Ok(columns)
}

fn check_width(row: usize, got: usize, expected: usize) -> Result<(), ApiError> {
    if got == expected {
        return Ok(());
    }
    Err(ApiError::bad_request(
        "malformed_csv",
        format!("row {row} has {got} values, expected {expected}, one a column"),
    ))
}

/// The line of names that is not there, for a model that reads CSV itself: its inputs', or numbers.
pub(crate) fn missing_header(
    body: &[u8],
    interface: &Interface,
    header: Header,
) -> Result<Option<Vec<u8>>, ApiError> {
    let inputs = &interface.inputs;
    if header == Header::There || header == Header::IfKnown && inputs.is_empty() {
        return Ok(None);
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(body);
    let first = match reader.records().next() {
        None => return Ok(None),
        Some(first) => first.map_err(|error| malformed(&error))?,
    };
    if header.is_there(&first, |field| inputs.iter().any(|spec| spec.name == field)) {
        return Ok(None);
    }
    let names: Vec<String> = if first.len() == inputs.len() {
        inputs.iter().map(|spec| spec.name.clone()).collect()
    } else {
        (0..first.len()).map(|i| i.to_string()).collect()
    };
    let mut line = csv::Writer::from_writer(Vec::new());
    line.write_record(names).map_err(|error| malformed(&error))?;
    line.into_inner()
        .map(Some)
        .map_err(|error| ApiError::internal("internal", error.to_string()))
}

/// Rows for a deployment.
pub(crate) fn form(body: &[u8], interface: &Interface, header: Header) -> Result<Form, ApiError> {
    let inputs = &interface.inputs;
    let spec = |name: &str| inputs.iter().find(|spec| spec.name == name);
    let mut records = lines(body)?.into_iter().peekable();
    let names: Vec<String> = match records.peek() {
        Some(first) if header.is_there(first, |field| spec(field).is_some()) => {
            let names = first.iter().map(str::to_owned).collect();
            records.next();
            names
        }
        Some(first) if first.len() == inputs.len() => inputs.iter().map(|spec| spec.name.clone()).collect(),
        Some(first) => (0..first.len()).map(|i| i.to_string()).collect(),
        None => Vec::new(),
    };
    // A matrix has one type for all of its columns.
    let of_all = match &inputs[..] {
        [one] => Some(one.datatype),
        _ => None,
    };
    let datatypes: Vec<Option<DataType>> = names
        .iter()
        .map(|name| spec(name).map(|spec| spec.datatype).or(of_all))
        .collect();
    let mut rows = Vec::new();
    for (row, record) in records.enumerate() {
        check_width(row, record.len(), names.len())?;
        let values = record.iter().zip(&datatypes);
        rows.push(values.map(|(text, datatype)| value(text, *datatype)).collect());
    }
    Ok(Form::Split { columns: names, rows })
}

/// A field as the datatype has it; where that is not known, a number if it looks like one.
fn value(text: &str, datatype: Option<DataType>) -> Value {
    if datatype == Some(DataType::Bytes) {
        return if text.is_empty() { Value::Null } else { json!(text) };
    }
    match cell(text, true) {
        Cell::Null => Value::Null,
        Cell::Bool(value) => json!(value),
        // An integer keeps its digits, and its type.
        Cell::Float(value) => text
            .trim()
            .parse::<i64>()
            .map_or_else(|_| json!(value), |i| json!(i)),
        _ => json!(text),
    }
}

fn cell(text: &str, numeric: bool) -> Cell {
    if !numeric {
        return if text.is_empty() {
            Cell::Null
        } else {
            Cell::Text(Arc::from(text))
        };
    }
    let trimmed = text.trim();
    if MISSING.contains(&trimmed) {
        return Cell::Null;
    }
    match trimmed {
        "true" | "True" | "TRUE" => Cell::Bool(true),
        "false" | "False" | "FALSE" => Cell::Bool(false),
        // What is no number stays a text: the guard then names the column, the row and the value.
        _ => trimmed
            .parse()
            .map_or_else(|_| Cell::Text(Arc::from(text)), Cell::Float),
    }
}

fn malformed(error: &csv::Error) -> ApiError {
    let place = error
        .position()
        .map_or(String::new(), |p| format!(" at line {}", p.line()));
    let reason = match error.kind() {
        csv::ErrorKind::Utf8 { err, .. } => format!("it is not UTF-8: {err}"),
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} fields, expected {expected_len} as in the header line"),
        _ => error.to_string(),
    };
    ApiError::bad_request(
        "malformed_csv",
        format!("the body is not valid CSV{place}: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::tensors::TensorSpec;

    #[test]
    fn a_header_line_is_made_where_none_came() {
        let input = |name: &str| TensorSpec::new(name, DataType::Fp64, vec![-1]);
        let known = Interface {
            inputs: vec![input("a"), input("b, c")],
            ..Interface::default()
        };
        let made = |body: &str, interface, header| {
            let line = missing_header(body.as_bytes(), interface, header).unwrap();
            line.map(|line| String::from_utf8(line).unwrap())
        };
        let names = Some("a,\"b, c\"\n".to_owned());
        assert_eq!(made("1,2\n", &known, Header::IfKnown), names);
        assert_eq!(made("1,2\n", &known, Header::Absent), names);
        assert_eq!(made("a,x\n1,2\n", &known, Header::IfKnown), None);
        assert_eq!(made("1,2\n", &known, Header::There), None);
        assert_eq!(
            made("1,2,3\n", &known, Header::Absent),
            Some("0,1,2\n".to_owned())
        );
        let unknown = Interface::default();
        assert_eq!(made("1,2\n", &unknown, Header::IfKnown), None);
        assert_eq!(made("", &known, Header::Absent), None);
    }
}
