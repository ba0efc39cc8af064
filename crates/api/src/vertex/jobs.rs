//! Vertex AI's batch prediction, as `google-cloud-aiplatform` speaks it over REST: a model's name is an endpoint or a deployment here, with
//! `@3` behind it a version of it; project and location may be any.
//! <https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs>

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_control::batch::{JobView, NewJob, Shape, Vertex, VertexInstances};
use tidemill_control::users::Need;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_store::batch_jobs::{BatchKind, BatchState};

use crate::auth::{Caller as Known, check_batch_place};
use crate::control_plane::{App, ListQuery};
use crate::error::{ApiError, Kind};
use crate::extract::{Json as Asked, Params};
use crate::infer::Target;
use crate::mlflow::tracking::Called;

/// Instances in one request, where nothing is said, and at most.
const BATCH: (u64, u64) = (64, 10_000);
/// Jobs on a page, where nothing is said.
const PAGE: usize = 100;

type Answer = Result<Json<Value>, ApiError>;

/// Where jobs are.
#[derive(Deserialize)]
pub(crate) struct Parent {
    project: String,
    location: String,
}

/// A job, or a call of one: `ID:cancel`.
#[derive(Deserialize)]
pub(crate) struct JobPath {
    project: String,
    location: String,
    call: String,
}

fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::bad_request("bad_batch_job", message)
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
}

/// Refuses what is set and not done here.
fn refuse(asked: &Value, pointers: &[&str]) -> Result<(), ApiError> {
    for pointer in pointers {
        let set = asked.pointer(pointer).is_some_and(|value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        });
        if set {
            return Err(ApiError {
                kind: Kind::NotImplemented,
                ..ApiError::bad_request(
                    "not_implemented",
                    format!("`{}` is not known here", pointer[1..].replace('/', ".")),
                )
            });
        }
    }
    Ok(())
}

/// The endpoint and version that `projects/…/models/NAME@VERSION` names.
fn model(name: &str) -> Result<(EndpointName, Option<VersionNumber>), ApiError> {
    let last = name.rsplit('/').next().unwrap_or(name);
    let Some((name, version)) = last.split_once('@') else {
        return Ok((last.into(), None));
    };
    match version {
        "default" => Ok((name.into(), None)),
        version => {
            let number = version.parse().map_err(|_| {
                wrong(format!(
                    "`model` ends with `@{version}`, expected a version's number or `@default`"
                ))
            })?;
            Ok((name.into(), Some(VersionNumber(number))))
        }
    }
}

fn instances(asked: &Value) -> Result<VertexInstances, ApiError> {
    let kind = text(asked, "/instanceConfig/instanceType");
    match (text(asked, "/inputConfig/instancesFormat"), kind) {
        (Some("jsonl"), None | Some("object" | "array")) => Ok(VertexInstances::Jsonl),
        (Some("csv"), None | Some("array")) => Ok(VertexInstances::CsvLists),
        (Some("csv"), Some("object")) => Ok(VertexInstances::CsvObjects),
        (Some("jsonl" | "csv"), Some(kind)) => Err(wrong(format!(
            "`instanceConfig.instanceType` is `{kind}`, expected `array` or `object`"
        ))),
        (format, _) => Err(wrong(format!(
            "`inputConfig.instancesFormat` is `{}`, and `jsonl` and `csv` are read here",
            format.unwrap_or_default()
        ))),
    }
}

/// `POST /v1/projects/{project}/locations/{location}/batchPredictionJobs`
pub(crate) async fn create(
    State(app): State<App>,
    Called(caller): Called,
    Known(known): Known,
    Path(parent): Path<Parent>,
    Asked(asked): Asked<Value>,
) -> Answer {
    refuse(
        &asked,
        &[
            "/unmanagedContainerModel",
            "/inputConfig/bigquerySource",
            "/inputConfig/vertexMultimodalDatasetSource",
            "/outputConfig/bigqueryDestination",
            "/outputConfig/vertexMultimodalDatasetDestination",
            "/generateExplanation",
            "/encryptionSpec",
            "/modelMonitoringConfig",
            "/instanceConfig/keyField",
            "/instanceConfig/includedFields",
            "/instanceConfig/excludedFields",
        ],
    )?;
    let named = text(&asked, "/model").ok_or_else(|| wrong("`model` is missing"))?;
    let (endpoint, version) = model(named)?;
    Target::of(&app, &endpoint, version)?.check_version(&app)?;
    let sources = asked
        .pointer("/inputConfig/gcsSource/uris")
        .and_then(Value::as_array);
    let inputs = sources.into_iter().flatten().filter_map(Value::as_str);
    let inputs: Vec<String> = inputs.map(str::to_owned).collect();
    if text(&asked, "/outputConfig/predictionsFormat") != Some("jsonl") {
        return Err(wrong(format!(
            "`outputConfig.predictionsFormat` is `{}`, and `jsonl` is written here",
            text(&asked, "/outputConfig/predictionsFormat").unwrap_or_default()
        )));
    }
    let prefix = text(&asked, "/outputConfig/gcsDestination/outputUriPrefix")
        .ok_or_else(|| wrong("`outputConfig.gcsDestination.outputUriPrefix` is missing"))?;
    // As Google names it: the model, and the time with nothing in it that a path could stumble over.
    let at = app.now().to_string().replace(['-', ':', '.'], "_");
    let output = format!("{}/prediction-{endpoint}-{at}", prefix.trim_end_matches('/'));
    let size = asked
        .pointer("/manualBatchTuningParameters/batchSize")
        .and_then(Value::as_u64);
    let size = size.filter(|size| *size > 0).unwrap_or(BATCH.0);
    if size > BATCH.1 {
        return Err(wrong(format!(
            "`manualBatchTuningParameters.batchSize` is `{size}`, expected at most {}",
            BATCH.1
        )));
    }
    for input in &inputs {
        let begun = !input.ends_with('/');
        check_batch_place(&app, known.as_deref(), &caller, Need::Read, input, begun).await?;
    }
    check_batch_place(&app, known.as_deref(), &caller, Need::Update, &output, false).await?;
    let new = NewJob {
        name: None,
        endpoint,
        version,
        shape: Shape::Vertex(Vertex {
            inputs,
            instances: instances(&asked)?,
            output,
            batch_size: usize::try_from(size).unwrap_or(1),
            parameters: asked["modelParameters"].clone(),
        }),
        said: json!({ "project": parent.project, "location": parent.location, "asked": asked }),
    };
    Ok(Json(shown(&app.batch_jobs().submit(&caller, new).await?)))
}

fn state(view: &JobView) -> &'static str {
    match view.job.state {
        _ if view.is_stopping() => "JOB_STATE_CANCELLING",
        BatchState::Queued => "JOB_STATE_PENDING",
        BatchState::Running => "JOB_STATE_RUNNING",
        BatchState::Succeeded if count(view, "rows_failed") > 0 => "JOB_STATE_PARTIALLY_SUCCEEDED",
        BatchState::Succeeded => "JOB_STATE_SUCCEEDED",
        BatchState::Failed => "JOB_STATE_FAILED",
        BatchState::Cancelled => "JOB_STATE_CANCELLED",
    }
}

fn count(view: &JobView, what: &str) -> u64 {
    view.job.progress[what].as_u64().unwrap_or(0)
}

fn parent_of(view: &JobView) -> (&str, &str) {
    (
        text(&view.said, "/project").unwrap_or("-"),
        text(&view.said, "/location").unwrap_or("-"),
    )
}

/// A job in Google's shape; a number of 64 bits is a text there.
fn shown(view: &JobView) -> Value {
    let job = &view.job;
    let (project, location) = parent_of(view);
    let mut shown = match &view.said["asked"] {
        Value::Object(asked) => Value::Object(asked.clone()),
        _ => json!({}),
    };
    shown["name"] = json!(format!(
        "projects/{project}/locations/{location}/batchPredictionJobs/{}",
        job.id
    ));
    shown["state"] = json!(state(view));
    shown["createTime"] = json!(job.created_at);
    shown["updateTime"] = json!(job.updated_at);
    if let Some(begun) = job.started_at {
        shown["startTime"] = json!(begun);
    }
    if let Some(ended) = job.ended_at {
        shown["endTime"] = json!(ended);
    }
    if let Shape::Vertex(vertex) = &view.shape {
        shown["outputInfo"] = json!({ "gcsOutputDirectory": vertex.output });
    }
    let incomplete = if job.state == BatchState::Succeeded { 0 } else { -1 };
    shown["completionStats"] = json!({
        "successfulCount": count(view, "rows").to_string(),
        "failedCount": count(view, "rows_failed").to_string(),
        // How many there are is not known before all have been read.
        "incompleteCount": incomplete.to_string(),
    });
    if let Some(message) = job.error["message"].as_str() {
        shown["error"] = json!({ "code": 3, "message": message });
    }
    shown
}

async fn found(app: &App, path: &JobPath, id: &str) -> Result<JobView, ApiError> {
    let none = || ApiError::not_found("not_found", format!("there is no batch prediction job `{id}`"));
    let view = app.batch_jobs().get(id).await?;
    let here = parent_of(&view) == (path.project.as_str(), path.location.as_str());
    if view.job.kind != BatchKind::Vertex || !here {
        return Err(none());
    }
    Ok(view)
}

/// `GET …/batchPredictionJobs/{id}`
pub(crate) async fn get(State(app): State<App>, Path(path): Path<JobPath>) -> Answer {
    Ok(Json(shown(&found(&app, &path, &path.call).await?)))
}

/// `POST …/batchPredictionJobs/{id}:cancel`
pub(crate) async fn call(State(app): State<App>, Path(path): Path<JobPath>) -> Answer {
    let Some((id, "cancel")) = path.call.rsplit_once(':') else {
        return Err(ApiError::not_found(
            "unknown_route",
            format!(
                "`{}` is no call of a batch prediction job: expected `ID:cancel`",
                path.call
            ),
        ));
    };
    let view = found(&app, &path, id).await?;
    app.batch_jobs().stop(&view.job.id).await?;
    Ok(Json(json!({})))
}

/// `DELETE …/batchPredictionJobs/{id}`: an operation that is over.
pub(crate) async fn delete(State(app): State<App>, Path(path): Path<JobPath>) -> Answer {
    let view = found(&app, &path, &path.call).await?;
    app.batch_jobs().delete(&view.job.id).await?;
    let JobPath {
        project, location, ..
    } = &path;
    Ok(Json(json!({
        "name": format!("projects/{project}/locations/{location}/operations/{}", view.job.id),
        "done": true,
        "response": { "@type": "type.googleapis.com/google.protobuf.Empty" },
    })))
}

/// Of a filter such as `state="JOB_STATE_FAILED" AND displayName="x"` the fields and what they have to be.
fn conditions(filter: &str) -> Result<Vec<(String, String)>, ApiError> {
    let mut wanted = Vec::new();
    for part in filter
        .split(" AND ")
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (field, value) = part.split_once('=').unwrap_or((part, ""));
        let field = match field.trim() {
            "displayName" | "display_name" => "displayName",
            "state" => "state",
            other => {
                return Err(wrong(format!(
                    "`filter` asks for `{other}`, and `state=` and `displayName=` are known here"
                )));
            }
        };
        wanted.push((field.to_owned(), value.trim().trim_matches('"').to_owned()));
    }
    Ok(wanted)
}

/// `GET …/batchPredictionJobs`, newest first
pub(crate) async fn list(
    State(app): State<App>,
    Path(parent): Path<Parent>,
    Params(query): Params<BTreeMap<String, String>>,
) -> Answer {
    let size = match query.get("pageSize").map(|size| size.parse::<usize>()) {
        None | Some(Ok(0)) => PAGE,
        Some(Ok(size)) => size.min(PAGE),
        Some(Err(_)) => return Err(wrong("`pageSize` is no whole number")),
    };
    let wanted = conditions(query.get("filter").map_or("", String::as_str))?;
    let before = query.get("pageToken").filter(|token| !token.is_empty()).cloned();
    let views = app
        .batch_jobs()
        .list(Some(BatchKind::Vertex), before, ListQuery::MAX_LIMIT)
        .await?;
    let here = views
        .iter()
        .filter(|view| parent_of(view) == (parent.project.as_str(), parent.location.as_str()));
    let mut jobs: Vec<(&str, Value)> = here.map(|view| (view.job.id.as_str(), shown(view))).collect();
    jobs.retain(|(_, job)| wanted.iter().all(|(field, value)| job[field] == *value));
    let more = jobs.len() > size;
    jobs.truncate(size);
    let mut answer = json!({ "batchPredictionJobs": jobs.iter().map(|(_, job)| job).collect::<Vec<_>>() });
    if let Some((id, _)) = jobs.last().filter(|_| more) {
        answer["nextPageToken"] = json!(id);
    }
    Ok(Json(answer))
}
