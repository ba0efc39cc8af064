//! Protocol buffers on the wire, as far as an ONNX file needs them: nothing is copied, and nothing is set aside for what a length says.

use super::OnnxError;

/// A field's value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// A varint.
    Int(u64),
    /// 32 bits.
    Fixed32(u32),
    /// 64 bits, of which nobody here wants to know more.
    Fixed64,
    /// Bytes: a text, a message, packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// A whole number.
    pub fn int(self) -> Result<i64, OnnxError> {
        match self {
            Self::Int(value) => Ok(value.cast_signed()),
            _ => Err(OnnxError::wire("a field that should be a whole number is not")),
        }
    }

    /// Bytes.
    pub fn bytes(self) -> Result<&'a [u8], OnnxError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(OnnxError::wire("a field that should be bytes is not")),
        }
    }

    /// A text.
    pub fn text(self) -> Result<&'a str, OnnxError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| OnnxError::wire("a name is not UTF-8"))
    }

    /// A single-precision number.
    pub fn float(self) -> Result<f32, OnnxError> {
        match self {
            Self::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(OnnxError::wire("a field that should be a float is not")),
        }
    }

    /// Adds one whole number, or several that are packed.
    pub fn ints(self, into: &mut Vec<i64>) -> Result<(), OnnxError> {
        let Self::Bytes(mut bytes) = self else {
            into.push(self.int()?);
            return Ok(());
        };
        while !bytes.is_empty() {
            into.push(varint(&mut bytes)?.cast_signed());
        }
        Ok(())
    }

    /// Adds one single-precision number, or several that are packed.
    pub fn floats(self, into: &mut Vec<f32>) -> Result<(), OnnxError> {
        let Self::Bytes(bytes) = self else {
            into.push(self.float()?);
            return Ok(());
        };
        let (chunks, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(OnnxError::wire("packed floats are cut off"));
        }
        into.extend(chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)));
        Ok(())
    }
}

/// The fields of a message, one after another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field's number and value.
    pub fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, OnnxError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = varint(&mut self.0)?;
        let value = match key & 7 {
            0 => Value::Int(varint(&mut self.0)?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = varint(&mut self.0)?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(OnnxError::wire(format!("a field has wire type {other}"))),
        };
        Ok(Some((key >> 3, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], OnnxError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| OnnxError::wire("the file is cut off, or a length in it is wrong"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], OnnxError> {
        let taken = self.take(N)?;
        taken
            .try_into()
            .map_err(|_| OnnxError::wire("the file is cut off"))
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, OnnxError> {
    let mut value = 0_u64;
    for (position, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).wrapping_shl(7 * position as u32);
        if byte & 0x80 == 0 {
            *bytes = &bytes[position + 1..];
            return Ok(value);
        }
    }
    Err(OnnxError::wire("the file is cut off inside a number"))
}

/// Writes fields, for the few messages that are added to a model.
#[derive(Debug, Default)]
pub(super) struct Writer(pub Vec<u8>);

impl Writer {
    /// A whole number.
    pub fn int(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    /// Bytes.
    pub fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}
