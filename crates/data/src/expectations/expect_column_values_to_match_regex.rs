//! Each value matches a regular expression somewhere, as Python's `re.search` does.

use arrow::datatypes::DataType;
use datafusion::functions::regex::expr_fn::regexp_like;
use datafusion::logical_expr::{cast, ident, lit};
use serde_json::Value;

use super::Expectation;
use super::check::{Check, Refused, RowCheck, Unexpected};
use super::kwargs::Kwargs;

/// `expect_column_values_to_match_regex`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_column_values_to_match_regex",
    summary: "values match `regex` somewhere",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    let field = kwargs.column()?;
    let pattern = kwargs
        .get("regex")
        .and_then(Value::as_str)
        .ok_or_else(|| Refused("`regex` is missing: expected a regular expression".to_owned()))?;
    regex::Regex::new(pattern).map_err(|e| {
        Refused(format!(
            "`regex` `{pattern}` cannot be used (look-around and back-references are not supported): {e}"
        ))
    })?;
    let text = cast(ident(field.name()), DataType::Utf8);
    Ok(Check::Rows(RowCheck {
        column: field.name().clone(),
        unexpected: Unexpected::Where(!regexp_like(text, lit(pattern), None)),
        judges_nulls: false,
        mostly: kwargs.mostly()?,
    }))
}
