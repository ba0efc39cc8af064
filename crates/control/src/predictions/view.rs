//! What is recorded under an id, as JSON.

use serde_json::{Map, Value, json};
use tidemill_core::calls::{CallRecord, Recorded};
use tidemill_core::frame::Column;
use tidemill_core::predictions::PredictionBatch;

use super::Prediction;

impl Prediction {
    /// As JSON: of a row its features and answer, of a call its inputs and answers.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Row(batch, row) => row_json(batch, *row),
            Self::Call(call) => call_json(call),
        }
    }
}

/// A row that an endpoint of the loop answered.
pub(crate) fn row_json(batch: &PredictionBatch, row: usize) -> Value {
    let features: Map<String, Value> = batch
        .features
        .schema()
        .features
        .iter()
        .zip(batch.features.columns())
        .map(|(feature, column)| {
            let value = match column {
                Column::Numeric(values) => json!(values[row]),
                Column::Categorical(values) => json!(values[row].as_deref()),
            };
            (feature.name.clone(), value)
        })
        .collect();
    json!({
        "kind": "row",
        "prediction_id": batch.ids[row],
        "endpoint": batch.endpoint,
        "at": batch.at,
        "request_id": batch.request_id,
        "key": batch.keys[row].as_deref(),
        "version": batch.versions[row],
        "role": batch.roles[row],
        "canary_share": batch.canary_share,
        "degraded": batch.degraded[row].as_deref(),
        "score": batch.scores.row(row).first().filter(|_| batch.scores.width() == 1),
        "scores": batch.scores.row(row),
        "shadows": batch.shadows.iter().map(|s| json!({ "version": s.version, "scores": s.scores.row(row) })).collect::<Vec<_>>(),
        "features": features,
        "latency_us": batch.latency_us,
    })
}

/// A call of a deployment.
pub(crate) fn call_json(call: &CallRecord) -> Value {
    let facts = &call.facts;
    let parameters: Value = serde_json::from_str(&facts.parameters).unwrap_or_default();
    json!({
        "kind": "call",
        "prediction_id": facts.id,
        "endpoint": facts.endpoint,
        "at": facts.at,
        "request_id": facts.request_id,
        "key": facts.key,
        "version": facts.version,
        "bundle": facts.bundle,
        "answered_by": facts.by,
        "route": facts.route,
        "degraded": facts.degraded,
        "error": facts.fault.as_ref().map(|fault| json!({ "code": fault.code, "message": fault.message })),
        "cached": facts.cached,
        "streamed": facts.streamed,
        "cut_short": facts.cut_short,
        "depth": facts.depth,
        "rows": facts.rows,
        "parameters": parameters,
        "outputs": facts.outputs,
        "queue_us": facts.queue_us,
        "compute_us": facts.compute_us,
        "latency_us": facts.total_us,
        "inputs": call.inputs.to_json(),
        "answers": call.answers.iter().map(Recorded::to_json).collect::<Vec<_>>(),
    })
}
