//! Vertex AI's prediction service, as `google-cloud-aiplatform` speaks it over REST: an endpoint's name is ours; project and location may
//! be any; batch prediction is in [`jobs`]. <https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints>

pub(crate) mod jobs;

mod explain;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidemill_core::ids::VersionNumber;
use tidemill_core::servable::Payload;

use crate::control_plane::App;
use crate::error::{ApiError, Protocol};
use crate::extract::{Inflated, parse_json};
use crate::infer::Target;
use crate::infer::forms::csv::Header;
use crate::infer::forms::{parquet, reply};
use crate::infer::score::{self, Kind, Scored, Scoring};

/// Which endpoint, and what is asked of it: `name:predict`.
#[derive(Deserialize)]
pub(crate) struct CallPath {
    project: String,
    location: String,
    call: String,
}

/// `POST /v1/projects/{project}/locations/{location}/endpoints/{endpoint}:predict`, and the other verbs.
pub(crate) async fn call(
    State(app): State<App>,
    Path(path): Path<CallPath>,
    headers: HeaderMap,
    Inflated(body): Inflated,
) -> Result<Response, ApiError> {
    let Some((name, verb)) = path.call.rsplit_once(':') else {
        return Err(unknown(&path.call));
    };
    let target = Target::of(&app, &name.into(), None)?;
    match verb {
        "predict" => predict(&app, &path, name, target, body).await,
        "rawPredict" => raw(&app, target, &headers, body).await,
        "streamRawPredict" => stream_raw(&app, target, &headers, body).await,
        "explain" => explain::explain(&app, name, target, body).await,
        other => Err(unknown(other)),
    }
}

fn unknown(verb: &str) -> ApiError {
    ApiError::not_found(
        "unknown_route",
        format!(
            "`{verb}` is no call of an endpoint: expected `ENDPOINT:predict`, `:explain`, `:rawPredict` or `:streamRawPredict`"
        ),
    )
}

async fn predict(
    app: &App,
    path: &CallPath,
    name: &str,
    target: Target,
    body: Bytes,
) -> Result<Response, ApiError> {
    let Predicted {
        predictions,
        version,
        metadata,
        ..
    } = predicted(app, target, body).await?;
    let (project, location) = (&path.project, &path.location);
    Ok(Json(json!({
        "predictions": predictions,
        "deployedModelId": version.to_string(),
        "model": format!("projects/{project}/locations/{location}/models/{name}"),
        "modelVersionId": version.to_string(),
        "modelDisplayName": name,
        "metadata": metadata,
    }))
    .into_response())
}

/// An answer to `instances`.
struct Predicted {
    predictions: Value,
    version: VersionNumber,
    /// Whether a model gave the answer to every instance.
    by_models: bool,
    metadata: Map<String, Value>,
}

fn instances(bytes: Bytes) -> Scoring {
    Scoring {
        only_floats: true,
        kind: Kind::Json { bare: false },
        content_type: "application/json".to_owned(),
        bytes,
        id: None,
        timeout: None,
        parameters: Map::new(),
    }
}

async fn predicted(app: &App, target: Target, body: Bytes) -> Result<Predicted, ApiError> {
    let mut metadata = Map::new();
    let scored = score::score(app, target, instances(body)).await?;
    let predictions = reply::by_instance(&scored)?;
    let (version, by_models) = match scored {
        Scored::Table { response } => {
            metadata.insert("predictionIds".to_owned(), json!(response.ids));
            metadata.insert("modelVersions".to_owned(), json!(response.versions));
            let version = response.versions.first().copied().unwrap_or_default();
            (version, !response.versions.contains(&VersionNumber::DEFAULT))
        }
        Scored::Hosted { answer, .. } => (answer.version, true),
    };
    Ok(Predicted {
        predictions,
        version,
        by_models,
        metadata,
    })
}

/// A body for the model itself, as it came, or wrapped by Google's client.
struct Raw {
    scoring: Scoring,
    wrapped: bool,
}

fn raw_body(headers: &HeaderMap, body: Bytes) -> Result<Raw, ApiError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct HttpBody {
        #[serde(default)]
        content_type: String,
        #[serde(default)]
        data: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wrapped {
        http_body: HttpBody,
    }
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (content_type, bytes, wrapped) = match serde_json::from_slice::<Wrapped>(&body) {
        Ok(Wrapped { http_body }) => {
            let bytes = STANDARD.decode(&http_body.data).map_err(|error| {
                ApiError::bad_request("bad_body", format!("`httpBody.data` is not base64: {error}"))
                    .with_details(json!({ "field": "httpBody.data" }))
            })?;
            (http_body.content_type, Bytes::from(bytes), true)
        }
        Err(_) => (given.to_owned(), body, false),
    };
    let bare = content_type.split(';').next().unwrap_or_default().trim();
    let kind = match bare.to_ascii_lowercase().as_str() {
        "" | "application/json" => Kind::Json { bare: true },
        "application/jsonl" | "application/jsonlines" => Kind::JsonLines,
        "text/csv" => Kind::Csv(Header::IfKnown),
        parquet::MEDIA_TYPE => Kind::Parquet,
        _ => Kind::Opaque,
    };
    Ok(Raw {
        scoring: Scoring {
            only_floats: false,
            kind,
            content_type: if bare.is_empty() {
                "application/json".to_owned()
            } else {
                content_type
            },
            bytes,
            id: None,
            timeout: None,
            parameters: Map::new(),
        },
        wrapped,
    })
}

fn answer(scored: Scored) -> Result<(String, Bytes), ApiError> {
    match scored {
        Scored::Table { response } => {
            let whole = Value::Object(reply::of_table(&response));
            Ok(("application/json".to_owned(), whole.to_string().into()))
        }
        Scored::Hosted { answer, .. } => written(answer.payload),
    }
}

fn written(payload: Payload) -> Result<(String, Bytes), ApiError> {
    match payload {
        Payload::Body { content_type, bytes } => Ok((content_type, bytes)),
        payload @ Payload::Tensors(_) => {
            let whole = reply::whole(&payload)?;
            Ok(("application/json".to_owned(), whole.to_string().into()))
        }
    }
}

/// `google.api.HttpBody`, which is what Google's client waits for if that is what it sent.
fn http_body(content_type: &str, bytes: &[u8]) -> Value {
    json!({ "contentType": content_type, "data": STANDARD.encode(bytes) })
}

async fn raw(app: &App, target: Target, headers: &HeaderMap, body: Bytes) -> Result<Response, ApiError> {
    let Raw { scoring, wrapped } = raw_body(headers, body)?;
    let (content_type, bytes) = answer(score::score(app, target, scoring).await?)?;
    if wrapped {
        return Ok(Json(http_body(&content_type, &bytes)).into_response());
    }
    Ok(([(header::CONTENT_TYPE, content_type)], bytes).into_response())
}

/// A JSON list whose items come one after another.
async fn stream_raw(
    app: &App,
    target: Target,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let Raw { scoring, wrapped } = raw_body(headers, body)?;
    let item = move |answer: Result<(String, Bytes), ApiError>| -> Value {
        match answer {
            Ok((content_type, bytes)) if wrapped => http_body(&content_type, &bytes),
            Ok((_, bytes)) => {
                parse_json(&bytes).unwrap_or_else(|_: ApiError| json!(String::from_utf8_lossy(&bytes)))
            }
            Err(error) => Protocol::Vertex.error_body(&error),
        }
    };
    let items = match target {
        Target::Table(_) => {
            let one = answer(score::score(app, target, scoring).await?);
            futures::stream::iter([item(one)]).boxed()
        }
        Target::Hosted(hosted) => {
            let answers = score::stream(app, hosted, scoring).await?;
            answers
                .map(move |answer| item(answer.map_err(ApiError::from).and_then(|a| written(a.payload))))
                .boxed()
        }
    };
    let pieces = items.enumerate().map(|(i, item)| {
        let before = if i == 0 { "[" } else { ",\n" };
        format!("{before}{item}")
    });
    // Without an item the list is empty, and still a list.
    let mut begun = false;
    let whole = pieces
        .map(Some)
        .chain(futures::stream::iter([None]))
        .map(move |piece| {
            let text = match piece {
                Some(piece) => piece,
                None if begun => "]".to_owned(),
                None => "[]".to_owned(),
            };
            begun = true;
            Ok::<_, std::convert::Infallible>(text)
        });
    Ok((
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(whole),
    )
        .into_response())
}
