//! Each value lies between two bounds.

use super::Expectation;
use super::bounds::Bounds;
use super::check::{Check, Refused, RowCheck, Unexpected};
use super::kwargs::Kwargs;

/// `expect_column_values_to_be_between`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_column_values_to_be_between",
    summary: "values lie between `min_value` and `max_value`",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    let bounds = Bounds::read(kwargs, kwargs.family()?)?
        .at_least_one()?
        .in_order()?;
    Ok(Check::Rows(RowCheck {
        column: kwargs.column()?.name().clone(),
        unexpected: Unexpected::Where(bounds.outside(&kwargs.value()?)),
        judges_nulls: false,
        mostly: kwargs.mostly()?,
    }))
}
