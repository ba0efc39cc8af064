//! Feedback as it comes in: checked, stored once, and parked if its prediction has not come yet.

use std::collections::HashSet;

use tidemill_core::clock::Timestamp;
use tidemill_core::frame::Task;
use tidemill_core::ids::PredictionId;
use tidemill_core::predictions::LabelValue;
use tidemill_store::labels::{self, WaitingLabel};

use crate::context::Context;
use crate::error::{ControlError, Result};
use crate::view::{FeedbackInput, FeedbackOutcome};

/// Stores feedback. When this returns, it is durable.
pub(crate) async fn record(ctx: &Context, inputs: Vec<FeedbackInput>) -> Result<Vec<FeedbackOutcome>> {
    let now = ctx.now();
    let rows: Vec<labels::LabelRow> = inputs
        .iter()
        .enumerate()
        .map(|(i, input)| row_of(ctx, i, input, now))
        .collect::<Result<_>>()?;
    let ids: Vec<PredictionId> = inputs.iter().map(|i| i.prediction_id.clone()).collect();
    let held = ctx.serving.log().holds(&ids).await?;
    let unlogged: Vec<PredictionId> = ids
        .iter()
        .zip(held)
        .filter(|(_, held)| !held)
        .map(|(id, _)| id.clone())
        .collect();
    // After the log: what is moved in between is found in one place or the other.
    let known = ctx.predictions.known(unlogged.clone()).await?;
    let newest = known.newest;
    let unlogged: HashSet<PredictionId> = unlogged.into_iter().collect();
    let joined = move |id: &PredictionId| !unlogged.contains(id) || known.ids.contains(id);
    let parked: Vec<bool> = ids.iter().map(|id| !joined(id)).collect();
    let recorded = ctx
        .store
        .write(move |tx| {
            let recorded = labels::record(tx, &rows)?;
            let kept = rows.iter().zip(&recorded).zip(parked);
            let waiting: Vec<WaitingLabel> = kept
                .filter(|((_, receipt), parked)| {
                    *parked
                        && matches!(
                            receipt.outcome,
                            labels::Outcome::Created | labels::Outcome::Corrected
                        )
                })
                .map(|((row, receipt), _)| WaitingLabel {
                    label_id: receipt.feedback_id.clone(),
                    prediction_id: row.prediction_id.clone(),
                    ingest_time: row.ingest_time,
                    checked: newest,
                })
                .collect();
            labels::wait(tx, &waiting)?;
            Ok(recorded)
        })
        .await?;
    Ok(ids
        .into_iter()
        .zip(recorded)
        .map(|(prediction_id, recorded)| FeedbackOutcome {
            joined: joined(&prediction_id),
            prediction_id,
            feedback_id: recorded.feedback_id,
            outcome: word(recorded.outcome).to_owned(),
        })
        .collect())
}

fn word(outcome: labels::Outcome) -> &'static str {
    match outcome {
        labels::Outcome::Created => "created",
        labels::Outcome::Repeated => "repeated",
        labels::Outcome::Corrected => "corrected",
        labels::Outcome::Conflict => "conflict",
    }
}

fn row_of(ctx: &Context, index: usize, input: &FeedbackInput, now: Timestamp) -> Result<labels::LabelRow> {
    let refuse = |field: &str, message: String| {
        Err(ControlError::Refused {
            code: "feedback_invalid",
            message: format!("feedback[{index}].{field}: {message}; nothing of this request was stored"),
        })
    };
    let id = input.prediction_id.as_str();
    if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return refuse(
            "prediction_id",
            format!(
                "`{id}` is not a prediction id: expected the 32 hexadecimal digits from the predicting answer"
            ),
        );
    }
    let label = input.label.clone().unwrap_or_else(|| ctx.spec.label.name.clone());
    if label == ctx.spec.label.name {
        let fits = match ctx.spec.label.task {
            Task::Binary => input.value.as_bool().is_some(),
            Task::Regression => input.value.as_number().is_some_and(f64::is_finite),
            Task::Multiclass => true,
        };
        if !fits {
            let expected = match ctx.spec.label.task {
                Task::Binary => "true or false",
                _ => "a finite number",
            };
            return refuse(
                "value",
                format!(
                    "`{}` is not a value of the label `{label}`: expected {expected}",
                    input.value.as_class()
                ),
            );
        }
    }
    if matches!(input.value, LabelValue::Number(n) if !n.is_finite()) {
        return refuse("value", "not a finite number".into());
    }
    let kind = input.kind.clone().unwrap_or_else(|| "ground_truth".into());
    let Ok(kind) = kind.parse::<labels::LabelKind>() else {
        return refuse(
            "kind",
            format!("`{kind}` is unknown: expected ground_truth, human, proxy, weak or implicit"),
        );
    };
    let source = input.source.clone().unwrap_or_else(|| "api".into());
    Ok(labels::LabelRow {
        id: tidemill_core::ids::fresh(now),
        prediction_id: input.prediction_id.clone(),
        label,
        value: input.value.clone(),
        kind,
        source,
        idempotency_key: input.idempotency_key.clone(),
        event_time: input.event_time.unwrap_or(now),
        ingest_time: now,
        retracted: input.retracted,
    })
}
