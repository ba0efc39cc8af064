//! No value occurs twice; every row of a duplicated value is unexpected.

use super::Expectation;
use super::check::{Check, Refused, RowCheck, Unexpected};
use super::kwargs::Kwargs;

/// `expect_column_values_to_be_unique`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_column_values_to_be_unique",
    summary: "no value occurs twice",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    Ok(Check::Rows(RowCheck {
        column: kwargs.column()?.name().clone(),
        unexpected: Unexpected::Duplicates,
        judges_nulls: false,
        mostly: kwargs.mostly()?,
    }))
}
