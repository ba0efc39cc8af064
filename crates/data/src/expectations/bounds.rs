//! `min_value`, `max_value`, `strict_min`, `strict_max`.

use datafusion::logical_expr::{Expr, lit};
use datafusion::scalar::ScalarValue;
use serde_json::Value;

use super::check::{Check, Refused, observed};
use super::kwargs::Kwargs;
use super::literal::{Comparable, Family, to_json};

/// The bounds of an expectation.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    min: Option<Comparable>,
    max: Option<Comparable>,
    strict_min: bool,
    strict_max: bool,
}

impl Bounds {
    /// Reads the bounds for values of a family.
    pub fn read(kwargs: &Kwargs<'_>, family: Family) -> Result<Self, Refused> {
        let bound = |name: &str| match kwargs.get(name) {
            None => Ok(None),
            Some(value) => family.parse(value).map(Some).ok_or_else(|| {
                Refused(format!(
                    "`{name}` is {value}, which cannot be compared with the values: expected {}",
                    family.name()
                ))
            }),
        };
        Ok(Self {
            min: bound("min_value")?,
            max: bound("max_value")?,
            strict_min: kwargs.flag("strict_min", false)?,
            strict_max: kwargs.flag("strict_max", false)?,
        })
    }

    /// Refuses bounds that are both missing.
    pub fn at_least_one(self) -> Result<Self, Refused> {
        if self.min.is_none() && self.max.is_none() {
            return Err(Refused(
                "`min_value` and `max_value` are both missing: give at least one".to_owned(),
            ));
        }
        Ok(self)
    }

    /// Refuses bounds that nothing can satisfy.
    pub fn in_order(self) -> Result<Self, Refused> {
        if let (Some(min), Some(max)) = (&self.min, &self.max)
            && min > max
        {
            return Err(Refused(
                "`min_value` is greater than `max_value`: exchange them".to_owned(),
            ));
        }
        Ok(self)
    }

    /// Whether a value lies outside, as an expression.
    pub fn outside(&self, value: &Expr) -> Expr {
        let below = self.min.as_ref().map(|min| {
            if self.strict_min {
                value.clone().lt_eq(min.literal())
            } else {
                value.clone().lt(min.literal())
            }
        });
        let above = self.max.as_ref().map(|max| {
            if self.strict_max {
                value.clone().gt_eq(max.literal())
            } else {
                value.clone().gt(max.literal())
            }
        });
        match (below, above) {
            (Some(a), Some(b)) => a.or(b),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => lit(false),
        }
    }

    /// Whether a value lies inside. No value lies nowhere, unless there are no bounds.
    pub fn holds(&self, value: Option<&Comparable>) -> bool {
        let Some(value) = value else {
            return self.min.is_none() && self.max.is_none();
        };
        let above_min = self.min.as_ref().is_none_or(|min| {
            if self.strict_min {
                value > min
            } else {
                value >= min
            }
        });
        let below_max = self.max.as_ref().is_none_or(|max| {
            if self.strict_max {
                value < max
            } else {
                value <= max
            }
        });
        above_min && below_max
    }
}

/// A check that one aggregate lies within bounds.
pub fn aggregate_between(aggregate: Expr, bounds: Bounds) -> Check {
    Check::Aggregate {
        aggregates: vec![aggregate],
        judge: Box::new(move |values| {
            let value = values.first();
            let comparable = value.and_then(Comparable::of);
            observed(
                bounds.holds(comparable.as_ref()),
                value.map_or(Value::Null, to_json),
            )
        }),
    }
}

/// `part / whole` between bounds, 0 of nothing being no value.
pub fn share_between(part: Expr, whole: Expr, bounds: Bounds) -> Check {
    let number = |value: Option<&ScalarValue>| match value.and_then(Comparable::of) {
        Some(Comparable::Number(n)) => n,
        _ => 0.0,
    };
    Check::Aggregate {
        aggregates: vec![part, whole],
        judge: Box::new(move |values| {
            let whole = number(values.get(1));
            if whole == 0.0 {
                return observed(bounds.holds(None), Value::Null);
            }
            let share = number(values.first()) / whole;
            observed(
                bounds.holds(Some(&Comparable::Number(share))),
                serde_json::json!(share),
            )
        }),
    }
}
