//! Health, metadata, configuration and statistics.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};
use tidemill_core::spec::VersionPolicy;
use tidemill_core::tensors::{DataType, TensorSpec};
use tidemill_serving::{DurationStatistics, ResponseStatistics, VersionStatistics};

use super::ModelPath;
use crate::control_plane::App;
use crate::error::{ApiError, Kind};
use crate::infer::describe::{Described, describe, extensions, statistics};

/// `GET /v2`
pub(crate) async fn server(State(app): State<App>) -> Json<Value> {
    Json(json!({
        "name": "tidemill",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": extensions(&app),
    }))
}

/// `GET /v2/health/live`
pub(crate) async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// `GET /v2/health/ready`
pub(crate) async fn ready(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    if !app.ready() {
        return Err(ApiError::unavailable(
            "not_ready",
            "the server is starting or stopping; try again shortly",
        ));
    }
    Ok(Json(json!({ "ready": true })))
}

/// `GET /v2/models/{model}[/versions/{version}]`
pub(crate) async fn model(
    State(app): State<App>,
    Path(path): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let model = describe(&app, path.target(&app)?).await?;
    let versions: Vec<String> = model.versions.iter().map(ToString::to_string).collect();
    let tensors = |specs: &[TensorSpec]| -> Value {
        let tensor = |spec: &TensorSpec| json!({ "name": spec.name, "datatype": spec.datatype.name(), "shape": spec.shape });
        specs.iter().map(tensor).collect()
    };
    Ok(Json(json!({
        "name": model.name,
        "versions": versions,
        "platform": model.platform,
        "inputs": tensors(&model.inputs),
        "outputs": tensors(&model.outputs),
    })))
}

/// `GET /v2/models/{model}[/versions/{version}]/ready`
pub(crate) async fn model_ready(
    State(app): State<App>,
    Path(path): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let ready = path.target(&app).and_then(|target| target.check_ready(&app));
    match ready {
        Ok(()) => Ok(Json(json!({ "name": path.model, "ready": true }))),
        // Triton's status: what is not there is not ready, and nothing else is wrong with the question.
        Err(error) if error.kind == Kind::NotFound => Err(ApiError {
            kind: Kind::BadRequest,
            ..error
        }),
        Err(error) => Err(error),
    }
}

/// `GET /v2/models/{model}[/versions/{version}]/config`
pub(crate) async fn config(
    State(app): State<App>,
    Path(path): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let model = describe(&app, path.target(&app)?).await?;
    Ok(Json(config_of(&model)))
}

/// A configuration in the shape of Triton's.
fn config_of(model: &Described) -> Value {
    let batch = usize::from(model.max_batch.is_some());
    let inputs: Vec<Value> = model
        .inputs
        .iter()
        .map(|spec| {
            json!({
                "name": spec.name,
                "data_type": data_type(spec.datatype),
                "format": "FORMAT_NONE",
                "dims": spec.shape.get(batch..).unwrap_or_default(),
                "is_shape_tensor": false,
                "allow_ragged_batch": false,
                "optional": spec.optional,
            })
        })
        .collect();
    let outputs: Vec<Value> = model
        .outputs
        .iter()
        .map(|spec| {
            json!({
                "name": spec.name,
                "data_type": data_type(spec.datatype),
                "dims": spec.shape.get(batch..).unwrap_or_default(),
                "label_filename": "",
                "is_shape_tensor": false,
            })
        })
        .collect();
    let mut config = json!({
        "name": model.name,
        "platform": model.platform,
        "backend": model.platform,
        "version_policy": version_policy(model),
        "max_batch_size": model.max_batch.unwrap_or(0),
        "input": inputs,
        "output": outputs,
        "instance_group": [],
        "default_model_filename": "",
        "parameters": {},
        "model_transaction_policy": { "decoupled": model.decoupled },
    });
    if let Some(spec) = &model.spec {
        let name = format!("{}_0", model.name);
        let count = spec.scaling.max.max(spec.scaling.provisioned).max(1);
        config["instance_group"] = json!([{ "name": name, "kind": "KIND_CPU", "count": count, "gpus": [] }]);
        config["response_cache"] = json!({ "enable": spec.cache.is_some() });
        if let Some(batching) = spec.batching.as_ref().filter(|_| model.max_batch.is_some()) {
            config["dynamic_batching"] = json!({
                "preferred_batch_size": [batching.max_rows],
                "max_queue_delay_microseconds": batching.max_delay.as_micros().max(0),
                "preserve_ordering": false,
                "priority_levels": spec.queue.priorities,
                "default_priority_level": spec.queue.priorities.div_ceil(2),
                "default_queue_policy": {
                    "timeout_action": "REJECT",
                    "default_timeout_microseconds": spec.queue.max_wait.map_or(0, |wait| wait.as_micros().max(0)),
                    "allow_timeout_override": true,
                    "max_queue_size": spec.queue.max_requests,
                },
                "priority_queue_policy": {},
            });
        }
    }
    config
}

fn version_policy(model: &Described) -> Value {
    let policy = model.spec.as_ref().map(|spec| &spec.versions);
    match policy {
        Some(VersionPolicy::Latest(count)) => json!({ "latest": { "num_versions": count } }),
        Some(VersionPolicy::All) => json!({ "all": {} }),
        Some(VersionPolicy::Specific(versions)) => json!({ "specific": { "versions": versions } }),
        None => {
            let versions: Vec<u32> = model.versions.iter().map(|version| version.0).collect();
            json!({ "specific": { "versions": versions } })
        }
    }
}

/// Triton's name of a datatype in a configuration.
fn data_type(datatype: DataType) -> String {
    match datatype {
        DataType::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{}", other.name()),
    }
}

/// `GET /v2/models/{model}[/versions/{version}]/stats`
pub(crate) async fn stats(
    State(app): State<App>,
    Path(path): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let target = path.target(&app)?;
    Ok(Json(stats_of(&statistics(&app, Some(&target))?)))
}

/// `GET /v2/models/stats`
pub(crate) async fn all_stats(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    Ok(Json(stats_of(&statistics(&app, None)?)))
}

fn stats_of(all: &[VersionStatistics]) -> Value {
    let stats: Vec<Value> = all
        .iter()
        .map(|one| {
            let time = |duration: &DurationStatistics| json!({ "count": duration.count, "ns": duration.ns });
            let batches: Vec<Value> = one
                .batches
                .iter()
                .map(|batch| {
                    json!({
                        "batch_size": batch.batch_size,
                        "compute_input": time(&batch.compute_input),
                        "compute_infer": time(&batch.compute_infer),
                        "compute_output": time(&batch.compute_output),
                    })
                })
                .collect();
            let response = |(place, response): (usize, &ResponseStatistics)| {
                let parts = json!({
                    "compute_infer": time(&response.compute_infer),
                    "compute_output": time(&response.compute_output),
                    "success": time(&response.success),
                    "fail": time(&response.fail),
                    "empty_response": time(&response.empty_response),
                    "cancel": time(&response.cancel),
                });
                (place.to_string(), parts)
            };
            let responses: Map<String, Value> = one.responses.iter().enumerate().map(response).collect();
            json!({
                "name": one.name,
                "version": one.version.to_string(),
                "last_inference": one.last_inference,
                "inference_count": one.inference_count,
                "execution_count": one.execution_count,
                "inference_stats": {
                    "success": time(&one.success),
                    "fail": time(&one.fail),
                    "queue": time(&one.queue),
                    "compute_input": time(&one.compute_input),
                    "compute_infer": time(&one.compute_infer),
                    "compute_output": time(&one.compute_output),
                    "cache_hit": time(&one.cache_hit),
                    "cache_miss": time(&one.cache_miss),
                },
                "response_stats": responses,
                "batch_stats": batches,
                "memory_usage": [],
            })
        })
        .collect();
    json!({ "model_stats": stats })
}
