//! The parameters of an expectation, and the table that they are about.

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::logical_expr::{Expr, cast, ident, lit, when};
use serde_json::{Map, Value};

use super::check::Refused;
use super::condition;
use super::literal::Family;
use crate::columns::utc_micros;
use crate::error::suggest;

/// Marks served rows in a table that has rows of both origins.
pub const SERVED: &str = "__tidemill_served";

/// The parameters of one expectation on one table.
pub struct Kwargs<'a> {
    values: &'a Map<String, Value>,
    schema: &'a SchemaRef,
    /// Columns that served rows of the table do not have.
    source_only: &'a [String],
}

impl<'a> Kwargs<'a> {
    /// Parameters for a table of these columns.
    pub fn new(
        values: &'a Map<String, Value>,
        schema: &'a SchemaRef,
        source_only: &'a [String],
    ) -> Result<Self, Refused> {
        for (name, value) in values {
            if value.as_object().is_some_and(|o| o.contains_key("$PARAMETER")) {
                return Err(Refused(format!(
                    "`{name}` is a suite parameter (`$PARAMETER`), which Tidemill does not fill in; write the value"
                )));
            }
        }
        Ok(Self {
            values,
            schema,
            source_only,
        })
    }

    /// A parameter that is there and not null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.values.get(name).filter(|v| !v.is_null())
    }

    /// The columns of the table.
    pub fn columns(&self) -> impl Iterator<Item = &'a str> {
        self.schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .filter(|name| *name != SERVED)
    }

    /// The name in `column`.
    pub fn column_name(&self) -> Result<&'a str, Refused> {
        self.get("column")
            .and_then(Value::as_str)
            .ok_or_else(|| Refused("`column` is missing: expected the name of a column".to_owned()))
    }

    /// The column that `column` names.
    pub fn column(&self) -> Result<&'a Field, Refused> {
        let name = self.column_name()?;
        self.schema.field_with_name(name).map_err(|_| {
            Refused(format!(
                "there is no column `{name}`{}",
                suggest(name, self.columns())
            ))
        })
    }

    /// What kind of values the column holds.
    pub fn family(&self) -> Result<Family, Refused> {
        let field = self.column()?;
        Family::of(field.data_type()).ok_or_else(|| {
            Refused(format!(
                "column `{}` is {}, whose values have no order; expected numbers, text, booleans or times",
                field.name(),
                field.data_type()
            ))
        })
    }

    /// The column's value as comparable with literals of its family.
    pub fn value(&self) -> Result<Expr, Refused> {
        let field = self.column()?;
        let column = ident(field.name());
        Ok(match self.family()? {
            Family::Time => cast(column, utc_micros()),
            Family::Text if *field.data_type() != DataType::Utf8 => cast(column, DataType::Utf8),
            Family::Boolean => cast(column, DataType::Int64),
            Family::Text | Family::Number => column,
        })
    }

    /// The column's value as it is, dictionaries and booleans apart, which no aggregate orders.
    pub fn raw(&self) -> Result<Expr, Refused> {
        match self.family()? {
            Family::Number | Family::Time => Ok(ident(self.column()?.name())),
            Family::Text | Family::Boolean => self.value(),
        }
    }

    /// The value where the row condition holds, else null: what an aggregate is computed over.
    pub fn conditional(&self, value: Expr) -> Result<Expr, Refused> {
        match self.row_condition()? {
            None => Ok(value),
            Some(condition) => when(condition, value)
                .end()
                .map_err(|e| Refused(e.strip_backtrace())),
        }
    }

    /// Which rows count: `row_condition`, and source rows only if served rows lack the column.
    pub fn row_condition(&self) -> Result<Option<Expr>, Refused> {
        let asked = match self.get("row_condition") {
            None => None,
            Some(value) => Some(condition::parse(value, self.schema)?),
        };
        let lacking = self
            .get("column")
            .and_then(Value::as_str)
            .is_some_and(|name| self.source_only.iter().any(|c| c == name));
        let source_rows = lacking.then(|| ident(SERVED).eq(lit(false)));
        Ok(match (asked, source_rows) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (a, b) => a.or(b),
        })
    }

    /// `mostly`: 1 unless given.
    pub fn mostly(&self) -> Result<f64, Refused> {
        match self.get("mostly") {
            None => Ok(1.0),
            Some(value) => value
                .as_f64()
                .filter(|share| (0.0..=1.0).contains(share))
                .ok_or_else(|| Refused(format!("`mostly` is {value}: expected a number from 0 to 1"))),
        }
    }

    /// A parameter that is true or false.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Refused> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| Refused(format!("`{name}` is {value}: expected true or false"))),
        }
    }

    /// A parameter that is a list.
    pub fn list(&self, name: &str) -> Result<&'a [Value], Refused> {
        match self.get(name) {
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(Refused(format!("`{name}` is {other}: expected a list"))),
            None => Err(Refused(format!("`{name}` is missing: expected a list"))),
        }
    }
}
