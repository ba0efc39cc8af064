//! Numbers into tensors of any datatype.

use bytes::Bytes;

use super::{DataType, Tensor, TensorError};

impl Tensor {
    /// A tensor of numbers of any datatype but byte strings. Fractions of integers are cut off, and what is out of range becomes the nearest
    /// number that is in it, NaN zero; anything but zero is true.
    ///
    /// # Errors
    /// If the numbers are not as many as the shape needs, or the datatype is byte strings.
    pub fn of_numbers(
        name: impl Into<String>,
        datatype: DataType,
        shape: Vec<usize>,
        values: &[f64],
    ) -> Result<Self, TensorError> {
        let bytes = match datatype {
            DataType::Bool => values.iter().map(|value| u8::from(*value != 0.0)).collect(),
            DataType::Uint8 => encode(values, |value| (value as u8).to_le_bytes()),
            DataType::Uint16 => encode(values, |value| (value as u16).to_le_bytes()),
            DataType::Uint32 => encode(values, |value| (value as u32).to_le_bytes()),
            DataType::Uint64 => encode(values, |value| (value as u64).to_le_bytes()),
            DataType::Int8 => encode(values, |value| (value as i8).to_le_bytes()),
            DataType::Int16 => encode(values, |value| (value as i16).to_le_bytes()),
            DataType::Int32 => encode(values, |value| (value as i32).to_le_bytes()),
            DataType::Int64 => encode(values, |value| (value as i64).to_le_bytes()),
            DataType::Fp16 => encode(values, |value| half_bits(value as f32).to_le_bytes()),
            DataType::Bf16 => encode(values, |value| brain_bits(value as f32).to_le_bytes()),
            DataType::Fp32 => encode(values, |value| (value as f32).to_le_bytes()),
            DataType::Fp64 => encode(values, f64::to_le_bytes),
            DataType::Bytes => {
                return Err(TensorError {
                    name: name.into(),
                    got: "numbers".to_owned(),
                    expected: "byte strings".to_owned(),
                });
            }
        };
        Self::fixed(name, datatype, shape, Bytes::from(bytes))
    }
}

fn encode<const SIZE: usize>(values: &[f64], write: impl Fn(f64) -> [u8; SIZE]) -> Vec<u8> {
    values.iter().flat_map(|value| write(*value)).collect()
}

/// The upper half of a single-precision number, rounded to even.
fn brain_bits(value: f32) -> u16 {
    if value.is_nan() {
        return 0x7fc0;
    }
    let bits = value.to_bits();
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// IEEE 754 binary16, rounded to even.
fn half_bits(value: f32) -> u16 {
    let sign = ((value.to_bits() >> 16) & 0x8000) as u16;
    let size = value.abs();
    if value.is_nan() {
        return 0x7e00;
    }
    // Half of the last place above the largest number rounds up to infinity.
    if size >= 65_520.0 {
        return sign | 0x7c00;
    }
    // Adding and taking away a power of two rounds to the last place that a half has at this size.
    let exponent = (size.to_bits() >> 23).cast_signed() - 127;
    let step = 2.0_f64.powi(exponent.max(-14) - 10);
    let steps = (f64::from(size) / step).round_ties_even();
    let rounded = steps * step;
    if rounded < 2.0_f64.powi(-14) {
        return sign | (rounded / 2.0_f64.powi(-24)) as u16;
    }
    let exponent = ((rounded.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let fraction = (rounded / 2.0_f64.powi(exponent) - 1.0) * 1024.0;
    sign | (((exponent + 15) as u16) << 10) | fraction as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_that_is_read_is_written_the_same() {
        for bits in 0..=u16::MAX {
            let tensor =
                Tensor::fixed("h", DataType::Fp16, vec![1], bits.to_le_bytes().to_vec().into()).unwrap();
            let value = tensor.to_f64().unwrap();
            if value[0].is_nan() {
                continue;
            }
            let again = Tensor::of_numbers("h", DataType::Fp16, vec![1], &value).unwrap();
            assert_eq!(again, tensor, "{bits:#06x} is {}", value[0]);
        }
        assert_eq!(
            (half_bits(2049.0), half_bits(2051.0)),
            (0x6800, 0x6802),
            "ties go to even"
        );
    }

    #[test]
    fn numbers_become_any_datatype_and_come_back() {
        let values = [0.0, 1.0, 7.9, 200.0];
        for datatype in DataType::ALL
            .into_iter()
            .filter(|datatype| *datatype != DataType::Bytes)
        {
            let tensor = Tensor::of_numbers("x", datatype, vec![4], &values).unwrap();
            let back = tensor.to_f64().unwrap();
            let expected = match datatype {
                DataType::Bool => [0.0, 1.0, 1.0, 1.0],
                DataType::Int8 => [0.0, 1.0, 7.0, 127.0],
                DataType::Fp64 => values,
                DataType::Fp32 => values.map(|value| f64::from(value as f32)),
                DataType::Fp16 => [0.0, 1.0, 7.898_437_5, 200.0],
                DataType::Bf16 => [0.0, 1.0, 7.906_25, 200.0],
                _ => [0.0, 1.0, 7.0, 200.0],
            };
            assert_eq!(back, expected, "{}", datatype.name());
        }
        assert!(Tensor::of_numbers("x", DataType::Bytes, vec![4], &values).is_err());
    }
}
