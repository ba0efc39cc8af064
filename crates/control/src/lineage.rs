//! From a prediction to everything that led to it, and what came of it: one id leads everywhere.

use serde_json::{Value, json};
use tidemill_core::calls::CallRecord;
use tidemill_core::ids::{PredictionId, VersionNumber};
use tidemill_store::{Store, decisions, deployments, labels, models, rollouts, runs, snapshots, steps};

use crate::context::Context;
use crate::error::Result;
use crate::predictions::Prediction;
use crate::predictions::view::{call_json, row_json};
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
    let (batch, row) = match ctx.predictions.find(id).await? {
        Prediction::Row(batch, row) => (batch, row),
        Prediction::Call(call) => return of_call(&ctx.store, &call).await,
    };
    let prediction = row_json(&batch, row);
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

/// Follows a call of a deployment: to the version that answered, the bundle behind it, and what was said of the answer.
pub(crate) async fn of_call(store: &Store, call: &CallRecord) -> Result<Lineage> {
    let facts = call.facts.clone();
    let deployment = facts.by.clone().unwrap_or_else(|| facts.endpoint.clone());
    let prediction = call_json(call);
    Ok(store
        .read(move |tx| {
            let versions = deployments::versions(tx, &deployment)?;
            // A name may have been used again since.
            let known = versions
                .into_iter()
                .find(|known| known.version == facts.version && known.created_at <= facts.at);
            let version = match known {
                _ if facts.version == VersionNumber::DEFAULT => None,
                Some(known) => Some(json!({
                    "deployment": known.name, "version": known.version, "bundle": known.digest, "size": known.size,
                    "source": known.source, "created_at": known.created_at, "created_by": known.created_by,
                })),
                None => Some(json!({
                    "deployment": deployment, "version": facts.version, "bundle": facts.bundle, "removed": true,
                })),
            };
            Ok(Lineage {
                labels: labels::history_of(tx, &facts.id)?.iter().map(|l| json!(l)).collect(),
                prediction_id: facts.id,
                prediction,
                version,
                run: None,
                code: None,
                snapshot: None,
                validation: None,
                decisions: Vec::new(),
                used_by: Vec::new(),
            })
        })
        .await?)
}
