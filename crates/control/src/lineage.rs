//! From a prediction to everything that led to it, and what came of it: one id leads everywhere.

use serde_json::{Value, json};
use tidemill_core::frame::Column;
use tidemill_core::ids::{PredictionId, VersionNumber};
use tidemill_store::{decisions, labels, models, rollouts, runs, snapshots, steps};

use crate::context::Context;
use crate::error::Result;
use crate::view::Lineage;

/// The version with what a reader wants of it; its full record stands under `/api/v1/models`.
fn version_of(row: &models::ModelVersion) -> Value {
    let features = row.signature["features"]["features"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let names: Vec<&str> = features.iter().filter_map(|f| f["name"].as_str()).collect();
    let mut version = json!(row);
    version["signature"] = json!({ "task": row.signature["task"], "features": names.join(", ") });
    version["metrics"] = row.metrics["holdout"].clone();
    version
}

/// What the model was trained by (`code`) and in which environment (`lock`), beside all digests.
fn code_of(parts: &Value) -> Value {
    let mut code = parts.clone();
    code["code"] = if parts["trainer"].is_null() {
        parts["command"].clone()
    } else {
        parts["trainer"].clone()
    };
    code
}

/// Follows a prediction.
pub(crate) async fn of_prediction(ctx: &Context, id: &PredictionId) -> Result<Lineage> {
    let (batch, row) = ctx.predictions.find(id).await?;
    let features: serde_json::Map<String, Value> = batch
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
    let prediction = json!({
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
    });
    let (version, at, wanted, model, dataset) = (
        batch.versions[row],
        batch.at,
        id.clone(),
        ctx.model(),
        ctx.spec.name.clone(),
    );
    let endpoint = batch.endpoint.clone();
    let id = id.clone();
    Ok(ctx
        .store
        .read(move |tx| {
            let mut lineage = Lineage {
                prediction_id: id,
                prediction,
                version: None,
                run: None,
                code: None,
                snapshot: None,
                validation: None,
                labels: Vec::new(),
                decisions: Vec::new(),
                used_by: Vec::new(),
            };
            let told = labels::history_of(tx, &wanted)?;
            let first_told = told.iter().map(|l| l.ingest_time).min();
            lineage.labels = told.iter().map(|l| json!(l)).collect();
            if version != VersionNumber::DEFAULT {
                let registered = models::get_version(tx, &model, version)?;
                let run = runs::get(tx, &registered.run)?;
                let snapshot = snapshots::get(tx, &registered.snapshot)?.manifest;
                lineage.decisions = decisions::by_subject(tx, run.id.as_str())?
                    .iter()
                    .map(|d| json!(d))
                    .collect();
                for rollout in rollouts::list(tx, &endpoint)?
                    .iter()
                    .filter(|r| r.to_version == version)
                {
                    lineage.decisions.extend(
                        decisions::by_subject(tx, rollout.id.as_str())?
                            .iter()
                            .map(|d| json!(d)),
                    );
                }
                lineage.validation.clone_from(&snapshot.validation);
                lineage.snapshot = Some(json!({
                    "digest": snapshot.digest, "rows": snapshot.rows, "time_range": snapshot.time_range,
                    "origin": snapshot.origin, "files": snapshot.files, "quarantined": snapshot.quarantined,
                }));
                lineage.code = Some(code_of(&run.code));
                let mut with_steps = json!(run);
                with_steps["steps"] = json!(steps::list(tx, &run.id)?);
                lineage.run = Some(with_steps);
                lineage.version = Some(version_of(&registered));
            }
            if let Some(told_at) = first_told {
                for row in snapshots::list(tx, &dataset)? {
                    let m = &row.manifest;
                    let holds = m
                        .time_range
                        .is_some_and(|(from, until)| from <= at && at <= until);
                    if holds && m.origin.as_of >= told_at && m.origin.served_rows > 0 {
                        lineage
                            .used_by
                            .push(json!({ "snapshot": m.digest, "as_of": m.origin.as_of, "rows": m.rows }));
                    }
                }
            }
            Ok(lineage)
        })
        .await?)
}
