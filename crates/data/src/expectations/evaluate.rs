//! All checks of a suite in one scan.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::functions::math::expr_fn::isnan;
use datafusion::functions_aggregate::expr_fn::{count, count_distinct};
use datafusion::logical_expr::{Expr, ident, lit, when};
use datafusion::prelude::DataFrame;
use datafusion::scalar::ScalarValue;
use serde_json::{Map, Value, json};
use tidemill_core::clock::Timestamp;
use tidemill_core::spec::ExpectationSpec;

use super::check::{Check, Refused, RowCheck, Unexpected, Verdict};
use super::fetch::{Failures, count_duplicates, fetch};
use super::kwargs::Kwargs;
use super::result::{Outcome, whole};
use crate::error::Result;
use crate::session::session;

/// A table to be validated.
pub struct Table {
    /// Its rows, NaN replaced by null, columns without qualifier.
    pub rows: DataFrame,
    /// Its columns.
    pub schema: SchemaRef,
    /// Columns that served rows lack, where there are rows of both origins.
    pub source_only: Vec<String>,
    /// Columns of the source that no row here has, because all were served.
    pub absent: Option<&'static str>,
    /// Columns that say which row a value stands in.
    pub index: Vec<String>,
    /// How many unexpected values are listed.
    pub limit: usize,
}

impl Table {
    /// Wraps rows.
    pub fn new(rows: DataFrame) -> Result<Self> {
        let columns: Vec<Expr> = rows
            .schema()
            .iter()
            .map(|(qualifier, field)| {
                let column = Expr::Column(datafusion::common::Column::from((qualifier, field)));
                let value = if field.data_type().is_floating() {
                    when(!isnan(column.clone()), column).end()?
                } else {
                    column
                };
                Ok(value.alias(field.name()))
            })
            .collect::<Result<_>>()?;
        let rows = rows.select(columns)?;
        let schema = SchemaRef::new(rows.schema().as_arrow().clone());
        Ok(Self {
            rows,
            schema,
            source_only: Vec::new(),
            absent: None,
            index: Vec::new(),
            limit: 20,
        })
    }
}

/// How [`validate_table`] reports.
#[derive(Debug, Clone)]
pub struct ValidationOptions {
    /// The suite's name in the result.
    pub suite: String,
    /// When it ran.
    pub run_time: Timestamp,
    /// Columns that say which row a value stands in.
    pub index_columns: Vec<String>,
    /// How many unexpected values are listed.
    pub limit: usize,
}

/// Validates rows in memory: Great Expectations' validation result as JSON.
pub async fn validate_table(
    rows: RecordBatch,
    expectations: &[ExpectationSpec],
    options: &ValidationOptions,
) -> Result<Value> {
    let context = session();
    let mut table = Table::new(context.read_batch(rows)?)?;
    table.index.clone_from(&options.index_columns);
    table.limit = options.limit;
    let outcomes = evaluate(&table, expectations).await?;
    Ok(whole(&options.suite, options.run_time, expectations, &outcomes).0)
}

/// Turns expectations into checks of a table.
pub fn plan(table: &Table, spec: &ExpectationSpec) -> Result<Check, Refused> {
    let expectation = super::find(&spec.kind)?;
    let kwargs = Kwargs::new(&spec.kwargs, &table.schema, &table.source_only)?;
    (expectation.plan)(&kwargs)
}

fn condition(table: &Table, spec: &ExpectationSpec) -> Option<Expr> {
    // A condition that cannot be read was refused by `plan`.
    Kwargs::new(&spec.kwargs, &table.schema, &table.source_only)
        .and_then(|kwargs| kwargs.row_condition())
        .ok()
        .flatten()
}

/// The condition of an expectation joined with another.
pub fn with_condition(row_condition: Option<&Expr>, other: Option<Expr>) -> Expr {
    match (row_condition.cloned(), other) {
        (Some(a), Some(b)) => a.and(b),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => lit(true),
    }
}

fn count_where(condition: Expr) -> Result<Expr, Refused> {
    when(condition, lit(1_i64))
        .end()
        .map(count)
        .map_err(|e| Refused(e.strip_backtrace()))
}

/// Rows that count, rows that are null, and unexpected values.
fn row_aggregates(check: &RowCheck, row_condition: Option<&Expr>) -> Result<Vec<Expr>, Refused> {
    let column = ident(&check.column);
    let considered = if check.judges_nulls {
        None
    } else {
        Some(column.clone().is_not_null())
    };
    let mut aggregates = vec![
        count_where(with_condition(row_condition, None))?,
        count_where(with_condition(row_condition, Some(column.clone().is_null())))?,
    ];
    let value_where = |condition: Expr| {
        when(condition, column.clone())
            .end()
            .map_err(|e| Refused(e.strip_backtrace()))
    };
    match &check.unexpected {
        Unexpected::Where(unexpected) => {
            let judged = with_condition(considered.as_ref(), Some(unexpected.clone()));
            aggregates.push(count_where(with_condition(row_condition, Some(judged)))?);
        }
        Unexpected::DistinctWhere(unexpected) => {
            let judged = with_condition(considered.as_ref(), Some(unexpected.clone()));
            aggregates.push(count_distinct(value_where(with_condition(
                row_condition,
                Some(judged),
            ))?));
        }
        Unexpected::Duplicates => {
            aggregates.push(count_distinct(value_where(with_condition(row_condition, None))?));
        }
    }
    Ok(aggregates)
}

/// What is asked of the table for one expectation.
struct Asked {
    check: Check,
    row_condition: Option<Expr>,
    aggregates: Vec<Expr>,
}

fn ask(table: &Table, spec: &ExpectationSpec) -> Result<Asked, Refused> {
    let check = plan(table, spec)?;
    if let Check::Schema(_) = check {
        return Ok(Asked {
            check,
            row_condition: None,
            aggregates: Vec::new(),
        });
    }
    let row_condition = condition(table, spec);
    if row_condition.is_none() && spec.kwargs.get("row_condition").is_some_and(|v| !v.is_null()) {
        // Only to say why: `plan` of a row check does not look at the condition.
        Kwargs::new(&spec.kwargs, &table.schema, &table.source_only)?.row_condition()?;
    }
    let aggregates = match &check {
        Check::Rows(rows) => row_aggregates(rows, row_condition.as_ref())?,
        Check::Aggregate { aggregates, .. } => aggregates.clone(),
        Check::Schema(_) => Vec::new(),
    };
    Ok(Asked {
        check,
        row_condition,
        aggregates,
    })
}

/// Checks all expectations: one aggregate query, then one small query for each that found something.
pub async fn evaluate(table: &Table, specs: &[ExpectationSpec]) -> Result<Vec<Outcome>> {
    let asked: Vec<Result<Asked, Refused>> = specs.iter().map(|spec| ask(table, spec)).collect();
    let aggregates: Vec<Vec<Expr>> = asked
        .iter()
        .map(|a| a.as_ref().map(|a| a.aggregates.clone()).unwrap_or_default())
        .collect();
    let values = match compute(table, &aggregates).await {
        Ok(values) => values.into_iter().map(Ok).collect(),
        Err(error) => one_by_one(table, &aggregates, error).await?,
    };
    let mut outcomes = Vec::with_capacity(specs.len());
    for ((spec, asked), values) in specs.iter().zip(asked).zip(values) {
        outcomes.push(match skipped(table, spec) {
            Some(why) => Outcome::Skipped(why),
            None => match (asked, values) {
                (Err(refused), _) | (_, Err(refused)) => Outcome::Refused(refused),
                (Ok(asked), Ok(values)) => Outcome::Checked(judge(table, asked, &values).await?),
            },
        });
    }
    Ok(outcomes)
}

fn skipped(table: &Table, spec: &ExpectationSpec) -> Option<String> {
    let why = table.absent?;
    match spec.kwargs.get("column").and_then(Value::as_str) {
        Some(column) if table.schema.field_with_name(column).is_err() => {
            Some(format!("column `{column}` is not there: {why}"))
        }
        None if spec.kind == "expect_table_columns_to_match_set" => Some(why.to_owned()),
        _ => None,
    }
}

/// A query that fails as a whole is asked expectation by expectation, so that only the culprit is refused.
async fn one_by_one(
    table: &Table,
    aggregates: &[Vec<Expr>],
    error: crate::error::DataError,
) -> Result<Vec<Result<Vec<ScalarValue>, Refused>>> {
    let mut values = Vec::new();
    let mut anything = false;
    for one in aggregates {
        values.push(match compute(table, std::slice::from_ref(one)).await {
            Ok(mut found) => {
                anything |= !one.is_empty();
                Ok(found.pop().unwrap_or_default())
            }
            // Not the expectation's fault: the caller finds the file.
            Err(e) if e.is_of_reading() => return Err(e),
            Err(e) => Err(Refused(e.to_string())),
        });
    }
    // Nothing works: it is the table that is broken, not the expectations.
    if anything
        || aggregates.len() < 2
            && matches!(
                error,
                crate::error::DataError::DataFusion(datafusion::error::DataFusionError::Plan(_))
            )
    {
        return Ok(values);
    }
    Err(error)
}

async fn compute(table: &Table, aggregates: &[Vec<Expr>]) -> Result<Vec<Vec<ScalarValue>>> {
    let named: Vec<Expr> = aggregates
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, expr)| expr.clone().alias(format!("a{i}")))
        .collect();
    if named.is_empty() {
        return Ok(aggregates.iter().map(|_| Vec::new()).collect());
    }
    let batches = table.rows.clone().aggregate(vec![], named)?.collect().await?;
    let mut flat = Vec::new();
    for batch in batches.iter().filter(|b| b.num_rows() > 0) {
        for column in batch.columns() {
            flat.push(ScalarValue::try_from_array(column, 0)?);
        }
    }
    let mut flat = flat.into_iter();
    Ok(aggregates
        .iter()
        .map(|one| flat.by_ref().take(one.len()).collect())
        .collect())
}

fn number(value: Option<&ScalarValue>) -> u64 {
    match value {
        Some(ScalarValue::Int64(Some(n))) => u64::try_from(*n).unwrap_or(0),
        Some(ScalarValue::UInt64(Some(n))) => *n,
        _ => 0,
    }
}

async fn judge(table: &Table, asked: Asked, values: &[ScalarValue]) -> Result<Verdict> {
    match asked.check {
        Check::Schema(verdict) => Ok(verdict),
        Check::Aggregate { judge, .. } => Ok(judge(values)),
        Check::Rows(check) => {
            let (element_count, nulls) = (number(values.first()), number(values.get(1)));
            let mut unexpected = number(values.get(2));
            let row_condition = asked.row_condition.as_ref();
            if matches!(check.unexpected, Unexpected::Duplicates) {
                unexpected = if unexpected == element_count - nulls {
                    0
                } else {
                    count_duplicates(table, &check, row_condition).await?
                };
            }
            let failures = if unexpected == 0 {
                Failures::default()
            } else {
                fetch(table, &check, row_condition).await?
            };
            Ok(row_verdict(&check, element_count, nulls, unexpected, failures))
        }
    }
}

fn row_verdict(check: &RowCheck, elements: u64, nulls: u64, unexpected: u64, failures: Failures) -> Verdict {
    let per_cent = |part: u64, of: u64| {
        if of == 0 {
            Value::Null
        } else {
            json!(part as f64 / of as f64 * 100.0)
        }
    };
    let considered = if check.judges_nulls {
        elements
    } else {
        elements - nulls
    };
    let mut result = Map::new();
    let mut put = |name: &str, value: Value| {
        result.insert(name.to_owned(), value);
    };
    if matches!(check.unexpected, Unexpected::DistinctWhere(_)) {
        put("observed_value", Value::Null);
        put("unexpected_count", json!(unexpected));
        put("partial_unexpected_list", json!(failures.values));
        put("partial_unexpected_index_list", json!(failures.index));
        return Verdict {
            success: unexpected == 0,
            result,
        };
    }
    let success = considered == 0 || (considered - unexpected) as f64 / considered as f64 >= check.mostly;
    put("element_count", json!(elements));
    put("unexpected_count", json!(unexpected));
    put("unexpected_percent", per_cent(unexpected, considered));
    put("partial_unexpected_list", json!(failures.values));
    if !check.judges_nulls {
        put("missing_count", json!(nulls));
        put("missing_percent", per_cent(nulls, elements));
        put("unexpected_percent_total", per_cent(unexpected, elements));
        put("unexpected_percent_nonmissing", per_cent(unexpected, considered));
    }
    put("partial_unexpected_counts", failures.counts());
    put("unexpected_index_column_names", json!(failures.index_columns));
    put("partial_unexpected_index_list", json!(failures.index));
    put("unexpected_list", json!(failures.values));
    put("unexpected_index_list", json!(failures.index));
    Verdict { success, result }
}
