//! Rows in, whatever stands behind the name asked: the way of the protocols that score tables (MLflow, SageMaker, Vertex AI).

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tidemill_core::ids::VersionNumber;
use tidemill_core::servable::{Interface, Payload};
use tidemill_serving::{Call as HostedCall, CallAnswer, CallAnswers, InferResponse, ServeError};

use super::ask::call_of;
use super::forms::csv::Header;
use super::forms::{FORMS, Form, csv, json as json_form, parquet};
use super::target::Hosted;
use super::values::whole;
use super::{Call, Cell, Reading, Rows, Target, off_thread, predict};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::parse_json;

/// A body, and how it is written.
#[derive(Debug, Clone)]
pub(crate) struct Scoring {
    pub kind: Kind,
    /// As the client named it.
    pub content_type: String,
    pub bytes: Bytes,
    /// The caller's id of the request, unless the body has one.
    pub id: Option<String>,
    pub timeout: Option<Duration>,
    /// Beside those of the body.
    pub parameters: Map<String, Value>,
    /// Whether the protocol has no integers, so that a whole number among the parameters is one.
    pub only_floats: bool,
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An object with one of the forms; or a list of rows, where the protocol takes that.
    Json {
        /// Whether a bare list is a list of rows.
        bare: bool,
    },
    /// A JSON value a line, a row each.
    JsonLines,
    Csv(Header),
    Parquet,
    /// Anything that only the model understands.
    Opaque,
}

/// What came back.
pub(crate) enum Scored {
    Table {
        response: InferResponse,
    },
    Hosted {
        answer: CallAnswer,
        /// Whether the model itself wrote the whole of it, as MLflow's own server would have.
        whole: bool,
    },
}

/// Asks.
pub(crate) async fn score(app: &App, target: Target, scoring: Scoring) -> Result<Scored, ApiError> {
    match target {
        Target::Table(call) => {
            let scoring = as_text(app, scoring).await?;
            let length = scoring.bytes.len();
            let answer = predict(app, call, length, move |call| table_rows(scoring, call)).await?;
            Ok(Scored::Table {
                response: answer.response,
            })
        }
        Target::Hosted(hosted) => {
            let (call, whole) = hosted_call(app, &hosted, scoring, true).await?;
            let asked = app.serving().hosting().call(call).await;
            let answer = asked.map_err(|error| if whole { traced(error) } else { error.into() })?;
            crate::edge::note_prediction(answer.prediction_id.as_ref());
            let whole = whole && answer.version != VersionNumber::DEFAULT;
            Ok(Scored::Hosted { answer, whole })
        }
    }
}

/// Parquet as the JSON that it is read as.
pub(super) async fn as_text(app: &App, mut scoring: Scoring) -> Result<Scoring, ApiError> {
    if scoring.kind == Kind::Parquet {
        let body = parquet::as_split(app, scoring.bytes).await?;
        scoring.bytes = Value::Object(body).to_string().into();
        scoring.kind = Kind::Json { bare: false };
    }
    Ok(scoring)
}

/// The rows of a body for an endpoint of the loop.
pub(super) fn table_rows(scoring: Scoring, call: &Call) -> Result<Reading<()>, ApiError> {
    let bytes = &scoring.bytes;
    let (columns, own_id) = match scoring.kind {
        Kind::Json { bare } if bare && starts_list(bytes) => json_form::read(&listed(bytes), call)?,
        Kind::Json { .. } => json_form::read(bytes, call)?,
        Kind::JsonLines => json_form::read(&listed(&joined(bytes)?), call)?,
        Kind::Csv(header) => (csv::read(bytes, call, header)?, None),
        Kind::Parquet | Kind::Opaque => {
            return Err(ApiError::unsupported_media_type(format!(
                "the content type is `{}`: a model of tables takes `application/json` or `text/csv`",
                scoring.content_type
            )));
        }
    };
    Ok(Reading {
        rows: Rows::Columns(columns),
        request_id: own_id.or(scoring.id),
        timeout: scoring.timeout,
        rest: (),
    })
}

/// Asks a deployment for its answers one after another.
pub(crate) async fn stream(app: &App, hosted: Hosted, scoring: Scoring) -> Result<CallAnswers, ApiError> {
    let (call, _) = hosted_call(app, &hosted, scoring, true).await?;
    Ok(app.serving().hosting().stream(call).await?)
}

/// What a model said of its failure, with the place in its code.
fn traced(error: ServeError) -> ApiError {
    let trace = match &error {
        ServeError::Model { source, .. } => source.trace.clone(),
        _ => None,
    };
    let error = ApiError::from(error);
    match trace {
        Some(trace) => error.with_details(json!({ "stack_trace": &*trace })),
        None => error,
    }
}

/// The call, and whether the model reads the body itself and answers with a whole one, where it may.
pub(super) async fn hosted_call(
    app: &App,
    hosted: &Hosted,
    mut scoring: Scoring,
    whole: bool,
) -> Result<(HostedCall, bool), ApiError> {
    let hosting = app.serving().hosting();
    let (_, interface) = hosting.interface(&hosted.name, hosted.version).await?;
    let scores = whole && interface.scores && hosting.scores(&hosted.name, hosted.version);
    if scores {
        scoring = as_mlflow(scoring, &interface)?;
    }
    if scores || interface.body && (interface.inputs.is_empty() || scoring.kind == Kind::Opaque) {
        let call = scoring_call(
            hosted,
            Payload::Body {
                content_type: scoring.content_type,
                bytes: scoring.bytes,
            },
            scoring.id,
            scoring.parameters,
            scoring.timeout,
        );
        return Ok((call?, scores));
    }
    let parsed = if scoring.kind == Kind::Parquet {
        Some(parquet::as_split(app, scoring.bytes.clone()).await?)
    } else {
        None
    };
    let (id, timeout) = (scoring.id.take(), scoring.timeout);
    let heavy = scoring.bytes.len() > super::HEAVY_BYTES;
    let read = move || fitted(&interface, scoring, parsed);
    let (payload, own_id, parameters) = if heavy { off_thread(read).await? } else { read()? };
    let call = scoring_call(hosted, payload, own_id.or(id), parameters, timeout)?;
    Ok((call, false))
}

/// Here a parameter of the name `timeout` is one of the model's own: only Triton's clients say by it how long they wait.
fn scoring_call(
    hosted: &Hosted,
    payload: Payload,
    id: Option<String>,
    mut parameters: Map<String, Value>,
    timeout: Option<Duration>,
) -> Result<HostedCall, ApiError> {
    let own = parameters.shift_remove("timeout");
    let mut call = call_of(hosted, payload, id, parameters, timeout)?;
    if let Some(own) = own {
        call.context.parameters.insert("timeout".to_owned(), own);
    }
    Ok(call)
}

/// A body that MLflow's own server would take, saying the same.
fn as_mlflow(scoring: Scoring, interface: &Interface) -> Result<Scoring, ApiError> {
    let json = |bytes: Vec<u8>, scoring: Scoring| Scoring {
        kind: Kind::Json { bare: false },
        content_type: "application/json".to_owned(),
        bytes: bytes.into(),
        ..scoring
    };
    match scoring.kind {
        Kind::Csv(_) => with_header(scoring, interface),
        Kind::JsonLines => Ok(json(listed(&joined(&scoring.bytes)?), scoring)),
        Kind::Json { bare: true } if starts_list(&scoring.bytes) => Ok(json(listed(&scoring.bytes), scoring)),
        // boto3 says `application/octet-stream` where its user says nothing.
        Kind::Json { bare: true } => Ok(json(scoring.bytes.to_vec(), scoring)),
        Kind::Parquet => Ok(Scoring {
            content_type: parquet::MEDIA_TYPE.to_owned(),
            ..scoring
        }),
        Kind::Json { bare: false } => {
            let odd = scoring.content_type.split(';').skip(1).map(str::trim);
            match odd
                .filter(|one| !one.is_empty())
                .find(|one| !one.to_ascii_lowercase().starts_with("charset="))
            {
                None => Ok(scoring),
                Some(odd) => Err(ApiError::unsupported_media_type(format!(
                    "the content type has the parameter `{odd}`: MLflow's protocol has none but `charset`"
                ))),
            }
        }
        Kind::Opaque => Err(ApiError::unsupported_media_type(format!(
            "the content type is `{}`: the model takes `application/json`, `text/csv` or `{}`",
            scoring.content_type,
            parquet::MEDIA_TYPE
        ))),
    }
}

/// CSV whose first line holds names, as pandas reads it.
fn with_header(scoring: Scoring, interface: &Interface) -> Result<Scoring, ApiError> {
    let header = match scoring.kind {
        Kind::Csv(header) => csv::missing_header(&scoring.bytes, interface, header)?,
        _ => None,
    };
    Ok(Scoring {
        content_type: "text/csv".to_owned(),
        bytes: match header {
            Some(line) => [line.as_slice(), &scoring.bytes].concat().into(),
            None => scoring.bytes.clone(),
        },
        ..scoring
    })
}

type Fitted = (Payload, Option<String>, Map<String, Value>);

/// The payload that a deployment takes, the id of the request and its parameters.
fn fitted(
    interface: &Interface,
    scoring: Scoring,
    parsed: Option<Map<String, Value>>,
) -> Result<Fitted, ApiError> {
    let mut parameters = scoring.parameters;
    let bytes = &scoring.bytes;
    let mut id = None;
    let form = match (scoring.kind, parsed) {
        (_, Some(mut body)) => Form::taken(&mut body)?,
        (Kind::Csv(header), None) => csv::form(bytes, interface, header)?,
        (Kind::JsonLines, None) => Form::Rows(parse_json(&joined(bytes)?)?),
        (Kind::Json { bare }, None) => match parse_json(bytes)? {
            Value::Object(mut body) => {
                if interface.body && FORMS.iter().all(|name| !body.contains_key(*name)) {
                    let payload = Payload::Body {
                        content_type: scoring.content_type,
                        bytes: scoring.bytes,
                    };
                    return Ok((payload, None, parameters));
                }
                let params = body
                    .shift_remove("params")
                    .or_else(|| body.shift_remove("parameters"));
                match params {
                    None | Some(Value::Null) => {}
                    Some(Value::Object(mut params)) => {
                        if let Some(Value::String(own)) = params.get("request_id") {
                            id = Some(own.clone());
                            params.shift_remove("request_id");
                        }
                        if scoring.only_floats {
                            params.values_mut().for_each(without_fraction);
                        }
                        parameters.extend(params);
                    }
                    Some(other) => {
                        return Err(ApiError::bad_request(
                            "bad_body",
                            format!("`params` is `{other}`, expected an object"),
                        )
                        .with_details(json!({ "field": "params" })));
                    }
                }
                Form::taken(&mut body)?
            }
            Value::Array(rows) if bare => Form::Rows(rows),
            _ => {
                return Err(ApiError::bad_request(
                    "bad_body",
                    format!(
                        "the body is no object: send one of `{}` in one",
                        FORMS.join("`, `")
                    ),
                ));
            }
        },
        (Kind::Parquet | Kind::Opaque, None) => {
            return Err(ApiError::unsupported_media_type(format!(
                "the content type is `{}`: the model takes `application/json` or `text/csv`",
                scoring.content_type
            )));
        }
    };
    Ok((Payload::Tensors(form.into_tensors(interface)?), id, parameters))
}

/// A whole number that came as a float becomes an integer.
fn without_fraction(value: &mut Value) {
    let float = value.as_f64().filter(|_| value.is_f64());
    match float.and_then(whole) {
        Some(Cell::Int(whole)) => *value = json!(whole),
        Some(Cell::UInt(whole)) => *value = json!(whole),
        _ => {}
    }
}

fn starts_list(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// A list of rows as a body of the form `instances`.
fn listed(rows: &[u8]) -> Vec<u8> {
    [b"{\"instances\":", rows, b"}"].concat()
}

/// Lines as a JSON list. A line that is an object with `features` is the row that these are, as SageMaker's own algorithms take it.
fn joined(lines: &[u8]) -> Result<Vec<u8>, ApiError> {
    let mut rows = vec![b'['];
    for (i, line) in lines.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let value: Value = serde_json::from_slice(line).map_err(|error| {
            ApiError::bad_request("malformed_json", format!("line {} is not JSON: {error}", i + 1))
        })?;
        let value = match value {
            Value::Object(mut object) if object.len() == 1 && object.contains_key("features") => {
                object.shift_remove("features").unwrap_or_default()
            }
            other => other,
        };
        if rows.len() > 1 {
            rows.push(b',');
        }
        rows.extend_from_slice(value.to_string().as_bytes());
    }
    rows.push(b']');
    Ok(rows)
}
