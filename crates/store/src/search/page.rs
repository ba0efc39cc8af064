//! Pages that follow keys: where one ended, and the condition of being after that.

use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use serde::{Deserialize, Serialize};

use crate::db::Row;
use crate::error::StoreError;
use crate::search::build::Sql;

/// The sort values of a page's last row, in the order of the page.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub Vec<CursorValue>);

/// One of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CursorValue {
    /// There is none.
    Missing(()),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Real(f64),
    /// A text.
    Text(String),
}

impl CursorValue {
    fn read(row: &Row<'_>, column: usize) -> rusqlite::Result<Self> {
        Ok(match row.get_ref(column)? {
            ValueRef::Null => Self::Missing(()),
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            text @ (ValueRef::Text(_) | ValueRef::Blob(_)) => Self::Text(text.as_str()?.to_owned()),
        })
    }
}

impl ToSql for CursorValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Missing(()) => ToSqlOutput::Owned(Value::Null),
            Self::Integer(number) => ToSqlOutput::Owned(Value::Integer(*number)),
            Self::Real(number) => ToSqlOutput::Owned(Value::Real(*number)),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

/// One page.
#[derive(Clone, PartialEq, Debug)]
pub struct Page<T> {
    /// What is on it, in order.
    pub items: Vec<T>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Nothing.
    pub(super) fn empty() -> Self {
        Self {
            items: Vec::new(),
            next: None,
        }
    }
}

/// The type of a sort value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Integer,
    Real,
    Text,
}

/// One expression that a page is sorted by.
#[derive(Clone, Debug)]
pub(super) struct SortKey {
    pub sql: String,
    pub ascending: bool,
    pub kind: Kind,
    /// Whether it can be NULL. The key before it then tells NULL apart, so that the two are never compared.
    pub nullable: bool,
}

impl SortKey {
    pub fn of(sql: impl Into<String>, ascending: bool, kind: Kind) -> Self {
        Self {
            sql: sql.into(),
            ascending,
            kind,
            nullable: false,
        }
    }

    /// A value that may be missing: missing values come last in both directions.
    pub fn missing_last(sql: impl Into<String>, ascending: bool, kind: Kind) -> [Self; 2] {
        let sql = sql.into();
        let class = format!("CASE WHEN {sql} IS NULL THEN 1 ELSE 0 END");
        [
            Self::of(class, true, Kind::Integer),
            Self {
                nullable: true,
                ..Self::of(sql, ascending, kind)
            },
        ]
    }
}

/// `, sort expressions` to append to the columns of a SELECT, each under the name that [`order_by`] uses.
pub(super) fn select_keys(keys: &[SortKey]) -> String {
    let columns: Vec<String> = keys
        .iter()
        .enumerate()
        .map(|(i, key)| format!(", {} AS k{i}", key.sql))
        .collect();
    columns.concat()
}

/// The ORDER BY of a SELECT with [`select_keys`].
pub(super) fn order_by(keys: &[SortKey]) -> String {
    let terms: Vec<String> = keys
        .iter()
        .enumerate()
        .map(|(i, key)| format!("k{i}{}", if key.ascending { "" } else { " DESC" }))
        .collect();
    format!(" ORDER BY {}", terms.join(", "))
}

/// Refuses a cursor that is not of this order: its types would not be the columns'.
fn check(keys: &[SortKey], cursor: &Cursor) -> Result<(), StoreError> {
    let fits = |key: &SortKey, value: &CursorValue| match value {
        CursorValue::Missing(()) => key.nullable,
        CursorValue::Integer(_) => key.kind == Kind::Integer,
        CursorValue::Real(_) => key.kind == Kind::Real,
        CursorValue::Text(_) => key.kind == Kind::Text,
    };
    let fitting =
        keys.len() == cursor.0.len() && keys.iter().zip(&cursor.0).all(|(key, value)| fits(key, value));
    if fitting {
        return Ok(());
    }
    Err(StoreError::conflict("page token", "it belongs to another search"))
}

/// The condition of coming after the cursor's row.
pub(super) fn after(sql: &mut Sql, keys: &[SortKey], cursor: &Cursor) -> Result<String, StoreError> {
    check(keys, cursor)?;
    let mut condition: Option<String> = None;
    for (key, value) in keys.iter().zip(&cursor.0).rev() {
        let expression = &key.sql;
        let (beyond, same) = if *value == CursorValue::Missing(()) {
            (None, format!("{expression} IS NULL"))
        } else {
            let mark = sql.bind(value.clone());
            let sign = if key.ascending { '>' } else { '<' };
            (
                Some(format!("{expression} {sign} {mark}")),
                format!("{expression} = {mark}"),
            )
        };
        condition = match (beyond, condition) {
            (Some(beyond), Some(rest)) => Some(format!("({beyond} OR ({same} AND {rest}))")),
            (Some(beyond), None) => Some(beyond),
            (None, Some(rest)) => Some(format!("({same} AND {rest})")),
            (None, None) => Some("1 = 0".to_owned()),
        };
    }
    let condition = condition.unwrap_or_else(|| "1 = 1".to_owned());
    // What an index on the first key can begin at.
    match (keys.first(), cursor.0.first()) {
        (Some(key), Some(value)) if !key.nullable && *value != CursorValue::Missing(()) => {
            let mark = sql.bind(value.clone());
            let sign = if key.ascending { ">=" } else { "<=" };
            Ok(format!("{} {sign} {mark} AND {condition}", key.sql))
        }
        _ => Ok(condition),
    }
}

/// Reads rows of an item and its sort values, one more than the page holds, and makes the page of them.
pub(super) struct Reader {
    keys: usize,
    limit: usize,
}

impl Reader {
    pub fn new(keys: &[SortKey], limit: u32) -> Self {
        Self {
            keys: keys.len(),
            limit: limit as usize,
        }
    }

    /// The sort values of a row, which begin at a column.
    pub fn cursor(&self, row: &Row<'_>, first: usize) -> rusqlite::Result<Cursor> {
        let values = (first..first + self.keys).map(|column| CursorValue::read(row, column));
        Ok(Cursor(values.collect::<rusqlite::Result<_>>()?))
    }

    pub fn page<T>(&self, mut rows: Vec<(T, Cursor)>) -> Page<T> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| more).map(|(_, cursor)| cursor.clone());
        Page {
            items: rows.into_iter().map(|(item, _)| item).collect(),
            next,
        }
    }
}
