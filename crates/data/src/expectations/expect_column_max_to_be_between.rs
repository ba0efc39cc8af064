//! The largest value lies between two bounds.

use datafusion::functions_aggregate::expr_fn::max;

use super::Expectation;
use super::bounds::{Bounds, aggregate_between};
use super::check::{Check, Refused};
use super::kwargs::Kwargs;

/// `expect_column_max_to_be_between`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_column_max_to_be_between",
    summary: "the largest value lies between `min_value` and `max_value`",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    let bounds = Bounds::read(kwargs, kwargs.family()?)?
        .at_least_one()?
        .in_order()?;
    // In the column's own type, so that the observed value is written as the column writes it.
    let value = kwargs.conditional(kwargs.raw()?)?;
    Ok(aggregate_between(max(value), bounds))
}
