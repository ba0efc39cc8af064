//! What SQL may do here: functions that make nothing large of little, and plans of a sane size.

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::logical_expr::expr::WindowFunctionDefinition;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{DataError, Result};

/// SQL is at most so long,
const LONGEST_SQL: usize = 64 << 10;
/// of so many words and signs,
const MOST_TOKENS: usize = 1_500;
/// and of so many operators when each name stands for what it means.
const MOST_NODES: usize = 2_000;

/// Functions of values.
const SCALAR: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "cot",
    "degrees",
    "exp",
    "factorial",
    "floor",
    "gcd",
    "isnan",
    "iszero",
    "lcm",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "power",
    "radians",
    "round",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
    "coalesce",
    "nullif",
    "nvl",
    "nvl2",
    "greatest",
    "least",
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "contains",
    "ends_with",
    "left",
    "levenshtein",
    "lower",
    "ltrim",
    "octet_length",
    "reverse",
    "right",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "upper",
    "date_bin",
    "date_part",
    "date_trunc",
    "from_unixtime",
    "make_date",
    "now",
    "to_date",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
    "regexp_like",
];
/// Functions of groups.
const AGGREGATE: &[&str] = &[
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "avg",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "last_value",
    "max",
    "median",
    "min",
    "percentile_cont",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];
/// Functions of windows, beside those of groups.
const WINDOW: &[&str] = &[
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
    "row_number",
];

/// Refuses what is too long to be read: what is deep is long.
pub fn check_text(what: &str, sql: &str) -> Result<()> {
    if sql.len() > LONGEST_SQL {
        return Err(DataError::Query(format!(
            "the {what} has {} bytes, and at most {LONGEST_SQL} are read",
            sql.len()
        )));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize()
        .map_err(|e| DataError::Query(format!("the {what} cannot be read: {e}")))?;
    let words = tokens
        .iter()
        .filter(|token| !matches!(token, Token::Whitespace(_)))
        .count();
    if words > MOST_TOKENS {
        return Err(DataError::Query(format!(
            "the {what} has {words} words and signs, and at most {MOST_TOKENS} are read"
        )));
    }
    Ok(())
}

/// All functions there are.
pub fn functions() -> String {
    let mut all = [SCALAR, AGGREGATE, WINDOW].concat();
    all.sort_unstable();
    all.dedup();
    all.join(", ")
}

fn refused(what: &str, there_are: &[&[&str]]) -> DataFusionError {
    let there = there_are.concat().join(", ");
    let there = if there.is_empty() {
        String::new()
    } else {
        format!("; there are {there}")
    };
    DataFusionError::Plan(format!("{what} is not answered here{there}"))
}

fn check_expr(expr: &Expr) -> EngineResult<TreeNodeRecursion> {
    let function = |name: &str, there: &[&[&str]]| {
        if there.iter().any(|names| names.contains(&name)) {
            return Ok(TreeNodeRecursion::Continue);
        }
        Err(refused(&format!("function `{name}`"), there))
    };
    match expr {
        Expr::ScalarFunction(call) => function(call.func.name(), &[SCALAR]),
        Expr::AggregateFunction(call) => function(call.func.name(), &[AGGREGATE]),
        Expr::WindowFunction(call) => {
            let name = match &call.fun {
                WindowFunctionDefinition::AggregateUDF(of) => of.name(),
                WindowFunctionDefinition::WindowUDF(of) => of.name(),
            };
            function(name, &[AGGREGATE, WINDOW])
        }
        Expr::BinaryExpr(of) if of.op == Operator::StringConcat => Err(refused("the operator `||`", &[])),
        Expr::Cast(of) if of.field.data_type().is_nested() => Err(refused("a cast to lists", &[])),
        Expr::TryCast(of) if of.field.data_type().is_nested() => Err(refused("a cast to lists", &[])),
        Expr::Unnest(_) => Err(refused("`unnest`", &[])),
        Expr::HigherOrderFunction(_) | Expr::Lambda(_) => Err(refused("a function of functions", &[])),
        _ => Ok(TreeNodeRecursion::Continue),
    }
}

/// Refuses a plan that does what is not allowed.
pub fn check_plan(plan: &LogicalPlan) -> EngineResult<()> {
    let mut nodes = 0;
    plan.apply_with_subqueries(|node| {
        nodes += 1;
        if nodes > MOST_NODES {
            return Err(DataFusionError::Plan(format!(
                "the query has more than {MOST_NODES} operators"
            )));
        }
        match node {
            LogicalPlan::RecursiveQuery(_) => Err(refused("a recursive query", &[])),
            LogicalPlan::Unnest(_) => Err(refused("`unnest`", &[])),
            _ => node.apply_expressions(|expr| expr.apply(check_expr)),
        }
    })?;
    Ok(())
}
