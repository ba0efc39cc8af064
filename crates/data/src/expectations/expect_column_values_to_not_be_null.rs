//! Values are there.

use datafusion::logical_expr::ident;

use super::Expectation;
use super::check::{Check, Refused, RowCheck, Unexpected};
use super::kwargs::Kwargs;

/// `expect_column_values_to_not_be_null`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_column_values_to_not_be_null",
    summary: "values are not null (NaN counts as null)",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    let field = kwargs.column()?;
    Ok(Check::Rows(RowCheck {
        column: field.name().clone(),
        unexpected: Unexpected::Where(ident(field.name()).is_null()),
        judges_nulls: true,
        mostly: kwargs.mostly()?,
    }))
}
