//! `POST /endpoints/{name}/async-invocations`: the request's body is a file, and so is its answer. Files are those that the operator lets
//! this server read and write: the buckets of `--artifact-roots` and what `--artifacts-destination` names.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::json;
use tidemill_control::tracking::{Destination, Tracking};
use tidemill_core::ids::{self, EndpointName};
use tidemill_store::objects::{Bucket, Folder};
use tokio::sync::Semaphore;

use super::{INFERENCE_ID, answer, scored, scoring, target, text, value, wrong};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::BODY_LIMIT;

/// So many requests wait or are worked on; more are refused.
static PLACES: Semaphore = Semaphore::const_new(256);

/// Where files are.
#[derive(Clone)]
enum Place {
    Bucket(Bucket),
    Folder(Folder),
}

impl Place {
    /// The place that a location lies in, and its path there.
    fn of(tracking: &Tracking, location: &str) -> Result<(Self, String), ApiError> {
        let options = tracking.options();
        let mut buckets: Vec<&Bucket> = options.buckets.iter().collect();
        match &options.artifacts_destination {
            Some(Destination::Bucket(bucket)) => buckets.push(bucket),
            Some(Destination::Folder(root)) => {
                let path = location.strip_prefix("file://").and_then(|path| {
                    let path = std::path::Path::new(path).strip_prefix(root).ok()?;
                    path.to_str().map(str::to_owned)
                });
                if let Some(path) = path {
                    return Ok((Self::Folder(Folder::at(root)), path));
                }
            }
            None => {}
        }
        for bucket in buckets {
            if let Some(path) = bucket.path_of(location) {
                return Ok((Self::Bucket(bucket.clone()), path));
            }
        }
        Err(wrong(format!(
            "`X-Amzn-SageMaker-InputLocation` is `{location}`, which this server may not read: it reads where `--artifact-roots` and \
             `--artifacts-destination` say"
        )))
    }

    /// The location of a path.
    fn location(&self, path: &str) -> String {
        match self {
            Self::Bucket(bucket) => format!("{}/{path}", bucket.uri().trim_end_matches('/')),
            Self::Folder(folder) => format!("file://{}/{path}", folder.root().display()),
        }
    }

    async fn read(&self, path: &str) -> Result<Bytes, ApiError> {
        let file = match self {
            Self::Bucket(bucket) => bucket.open_file(path).await?,
            Self::Folder(folder) => folder.open(path).await?,
        };
        let Some(file) = file else {
            return Err(wrong(format!("there is no file `{}`", self.location(path))));
        };
        match file.rest(BODY_LIMIT as u64).await? {
            Some(bytes) => Ok(bytes.into()),
            None => Err(ApiError::too_large(BODY_LIMIT)),
        }
    }

    async fn write(&self, tracking: &Tracking, path: &str, bytes: Bytes) -> Result<(), ApiError> {
        match self {
            Self::Bucket(bucket) => {
                let mut upload = tracking.store().upload_to(bucket, path)?;
                upload.write(bytes).await?;
                upload.finish().await?;
            }
            Self::Folder(folder) => {
                let mut incoming = folder.incoming().await?;
                incoming.write(bytes).await?;
                let arrived = incoming.finish().await?;
                if folder.keep(arrived, path).await?.is_err() {
                    return Err(ApiError::internal(
                        "internal",
                        format!(
                            "`{path}` cannot be a file's name in `{}`",
                            folder.root().display()
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Takes a request, and answers where its answer will be.
pub(crate) async fn invoke(
    State(app): State<App>,
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
    let (place, path) = Place::of(app.tracking(), input)?;
    let id = match text(&headers, INFERENCE_ID) {
        Some(id) if is_name(id) => id.to_owned(),
        Some(id) => {
            return Err(wrong(format!(
                "`X-Amzn-SageMaker-Inference-Id` is `{id}`, expected at most 64 letters, digits, `-`, `_` and `.`"
            )));
        }
        None => ids::fresh(app.now()),
    };
    let Ok(permit) = PLACES.try_acquire() else {
        return Err(tidemill_serving::ServeError::Overloaded {
            endpoint: name,
            why: "too many asynchronous requests wait".to_owned(),
        }
        .into());
    };
    let (output, failure) = (
        format!("async-inference/{name}/{id}.out"),
        format!("async-inference/{name}/{id}.error"),
    );
    let mut response = (StatusCode::ACCEPTED, axum::Json(json!({ "InferenceId": id }))).into_response();
    let said = response.headers_mut();
    said.insert("x-amzn-sagemaker-outputlocation", value(&place.location(&output)));
    said.insert(
        "x-amzn-sagemaker-failurelocation",
        value(&place.location(&failure)),
    );

    let content_type = text(&headers, "x-amzn-sagemaker-content-type")
        .unwrap_or_default()
        .to_owned();
    let accept = text(&headers, "x-amzn-sagemaker-accept")
        .unwrap_or_default()
        .to_owned();
    tokio::spawn(async move {
        let _permit = permit;
        let work = async {
            let body = place.read(&path).await?;
            let asked = scoring(&headers, &content_type, body);
            let (_, scored) = scored(&app, target, asked).await?;
            let (_, body) = answer(scored, &accept)?;
            Ok::<_, ApiError>(body)
        };
        let (path, body) = match work.await {
            Ok(body) => (output, body),
            Err(error) => {
                tracing::warn!(%error, endpoint = %name, id, "an asynchronous request failed");
                let body = json!({ "Message": error.message, "ErrorCode": error.code });
                (failure, body.to_string().into())
            }
        };
        if let Err(error) = place.write(app.tracking(), &path, body).await {
            tracing::error!(%error, path, "the answer to an asynchronous request could not be stored");
        }
    });
    Ok(response)
}

/// Whether an id can be a file's name.
fn is_name(id: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !id.is_empty() && id.len() <= 64 && id.chars().all(good) && !id.starts_with('.')
}
