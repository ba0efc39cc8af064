//! As much of Protocol Buffers as W&B's records need: fields by number, whatever the message.

use anyhow::{Result, bail};

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'m> {
    /// An integer or a flag.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// A text, bytes, or a message.
    Bytes(&'m [u8]),
    /// Four bytes.
    Fixed32(u32),
}

impl<'m> Value<'m> {
    /// As the message that it is.
    pub fn message(self) -> &'m [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// As text.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.message()).into_owned()
    }

    /// As `int32` or `int64`.
    pub fn integer(self) -> i64 {
        match self {
            Self::Varint(value) | Self::Fixed64(value) => value as i64,
            Self::Fixed32(value) => i64::from(value),
            Self::Bytes(_) => 0,
        }
    }

    /// As `sint64`.
    pub fn zigzag(self) -> i64 {
        let value = self.integer() as u64;
        (value >> 1) as i64 ^ -((value & 1) as i64)
    }

    /// As `double`.
    pub fn double(self) -> f64 {
        match self {
            Self::Fixed64(bits) => f64::from_bits(bits),
            Self::Fixed32(bits) => f64::from(f32::from_bits(bits)),
            _ => 0.0,
        }
    }
}

/// The fields of a message, in order.
pub struct Fields<'m> {
    rest: &'m [u8],
}

/// Reads a message.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'m> Fields<'m> {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let Some((byte, rest)) = self.rest.split_first() else {
                bail!("a record's message is cut short");
            };
            self.rest = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!("a record's message has a number that is too long");
    }

    fn take(&mut self, length: usize) -> Result<&'m [u8]> {
        if length > self.rest.len() {
            bail!("a record's message is cut short");
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    fn read(&mut self) -> Result<(u64, Value<'m>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(self.take(8)?);
                Value::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?)?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(self.take(4)?);
                Value::Fixed32(u32::from_le_bytes(bytes))
            }
            kind => bail!("a record's message has a field of unknown kind {kind}"),
        };
        Ok((tag >> 3, value))
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<(u64, Value<'m>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.rest = &[];
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_by_number_and_kind() {
        // field 1: 150; field 2: "testing"; field 3: 0.5; field 4: sint64 -2
        let bytes = [
            0x08, 0x96, 0x01, 0x12, 0x07, b't', b'e', b's', b't', b'i', b'n', b'g', 0x19, 0, 0, 0, 0, 0, 0,
            0xe0, 0x3f, 0x20, 0x03,
        ];
        let read: Vec<_> = fields(&bytes).map(Result::unwrap).collect();
        assert_eq!(read[0], (1, Value::Varint(150)));
        assert_eq!(read[1].1.text(), "testing");
        assert_eq!(read[2].1.double(), 0.5);
        assert_eq!(read[3].1.zigzag(), -2);
    }

    #[test]
    fn a_message_that_is_cut_short_is_refused_once() {
        let read: Vec<_> = fields(&[0x12, 0x07, b't']).collect();
        assert_eq!(read.len(), 1);
        assert!(read[0].is_err());
        assert!(fields(&[0xff; 12]).next().unwrap().is_err());
    }
}
