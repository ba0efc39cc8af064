//! A scoring request as CSV with a header line; the schema says which columns are numbers.

use std::sync::Arc;

use tidemill_core::frame::FeatureKind;

use crate::error::ApiError;
use crate::infer::{Call, Cell, CellColumn};

/// What pandas reads as missing in a column of numbers.
const MISSING: [&str; 7] = ["", "NA", "N/A", "NaN", "nan", "null", "NULL"];

pub(super) fn read(body: &[u8], call: &Call) -> Result<Vec<CellColumn>, ApiError> {
    let mut reader = csv::ReaderBuilder::new().from_reader(body);
    let header = reader.headers().map_err(|error| malformed(&error))?;
    let mut columns: Vec<CellColumn> = header
        .iter()
        .map(|name| CellColumn {
            name: name.to_owned(),
            cells: Vec::new(),
        })
        .collect();
    let schema = &call.route.schema;
    let numeric: Vec<bool> = columns
        .iter()
        .map(|column| {
            let feature = schema.index_of(&column.name).map(|i| &schema.features[i]);
            feature.is_some_and(|feature| feature.kind == FeatureKind::Numeric)
        })
        .collect();
    for record in reader.records() {
        let record = record.map_err(|error| malformed(&error))?;
        for (i, text) in record.iter().enumerate() {
            columns[i].cells.push(cell(text, numeric[i]));
        }
    }
    Ok(columns)
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
