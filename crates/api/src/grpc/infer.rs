//! Predictions: one by one, and as a stream in both directions.
//!
//! A stream is read ahead of what is worked on: HTTP/2 ends the whole connection, with all that others do on it, of a peer whose small
//! frames nobody reads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{BoxStream, FuturesOrdered};
use prost::Message as _;
use serde_json::{Map, Value, json};
use tidemill_core::clock::Stopwatch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tonic::{Status, Streaming};

use super::convert::{from_parameters, raw_contents, to_parameters};
use super::proto;
use crate::control_plane::App;
use crate::edge;
use crate::error::ApiError;
use crate::extract::version_number;
use crate::infer::Target;
use crate::infer::ask::{TensorAnswer, TensorRequest, Wanted, ask, is_decoupled, stream as ask_stream};
use crate::infer::shared::{self, Place, raw_bytes};
use crate::infer::tensors::{Input, from_raw};

/// So many requests of one stream are worked on at once.
const AT_ONCE: usize = 64;
/// So many more are read and wait for their turn, and no more than so many bytes of them, unless one alone is larger.
const AHEAD: usize = 4_096;
const AHEAD_BYTES: usize = 4 << 20;

/// What stands behind a name; an empty version is none.
pub(super) fn target(app: &App, name: String, version: &str) -> Result<Target, ApiError> {
    let version = (!version.is_empty())
        .then(|| version_number(version))
        .transpose()?;
    Target::of(app, &name.into(), version)
}

/// A request as it is asked, and where its outputs are wanted in shared memory.
struct Asked {
    target: Target,
    request: TensorRequest,
    places: Vec<(String, Place)>,
}

fn read(
    app: &App,
    message: proto::ModelInferRequest,
    timeout: Option<Duration>,
    received: Stopwatch,
) -> Result<Asked, ApiError> {
    let target = target(app, message.model_name, &message.model_version)?.since(received);
    let mut raw = message.raw_input_contents.into_iter();
    let all_raw = raw.len() > 0;
    let mut inputs = Vec::with_capacity(message.inputs.len());
    let mut budget = shared::REQUEST_BYTES;
    for input in message.inputs {
        let parameters = from_parameters(input.parameters);
        let bytes: Bytes = if let Some(place) = place(&parameters)? {
            shared::of(app)?.read(&place, &mut budget)?
        } else if all_raw {
            if input.contents.is_some() {
                return Err(ApiError::bad_request(
                    "bad_tensor",
                    format!(
                        "input `{}` has contents of its own, and `raw_input_contents` came too: send one",
                        input.name
                    ),
                ));
            }
            raw.next().ok_or_else(|| {
                ApiError::bad_request(
                    "bad_tensor",
                    format!("`raw_input_contents` has nothing for input `{}`", input.name),
                )
            })?
        } else {
            let contents = input.contents.unwrap_or_default();
            raw_contents(&input.name, &input.datatype, &contents)?
        };
        let tensor = from_raw(&input.name, &input.datatype, &input.shape, bytes)?;
        inputs.push(Input::Typed(tensor));
    }
    if raw.len() > 0 {
        return Err(ApiError::bad_request(
            "bad_tensor",
            format!(
                "`raw_input_contents` has {} tensors more than there are inputs",
                raw.len()
            ),
        ));
    }
    let mut outputs = Vec::with_capacity(message.outputs.len());
    let mut places = Vec::new();
    for output in message.outputs {
        let parameters = from_parameters(output.parameters);
        if let Some(place) = place(&parameters)? {
            shared::of(app)?.check(&place)?;
            places.push((output.name.clone(), place));
        }
        let classes = parameters.get("classification").and_then(Value::as_u64);
        outputs.push(Wanted {
            name: output.name,
            classes: classes.filter(|&count| count > 0).map(|count| count as usize),
        });
    }
    Ok(Asked {
        target,
        request: TensorRequest {
            id: (!message.id.is_empty()).then_some(message.id),
            parameters: from_parameters(message.parameters),
            inputs,
            outputs,
            timeout,
        },
        places,
    })
}

/// The part of shared memory that a tensor's parameters name.
fn place(parameters: &Map<String, Value>) -> Result<Option<Place>, ApiError> {
    let Some(region) = parameters.get("shared_memory_region").and_then(Value::as_str) else {
        return Ok(None);
    };
    let number = |name: &str| parameters.get(name).and_then(Value::as_u64);
    let Some(byte_size) = number("shared_memory_byte_size") else {
        return Err(ApiError::bad_request(
            "bad_parameter",
            "parameter `shared_memory_byte_size` is missing: say how many bytes of the region are meant",
        ));
    };
    Ok(Some(Place {
        region: region.to_owned(),
        offset: number("shared_memory_offset").unwrap_or(0),
        byte_size,
    }))
}

fn written(
    app: &App,
    answer: TensorAnswer,
    places: &[(String, Place)],
) -> Result<proto::ModelInferResponse, ApiError> {
    let mut response = proto::ModelInferResponse {
        model_name: answer.model.to_string(),
        model_version: answer.version.to_string(),
        id: answer.id,
        parameters: to_parameters(answer.parameters),
        outputs: Vec::with_capacity(answer.outputs.len()),
        raw_output_contents: Vec::with_capacity(answer.outputs.len()),
    };
    for output in answer.outputs {
        let (tensor, mut parameters) = (output.tensor, output.parameters);
        let place = places.iter().find(|(name, _)| *name == tensor.name);
        if let Some((_, place)) = place {
            let size = shared::of(app)?.write(place, &tensor)?;
            parameters.insert("shared_memory_region".to_owned(), json!(place.region));
            parameters.insert("shared_memory_byte_size".to_owned(), json!(size));
            parameters.insert("shared_memory_offset".to_owned(), json!(place.offset));
        } else {
            response.raw_output_contents.push(raw_bytes(&tensor));
        }
        response
            .outputs
            .push(proto::model_infer_response::InferOutputTensor {
                name: tensor.name,
                datatype: tensor.datatype.name().to_owned(),
                shape: tensor.shape.iter().map(|&extent| extent as i64).collect(),
                parameters: to_parameters(parameters),
                contents: None,
            });
    }
    Ok(response)
}

/// One answer to one request.
pub(super) async fn one(
    app: &App,
    message: proto::ModelInferRequest,
    timeout: Option<Duration>,
) -> Result<proto::ModelInferResponse, ApiError> {
    let asked = read(app, message, timeout, Stopwatch::start())?;
    if is_decoupled(app, &asked.target).await? {
        return Err(ApiError::bad_request(
            "not_one_answer",
            "the model may give several answers to a request: ask by `ModelStreamInfer`",
        ));
    }
    let answer = ask(app, asked.target, asked.request).await?;
    written(app, answer, &asked.places)
}

type Reply = proto::ModelStreamInferResponse;

/// Says whether no further answer comes to the request.
fn said(mut response: proto::ModelInferResponse, last: bool) -> Reply {
    let mut parameters = Map::new();
    parameters.insert("triton_final_response".to_owned(), json!(last));
    response.parameters.extend(to_parameters(parameters));
    proto::ModelStreamInferResponse {
        error_message: String::new(),
        infer_response: Some(response),
    }
}

/// An error of one request does not end the stream.
fn failed(id: &str, error: &ApiError) -> Reply {
    proto::ModelStreamInferResponse {
        error_message: error.message.clone(),
        infer_response: Some(proto::ModelInferResponse {
            id: id.to_owned(),
            ..proto::ModelInferResponse::default()
        }),
    }
}

/// Answers every request of a stream. Those to models of one answer are answered in their order; the others answer as they can. Once the
/// server wants to stop, no more requests are read.
pub(super) fn streamed(
    app: App,
    requests: Streaming<proto::ModelInferRequest>,
    timeout: Option<Duration>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> BoxStream<'static, Result<Reply, Status>> {
    let (sender, receiver) = mpsc::channel(AT_ONCE);
    let (queue, waiting) = mpsc::channel(AHEAD);
    tokio::spawn(read_ahead(requests, timeout, stop, queue));
    let working = edge::carried(work(app, waiting, sender));
    tokio::spawn(shared::working_for(shared::caller(), working));
    futures::stream::unfold(receiver, |mut receiver| async {
        let reply = receiver.recv().await?;
        Some((reply, receiver))
    })
    .boxed()
}

/// A request that was read, and its share of the bytes that may wait.
type Ahead = Result<(Arrived, OwnedSemaphorePermit), Status>;

struct Arrived {
    message: proto::ModelInferRequest,
    received: Stopwatch,
    /// What is left of the stream's time.
    timeout: Option<Duration>,
}

/// Reads until the client has nothing more to say, the server wants to stop or nobody listens.
async fn read_ahead(
    mut requests: Streaming<proto::ModelInferRequest>,
    timeout: Option<Duration>,
    stop: impl Future<Output = ()> + Send,
    queue: mpsc::Sender<Ahead>,
) {
    let began = Stopwatch::start();
    let room = Arc::new(Semaphore::new(AHEAD_BYTES));
    let read = async {
        while let Some(message) = requests.next().await {
            let message = match message {
                Ok(message) => message,
                // The client is gone, or has sent what is no message: tonic ends the stream with what was wrong.
                Err(status) => {
                    let _ = queue.send(Err(status)).await;
                    return;
                }
            };
            let bytes = message.encoded_len().clamp(1, AHEAD_BYTES) as u32;
            let Ok(share) = Arc::clone(&room).acquire_many_owned(bytes).await else {
                return;
            };
            let arrived = Arrived {
                message,
                received: Stopwatch::start(),
                timeout: timeout.map(|timeout| timeout.saturating_sub(began.elapsed())),
            };
            if queue.send(Ok((arrived, share))).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = stop => {}
        () = queue.closed() => {}
    }
}

async fn work(app: App, mut requests: mpsc::Receiver<Ahead>, sender: mpsc::Sender<Result<Reply, Status>>) {
    let mut open = true;
    let mut singles = FuturesOrdered::new();
    // Ended with this task: a client that is gone wants no more answers.
    let mut streams = JoinSet::new();
    while open || !singles.is_empty() || !streams.is_empty() {
        let room = singles.len() < AT_ONCE && streams.len() < AT_ONCE;
        tokio::select! {
            () = sender.closed() => return,
            _ = streams.join_next(), if !streams.is_empty() => {}
            message = requests.recv(), if open && room => match message {
                Some(Ok((arrived, share))) => {
                    drop(share);
                    let id = arrived.message.id.clone();
                    match begin(&app, arrived).await {
                        Ok((asked, false)) => {
                            let app = app.clone();
                            singles.push_back(async move {
                                let answer = ask(&app, asked.target, asked.request).await;
                                match answer.and_then(|answer| written(&app, answer, &asked.places)) {
                                    Ok(response) => said(response, true),
                                    Err(error) => failed(&id, &error),
                                }
                            });
                        }
                        Ok((asked, true)) => {
                            let answering = several(app.clone(), asked, id, sender.clone());
                            let answering = edge::carried(answering);
                            streams.spawn(shared::working_for(shared::caller(), answering));
                        }
                        Err(error) => {
                            if sender.send(Ok(failed(&id, &error))).await.is_err() {
                                return;
                            }
                        }
                    }
                }
                Some(Err(status)) => {
                    let _ = sender.send(Err(status)).await;
                    return;
                }
                None => open = false,
            },
            Some(reply) = singles.next(), if !singles.is_empty() => {
                if sender.send(Ok(reply)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Whether the model may give several answers, after the request has been read.
async fn begin(app: &App, arrived: Arrived) -> Result<(Asked, bool), ApiError> {
    let asked = read(app, arrived.message, arrived.timeout, arrived.received)?;
    let decoupled = is_decoupled(app, &asked.target).await?;
    Ok((asked, decoupled))
}

async fn several(app: App, asked: Asked, id: String, sender: mpsc::Sender<Result<Reply, Status>>) {
    let wants_end = asked
        .request
        .parameters
        .get("triton_enable_empty_final_response")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let mut answers = match ask_stream(&app, asked.target, asked.request).await {
        Ok(answers) => answers,
        Err(error) => {
            let _ = sender.send(Ok(failed(&id, &error))).await;
            return;
        }
    };
    let mut last = proto::ModelInferResponse {
        id: id.clone(),
        ..proto::ModelInferResponse::default()
    };
    while let Some(answer) = answers.next().await {
        let response = answer.and_then(|answer| written(&app, answer, &asked.places));
        let reply = match response {
            Ok(response) => {
                last.model_name.clone_from(&response.model_name);
                last.model_version.clone_from(&response.model_version);
                said(response, false)
            }
            Err(error) => failed(&id, &error),
        };
        if sender.send(Ok(reply)).await.is_err() {
            return;
        }
    }
    if wants_end {
        let _ = sender.send(Ok(said(last, true))).await;
    }
}
