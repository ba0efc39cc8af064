//! Sweeps: a search over parameters, its trials, what they reported, and the agents that run them.

use serde_json::Value;

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// What a sweep does, in W&B's words.
    SweepState {
        /// No agent has asked yet.
        Pending = "PENDING",
        /// It gives out trials.
        Running = "RUNNING",
        /// It gives out none for now.
        Paused = "PAUSED",
        /// It gives out no more; what runs may end.
        Finished = "FINISHED",
        /// It gives out no more, and what runs shall end.
        Canceled = "CANCELED",
    }
);

text_enum!(
    /// What became of a trial.
    TrialState {
        /// It runs, or waits for its agent.
        Running = "running",
        /// It ended well.
        Finished = "finished",
        /// It ended badly.
        Failed = "failed",
        /// Early stopping or a person ended it.
        Stopped = "stopped",
    }
);

/// A sweep.
#[derive(Clone, PartialEq, Debug)]
pub struct Sweep {
    /// Eight letters and digits.
    pub sweep_id: String,
    /// Our workspace.
    pub workspace: String,
    /// User or team.
    pub entity: String,
    /// The project, which names the experiment.
    pub project: String,
    /// For people.
    pub display_name: String,
    /// As it was told, read as JSON.
    pub config: Value,
    /// What it does.
    pub state: SweepState,
    /// From which its draws follow.
    pub seed: i64,
    /// When it was made.
    pub created_ms: i64,
    /// When it was changed.
    pub updated_ms: i64,
}

/// One try of a sweep.
#[derive(Clone, PartialEq, Debug)]
pub struct Trial {
    /// From 0.
    pub number: i64,
    /// The W&B id of its run.
    pub run_name: String,
    /// Who runs it.
    pub agent: Option<String>,
    /// `{"name": value}`.
    pub params: Value,
    /// What became of it.
    pub state: TrialState,
    /// The last value of the sweep's metric.
    pub objective: Option<f64>,
    /// When it was given out.
    pub created_ms: i64,
    /// When it was last heard of.
    pub updated_ms: i64,
}

/// What a trial reported at a step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    /// Which trial.
    pub trial: i64,
    /// The run's own count.
    pub step: i64,
    /// The sweep's metric.
    pub value: f64,
}

const SWEEP: &str =
    "sweep_id, workspace, entity, project, display_name, config, state, seed, created_ms, updated_ms";
const TRIAL: &str = "number, run_name, agent, params, state, objective, created_ms, updated_ms";

fn read_sweep(row: &Row<'_>) -> rusqlite::Result<Sweep> {
    let mut fields = Fields::of(row);
    Ok(Sweep {
        sweep_id: fields.next()?,
        workspace: fields.next()?,
        entity: fields.next()?,
        project: fields.next()?,
        display_name: fields.next()?,
        config: fields.next()?,
        state: fields.next()?,
        seed: fields.next()?,
        created_ms: fields.next()?,
        updated_ms: fields.next()?,
    })
}

fn read_trial(row: &Row<'_>) -> rusqlite::Result<Trial> {
    let mut fields = Fields::of(row);
    Ok(Trial {
        number: fields.next()?,
        run_name: fields.next()?,
        agent: fields.next()?,
        params: fields.next()?,
        state: fields.next()?,
        objective: fields.next()?,
        created_ms: fields.next()?,
        updated_ms: fields.next()?,
    })
}

/// Stores a sweep, new or changed.
pub fn put(tx: &mut Tx<'_>, sweep: &Sweep) -> Result<(), StoreError> {
    let values = bind![
        sweep.sweep_id,
        sweep.workspace,
        sweep.entity,
        sweep.project,
        sweep.display_name,
        sweep.config,
        sweep.state,
        sweep.seed,
        sweep.created_ms,
        sweep.updated_ms
    ];
    tx.upsert("sweeps", SWEEP, "sweep_id", values)
}

/// A sweep by its id.
pub fn get(tx: &ReadTx<'_>, workspace: &str, sweep_id: &str) -> Result<Option<Sweep>, StoreError> {
    let sql = format!("SELECT {SWEEP} FROM sweeps WHERE workspace = ?1 AND sweep_id = ?2");
    tx.first(&sql, bind![workspace, sweep_id], read_sweep)
}

/// The sweeps of a workspace, or of one of its projects, latest first.
pub fn list(
    tx: &ReadTx<'_>,
    workspace: &str,
    project: Option<&str>,
    limit: u32,
) -> Result<Vec<Sweep>, StoreError> {
    let sql = format!(
        "SELECT {SWEEP} FROM sweeps WHERE workspace = ?1 AND (project = ?2 OR ?2 IS NULL) \
         ORDER BY created_ms DESC, sweep_id LIMIT ?3"
    );
    tx.rows(&sql, bind![workspace, project, limit], read_sweep)
}

/// Stores a trial, new or changed.
pub fn put_trial(tx: &mut Tx<'_>, sweep_id: &str, trial: &Trial) -> Result<(), StoreError> {
    let values = bind![
        sweep_id,
        trial.number,
        trial.run_name,
        trial.agent,
        trial.params,
        trial.state,
        trial.objective,
        trial.created_ms,
        trial.updated_ms
    ];
    tx.upsert(
        "sweep_trials",
        &format!("sweep, {TRIAL}"),
        "sweep, number",
        values,
    )
}

/// The trials of a sweep in the order in which they were given out.
pub fn trials(tx: &ReadTx<'_>, sweep_id: &str) -> Result<Vec<Trial>, StoreError> {
    let sql = format!("SELECT {TRIAL} FROM sweep_trials WHERE sweep = ?1 ORDER BY number");
    tx.rows(&sql, bind![sweep_id], read_trial)
}

/// A trial by the W&B id of its run.
pub fn trial_of_run(tx: &ReadTx<'_>, sweep_id: &str, run_name: &str) -> Result<Option<Trial>, StoreError> {
    let sql = format!("SELECT {TRIAL} FROM sweep_trials WHERE sweep = ?1 AND run_name = ?2");
    tx.first(&sql, bind![sweep_id, run_name], read_trial)
}

/// A trial by its number.
pub fn trial(tx: &ReadTx<'_>, sweep_id: &str, number: i64) -> Result<Option<Trial>, StoreError> {
    let sql = format!("SELECT {TRIAL} FROM sweep_trials WHERE sweep = ?1 AND number = ?2");
    tx.first(&sql, bind![sweep_id, number], read_trial)
}

/// Stores what a trial reported; of a step told twice the last counts.
pub fn put_point(tx: &mut Tx<'_>, sweep_id: &str, point: Point) -> Result<(), StoreError> {
    let values = bind![sweep_id, point.trial, point.step, point.value];
    tx.upsert(
        "sweep_points",
        "sweep, trial, step, value",
        "sweep, trial, step",
        values,
    )
}

/// Everything that trials of a sweep reported, by trial and step.
pub fn points(tx: &ReadTx<'_>, sweep_id: &str) -> Result<Vec<Point>, StoreError> {
    let sql = "SELECT trial, step, value FROM sweep_points WHERE sweep = ?1 ORDER BY trial, step";
    tx.rows(sql, bind![sweep_id], |row| {
        let mut fields = Fields::of(row);
        Ok(Point {
            trial: fields.next()?,
            step: fields.next()?,
            value: fields.next()?,
        })
    })
}

/// Notes that an agent lives.
pub fn put_agent(
    tx: &mut Tx<'_>,
    agent_id: &str,
    sweep_id: &str,
    host: &str,
    heartbeat_ms: i64,
) -> Result<(), StoreError> {
    let values = bind![agent_id, sweep_id, host, heartbeat_ms];
    tx.upsert(
        "sweep_agents",
        "agent_id, sweep, host, heartbeat_ms",
        "agent_id",
        values,
    )
}

/// The sweep and the host of an agent.
pub fn agent(tx: &ReadTx<'_>, agent_id: &str) -> Result<Option<(String, String)>, StoreError> {
    let sql = "SELECT sweep, host FROM sweep_agents WHERE agent_id = ?1";
    tx.first(sql, bind![agent_id], |row| {
        let mut fields = Fields::of(row);
        Ok((fields.next()?, fields.next()?))
    })
}
