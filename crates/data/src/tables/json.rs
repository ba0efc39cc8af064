//! `{"columns": […], "data": [[…], …]}` read row by row: W&B's tables and MLflow's, with Python's `NaN` and `Infinity` in them.

use std::cell::Cell as Shared;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::marker::PhantomData;
use std::rc::Rc;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::columns::MOST_COLUMNS;

/// Stands before a constant that JSON does not know, in the text that it is read as.
const MARK: char = '\0';
/// So many bytes a row has at most, and so many all that is before or after the rows.
const LONGEST_ROW: u64 = 64 << 20;

/// A value of a row.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list or an object, as JSON.
    Nested(String),
}

/// What stands around the rows.
#[derive(Debug, Default)]
pub struct Frame {
    /// Names of columns, as they are written.
    pub columns: Vec<String>,
    /// Whether there were rows at all, be it none.
    pub has_data: bool,
    /// Columns that hold times, as W&B says it.
    pub times: Vec<String>,
}

/// Reads a table and gives each row to `row`.
pub fn read(
    reader: impl Read,
    row: &mut dyn FnMut(Vec<Cell>) -> Result<(), String>,
) -> Result<Frame, String> {
    let mut frame = Frame::default();
    let mut seen = 0;
    let left = Rc::new(Shared::new(LONGEST_ROW));
    let mut count = |cells| {
        seen += 1;
        left.set(LONGEST_ROW);
        row(cells)
    };
    let bounded = Bounded {
        inner: reader,
        left: Rc::clone(&left),
    };
    let mut json =
        serde_json::Deserializer::from_reader(Constants::new(BufReader::with_capacity(1 << 16, bounded)));
    let document = Document {
        frame: &mut frame,
        row: &mut count,
    };
    let read = document.deserialize(&mut json).and_then(|()| json.end());
    match read {
        Ok(()) => Ok(frame),
        Err(error) if seen == 0 => Err(error.to_string()),
        Err(error) => Err(format!("after row {seen}: {error}")),
    }
}

/// A reader that ends when it has read too much of one row, or of what stands around the rows.
struct Bounded<R> {
    inner: R,
    left: Rc<Shared<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        let left = self.left.get().checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!(
                "a row, or what stands before or after the rows, is longer than {} MB",
                LONGEST_ROW >> 20
            ))
        })?;
        self.left.set(left);
        Ok(read)
    }
}

/// A list of at most [`MOST_COLUMNS`] values, counted one by one as they are read.
struct Few<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Few<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            if values.len() == MOST_COLUMNS {
                return Err(serde::de::Error::custom(format!(
                    "a row has more than {MOST_COLUMNS} values: a table has at most {MOST_COLUMNS} columns here"
                )));
            }
            values.push(value);
        }
        Ok(values)
    }
}

struct Document<'a> {
    frame: &'a mut Frame,
    row: &'a mut dyn FnMut(Vec<Cell>) -> Result<(), String>,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `columns` and `data`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "columns" => {
                    let names: Vec<Value> = map.next_value_seed(Few(PhantomData))?;
                    self.frame.columns = names.iter().map(title).collect();
                }
                "data" => {
                    self.frame.has_data = true;
                    map.next_value_seed(Rows { row: &mut *self.row })?;
                }
                "column_types" => self.frame.times = times(&map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

fn title(name: &Value) -> String {
    match name {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The columns that W&B's types call times: it writes those as milliseconds.
fn times(types: &Value) -> Vec<String> {
    let is_time = |of: &Value| {
        let alternatives = of
            .pointer("/params/allowed_types")
            .and_then(Value::as_array)
            .map_or(std::slice::from_ref(of), Vec::as_slice);
        let mut named = alternatives
            .iter()
            .filter_map(|one| one.get("wb_type").and_then(Value::as_str))
            .filter(|name| *name != "none");
        named.next() == Some("timestamp") && named.next().is_none()
    };
    let columns = types
        .pointer("/params/type_map")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    columns
        .filter(|(_, of)| is_time(of))
        .map(|(name, _)| name.clone())
        .collect()
}

struct Rows<'a> {
    row: &'a mut dyn FnMut(Vec<Cell>) -> Result<(), String>,
}

impl<'de> DeserializeSeed<'de> for Rows<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`data` to be a list of rows, each a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while let Some(row) = rows.next_element_seed(Few::<Cell>(PhantomData))? {
            (self.row)(row).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

fn nested(value: &Value) -> Cell {
    // In a text of its own JSON a constant is a text.
    Cell::Nested(value.to_string().replace("\"\\u0000", "\""))
}

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
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
        Ok(i64::try_from(value).map_or(Cell::Float(value as f64), Cell::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cell, E> {
        Ok(match text.strip_prefix(MARK) {
            Some("NaN") => Cell::Float(f64::NAN),
            Some("Infinity") => Cell::Float(f64::INFINITY),
            Some("-Infinity") => Cell::Float(f64::NEG_INFINITY),
            _ => Cell::Text(text.to_owned()),
        })
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Cell, E> {
        if text.starts_with(MARK) {
            return self.visit_str(&text);
        }
        Ok(Cell::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Cell, A::Error> {
        Ok(nested(&Value::deserialize(SeqAccessDeserializer::new(seq))?))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Cell, A::Error> {
        Ok(nested(&Value::deserialize(MapAccessDeserializer::new(map))?))
    }
}

/// Writes the constants that Python has and JSON has not as texts with a mark, while the bytes pass through.
struct Constants<R> {
    inner: R,
    out: Vec<u8>,
    used: usize,
    in_text: bool,
    escaped: bool,
    minus: bool,
    /// What has to follow, of a constant that has begun.
    expected: &'static [u8],
}

impl<R: BufRead> Constants<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            out: Vec::new(),
            used: 0,
            in_text: false,
            escaped: false,
            minus: false,
            expected: b"",
        }
    }

    fn take(&mut self, byte: u8) {
        if self.in_text {
            self.out.push(byte);
            if self.escaped {
                self.escaped = false;
            } else if byte == b'\\' {
                self.escaped = true;
            } else if byte == b'"' {
                self.in_text = false;
            }
            return;
        }
        if let Some((first, rest)) = self.expected.split_first() {
            // What only begins like a constant is no JSON: a byte that cannot stand here says so.
            if byte != *first {
                self.out.push(b'?');
            }
            self.expected = rest;
            return;
        }
        let minus = std::mem::take(&mut self.minus);
        let (text, rest): (&[u8], &'static [u8]) = match byte {
            b'N' => (b"\"\\u0000NaN\"", b"aN"),
            b'I' if minus => (b"\"\\u0000-Infinity\"", b"nfinity"),
            b'I' => (b"\"\\u0000Infinity\"", b"nfinity"),
            _ => {
                if minus {
                    self.out.push(b'-');
                }
                if byte == b'-' {
                    self.minus = true;
                } else {
                    self.in_text = byte == b'"';
                    self.out.push(byte);
                }
                return;
            }
        };
        self.out.extend_from_slice(text);
        self.expected = rest;
    }
}

impl<R: BufRead> Read for Constants<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.used == self.out.len() {
            self.out.clear();
            self.used = 0;
            let piece = self.inner.fill_buf()?.to_vec();
            if piece.is_empty() {
                return Ok(0);
            }
            for byte in &piece {
                self.take(*byte);
            }
            self.inner.consume(piece.len());
        }
        let left = &self.out[self.used..];
        let taken = left.len().min(into.len());
        into[..taken].copy_from_slice(&left[..taken]);
        self.used += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Result<(Frame, Vec<Vec<Cell>>), String> {
        let mut rows = Vec::new();
        let frame = read(text.as_bytes(), &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok((frame, rows))
    }

    #[test]
    fn constants_of_python_are_numbers_and_texts_stay_texts() {
        let text = r#"{"columns": ["a", 7, null], "data": [[NaN, -Infinity, "NaN"], [Infinity, -1.5, {"b": [NaN, "I\"N"]}]], "ncols": 2}"#;
        let (frame, rows) = rows(text).unwrap();
        assert_eq!(frame.columns, ["a", "7", ""]);
        assert!(matches!(rows[0][0], Cell::Float(f) if f.is_nan()));
        assert_eq!(
            rows[0][1..],
            [Cell::Float(f64::NEG_INFINITY), Cell::Text("NaN".to_owned())]
        );
        assert_eq!(rows[1][0..2], [Cell::Float(f64::INFINITY), Cell::Float(-1.5)]);
        assert_eq!(rows[1][2], Cell::Nested(r#"{"b":["NaN","I\"N"]}"#.to_owned()));
    }

    #[test]
    fn what_is_no_table_says_where() {
        assert!(
            rows("[1]")
                .unwrap_err()
                .contains("an object with `columns` and `data`")
        );
        let error = rows(r#"{"columns": ["a"], "data": [[1], {"a": 2}]}"#).unwrap_err();
        assert!(
            error.starts_with("after row 1: ") && error.contains("line 1"),
            "{error}"
        );
        assert!(rows(r#"{"data": [[Nope]]}"#).is_err());
        assert!(rows(r#"{"data": [[1]]"#).unwrap_err().contains("EOF"));
        let deep = format!(r#"{{"data": [[{}{}]]}}"#, "[".repeat(500), "]".repeat(500));
        assert!(rows(&deep).unwrap_err().contains("recursion limit"));
    }

    #[test]
    fn a_row_and_what_stands_around_the_rows_are_bounded() {
        let cells = "1,".repeat(5_000);
        for text in [
            format!("{{\"data\": [[{cells}1]]}}"),
            format!("{{\"columns\": [{cells}1]}}"),
        ] {
            assert!(rows(&text).unwrap_err().contains("more than 4096"));
        }
        let long = "x".repeat(LONGEST_ROW as usize);
        let error = rows(&format!("{{\"data\": [[\"{long}\"]]}}")).unwrap_err();
        assert!(error.contains("longer than 64 MB"), "{error}");
    }

    #[test]
    fn times_are_known_by_wandbs_types() {
        let types = serde_json::json!({ "wb_type": "typedDict", "params": { "type_map": {
            "at": { "wb_type": "union", "params": { "allowed_types": [{ "wb_type": "none" }, { "wb_type": "timestamp" }] } },
            "n": { "wb_type": "number" }, "t": { "wb_type": "timestamp" },
        }}});
        let mut found = times(&types);
        found.sort();
        assert_eq!(found, ["at", "t"]);
    }
}
