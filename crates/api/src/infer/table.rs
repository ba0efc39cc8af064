//! What an endpoint of the loop takes and gives, in tensors.

use bytes::Bytes;
use tidemill_core::frame::{Scores, Task};
use tidemill_core::ids::PredictionId;
use tidemill_core::tensors::{DataType, Tensor, TensorData, TensorSpec};
use tidemill_serving::{InferResponse, Route};

use super::ask::no_output;
use super::tensors::datatype_of;
use super::{any_degraded, labels};
use crate::error::ApiError;

/// The name of the output that carries the answer itself.
pub(crate) fn answer_name(task: Task) -> &'static str {
    match task {
        Task::Binary => "probability",
        Task::Multiclass => "probabilities",
        Task::Regression => "prediction",
    }
}

/// The outputs that are always there: name, datatype.
fn always(task: Task) -> Vec<(&'static str, DataType)> {
    let mut outputs = vec![(answer_name(task), DataType::Fp64)];
    if task == Task::Multiclass {
        outputs.push(("label", DataType::Bytes));
    }
    outputs.extend([
        ("prediction_id", DataType::Bytes),
        ("model_version", DataType::Int32),
        ("role", DataType::Bytes),
    ]);
    outputs
}

/// One tensor a feature.
pub(crate) fn inputs(route: &Route) -> Vec<TensorSpec> {
    let features = route.schema.features.iter();
    features
        .map(|feature| TensorSpec::new(&feature.name, datatype_of(feature.kind), vec![-1]))
        .collect()
}

/// The outputs as metadata shows them.
pub(crate) fn outputs(route: &Route) -> Vec<TensorSpec> {
    let describe = |(name, datatype): (&str, DataType)| {
        let mut spec = TensorSpec::new(name, datatype, vec![-1]);
        if name == "probabilities" {
            spec.shape.push(route.classes.len() as i64);
            spec.labels = route.classes.to_vec();
        }
        spec
    };
    always(route.task).into_iter().map(describe).collect()
}

/// Refuses outputs that there are not.
pub(crate) fn check_requested<'n>(
    names: impl IntoIterator<Item = &'n str>,
    task: Task,
) -> Result<(), ApiError> {
    let mut names = names.into_iter().peekable();
    if names.peek().is_none() {
        return Ok(());
    }
    let outputs = always(task).into_iter().map(|(name, _)| name);
    let known: Vec<&str> = outputs.chain(["degraded"]).collect();
    match names.find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(unknown) => Err(no_output(unknown, &known)),
    }
}

/// The whole answer as tensors.
pub(crate) fn tensors(response: &InferResponse) -> Vec<Tensor> {
    let rows = response.ids.len();
    let texts = |name: &str, texts: &mut dyn Iterator<Item = &str>| Tensor {
        name: name.to_owned(),
        datatype: DataType::Bytes,
        shape: vec![rows],
        data: TensorData::Strings(
            texts
                .map(|text| Some(Bytes::copy_from_slice(text.as_bytes())))
                .collect(),
        ),
    };
    let scores: Vec<u8> = response
        .scores
        .values()
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let versions: Vec<u8> = response
        .versions
        .iter()
        .flat_map(|version| (version.0 as i32).to_le_bytes())
        .collect();
    let mut shape = vec![rows];
    if let Scores::Multiclass { classes, .. } = &response.scores {
        shape.push(classes.len());
    }
    let mut outputs = vec![Tensor {
        name: answer_name(response.scores.task()).to_owned(),
        datatype: DataType::Fp64,
        shape,
        data: TensorData::Fixed(scores.into()),
    }];
    if let Some(labels) = labels(&response.scores) {
        outputs.push(texts(
            "label",
            &mut labels.iter().map(|label| label.unwrap_or_default()),
        ));
    }
    outputs.push(texts(
        "prediction_id",
        &mut response.ids.iter().map(PredictionId::as_str),
    ));
    outputs.push(Tensor {
        name: "model_version".to_owned(),
        datatype: DataType::Int32,
        shape: vec![rows],
        data: TensorData::Fixed(versions.into()),
    });
    outputs.push(texts("role", &mut response.roles.iter().map(|role| role.name())));
    if any_degraded(response) {
        // A tensor of texts holds no null: the empty text says that nothing went wrong.
        let reasons = response.degraded.iter();
        outputs.push(texts(
            "degraded",
            &mut reasons.map(|d| d.as_deref().unwrap_or("")),
        ));
    }
    outputs
}
