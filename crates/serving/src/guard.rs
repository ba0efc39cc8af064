//! The guard at the door: JSON-like columns become a typed frame, or an error that names field, row and value.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::frame::{Column, FeatureKind, FeatureSchema, Frame};
use tidemill_core::spec::{InputSpec, TextPolicy};

/// So many findings are told; the rest is counted.
pub const MAX_FINDINGS: usize = 20;

/// A value as a protocol delivers it.
#[derive(Debug, Clone, PartialEq)]
pub enum RawValue {
    /// Missing.
    Null,
    /// Yes or no.
    Bool(bool),
    /// Any number.
    Number(f64),
    /// Text.
    Text(Arc<str>),
}

impl fmt::Display for RawValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => fmt::Display::fmt(value, f),
            Self::Number(value) => fmt::Display::fmt(value, f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// A named column as a protocol delivers it.
#[derive(Debug, Clone, PartialEq)]
pub struct RawColumn {
    /// The field's name.
    pub name: String,
    /// One value a row.
    pub values: Vec<RawValue>,
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The field.
    pub field: String,
    /// The row, from 0, where one row is at fault.
    pub row: Option<usize>,
    /// The value that came, where one came.
    pub value: Option<String>,
    /// What would have fitted.
    pub expected: String,
    /// All of it in a sentence.
    pub message: String,
}

/// What does not fit the endpoint's schema: all of it, up to [`MAX_FINDINGS`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, thiserror::Error)]
pub struct SchemaError {
    /// What was found, in the schema's order.
    pub findings: Vec<Finding>,
    /// How many more there were.
    pub omitted: usize,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request does not fit the endpoint's schema: ")?;
        for (i, finding) in self.findings.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}", finding.message)?;
        }
        if self.omitted > 0 {
            write!(f, "; and {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl SchemaError {
    /// An error of one finding.
    pub fn of(finding: Finding) -> Self {
        Self {
            findings: vec![finding],
            omitted: 0,
        }
    }

    pub(crate) fn push(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.omitted += 1;
        }
    }
}

/// Turns a request's columns into a frame of the route's schema. A numeric feature takes numbers and booleans; a categorical one
/// takes texts, and numbers and booleans in their text form; null is missing in both. Columns that the schema does not know are ignored.
///
/// # Errors
/// All that does not fit, up to [`MAX_FINDINGS`].
pub fn coerce(schema: &Arc<FeatureSchema>, columns: Vec<RawColumn>) -> Result<Frame, SchemaError> {
    coerce_by(InputSpec::default(), schema, columns)
}

/// As [`coerce`], by the endpoint's own rules for texts and missing values.
///
/// # Errors
/// All that does not fit, up to [`MAX_FINDINGS`].
pub fn coerce_by(
    rules: InputSpec,
    schema: &Arc<FeatureSchema>,
    columns: Vec<RawColumn>,
) -> Result<Frame, SchemaError> {
    let mut error = SchemaError::default();
    let rows = columns.first().map_or(0, |column| column.values.len());
    if rows == 0 && !columns.is_empty() {
        error.push(Finding {
            field: columns[0].name.clone(),
            row: None,
            value: None,
            expected: "at least one row".to_owned(),
            message: "the request has no rows; expected at least one".to_owned(),
        });
    }

    let first_name = columns
        .first()
        .map(|column| column.name.clone())
        .unwrap_or_default();
    let mut by_name: HashMap<String, RawColumn> = HashMap::with_capacity(columns.len());
    for column in columns {
        check_length(&column, rows, &first_name, &mut error);
        if let Some(earlier) = by_name.insert(column.name.clone(), column) {
            error.push(Finding {
                message: format!("field `{}` came twice; send it once", earlier.name),
                field: earlier.name,
                row: None,
                value: None,
                expected: "each field once".to_owned(),
            });
        }
    }

    let mut typed = Vec::with_capacity(schema.features.len());
    let mut missing = Vec::new();
    for feature in &schema.features {
        let Some(raw) = by_name.remove(&feature.name) else {
            missing.push(feature);
            continue;
        };
        typed.push(match feature.kind {
            FeatureKind::Numeric => numeric(rules, &raw, &mut error),
            FeatureKind::Categorical => categorical(raw, &mut error),
        });
    }
    for feature in missing {
        let close = by_name
            .keys()
            .filter(|extra| edit_distance(extra, &feature.name) <= 2.max(feature.name.len() / 4))
            .min_by_key(|extra| (edit_distance(extra, &feature.name), (*extra).clone()));
        let hint = close.map_or(String::new(), |extra| {
            format!("; `{extra}` came, did you mean `{}`?", feature.name)
        });
        error.push(Finding {
            field: feature.name.clone(),
            row: None,
            value: None,
            expected: kind_name(feature.kind).to_owned(),
            message: format!(
                "field `{}` is missing, expected {}{hint}",
                feature.name,
                kind_name(feature.kind)
            ),
        });
    }

    if !error.findings.is_empty() {
        return Err(error);
    }
    Frame::new(Arc::clone(schema), typed).map_err(|wrong| {
        SchemaError::of(Finding {
            field: String::new(),
            row: None,
            value: None,
            expected: "columns that fit the schema".to_owned(),
            message: wrong.to_string(),
        })
    })
}

fn check_length(column: &RawColumn, rows: usize, first_name: &str, error: &mut SchemaError) {
    let got = column.values.len();
    if got != rows {
        error.push(Finding {
            field: column.name.clone(),
            row: None,
            value: Some(got.to_string()),
            expected: format!("{rows} rows"),
            message: format!(
                "field `{}` has {got} rows, expected {rows} as in `{first_name}`",
                column.name
            ),
        });
    }
}

pub(crate) fn kind_name(kind: FeatureKind) -> &'static str {
    match kind {
        FeatureKind::Numeric => "a number",
        FeatureKind::Categorical => "a text",
    }
}

pub(crate) fn wrong_value(name: &str, row: usize, value: &RawValue, expected: &'static str) -> Finding {
    let mut shown = value.to_string();
    if shown.chars().count() > 80 {
        shown = shown.chars().take(80).chain("…".chars()).collect();
    }
    Finding {
        field: name.to_owned(),
        row: Some(row),
        message: format!("field `{name}` row {row}: `{shown}` is not {expected}"),
        value: Some(shown),
        expected: expected.to_owned(),
    }
}

const FINITE: &str = "a finite number; send null for a missing value";

fn numeric(rules: InputSpec, raw: &RawColumn, error: &mut SchemaError) -> Column {
    let mut values = Vec::with_capacity(raw.values.len());
    for (row, value) in raw.values.iter().enumerate() {
        values.push(match value {
            RawValue::Null => f64::NAN,
            RawValue::Bool(value) => f64::from(u8::from(*value)),
            RawValue::Number(number) if number.is_finite() => *number,
            RawValue::Number(_) => {
                error.push(wrong_value(&raw.name, row, value, FINITE));
                f64::NAN
            }
            RawValue::Text(text) if rules.texts == TextPolicy::Read && reads(text).is_some() => {
                reads(text).unwrap_or(f64::NAN)
            }
            RawValue::Text(_) => {
                error.push(wrong_value(&raw.name, row, value, "a number"));
                f64::NAN
            }
        });
    }
    Column::Numeric(values)
}

/// The number that a text stands for: missing if it is empty; `None` if it is something else.
fn reads(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(f64::NAN);
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn categorical(raw: RawColumn, error: &mut SchemaError) -> Column {
    let mut values = Vec::with_capacity(raw.values.len());
    for (row, value) in raw.values.into_iter().enumerate() {
        values.push(match value {
            RawValue::Null => None,
            RawValue::Text(text) => Some(text),
            RawValue::Number(number) if !number.is_finite() => {
                error.push(wrong_value(&raw.name, row, &value, FINITE));
                None
            }
            RawValue::Bool(_) | RawValue::Number(_) => Some(Arc::from(value.to_string())),
        });
    }
    Column::Categorical(values)
}

/// Levenshtein's distance without regard to case, for "did you mean".
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut line = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replace = above[j] + usize::from(x != y);
            line.push(replace.min(above[j + 1] + 1).min(line[j] + 1));
        }
        above = line;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::frame::Feature;

    fn schema() -> Arc<FeatureSchema> {
        let feature = |name: &str, kind| Feature {
            name: name.to_owned(),
            kind,
        };
        Arc::new(FeatureSchema {
            features: vec![
                feature("distance", FeatureKind::Numeric),
                feature("carrier", FeatureKind::Categorical),
            ],
        })
    }

    fn column(name: &str, values: Vec<RawValue>) -> RawColumn {
        RawColumn {
            name: name.to_owned(),
            values,
        }
    }

    #[test]
    fn values_that_fit_become_columns_in_the_schemas_order_and_extra_ones_are_ignored() {
        let columns = vec![
            column("extra", vec![RawValue::Null; 3]),
            column(
                "carrier",
                vec![
                    RawValue::Text("UA".into()),
                    RawValue::Number(3.0),
                    RawValue::Bool(true),
                ],
            ),
            column(
                "distance",
                vec![RawValue::Number(1.5), RawValue::Bool(true), RawValue::Null],
            ),
        ];
        let frame = coerce(&schema(), columns).unwrap();
        let Column::Numeric(distance) = &frame.columns()[0] else {
            panic!("distance is numeric")
        };
        assert_eq!(distance[..2], [1.5, 1.0]);
        assert!(distance[2].is_nan());
        let texts = [Some("UA".into()), Some("3".into()), Some("true".into())];
        assert_eq!(frame.columns()[1], Column::Categorical(texts.to_vec()));
    }

    #[test]
    fn all_that_does_not_fit_is_named_at_once() {
        let columns = vec![
            column(
                "distance",
                vec![RawValue::Text("12".into()), RawValue::Number(f64::INFINITY)],
            ),
            column("carier", vec![RawValue::Text("UA".into())]),
        ];
        let error = coerce(&schema(), columns).unwrap_err();
        let messages: Vec<&str> = error.findings.iter().map(|f| f.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "field `carier` has 1 rows, expected 2 as in `distance`",
                "field `distance` row 0: `12` is not a number",
                "field `distance` row 1: `inf` is not a finite number; send null for a missing value",
                "field `carrier` is missing, expected a text; `carier` came, did you mean `carrier`?",
            ]
        );
        assert_eq!(error.findings[1].row, Some(0));
        assert_eq!(error.findings[1].value.as_deref(), Some("12"));
    }

    #[test]
    fn an_endpoint_may_read_texts_as_numbers() {
        let columns = |distance: &str| {
            vec![
                column("distance", vec![RawValue::Text(distance.into())]),
                column("carrier", vec![RawValue::Text("UA".into())]),
            ]
        };
        let rules = InputSpec {
            texts: TextPolicy::Read,
            ..InputSpec::default()
        };
        let frame = coerce_by(rules, &schema(), columns(" 12.5 ")).unwrap();
        assert_eq!(frame.columns()[0], Column::Numeric(vec![12.5]));
        for wrong in ["twelve", "inf", "NaN"] {
            assert!(coerce_by(rules, &schema(), columns(wrong)).is_err(), "{wrong}");
        }
        let missing = coerce_by(rules, &schema(), columns("")).unwrap();
        let Column::Numeric(values) = &missing.columns()[0] else {
            panic!("distance is numeric")
        };
        assert!(values[0].is_nan());
    }

    #[test]
    fn findings_are_bounded_and_the_rest_is_counted() {
        let columns = vec![
            column("distance", vec![RawValue::Text("x".into()); 50]),
            column("carrier", vec![RawValue::Null; 50]),
        ];
        let error = coerce(&schema(), columns).unwrap_err();
        assert_eq!((error.findings.len(), error.omitted), (20, 30));
        assert!(error.to_string().ends_with("; and 30 more"));
    }

    #[test]
    fn no_rows_and_repeated_fields_are_refused() {
        let empty = vec![column("distance", vec![]), column("carrier", vec![])];
        assert!(
            coerce(&schema(), empty)
                .unwrap_err()
                .to_string()
                .contains("no rows")
        );
        let one = || column("distance", vec![RawValue::Null]);
        let twice = vec![one(), one(), column("carrier", vec![RawValue::Null])];
        assert!(
            coerce(&schema(), twice)
                .unwrap_err()
                .to_string()
                .contains("came twice")
        );
        assert_eq!(coerce(&schema(), vec![]).unwrap_err().findings.len(), 2);
    }
}
