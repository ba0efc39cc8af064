//! What must hold of data: Great Expectations' terms, kwargs and result JSON, computed in one scan.
//!
//! An expectation is one file and one line in [`EXPECTATIONS`]. It turns its kwargs into a [`Check`]; all checks of a suite share one
//! aggregate query, and rows are fetched only where values were unexpected (up to 20, with their row numbers, key and time).
//!
//! Row numbers count from 0 over the validated rows: the selected rows of the source in the order of the files, then served rows. Served
//! rows have only features, label and time: an expectation on another column of the source is checked on the source's rows alone, and in a
//! snapshot of served rows only it is *skipped*: `success` is null, `meta.skipped` says why, and it is not counted.

mod bounds;
mod check;
mod condition;
mod evaluate;
mod fetch;
mod kwargs;
mod literal;
mod result;
mod snapshot;
mod suite;

mod expect_column_distinct_values_to_be_in_set;
mod expect_column_max_to_be_between;
mod expect_column_mean_to_be_between;
mod expect_column_min_to_be_between;
mod expect_column_proportion_of_unique_values_to_be_between;
mod expect_column_to_exist;
mod expect_column_value_lengths_to_be_between;
mod expect_column_values_to_be_between;
mod expect_column_values_to_be_in_set;
mod expect_column_values_to_be_null;
mod expect_column_values_to_be_unique;
mod expect_column_values_to_match_regex;
mod expect_column_values_to_not_be_in_set;
mod expect_column_values_to_not_be_null;
mod expect_table_columns_to_match_set;
mod expect_table_row_count_to_be_between;

use crate::error::suggest;

pub use check::{Check, Refused};
pub use evaluate::{ValidationOptions, validate_table};
pub use kwargs::Kwargs;
pub use snapshot::{check_expectations, validate_snapshot};

/// One kind of expectation.
#[derive(Debug)]
pub struct Expectation {
    /// Great Expectations' name of it.
    pub name: &'static str,
    /// What it says of the data, for listings.
    pub summary: &'static str,
    /// Turns its parameters into a check of a table.
    pub plan: fn(&Kwargs<'_>) -> Result<Check, Refused>,
}

/// All expectations that can be checked; the rest of Great Expectations' sixty comes later.
pub const EXPECTATIONS: &[&Expectation] = &[
    &expect_column_to_exist::EXPECTATION,
    &expect_column_values_to_not_be_null::EXPECTATION,
    &expect_column_values_to_be_null::EXPECTATION,
    &expect_column_values_to_be_between::EXPECTATION,
    &expect_column_values_to_be_in_set::EXPECTATION,
    &expect_column_values_to_not_be_in_set::EXPECTATION,
    &expect_column_values_to_match_regex::EXPECTATION,
    &expect_column_values_to_be_unique::EXPECTATION,
    &expect_column_value_lengths_to_be_between::EXPECTATION,
    &expect_table_row_count_to_be_between::EXPECTATION,
    &expect_column_mean_to_be_between::EXPECTATION,
    &expect_column_min_to_be_between::EXPECTATION,
    &expect_column_max_to_be_between::EXPECTATION,
    &expect_column_proportion_of_unique_values_to_be_between::EXPECTATION,
    &expect_column_distinct_values_to_be_in_set::EXPECTATION,
    &expect_table_columns_to_match_set::EXPECTATION,
];

/// The expectation called `name`.
pub fn find(name: &str) -> Result<&'static Expectation, Refused> {
    EXPECTATIONS
        .iter()
        .find(|e| e.name == name)
        .copied()
        .ok_or_else(|| {
            Refused(format!(
                "`{name}` is no expectation that Tidemill checks{}",
                suggest(name, EXPECTATIONS.iter().map(|e| e.name))
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_expectation_names_the_nearest_one() {
        let refused = find("expect_column_value_to_be_between").unwrap_err();
        assert!(
            refused
                .0
                .contains("did you mean `expect_column_values_to_be_between`"),
            "{}",
            refused.0
        );
    }

    #[test]
    fn names_are_unique_and_described() {
        let mut names: Vec<&str> = EXPECTATIONS.iter().map(|e| e.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), EXPECTATIONS.len());
        assert!(EXPECTATIONS.iter().all(|e| !e.summary.is_empty()));
    }
}
