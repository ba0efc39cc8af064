//! The steps of a training run that compute: snapshot, split, train, measure. They write content-addressed objects only; nothing is
//! visible until [`super::runs`] records it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::frame::{Labels, Scores};
use tidemill_core::ids::VersionNumber;
use tidemill_core::ports::{
    LabelledRows, Model, ModelSignature, PortError, SnapshotRequest, TrainOutput, TrainRequest,
};
use tidemill_core::snapshot::SnapshotManifest;
use tidemill_core::spec::{EvaluationSpec, Span, TrainingSpec};

use crate::context::Context;
use crate::delivery::evaluation::measure;
use crate::delivery::gates::{GateInput, GateResult, judge_gates};
use crate::delivery::{bundles, evaluation::Measured};
use crate::error::{ControlError, Result};
use crate::feedback::join;
use crate::monitor::signals::{histogram_of, prediction_column};

/// Where `training.window` counts back from: now, or where the source ends if nothing was served yet, so that a first training on an
/// old file finds its rows.
async fn history_end(ctx: &Context, first_served: Option<Timestamp>, as_of: Timestamp) -> Result<Timestamp> {
    if first_served.is_some() || ctx.spec.data.time.is_none() || ctx.spec.training.window.is_none() {
        return Ok(as_of);
    }
    let range = ctx.data.time_range(&ctx.root, &ctx.spec).await?;
    Ok(range.map_or(as_of, |(_, last)| as_of.min(last + Span::from_micros(1))))
}

/// Builds the snapshot to train on: the history in the source up to the first served prediction, and from there what was served,
/// with its labels as known at `as_of`.
pub(crate) async fn snapshot(
    ctx: &Context,
    first_served: Option<Timestamp>,
    as_of: Timestamp,
) -> Result<SnapshotManifest> {
    let end = history_end(ctx, first_served, as_of).await?;
    let from = ctx.spec.training.window.map(|window| end - window);
    let (mut served, mut labels) = (Vec::new(), Vec::new());
    if let Some(first) = first_served {
        let from = from.map_or(first, |from| from.max(first));
        let joined = join::joined(ctx, &ctx.endpoint(), from, as_of, as_of).await?;
        labels = joined.served_labels();
        served = joined.batches;
    }
    let history_until = first_served.map_or(as_of, |first| first.min(as_of));
    let source = match (&ctx.spec.data.time, first_served) {
        // Without a time column the source cannot be told from what was served of it.
        (None, Some(_)) if !labels.is_empty() => None,
        (None, _) => Some((None, None)),
        (Some(_), _) => from
            .is_none_or(|from| from < history_until)
            .then_some((from, Some(history_until))),
    };
    let request = SnapshotRequest {
        spec: Arc::clone(&ctx.spec),
        root: ctx.root.clone(),
        source,
        served,
        labels,
        as_of,
    };
    Ok(ctx.data.build_snapshot(request).await?)
}

/// The rows of a snapshot, split by time: the latest are held out and never trained on.
pub(crate) struct Split {
    pub(crate) train: LabelledRows,
    pub(crate) holdout: LabelledRows,
    /// Times of the first and last held-out row.
    pub(crate) holdout_range: Option<(Timestamp, Timestamp)>,
}

fn take(rows: &LabelledRows, indices: &[usize]) -> LabelledRows {
    LabelledRows {
        rows: rows.rows.take(indices),
        labels: rows.labels.take(indices),
        times: if rows.times.is_empty() {
            Vec::new()
        } else {
            indices.iter().map(|&i| rows.times[i]).collect()
        },
    }
}

/// Splits time-ordered rows. The hold-out is the last `holdout` of time; where there is no time, or that would leave less than half
/// for training, it is the last `holdout_share` of the rows.
pub(crate) fn split(rows: &LabelledRows, plan: &EvaluationSpec) -> Split {
    let n = rows.rows.rows();
    let by_share =
        n - ((n as f64 * plan.holdout_share).round() as usize).clamp(1, n.saturating_sub(1).max(1));
    let cut = match rows.times.last() {
        Some(last) => {
            let begin = *last - plan.holdout;
            let cut = rows.times.partition_point(|t| *t < begin);
            if cut * 2 >= n && cut < n { cut } else { by_share }
        }
        None => by_share,
    };
    let train: Vec<usize> = (0..cut).collect();
    let held: Vec<usize> = (cut..n).collect();
    let holdout = take(rows, &held);
    let range = holdout.times.first().copied().zip(holdout.times.last().copied());
    Split {
        train: take(rows, &train),
        holdout,
        holdout_range: range,
    }
}

/// Trains on `rows` with the spec's trainer and these settings.
pub(crate) async fn train(
    ctx: &Context,
    settings: &TrainingSpec,
    manifest: &SnapshotManifest,
    rows: LabelledRows,
) -> Result<(TrainOutput, Vec<String>)> {
    if let Some(command) = &settings.run {
        return super::command::train(ctx, (command, settings), manifest, &rows).await;
    }
    let trainer = Arc::clone(&ctx.trainer);
    let request = TrainRequest {
        rows: rows.rows,
        labels: rows.labels,
        budget: settings.budget,
        iterations: settings.iterations,
        seed: settings.seed,
    };
    let output = tokio::task::spawn_blocking(move || trainer.train(request))
        .await
        .map_err(ControlError::internal)??;
    Ok((output, Vec::new()))
}

/// What was measured of a fresh model on the held-out rows, and what the gate says.
pub(crate) struct Evaluation {
    /// What the model needs and gives, for the registry.
    pub(crate) signature: ModelSignature,
    pub(crate) metrics: BTreeMap<String, Measured>,
    /// The distribution of the scores on the hold-out: what prediction drift is compared with.
    pub(crate) prediction_reference: Option<Value>,
    pub(crate) gate: GateResult,
    pub(crate) inputs: Value,
}

/// Measures the challenger, and judges it against the champion on the same rows.
pub(crate) async fn evaluate(
    ctx: &Context,
    challenger: &Digest,
    champion: Option<(VersionNumber, Arc<dyn Model>, Option<Timestamp>)>,
    holdout: LabelledRows,
    holdout_range: Option<(Timestamp, Timestamp)>,
) -> Result<Evaluation> {
    let model = bundles::load(ctx, challenger).await?;
    let signature = model.signature().clone();
    let spec = Arc::clone(&ctx.spec);
    let overlap = champion
        .as_ref()
        .and_then(|(_, _, trained_until)| *trained_until)
        .zip(holdout_range)
        .map(|(trained_until, (from, _))| trained_until > from);
    let champion_version = champion.as_ref().map(|(version, ..)| *version);
    let evaluated = tokio::task::spawn_blocking(move || -> std::result::Result<_, PortError> {
        let scores = aligned(model.predict(&holdout.rows)?, &holdout.labels);
        let champion_scores = champion
            .as_ref()
            .map(|(_, champion, _)| {
                Ok::<_, PortError>(aligned(champion.predict(&holdout.rows)?, &holdout.labels))
            })
            .transpose()?;
        let metrics = measure(&spec.metrics(), &holdout.labels, &scores);
        let gate = judge_gates(GateInput {
            gates: &spec.effective_gates(),
            labels: &holdout.labels,
            times: &holdout.times,
            challenger: &scores,
            champion: champion_scores.as_ref(),
            seed: spec.training.seed,
        });
        let reference = prediction_reference(&scores);
        Ok((metrics, gate, reference, holdout.rows.rows()))
    })
    .await
    .map_err(ControlError::internal)??;
    let (metrics, gate, prediction_reference, rows) = evaluated;
    let inputs = json!({
        "challenger": { "bundle": challenger },
        "champion": { "version": champion_version },
        "holdout": {
            "rows": rows,
            "from": holdout_range.map(|r| r.0),
            "until": holdout_range.map(|r| r.1),
            // The champion has seen some of these rows in training, which favours it: the verdict is on the safe side.
            "champion_trained_on_part": overlap.unwrap_or(false),
        },
        "gates": ctx.spec.effective_gates(),
        "seed": ctx.spec.training.seed,
    });
    Ok(Evaluation {
        signature,
        metrics,
        prediction_reference,
        gate,
        inputs,
    })
}

/// A model's metrics on some rows, and how many rows these were.
pub(crate) async fn measure_on(
    ctx: &Context,
    model: Arc<dyn Model>,
    rows: LabelledRows,
) -> Result<(BTreeMap<String, Measured>, usize)> {
    let metrics = ctx.spec.metrics();
    let measured = tokio::task::spawn_blocking(move || -> std::result::Result<_, PortError> {
        let scores = aligned(model.predict(&rows.rows)?, &rows.labels);
        Ok((measure(&metrics, &rows.labels, &scores), rows.labels.rows()))
    });
    Ok(measured.await.map_err(ControlError::internal)??)
}

/// Brings a model's classes into the order of the labels' classes.
fn aligned(scores: Scores, labels: &Labels) -> Scores {
    let (
        Scores::Multiclass {
            classes,
            probabilities,
        },
        Labels::Multiclass { classes: wanted, .. },
    ) = (&scores, labels)
    else {
        return scores;
    };
    if classes == wanted {
        return scores;
    }
    let k = classes.len();
    let positions: Vec<Option<usize>> = wanted
        .iter()
        .map(|c| classes.iter().position(|m| m == c))
        .collect();
    let values = probabilities
        .chunks(k.max(1))
        .flat_map(|row| {
            positions
                .iter()
                .map(|p| p.map_or(0.0, |p| row[p]))
                .collect::<Vec<_>>()
        })
        .collect();
    Scores::Multiclass {
        classes: Arc::clone(wanted),
        probabilities: values,
    }
}

/// The histogram of the scores; for several classes of the most probable class's name.
fn prediction_reference(scores: &Scores) -> Option<Value> {
    serde_json::to_value(histogram_of(&prediction_column(scores)).ok()?).ok()
}

/// Refuses a snapshot with too little to learn from.
pub(crate) fn check_enough(rows: &LabelledRows, min_rows: u64) -> Result<()> {
    let have = rows.labels.rows() as u64;
    if have >= min_rows {
        return Ok(());
    }
    Err(PortError::caller(
        "training_too_few_rows",
        format!("{have} labelled rows, fewer than `training.min_rows: {min_rows}`; wait for more labels, widen `training.window`, or lower the minimum"),
    )
    .into())
}

/// How long a hold-out is, for the record.
pub(crate) fn span_of(range: Option<(Timestamp, Timestamp)>) -> Option<Span> {
    range.map(|(from, until)| until - from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::frame::{Column, Feature, FeatureKind, FeatureSchema, Frame};

    fn rows(n: usize, days_apart: i64) -> LabelledRows {
        let schema = Arc::new(FeatureSchema {
            features: vec![Feature {
                name: "x".into(),
                kind: FeatureKind::Numeric,
            }],
        });
        LabelledRows {
            rows: Frame::new(schema, vec![Column::Numeric((0..n).map(|i| i as f64).collect())]).unwrap(),
            labels: Labels::Regression(vec![0.0; n]),
            times: (0..n)
                .map(|i| Timestamp::from_micros(0) + Span::days(i as i64 * days_apart))
                .collect(),
        }
    }

    #[test]
    fn the_latest_rows_are_held_out_by_time() {
        let split = split(&rows(60, 1), &EvaluationSpec::default());
        assert_eq!((split.train.labels.rows(), split.holdout.labels.rows()), (45, 15));
        assert!(split.train.times.last() < split.holdout.times.first());
    }

    #[test]
    fn a_hold_out_that_would_take_most_rows_falls_back_to_the_share() {
        let few = split(&rows(20, 1), &EvaluationSpec::default());
        assert_eq!(few.holdout.labels.rows(), 4);
        let mut timeless = rows(10, 1);
        timeless.times.clear();
        assert_eq!(
            split(&timeless, &EvaluationSpec::default()).holdout.labels.rows(),
            2
        );
    }
}
