//! Distinct values over non-null values lies between two bounds.

use datafusion::functions_aggregate::expr_fn::{count, count_distinct};

use super::Expectation;
use super::bounds::{Bounds, share_between};
use super::check::{Check, Refused};
use super::kwargs::Kwargs;
use super::literal::Family;

/// `expect_column_proportion_of_unique_values_to_be_between`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_column_proportion_of_unique_values_to_be_between",
    summary: "distinct values over all values lies between `min_value` and `max_value`",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    let bounds = Bounds::read(kwargs, Family::Number)?.in_order()?;
    let value = kwargs.conditional(kwargs.value()?)?;
    Ok(share_between(count_distinct(value.clone()), count(value), bounds))
}
