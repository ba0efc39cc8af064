//! Values between our tensors and ONNX Runtime's.

use bytes::Bytes;
use ort::value::{DynValue, Tensor as OrtTensor, TensorElementType, ValueType};
use tidemill_core::tensors::{DataType, Tensor, TensorData};

/// Our name of an ONNX element type (`TensorProto.DataType`).
pub(super) fn datatype(element: i64) -> Option<DataType> {
    Some(match element {
        1 => DataType::Fp32,
        2 => DataType::Uint8,
        3 => DataType::Int8,
        4 => DataType::Uint16,
        5 => DataType::Int16,
        6 => DataType::Int32,
        7 => DataType::Int64,
        8 => DataType::Bytes,
        9 => DataType::Bool,
        10 => DataType::Fp16,
        11 => DataType::Fp64,
        12 => DataType::Uint32,
        13 => DataType::Uint64,
        16 => DataType::Bf16,
        _ => return None,
    })
}

/// Why a tensor does not become a value.
#[derive(Debug, thiserror::Error)]
pub(super) enum ValueError {
    /// ONNX Runtime said so.
    #[error("{0}")]
    Ort(#[from] ort::Error),
    /// A text is missing or is not UTF-8.
    #[error("element {0} is missing or no text in UTF-8")]
    Text(usize),
    /// A type that is not passed on.
    #[error("{0} is not supported here")]
    Type(String),
}

/// A tensor as ONNX Runtime's value.
pub(super) fn to_ort(tensor: &Tensor) -> Result<DynValue, ValueError> {
    let shape: Vec<i64> = tensor.shape.iter().map(|&extent| extent as i64).collect();
    let bytes = match &tensor.data {
        TensorData::Strings(strings) => {
            let texts = strings.iter().enumerate().map(|(place, text)| {
                let text = text.as_ref().ok_or(ValueError::Text(place))?;
                // ONNX Runtime takes C strings.
                let text = std::str::from_utf8(text).map_err(|_| ValueError::Text(place))?;
                if text.contains('\0') {
                    return Err(ValueError::Text(place));
                }
                Ok(text.to_owned())
            });
            let texts = texts.collect::<Result<Vec<String>, ValueError>>()?;
            return Ok(OrtTensor::from_string_array((shape, texts.as_slice()))?.into_dyn());
        }
        TensorData::Fixed(bytes) => bytes,
    };
    macro_rules! numbers {
        ($type:ty) => {{
            let chunks = bytes.as_chunks::<{ size_of::<$type>() }>().0;
            let values: Vec<$type> = chunks
                .iter()
                .map(|chunk| <$type>::from_le_bytes(*chunk))
                .collect();
            OrtTensor::from_array((shape, values))?.into_dyn()
        }};
    }
    Ok(match tensor.datatype {
        DataType::Bool => {
            let values: Vec<bool> = bytes.iter().map(|&byte| byte != 0).collect();
            OrtTensor::from_array((shape, values))?.into_dyn()
        }
        DataType::Uint8 => numbers!(u8),
        DataType::Uint16 => numbers!(u16),
        DataType::Uint32 => numbers!(u32),
        DataType::Uint64 => numbers!(u64),
        DataType::Int8 => numbers!(i8),
        DataType::Int16 => numbers!(i16),
        DataType::Int32 => numbers!(i32),
        DataType::Int64 => numbers!(i64),
        DataType::Fp32 => numbers!(f32),
        DataType::Fp64 => numbers!(f64),
        DataType::Fp16 => numbers!(half::f16),
        DataType::Bf16 => numbers!(half::bf16),
        DataType::Bytes => return Err(ValueError::Type("BYTES of a fixed size".into())),
    })
}

/// ONNX Runtime's value as a tensor.
pub(super) fn from_ort(name: &str, value: &DynValue) -> Result<Tensor, ValueError> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(ValueError::Type(format!(
            "output `{name}` of type {}",
            value.dtype()
        )));
    };
    let extents: Vec<usize> = shape
        .iter()
        .map(|&extent| usize::try_from(extent).unwrap_or(0))
        .collect();
    if *ty == TensorElementType::String {
        let (_, texts) = value.try_extract_strings()?;
        let texts = texts.into_iter().map(|text| Some(Bytes::from(text)));
        return Tensor::strings(name, extents, texts.collect())
            .map_err(|error| ValueError::Type(error.to_string()));
    }
    macro_rules! bytes {
        ($type:ty) => {{
            let (_, values) = value.try_extract_tensor::<$type>()?;
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect::<Vec<u8>>()
        }};
    }
    let (datatype, bytes) = match ty {
        TensorElementType::Float32 => (DataType::Fp32, bytes!(f32)),
        TensorElementType::Float64 => (DataType::Fp64, bytes!(f64)),
        TensorElementType::Float16 => (DataType::Fp16, bytes!(half::f16)),
        TensorElementType::Bfloat16 => (DataType::Bf16, bytes!(half::bf16)),
        TensorElementType::Int8 => (DataType::Int8, bytes!(i8)),
        TensorElementType::Int16 => (DataType::Int16, bytes!(i16)),
        TensorElementType::Int32 => (DataType::Int32, bytes!(i32)),
        TensorElementType::Int64 => (DataType::Int64, bytes!(i64)),
        TensorElementType::Uint8 => (DataType::Uint8, bytes!(u8)),
        TensorElementType::Uint16 => (DataType::Uint16, bytes!(u16)),
        TensorElementType::Uint32 => (DataType::Uint32, bytes!(u32)),
        TensorElementType::Uint64 => (DataType::Uint64, bytes!(u64)),
        TensorElementType::Bool => {
            let (_, values) = value.try_extract_tensor::<bool>()?;
            (
                DataType::Bool,
                values.iter().map(|&truth| u8::from(truth)).collect(),
            )
        }
        other => return Err(ValueError::Type(format!("output `{name}` of {other}"))),
    };
    Tensor::fixed(name, datatype, extents, bytes.into()).map_err(|error| ValueError::Type(error.to_string()))
}
