//! Operations on sweeps and agents.

use serde_json::{Value, json};
use tidemill_control::tracking::sweeps::SweepChange;
use tidemill_control::tracking::wandb::NO_PROJECT;
use tidemill_store::sweeps::{Sweep, Trial};

use super::{Data, Operation, opaque, project, time};

pub(super) async fn answer(op: &Operation<'_>, name: &str) -> Option<Data> {
    Some(match name {
        "UpsertSweep" | "UpsertSweepState" => upsert(op).await,
        "CreateAgent" => create_agent(op).await,
        "Heartbeat" => heartbeat(op).await,
        "SweepConfig" | "GetSweep" | "GetSweepLegacy" | "GetSweepState" | "Sweep" | "SweepWithRuns" => {
            show(op).await
        }
        _ => return None,
    })
}

async fn upsert(op: &Operation<'_>) -> Data {
    let change = SweepChange {
        sweep_id: op.owned("id"),
        entity: op.owned("entityName").unwrap_or_else(|| op.entity()),
        project: op.owned("projectName").unwrap_or_else(|| NO_PROJECT.to_owned()),
        config: op.owned("config").map(Value::String),
        display_name: op.owned("displayName"),
        state: op.owned("state"),
    };
    let made = op.tracking.put_sweep(op.caller, change).await?;
    Ok(json!({ "upsertSweep": { "sweep": sweep(&made, &[]), "configValidationWarnings": [] } }))
}

fn sweep(of: &Sweep, trials: &[Trial]) -> Value {
    let best = trials.iter().filter_map(|trial| trial.objective).reduce(f64::min);
    let edges: Vec<Value> = trials
        .iter()
        .map(|trial| json!({ "node": { "name": trial.run_name, "state": trial.state, "config": trial.params.to_string() } }))
        .collect();
    json!({
        "__typename": "Sweep",
        "id": of.sweep_id,
        "name": of.sweep_id,
        "displayName": of.display_name,
        "method": of.config.get("method"),
        "state": of.state,
        "description": of.config.get("description"),
        // YAML is asked for; JSON is YAML.
        "config": of.config.to_string(),
        "createdAt": time(of.created_ms),
        "updatedAt": time(of.updated_ms),
        "heartbeatAt": time(of.updated_ms),
        "earlyStopJobRunning": false,
        "bestLoss": best,
        "controller": null,
        "controllerRunName": null,
        "scheduler": null,
        "runCount": trials.len(),
        "runCountExpected": null,
        "priorRuns": { "edges": [] },
        "runs": { "edges": edges },
        "project": project(&of.entity, &of.project),
    })
}

async fn create_agent(op: &Operation<'_>) -> Data {
    let (sweep_id, host) = (
        op.text("sweep").unwrap_or_default(),
        op.text("host").unwrap_or_default(),
    );
    let agent_id = op.tracking.create_agent(op.caller, sweep_id, host).await?;
    Ok(json!({ "createAgent": { "agent": { "id": agent_id, "name": agent_id } } }))
}

async fn heartbeat(op: &Operation<'_>) -> Data {
    let agent_id = op.text("id").unwrap_or_default();
    let states = op.json("runState").unwrap_or_default();
    let runs = states.as_object().into_iter().flatten();
    let runs = runs
        .filter(|(_, alive)| alive.as_bool().unwrap_or(true))
        .map(|(run, _)| run.clone());
    let command = op
        .tracking
        .agent_heartbeat(op.caller, agent_id, runs.collect())
        .await?;
    let commands: Vec<Value> = command
        .iter()
        .map(tidemill_control::tracking::sweeps::Command::to_json)
        .collect();
    let agent = json!({ "id": agent_id, "name": opaque("Agent", agent_id) });
    Ok(json!({ "agentHeartbeat": { "agent": agent, "commands": Value::Array(commands).to_string() } }))
}

async fn show(op: &Operation<'_>) -> Data {
    let id = op.text("sweep").or_else(|| op.text("name")).unwrap_or_default();
    let found = op.tracking.get_sweep(op.caller, id).await;
    let shown = match found {
        Ok((found, trials)) => sweep(&found, &trials),
        Err(tidemill_control::tracking::TrackingError::NotFound(_)) => Value::Null,
        Err(error) => return Err(error),
    };
    Ok(json!({ "project": { "sweep": shown } }))
}
