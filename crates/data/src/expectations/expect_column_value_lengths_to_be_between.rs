//! The number of characters of each value lies between two bounds.

use datafusion::functions::unicode::expr_fn::character_length;

use super::Expectation;
use super::bounds::Bounds;
use super::check::{Check, Refused, RowCheck, Unexpected};
use super::kwargs::Kwargs;
use super::literal::Family;

/// `expect_column_value_lengths_to_be_between`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_column_value_lengths_to_be_between",
    summary: "values have `min_value` to `max_value` characters",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    let field = kwargs.column()?;
    if kwargs.family()? != Family::Text && !field.data_type().is_null() {
        return Err(Refused(format!(
            "column `{}` is {}, which has no length: expected text",
            field.name(),
            field.data_type()
        )));
    }
    let bounds = Bounds::read(kwargs, Family::Number)?.at_least_one()?;
    Ok(Check::Rows(RowCheck {
        column: field.name().clone(),
        unexpected: Unexpected::Where(bounds.outside(&character_length(kwargs.value()?))),
        judges_nulls: false,
        mostly: kwargs.mostly()?,
    }))
}
