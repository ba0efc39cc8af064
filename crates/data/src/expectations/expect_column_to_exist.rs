//! The column is there, and where `column_index` is given, at that place.

use serde_json::{Map, Value};

use super::Expectation;
use super::check::{Check, Refused, Verdict};
use super::kwargs::Kwargs;

/// `expect_column_to_exist`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_column_to_exist",
    summary: "the column is there, at `column_index` if given",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    let name = kwargs.column_name()?;
    let found = kwargs.columns().position(|column| column == name);
    let wanted = kwargs.get("column_index").and_then(Value::as_u64);
    let success = found.is_some_and(|index| wanted.is_none_or(|wanted| wanted == index as u64));
    Ok(Check::Schema(Verdict {
        success,
        result: Map::new(),
    }))
}
