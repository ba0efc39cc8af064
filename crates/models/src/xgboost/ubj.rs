//! UBJSON, as far as XGBoost writes it, into JSON values.
//!
//! Source: the UBJSON specification, draft 12, and its use in `XGBoost` 3.2 (`src/common/json.cc`): strongly typed arrays with a
//! count, objects without one.

use serde_json::{Map, Number, Value};

/// Why bytes are not UBJSON: where, and what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotUbj {
    /// The byte.
    pub at: usize,
    /// What is wrong there.
    pub found: String,
}

/// Arrays and objects inside each other; XGBoost needs eight.
const DEEPEST: usize = 32;

/// Reads one value that takes all bytes.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, NotUbj> {
    let mut reader = Reader { bytes, at: 0 };
    let marker = reader.byte()?;
    let value = reader.value(marker, 0)?;
    if reader.at != bytes.len() {
        return Err(reader.error("more after the end of the model"));
    }
    Ok(value)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, found: impl Into<String>) -> NotUbj {
        NotUbj {
            at: self.at,
            found: found.into(),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], NotUbj> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            return Err(self.error("the end of the file"));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotUbj> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.error("the end of the file"))
    }

    fn byte(&mut self) -> Result<u8, NotUbj> {
        Ok(self.array::<1>()?[0])
    }

    /// The next byte that is not `N`, which means nothing.
    fn marker(&mut self) -> Result<u8, NotUbj> {
        loop {
            match self.byte()? {
                b'N' => {}
                marker => return Ok(marker),
            }
        }
    }

    fn count(&mut self) -> Result<usize, NotUbj> {
        let marker = self.byte()?;
        let value = self.number(marker)?;
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.error(format!("a length of {value}")))
    }

    fn text(&mut self) -> Result<String, NotUbj> {
        let length = self.count()?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.error("a name that is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn number(&mut self, marker: u8) -> Result<Value, NotUbj> {
        let float = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
        Ok(match marker {
            b'i' => i8::from_be_bytes(self.array()?).into(),
            b'U' => u8::from_be_bytes(self.array()?).into(),
            b'I' => i16::from_be_bytes(self.array()?).into(),
            b'l' => i32::from_be_bytes(self.array()?).into(),
            b'L' => i64::from_be_bytes(self.array()?).into(),
            b'd' => float(f64::from(f32::from_be_bytes(self.array()?))),
            b'D' => float(f64::from_be_bytes(self.array()?)),
            other => return Err(self.error(format!("the marker {other:#04x}"))),
        })
    }

    fn value(&mut self, marker: u8, depth: usize) -> Result<Value, NotUbj> {
        if depth > DEEPEST {
            return Err(self.error(format!("values nested deeper than {DEEPEST}")));
        }
        Ok(match marker {
            b'Z' => Value::Null,
            b'T' => true.into(),
            b'F' => false.into(),
            b'S' => self.text()?.into(),
            b'[' => self.list(depth)?,
            b'{' => self.object(depth)?,
            number => self.number(number)?,
        })
    }

    fn list(&mut self, depth: usize) -> Result<Value, NotUbj> {
        let mut marker = self.marker()?;
        let mut of = None;
        if marker == b'$' {
            of = Some(self.byte()?);
            marker = self.marker()?;
            if marker != b'#' {
                return Err(self.error("a typed array without a count"));
            }
        }
        let mut list = Vec::new();
        if marker != b'#' {
            while marker != b']' {
                list.push(self.value(marker, depth + 1)?);
                marker = self.marker()?;
            }
            return Ok(list.into());
        }
        let count = self.count()?;
        // Every element is at least a byte, so a count beyond the file's length is a lie; nothing is set aside for it.
        if count > self.bytes.len() - self.at {
            return Err(self.error(format!(
                "an array of {count} elements, more than the file has bytes"
            )));
        }
        // Types without bytes of their own would make the count a way to fill the memory.
        if matches!(of, Some(b'Z' | b'T' | b'F')) {
            return Err(self.error("an array of a type without bytes"));
        }
        for _ in 0..count {
            let marker = match of {
                Some(of) => of,
                None => self.marker()?,
            };
            list.push(self.value(marker, depth + 1)?);
        }
        Ok(list.into())
    }

    fn object(&mut self, depth: usize) -> Result<Value, NotUbj> {
        let mut object = Map::new();
        loop {
            if self.bytes.get(self.at) == Some(&b'}') {
                self.at += 1;
                return Ok(object.into());
            }
            let name = self.text()?;
            let marker = self.marker()?;
            let value = self.value(marker, depth + 1)?;
            object.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_typed_arrays_and_texts_are_read() {
        let bytes = b"{L\0\0\0\0\0\0\0\x01a[$d#L\0\0\0\0\0\0\0\x02\x3f\x80\0\0\xbf\0\0\0L\0\0\0\0\0\0\0\x01bSL\0\0\0\0\0\0\0\x02hi}";
        assert_eq!(parse(bytes).unwrap(), json!({"a": [1.0, -0.5], "b": "hi"}));
    }

    #[test]
    fn a_count_that_the_file_cannot_hold_is_refused_before_memory_is_set_aside() {
        let error = parse(b"[#L\x7f\xff\xff\xff\xff\xff\xff\xff").unwrap_err();
        assert!(error.found.contains("more than the file has bytes"), "{error:?}");
    }
}
