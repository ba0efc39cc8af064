//! The W&B side of a tracked run: its names, its documents, and how far its streams have come.

use serde_json::Value;

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// What became of a run, in W&B's words.
    WandbState {
        /// It lives, or was heard of lately.
        Running = "running",
        /// It ended well.
        Finished = "finished",
        /// It ended with an exit code other than 0.
        Failed = "failed",
        /// It ended because it was asked to stop.
        Killed = "killed",
        /// Nothing was heard of it for too long.
        Crashed = "crashed",
    }
);

/// The names by which W&B's client knows a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WandbName {
    /// Our workspace.
    pub workspace: String,
    /// User or team, as the client says.
    pub entity: String,
    /// The project, which names the experiment.
    pub project: String,
    /// The run's own id, unique in the project.
    pub name: String,
}

/// A run as W&B's client told it.
#[derive(Clone, PartialEq, Debug)]
pub struct WandbRun {
    /// The tracked run.
    pub run_id: String,
    /// Its names.
    pub at: WandbName,
    /// For people.
    pub display_name: String,
    /// `{"key": {"value": …}}`, as the client wrote it.
    pub config: Value,
    /// The latest values.
    pub summary: Value,
    /// A list of words.
    pub tags: Value,
    /// For people.
    pub notes: String,
    /// Which runs it belongs to.
    pub group: String,
    /// What it does in its group.
    pub job_type: String,
    /// The sweep that started it.
    pub sweep: Option<String>,
    /// What became of it.
    pub state: WandbState,
    /// With which it ended.
    pub exit_code: Option<i64>,
    /// When it was first heard of.
    pub created_ms: i64,
    /// When it was last heard of.
    pub heartbeat_ms: i64,
    /// How many lines of history are stored.
    pub history_lines: i64,
    /// How many lines of system metrics are stored.
    pub events_lines: i64,
    /// How many lines of console output are stored.
    pub log_lines: i64,
    /// The last line of history.
    pub history_tail: String,
    /// The last line of system metrics.
    pub events_tail: String,
    /// Whether its client shall end it.
    pub stop_requested: bool,
}

const COLUMNS: &str = "run_id, workspace, entity, project, name, display_name, config, summary, tags, notes, group_name, \
     job_type, sweep, state, exit_code, created_ms, heartbeat_ms, history_lines, events_lines, log_lines, history_tail, \
     events_tail, stop_requested";

fn read(row: &Row<'_>) -> rusqlite::Result<WandbRun> {
    let mut fields = Fields::of(row);
    Ok(WandbRun {
        run_id: fields.next()?,
        at: WandbName {
            workspace: fields.next()?,
            entity: fields.next()?,
            project: fields.next()?,
            name: fields.next()?,
        },
        display_name: fields.next()?,
        config: fields.next()?,
        summary: fields.next()?,
        tags: fields.next()?,
        notes: fields.next()?,
        group: fields.next()?,
        job_type: fields.next()?,
        sweep: fields.next()?,
        state: fields.next()?,
        exit_code: fields.next()?,
        created_ms: fields.next()?,
        heartbeat_ms: fields.next()?,
        history_lines: fields.next()?,
        events_lines: fields.next()?,
        log_lines: fields.next()?,
        history_tail: fields.next()?,
        events_tail: fields.next()?,
        stop_requested: fields.next()?,
    })
}

/// Stores a run, new or changed.
pub fn put(tx: &mut Tx<'_>, run: &WandbRun) -> Result<(), StoreError> {
    let values = bind![
        run.run_id,
        run.at.workspace,
        run.at.entity,
        run.at.project,
        run.at.name,
        run.display_name,
        run.config,
        run.summary,
        run.tags,
        run.notes,
        run.group,
        run.job_type,
        run.sweep,
        run.state,
        run.exit_code,
        run.created_ms,
        run.heartbeat_ms,
        run.history_lines,
        run.events_lines,
        run.log_lines,
        run.history_tail,
        run.events_tail,
        run.stop_requested
    ];
    tx.upsert("wandb_runs", COLUMNS, "run_id", values)
}

/// A run by its names.
pub fn find(tx: &ReadTx<'_>, at: &WandbName) -> Result<Option<WandbRun>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM wandb_runs WHERE workspace = ?1 AND entity = ?2 AND project = ?3 AND name = ?4"
    );
    tx.first(&sql, bind![at.workspace, at.entity, at.project, at.name], read)
}

/// A run by the tracked run's id.
pub fn get(tx: &ReadTx<'_>, run_id: &str) -> Result<Option<WandbRun>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM wandb_runs WHERE run_id = ?1");
    tx.first(&sql, bind![run_id], read)
}

/// Whether a project has any run.
pub fn has_project(
    tx: &ReadTx<'_>,
    workspace: &str,
    entity: &str,
    project: &str,
) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM wandb_runs WHERE workspace = ?1 AND entity = ?2 AND project = ?3 LIMIT 1";
    tx.exists(sql, bind![workspace, entity, project])
}

/// Gives each run of a project that is not deleted to `take`, one at a time.
pub fn each_of_project(
    tx: &ReadTx<'_>,
    at: &WandbName,
    mut take: impl FnMut(WandbRun),
) -> Result<(), StoreError> {
    let columns = COLUMNS
        .split(", ")
        .map(|column| format!("w.{}", column.trim()))
        .collect::<Vec<_>>()
        .join(", ");
    let sql = format!(
        "SELECT {columns} FROM wandb_runs w JOIN tracked_runs t ON t.run_id = w.run_id \
         WHERE w.workspace = ?1 AND w.entity = ?2 AND w.project = ?3 AND t.lifecycle = 'active'"
    );
    tx.each(&sql, bind![at.workspace, at.entity, at.project], |row| {
        take(read(row)?);
        Ok(())
    })
}

/// A project that has runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// When its first run was made.
    pub created_ms: i64,
}

/// Projects of an entity, by name.
pub fn projects(tx: &ReadTx<'_>, workspace: &str, entity: &str) -> Result<Vec<Project>, StoreError> {
    let sql = "SELECT w.project, min(w.created_ms) FROM wandb_runs w JOIN tracked_runs t ON t.run_id = w.run_id \
         WHERE w.workspace = ?1 AND w.entity = ?2 AND t.lifecycle = 'active' GROUP BY w.project ORDER BY w.project";
    tx.rows(sql, bind![workspace, entity], |row| {
        let mut fields = Fields::of(row);
        Ok(Project {
            name: fields.next()?,
            created_ms: fields.next()?,
        })
    })
}

/// Running runs that were last heard of before a moment.
pub fn silent_since(tx: &ReadTx<'_>, before_ms: i64, limit: u32) -> Result<Vec<WandbRun>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM wandb_runs WHERE state = 'running' AND heartbeat_ms < ?1 ORDER BY heartbeat_ms LIMIT ?2"
    );
    tx.rows(&sql, bind![before_ms, limit], read)
}

/// Stores lines of console output from a line on; a line that is told again takes its new text.
pub fn put_log_lines(tx: &mut Tx<'_>, run_id: &str, from: i64, lines: &[String]) -> Result<(), StoreError> {
    for (line, text) in (from..).zip(lines) {
        tx.upsert(
            "wandb_log_lines",
            "run_id, line, text",
            "run_id, line",
            bind![run_id, line, text],
        )?;
    }
    Ok(())
}

/// Console output from a line on.
pub fn log_lines(
    tx: &ReadTx<'_>,
    run_id: &str,
    from: i64,
    limit: u32,
) -> Result<Vec<(i64, String)>, StoreError> {
    let sql =
        "SELECT line, text FROM wandb_log_lines WHERE run_id = ?1 AND line >= ?2 ORDER BY line LIMIT ?3";
    tx.rows(sql, bind![run_id, from, limit], |row| {
        let mut fields = Fields::of(row);
        Ok((fields.next()?, fields.next()?))
    })
}

/// An alert that a run raised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WandbAlert {
    /// Its headline.
    pub title: String,
    /// For people.
    pub text: String,
    /// `INFO`, `WARN` or `ERROR`.
    pub severity: String,
    /// When.
    pub at_ms: i64,
}

/// Adds an alert.
pub fn add_alert(tx: &mut Tx<'_>, run_id: &str, alert: &WandbAlert) -> Result<(), StoreError> {
    let values = bind![run_id, alert.title, alert.text, alert.severity, alert.at_ms];
    tx.insert("wandb_alerts", "run_id, title, text, severity, at_ms", values)
}

/// The alerts of a run, oldest first.
pub fn alerts(tx: &ReadTx<'_>, run_id: &str) -> Result<Vec<WandbAlert>, StoreError> {
    let sql = "SELECT title, text, severity, at_ms FROM wandb_alerts WHERE run_id = ?1 ORDER BY number";
    tx.rows(sql, bind![run_id], |row| {
        let mut fields = Fields::of(row);
        Ok(WandbAlert {
            title: fields.next()?,
            text: fields.next()?,
            severity: fields.next()?,
            at_ms: fields.next()?,
        })
    })
}

/// Sets parameters of a tracked run. MLflow's are written once; W&B's follow the run's configuration, which may change.
pub fn set_params(tx: &mut Tx<'_>, number: i64, params: &[(String, String)]) -> Result<(), StoreError> {
    let rows: Vec<_> = params
        .iter()
        .map(|(key, value)| (number, key.as_str(), value.as_str()))
        .collect();
    let tail = " ON CONFLICT (run, key) DO UPDATE SET value = excluded.value";
    tx.insert_rows("run_params", "run, key, value", tail, &rows, |row, out| {
        out.extend_from_slice(&[&row.0, &row.1, &row.2]);
    })
}
