//! An answer: a JSON object, after which the bytes of tensors may follow. What is served most is written straight into bytes.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::ser::{Error as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use tidemill_core::frame::Scores;
use tidemill_core::tensors::{DataType, Tensor, TensorData};
use tidemill_serving::{InferResponse, Route};

use super::HEADER_LENGTH;
use super::reading::Plan;
use crate::error::ApiError;
use crate::extract::deflated;
use crate::infer::ask::TensorAnswer;
use crate::infer::shared::{SharedMemory, raw_bytes};
use crate::infer::table::answer_name;
use crate::infer::{any_degraded, labels};

/// A tensor of an answer as JSON.
#[derive(Serialize)]
struct JsonOutput<'a, D: Serialize> {
    name: &'a str,
    datatype: &'a str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<D>,
}

/// The answer of an endpoint of the loop, all of it as JSON; `names` empty means all outputs.
pub(super) fn table(
    request: &HeaderMap,
    route: &Route,
    response: &InferResponse,
    names: &[&str],
) -> Result<Response, ApiError> {
    let answer = TableAnswer {
        route,
        response,
        names,
    };
    let mut body = Vec::with_capacity(256 + 160 * response.ids.len());
    serde_json::to_writer(&mut body, &answer).map_err(unwritable)?;
    Ok(reply(request, body, None))
}

fn unwritable(error: serde_json::Error) -> ApiError {
    ApiError::bad_request(
        "bad_output",
        format!("the answer cannot be written as JSON: {error}"),
    )
}

fn reply(request: &HeaderMap, body: Vec<u8>, header_length: Option<usize>) -> Response {
    let (coding, body) = deflated(request, body);
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    let kind = match header_length {
        Some(length) => {
            headers.insert(HEADER_LENGTH, HeaderValue::from(length));
            "application/octet-stream"
        }
        None => "application/json",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(coding) = coding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    response
}

struct TableAnswer<'a> {
    route: &'a Route,
    response: &'a InferResponse,
    names: &'a [&'a str],
}

impl Serialize for TableAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Parameters<'a> {
            at: &'a tidemill_core::clock::Timestamp,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            degraded: bool,
        }
        #[derive(Serialize)]
        struct Answer<'a> {
            model_name: &'a str,
            model_version: Text<u32>,
            id: &'a str,
            parameters: Parameters<'a>,
            outputs: TableOutputs<'a>,
        }
        let response = self.response;
        Answer {
            model_name: self.route.endpoint.as_str(),
            model_version: Text(response.versions.first().map_or(0, |version| version.0)),
            id: &response.request_id,
            parameters: Parameters {
                at: &response.at,
                degraded: any_degraded(response),
            },
            outputs: TableOutputs(self),
        }
        .serialize(serializer)
    }
}

/// A number as a text.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct TableOutputs<'a>(&'a TableAnswer<'a>);

impl Serialize for TableOutputs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (response, names) = (self.0.response, self.0.names);
        let wanted = |name: &str| names.is_empty() || names.contains(&name);
        let rows = [response.ids.len()];
        let nothing = Map::new();
        let mut outputs = serializer.serialize_seq(None)?;
        macro_rules! output {
            ($name:expr, $datatype:expr, $shape:expr, $parameters:expr, $data:expr) => {
                if wanted($name) {
                    outputs.serialize_element(&JsonOutput {
                        name: $name,
                        datatype: $datatype,
                        shape: $shape,
                        parameters: $parameters,
                        data: Some($data),
                    })?;
                }
            };
        }
        let name = answer_name(response.scores.task());
        match &response.scores {
            Scores::Binary(values) | Scores::Regression(values) => {
                output!(name, "FP64", &rows, &nothing, values);
            }
            Scores::Multiclass {
                classes,
                probabilities,
            } => {
                let mut said = Map::new();
                // The protocol's parameters are texts, numbers or booleans: the classes are a JSON text.
                said.insert("classes".to_owned(), json!(json!(classes).to_string()));
                output!(name, "FP64", &[rows[0], classes.len()], &said, probabilities);
            }
        }
        if let Some(labels) = labels(&response.scores) {
            // A tensor of texts holds no null: the empty text says that nobody answered.
            let labels = Each(|| labels.iter().map(|label| label.unwrap_or_default()));
            output!("label", "BYTES", &rows, &nothing, labels);
        }
        output!("prediction_id", "BYTES", &rows, &nothing, &response.ids);
        output!("model_version", "INT32", &rows, &nothing, &response.versions);
        let roles = Each(|| response.roles.iter().map(|role| role.name()));
        output!("role", "BYTES", &rows, &nothing, roles);
        if any_degraded(response) {
            // A tensor of texts holds no null: the empty text says that nothing went wrong.
            let reasons = Each(|| response.degraded.iter().map(|d| d.as_deref().unwrap_or("")));
            output!("degraded", "BYTES", &rows, &nothing, reasons);
        }
        outputs.end()
    }
}

/// A list that is written without being gathered first.
struct Each<F>(F);

impl<I, F> Serialize for Each<F>
where
    I: Iterator<Item: Serialize>,
    F: Fn() -> I,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// The elements of a tensor as a JSON list, row-major.
pub(super) struct Elements<'a>(pub &'a Tensor);

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tensor = self.0;
        let bytes = match &tensor.data {
            TensorData::Fixed(bytes) => bytes,
            TensorData::Strings(strings) => {
                let mut list = serializer.serialize_seq(Some(strings.len()))?;
                for string in strings {
                    let text = string.as_deref().map(str::from_utf8).transpose().map_err(|_| {
                        S::Error::custom(format_args!(
                            "output `{}` holds bytes that are no text: ask for it as binary data",
                            tensor.name
                        ))
                    })?;
                    list.serialize_element(&text)?;
                }
                return list.end();
            }
        };
        macro_rules! each {
            ($type:ty) => {
                serializer.collect_seq(
                    bytes
                        .as_chunks::<{ size_of::<$type>() }>()
                        .0
                        .iter()
                        .map(|chunk| <$type>::from_le_bytes(*chunk)),
                )
            };
        }
        match tensor.datatype {
            DataType::Bool => serializer.collect_seq(bytes.iter().map(|&byte| byte != 0)),
            DataType::Uint8 => each!(u8),
            DataType::Uint16 => each!(u16),
            DataType::Uint32 => each!(u32),
            DataType::Uint64 => each!(u64),
            DataType::Int8 => each!(i8),
            DataType::Int16 => each!(i16),
            DataType::Int32 => each!(i32),
            DataType::Int64 => each!(i64),
            DataType::Fp32 => each!(f32),
            DataType::Fp64 => each!(f64),
            DataType::Fp16 | DataType::Bf16 | DataType::Bytes => {
                serializer.collect_seq(tensor.to_f64().unwrap_or_default())
            }
        }
    }
}

/// An answer in tensors, each as it is wanted.
pub(super) fn tensors(
    request: &HeaderMap,
    answer: &TensorAnswer,
    plan: &Plan,
    shared: Option<&SharedMemory>,
) -> Result<Response, ApiError> {
    let (body, header_length) = written(answer, plan, shared)?;
    Ok(reply(request, body, header_length))
}

/// The body, and how much of it is JSON where bytes follow.
fn written(
    answer: &TensorAnswer,
    plan: &Plan,
    shared: Option<&SharedMemory>,
) -> Result<(Vec<u8>, Option<usize>), ApiError> {
    #[derive(Serialize)]
    struct Answer<'a, O: Serialize> {
        model_name: &'a str,
        model_version: Text<u32>,
        id: &'a str,
        #[serde(skip_serializing_if = "Map::is_empty")]
        parameters: &'a Map<String, Value>,
        outputs: Vec<O>,
    }
    let mut tail = Vec::new();
    let mut said = Vec::with_capacity(answer.outputs.len());
    let mut binary = false;
    for output in &answer.outputs {
        let tensor = &output.tensor;
        let mut parameters = output.parameters.clone();
        let mut as_json = false;
        if let Some(place) = plan.place(&tensor.name) {
            let Some(memory) = shared else {
                return Err(ApiError::bad_request(
                    "shared_memory",
                    "this server takes no shared memory: start it with `--shared-memory`",
                ));
            };
            let size = memory.write(place, tensor)?;
            parameters.insert("shared_memory_region".to_owned(), json!(place.region));
            parameters.insert("shared_memory_byte_size".to_owned(), json!(size));
            if place.offset > 0 {
                parameters.insert("shared_memory_offset".to_owned(), json!(place.offset));
            }
        } else if plan.is_binary(&tensor.name) {
            let raw = raw_bytes(tensor);
            parameters.insert("binary_data_size".to_owned(), json!(raw.len()));
            tail.extend_from_slice(&raw);
            binary = true;
        } else {
            as_json = true;
        }
        said.push((tensor, parameters, as_json));
    }
    let outputs = said.iter().map(|(tensor, parameters, as_json)| JsonOutput {
        name: &tensor.name,
        datatype: tensor.datatype.name(),
        shape: &tensor.shape,
        parameters,
        data: as_json.then_some(Elements(tensor)),
    });
    let head = Answer {
        model_name: answer.model.as_str(),
        model_version: Text(answer.version.0),
        id: &answer.id,
        parameters: &answer.parameters,
        outputs: outputs.collect(),
    };
    let mut body = serde_json::to_vec(&head).map_err(unwritable)?;
    let header_length = binary.then_some(body.len());
    body.append(&mut tail);
    Ok((body, header_length))
}
