//! The table has these columns, and with `exact_match` no other.

use serde_json::{Map, Value, json};

use super::Expectation;
use super::check::{Check, Refused, Verdict};
use super::kwargs::Kwargs;

/// `expect_table_columns_to_match_set`.
pub const EXPECTATION: Expectation = Expectation {
    name: "expect_table_columns_to_match_set",
    summary: "the table has the columns of `column_set`, and no other unless `exact_match` is false",
    plan,
};

fn plan(kwargs: &Kwargs<'_>) -> Result<Check, Refused> {
    let wanted: Vec<&str> = match kwargs.get("column_set") {
        None => Vec::new(),
        Some(_) => kwargs
            .list("column_set")?
            .iter()
            .filter_map(Value::as_str)
            .collect(),
    };
    let exact = kwargs.flag("exact_match", true)?;
    let mut present: Vec<&str> = kwargs.columns().collect();
    present.sort_unstable();
    let unexpected: Vec<&str> = present.iter().copied().filter(|c| !wanted.contains(c)).collect();
    let mut missing: Vec<&str> = wanted.iter().copied().filter(|c| !present.contains(c)).collect();
    missing.sort_unstable();
    let success = missing.is_empty() && (!exact || unexpected.is_empty());
    let mut result = Map::new();
    result.insert("observed_value".to_owned(), json!(present));
    let mut mismatched = Map::new();
    for (name, columns) in [("unexpected", unexpected), ("missing", missing)] {
        if !columns.is_empty() {
            mismatched.insert(name.to_owned(), json!(columns));
        }
    }
    if !mismatched.is_empty() {
        result.insert("details".to_owned(), json!({ "mismatched": mismatched }));
    }
    Ok(Check::Schema(Verdict { success, result }))
}
