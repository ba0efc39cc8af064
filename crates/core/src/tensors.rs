//! Named tensors: what a model takes and gives that is no table of features, in the words of the Open Inference Protocol v2.
//!
//! A column of a table is a tensor of one dimension, so a tabular request fits here too.

mod cast;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The type of a tensor's elements, under the protocol's names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    Uint8,
    /// Unsigned, 16 bits.
    Uint16,
    /// Unsigned, 32 bits.
    Uint32,
    /// Unsigned, 64 bits.
    Uint64,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// IEEE half precision.
    Fp16,
    /// The upper half of a single-precision number.
    Bf16,
    /// IEEE single precision.
    Fp32,
    /// IEEE double precision.
    Fp64,
    /// Byte strings of any length: texts, mostly.
    Bytes,
}

impl DataType {
    /// Every datatype.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// The protocol's name, such as `FP32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// The datatype of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name)
    }

    /// Bytes an element; `None` for byte strings.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

/// Elements that a tensor may have, and what its other extents may come to where one of them is 0: 2^31.
const MOST_ELEMENTS: usize = 1 << 31;

/// The elements of a tensor, row-major.
#[derive(Clone, PartialEq, Debug)]
pub enum TensorData {
    /// Elements of a fixed size, little-endian.
    Fixed(Bytes),
    /// Byte strings; `None` is missing.
    Strings(Vec<Option<Bytes>>),
}

/// A tensor with its name.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    /// Which input or output it is.
    pub name: String,
    /// The type of its elements.
    pub datatype: DataType,
    /// Its extent in each dimension.
    pub shape: Vec<usize>,
    /// Its elements.
    pub data: TensorData,
}

/// A tensor whose parts contradict each other, or that does not fit its description.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("tensor `{name}`: {got}, expected {expected}")]
pub struct TensorError {
    /// Which tensor.
    pub name: String,
    /// What came.
    pub got: String,
    /// What would have fitted.
    pub expected: String,
}

impl Tensor {
    /// A tensor of elements of a fixed size, little-endian.
    ///
    /// # Errors
    /// If the bytes are not as many as the shape needs.
    pub fn fixed(
        name: impl Into<String>,
        datatype: DataType,
        shape: Vec<usize>,
        data: Bytes,
    ) -> Result<Self, TensorError> {
        Self::new(name.into(), datatype, shape, TensorData::Fixed(data))
    }

    /// A tensor of byte strings.
    ///
    /// # Errors
    /// If the strings are not as many as the shape needs.
    pub fn strings(
        name: impl Into<String>,
        shape: Vec<usize>,
        strings: Vec<Option<Bytes>>,
    ) -> Result<Self, TensorError> {
        Self::new(name.into(), DataType::Bytes, shape, TensorData::Strings(strings))
    }

    /// A tensor of double-precision numbers.
    ///
    /// # Errors
    /// If the numbers are not as many as the shape needs.
    pub fn of_f64(name: impl Into<String>, shape: Vec<usize>, values: &[f64]) -> Result<Self, TensorError> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::fixed(name, DataType::Fp64, shape, bytes.into())
    }

    /// A tensor of single-precision numbers.
    ///
    /// # Errors
    /// If the numbers are not as many as the shape needs.
    pub fn of_f32(name: impl Into<String>, shape: Vec<usize>, values: &[f32]) -> Result<Self, TensorError> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::fixed(name, DataType::Fp32, shape, bytes.into())
    }

    fn new(
        name: String,
        datatype: DataType,
        shape: Vec<usize>,
        data: TensorData,
    ) -> Result<Self, TensorError> {
        let tensor = Self {
            name,
            datatype,
            shape,
            data,
        };
        tensor.check()?;
        Ok(tensor)
    }

    /// Whether datatype, shape and data agree.
    ///
    /// # Errors
    /// If they do not.
    pub fn check(&self) -> Result<(), TensorError> {
        // An extent of 0 does not excuse the others: rows without bytes are still gone through.
        let apart_from_zeros = self
            .shape
            .iter()
            .filter(|&&extent| extent > 0)
            .try_fold(1_usize, |product, &extent| product.checked_mul(extent));
        if apart_from_zeros.is_none_or(|product| product > MOST_ELEMENTS) {
            return Err(self.error(
                format!("shape {:?}", self.shape),
                format!("a shape whose extents apart from 0 come to at most {MOST_ELEMENTS}"),
            ));
        }
        let elements = self.elements();
        match (&self.data, self.datatype.size()) {
            (TensorData::Fixed(bytes), Some(size)) if Some(bytes.len()) == elements.checked_mul(size) => {
                Ok(())
            }
            (TensorData::Fixed(bytes), Some(size)) => Err(self.error(
                format!("{} bytes", bytes.len()),
                format!(
                    "{} bytes for shape {:?} of {}",
                    elements.saturating_mul(size),
                    self.shape,
                    self.datatype.name()
                ),
            )),
            (TensorData::Strings(strings), None) if strings.len() == elements => Ok(()),
            (TensorData::Strings(strings), None) => Err(self.error(
                format!("{} elements", strings.len()),
                format!("{elements} for shape {:?}", self.shape),
            )),
            (TensorData::Fixed(_), None) => {
                Err(self.error("elements of a fixed size".to_owned(), "byte strings".to_owned()))
            }
            (TensorData::Strings(_), Some(_)) => {
                Err(self.error("byte strings".to_owned(), self.datatype.name().to_owned()))
            }
        }
    }

    fn error(&self, got: String, expected: String) -> TensorError {
        TensorError {
            name: self.name.clone(),
            got,
            expected,
        }
    }

    /// How many elements.
    pub fn elements(&self) -> usize {
        elements(&self.shape).unwrap_or(0)
    }

    /// The extent of the first dimension; 1 for a tensor without dimensions.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// About how many bytes it holds.
    pub fn bytes(&self) -> usize {
        match &self.data {
            TensorData::Fixed(bytes) => bytes.len(),
            TensorData::Strings(strings) => {
                strings.iter().map(|s| 4 + s.as_ref().map_or(0, Bytes::len)).sum()
            }
        }
    }

    /// Its elements as numbers: integers, booleans and floats of every width; `None` for byte strings. Integers beyond 2^53 lose digits.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        let TensorData::Fixed(bytes) = &self.data else {
            return None;
        };
        Some(match self.datatype {
            DataType::Bool => bytes.iter().map(|&byte| f64::from(u8::from(byte != 0))).collect(),
            DataType::Uint8 => numbers(bytes, |chunk| f64::from(u8::from_le_bytes(chunk))),
            DataType::Uint16 => numbers(bytes, |chunk| f64::from(u16::from_le_bytes(chunk))),
            DataType::Uint32 => numbers(bytes, |chunk| f64::from(u32::from_le_bytes(chunk))),
            DataType::Uint64 => numbers(bytes, |chunk| u64::from_le_bytes(chunk) as f64),
            DataType::Int8 => numbers(bytes, |chunk| f64::from(i8::from_le_bytes(chunk))),
            DataType::Int16 => numbers(bytes, |chunk| f64::from(i16::from_le_bytes(chunk))),
            DataType::Int32 => numbers(bytes, |chunk| f64::from(i32::from_le_bytes(chunk))),
            DataType::Int64 => numbers(bytes, |chunk| i64::from_le_bytes(chunk) as f64),
            DataType::Fp32 => numbers(bytes, |chunk| f64::from(f32::from_le_bytes(chunk))),
            DataType::Fp64 => numbers(bytes, f64::from_le_bytes),
            DataType::Fp16 => numbers(bytes, |chunk| f64::from(half(u16::from_le_bytes(chunk)))),
            DataType::Bf16 => numbers(bytes, |chunk| {
                f64::from(f32::from_bits(u32::from(u16::from_le_bytes(chunk)) << 16))
            }),
            DataType::Bytes => return None,
        })
    }

    /// The rows `from..until` of the first dimension; fixed-size data is shared, not copied.
    ///
    /// # Errors
    /// If there are not so many rows, or no first dimension.
    pub fn slice_rows(&self, from: usize, until: usize) -> Result<Self, TensorError> {
        let rows = self.shape.first().copied().unwrap_or(0);
        if from > until || until > rows {
            return Err(self.error(
                format!("shape {:?}", self.shape),
                format!("at least {until} rows"),
            ));
        }
        let a_row = self.elements() / rows.max(1);
        let (first, last) = (from * a_row, until * a_row);
        let data = match (&self.data, self.datatype.size()) {
            (TensorData::Fixed(bytes), size) => {
                let size = size.unwrap_or(1);
                TensorData::Fixed(bytes.slice(first * size..last * size))
            }
            (TensorData::Strings(strings), _) => TensorData::Strings(strings[first..last].to_vec()),
        };
        let mut shape = self.shape.clone();
        shape[0] = until - from;
        Ok(Self {
            name: self.name.clone(),
            datatype: self.datatype,
            shape,
            data,
        })
    }

    /// Joins tensors along their first dimension.
    ///
    /// # Errors
    /// If there are none, or they differ in datatype or in another dimension.
    pub fn concat_rows(parts: &[&Self]) -> Result<Self, TensorError> {
        let Some(first) = parts.first() else {
            return Err(TensorError {
                name: String::new(),
                got: "no tensors".to_owned(),
                expected: "at least one".to_owned(),
            });
        };
        let mut rows = 0;
        for part in parts {
            let fits = part.datatype == first.datatype
                && !part.shape.is_empty()
                && part.shape[1..] == first.shape[1..];
            if !fits {
                return Err(part.error(
                    format!("{} of shape {:?}", part.datatype.name(), part.shape),
                    format!(
                        "{} with shape {:?} after the first dimension",
                        first.datatype.name(),
                        first.shape.get(1..).unwrap_or_default()
                    ),
                ));
            }
            rows += part.shape[0];
        }
        let data = match &first.data {
            TensorData::Fixed(_) => {
                let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.bytes()).sum());
                for part in parts {
                    if let TensorData::Fixed(more) = &part.data {
                        bytes.extend_from_slice(more);
                    }
                }
                TensorData::Fixed(bytes.into())
            }
            TensorData::Strings(_) => {
                let mut strings = Vec::new();
                for part in parts {
                    if let TensorData::Strings(more) = &part.data {
                        strings.extend_from_slice(more);
                    }
                }
                TensorData::Strings(strings)
            }
        };
        let mut shape = first.shape.clone();
        shape[0] = rows;
        Ok(Self {
            name: first.name.clone(),
            datatype: first.datatype,
            shape,
            data,
        })
    }
}

/// The number of elements of a shape; `None` if it cannot be counted.
pub fn elements(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |product, &extent| product.checked_mul(extent))
}

fn numbers<const SIZE: usize>(bytes: &Bytes, read: impl Fn([u8; SIZE]) -> f64) -> Vec<f64> {
    let (chunks, _) = bytes.as_chunks::<SIZE>();
    chunks.iter().map(|chunk| read(*chunk)).collect()
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2.0_f32.powi(exponent - 15),
    }
}

/// What a model says of one of its tensors.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub datatype: DataType,
    /// Its extent in each dimension; -1 where any will do. Where the model takes batches, the first dimension is the batch's and is -1.
    pub shape: Vec<i64>,
    /// Whether a request may leave it out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// What the positions of the last dimension mean, where they are classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

impl TensorSpec {
    /// A required tensor.
    pub fn new(name: impl Into<String>, datatype: DataType, shape: Vec<i64>) -> Self {
        Self {
            name: name.into(),
            datatype,
            shape,
            optional: false,
            labels: Vec::new(),
        }
    }

    /// Whether a tensor fits.
    ///
    /// # Errors
    /// If its datatype or its shape is another.
    pub fn check(&self, tensor: &Tensor) -> Result<(), TensorError> {
        if tensor.datatype != self.datatype {
            return Err(tensor.error(
                format!("datatype {}", tensor.datatype.name()),
                self.datatype.name().to_owned(),
            ));
        }
        let fits = tensor.shape.len() == self.shape.len()
            && tensor
                .shape
                .iter()
                .zip(&self.shape)
                .all(|(&got, &wanted)| wanted < 0 || i64::try_from(got) == Ok(wanted));
        if !fits {
            return Err(tensor.error(
                format!("shape {:?}", tensor.shape),
                format!("shape {:?}", self.shape),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_numbers_are_read_as_ieee_says() {
        let cases = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x0001, 2.0_f32.powi(-24)),
            (0x7bff, 65504.0),
        ];
        for (bits, value) in cases {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7e00).is_nan() && half(0xfc00) == f32::NEG_INFINITY);
    }

    #[test]
    fn rows_that_are_cut_and_joined_again_are_the_same_tensor() {
        let whole = Tensor::of_f32("x", vec![3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let (head, tail) = (whole.slice_rows(0, 1).unwrap(), whole.slice_rows(1, 3).unwrap());
        assert_eq!(
            (head.shape.as_slice(), tail.shape.as_slice()),
            ([1, 2].as_slice(), [2, 2].as_slice())
        );
        assert_eq!(Tensor::concat_rows(&[&head, &tail]).unwrap(), whole);
        assert!(whole.slice_rows(2, 4).is_err());
    }

    #[test]
    fn data_that_does_not_fill_its_shape_is_refused_with_both_numbers() {
        let error = Tensor::of_f64("x", vec![2, 2], &[1.0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor `x`: 8 bytes, expected 32 bytes for shape [2, 2] of FP64"
        );
        assert!(Tensor::strings("s", vec![usize::MAX, 2], Vec::new()).is_err());
    }

    #[test]
    fn a_shape_without_elements_may_not_claim_rows_without_end() {
        for shape in [
            vec![1 << 40, 0],
            vec![0, 1 << 16, 1 << 16],
            vec![0, usize::MAX, usize::MAX],
        ] {
            let error = Tensor::of_f64("x", shape.clone(), &[]).unwrap_err();
            assert!(error.to_string().contains("apart from 0"), "{shape:?}: {error}");
        }
        assert!(Tensor::of_f64("x", vec![1 << 31, 0], &[]).is_ok());
        assert!(Tensor::of_f64("x", vec![0], &[]).is_ok());
    }
}
