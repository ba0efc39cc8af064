//! The number of rows lies between two bounds.

use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::lit;

use super::Expectation;
use super::bounds::{Bounds, aggregate_between};
use super::check::{Check, Refused};
use super::kwargs::Kwargs;
use super::literal::Family;

/// `expect_table_row_count_to_be_between`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_table_row_count_to_be_between",
    summary: "the number of rows lies between `min_value` and `max_value`",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    let bounds = Bounds::read(kwargs, Family::Number)?.in_order()?;
    Ok(aggregate_between(count(kwargs.conditional(lit(1_i64))?), bounds))
}
