//! `POST /endpoints/{name}/async-invocations`: the request's body is a file, and so is its answer. Files are those that the operator lets
//! this server read and write: the buckets of `--artifact-roots` and what `--artifacts-destination` names. An accepted request is stored
//! before it is acknowledged, and answered by those who work on batch jobs.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tidemill_control::batch::{Invoke, NewJob, Shape};
use tidemill_control::tracking::{Destination, Tracking};
use tidemill_control::users::Need;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{self, EndpointName, VersionNumber};
use tidemill_store::objects::Bucket;

use super::{INFERENCE_ID, parameters, target, text, value, wrong};
use crate::auth::{Caller as Known, check_batch_place};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::infer::Target;
use crate::infer::target::Hosted;
use crate::mlflow::tracking::Called;

/// How long the model has, in seconds: where nothing is said, and at most.
const TIMEOUT: (u64, u64) = (900, 3_600);
/// How long a request may wait, in seconds: at least, and at most, which is also where nothing is said.
const TTL: (u64, u64) = (60, 21_600);

/// Where the answers to requests that are read at a location go.
fn root(tracking: &Tracking, location: &str) -> Result<String, ApiError> {
    let options = tracking.options();
    let mut buckets: Vec<&Bucket> = options.buckets.iter().collect();
    match &options.artifacts_destination {
        Some(Destination::Bucket(bucket)) => buckets.push(bucket),
        Some(Destination::Folder(root)) => {
            let path = location.strip_prefix("file://").map(std::path::Path::new);
            if path.is_some_and(|path| path.starts_with(root)) {
                return Ok(format!("file://{}", root.display()));
            }
        }
        None => {}
    }
    let bucket = buckets
        .into_iter()
        .find(|bucket| bucket.path_of(location).is_some());
    let uri = bucket.map(|bucket| bucket.uri().trim_end_matches('/').to_owned());
    uri.ok_or_else(|| {
        wrong(format!(
            "`X-Amzn-SageMaker-InputLocation` is `{location}`, which this server may not read: it reads where `--artifact-roots` and \
             `--artifacts-destination` say"
        ))
    })
}

/// A number of seconds in a header.
fn seconds(headers: &HeaderMap, name: &str, usual: u64, most: (u64, u64)) -> Result<u64, ApiError> {
    let Some(said) = text(headers, name) else {
        return Ok(usual);
    };
    let number = said
        .parse()
        .ok()
        .filter(|number| (most.0..=most.1).contains(number));
    number.ok_or_else(|| {
        wrong(format!(
            "`{name}` is `{said}`, expected {} to {} seconds",
            most.0, most.1
        ))
    })
}

fn version(target: &Target) -> Option<VersionNumber> {
    match target {
        Target::Table(call) => call.version,
        Target::Hosted(Hosted { version, .. }) => *version,
    }
}

/// Takes a request, and answers where its answer will be.
pub(crate) async fn invoke(
    State(app): State<App>,
    Called(caller): Called,
    Known(known): Known,
    Path(name): Path<EndpointName>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let target = target(&app, &name, &headers)?;
    let Some(input) = text(&headers, "x-amzn-sagemaker-inputlocation") else {
        return Err(wrong(
            "`X-Amzn-SageMaker-InputLocation` is missing: name the file that holds the request's body"
                .to_owned(),
        ));
    };
    let root = root(app.tracking(), input)?;
    let id = match text(&headers, INFERENCE_ID) {
        Some(id) if is_name(id) => id.to_owned(),
        Some(id) => {
            return Err(wrong(format!(
                "`X-Amzn-SageMaker-Inference-Id` is `{id}`, expected at most 64 letters, digits, `-`, `_` and `.`"
            )));
        }
        None => ids::fresh(app.now()),
    };
    let timeout_s = seconds(
        &headers,
        "x-amzn-sagemaker-invocationtimeoutseconds",
        TIMEOUT.0,
        (1, TIMEOUT.1),
    )?;
    let ttl_s = seconds(&headers, "x-amzn-sagemaker-requestttlseconds", TTL.1, TTL)?;
    // The caller's id says what belongs together, and may come again: each request has files of its own.
    let own = match text(&headers, INFERENCE_ID) {
        Some(id) => format!("{}-{id}", ids::fresh(app.now())),
        None => id.clone(),
    };
    let output = format!("{root}/async-inference/{name}/{own}.out");
    let failure = format!("{root}/async-inference/{name}/{own}.error");
    let known = known.as_deref();
    check_batch_place(&app, known, &caller, Need::Read, input, false).await?;
    for location in [&output, &failure] {
        check_batch_place(&app, known, &caller, Need::Update, location, false).await?;
    }
    let said = |header: &str| text(&headers, header).unwrap_or_default().to_owned();
    let new = NewJob {
        name: None,
        version: version(&target),
        endpoint: name,
        shape: Shape::Invoke(Invoke {
            input: input.to_owned(),
            output: output.clone(),
            failure: failure.clone(),
            content_type: said("x-amzn-sagemaker-content-type"),
            accept: said("x-amzn-sagemaker-accept"),
            id: id.clone(),
            parameters: parameters(&headers),
            timeout_s,
            expires_at: Timestamp::from_micros(app.now().as_micros() + ttl_s.cast_signed() * 1_000_000),
        }),
        said: Value::Null,
    };
    app.batch_jobs().submit(&caller, new).await?;
    let mut response = (StatusCode::ACCEPTED, axum::Json(json!({ "InferenceId": id }))).into_response();
    let said = response.headers_mut();
    said.insert("x-amzn-sagemaker-outputlocation", value(&output));
    said.insert("x-amzn-sagemaker-failurelocation", value(&failure));
    Ok(response)
}

/// Whether an id can be a file's name.
fn is_name(id: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !id.is_empty() && id.len() <= 64 && id.chars().all(good) && !id.starts_with('.')
}
