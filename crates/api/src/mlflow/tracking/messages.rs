//! Runs, experiments and metrics as MLflow's messages: what is unset is left out, whole numbers are numbers, NaN is a text.

use serde::{Serialize, Serializer};
use tidemill_store::tracking::datasets::{DatasetInput, DatasetSummary, InputTag};
use tidemill_store::tracking::experiments::Experiment;
use tidemill_store::tracking::metrics::{Metric, Point};
use tidemill_store::tracking::runs::{ModelOutput, RunHead, TrackedRun};

/// A key with its value: a parameter or a tag.
#[derive(Serialize)]
pub(crate) struct Pair<'a> {
    key: &'a str,
    value: &'a str,
}

pub(crate) fn pairs(pairs: &[(String, String)]) -> Vec<Pair<'_>> {
    pairs.iter().map(|(key, value)| Pair { key, value }).collect()
}

/// An experiment.
#[derive(Serialize)]
pub(crate) struct ExperimentMessage<'a> {
    experiment_id: String,
    name: &'a str,
    artifact_location: &'a str,
    lifecycle_stage: &'static str,
    last_update_time: i64,
    creation_time: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Pair<'a>>,
    workspace: &'a str,
}

pub(crate) fn experiment(experiment: &Experiment) -> ExperimentMessage<'_> {
    ExperimentMessage {
        experiment_id: experiment.id.to_string(),
        name: &experiment.name,
        artifact_location: &experiment.artifact_location,
        lifecycle_stage: experiment.lifecycle.as_str(),
        last_update_time: experiment.updated_ms,
        creation_time: experiment.created_ms,
        tags: pairs(&experiment.tags),
        workspace: &experiment.workspace,
    }
}

/// A run's head.
#[derive(Serialize)]
pub(crate) struct RunInfoMessage<'a> {
    run_id: &'a str,
    run_uuid: &'a str,
    run_name: &'a str,
    experiment_id: String,
    user_id: &'a str,
    status: &'static str,
    start_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<i64>,
    artifact_uri: &'a str,
    lifecycle_stage: &'static str,
}

pub(crate) fn run_info(head: &RunHead) -> RunInfoMessage<'_> {
    RunInfoMessage {
        run_id: &head.run_id,
        run_uuid: &head.run_id,
        run_name: &head.name,
        experiment_id: head.experiment.to_string(),
        user_id: &head.user_id,
        status: head.status.as_str(),
        start_time: head.start_ms,
        end_time: head.end_ms.filter(|end| *end != 0),
        artifact_uri: &head.artifact_uri,
        lifecycle_stage: head.lifecycle.as_str(),
    }
}

/// A whole run.
#[derive(Serialize)]
pub(crate) struct RunMessage<'a> {
    info: RunInfoMessage<'a>,
    data: RunDataMessage<'a>,
    inputs: RunInputsMessage<'a>,
    outputs: RunOutputsMessage<'a>,
}

#[derive(Serialize)]
struct RunDataMessage<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metrics: Vec<MetricMessage<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    params: Vec<Pair<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Pair<'a>>,
}

#[derive(Serialize)]
struct RunInputsMessage<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dataset_inputs: Vec<DatasetInputMessage<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    model_inputs: Vec<ModelInputMessage<'a>>,
}

#[derive(Serialize)]
struct RunOutputsMessage<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    model_outputs: Vec<ModelOutputMessage<'a>>,
}

#[derive(Serialize)]
struct ModelInputMessage<'a> {
    model_id: &'a str,
}

#[derive(Serialize)]
struct ModelOutputMessage<'a> {
    model_id: &'a str,
    step: i64,
}

pub(crate) fn run(run: &TrackedRun) -> RunMessage<'_> {
    RunMessage {
        info: run_info(&run.head),
        data: RunDataMessage {
            metrics: run.metrics.iter().map(metric).collect(),
            params: pairs(&run.params),
            tags: pairs(&run.tags),
        },
        inputs: RunInputsMessage {
            dataset_inputs: run.datasets.iter().map(dataset_input).collect(),
            model_inputs: run
                .model_inputs
                .iter()
                .map(|model_id| ModelInputMessage { model_id })
                .collect(),
        },
        outputs: RunOutputsMessage {
            model_outputs: run.model_outputs.iter().map(model_output).collect(),
        },
    }
}

fn model_output(output: &ModelOutput) -> ModelOutputMessage<'_> {
    ModelOutputMessage {
        model_id: &output.model_id,
        step: output.step,
    }
}

/// A dataset that a run read.
#[derive(Serialize)]
pub(crate) struct DatasetInputMessage<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [InputTag],
    dataset: DatasetMessage<'a>,
}

#[derive(Serialize)]
struct DatasetMessage<'a> {
    name: &'a str,
    digest: &'a str,
    source_type: &'a str,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
}

pub(crate) fn dataset_input(input: &DatasetInput) -> DatasetInputMessage<'_> {
    let dataset = &input.dataset;
    DatasetInputMessage {
        tags: &input.tags,
        dataset: DatasetMessage {
            name: &dataset.name,
            digest: &dataset.digest,
            source_type: &dataset.source_type,
            source: &dataset.source,
            schema: dataset.schema.as_deref().filter(|text| !text.is_empty()),
            profile: dataset.profile.as_deref().filter(|text| !text.is_empty()),
        },
    }
}

/// A dataset of an experiment in one context.
#[derive(Serialize)]
pub(crate) struct DatasetSummaryMessage<'a> {
    experiment_id: String,
    name: &'a str,
    digest: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a str>,
}

pub(crate) fn dataset_summary(summary: &DatasetSummary) -> DatasetSummaryMessage<'_> {
    DatasetSummaryMessage {
        experiment_id: summary.experiment.to_string(),
        name: &summary.name,
        digest: &summary.digest,
        context: summary.context.as_deref().filter(|text| !text.is_empty()),
    }
}

/// A point of a metric.
#[derive(Serialize)]
pub(crate) struct MetricMessage<'a> {
    key: &'a str,
    #[serde(serialize_with = "told")]
    value: f64,
    timestamp: i64,
    step: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<&'a str>,
}

pub(crate) fn metric(metric: &Metric) -> MetricMessage<'_> {
    point(&metric.key, &metric.point, None)
}

/// A point of the metric `key`, of a run where that has to be said.
pub(crate) fn point<'a>(key: &'a str, point: &Point, run_id: Option<&'a str>) -> MetricMessage<'a> {
    MetricMessage {
        key,
        value: point.told(),
        timestamp: point.at_ms,
        step: point.step,
        run_id,
    }
}

/// A number as protocol buffers' JSON writes it.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
pub(crate) fn told<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_nan() {
        serializer.serialize_str("NaN")
    } else if value.is_infinite() {
        serializer.serialize_str(if *value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        serializer.serialize_f64(*value)
    }
}
