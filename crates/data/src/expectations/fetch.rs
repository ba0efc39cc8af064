//! Which values were unexpected, and where they stand: asked only of checks that found some.

use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, ExprFunctionExt, WindowFunctionDefinition, ident, lit};
use datafusion::scalar::ScalarValue;
use serde_json::{Map, Value, json};

use super::check::{RowCheck, Unexpected};
use super::evaluate::{Table, with_condition};
use super::literal::to_json;
use crate::error::Result;

const ROW: &str = "__tidemill_row";
const TIMES: &str = "__tidemill_times";

/// Unexpected values and their rows.
#[derive(Debug, Default)]
pub struct Failures {
    /// The values.
    pub values: Vec<Value>,
    /// For each: its row number, the index columns, and the value.
    pub index: Vec<Value>,
    /// What names a row.
    pub index_columns: Vec<String>,
}

impl Failures {
    /// How often each listed value occurs in the list, most frequent first.
    pub fn counts(&self) -> Value {
        let mut counts: Vec<(&Value, u64)> = Vec::new();
        for value in &self.values {
            match counts.iter_mut().find(|(known, _)| *known == value) {
                Some((_, n)) => *n += 1,
                None => counts.push((value, 1)),
            }
        }
        counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        counts
            .into_iter()
            .map(|(value, count)| json!({ "value": value, "count": count }))
            .collect()
    }
}

/// Rows whose value another row has too.
pub async fn count_duplicates(table: &Table, check: &RowCheck, row_condition: Option<&Expr>) -> Result<u64> {
    let column = ident(&check.column);
    let judged = with_condition(row_condition, Some(column.clone().is_not_null()));
    let total = table
        .rows
        .clone()
        .filter(judged)?
        .aggregate(vec![column.alias("value")], vec![count(lit(1_i64)).alias(TIMES)])?
        .filter(ident(TIMES).gt(lit(1_i64)))?
        .aggregate(vec![], vec![sum(ident(TIMES)).alias("total")])?
        .collect()
        .await?;
    for batch in &total {
        if let ScalarValue::Int64(Some(n)) = ScalarValue::try_from_array(batch.column(0), 0)? {
            return Ok(u64::try_from(n).unwrap_or(0));
        }
    }
    Ok(0)
}

/// The first unexpected values in the order of the rows.
pub async fn fetch(table: &Table, check: &RowCheck, row_condition: Option<&Expr>) -> Result<Failures> {
    let column = ident(&check.column);
    let present = (!check.judges_nulls).then(|| column.clone().is_not_null());
    let mut rows = table.rows.clone().window(vec![row_number().alias(ROW)])?;
    let judged = with_condition(row_condition, present);
    rows = match &check.unexpected {
        Unexpected::Where(unexpected) | Unexpected::DistinctWhere(unexpected) => {
            rows.filter(judged.and(unexpected.clone()))?
        }
        Unexpected::Duplicates => {
            let times = WindowFunction::new(
                WindowFunctionDefinition::AggregateUDF(count_udaf()),
                vec![lit(1_i64)],
            );
            let times = Expr::from(times).partition_by(vec![column.clone()]).build()?;
            rows.filter(judged)?
                .window(vec![times.alias(TIMES)])?
                .filter(ident(TIMES).gt(lit(1_i64)))?
        }
    };
    let index: Vec<&String> = table.index.iter().filter(|name| **name != check.column).collect();
    let mut wanted = vec![ident(ROW), column];
    wanted.extend(index.iter().map(|name| ident(*name)));
    let is_distinct = matches!(check.unexpected, Unexpected::DistinctWhere(_));
    // One row for each distinct value needs more rows than values; a few thousand are enough to find twenty.
    let limit = if is_distinct {
        table.limit * 500
    } else {
        table.limit
    };
    let batches = rows
        .select(wanted)?
        .sort(vec![ident(ROW).sort(true, false)])?
        .limit(0, Some(limit))?
        .collect()
        .await?;
    let mut failures = Failures {
        index_columns: std::iter::once("row")
            .chain(table.index.iter().map(String::as_str))
            .map(str::to_owned)
            .collect(),
        ..Failures::default()
    };
    for batch in &batches {
        for i in 0..batch.num_rows() {
            let cell = |c: usize| ScalarValue::try_from_array(batch.column(c), i).map(|v| to_json(&v));
            let value = cell(1)?;
            if failures.values.len() == table.limit || (is_distinct && failures.values.contains(&value)) {
                continue;
            }
            let mut place = Map::new();
            place.insert("row".to_owned(), json!(cell(0)?.as_u64().unwrap_or(1) - 1));
            for (c, name) in index.iter().enumerate() {
                place.insert((*name).clone(), cell(c + 2)?);
            }
            place.insert(check.column.clone(), value.clone());
            failures.values.push(value);
            failures.index.push(Value::Object(place));
        }
    }
    Ok(failures)
}
