//! Single values between JSON and the bytes of a tensor.

use std::sync::Arc;

use bytes::Bytes;
use tidemill_core::tensors::{DataType, Tensor};

use super::Cell;

pub(super) fn is_float(datatype: DataType) -> bool {
    use DataType::{Bf16, Fp16, Fp32, Fp64};
    matches!(datatype, Fp16 | Bf16 | Fp32 | Fp64)
}

/// Appends a value that fits its datatype, little-endian.
pub(super) fn push(cell: &Cell, datatype: DataType, bytes: &mut Vec<u8>) {
    let (integer, float) = match cell {
        Cell::Int(value) => (*value as u64, *value as f64),
        Cell::UInt(value) => (*value, *value as f64),
        Cell::Bool(value) => (u64::from(*value), f64::from(u8::from(*value))),
        Cell::Float(value) => (0, *value),
        Cell::Null | Cell::Text(_) | Cell::Nested => (0, f64::NAN),
    };
    match datatype {
        DataType::Fp64 => bytes.extend(float.to_le_bytes()),
        DataType::Fp32 => bytes.extend((float as f32).to_le_bytes()),
        DataType::Fp16 => bytes.extend(half_bits(float as f32).to_le_bytes()),
        DataType::Bf16 => bytes.extend(brain_bits(float as f32).to_le_bytes()),
        // An integer that fits a narrower type has the same lowest bytes there.
        _ => bytes.extend(&integer.to_le_bytes()[..datatype.size().unwrap_or(8)]),
    }
}

/// The nearest IEEE half, ties to even.
fn half_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = value.abs();
    if value.is_nan() {
        return sign | 0x7e00;
    }
    if magnitude >= 65_520.0 {
        return sign | 0x7c00;
    }
    if magnitude < 2.0_f32.powi(-14) {
        // Multiples of 2^-24, of which the largest is the smallest normal number.
        return sign | (magnitude * 2.0_f32.powi(24)).round_ties_even() as u16;
    }
    let exponent = (((bits >> 23) & 0xff) as i32) - 127;
    let fraction = magnitude / 2.0_f32.powi(exponent) - 1.0;
    let rounded = (fraction * 1024.0).round_ties_even() as u16;
    // A fraction that was rounded up to 1 goes over into the exponent.
    sign | ((((exponent + 15) as u16) << 10) + rounded)
}

/// The nearest number with the upper 16 bits alone, ties to even.
fn brain_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return ((bits >> 16) as u16) | 0x40;
    }
    let tie = (bits >> 16) & 1;
    ((bits + 0x7fff + tie) >> 16) as u16
}

pub(super) fn fixed_cells(tensor: &Tensor, bytes: &Bytes) -> Vec<Cell> {
    macro_rules! integers {
        ($type:ty) => {
            bytes
                .as_chunks::<{ size_of::<$type>() }>()
                .0
                .iter()
                .map(|chunk| Cell::Int(i64::from(<$type>::from_le_bytes(*chunk))))
                .collect()
        };
    }
    match tensor.datatype {
        DataType::Bool => bytes.iter().map(|&byte| Cell::Bool(byte != 0)).collect(),
        DataType::Uint8 => integers!(u8),
        DataType::Uint16 => integers!(u16),
        DataType::Uint32 => integers!(u32),
        DataType::Int8 => integers!(i8),
        DataType::Int16 => integers!(i16),
        DataType::Int32 => integers!(i32),
        DataType::Int64 => integers!(i64),
        DataType::Uint64 => {
            let (chunks, _) = bytes.as_chunks::<8>();
            let cell = |value: u64| i64::try_from(value).map_or(Cell::UInt(value), Cell::Int);
            chunks
                .iter()
                .map(|chunk| cell(u64::from_le_bytes(*chunk)))
                .collect()
        }
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 | DataType::Bytes => {
            let cell = |value: f64| {
                if value.is_nan() {
                    Cell::Null
                } else {
                    Cell::Float(value)
                }
            };
            tensor
                .to_f64()
                .unwrap_or_default()
                .into_iter()
                .map(cell)
                .collect()
        }
    }
}

/// A value of a scored row as its column has it: a boolean and a whole number written as a float are numbers to a column of integers,
/// numbers and booleans are texts to a column of texts. Anything else stays, and is refused where it does not fit.
pub(super) fn adapted(cell: Cell, datatype: DataType) -> Cell {
    match (Takes::of(datatype), cell) {
        (Takes::Integer { .. } | Takes::Float, Cell::Bool(value)) => Cell::Int(value.into()),
        (Takes::Integer { .. }, Cell::Float(value)) => whole(value).unwrap_or(Cell::Float(value)),
        (Takes::Bytes, cell @ (Cell::Bool(_) | Cell::Int(_) | Cell::UInt(_) | Cell::Float(_))) => {
            Cell::Text(Arc::from(cell.to_string()))
        }
        (_, cell) => cell,
    }
}

/// A float that is an integer, as one.
pub(super) fn whole(value: f64) -> Option<Cell> {
    // The bounds are powers of two, so they are floats themselves.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if value.fract() != 0.0 {
        return None;
    }
    if (-END..END).contains(&value) {
        return Some(Cell::Int(value as i64));
    }
    (END..2.0 * END)
        .contains(&value)
        .then_some(Cell::UInt(value as u64))
}

/// What a datatype takes of JSON.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Bool,
    Integer { min: i64, max: u64 },
    Float,
    Bytes,
}

impl Takes {
    pub(super) fn of(datatype: DataType) -> Self {
        let signed = |bits: u32| Self::Integer {
            min: i64::MIN >> (64 - bits),
            max: (i64::MAX >> (64 - bits)).unsigned_abs(),
        };
        let unsigned = |bits: u32| Self::Integer {
            min: 0,
            max: u64::MAX >> (64 - bits),
        };
        match datatype {
            DataType::Bool => Self::Bool,
            DataType::Int8 => signed(8),
            DataType::Int16 => signed(16),
            DataType::Int32 => signed(32),
            DataType::Int64 => signed(64),
            DataType::Uint8 => unsigned(8),
            DataType::Uint16 => unsigned(16),
            DataType::Uint32 => unsigned(32),
            DataType::Uint64 => unsigned(64),
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => Self::Float,
            DataType::Bytes => Self::Bytes,
        }
    }

    /// Null is missing in every datatype.
    pub(super) fn fits(self, cell: &Cell) -> bool {
        match (self, cell) {
            (_, Cell::Null) | (Self::Bool, Cell::Bool(_)) | (Self::Bytes, Cell::Text(_)) => true,
            (Self::Integer { min, max }, Cell::Int(value)) => {
                *value >= min && u64::try_from(*value).map_or(true, |value| value <= max)
            }
            (Self::Integer { max, .. }, Cell::UInt(value)) => *value <= max,
            (Self::Float, Cell::Int(_) | Cell::UInt(_)) => true,
            (Self::Float, Cell::Float(value)) => value.is_finite(),
            _ => false,
        }
    }

    pub(super) fn expected(self, datatype: DataType) -> String {
        let what = match self {
            Self::Bool => "true, false or null",
            Self::Integer { .. } => "an integer in its range, or null",
            Self::Float => "a number, or null for a missing value",
            Self::Bytes => "a text or null",
        };
        format!("{}: {what}", datatype.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datatype_takes_exactly_its_range_and_null() {
        let takes = |name: &str, cell| DataType::named(name).is_some_and(|d| Takes::of(d).fits(&cell));
        for name in ["BOOL", "INT8", "UINT64", "FP32", "BYTES"] {
            assert!(takes(name, Cell::Null));
            assert!(!takes(name, Cell::Nested));
        }
        assert!(takes("INT8", Cell::Int(-128)) && !takes("INT8", Cell::Int(-129)));
        assert!(takes("INT8", Cell::Int(127)) && !takes("INT8", Cell::Int(128)));
        assert!(takes("UINT8", Cell::Int(255)) && !takes("UINT8", Cell::Int(256)));
        assert!(!takes("UINT8", Cell::Int(-1)));
        assert!(takes("UINT64", Cell::UInt(u64::MAX)) && !takes("INT64", Cell::UInt(u64::MAX)));
        assert!(takes("INT64", Cell::Int(i64::MIN)));
        assert!(takes("FP64", Cell::Int(3)) && !takes("INT64", Cell::Float(3.0)));
        assert!(!takes("FP64", Cell::Text("NaN".into())));
        assert!(!takes("BOOL", Cell::Int(1)));
    }

    #[test]
    fn a_scored_value_becomes_what_its_column_holds_if_nothing_is_lost() {
        let adapt = |name: &str, cell| adapted(cell, DataType::named(name).unwrap());
        assert_eq!(adapt("FP64", Cell::Bool(true)), Cell::Int(1));
        assert_eq!(adapt("INT64", Cell::Float(-3.0)), Cell::Int(-3));
        assert_eq!(adapt("INT64", Cell::Float(1.5)), Cell::Float(1.5));
        assert_eq!(adapt("INT64", Cell::Float(1e300)), Cell::Float(1e300));
        assert_eq!(
            adapt("UINT64", Cell::Float(2.0_f64.powi(63))),
            Cell::UInt(1 << 63)
        );
        assert_eq!(adapt("BYTES", Cell::Int(7)), Cell::Text("7".into()));
        assert_eq!(adapt("BYTES", Cell::Float(7.0)), Cell::Text("7".into()));
        assert_eq!(adapt("BYTES", Cell::Bool(false)), Cell::Text("false".into()));
        assert_eq!(adapt("BYTES", Cell::Null), Cell::Null);
        assert_eq!(adapt("FP64", Cell::Text("7".into())), Cell::Text("7".into()));
        assert_eq!(adapt("BOOL", Cell::Int(1)), Cell::Int(1));
    }

    #[test]
    fn half_precision_is_written_as_the_nearest_number() {
        let table = [
            (0.0, 0x0000),
            (-0.0, 0x8000),
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (65504.0, 0x7bff),
            (65520.0, 0x7c00),
            (1e-8, 0x0000),
            (5.960_464_5e-8, 0x0001),
            (6.103_515_6e-5, 0x0400),
            (0.1, 0x2e66),
            (2049.0, 0x6800),
            (1.9999, 0x4000),
            (f32::INFINITY, 0x7c00),
        ];
        for (value, bits) in table {
            assert_eq!(half_bits(value), bits, "{value}");
        }
        assert_eq!(half_bits(f32::NAN) & 0x7fff, 0x7e00);
        assert_eq!(brain_bits(1.0), 0x3f80);
        assert_eq!(brain_bits(std::f32::consts::PI), 0x4049);
        assert_eq!(brain_bits(f32::INFINITY), 0x7f80);
        // Every half comes back as itself.
        for bits in 0..=0x7bff_u16 {
            let raw = Bytes::copy_from_slice(&bits.to_le_bytes());
            let tensor = Tensor::fixed("x", DataType::Fp16, vec![1], raw).unwrap();
            let value = tensor.to_f64().unwrap()[0];
            assert_eq!(half_bits(value as f32), bits, "{value}");
        }
    }
}
