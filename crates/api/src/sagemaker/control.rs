//! `SageMaker`'s control plane as far as batch transform needs it, as `boto3.client("sagemaker", endpoint_url=…)` speaks it: JSON 1.1, the
//! call in `X-Amz-Target`. A model's name is an endpoint or a deployment here.
//! <https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTransformJob.html>

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tidemill_control::batch::{JobView, NewJob, Shape, Transform};
use tidemill_control::tracking::Caller;
use tidemill_control::users::{Need, Principal};
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::EndpointName;
use tidemill_store::batch_jobs::{BatchKind, BatchState};

use super::text;
use crate::auth::{Caller as Known, check_batch_place};
use crate::control_plane::{App, ListQuery, Noun};
use crate::error::{ApiError, Kind};
use crate::extract::{Body, parse_json};
use crate::infer::Target;
use crate::mlflow::tracking::Called;

/// Where requests to `/` with a target of `SageMaker`'s are led.
pub(crate) const PATH: &str = "/sagemaker/control";
/// What such a target begins with.
pub(crate) const TARGET: &str = "SageMaker.";
/// The header that names the call.
pub(crate) const TARGET_HEADER: &str = "x-amz-target";

/// The account in names that nobody looks up.
const ACCOUNT: &str = "000000000000";
/// `MaxPayloadInMB` where nothing is said.
const PAYLOAD_MB: u64 = 6;
/// The longest reason of a failure.
const REASON: usize = 1_024;

/// `POST /`, by its `X-Amz-Target`
pub(crate) async fn call(
    State(app): State<App>,
    Called(caller): Called,
    Known(known): Known,
    headers: HeaderMap,
    Body(bytes): Body,
) -> Result<Response, ApiError> {
    let target = text(&headers, TARGET_HEADER).unwrap_or_default();
    let region = region(&headers);
    let asked: Value = parse_json(&bytes)?;
    let answer = match target.strip_prefix(TARGET).unwrap_or_default() {
        "CreateTransformJob" => create(&app, &caller, known.as_deref(), &region, asked).await?,
        "DescribeTransformJob" => describe(&app, &region, asked).await?,
        "ListTransformJobs" => list(&app, &region, asked).await?,
        "StopTransformJob" => stop(&app, asked).await?,
        "CreateModel" => create_model(&app, &region, asked)?,
        "DescribeModel" => describe_model(&app, &region, asked).await?,
        _ => {
            return Err(ApiError {
                kind: Kind::NotImplemented,
                ..ApiError::bad_request(
                    "not_implemented",
                    format!(
                        "`{target}` is not answered here: of SageMaker's control plane there are transform jobs, `CreateModel` and \
                         `DescribeModel`"
                    ),
                )
            });
        }
    };
    let mut response = Json(answer).into_response();
    let kind = HeaderValue::from_static("application/x-amz-json-1.1");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// The region in the scope of a signature.
fn region(headers: &HeaderMap) -> String {
    let scope =
        text(headers, header::AUTHORIZATION.as_str()).and_then(|value| value.split("Credential=").nth(1));
    let region = scope.and_then(|scope| scope.split('/').nth(2));
    let fits = |region: &&str| region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    region.filter(fits).unwrap_or("local").to_owned()
}

fn arn(region: &str, noun: &str, name: &str) -> String {
    format!("arn:aws:sagemaker:{region}:{ACCOUNT}:{noun}/{name}")
}

fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::bad_request("bad_batch_job", message)
}

fn read<T: DeserializeOwned>(asked: Value) -> Result<T, ApiError> {
    serde_json::from_value(asked)
        .map_err(|error| wrong(format!("the request is not as its model says: {error}")))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Create {
    transform_job_name: String,
    model_name: EndpointName,
    #[serde(default)]
    max_concurrent_transforms: u32,
    #[serde(default)]
    model_client_config: ClientConfig,
    #[serde(rename = "MaxPayloadInMB")]
    max_payload_in_mb: Option<u64>,
    batch_strategy: Option<String>,
    #[serde(default)]
    environment: Map<String, Value>,
    transform_input: Input,
    transform_output: Output,
    #[serde(default)]
    data_capture_config: Value,
    #[serde(default)]
    data_processing: Processing,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct ClientConfig {
    invocations_timeout_in_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    data_source: DataSource,
    #[serde(default)]
    content_type: String,
    compression_type: Option<String>,
    split_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DataSource {
    #[serde(rename = "S3DataSource")]
    s3: S3DataSource,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct S3DataSource {
    #[serde(rename = "S3DataType")]
    kind: String,
    #[serde(rename = "S3Uri")]
    uri: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    #[serde(rename = "S3OutputPath")]
    path: String,
    #[serde(default)]
    accept: String,
    assemble_with: Option<String>,
    #[serde(default)]
    kms_key_id: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Processing {
    input_filter: Option<String>,
    output_filter: Option<String>,
    join_source: Option<String>,
}

/// Which of two words a field says; the first where nothing is said.
fn one_of(field: &str, said: Option<&str>, words: [&str; 2]) -> Result<bool, ApiError> {
    match said {
        None => Ok(false),
        Some(word) if word == words[0] => Ok(false),
        Some(word) if word == words[1] => Ok(true),
        Some(other) => Err(wrong(format!(
            "`{field}` is `{other}`, and `{}` and `{}` are done here",
            words[0], words[1]
        ))),
    }
}

impl Create {
    fn shape(&self) -> Result<Transform, ApiError> {
        let (input, output) = (&self.transform_input, &self.transform_output);
        if input.data_source.s3.kind != "S3Prefix" {
            return Err(wrong(format!(
                "`S3DataType` is `{}`, and `S3Prefix` is read here",
                input.data_source.s3.kind
            )));
        }
        if input
            .compression_type
            .as_deref()
            .is_some_and(|kind| kind != "None")
        {
            return Err(wrong(
                "`CompressionType` is `Gzip`: files are read as they are here",
            ));
        }
        if !self.environment.is_empty() {
            return Err(wrong(
                "`Environment` is set: a job asks a model that runs already, whose variables are those that it was deployed with",
            ));
        }
        if !output.kms_key_id.is_empty() || !self.data_capture_config.is_null() {
            return Err(wrong("`KmsKeyId` and `DataCaptureConfig` are not known here"));
        }
        let split_lines = one_of("SplitType", input.split_type.as_deref(), ["None", "Line"])?;
        let one_record = one_of(
            "BatchStrategy",
            self.batch_strategy.as_deref(),
            ["MultiRecord", "SingleRecord"],
        )?;
        if !split_lines && self.batch_strategy.as_deref() == Some("MultiRecord") {
            return Err(wrong(
                "`BatchStrategy` is `MultiRecord`, so `SplitType` has to be `Line`",
            ));
        }
        let whole = || "$".to_owned();
        Ok(Transform {
            input: input.data_source.s3.uri.clone(),
            output: output.path.clone(),
            content_type: input.content_type.clone(),
            accept: output.accept.clone(),
            split_lines,
            one_record,
            assemble_lines: one_of("AssembleWith", output.assemble_with.as_deref(), ["None", "Line"])?,
            max_payload: self
                .max_payload_in_mb
                .unwrap_or(PAYLOAD_MB)
                .saturating_mul(1 << 20),
            at_once: self.max_concurrent_transforms.max(1),
            input_filter: self.data_processing.input_filter.clone().unwrap_or_else(whole),
            output_filter: self.data_processing.output_filter.clone().unwrap_or_else(whole),
            join: one_of(
                "JoinSource",
                self.data_processing.join_source.as_deref(),
                ["None", "Input"],
            )?,
            timeout_s: self.model_client_config.invocations_timeout_in_seconds,
        })
    }
}

async fn create(
    app: &App,
    caller: &Caller,
    known: Option<&Principal>,
    region: &str,
    asked: Value,
) -> Result<Value, ApiError> {
    let create: Create = read(asked.clone())?;
    let name = create.transform_job_name.clone();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if name.is_empty() || name.len() > 63 || !name.chars().all(fits) {
        return Err(wrong(format!(
            "`TransformJobName` is `{name}`, expected at most 63 letters, digits and `-`"
        )));
    }
    // Whether there is such a model.
    Target::of(app, &create.model_name, None)?;
    let shape = create.shape()?;
    let begun = !shape.input.ends_with('/');
    check_batch_place(app, known, caller, Need::Read, &shape.input, begun).await?;
    check_batch_place(app, known, caller, Need::Update, &shape.output, false).await?;
    let new = NewJob {
        name: Some(name.clone()),
        endpoint: create.model_name.clone(),
        version: None,
        shape: Shape::Transform(shape),
        said: asked,
    };
    app.batch_jobs().submit(caller, new).await?;
    Ok(json!({ "TransformJobArn": arn(region, "transform-job", &name) }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    transform_job_name: String,
}

async fn found(app: &App, asked: Value) -> Result<JobView, ApiError> {
    let Named { transform_job_name } = read(asked)?;
    let found = app
        .batch_jobs()
        .by_name(BatchKind::Transform, &transform_job_name)
        .await?;
    found.ok_or_else(|| {
        ApiError::not_found(
            "not_found",
            format!("there is no transform job `{transform_job_name}`"),
        )
    })
}

fn status(view: &JobView) -> &'static str {
    match view.job.state {
        _ if view.is_stopping() => "Stopping",
        BatchState::Queued | BatchState::Running => "InProgress",
        BatchState::Succeeded => "Completed",
        BatchState::Failed => "Failed",
        BatchState::Cancelled => "Stopped",
    }
}

fn seconds(at: Timestamp) -> Value {
    json!(at.as_millis() as f64 / 1e3)
}

/// What a list and a single answer say alike.
fn summary(region: &str, view: &JobView) -> Map<String, Value> {
    let job = &view.job;
    let mut said = Map::new();
    said.insert("TransformJobName".to_owned(), json!(job.name));
    said.insert(
        "TransformJobArn".to_owned(),
        json!(arn(region, "transform-job", &job.name)),
    );
    said.insert("TransformJobStatus".to_owned(), json!(status(view)));
    said.insert("CreationTime".to_owned(), seconds(job.created_at));
    if let Some(ended) = job.ended_at {
        said.insert("TransformEndTime".to_owned(), seconds(ended));
    }
    if let Some(message) = job.error["message"].as_str() {
        let reason: String = message.chars().take(REASON).collect();
        said.insert("FailureReason".to_owned(), json!(reason));
    }
    said
}

async fn describe(app: &App, region: &str, asked: Value) -> Result<Value, ApiError> {
    let view = found(app, asked).await?;
    let mut said = summary(region, &view);
    if let Some(begun) = view.job.started_at {
        said.insert("TransformStartTime".to_owned(), seconds(begun));
    }
    if let Value::Object(asked) = view.said {
        for (key, value) in asked {
            if key != "Tags" {
                said.entry(key).or_insert(value);
            }
        }
    }
    Ok(Value::Object(said))
}

async fn stop(app: &App, asked: Value) -> Result<Value, ApiError> {
    let view = found(app, asked).await?;
    if view.job.state.is_final() {
        return Err(wrong(format!(
            "the transform job `{}` has the status `{}`, so it cannot be stopped",
            view.job.name,
            status(&view)
        )));
    }
    app.batch_jobs().stop(&view.job.id).await?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct List {
    creation_time_after: Option<f64>,
    creation_time_before: Option<f64>,
    last_modified_time_after: Option<f64>,
    last_modified_time_before: Option<f64>,
    name_contains: Option<String>,
    status_equals: Option<String>,
    sort_by: Option<String>,
    sort_order: Option<String>,
    next_token: Option<String>,
    max_results: Option<usize>,
}

impl List {
    fn wants(&self, view: &JobView) -> bool {
        let within = |at: Timestamp, after: Option<f64>, before: Option<f64>| {
            let at = at.as_millis() as f64 / 1e3;
            after.is_none_or(|after| at > after) && before.is_none_or(|before| at < before)
        };
        let job = &view.job;
        within(
            job.created_at,
            self.creation_time_after,
            self.creation_time_before,
        ) && within(
            job.updated_at,
            self.last_modified_time_after,
            self.last_modified_time_before,
        ) && self
            .name_contains
            .as_ref()
            .is_none_or(|part| job.name.contains(part.as_str()))
            && self
                .status_equals
                .as_ref()
                .is_none_or(|word| word == status(view))
    }
}

async fn list(app: &App, region: &str, asked: Value) -> Result<Value, ApiError> {
    let list: List = read(asked)?;
    let mut views = app
        .batch_jobs()
        .list(Some(BatchKind::Transform), None, ListQuery::MAX_LIMIT)
        .await?;
    views.retain(|view| list.wants(view));
    match list.sort_by.as_deref().unwrap_or("CreationTime") {
        "Name" => views.sort_by(|a, b| a.job.name.cmp(&b.job.name)),
        "Status" => views.sort_by_key(status),
        "CreationTime" => {
            views.sort_by(|a, b| (a.job.created_at, &a.job.id).cmp(&(b.job.created_at, &b.job.id)));
        }
        other => {
            return Err(wrong(format!(
                "`SortBy` is `{other}`, expected `Name`, `CreationTime` or `Status`"
            )));
        }
    }
    match list.sort_order.as_deref().unwrap_or("Descending") {
        "Ascending" => {}
        "Descending" => views.reverse(),
        other => {
            return Err(wrong(format!(
                "`SortOrder` is `{other}`, expected `Ascending` or `Descending`"
            )));
        }
    }
    let from: usize = match &list.next_token {
        None => 0,
        Some(token) => token
            .parse()
            .map_err(|_| wrong(format!("`NextToken` is `{token}`, which no list gave")))?,
    };
    let until = (from + list.max_results.unwrap_or(10).clamp(1, 100)).min(views.len());
    let page = views.get(from..until).unwrap_or_default();
    let summaries: Vec<Value> = page
        .iter()
        .map(|view| {
            let mut said = summary(region, view);
            said.insert("LastModifiedTime".to_owned(), seconds(view.job.updated_at));
            Value::Object(said)
        })
        .collect();
    let mut answer = json!({ "TransformJobSummaries": summaries });
    if until < views.len() {
        answer["NextToken"] = json!(until.to_string());
    }
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Model {
    model_name: EndpointName,
}

/// A model is there once it is deployed; its container runs here already.
fn create_model(app: &App, region: &str, asked: Value) -> Result<Value, ApiError> {
    let Model { model_name } = read(asked)?;
    Target::of(app, &model_name, None).map_err(|error| {
        wrong(format!(
            "{}; a model of this server is an endpoint or a deployment, so deploy it first (`tidemill deploy`)",
            error.message
        ))
    })?;
    Ok(json!({ "ModelArn": arn(region, "model", model_name.as_str()) }))
}

async fn describe_model(app: &App, region: &str, asked: Value) -> Result<Value, ApiError> {
    let Model { model_name: name } = read(asked)?;
    let target = Target::of(app, &name, None)?;
    let created = match target {
        Target::Hosted(_) => {
            let view = app.deployments().get(&name).await?;
            view.versions.first().map(|version| version.created_at)
        }
        Target::Table(_) => {
            let row = app.get(Noun::Endpoints, name.as_str()).await.unwrap_or_default();
            serde_json::from_value(row["created_at"].clone()).ok()
        }
    };
    Ok(json!({
        "ModelName": name,
        "ModelArn": arn(region, "model", name.as_str()),
        "CreationTime": seconds(created.unwrap_or_else(|| app.now())),
        "EnableNetworkIsolation": false,
    }))
}
