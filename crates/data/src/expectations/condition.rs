//! `row_condition`: the object tree of Great Expectations 1.x, its small grammar, and the plain comparisons of pandas and Spark.

use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ident, lit};
use regex::{Captures, Regex};
use serde_json::Value;

use super::check::Refused;
use super::literal::Family;
use crate::error::suggest;
use crate::session::session;

/// Reads a condition on the rows of a table.
pub fn parse(value: &Value, schema: &SchemaRef) -> Result<Expr, Refused> {
    match value {
        Value::String(text) => parse_text(text, schema),
        Value::Object(_) => parse_tree(value, schema),
        other => Err(unreadable(other, "expected a text or an object")),
    }
}

fn unreadable(value: &Value, why: &str) -> Refused {
    Refused(format!("`row_condition` {value} cannot be read: {why}"))
}

fn parse_text(text: &str, schema: &SchemaRef) -> Result<Expr, Refused> {
    let refuse = |why: String| Refused(format!("`row_condition` `{text}` cannot be read: {why}"));
    let words = Regex::new(r#"col\(\s*["']([^"']+)["']\s*\)|"([^"]*)"|==|\.notnull\(\)"#)
        .map_err(|e| refuse(e.to_string()))?;
    let sql = words.replace_all(text, |found: &Captures<'_>| {
        if let Some(column) = found.get(1) {
            format!("\"{}\"", column.as_str())
        } else if let Some(literal) = found.get(2) {
            format!("'{}'", literal.as_str().replace('\'', "''"))
        } else if found[0] == *"==" {
            "=".to_owned()
        } else {
            " IS NOT NULL".to_owned()
        }
    });
    let schema = DFSchema::try_from(schema.as_ref().clone()).map_err(|e| refuse(e.strip_backtrace()))?;
    session()
        .parse_sql_expr(&sql, &schema)
        .map_err(|e| refuse(e.strip_backtrace()))
}

fn column_of(value: &Value, schema: &SchemaRef) -> Result<(Expr, Family), Refused> {
    let name = value["column"]["name"]
        .as_str()
        .ok_or_else(|| unreadable(value, "expected `column.name`"))?;
    let field = schema.field_with_name(name).map_err(|_| {
        let names = schema.fields().iter().map(|f| f.name().as_str());
        Refused(format!(
            "`row_condition` names column `{name}`, which is not there{}",
            suggest(name, names)
        ))
    })?;
    let family = Family::of(field.data_type())
        .ok_or_else(|| unreadable(value, "the column's values cannot be compared"))?;
    Ok((ident(name), family))
}

fn parse_tree(value: &Value, schema: &SchemaRef) -> Result<Expr, Refused> {
    match value["type"].as_str().unwrap_or_default() {
        "comparison" => comparison(value, schema),
        "nullity" => {
            let (column, _) = column_of(value, schema)?;
            Ok(if value["is_null"].as_bool() == Some(false) {
                column.is_not_null()
            } else {
                column.is_null()
            })
        }
        kind @ ("and" | "or") => {
            let parts = value["conditions"]
                .as_array()
                .filter(|parts| !parts.is_empty())
                .ok_or_else(|| unreadable(value, "expected a list `conditions`"))?;
            let mut whole: Option<Expr> = None;
            for part in parts {
                let part = parse_tree(part, schema)?;
                whole = Some(match whole {
                    None => part,
                    Some(left) if kind == "and" => left.and(part),
                    Some(left) => left.or(part),
                });
            }
            whole.ok_or_else(|| unreadable(value, "expected a list `conditions`"))
        }
        "pass_through" => match value["pass_through_filter"].as_str() {
            Some(text) => parse_text(text, schema),
            None => Err(unreadable(value, "expected `pass_through_filter`")),
        },
        _ => Err(unreadable(
            value,
            "expected `type` comparison, nullity, and, or, pass_through",
        )),
    }
}

fn comparison(value: &Value, schema: &SchemaRef) -> Result<Expr, Refused> {
    let (column, family) = column_of(value, schema)?;
    let literal = |parameter: &Value| {
        family
            .parse(parameter)
            .map(|v| v.literal())
            .ok_or_else(|| unreadable(value, &format!("expected {} as `parameter`", family.name())))
    };
    let parameter = &value["parameter"];
    Ok(match value["operator"].as_str().unwrap_or_default() {
        "==" => column.eq(literal(parameter)?),
        "!=" => column.not_eq(literal(parameter)?),
        "<" => column.lt(literal(parameter)?),
        "<=" => column.lt_eq(literal(parameter)?),
        ">" => column.gt(literal(parameter)?),
        ">=" => column.gt_eq(literal(parameter)?),
        operator @ ("IN" | "NOT_IN") => {
            let list = parameter
                .as_array()
                .ok_or_else(|| unreadable(value, "expected a list as `parameter`"))?;
            let list = list.iter().map(literal).collect::<Result<Vec<_>, _>>()?;
            if list.is_empty() {
                lit(operator == "NOT_IN")
            } else {
                column.in_list(list, operator == "NOT_IN")
            }
        }
        other => return Err(unreadable(value, &format!("`{other}` is no operator"))),
    })
}
