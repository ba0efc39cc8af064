//! Replay of a prediction: the very version that answered is asked again, and what it says is compared bit by bit.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidemill_core::calls::{CallRecord, Recorded, RecordedTensor, RecordedValues};
use tidemill_core::ids::{EndpointName, PredictionId, VersionNumber};
use tidemill_core::predictions::{PredictionBatch, Role};
use tidemill_core::servable::{CallContext, Payload};
use tidemill_core::tensors::DataType;
use tidemill_serving::Hosting;
use tidemill_store::{Store, deployments};

use super::view::{call_json, row_json};
use crate::context::Context;
use crate::delivery::bundles;
use crate::error::{ControlError, Result};

/// Differences that are told.
const MAX_DIFFERENCES: usize = 20;

/// What a prediction is when its model is asked again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// Which prediction.
    pub prediction_id: PredictionId,
    /// The endpoint or deployment whose version was asked again.
    pub endpoint: EndpointName,
    /// That version.
    pub version: VersionNumber,
    /// Whether both answers are the same, bit by bit (a number that is none is like any other).
    pub same: bool,
    /// Where they differ, the first of them.
    pub differences: Vec<String>,
    /// What has to be known to judge it: parts that were not recorded, a version whose bundle is not known.
    pub notes: Vec<String>,
    /// The answer that was recorded.
    pub recorded: Value,
    /// The answer now; an object with `error` if there is none.
    pub again: Value,
}

fn no_model<T>(id: &PredictionId, by: &str) -> Result<T> {
    Err(ControlError::Refused {
        code: "replay_no_model",
        message: format!(
            "prediction `{id}` was answered by {by}, not by a model: there is nothing to ask again"
        ),
    })
}

fn incomplete<T>(id: &PredictionId, what: &str) -> Result<T> {
    Err(ControlError::Refused {
        code: "replay_incomplete",
        message: format!(
            "prediction `{id}` cannot be replayed: {what}; a call is recorded whole if `log` redacts nothing of it and its `max_bytes` \
             is above the call's size"
        ),
    })
}

fn gone<T>(id: &PredictionId, what: &str) -> Result<T> {
    Err(ControlError::Refused {
        code: "replay_model_gone",
        message: format!("prediction `{id}` cannot be replayed: {what} is not here any more"),
    })
}

/// Asks the version that answered a row.
pub(crate) async fn of_row(ctx: &Context, batch: &PredictionBatch, row: usize) -> Result<Replay> {
    let (id, version) = (&batch.ids[row], batch.versions[row]);
    if matches!(batch.roles[row], Role::Default | Role::Abstained) || version == VersionNumber::DEFAULT {
        return no_model(id, "the endpoint's default, a rule or nobody");
    }
    let redacted = &ctx.spec.endpoint.log.redact;
    if !redacted.is_empty() {
        let names = redacted.join("`, `");
        return incomplete(id, &format!("its endpoint records no values of `{names}`"));
    }
    let model = match bundles::load_version(ctx, &ctx.model(), version).await {
        Ok(model) => model,
        Err(error) if error.code() == "not_found" => {
            return gone(id, &format!("version {version} of model `{}`", ctx.model()));
        }
        Err(error) => return Err(error),
    };
    let rows = batch.features.take(&[row]);
    let asked = tokio::task::spawn_blocking(move || model.predict(&rows));
    let again = asked.await.map_err(ControlError::internal)??;
    let (recorded, now) = (batch.scores.row(row), again.row(0));
    let mut differences = Vec::new();
    if recorded.len() != now.len() {
        differences.push(format!("{} numbers, {} were recorded", now.len(), recorded.len()));
    }
    for (place, (before, after)) in recorded.iter().zip(now).enumerate() {
        if before.to_bits() != after.to_bits() && !(before.is_nan() && after.is_nan()) {
            differences.push(format!(
                "score {place}: {before:?} was recorded, it is {after:?} now"
            ));
        }
    }
    Ok(Replay {
        prediction_id: id.clone(),
        endpoint: batch.endpoint.clone(),
        version,
        same: differences.is_empty(),
        differences,
        notes: Vec::new(),
        recorded: json!({ "scores": row_json(batch, row)["scores"] }),
        again: json!({ "scores": now }),
    })
}

/// Asks the version that answered a call.
pub(crate) async fn of_call(store: &Store, hosting: &Hosting, call: &CallRecord) -> Result<Replay> {
    let facts = &call.facts;
    let id = &facts.id;
    if facts.version == VersionNumber::DEFAULT {
        return no_model(id, "a fallback");
    }
    let Some(payload) = call.inputs.to_payload() else {
        return incomplete(id, "its inputs were not recorded whole");
    };
    let endpoint = facts.by.clone().unwrap_or_else(|| facts.endpoint.clone());
    let mut notes = Vec::new();
    check_bundle(store, hosting, call, &endpoint, &mut notes).await?;
    let parameters: Map<String, Value> = serde_json::from_str(&facts.parameters).unwrap_or_default();
    if parameters.values().any(Value::is_null) {
        notes.push("a parameter that is null may have been redacted".to_owned());
    }
    let pieces = match (facts.streamed, facts.cut_short) {
        (false, _) => None,
        (true, true) => Some(call.answers.len()),
        (true, false) => Some(usize::MAX),
    };
    let context = CallContext {
        request_id: facts.request_id.clone(),
        parameters,
        outputs: facts.outputs.clone(),
        key: facts.key.as_deref().map(Into::into),
        depth: facts.depth,
        ..CallContext::default()
    };
    let asked = hosting.ask_again(&endpoint, facts.version, payload, context, pieces);
    let mut differences = Vec::new();
    let again = match (asked.await, &facts.fault) {
        (Ok(answers), fault) => {
            if let Some(fault) = fault {
                differences.push(format!("it failed with `{}`, and answers now", fault.code));
            }
            compare(&call.answers, &answers, &mut differences, &mut notes);
            let shown = answers
                .iter()
                .map(|payload| Recorded::of(payload, &[], u64::MAX).to_json());
            Value::Array(shown.collect())
        }
        (Err(error), Some(fault)) => {
            if !fault.is(error.code(), &error.to_string()) {
                differences.push(format!(
                    "it failed with `{}`, and fails otherwise now",
                    fault.code
                ));
            }
            json!({ "error": { "code": error.code(), "message": error.to_string() } })
        }
        (Err(error), None) => {
            differences.push(format!("it was answered, and fails now: {error}"));
            json!({ "error": { "code": error.code(), "message": error.to_string() } })
        }
    };
    differences.truncate(MAX_DIFFERENCES);
    let shown = call_json(call);
    let recorded = if facts.fault.is_some() {
        json!({ "error": shown["error"] })
    } else {
        shown["answers"].clone()
    };
    Ok(Replay {
        prediction_id: id.clone(),
        endpoint,
        version: facts.version,
        same: differences.is_empty(),
        differences,
        notes,
        recorded,
        again,
    })
}

/// Whether the version that is there under that number is the one that answered: a name may have been used again since.
async fn check_bundle(
    store: &Store,
    hosting: &Hosting,
    call: &CallRecord,
    endpoint: &EndpointName,
    notes: &mut Vec<String>,
) -> Result<()> {
    let (id, version) = (&call.facts.id, call.facts.version);
    let missing = format!("version {version} of deployment `{endpoint}`");
    let Some(hosted) = hosting.bundle_of(endpoint, version) else {
        return gone(id, &missing);
    };
    let name = endpoint.clone();
    let stored = store.read(move |tx| deployments::versions(tx, &name)).await?;
    let stored = stored.into_iter().find(|stored| stored.version == version);
    let newer = stored.is_some_and(|stored| stored.created_at > call.facts.at);
    let other = call.facts.bundle.is_some() && hosted != call.facts.bundle;
    if newer || other {
        return gone(id, &format!("{missing} as it was then"));
    }
    if hosted.is_none() {
        notes.push("the version has no bundle, so it cannot be told whether it has changed since".to_owned());
    }
    Ok(())
}

fn compare(recorded: &[Recorded], again: &[Payload], differences: &mut Vec<String>, notes: &mut Vec<String>) {
    if recorded.len() != again.len() {
        differences.push(format!(
            "{} answers, {} were recorded",
            again.len(),
            recorded.len()
        ));
    }
    for (before, after) in recorded.iter().zip(again) {
        let after = Recorded::of(after, &[], u64::MAX);
        match (before, &after) {
            (Recorded::Omitted { .. }, _) => {
                notes.push("an answer was not recorded and is not compared".to_owned());
            }
            (Recorded::Body { redacted: true, .. }, _) => {
                notes.push("parts of an answer were not recorded; it is not compared".to_owned());
            }
            (Recorded::Tensors(before), Recorded::Tensors(after)) => {
                compare_tensors(before, after, differences, notes);
            }
            (before, after) if before != after => differences.push("another body".to_owned()),
            _ => {}
        }
    }
}

fn compare_tensors(
    before: &[RecordedTensor],
    after: &[RecordedTensor],
    differences: &mut Vec<String>,
    notes: &mut Vec<String>,
) {
    for tensor in after {
        if !before.iter().any(|known| known.name == tensor.name) {
            differences.push(format!("output `{}` was not recorded", tensor.name));
        }
    }
    for tensor in before {
        let name = &tensor.name;
        let Some(other) = after.iter().find(|other| other.name == *name) else {
            differences.push(format!("output `{name}` is not there any more"));
            continue;
        };
        if tensor.values == RecordedValues::Redacted {
            notes.push(format!("output `{name}` was not recorded and is not compared"));
        } else if (tensor.datatype, &tensor.shape) != (other.datatype, &other.shape) {
            differences.push(format!("output `{name}` has another type or shape"));
        } else if let Some(place) = first_difference(tensor, other) {
            differences.push(format!("output `{name}` differs from element {place} on"));
        }
    }
}

/// The first element that differs, but for numbers that are none.
fn first_difference(before: &RecordedTensor, after: &RecordedTensor) -> Option<usize> {
    match (&before.values, &after.values) {
        (RecordedValues::Fixed(a), RecordedValues::Fixed(b)) if a != b => {
            let size = before.datatype.size().unwrap_or(1);
            let mut pairs = a.0.chunks(size).zip(b.0.chunks(size));
            pairs.position(|(a, b)| a != b && !(is_nan(before.datatype, a) && is_nan(before.datatype, b)))
        }
        (RecordedValues::Strings(a), RecordedValues::Strings(b)) => a.iter().zip(b).position(|(a, b)| a != b),
        (a, b) => (a != b).then_some(0),
    }
}

fn is_nan(datatype: DataType, element: &[u8]) -> bool {
    match datatype {
        DataType::Fp64 => element
            .try_into()
            .is_ok_and(|bytes| f64::from_le_bytes(bytes).is_nan()),
        DataType::Fp32 => element
            .try_into()
            .is_ok_and(|bytes| f32::from_le_bytes(bytes).is_nan()),
        _ => false,
    }
}
