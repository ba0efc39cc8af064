//! Each value is one of a set. Nulls in the set are ignored: a null value is missing, not unexpected.

use datafusion::logical_expr::{Expr, lit};
use serde_json::Value;

use super::Expectation;
use super::check::{Check, Refused, RowCheck, Unexpected};
use super::kwargs::Kwargs;
use super::literal::Family;

/// `expect_column_values_to_be_in_set`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_column_values_to_be_in_set",
    summary: "values are in `value_set`",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    Ok(Check::Rows(RowCheck {
        column: kwargs.column()?.name().clone(),
        unexpected: Unexpected::Where(in_set(kwargs, true)?),
        judges_nulls: false,
        mostly: kwargs.mostly()?,
    }))
}

/// Whether the value is in `value_set`, or with `negated`, is not. A member of another type than the column's equals no value.
pub fn in_set(kwargs: &Kwargs<'_>, negated: bool) -> Result<Expr, Refused> {
    let family = kwargs.family()?;
    let members: Vec<Expr> = kwargs
        .list("value_set")?
        .iter()
        .filter_map(|value| member(family, value))
        .collect();
    if members.is_empty() {
        return Ok(lit(negated));
    }
    Ok(kwargs.value()?.in_list(members, negated))
}

fn member(family: Family, value: &Value) -> Option<Expr> {
    family.parse(value).map(|v| v.literal())
}
