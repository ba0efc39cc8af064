//! Runs as W&B's client starts, changes and resumes them.

use serde_json::Value;
use tidemill_core::ids;
use tidemill_store::tracking::Lifecycle;
use tidemill_store::tracking::experiments::{self, NewExperiment};
use tidemill_store::tracking::runs::{self as tracked, RunHead, RunStatus};
use tidemill_store::tracking::tags;
use tidemill_store::wandb::runs::{self, WandbName, WandbRun, WandbState};
use tidemill_store::{StoreError, Tx};

use super::alerts::unknown_run;
use super::lines;
use super::values::{LONGEST_TAG, cut};
use super::{SILENCE_MS, name_of, run_id};
use crate::tracking::{Caller, Result, Tracking, TrackingError, automations, locations};

/// How many silent runs are declared crashed in one transaction.
const BATCH: u32 = 500;

/// What a client says of a run; what is absent stays as it is.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RunChange {
    /// What we answered as its id, if the client knows it.
    pub id: Option<String>,
    /// The run's name in its project.
    pub name: Option<String>,
    /// User or team.
    pub entity: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// For people.
    pub display_name: Option<String>,
    /// `{"key": {"value": …}}`.
    pub config: Option<Value>,
    /// The latest values.
    pub summary: Option<Value>,
    /// For people.
    pub notes: Option<String>,
    /// A list of words.
    pub tags: Option<Value>,
    /// Which runs it belongs to.
    pub group: Option<String>,
    /// What it does in its group.
    pub job_type: Option<String>,
    /// The sweep that started it.
    pub sweep: Option<String>,
    /// On which machine.
    pub host: Option<String>,
    /// Which script.
    pub program: Option<String>,
    /// Of the script's repository.
    pub commit: Option<String>,
}

/// What became of a change.
#[derive(Clone, PartialEq, Debug)]
pub struct Upserted {
    /// The run as it is now.
    pub run: WandbRun,
    /// Whether it is new.
    pub inserted: bool,
}

enum Made {
    Run(Box<WandbRun>, bool),
    DeletedExperiment,
}

impl Tracking {
    /// Starts a run, or changes one.
    pub async fn wandb_upsert_run(&self, caller: &Caller, change: RunChange) -> Result<Upserted> {
        let now = self.now();
        let fresh = || ids::fresh(now).chars().rev().take(8).collect();
        let name: String = change
            .name
            .clone()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(fresh);
        let at = name_of(caller, change.entity.as_deref(), change.project.as_deref(), &name);
        let (root, user, now_ms) = (
            self.options().default_artifact_root.clone(),
            caller.user.clone(),
            self.now_ms(),
        );
        let project = at.project.clone();
        let made = self
            .store()
            .write(move |tx| {
                let known = match &change.id {
                    Some(id) => runs::get(tx, id)?.filter(|run| run.at.workspace == at.workspace),
                    None => None,
                };
                let known = match known {
                    Some(run) => Some(run),
                    None => runs::find(tx, &at)?,
                };
                if let Some(mut run) = known {
                    let number = number_of(tx, &run)?;
                    apply(tx, &mut run, number, change, now_ms)?;
                    return Ok(Made::Run(Box::new(run), false));
                }
                let start = Start {
                    root: &root,
                    user: &user,
                    now_ms,
                };
                let Some((mut run, number)) = begin(tx, at, &change, &start)? else {
                    return Ok(Made::DeletedExperiment);
                };
                apply(tx, &mut run, number, change, now_ms)?;
                let payload = serde_json::json!({ "project": run.at.project, "wandb": run.at.name });
                tx.event(now, "tracked_run.started", "tracked_run", &run.run_id, payload)?;
                Ok(Made::Run(Box::new(run), true))
            })
            .await?;
        match made {
            Made::Run(run, inserted) => Ok(Upserted { run: *run, inserted }),
            Made::DeletedExperiment => Err(TrackingError::InvalidState(format!(
                "the project `{project}` is deleted: restore its experiment first"
            ))),
        }
    }

    /// A run, if there is one.
    pub async fn wandb_find_run(&self, at: WandbName) -> Result<Option<WandbRun>> {
        Ok(self.store().read(move |tx| runs::find(tx, &at)).await?)
    }

    /// Whether a project has runs.
    pub async fn wandb_has_project(&self, at: WandbName) -> Result<bool> {
        let read = move |tx: &tidemill_store::ReadTx<'_>| {
            runs::has_project(tx, &at.workspace, &at.entity, &at.project)
        };
        Ok(self.store().read(read).await?)
    }

    /// Asks a run to stop: its client hears of it with its next lines.
    pub async fn wandb_stop_run(&self, caller: &Caller, id: &str) -> Result<()> {
        let (wanted, workspace) = (id.to_owned(), caller.workspace.clone());
        let there = self
            .store()
            .write(move |tx| {
                let Some(mut run) = runs::get(tx, &wanted)?.filter(|run| run.at.workspace == workspace)
                else {
                    return Ok(false);
                };
                run.stop_requested = true;
                runs::put(tx, &run)?;
                Ok(true)
            })
            .await?;
        if there { Ok(()) } else { Err(unknown_run(id)) }
    }

    /// Declares runs crashed that have said nothing for too long; how many. One that speaks again lives again.
    pub async fn wandb_expire(&self) -> Result<usize> {
        let (now, now_ms) = (self.now(), self.now_ms());
        let before = now_ms - SILENCE_MS;
        let any = self
            .store()
            .read(move |tx| runs::silent_since(tx, before, 1))
            .await?;
        if any.is_empty() {
            return Ok(0);
        }
        let expired = self
            .store()
            .write(move |tx| {
                let silent = runs::silent_since(tx, before, BATCH)?;
                for run in &silent {
                    let mut run = run.clone();
                    run.state = WandbState::Crashed;
                    let number = number_of(tx, &run)?;
                    end(tx, &run, number, run.heartbeat_ms)?;
                    runs::put(tx, &run)?;
                    let payload = serde_json::json!({ "last_heard_of_ms": run.heartbeat_ms });
                    tx.event(now, "tracked_run.crashed", "tracked_run", &run.run_id, payload)?;
                }
                Ok(silent.len())
            })
            .await?;
        Ok(expired)
    }

    /// Console output of a run from a line on.
    pub async fn wandb_console(
        &self,
        caller: &Caller,
        id: &str,
        from: i64,
        limit: u32,
    ) -> Result<Vec<(i64, String)>> {
        let (wanted, workspace) = (id.to_owned(), caller.workspace.clone());
        let lines = self
            .store()
            .read(
                move |tx| match runs::get(tx, &wanted)?.filter(|run| run.at.workspace == workspace) {
                    Some(_) => runs::log_lines(tx, &wanted, from, limit).map(Some),
                    None => Ok(None),
                },
            )
            .await?;
        lines.ok_or_else(|| unknown_run(id))
    }
}

struct Start<'a> {
    root: &'a str,
    user: &'a str,
    now_ms: i64,
}

/// The number of the tracked run.
pub(super) fn number_of(tx: &Tx<'_>, run: &WandbRun) -> std::result::Result<tracked::RunKey, StoreError> {
    tracked::find(tx, &run.at.workspace, &run.run_id)?
        .ok_or_else(|| StoreError::not_found("run", &run.run_id))
}

/// Adds the tracked run, and the experiment if it is new; none if the experiment is deleted.
fn begin(
    tx: &mut Tx<'_>,
    at: WandbName,
    change: &RunChange,
    start: &Start<'_>,
) -> std::result::Result<Option<(WandbRun, tracked::RunKey)>, StoreError> {
    let experiment = match experiments::id_by_name(tx, &at.workspace, &at.project)? {
        Some(id) => id,
        None => {
            let new = NewExperiment {
                workspace: &at.workspace,
                name: &at.project,
                created_ms: start.now_ms,
            };
            let made = experiments::insert(tx, &new, |id| locations::append(start.root, &id.to_string()))?;
            made.ok_or_else(|| StoreError::conflict("experiment", format!("`{}` was just made", at.project)))?
        }
    };
    let Some(head) = experiments::head(tx, &at.workspace, experiment)? else {
        return Err(StoreError::not_found("experiment", experiment));
    };
    if head.lifecycle != Lifecycle::Active {
        return Ok(None);
    }
    let run_id = run_id(&at);
    let display_name = change.display_name.clone().filter(|name| !name.is_empty());
    let display_name = display_name.unwrap_or_else(|| at.name.clone());
    let number = tracked::insert(
        tx,
        &RunHead {
            number: 0,
            run_id: run_id.clone(),
            experiment,
            name: display_name.clone(),
            user_id: if start.user.is_empty() {
                at.entity.clone()
            } else {
                start.user.to_owned()
            },
            status: RunStatus::Running,
            lifecycle: Lifecycle::Active,
            start_ms: start.now_ms,
            end_ms: None,
            deleted_ms: None,
            artifact_uri: locations::append(&head.artifact_location, &format!("{run_id}/artifacts")),
        },
    )?;
    let run = WandbRun {
        run_id,
        at,
        display_name,
        config: Value::Object(serde_json::Map::new()),
        summary: Value::Object(serde_json::Map::new()),
        tags: Value::Array(Vec::new()),
        notes: String::new(),
        group: String::new(),
        job_type: String::new(),
        sweep: None,
        state: WandbState::Running,
        exit_code: None,
        created_ms: start.now_ms,
        heartbeat_ms: start.now_ms,
        history_lines: 0,
        events_lines: 0,
        log_lines: 0,
        history_tail: String::new(),
        events_tail: String::new(),
        stop_requested: false,
    };
    let key = tracked::RunKey {
        number,
        experiment,
        lifecycle: Lifecycle::Active,
    };
    Ok(Some((run, key)))
}

/// Brings a run and its tracked run to what the client says.
fn apply(
    tx: &mut Tx<'_>,
    run: &mut WandbRun,
    key: tracked::RunKey,
    change: RunChange,
    now_ms: i64,
) -> std::result::Result<(), StoreError> {
    let mut set: Vec<(&str, String)> = vec![
        ("wandb.run_id", run.at.name.clone()),
        ("wandb.entity", run.at.entity.clone()),
        ("wandb.project", run.at.project.clone()),
    ];
    if let Some(name) = change.display_name.filter(|name| !name.is_empty()) {
        run.display_name = name;
    }
    set.push(("mlflow.runName", run.display_name.clone()));
    set.push(("mlflow.user", run.at.entity.clone()));
    let texts = [
        (change.notes, &mut run.notes, "mlflow.note.content"),
        (change.group, &mut run.group, "wandb.group"),
        (change.job_type, &mut run.job_type, "wandb.job_type"),
    ];
    for (told, held, tag) in texts {
        if let Some(told) = told {
            set.push((tag, told.clone()));
            *held = told;
        }
    }
    if let Some(tags) = change.tags {
        set.push(("wandb.tags", tags.to_string()));
        run.tags = tags;
    }
    if let Some(sweep) = change.sweep {
        set.push(("wandb.sweep", sweep.clone()));
        run.sweep = Some(sweep);
    }
    let told = [
        (change.host, "wandb.host"),
        (change.program, "mlflow.source.name"),
        (change.commit, "mlflow.source.git.commit"),
    ];
    for (told, tag) in told {
        set.extend(told.map(|told| (tag, told)));
    }
    if let Some(config) = change.config {
        runs::set_params(tx, key.number, &lines::params(&config))?;
        run.config = config;
    }
    if let Some(summary) = change.summary {
        run.summary = summary;
    }
    run.heartbeat_ms = run.heartbeat_ms.max(now_ms);
    let cut_tags: Vec<(&str, String)> = set
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key, cut(&value, LONGEST_TAG)))
        .collect();
    let borrowed: Vec<(&str, &str)> = cut_tags
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    tags::set(tx, key.number, &borrowed)?;
    let renamed = tracked::RunChange {
        name: Some(run.display_name.clone()),
        ..tracked::RunChange::default()
    };
    tracked::update(tx, key.number, &renamed)?;
    runs::put(tx, run)
}

/// Brings the tracked run to the state that the run is in.
pub(super) fn end(
    tx: &mut Tx<'_>,
    run: &WandbRun,
    key: tracked::RunKey,
    at_ms: i64,
) -> std::result::Result<(), StoreError> {
    let status = match run.state {
        WandbState::Running => RunStatus::Running,
        WandbState::Finished => RunStatus::Finished,
        WandbState::Killed => RunStatus::Killed,
        WandbState::Failed | WandbState::Crashed => RunStatus::Failed,
    };
    let end_ms = (run.state != WandbState::Running).then_some(at_ms);
    let change = tracked::RunChange {
        status: Some(status),
        end_ms,
        name: None,
    };
    tracked::update(tx, key.number, &change)?;
    if run.state != WandbState::Running {
        let of = (key, run.run_id.as_str());
        automations::fire_finished(tx, &run.at.workspace, of, status.as_str(), end_ms)?;
    }
    tags::set(tx, key.number, &[("wandb.state", run.state.as_str())])
}
