//! What the prediction log holds of the calls of deployments: what was asked, what was answered, by which version, why that one, and how
//! long it took.

use bytes::Bytes;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::ids::{EndpointName, PredictionId, VersionNumber};
use crate::servable::Payload;
use crate::tensors::{DataType, Tensor, TensorData};

pub use crate::calls_json::CallColumnValues;

/// One call of a deployment. The inputs come first, so that they can be written down before there is an answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CallRecord {
    /// What was asked.
    pub inputs: Recorded,
    /// What was answered: several things by a model that gives several, nothing where it failed.
    pub answers: Vec<Recorded>,
    /// All else.
    pub facts: CallFacts,
}

/// What is known of a call beside its payloads.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CallFacts {
    /// The id of the prediction, as the caller was told.
    pub id: PredictionId,
    /// The deployment that was called.
    pub endpoint: EndpointName,
    /// When it was called.
    pub at: Timestamp,
    /// The caller's id of the request, or one made for it.
    pub request_id: String,
    /// The caller's key, where one was sent.
    pub key: Option<String>,
    /// The version that answered, or the one that was asked where none did; [`VersionNumber::DEFAULT`] for an answer that no model gave.
    pub version: VersionNumber,
    /// The bundle behind that version, if it has one.
    pub bundle: Option<Digest>,
    /// Another deployment that answered instead; then the version is one of that.
    pub by: Option<EndpointName>,
    /// Why this version: the rule, split or bandit's arm.
    pub route: String,
    /// What went wrong on the way to the answer.
    pub degraded: Option<String>,
    /// Why there is no answer.
    pub fault: Option<CallFault>,
    /// The answer was remembered from an earlier call.
    pub cached: bool,
    /// The answer came in pieces.
    pub streamed: bool,
    /// The caller went away before the end.
    pub cut_short: bool,
    /// How many deployments asked one another on the way here.
    pub depth: u8,
    /// Rows that were asked, where the model counts rows.
    pub rows: u64,
    /// The protocol's `parameters` for the model, as JSON; empty without.
    pub parameters: String,
    /// The outputs that were wanted; all of them if empty.
    pub outputs: Vec<String>,
    /// Whether the inputs are columns of a table.
    pub columns: bool,
    /// Microseconds in line.
    pub queue_us: u64,
    /// Microseconds in the model.
    pub compute_us: u64,
    /// Microseconds from the request's arrival to its answer.
    pub total_us: u64,
}

/// Why a call was not answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallFault {
    /// The error's code.
    pub code: String,
    /// What it said.
    pub message: String,
}

impl CallFault {
    /// Stands for a message where values are redacted: a model's message may repeat what it was asked, and nobody can tell where in it.
    pub const REDACTED: &str = "the message is not recorded, because the deployment redacts values";

    /// Whether it is that of a failure with this code and message.
    pub fn is(&self, code: &str, message: &str) -> bool {
        self.code == code && (self.message == message || self.message == Self::REDACTED)
    }
}

/// A payload as it is recorded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Recorded {
    /// Named tensors.
    Tensors(Vec<RecordedTensor>),
    /// A body.
    Body {
        /// Its content type.
        content_type: String,
        /// Its bytes.
        bytes: Raw,
        /// Whether values in it were taken out.
        redacted: bool,
    },
    /// Nothing of it: it was larger than what is recorded, or could not be redacted.
    Omitted {
        /// How many bytes it had.
        bytes: u64,
    },
}

/// A tensor as it is recorded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RecordedTensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub datatype: DataType,
    /// Its extent in each dimension.
    pub shape: Vec<u64>,
    /// Its elements.
    pub values: RecordedValues,
}

/// A tensor's elements as they are recorded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum RecordedValues {
    /// Elements of a fixed size, little-endian.
    Fixed(Raw),
    /// Byte strings; `None` is missing.
    Strings(Vec<Option<Raw>>),
    /// Taken out.
    Redacted,
}

/// Bytes that are written as bytes and not number by number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Raw(pub Bytes);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfBytes;
        impl Visitor<'_> for OfBytes {
            type Value = Raw;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(OfBytes)
    }
}

impl Recorded {
    /// A payload as it is, sharing its bytes, with the inputs or columns of these names left out.
    pub fn of(payload: &Payload, redact: &[String], max_bytes: u64) -> Self {
        let size = payload.bytes() as u64;
        if size > max_bytes {
            return Self::Omitted { bytes: size };
        }
        match payload {
            Payload::Tensors(tensors) => Self::Tensors(
                tensors
                    .iter()
                    .map(|tensor| RecordedTensor::of(tensor, redact.contains(&tensor.name)))
                    .collect(),
            ),
            Payload::Body { content_type, bytes } if redact.is_empty() => Self::Body {
                content_type: content_type.clone(),
                bytes: Raw(bytes.clone()),
                redacted: false,
            },
            Payload::Body { content_type, bytes } => match redacted_body(bytes, redact) {
                Some((bytes, redacted)) => Self::Body {
                    content_type: content_type.clone(),
                    bytes: Raw(bytes),
                    redacted,
                },
                None => Self::Omitted { bytes: size },
            },
        }
    }

    /// Whether nothing was left out.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Tensors(tensors) => tensors
                .iter()
                .all(|tensor| tensor.values != RecordedValues::Redacted),
            Self::Body { redacted, .. } => !redacted,
            Self::Omitted { .. } => false,
        }
    }

    /// The payload again, if nothing was left out.
    pub fn to_payload(&self) -> Option<Payload> {
        match self {
            Self::Tensors(tensors) => {
                let tensors: Option<Vec<Tensor>> = tensors.iter().map(RecordedTensor::to_tensor).collect();
                tensors.map(Payload::Tensors)
            }
            Self::Body {
                content_type,
                bytes,
                redacted: false,
            } => Some(Payload::Body {
                content_type: content_type.clone(),
                bytes: bytes.0.clone(),
            }),
            Self::Body { .. } | Self::Omitted { .. } => None,
        }
    }
}

impl RecordedTensor {
    fn of(tensor: &Tensor, redact: bool) -> Self {
        let values = match &tensor.data {
            _ if redact => RecordedValues::Redacted,
            TensorData::Fixed(bytes) => RecordedValues::Fixed(Raw(bytes.clone())),
            TensorData::Strings(strings) => {
                RecordedValues::Strings(strings.iter().map(|text| text.clone().map(Raw)).collect())
            }
        };
        Self {
            name: tensor.name.clone(),
            datatype: tensor.datatype,
            shape: tensor.shape.iter().map(|extent| *extent as u64).collect(),
            values,
        }
    }

    /// The tensor again, if its values are there.
    pub fn to_tensor(&self) -> Option<Tensor> {
        let data = match &self.values {
            RecordedValues::Fixed(bytes) => TensorData::Fixed(bytes.0.clone()),
            RecordedValues::Strings(strings) => {
                TensorData::Strings(strings.iter().map(|raw| raw.clone().map(|raw| raw.0)).collect())
            }
            RecordedValues::Redacted => return None,
        };
        let tensor = Tensor {
            name: self.name.clone(),
            datatype: self.datatype,
            shape: self.shape.iter().map(|extent| *extent as usize).collect(),
            data,
        };
        tensor.check().is_ok().then_some(tensor)
    }
}

/// A JSON body with null for the values of these names, at any depth, and whether there were any; `None` if it is not JSON.
fn redacted_body(bytes: &[u8], redact: &[String]) -> Option<(Bytes, bool)> {
    let mut value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let redacted = take_out(&mut value, redact);
    let text = serde_json::to_vec(&value).ok()?;
    Some((text.into(), redacted))
}

/// Puts null for the values of these names, at any depth. Returns whether there were any.
pub fn take_out(value: &mut serde_json::Value, names: &[String]) -> bool {
    use serde_json::Value;
    let mut found = false;
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if names.contains(name) {
                    *value = Value::Null;
                    found = true;
                } else {
                    found |= take_out(value, names);
                }
            }
            // As tensors and columns stand in a body: `{"name": …, "data": […]}`, or columns beside rows.
            let named = fields.get("name").and_then(Value::as_str).map(str::to_owned);
            if named.is_some_and(|name| names.contains(&name))
                && let Some(data) = fields.get_mut("data")
            {
                *data = Value::Null;
                found = true;
            }
            found |= take_columns_out(fields, names);
        }
        Value::Array(values) => {
            for value in values {
                found |= take_out(value, names);
            }
        }
        _ => {}
    }
    found
}

/// `{"columns": ["a", "b"], "data": [[1, 2], …]}`.
fn take_columns_out(fields: &mut serde_json::Map<String, serde_json::Value>, names: &[String]) -> bool {
    use serde_json::Value;
    let Some(columns) = fields.get("columns").and_then(Value::as_array) else {
        return false;
    };
    let places: Vec<usize> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| {
            column
                .as_str()
                .is_some_and(|name| names.iter().any(|n| n == name))
        })
        .map(|(place, _)| place)
        .collect();
    let mut found = false;
    if let Some(Value::Array(rows)) = fields.get_mut("data") {
        for row in rows.iter_mut().filter_map(Value::as_array_mut) {
            for place in &places {
                if let Some(value) = row.get_mut(*place) {
                    *value = Value::Null;
                    found = true;
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Payload {
        Payload::Body {
            content_type: "application/json".to_owned(),
            bytes: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    #[test]
    fn tensors_come_back_bit_by_bit_and_redacted_ones_do_not() {
        let odd = f64::from_bits(0x7ff8_0000_0000_1234);
        let payload = Payload::Tensors(vec![
            Tensor::of_f64("x", vec![2, 1], &[odd, -0.0]).unwrap(),
            Tensor::strings("name", vec![2], vec![None, Some(Bytes::from_static(b"\xff"))]).unwrap(),
        ]);
        let recorded = Recorded::of(&payload, &[], 1_000);
        let back = recorded.to_payload().unwrap();
        assert!(recorded.is_whole());
        assert_eq!(format!("{back:?}"), format!("{payload:?}"));
        let redacted = Recorded::of(&payload, &["name".to_owned()], 1_000);
        assert!(!redacted.is_whole() && redacted.to_payload().is_none());
        assert!(!format!("{redacted:?}").contains("xff"));
        assert_eq!(Recorded::of(&payload, &[], 10), Recorded::Omitted { bytes: 25 });
    }

    #[test]
    fn values_are_taken_out_of_a_body_wherever_their_name_stands() {
        let redact = ["age".to_owned()];
        for (text, left) in [
            (
                r#"{"rows":[{"age":3,"x":1}]}"#,
                r#"{"rows":[{"age":null,"x":1}]}"#,
            ),
            (
                r#"{"inputs":[{"name":"age","data":[3]}]}"#,
                r#"{"inputs":[{"name":"age","data":null}]}"#,
            ),
            (
                r#"{"dataframe_split":{"columns":["x","age"],"data":[[1,3]]}}"#,
                r#"{"dataframe_split":{"columns":["x","age"],"data":[[1,null]]}}"#,
            ),
        ] {
            let recorded = Recorded::of(&body(text), &redact, 1_000);
            assert!(!recorded.is_whole());
            let Recorded::Body { bytes, .. } = recorded else {
                panic!("no body");
            };
            assert_eq!(bytes.0, left);
        }
        assert!(Recorded::of(&body(r#"{"x":1}"#), &redact, 1_000).is_whole());
        // What cannot be looked into is not recorded.
        assert_eq!(
            Recorded::of(&body("age=3"), &redact, 99),
            Recorded::Omitted { bytes: 5 }
        );
    }
}
