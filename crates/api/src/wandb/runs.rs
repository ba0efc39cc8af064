//! Operations on runs.

use serde_json::{Value, json};
use tidemill_control::tracking::wandb::{NewAlert, RunChange, name_of};
use tidemill_store::wandb::runs::WandbRun;

use super::{Data, Operation, opaque, project};

pub(super) async fn answer(op: &Operation<'_>, name: &str) -> Option<Data> {
    Some(match name {
        "UpsertBucket" => upsert(op).await,
        "RunResumeStatus" => resume_status(op).await,
        "RunState" | "QueryRunInfo" => state(op).await,
        "CreateRunFiles" => create_files(op).await,
        "MarkRunFilesUploaded" => Ok(json!({ "markRunFilesUploaded": { "success": true } })),
        "NotifyScriptableRunAlert" => alert(op).await,
        "StopRun" => stop(op).await,
        _ => return None,
    })
}

fn bucket(run: &WandbRun) -> Value {
    json!({
        "id": run.run_id,
        "name": run.at.name,
        "displayName": run.display_name,
        "description": run.notes,
        "config": run.config.to_string(),
        "sweepName": run.sweep,
        "project": project(&run.at.entity, &run.at.project),
        "historyLineCount": run.history_lines,
    })
}

async fn upsert(op: &Operation<'_>) -> Data {
    let tags = op.variables.get("tags").filter(|tags| tags.is_array()).cloned();
    let change = RunChange {
        id: op.owned("id"),
        name: op.owned("name"),
        entity: op.owned("entity"),
        project: op.owned("project"),
        display_name: op.owned("displayName").or_else(|| op.owned("display_name")),
        config: op.json("config"),
        summary: op.json("summaryMetrics"),
        notes: op.owned("notes"),
        tags,
        group: op.owned("groupName"),
        job_type: op.owned("jobType"),
        sweep: op.owned("sweep"),
        host: op.owned("host"),
        program: op.owned("program"),
        commit: op.owned("commit"),
    };
    let done = op.tracking.wandb_upsert_run(op.caller, change).await?;
    Ok(json!({ "upsertBucket": { "bucket": bucket(&done.run), "inserted": done.inserted } }))
}

async fn resume_status(op: &Operation<'_>) -> Data {
    let at = name_of(
        op.caller,
        op.text("entity"),
        op.text("project"),
        op.text("name").unwrap_or_default(),
    );
    let (entity, name) = (at.entity.clone(), at.project.clone());
    if !op.tracking.wandb_has_project(at.clone()).await? {
        return Ok(json!({ "model": null }));
    }
    let tail = |line: &str| {
        if line.is_empty() {
            "[]".to_owned()
        } else {
            json!([line]).to_string()
        }
    };
    let run = op.tracking.wandb_find_run(at).await?.map(|run| {
        // The client takes a run without this for one that was planned and has never started.
        let telemetry = run
            .config
            .pointer("/_wandb/value/t")
            .cloned()
            .unwrap_or_else(|| json!({}));
        json!({
            "id": run.run_id,
            "name": run.at.name,
            "displayName": run.display_name,
            "summaryMetrics": run.summary.to_string(),
            "logLineCount": run.log_lines,
            "historyLineCount": run.history_lines,
            "eventsLineCount": run.events_lines,
            "historyTail": tail(&run.history_tail),
            "eventsTail": tail(&run.events_tail),
            "config": run.config.to_string(),
            "tags": run.tags,
            "notes": run.notes,
            "wandbConfig": json!({ "t": telemetry }).to_string(),
        })
    });
    let mut model = project(&entity, &name);
    model["bucket"] = run.unwrap_or_default();
    Ok(json!({ "model": model }))
}

async fn state(op: &Operation<'_>) -> Data {
    let at = name_of(
        op.caller,
        op.text("entity"),
        op.text("project"),
        op.text("run").unwrap_or_default(),
    );
    let run = op.tracking.wandb_find_run(at).await?.map(|run| {
        json!({
            "id": run.run_id,
            "state": run.state,
            "displayName": run.display_name,
            "summaryMetrics": run.summary.to_string(),
        })
    });
    Ok(json!({ "project": { "run": run } }))
}

async fn create_files(op: &Operation<'_>) -> Data {
    let at = name_of(
        op.caller,
        op.text("entity"),
        op.text("project"),
        op.text("run").unwrap_or_default(),
    );
    let names = op.texts("files");
    let (run_id, tokens) = op.tracking.wandb_run_files(at, &names).await?;
    let files: Vec<Value> = names
        .iter()
        .zip(&tokens)
        .map(|(name, token)| {
            json!({ "id": opaque("File", name), "name": name, "uploadUrl": format!("{}/wandb/upload/{token}", op.origin) })
        })
        .collect();
    Ok(json!({ "createRunFiles": { "runID": run_id, "uploadHeaders": [], "files": files } }))
}

async fn alert(op: &Operation<'_>) -> Data {
    let at = name_of(
        op.caller,
        op.text("entityName"),
        op.text("projectName"),
        op.text("runName").unwrap_or_default(),
    );
    let alert = NewAlert {
        title: op.owned("title").unwrap_or_default(),
        text: op.owned("text").unwrap_or_default(),
        severity: op.owned("severity").unwrap_or_else(|| "INFO".to_owned()),
    };
    op.tracking.wandb_alert(at, alert).await?;
    Ok(json!({ "notifyScriptableRunAlert": { "success": true } }))
}

async fn stop(op: &Operation<'_>) -> Data {
    op.tracking
        .wandb_stop_run(op.caller, op.text("id").unwrap_or_default())
        .await?;
    Ok(json!({ "stopRun": { "success": true } }))
}
