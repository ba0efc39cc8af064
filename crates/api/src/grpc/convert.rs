//! Messages from and to what the rest of the crate knows.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tidemill_core::spec::VersionPolicy;
use tidemill_core::tensors::{DataType, TensorSpec};
use tidemill_serving::{DurationStatistics, VersionStatistics};

use super::proto;
use super::proto::infer_parameter::ParameterChoice;
use crate::error::ApiError;
use crate::infer::describe::Described;

type Parameters = HashMap<String, proto::InferParameter>;

/// Parameters as JSON has them.
pub(super) fn from_parameters(parameters: Parameters) -> Map<String, Value> {
    let value = |parameter: proto::InferParameter| match parameter.parameter_choice? {
        ParameterChoice::BoolParam(value) => Some(json!(value)),
        ParameterChoice::Int64Param(value) => Some(json!(value)),
        ParameterChoice::StringParam(value) => Some(json!(value)),
        ParameterChoice::DoubleParam(value) => Some(json!(value)),
        ParameterChoice::Uint64Param(value) => Some(json!(value)),
    };
    parameters
        .into_iter()
        .filter_map(|(name, parameter)| Some((name, value(parameter)?)))
        .collect()
}

/// Parameters as messages: what is none of their types travels as JSON text.
pub(super) fn to_parameters(parameters: Map<String, Value>) -> Parameters {
    let message = |value: Value| {
        let choice = match &value {
            Value::Bool(value) => ParameterChoice::BoolParam(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), _, _) => ParameterChoice::Int64Param(value),
                (None, Some(value), _) => ParameterChoice::Uint64Param(value),
                (None, None, value) => ParameterChoice::DoubleParam(value.unwrap_or(f64::NAN)),
            },
            Value::String(text) => ParameterChoice::StringParam(text.clone()),
            other => ParameterChoice::StringParam(other.to_string()),
        };
        proto::InferParameter {
            parameter_choice: Some(choice),
        }
    };
    parameters
        .into_iter()
        .map(|(name, value)| (name, message(value)))
        .collect()
}

/// The elements of a tensor that came as numbers or strings of the message, as bytes.
pub(super) fn raw_contents(
    name: &str,
    datatype: &str,
    contents: &proto::InferTensorContents,
) -> Result<Bytes, ApiError> {
    let Some(known) = DataType::named(datatype) else {
        // The reader of raw tensors says what is known.
        return Ok(Bytes::new());
    };
    let narrow = |value: i64, least: i64, most: i64| {
        if (least..=most).contains(&value) {
            return Ok(value);
        }
        Err(ApiError::bad_request(
            "bad_tensor",
            format!("input `{name}`: `{value}` does not fit {datatype}"),
        ))
    };
    let mut raw = Vec::new();
    match known {
        DataType::Bool => raw.extend(contents.bool_contents.iter().map(|&value| u8::from(value))),
        DataType::Int8 => {
            for &value in &contents.int_contents {
                raw.extend((narrow(value.into(), -128, 127)? as i8).to_le_bytes());
            }
        }
        DataType::Int16 => {
            for &value in &contents.int_contents {
                raw.extend((narrow(value.into(), -32_768, 32_767)? as i16).to_le_bytes());
            }
        }
        DataType::Int32 => raw.extend(contents.int_contents.iter().flat_map(|value| value.to_le_bytes())),
        DataType::Int64 => raw.extend(
            contents
                .int64_contents
                .iter()
                .flat_map(|value| value.to_le_bytes()),
        ),
        DataType::Uint8 => {
            for &value in &contents.uint_contents {
                raw.push(narrow(value.into(), 0, 255)? as u8);
            }
        }
        DataType::Uint16 => {
            for &value in &contents.uint_contents {
                raw.extend((narrow(value.into(), 0, 65_535)? as u16).to_le_bytes());
            }
        }
        DataType::Uint32 => raw.extend(
            contents
                .uint_contents
                .iter()
                .flat_map(|value| value.to_le_bytes()),
        ),
        DataType::Uint64 => {
            raw.extend(
                contents
                    .uint64_contents
                    .iter()
                    .flat_map(|value| value.to_le_bytes()),
            );
        }
        DataType::Fp32 => raw.extend(
            contents
                .fp32_contents
                .iter()
                .flat_map(|value| value.to_le_bytes()),
        ),
        DataType::Fp64 => raw.extend(
            contents
                .fp64_contents
                .iter()
                .flat_map(|value| value.to_le_bytes()),
        ),
        DataType::Bytes => {
            for string in &contents.bytes_contents {
                raw.extend((string.len() as u32).to_le_bytes());
                raw.extend_from_slice(string);
            }
        }
        DataType::Fp16 | DataType::Bf16 => {
            return Err(ApiError::bad_request(
                "bad_tensor",
                format!("input `{name}`: {datatype} has no typed contents; send `raw_input_contents`"),
            ));
        }
    }
    Ok(raw.into())
}

pub(super) fn metadata(model: Described) -> proto::ModelMetadataResponse {
    let tensors = |specs: Vec<TensorSpec>| {
        let tensor = |spec: TensorSpec| proto::model_metadata_response::TensorMetadata {
            name: spec.name,
            datatype: spec.datatype.name().to_owned(),
            shape: spec.shape,
        };
        specs.into_iter().map(tensor).collect()
    };
    proto::ModelMetadataResponse {
        name: model.name.to_string(),
        versions: model.versions.iter().map(ToString::to_string).collect(),
        platform: model.platform,
        inputs: tensors(model.inputs),
        outputs: tensors(model.outputs),
    }
}

fn data_type(datatype: DataType) -> i32 {
    let known = match datatype {
        DataType::Bool => proto::DataType::TypeBool,
        DataType::Uint8 => proto::DataType::TypeUint8,
        DataType::Uint16 => proto::DataType::TypeUint16,
        DataType::Uint32 => proto::DataType::TypeUint32,
        DataType::Uint64 => proto::DataType::TypeUint64,
        DataType::Int8 => proto::DataType::TypeInt8,
        DataType::Int16 => proto::DataType::TypeInt16,
        DataType::Int32 => proto::DataType::TypeInt32,
        DataType::Int64 => proto::DataType::TypeInt64,
        DataType::Fp16 => proto::DataType::TypeFp16,
        DataType::Bf16 => proto::DataType::TypeBf16,
        DataType::Fp32 => proto::DataType::TypeFp32,
        DataType::Fp64 => proto::DataType::TypeFp64,
        DataType::Bytes => proto::DataType::TypeString,
    };
    known.into()
}

pub(super) fn config(model: Described) -> proto::ModelConfig {
    use proto::model_version_policy::{All, Latest, PolicyChoice, Specific};
    let batch = usize::from(model.max_batch.is_some());
    let dims = |spec: &TensorSpec| spec.shape.get(batch..).unwrap_or_default().to_vec();
    let input = |spec: &TensorSpec| proto::ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype),
        dims: dims(spec),
        optional: spec.optional,
        ..proto::ModelInput::default()
    };
    let output = |spec: &TensorSpec| proto::ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype),
        dims: dims(spec),
        ..proto::ModelOutput::default()
    };
    let specific = |versions: Vec<i64>| PolicyChoice::Specific(Specific { versions });
    let policy = match model.spec.as_ref().map(|spec| &spec.versions) {
        Some(VersionPolicy::Latest(count)) => PolicyChoice::Latest(Latest { num_versions: *count }),
        Some(VersionPolicy::All) => PolicyChoice::All(All {}),
        Some(VersionPolicy::Specific(versions)) => {
            specific(versions.iter().map(|&version| version.into()).collect())
        }
        None => specific(model.versions.iter().map(|version| version.0.into()).collect()),
    };
    let mut config = proto::ModelConfig {
        name: model.name.to_string(),
        platform: model.platform.clone(),
        backend: model.platform.clone(),
        version_policy: Some(proto::ModelVersionPolicy {
            policy_choice: Some(policy),
        }),
        max_batch_size: model.max_batch.map_or(0, |batch| batch as i32),
        input: model.inputs.iter().map(input).collect(),
        output: model.outputs.iter().map(output).collect(),
        model_transaction_policy: Some(proto::ModelTransactionPolicy {
            decoupled: model.decoupled,
        }),
        ..proto::ModelConfig::default()
    };
    if let Some(spec) = &model.spec {
        config.instance_group = vec![proto::ModelInstanceGroup {
            name: format!("{}_0", model.name),
            kind: proto::model_instance_group::Kind::Cpu.into(),
            count: spec.scaling.max.max(spec.scaling.provisioned).max(1) as i32,
            ..proto::ModelInstanceGroup::default()
        }];
        config.response_cache = Some(proto::ModelResponseCache {
            enable: spec.cache.is_some(),
        });
        if let Some(batching) = spec.batching.as_ref().filter(|_| model.max_batch.is_some()) {
            let micros = |micros: i64| u64::try_from(micros).unwrap_or(0);
            let levels = spec.queue.priorities;
            let batching = proto::ModelDynamicBatching {
                preferred_batch_size: vec![batching.max_rows as i32],
                max_queue_delay_microseconds: micros(batching.max_delay.as_micros()),
                priority_levels: levels.into(),
                default_priority_level: levels.div_ceil(2).into(),
                default_queue_policy: Some(proto::ModelQueuePolicy {
                    timeout_action: proto::model_queue_policy::TimeoutAction::Reject.into(),
                    default_timeout_microseconds: spec
                        .queue
                        .max_wait
                        .map_or(0, |wait| micros(wait.as_micros())),
                    allow_timeout_override: true,
                    max_queue_size: spec.queue.max_requests,
                }),
                ..proto::ModelDynamicBatching::default()
            };
            config.scheduling_choice = Some(proto::model_config::SchedulingChoice::DynamicBatching(batching));
        }
    }
    config
}

pub(super) fn statistics(one: VersionStatistics) -> proto::ModelStatistics {
    let time = |duration: DurationStatistics| {
        Some(proto::StatisticDuration {
            count: duration.count,
            ns: duration.ns,
        })
    };
    let batches = one.batches.iter().map(|batch| proto::InferBatchStatistics {
        batch_size: batch.batch_size,
        compute_input: time(batch.compute_input),
        compute_infer: time(batch.compute_infer),
        compute_output: time(batch.compute_output),
    });
    let responses = one.responses.iter().enumerate().map(|(place, response)| {
        let parts = proto::InferResponseStatistics {
            compute_infer: time(response.compute_infer),
            compute_output: time(response.compute_output),
            success: time(response.success),
            fail: time(response.fail),
            empty_response: time(response.empty_response),
            cancel: time(response.cancel),
        };
        (place.to_string(), parts)
    });
    proto::ModelStatistics {
        name: one.name.to_string(),
        version: one.version.to_string(),
        last_inference: one.last_inference,
        inference_count: one.inference_count,
        execution_count: one.execution_count,
        inference_stats: Some(proto::InferStatistics {
            success: time(one.success),
            fail: time(one.fail),
            queue: time(one.queue),
            compute_input: time(one.compute_input),
            compute_infer: time(one.compute_infer),
            compute_output: time(one.compute_output),
            cache_hit: time(one.cache_hit),
            cache_miss: time(one.cache_miss),
        }),
        batch_stats: batches.collect(),
        response_stats: responses.collect(),
        ..proto::ModelStatistics::default()
    }
}
