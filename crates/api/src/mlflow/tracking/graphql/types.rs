//! The types of MLflow's GraphQL schema, each declared once, and how a message of the REST API is given in the shape that a query
//! selects. Fields are camelCase here and snake_case there; whole numbers are texts here; what is unset has its type's zero.

use graphql_parser::query::{Field, Selection, SelectionSet};
use serde_json::{Map, Value, json};

use super::Document;

/// What a field holds.
pub(super) enum Kind {
    Text,
    Long,
    Float,
    Bool,
    Texts,
    Object(&'static Type),
    List(&'static Type),
}

/// An object type.
pub(super) struct Type {
    pub name: &'static str,
    pub fields: &'static [(&'static str, Kind)],
}

use Kind::{Bool, Float, List, Long, Object, Text, Texts};

static PAIR: Type = Type {
    name: "MlflowRunTag",
    fields: &[("key", Text), ("value", Text)],
};
static EXPERIMENT: Type = Type {
    name: "MlflowExperiment",
    fields: &[
        ("experimentId", Text),
        ("name", Text),
        ("artifactLocation", Text),
        ("lifecycleStage", Text),
        ("lastUpdateTime", Long),
        ("creationTime", Long),
        ("tags", List(&PAIR)),
    ],
};
static METRIC: Type = Type {
    name: "MlflowMetric",
    fields: &[
        ("key", Text),
        ("value", Float),
        ("timestamp", Long),
        ("step", Long),
        ("datasetName", Text),
        ("datasetDigest", Text),
        ("modelId", Text),
        ("runId", Text),
    ],
};
static RUN_INFO: Type = Type {
    name: "MlflowRunInfo",
    fields: &[
        ("runId", Text),
        ("runUuid", Text),
        ("runName", Text),
        ("experimentId", Text),
        ("userId", Text),
        ("status", Text),
        ("startTime", Long),
        ("endTime", Long),
        ("artifactUri", Text),
        ("lifecycleStage", Text),
    ],
};
static RUN_DATA: Type = Type {
    name: "MlflowRunData",
    fields: &[
        ("metrics", List(&METRIC)),
        ("params", List(&PAIR)),
        ("tags", List(&PAIR)),
    ],
};
static DATASET: Type = Type {
    name: "MlflowDataset",
    fields: &[
        ("name", Text),
        ("digest", Text),
        ("sourceType", Text),
        ("source", Text),
        ("schema", Text),
        ("profile", Text),
    ],
};
static DATASET_INPUT: Type = Type {
    name: "MlflowDatasetInput",
    fields: &[("tags", List(&PAIR)), ("dataset", Object(&DATASET))],
};
static MODEL_INPUT: Type = Type {
    name: "MlflowModelInput",
    fields: &[("modelId", Text)],
};
static MODEL_OUTPUT: Type = Type {
    name: "MlflowModelOutput",
    fields: &[("modelId", Text), ("step", Long)],
};
static RUN_INPUTS: Type = Type {
    name: "MlflowRunInputs",
    fields: &[
        ("datasetInputs", List(&DATASET_INPUT)),
        ("modelInputs", List(&MODEL_INPUT)),
    ],
};
static RUN_OUTPUTS: Type = Type {
    name: "MlflowRunOutputs",
    fields: &[("modelOutputs", List(&MODEL_OUTPUT))],
};
static MODEL_PARAM: Type = Type {
    name: "MlflowModelParam",
    fields: &[("name", Text), ("value", Text)],
};
static MODEL_VERSION: Type = Type {
    name: "MlflowModelVersion",
    fields: &[
        ("name", Text),
        ("version", Text),
        ("creationTimestamp", Long),
        ("lastUpdatedTimestamp", Long),
        ("userId", Text),
        ("currentStage", Text),
        ("description", Text),
        ("source", Text),
        ("runId", Text),
        ("status", Text),
        ("statusMessage", Text),
        ("tags", List(&PAIR)),
        ("runLink", Text),
        ("aliases", Texts),
        ("modelId", Text),
        ("modelParams", List(&MODEL_PARAM)),
        ("modelMetrics", List(&METRIC)),
    ],
};
static RUN: Type = Type {
    name: "MlflowRun",
    fields: &[
        ("info", Object(&RUN_INFO)),
        ("data", Object(&RUN_DATA)),
        ("inputs", Object(&RUN_INPUTS)),
        ("outputs", Object(&RUN_OUTPUTS)),
        ("experiment", Object(&EXPERIMENT)),
        ("modelVersions", List(&MODEL_VERSION)),
    ],
};
static FILE: Type = Type {
    name: "MlflowFileInfo",
    fields: &[("path", Text), ("isDir", Bool), ("fileSize", Long)],
};
static DATASET_SUMMARY: Type = Type {
    name: "MlflowDatasetSummary",
    fields: &[
        ("experimentId", Text),
        ("name", Text),
        ("digest", Text),
        ("context", Text),
    ],
};

pub(super) static GET_EXPERIMENT: Type = Type {
    name: "MlflowGetExperimentResponse",
    fields: &[("experiment", Object(&EXPERIMENT))],
};
pub(super) static GET_RUN: Type = Type {
    name: "MlflowGetRunResponse",
    fields: &[("run", Object(&RUN))],
};
pub(super) static SEARCH_RUNS: Type = Type {
    name: "MlflowSearchRunsResponse",
    fields: &[("runs", List(&RUN)), ("nextPageToken", Text)],
};
pub(super) static METRIC_HISTORY: Type = Type {
    name: "MlflowGetMetricHistoryBulkIntervalResponse",
    fields: &[("metrics", List(&METRIC))],
};
pub(super) static LIST_ARTIFACTS: Type = Type {
    name: "MlflowListArtifactsResponse",
    fields: &[("rootUri", Text), ("files", List(&FILE)), ("nextPageToken", Text)],
};
pub(super) static SEARCH_MODEL_VERSIONS: Type = Type {
    name: "MlflowSearchModelVersionsResponse",
    fields: &[("modelVersions", List(&MODEL_VERSION)), ("nextPageToken", Text)],
};
pub(super) static SEARCH_DATASETS: Type = Type {
    name: "MlflowSearchDatasetsResponse",
    fields: &[("datasetSummaries", List(&DATASET_SUMMARY))],
};
pub(super) static ECHO: Type = Type {
    name: "Test",
    fields: &[("output", Text)],
};

/// camelCase to snake_case.
pub(super) fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

/// The fields that a selection names, those of its fragments included. A fragment counts once, so that none can go in circles.
pub(super) fn fields<'d>(
    document: &'d Document<'d>,
    set: &'d SelectionSet<'d, &'d str>,
) -> Vec<&'d Field<'d, &'d str>> {
    let (mut found, mut spread) = (Vec::new(), Vec::new());
    collect(document, set, &mut spread, &mut found);
    found
}

fn collect<'d>(
    document: &'d Document<'d>,
    set: &'d SelectionSet<'d, &'d str>,
    spread: &mut Vec<&'d str>,
    found: &mut Vec<&'d Field<'d, &'d str>>,
) {
    for selection in &set.items {
        match selection {
            Selection::Field(field) => found.push(field),
            Selection::InlineFragment(fragment) => collect(document, &fragment.selection_set, spread, found),
            Selection::FragmentSpread(named) => {
                let name = named.fragment_name;
                if let Some(fragment) = document.fragment(name)
                    && !spread.contains(&name)
                {
                    spread.push(name);
                    collect(document, &fragment.selection_set, spread, found);
                }
            }
        }
    }
}

/// A message in the shape that a query selects.
pub(super) fn project<'d>(
    document: &'d Document<'d>,
    set: &'d SelectionSet<'d, &'d str>,
    ty: &Type,
    message: &Value,
) -> Result<Value, String> {
    let mut shaped = Map::new();
    for field in fields(document, set) {
        let place = field.alias.unwrap_or(field.name).to_owned();
        if field.name == "__typename" {
            shaped.insert(place, json!(ty.name));
            continue;
        }
        // No error of ours comes inside of an answer: it is in the list of errors.
        if field.name == "apiError" {
            shaped.insert(place, Value::Null);
            continue;
        }
        let Some((_, kind)) = ty.fields.iter().find(|(name, _)| *name == field.name) else {
            return Err(format!(
                "Cannot query field '{}' on type '{}'.",
                field.name, ty.name
            ));
        };
        let held = message.get(snake(field.name)).unwrap_or(&Value::Null);
        let value = match kind {
            Text => match held {
                Value::String(text) => json!(text),
                Value::Null => json!(""),
                other => json!(other.to_string()),
            },
            Long => match held {
                Value::String(text) => json!(text),
                Value::Number(number) => json!(number.to_string()),
                _ => json!("0"),
            },
            // NaN is no number to GraphQL.
            Float => match held {
                Value::Number(number) => json!(number),
                Value::String(_) => Value::Null,
                _ => json!(0.0),
            },
            Bool => json!(held.as_bool().unwrap_or(false)),
            Texts => json!(held.as_array().cloned().unwrap_or_default()),
            Object(of) => project(document, &field.selection_set, of, held)?,
            List(of) => held
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default()
                .iter()
                .map(|item| project(document, &field.selection_set, of, item))
                .collect::<Result<Value, String>>()?,
        };
        shaped.insert(place, value);
    }
    Ok(Value::Object(shaped))
}
