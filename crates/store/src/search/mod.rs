//! Searches of experiments, runs, registered models, model versions and logged models: a typed filter and order in, one page of
//! numbers out. What MLflow's filter strings mean is read in `control`; this module knows no text of a filter.
//!
//! - Pages follow keys, not offsets: a page begins after the last row of the one before ([`Cursor`]), so page 500 costs what page 1
//!   does, and what is written meanwhile neither repeats nor hides a row.
//! - There is no join per clause. Either an index finds the few rows that a clause lets through and the rest of the filter is asked
//!   of those, or rows are walked in the order of the page and each clause is one probe of a primary key ([`runs`] chooses, by
//!   looking how many rows a clause lets through, up to a limit).
//! - An order has missing values last in both directions, NaN just before them, and always ends in something unique.

mod build;
mod columns;
mod load;
mod page;
mod runs;
#[cfg(test)]
mod runs_tests;
#[cfg(test)]
mod sample;
mod scan;
#[cfg(test)]
mod scan_tests;
mod tree;

pub use load::{Keys, Projection, load_runs};
pub use page::{Cursor, CursorValue, Page};
pub use runs::{RunScope, runs};
pub use scan::{
    DatasetScope, ModelScope, eval_datasets, experiments, logged_models, model_versions, registered_models,
};
pub use tree::{Attribute, Clause, Compare, DatasetField, OrderKey, Subject, Test, View};

/// What a page shall hold.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Query {
    /// All of these must hold.
    pub filter: Vec<Clause>,
    /// Sorted by the first of these, rows that are alike by the second, and so on; then by what makes a row unique.
    pub order: Vec<OrderKey>,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// How many rows at most.
    pub limit: u32,
    /// What the caller may see.
    pub visible: Visible,
}

/// What a caller may see: numbers of experiments for experiments, runs and logged models, of models for models and model versions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Visible {
    /// These.
    Only(Vec<i64>),
    /// All but these.
    Except(Vec<i64>),
}

/// Everything.
impl Default for Visible {
    fn default() -> Self {
        Self::Except(Vec::new())
    }
}

impl Visible {
    /// Whether the caller may see what has this number.
    pub fn holds(&self, number: i64) -> bool {
        match self {
            Self::Only(numbers) => numbers.contains(&number),
            Self::Except(numbers) => !numbers.contains(&number),
        }
    }
}
