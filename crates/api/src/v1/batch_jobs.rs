//! Batch jobs: files are predicted into files, in the background.

use axum::Json as Written;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_control::batch::{JobView, NewJob, Shape};
use tidemill_control::users::Need;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::spec::DataFormat;
use tidemill_store::batch_jobs::BatchKind;

use super::Answer;
use crate::auth::{Caller as Known, check_batch_place};
use crate::control_plane::{App, ListQuery};
use crate::error::ApiError;
use crate::extract::{Json, Params};
use crate::infer::Target;
use crate::mlflow::tracking::Called;

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    endpoint: Option<EndpointName>,
    /// The same under the name that those who deploy models use.
    model: Option<EndpointName>,
    version: Option<VersionNumber>,
    input: String,
    output: String,
    format: Option<DataFormat>,
    part_rows: Option<usize>,
    name: Option<String>,
}

/// Which jobs are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Wanted {
    kind: Option<BatchKind>,
    after: Option<String>,
    limit: Option<u32>,
}

/// A job as it is shown.
fn shown(view: JobView) -> Value {
    let stopping = view.is_stopping();
    let job = view.job;
    let mut shown = json!({
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "endpoint": job.endpoint,
        "version": job.version,
        "state": job.state,
        "stopping": stopping,
        "attempt": job.attempt,
        "progress": job.progress,
        "error": job.error,
        "created_at": job.created_at,
        "created_by": job.created_by,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "updated_at": job.updated_at,
    });
    match serde_json::to_value(&view.shape) {
        Ok(Value::Object(mut shape)) => {
            shape.shift_remove("shape");
            for (key, value) in shape {
                if shown.get(&key).is_none() {
                    shown[key] = value;
                }
            }
        }
        // A shape is an object of plain values.
        _ => shown["input"] = Value::Null,
    }
    shown
}

/// `POST /api/v1/batch-jobs`
pub(crate) async fn create(
    State(app): State<App>,
    Called(caller): Called,
    Known(known): Known,
    Json(asked): Json<Asked>,
) -> Result<(StatusCode, Written<Value>), ApiError> {
    let endpoint = match (asked.endpoint, asked.model) {
        (Some(name), None) | (None, Some(name)) => name,
        (None, None) => match app.default_endpoint() {
            Some(name) => name,
            None => {
                return Err(ApiError::bad_request(
                    "bad_batch_job",
                    "`endpoint` is missing: name the endpoint or deployment that answers",
                )
                .with_details(json!({ "field": "endpoint" })));
            }
        },
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request(
                "bad_batch_job",
                "`endpoint` and `model` are two names for the same: send one of them",
            ));
        }
    };
    Target::of(&app, &endpoint, asked.version)?.check_version(&app)?;
    for (location, wanted) in [(&asked.input, Need::Read), (&asked.output, Need::Update)] {
        check_batch_place(&app, known.as_deref(), &caller, wanted, location, false).await?;
    }
    let new = NewJob {
        name: asked.name,
        endpoint,
        version: asked.version,
        shape: Shape::Rows {
            input: asked.input,
            output: asked.output,
            format: asked.format,
            part_rows: asked.part_rows,
        },
        said: Value::Null,
    };
    let view = app.batch_jobs().submit(&caller, new).await?;
    Ok((StatusCode::CREATED, Written(shown(view))))
}

/// `GET /api/v1/batch-jobs`, newest first
pub(crate) async fn list(State(app): State<App>, Params(wanted): Params<Wanted>) -> Answer {
    let limit = wanted.limit.unwrap_or(ListQuery::DEFAULT_LIMIT);
    if limit == 0 || limit > ListQuery::MAX_LIMIT {
        return Err(ApiError::bad_request(
            "bad_query",
            format!("`limit` is `{limit}`, expected 1 to {}", ListQuery::MAX_LIMIT),
        ));
    }
    let found = app.batch_jobs().list(wanted.kind, wanted.after, limit).await?;
    let items: Vec<Value> = found.into_iter().map(shown).collect();
    Ok(Written(json!({ "items": items })))
}

/// `GET /api/v1/batch-jobs/{id}`
pub(crate) async fn get(State(app): State<App>, Path(id): Path<String>) -> Answer {
    Ok(Written(shown(app.batch_jobs().get(&id).await?)))
}

/// `POST /api/v1/batch-jobs/{id}/cancel`
pub(crate) async fn cancel(State(app): State<App>, Path(id): Path<String>) -> Answer {
    Ok(Written(shown(app.batch_jobs().stop(&id).await?)))
}

/// `DELETE /api/v1/batch-jobs/{id}`
pub(crate) async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    app.batch_jobs().delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The schema of the body, for the OpenAPI document.
pub(crate) fn schema() -> (&'static str, Value) {
    let schema = json!({
        "type": "object",
        "required": ["input", "output"],
        "properties": {
            "endpoint": { "type": "string", "description": "The endpoint or deployment that answers; the project's own if none is named" },
            "model": { "type": "string", "description": "The same as `endpoint`" },
            "version": { "type": "integer", "description": "Of the endpoint; the one that answers if none is named" },
            "input": { "type": "string", "description": "A file, folder or glob below a folder of batch jobs, or a URI: `s3:`, `mlflow-artifacts:`, `runs:`, `gs:`, `file:`" },
            "output": { "type": "string", "description": "An empty folder, likewise" },
            "format": { "type": "string", "enum": ["parquet", "csv", "jsonl"] },
            "part_rows": { "type": "integer", "minimum": 1, "maximum": 1_000_000 },
            "name": { "type": "string", "description": "Once among the jobs" },
        },
    });
    ("BatchJob", schema)
}
