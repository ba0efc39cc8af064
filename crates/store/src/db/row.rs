//! A row of either database.

use rusqlite::types::{Value, ValueRef};

/// A row that a query gave. Its values have SQLite's types.
pub(crate) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Values(&'r [Value]),
}

impl Row<'_> {
    /// The value of a column, from 0.
    pub fn get_ref(&self, column: usize) -> rusqlite::Result<ValueRef<'_>> {
        match self {
            Self::Sqlite(row) => row.get_ref(column),
            Self::Values(values) => values
                .get(column)
                .map(ValueRef::from)
                .ok_or(rusqlite::Error::InvalidColumnIndex(column)),
        }
    }
}
