//! How the house's types stand in a column: times as microseconds, ids, digests and enums as text, everything nested as JSON.
//! The only door between core's types and the SQL driver's.

use std::str::FromStr;

use rusqlite::types::{FromSqlError, ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{
    AlertId, DecisionId, EndpointName, ModelName, PredictionId, RolloutId, RunId, VersionNumber,
};
use tidemill_core::predictions::LabelValue;
use tidemill_core::snapshot::SnapshotManifest;

use crate::db::Row;

/// A type that fits into one column.
pub(crate) trait Column: Sized {
    fn write(&self) -> Result<ToSqlOutput<'_>>;
    fn read(value: ValueRef<'_>) -> Result<Self, FromSqlError>;
}

/// A reference on its way into a statement.
pub(crate) struct Bound<'a, T>(pub &'a T);

impl<T: Column> ToSql for Bound<'_, T> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        self.0.write()
    }
}

/// The parameters of a statement, in order.
macro_rules! bind {
    ($($value:expr),* $(,)?) => {
        &[$(&$crate::column::Bound(&$value) as &dyn rusqlite::types::ToSql),*]
    };
}
pub(crate) use bind;

/// Reads a row from left to right.
pub(crate) struct Fields<'r> {
    row: &'r Row<'r>,
    next: usize,
}

impl<'r> Fields<'r> {
    pub fn of(row: &'r Row<'r>) -> Self {
        Self { row, next: 0 }
    }

    pub fn next<T: Column>(&mut self) -> Result<T> {
        let index = self.next;
        self.next += 1;
        let value = self.row.get_ref(index)?;
        T::read(value).map_err(|e| Error::FromSqlConversionFailure(index, value.data_type(), Box::new(e)))
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> FromSqlError {
    FromSqlError::Other(Box::new(error))
}

macro_rules! native {
    ($($type:ty),*) => {$(
        impl Column for $type {
            fn write(&self) -> Result<ToSqlOutput<'_>> {
                self.to_sql()
            }
            fn read(value: ValueRef<'_>) -> Result<Self, FromSqlError> {
                rusqlite::types::FromSql::column_result(value)
            }
        }
    )*};
}
native!(i64, u32, f64, bool, String);

impl Column for u64 {
    fn write(&self) -> Result<ToSqlOutput<'_>> {
        let signed = i64::try_from(*self).map_err(|e| Error::ToSqlConversionFailure(Box::new(e)))?;
        Ok(ToSqlOutput::Owned(Value::Integer(signed)))
    }
    fn read(value: ValueRef<'_>) -> Result<Self, FromSqlError> {
        let signed = value.as_i64()?;
        Self::try_from(signed).map_err(|_| FromSqlError::OutOfRange(signed))
    }
}

impl Column for &str {
    fn write(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.as_bytes())))
    }
    fn read(_: ValueRef<'_>) -> Result<Self, FromSqlError> {
        Err(FromSqlError::InvalidType)
    }
}

impl<T: Column> Column for Option<T> {
    fn write(&self) -> Result<ToSqlOutput<'_>> {
        match self {
            Some(value) => value.write(),
            None => Ok(ToSqlOutput::Owned(Value::Null)),
        }
    }
    fn read(value: ValueRef<'_>) -> Result<Self, FromSqlError> {
        match value {
            ValueRef::Null => Ok(None),
            value => T::read(value).map(Some),
        }
    }
}

/// Lets a statement take what stands behind a reference.
impl<T: Column> Column for &T {
    fn write(&self) -> Result<ToSqlOutput<'_>> {
        (*self).write()
    }
    fn read(_: ValueRef<'_>) -> Result<Self, FromSqlError> {
        Err(FromSqlError::InvalidType)
    }
}

impl Column for Timestamp {
    fn write(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Owned(Value::Integer(self.as_micros())))
    }
    fn read(value: ValueRef<'_>) -> Result<Self, FromSqlError> {
        value.as_i64().map(Self::from_micros)
    }
}

impl Column for VersionNumber {
    fn write(&self) -> Result<ToSqlOutput<'_>> {
        self.0.write()
    }
    fn read(value: ValueRef<'_>) -> Result<Self, FromSqlError> {
        u32::read(value).map(Self)
    }
}

impl Column for Digest {
    fn write(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Owned(Value::Text(self.to_string())))
    }
    fn read(value: ValueRef<'_>) -> Result<Self, FromSqlError> {
        Self::from_str(value.as_str()?).map_err(other)
    }
}

macro_rules! text_ids {
    ($($type:ty),*) => {$(
        impl Column for $type {
            fn write(&self) -> Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.as_str().as_bytes())))
            }
            fn read(value: ValueRef<'_>) -> Result<Self, FromSqlError> {
                value.as_str().map(Self::from)
            }
        }
    )*};
}
text_ids!(
    ModelName,
    EndpointName,
    RunId,
    PredictionId,
    RolloutId,
    AlertId,
    DecisionId
);

pub(crate) fn write_json<T: Serialize>(value: &T) -> Result<ToSqlOutput<'_>> {
    let text = serde_json::to_string(value).map_err(|e| Error::ToSqlConversionFailure(Box::new(e)))?;
    Ok(ToSqlOutput::Owned(Value::Text(text)))
}

pub(crate) fn read_json<T: DeserializeOwned>(value: ValueRef<'_>) -> Result<T, FromSqlError> {
    serde_json::from_str(value.as_str()?).map_err(other)
}

macro_rules! json {
    ($($type:ty),*) => {$(
        impl Column for $type {
            fn write(&self) -> Result<ToSqlOutput<'_>> {
                write_json(self)
            }
            fn read(value: ValueRef<'_>) -> Result<Self, FromSqlError> {
                read_json(value)
            }
        }
    )*};
}
json!(
    serde_json::Value,
    LabelValue,
    SnapshotManifest,
    Vec<VersionNumber>
);

/// A closed set of words: an enum that stands as the same text in the database, in JSON and in messages.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant),*
        }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As text.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::UnknownWord;
            fn from_str(text: &str) -> Result<Self, $crate::UnknownWord> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|word| word.as_str() == text)
                    .ok_or_else(|| $crate::UnknownWord::new(text, Self::ALL.iter().map(|word| word.as_str())))
            }
        }

        impl $crate::column::Column for $name {
            fn write(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(rusqlite::types::ToSqlOutput::from(self.as_str()))
            }
            fn read(
                value: rusqlite::types::ValueRef<'_>,
            ) -> Result<Self, rusqlite::types::FromSqlError> {
                value
                    .as_str()?
                    .parse()
                    .map_err(|e: $crate::UnknownWord| rusqlite::types::FromSqlError::Other(Box::new(e)))
            }
        }
    };
}
pub(crate) use text_enum;

/// A text that is none of the words it may be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{text}` is not one of {expected}")]
pub struct UnknownWord {
    text: String,
    expected: String,
}

impl UnknownWord {
    pub(crate) fn new<'a>(text: &str, expected: impl Iterator<Item = &'a str>) -> Self {
        let quoted: Vec<String> = expected.map(|word| format!("`{word}`")).collect();
        Self {
            text: text.to_owned(),
            expected: quoted.join(", "),
        }
    }
}
