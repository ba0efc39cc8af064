//! What an expectation asks of a table.

use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;
use serde_json::{Map, Value};

/// Why an expectation cannot be checked: its parameters, or the column's type. Becomes `exception_info`.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused(pub String);

/// The answer to a check: success, and Great Expectations' `result` object.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Whether it holds.
    pub success: bool,
    /// What was seen.
    pub result: Map<String, Value>,
}

/// Judges the values of a check's aggregates.
pub type Judge = Box<dyn Fn(&[ScalarValue]) -> Verdict + Send + Sync>;

/// What an expectation asks of a table.
pub enum Check {
    /// The columns alone answer it.
    Schema(Verdict),
    /// Some aggregates answer it.
    Aggregate {
        /// Over the table, row condition included.
        aggregates: Vec<Expr>,
        /// In their order.
        judge: Judge,
    },
    /// Each row passes or does not.
    Rows(RowCheck),
}

/// A check of each row.
pub struct RowCheck {
    /// Which column.
    pub column: String,
    /// Which values do not pass.
    pub unexpected: Unexpected,
    /// Whether nulls are judged too (else they are missing, and neither pass nor fail).
    pub judges_nulls: bool,
    /// The share that must pass.
    pub mostly: f64,
}

/// Which values do not pass.
pub enum Unexpected {
    /// Rows for which this is true; it is asked of non-null values only, unless the check judges nulls.
    Where(Expr),
    /// Distinct values for which this is true, each counted once.
    DistinctWhere(Expr),
    /// Rows whose value another row has too.
    Duplicates,
}

/// A `result` with an `observed_value` alone.
pub fn observed(success: bool, value: Value) -> Verdict {
    let mut result = Map::new();
    result.insert("observed_value".to_owned(), value);
    Verdict { success, result }
}
