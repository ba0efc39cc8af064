//! A JSON value of a request, kept as exactly as it came: integers stay integers until they are known to be numbers.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tidemill_core::frame::FeatureKind;
use tidemill_serving::RawValue;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Text(Arc<str>),
    /// An array or an object, where one value is expected.
    Nested,
}

impl Cell {
    /// As the guard reads it, for a feature of this kind.
    pub(crate) fn into_raw(self, kind: FeatureKind) -> RawValue {
        match self {
            Self::Null | Self::Nested => RawValue::Null,
            Self::Bool(value) => RawValue::Bool(value),
            // The text of a category must not lose digits on the way through a float.
            Self::Int(_) | Self::UInt(_) if kind == FeatureKind::Categorical => {
                RawValue::Text(Arc::from(self.to_string()))
            }
            Self::Int(value) => RawValue::Number(value as f64),
            Self::UInt(value) => RawValue::Number(value as f64),
            Self::Float(value) => RawValue::Number(value),
            Self::Text(text) => RawValue::Text(text),
        }
    }

    /// As the key of a row.
    pub(crate) fn to_key(&self) -> Option<Arc<str>> {
        match self {
            Self::Null | Self::Nested => None,
            Self::Text(text) => Some(Arc::clone(text)),
            other => Some(Arc::from(other.to_string())),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => fmt::Display::fmt(value, f),
            Self::Int(value) => fmt::Display::fmt(value, f),
            Self::UInt(value) => fmt::Display::fmt(value, f),
            Self::Float(value) => fmt::Display::fmt(value, f),
            Self::Text(text) => f.write_str(text),
            Self::Nested => f.write_str("an array or object"),
        }
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text, a boolean or null")
    }
    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Cell, E> {
        Ok(Cell::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Int(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        Ok(i64::try_from(value).map_or(Cell::UInt(value), Cell::Int))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell::Float(value))
    }
    fn visit_str<E>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell::Text(Arc::from(text)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cell, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cell::Nested)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Nested)
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

/// An object of single values, in the order in which they came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record(pub Vec<(String, Cell)>);

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RecordVisitor;
        impl<'de> Visitor<'de> for RecordVisitor {
            type Value = Record;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of column names and values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
                let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(0));
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Record(fields))
            }
        }
        deserializer.deserialize_map(RecordVisitor)
    }
}

/// What stands where a protocol takes a row in more than one form: an object, an array, or a bare value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cells {
    Record(Vec<(String, Cell)>),
    List(Vec<Cell>),
    One(Cell),
}

impl<'de> Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CellsVisitor;
        impl<'de> Visitor<'de> for CellsVisitor {
            type Value = Cells;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, an array or a value")
            }
            fn visit_unit<E>(self) -> Result<Cells, E> {
                Ok(Cells::One(Cell::Null))
            }
            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Cells, E> {
                CellVisitor.visit_bool(value).map(Cells::One)
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Cells, E> {
                CellVisitor.visit_i64(value).map(Cells::One)
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Cells, E> {
                CellVisitor.visit_u64(value).map(Cells::One)
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Cells, E> {
                CellVisitor.visit_f64(value).map(Cells::One)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cells, E> {
                CellVisitor.visit_str(text).map(Cells::One)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cells, A::Error> {
                let mut cells = Vec::with_capacity(seq.size_hint().unwrap_or(0));
                while let Some(cell) = seq.next_element()? {
                    cells.push(cell);
                }
                Ok(Cells::List(cells))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Cells, A::Error> {
                let record = Record::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(Cells::Record(record.0))
            }
        }
        deserializer.deserialize_any(CellsVisitor)
    }
}

/// The values of an array, row-major, whether it is nested or flat.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct FlatCells(pub Vec<Cell>);

impl<'de> Deserialize<'de> for FlatCells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut cells = Vec::new();
        deserializer.deserialize_seq(FlatVisitor(&mut cells))?;
        Ok(Self(cells))
    }
}

/// Pushes what it meets; arrays are entered.
struct FlatVisitor<'a>(&'a mut Vec<Cell>);

impl<'de> DeserializeSeed<'de> for FlatVisitor<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FlatVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of values")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(Cell::Null);
        Ok(())
    }
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.0.push(CellVisitor.visit_bool(value)?);
        Ok(())
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.0.push(CellVisitor.visit_i64(value)?);
        Ok(())
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.0.push(CellVisitor.visit_u64(value)?);
        Ok(())
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.0.push(CellVisitor.visit_f64(value)?);
        Ok(())
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.0.push(CellVisitor.visit_str(text)?);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(FlatVisitor(&mut *self.0))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.push(CellVisitor.visit_map(map)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_stay_exact_as_keys() {
        let cells: Vec<Cell> =
            serde_json::from_str("[9007199254740993, 18446744073709551615, \"a\", null]").unwrap();
        let keys: Vec<_> = cells.iter().map(Cell::to_key).collect();
        assert_eq!(keys[0].as_deref(), Some("9007199254740993"));
        assert_eq!(keys[1].as_deref(), Some("18446744073709551615"));
        assert_eq!(keys[2].as_deref(), Some("a"));
        assert_eq!(keys[3], None);
        let category = cells[0].clone().into_raw(FeatureKind::Categorical);
        assert_eq!(category, RawValue::Text("9007199254740993".into()));
    }

    #[test]
    fn nested_arrays_are_read_row_major() {
        let flat: FlatCells = serde_json::from_str("[[1, 2], [3, null], {}]").unwrap();
        assert_eq!(
            flat.0,
            [Cell::Int(1), Cell::Int(2), Cell::Int(3), Cell::Null, Cell::Nested]
        );
    }
}
