//! What is recorded of a payload as JSON that people can read and that gives every bit back: tensors in the words of the Open Inference
//! Protocol; elements that JSON has no number or text for, as hexadecimal digits of their bytes.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::calls::{Raw, Recorded, RecordedTensor, RecordedValues};
use crate::tensors::DataType;

impl Recorded {
    /// As JSON.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Tensors(tensors) => {
                json!({ "tensors": tensors.iter().map(RecordedTensor::to_json).collect::<Vec<_>>() })
            }
            Self::Body {
                content_type,
                bytes,
                redacted,
            } => {
                let mut object = Map::new();
                object.insert("content_type".to_owned(), json!(content_type));
                let (key, text) = match str::from_utf8(&bytes.0) {
                    Ok(text) => ("text", text.to_owned()),
                    Err(_) => ("hex", hex(&bytes.0)),
                };
                object.insert(key.to_owned(), json!(text));
                if *redacted {
                    object.insert("redacted".to_owned(), json!(true));
                }
                Value::Object(object)
            }
            Self::Omitted { bytes } => json!({ "omitted_bytes": bytes }),
        }
    }

    /// Reads what [`Recorded::to_json`] wrote.
    pub fn from_json(value: &Value) -> Option<Self> {
        if let Some(tensors) = value["tensors"].as_array() {
            return tensors
                .iter()
                .map(RecordedTensor::from_json)
                .collect::<Option<_>>()
                .map(Self::Tensors);
        }
        if let Some(bytes) = value["omitted_bytes"].as_u64() {
            return Some(Self::Omitted { bytes });
        }
        let bytes = match value["text"].as_str() {
            Some(text) => Bytes::copy_from_slice(text.as_bytes()),
            None => unhex(value["hex"].as_str()?)?,
        };
        Some(Self::Body {
            content_type: value["content_type"].as_str()?.to_owned(),
            bytes: Raw(bytes),
            redacted: value["redacted"].as_bool().unwrap_or(false),
        })
    }
}

impl RecordedTensor {
    fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("name".to_owned(), json!(self.name));
        object.insert("datatype".to_owned(), json!(self.datatype.name()));
        object.insert("shape".to_owned(), json!(self.shape));
        let (key, values) = match &self.values {
            RecordedValues::Fixed(bytes) => match numbers(self.datatype, &bytes.0) {
                Some(numbers) => ("data", Value::Array(numbers)),
                None => ("hex", json!(hex(&bytes.0))),
            },
            RecordedValues::Strings(strings) => (
                "data",
                strings.iter().map(|text| text_json(text.as_ref())).collect(),
            ),
            RecordedValues::Redacted => ("redacted", json!(true)),
        };
        object.insert(key.to_owned(), values);
        Value::Object(object)
    }

    fn from_json(value: &Value) -> Option<Self> {
        let datatype = DataType::named(value["datatype"].as_str()?)?;
        let shape = value["shape"].as_array()?.iter().map(Value::as_u64);
        let values = if value["redacted"] == true {
            RecordedValues::Redacted
        } else if let Some(digits) = value["hex"].as_str() {
            RecordedValues::Fixed(Raw(unhex(digits)?))
        } else if datatype == DataType::Bytes {
            let texts = value["data"].as_array()?.iter().map(text_of);
            RecordedValues::Strings(texts.collect::<Result<_, _>>().ok()?)
        } else {
            let mut bytes = Vec::new();
            for number in value["data"].as_array()? {
                put(datatype, number, &mut bytes)?;
            }
            RecordedValues::Fixed(Raw(bytes.into()))
        };
        Some(Self {
            name: value["name"].as_str()?.to_owned(),
            datatype,
            shape: shape.collect::<Option<_>>()?,
            values,
        })
    }

    /// Its elements as numbers, or as texts with null for what is missing, for a column of a table; `None` where they are taken out.
    pub fn to_column(&self) -> Option<CallColumnValues> {
        match &self.values {
            RecordedValues::Redacted => None,
            RecordedValues::Strings(strings) => {
                let text = |raw: &Option<Raw>| {
                    raw.as_ref()
                        .map(|raw| String::from_utf8_lossy(&raw.0).into_owned())
                };
                Some(CallColumnValues::Texts(strings.iter().map(text).collect()))
            }
            RecordedValues::Fixed(_) => self.to_tensor()?.to_f64().map(CallColumnValues::Numbers),
        }
    }
}

/// The values of an input that is a column.
#[derive(Clone, PartialEq, Debug)]
pub enum CallColumnValues {
    /// Numbers; NaN where a value is missing.
    Numbers(Vec<f64>),
    /// Texts.
    Texts(Vec<Option<String>>),
}

fn text_json(raw: Option<&Raw>) -> Value {
    match raw {
        None => Value::Null,
        Some(raw) => match str::from_utf8(&raw.0) {
            Ok(text) => json!(text),
            Err(_) => json!({ "hex": hex(&raw.0) }),
        },
    }
}

/// A value that is no text of a tensor.
struct NoText;

fn text_of(value: &Value) -> Result<Option<Raw>, NoText> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(Raw(Bytes::copy_from_slice(text.as_bytes())))),
        other => match other["hex"].as_str().and_then(unhex) {
            Some(bytes) => Ok(Some(Raw(bytes))),
            None => Err(NoText),
        },
    }
}

/// The elements as JSON numbers, if each of them comes back from its number bit by bit.
fn numbers(datatype: DataType, bytes: &Bytes) -> Option<Vec<Value>> {
    macro_rules! each {
        ($type:ty, $to:expr) => {{
            let (chunks, _) = bytes.as_chunks::<{ size_of::<$type>() }>();
            chunks
                .iter()
                .map(|chunk| $to(<$type>::from_le_bytes(*chunk)))
                .collect()
        }};
    }
    match datatype {
        DataType::Bool => bytes
            .iter()
            .map(|byte| (*byte < 2).then(|| json!(*byte == 1)))
            .collect(),
        DataType::Uint8 => each!(u8, |value| Some(json!(value))),
        DataType::Uint16 => each!(u16, |value| Some(json!(value))),
        DataType::Uint32 => each!(u32, |value| Some(json!(value))),
        DataType::Uint64 => each!(u64, |value| Some(json!(value))),
        DataType::Int8 => each!(i8, |value| Some(json!(value))),
        DataType::Int16 => each!(i16, |value| Some(json!(value))),
        DataType::Int32 => each!(i32, |value| Some(json!(value))),
        DataType::Int64 => each!(i64, |value| Some(json!(value))),
        DataType::Fp32 => each!(f32, |value: f32| single(value)),
        DataType::Fp64 => each!(f64, double),
        DataType::Fp16 | DataType::Bf16 | DataType::Bytes => None,
    }
}

/// A number where every reader of JSON reads just that number; else its shortest text, such as `"NaN"` or `"0.1"`.
fn double(value: f64) -> Option<Value> {
    if value.is_nan() {
        return nan(value.to_bits() ^ f64::NAN.to_bits(), 1 << 63);
    }
    let number = json!(value);
    let read: Option<f64> = serde_json::from_str(&number.to_string()).ok();
    if read.is_some_and(|read| read.to_bits() == value.to_bits()) {
        return Some(number);
    }
    Some(json!(format!("{value:?}")))
}

/// The usual number that is none, or that with a sign; `odd`: the bits in which it differs from the first.
fn nan(odd: u64, sign: u64) -> Option<Value> {
    match odd {
        0 => Some(json!("NaN")),
        odd if odd == sign => Some(json!("-NaN")),
        _ => None,
    }
}

fn single(value: f32) -> Option<Value> {
    if value.is_nan() {
        let odd = value.to_bits() ^ f32::NAN.to_bits();
        return nan(u64::from(odd), 1 << 31);
    }
    if value.is_finite() {
        return Some(json!(f64::from(value)));
    }
    Some(json!(format!("{value:?}")))
}

fn put(datatype: DataType, number: &Value, bytes: &mut Vec<u8>) -> Option<()> {
    let unsigned = || number.as_u64();
    let signed = || number.as_i64();
    let float = || match number {
        Value::String(text) if text == "-NaN" => Some(f64::from_bits(f64::NAN.to_bits() | 1 << 63)),
        Value::String(text) => text.parse().ok(),
        number => number.as_f64(),
    };
    match datatype {
        DataType::Bool => bytes.push(u8::from(number.as_bool()?)),
        DataType::Uint8 => bytes.push(u8::try_from(unsigned()?).ok()?),
        DataType::Uint16 => bytes.extend(u16::try_from(unsigned()?).ok()?.to_le_bytes()),
        DataType::Uint32 => bytes.extend(u32::try_from(unsigned()?).ok()?.to_le_bytes()),
        DataType::Uint64 => bytes.extend(unsigned()?.to_le_bytes()),
        DataType::Int8 => bytes.extend(i8::try_from(signed()?).ok()?.to_le_bytes()),
        DataType::Int16 => bytes.extend(i16::try_from(signed()?).ok()?.to_le_bytes()),
        DataType::Int32 => bytes.extend(i32::try_from(signed()?).ok()?.to_le_bytes()),
        DataType::Int64 => bytes.extend(signed()?.to_le_bytes()),
        DataType::Fp32 => bytes.extend((float()? as f32).to_le_bytes()),
        DataType::Fp64 => bytes.extend(float()?.to_le_bytes()),
        DataType::Fp16 | DataType::Bf16 | DataType::Bytes => return None,
    }
    Some(())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|half| char::from(DIGITS[usize::from(half)]))
        .collect()
}

fn unhex(digits: &str) -> Option<Bytes> {
    let (pairs, left) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    let byte = |pair: &[u8; 2]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    if !left.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(byte)
        .collect::<Option<Vec<u8>>>()
        .map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tensor() -> impl Strategy<Value = RecordedTensor> {
        let datatype = prop::sample::select(DataType::ALL.to_vec());
        datatype.prop_flat_map(|datatype| {
            let values = match datatype.size() {
                Some(size) => prop::collection::vec(any::<u8>(), 3 * size)
                    .prop_map(|bytes| RecordedValues::Fixed(Raw(bytes.into())))
                    .boxed(),
                None => prop::collection::vec(any::<Option<Vec<u8>>>(), 3)
                    .prop_map(|texts| {
                        let raw = |text: Option<Vec<u8>>| text.map(|text| Raw(text.into()));
                        RecordedValues::Strings(texts.into_iter().map(raw).collect())
                    })
                    .boxed(),
            };
            values.prop_map(move |values| RecordedTensor {
                name: "x".to_owned(),
                datatype,
                shape: vec![3],
                values,
            })
        })
    }

    proptest! {
        #[test]
        fn every_bit_of_every_tensor_comes_back_from_its_json(tensors in prop::collection::vec(tensor(), 0..4)) {
            let recorded = Recorded::Tensors(tensors);
            let text = recorded.to_json().to_string();
            prop_assert_eq!(Recorded::from_json(&serde_json::from_str(&text).unwrap()), Some(recorded));
        }

        #[test]
        fn every_number_that_json_has_stands_as_that_number(value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            let tensor = RecordedTensor {
                name: "x".to_owned(),
                datatype: DataType::Fp64,
                shape: vec![1],
                values: RecordedValues::Fixed(Raw(Bytes::copy_from_slice(&value.to_le_bytes()))),
            };
            let shown = &tensor.to_json()["data"][0];
            prop_assert!(*shown == json!(value) || *shown == json!(format!("{value:?}")), "{}", shown);
        }
    }

    #[test]
    fn bodies_and_what_is_left_out_come_back() {
        let body = |bytes: &'static [u8], redacted| Recorded::Body {
            content_type: "text/plain".to_owned(),
            bytes: Raw(Bytes::from_static(bytes)),
            redacted,
        };
        for recorded in [
            body(b"hello", false),
            body(b"\xff\x00", true),
            Recorded::Omitted { bytes: 7 },
        ] {
            assert_eq!(Recorded::from_json(&recorded.to_json()), Some(recorded));
        }
        assert_eq!(Recorded::from_json(&json!({})), None);
    }
}
