//! All distinct values are in a set.

use super::Expectation;
use super::check::{Check, Refused, RowCheck, Unexpected};
use super::expect_column_values_to_be_in_set::in_set;
use super::kwargs::Kwargs;

/// `expect_column_distinct_values_to_be_in_set`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_column_distinct_values_to_be_in_set",
    summary: "all distinct values are in `value_set`",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    Ok(Check::Rows(RowCheck {
        column: kwargs.column()?.name().clone(),
        unexpected: Unexpected::DistinctWhere(in_set(kwargs, true)?),
        judges_nulls: false,
        mostly: 1.0,
    }))
}
