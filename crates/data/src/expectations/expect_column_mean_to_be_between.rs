//! The mean lies between two bounds.

use arrow::datatypes::DataType;
use datafusion::functions_aggregate::expr_fn::avg;
use datafusion::logical_expr::cast;

use super::Expectation;
use super::bounds::{Bounds, aggregate_between};
use super::check::{Check, Refused};
use super::kwargs::Kwargs;
use super::literal::Family;

/// `expect_column_mean_to_be_between`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_column_mean_to_be_between",
    summary: "the mean lies between `min_value` and `max_value`",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    let family = kwargs.family()?;
    if !matches!(family, Family::Number | Family::Boolean) {
        let field = kwargs.column()?;
        return Err(Refused(format!(
            "column `{}` is {}, which has no mean: expected numbers or booleans",
            field.name(),
            field.data_type()
        )));
    }
    let bounds = Bounds::read(kwargs, family)?.in_order()?;
    let value = kwargs.conditional(cast(kwargs.value()?, DataType::Float64))?;
    Ok(aggregate_between(avg(value), bounds))
}
