//! Tensors in, whatever stands behind the name asked, tensors out: the way of the protocols that speak in tensors.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::{Map, Value, json};
use tidemill_core::frame::Scores;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::servable::{CallContext, Interface, Payload};
use tidemill_core::tensors::{DataType, Tensor, TensorData, TensorSpec};
use tidemill_serving::{Call as HostedCall, CallAnswer, InferResponse, Route};

use super::target::Hosted;
use super::tensors::{self, Input};
use super::{Reading, Target, any_degraded, check_request_id, predict, shortest, table};
use crate::control_plane::App;
use crate::edge;
use crate::error::ApiError;
use crate::infer::classify::classify;

/// A request in tensors.
pub(crate) struct TensorRequest {
    /// The caller's id of it.
    pub id: Option<String>,
    pub parameters: Map<String, Value>,
    pub inputs: Vec<Input>,
    /// The outputs that are wanted; all of them if empty.
    pub outputs: Vec<Wanted>,
    /// How long the caller waits, where the protocol says so beside the parameters.
    pub timeout: Option<Duration>,
}

/// An output that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub name: String,
    /// Not the tensor, but so many of its largest values.
    pub classes: Option<usize>,
}

/// An answer in tensors.
pub(crate) struct TensorAnswer {
    pub model: EndpointName,
    pub version: VersionNumber,
    pub id: String,
    pub parameters: Map<String, Value>,
    pub outputs: Vec<Output>,
}

/// A tensor of an answer, and what is said of it.
pub(crate) struct Output {
    pub tensor: Tensor,
    pub parameters: Map<String, Value>,
}

/// Parameters of a request that say how it travels and are not for the model.
const FOR_US: [&str; 5] = [
    "timeout",
    "priority",
    "binary_data_output",
    "triton_enable_empty_final_response",
    "triton_final_response",
];

/// One answer.
pub(crate) async fn ask(app: &App, target: Target, request: TensorRequest) -> Result<TensorAnswer, ApiError> {
    match target {
        Target::Table(call) => {
            let timeout = timeout_of(&request.parameters, request.timeout)?;
            let size = request.inputs.iter().map(size).sum();
            let answer = predict(app, call, size, move |call| {
                let wanted = request.outputs;
                table::check_requested(wanted.iter().map(|w| w.name.as_str()), call.route.task)?;
                let rows = tensors::rows(request.inputs, call)?;
                Ok(Reading {
                    rows,
                    request_id: request.id,
                    timeout,
                    rest: wanted,
                })
            })
            .await?;
            of_table(&answer.route, &answer.response, &answer.rest)
        }
        Target::Hosted(hosted) => {
            let (call, wanted) = hosted_call(&hosted, request)?;
            let hosting = app.serving().hosting();
            let (_, interface) = hosting.interface(&hosted.name, hosted.version).await?;
            check_outputs(&interface, &wanted)?;
            of_hosted(&hosted.name, hosting.call(call).await?, &interface, &wanted)
        }
    }
}

/// As many answers as the model gives: one, several or none.
pub(crate) async fn stream(
    app: &App,
    target: Target,
    request: TensorRequest,
) -> Result<BoxStream<'static, Result<TensorAnswer, ApiError>>, ApiError> {
    let hosted = match target {
        Target::Hosted(hosted) => hosted,
        table @ Target::Table(_) => {
            let answer = ask(app, table, request).await?;
            return Ok(futures::stream::iter([Ok(answer)]).boxed());
        }
    };
    let (call, wanted) = hosted_call(&hosted, request)?;
    let hosting = app.serving().hosting();
    let (_, interface) = hosting.interface(&hosted.name, hosted.version).await?;
    check_outputs(&interface, &wanted)?;
    let answers = hosting.stream(call).await?;
    let name = hosted.name;
    Ok(answers
        .map(move |answer| of_hosted(&name, answer?, &interface, &wanted))
        .boxed())
}

fn size(input: &Input) -> usize {
    match input {
        Input::Json(tensor) => tensor.data.len() * 8,
        Input::Typed(tensor) => tensor.bytes(),
    }
}

/// Whether the model gives several answers to a request, or none.
pub(crate) async fn is_decoupled(app: &App, target: &Target) -> Result<bool, ApiError> {
    match target {
        Target::Table(_) => Ok(false),
        Target::Hosted(hosted) => {
            let hosting = app.serving().hosting();
            let (_, interface) = hosting.interface(&hosted.name, hosted.version).await?;
            Ok(interface.decoupled)
        }
    }
}

/// The call of a deployment with what travels beside its payload.
pub(crate) fn call_of(
    hosted: &Hosted,
    payload: Payload,
    id: Option<String>,
    mut parameters: Map<String, Value>,
    timeout: Option<Duration>,
) -> Result<HostedCall, ApiError> {
    check_request_id(id.as_deref())?;
    let mut call = HostedCall::new(hosted.name.clone(), payload, hosted.received);
    call.version = hosted.version;
    call.attributes = edge::attributes();
    call.timeout = shortest(timeout_of(&parameters, timeout)?, edge::timeout()?);
    if let Some(priority) = parameters.get("priority") {
        let priority = number(
            priority,
            "priority",
            "a level, 1 before all others, 0 for the usual one",
        )?;
        call.priority = u32::try_from(priority).unwrap_or(u32::MAX);
    }
    parameters.retain(|name, _| !FOR_US.contains(&name.as_str()));
    call.context = CallContext {
        request_id: id.unwrap_or_default(),
        parameters,
        ..CallContext::default()
    };
    Ok(call)
}

/// How long the caller waits, by the parameter `timeout` or the protocol.
pub(crate) fn timeout_of(
    parameters: &Map<String, Value>,
    protocols: Option<Duration>,
) -> Result<Option<Duration>, ApiError> {
    let asked = parameters
        .get("timeout")
        .map(|micros| number(micros, "timeout", "microseconds"))
        .transpose()?;
    // Triton takes 0 for no timeout of the request's own.
    let asked = asked.filter(|&micros| micros > 0).map(Duration::from_micros);
    Ok(shortest(asked, protocols))
}

fn number(value: &Value, name: &str, what: &str) -> Result<u64, ApiError> {
    // Google's client writes every number as a float.
    let whole = |value: f64| (value.fract() == 0.0 && (0.0..9e15).contains(&value)).then_some(value as u64);
    value
        .as_u64()
        .or_else(|| value.as_f64().and_then(whole))
        .ok_or_else(|| {
            ApiError::bad_request(
                "bad_parameter",
                format!("parameter `{name}` is `{value}`, expected a whole number: {what}"),
            )
            .with_details(json!({ "field": name }))
        })
}

fn hosted_call(hosted: &Hosted, request: TensorRequest) -> Result<(HostedCall, Vec<Wanted>), ApiError> {
    let payload = Payload::Tensors(tensors::typed(request.inputs)?);
    let mut call = call_of(hosted, payload, request.id, request.parameters, request.timeout)?;
    call.context.outputs = request.outputs.iter().map(|w| w.name.clone()).collect();
    Ok((call, request.outputs))
}

fn check_outputs(interface: &Interface, wanted: &[Wanted]) -> Result<(), ApiError> {
    let known = &interface.outputs;
    if known.is_empty() {
        return Ok(());
    }
    match wanted
        .iter()
        .find(|w| !known.iter().any(|spec| spec.name == w.name))
    {
        None => Ok(()),
        Some(unknown) => {
            let known: Vec<&str> = known.iter().map(|spec| spec.name.as_str()).collect();
            Err(no_output(&unknown.name, &known))
        }
    }
}

pub(super) fn no_output(name: &str, known: &[&str]) -> ApiError {
    ApiError::bad_request(
        "unknown_output",
        format!(
            "there is no output `{name}`: expected one of `{}`",
            known.join("`, `")
        ),
    )
    .with_details(json!({ "field": "outputs", "value": name, "expected": known }))
}

/// The answer of an endpoint of the loop, as tensors.
pub(crate) fn of_table(
    route: &Route,
    response: &InferResponse,
    wanted: &[Wanted],
) -> Result<TensorAnswer, ApiError> {
    let mut parameters = Map::new();
    parameters.insert("at".to_owned(), json!(response.at));
    if any_degraded(response) {
        parameters.insert("degraded".to_owned(), json!(true));
    }
    let mut outputs = Vec::new();
    for tensor in table::tensors(response) {
        let wish = wanted.iter().find(|w| w.name == tensor.name);
        if !wanted.is_empty() && wish.is_none() {
            continue;
        }
        let mut said = Map::new();
        let labels: &[String] = match &response.scores {
            Scores::Multiclass { classes, .. } if tensor.name == "probabilities" => {
                // The protocol's parameters are texts, numbers or booleans: the classes are a JSON text.
                said.insert("classes".to_owned(), json!(json!(classes).to_string()));
                classes
            }
            _ => &[],
        };
        let tensor = match wish.and_then(|wish| wish.classes) {
            Some(count) => classify(&tensor, count, true, labels)?,
            None => tensor,
        };
        outputs.push(Output {
            tensor,
            parameters: said,
        });
    }
    Ok(TensorAnswer {
        model: route.endpoint.clone(),
        version: response.versions.first().copied().unwrap_or_default(),
        id: response.request_id.clone(),
        parameters,
        outputs,
    })
}

fn of_hosted(
    name: &EndpointName,
    answer: CallAnswer,
    interface: &Interface,
    wanted: &[Wanted],
) -> Result<TensorAnswer, ApiError> {
    let mut tensors = match answer.payload {
        Payload::Tensors(tensors) => tensors,
        Payload::Body { bytes, .. } => vec![body_tensor(bytes)],
    };
    if !wanted.is_empty() {
        let mut kept = Vec::with_capacity(wanted.len());
        for wish in wanted {
            let Some(at) = tensors.iter().position(|tensor| tensor.name == wish.name) else {
                let known: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
                return Err(no_output(&wish.name, &known));
            };
            let tensor = tensors.swap_remove(at);
            kept.push(match wish.classes {
                Some(count) => {
                    let spec: Option<&TensorSpec> =
                        interface.outputs.iter().find(|spec| spec.name == wish.name);
                    let labels = spec.map_or(&[][..], |spec| &spec.labels);
                    classify(&tensor, count, interface.batches, labels)?
                }
                None => tensor,
            });
        }
        tensors = kept;
    }
    let mut parameters = Map::new();
    if let Some(reason) = answer.degraded {
        parameters.insert("degraded".to_owned(), json!(&*reason));
    }
    // Where nothing was chosen there is nothing to tell.
    if !matches!(&*answer.route, "newest" | "version") {
        parameters.insert("route".to_owned(), json!(&*answer.route));
    }
    if let Some(id) = &answer.prediction_id {
        crate::edge::note_prediction(Some(id));
        parameters.insert("prediction_id".to_owned(), json!(id));
    }
    let output = |tensor| Output {
        tensor,
        parameters: Map::new(),
    };
    Ok(TensorAnswer {
        model: name.clone(),
        version: answer.version,
        id: answer.request_id,
        parameters,
        outputs: tensors.into_iter().map(output).collect(),
    })
}

/// A body that a model gave, for a protocol that knows only tensors.
fn body_tensor(bytes: Bytes) -> Tensor {
    Tensor {
        name: "output".to_owned(),
        datatype: DataType::Bytes,
        shape: vec![1],
        data: TensorData::Strings(vec![Some(bytes)]),
    }
}
