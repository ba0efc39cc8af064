//! An inference request: a JSON object, after which the bytes of tensors may follow (the binary data extension).

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::extract::parse_json;
use crate::infer::FlatCells;
use crate::infer::ask::{TensorRequest, Wanted};
use crate::infer::shared::{Place, REQUEST_BYTES, SharedMemory, allowed};
use crate::infer::tensors::{Input, JsonTensor, from_raw};

/// How the answer is wanted.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Empty for all outputs.
    pub outputs: Vec<PlannedOutput>,
    /// Whether outputs come as bytes where nothing else is said of them.
    pub binary: bool,
}

/// How an output is wanted.
#[derive(Debug)]
pub(super) struct PlannedOutput {
    pub name: String,
    pub binary: Option<bool>,
    pub classes: Option<usize>,
    pub place: Option<Place>,
}

impl Plan {
    /// Whether the output comes as bytes.
    pub fn is_binary(&self, name: &str) -> bool {
        let said = self.outputs.iter().find(|output| output.name == name);
        said.and_then(|output| output.binary).unwrap_or(self.binary)
    }

    /// Where in shared memory the output is wanted.
    pub fn place(&self, name: &str) -> Option<&Place> {
        let said = self.outputs.iter().find(|output| output.name == name);
        said.and_then(|output| output.place.as_ref())
    }

    /// Whether everything is wanted as plain JSON.
    pub fn is_plain(&self) -> bool {
        !self.binary
            && self.outputs.iter().all(|output| {
                !output.binary.unwrap_or(false) && output.classes.is_none() && output.place.is_none()
            })
    }

    pub fn wanted(&self) -> Vec<Wanted> {
        let outputs = self.outputs.iter();
        outputs
            .map(|output| Wanted {
                name: output.name.clone(),
                classes: output.classes,
            })
            .collect()
    }
}

#[derive(Deserialize)]
struct Request {
    id: Option<String>,
    parameters: Option<Map<String, Value>>,
    inputs: Vec<RawTensor>,
    outputs: Option<Vec<RawOutput>>,
}

#[derive(Deserialize)]
struct RawTensor {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    parameters: Option<Map<String, Value>>,
    data: Option<FlatCells>,
}

#[derive(Deserialize)]
struct RawOutput {
    name: String,
    parameters: Option<Map<String, Value>>,
}

/// Reads a body, of which the first `header_length` bytes are JSON where the client said so.
pub(super) fn read(
    mut body: Bytes,
    header_length: Option<usize>,
    shared: Option<&SharedMemory>,
) -> Result<(TensorRequest, Plan), ApiError> {
    let mut tail = match header_length {
        None => Bytes::new(),
        Some(length) if length <= body.len() => body.split_off(length),
        Some(length) => {
            return Err(ApiError::bad_request(
                "bad_tensor",
                format!(
                    "`Inference-Header-Content-Length` is {length}, and the body has {} bytes",
                    body.len()
                ),
            ));
        }
    };
    let request: Request = parse_json(&body)?;
    let parameters = request.parameters.unwrap_or_default();
    let mut inputs = Vec::with_capacity(request.inputs.len());
    let mut budget = REQUEST_BYTES;
    for tensor in request.inputs {
        inputs.push(input(tensor, &mut tail, shared, &mut budget)?);
    }
    if !tail.is_empty() {
        return Err(ApiError::bad_request(
            "bad_tensor",
            format!(
                "{} bytes are left after the tensors: say in each binary input's `binary_data_size` how many are its own",
                tail.len()
            ),
        ));
    }
    let outputs = request.outputs.unwrap_or_default();
    let plan = Plan {
        outputs: outputs.into_iter().map(output).collect::<Result<_, _>>()?,
        binary: flag(&parameters, "binary_data_output")?.unwrap_or(false),
    };
    for place in plan.outputs.iter().filter_map(|output| output.place.as_ref()) {
        allowed(shared)?.check(place)?;
    }
    let request = TensorRequest {
        id: request.id,
        parameters,
        inputs,
        outputs: plan.wanted(),
        timeout: None,
    };
    Ok((request, plan))
}

fn input(
    tensor: RawTensor,
    tail: &mut Bytes,
    shared: Option<&SharedMemory>,
    budget: &mut u64,
) -> Result<Input, ApiError> {
    let RawTensor {
        name,
        shape,
        datatype,
        parameters,
        data,
    } = tensor;
    let parameters = parameters.unwrap_or_default();
    let raw = if let Some(place) = place(&parameters)? {
        Some(allowed(shared)?.read(&place, budget)?)
    } else if let Some(size) = whole(&parameters, "binary_data_size")? {
        if size > tail.len() {
            return Err(ApiError::bad_request(
                "bad_tensor",
                format!(
                    "input `{name}` has {size} bytes after the JSON, and only {} are left",
                    tail.len()
                ),
            ));
        }
        Some(tail.split_to(size))
    } else {
        None
    };
    match (raw, data) {
        (Some(raw), None) => from_raw(&name, &datatype, &shape, raw).map(Input::Typed),
        (None, Some(data)) => Ok(Input::Json(JsonTensor {
            name,
            shape,
            datatype,
            data: data.0,
        })),
        (Some(_), Some(_)) => Err(ApiError::bad_request(
            "bad_tensor",
            format!("input `{name}` has its values twice: as `data` and as bytes"),
        )),
        (None, None) => Err(ApiError::bad_request(
            "bad_tensor",
            format!("input `{name}` has no values: send `data`, or its bytes and `binary_data_size`"),
        )),
    }
}

fn output(raw: RawOutput) -> Result<PlannedOutput, ApiError> {
    let parameters = raw.parameters.unwrap_or_default();
    // Triton takes 0 classes for the tensor itself.
    let classes = whole(&parameters, "classification")?.filter(|&count| count > 0);
    Ok(PlannedOutput {
        name: raw.name,
        binary: flag(&parameters, "binary_data")?,
        classes,
        place: place(&parameters)?,
    })
}

/// The part of shared memory that a tensor's parameters name.
pub(crate) fn place(parameters: &Map<String, Value>) -> Result<Option<Place>, ApiError> {
    let region = match parameters.get("shared_memory_region") {
        None => return Ok(None),
        Some(Value::String(region)) => region.clone(),
        Some(other) => return Err(wrong("shared_memory_region", other, "a text")),
    };
    let offset = whole(parameters, "shared_memory_offset")?.unwrap_or(0);
    let Some(byte_size) = whole(parameters, "shared_memory_byte_size")? else {
        return Err(wrong(
            "shared_memory_byte_size",
            &Value::Null,
            "a whole number of bytes",
        ));
    };
    Ok(Some(Place {
        region,
        offset: offset as u64,
        byte_size: byte_size as u64,
    }))
}

fn flag(parameters: &Map<String, Value>, name: &str) -> Result<Option<bool>, ApiError> {
    match parameters.get(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(wrong(name, other, "true or false")),
    }
}

fn whole(parameters: &Map<String, Value>, name: &str) -> Result<Option<usize>, ApiError> {
    match parameters.get(name) {
        None => Ok(None),
        Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong(name, value, "a whole number of 0 or more")),
        },
    }
}

fn wrong(name: &str, value: &Value, expected: &str) -> ApiError {
    ApiError::bad_request(
        "bad_parameter",
        format!("parameter `{name}` is `{value}`, expected {expected}"),
    )
    .with_details(json!({ "field": name }))
}
