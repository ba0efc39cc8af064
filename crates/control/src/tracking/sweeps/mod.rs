//! Sweeps: searches over parameters that the server decides and clients run, W&B's agents or anybody by our own API; and our own
//! trainings, see [`crate::pipeline`].
//!
//! [`space`] reads what is searched; [`suggest`] and [`hyperband`] decide, as pure functions; the rest keeps what they decided.

mod agents;
mod hyperband;
mod space;
mod suggest;
#[cfg(test)]
mod tests;

use serde_json::Value;
use tidemill_core::digest::Digest;
use tidemill_core::ids;
use tidemill_store::sweeps::{self, Sweep, SweepState, Trial, TrialState};
use tidemill_store::{ReadTx, StoreError, Tx};

use crate::tracking::{Caller, Result, Tracking, TrackingError};

pub use agents::Command;
pub(in crate::tracking) use agents::{RunNews, tell};
pub use space::Space;
pub(crate) use suggest::{Observation, suggest};

/// How many trials a list of sweeps reads at most.
pub const MOST_LISTED: u32 = 1_000;

/// What a caller says of a sweep; what is absent stays as it is.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SweepChange {
    /// Which one; none for a new one.
    pub sweep_id: Option<String>,
    /// User or team.
    pub entity: String,
    /// The project, which names the experiment.
    pub project: String,
    /// What is searched: a mapping, or YAML in a text.
    pub config: Option<Value>,
    /// For people.
    pub display_name: Option<String>,
    /// Such as `PAUSED`.
    pub state: Option<String>,
}

/// What a trial of our own API reports.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Report {
    /// The sweep's metric.
    pub value: Option<f64>,
    /// The trial's own count; the number of reports so far where it is absent.
    pub step: Option<i64>,
    /// How it ended, if it did.
    pub ended: Option<TrialState>,
}

fn unknown(sweep_id: &str) -> TrackingError {
    TrackingError::not_found(format!("there is no sweep `{sweep_id}`"))
}

/// Reads a configuration that may be YAML in a text, as W&B's client sends it.
fn read_config(config: &Value) -> Result<Value> {
    let Value::String(text) = config else {
        return Ok(config.clone());
    };
    serde_saphyr::from_str(text)
        .map_err(|e| TrackingError::invalid(format!("sweep: the YAML cannot be read: {e}")))
}

/// Eight letters and digits, as W&B's ids are.
pub(crate) fn short_id(parts: &[&[u8]]) -> String {
    Digest::of_parts(parts.iter().copied())
        .to_string()
        .chars()
        .take(8)
        .collect()
}

impl Tracking {
    /// Makes a sweep, or changes one.
    pub async fn put_sweep(&self, caller: &Caller, change: SweepChange) -> Result<Sweep> {
        let config = change.config.as_ref().map(read_config).transpose()?;
        if let Some(config) = &config {
            Space::read(config)?;
        }
        let state: Option<SweepState> = match change.state.as_deref() {
            Some(word) => Some(word.to_ascii_uppercase().parse().map_err(
                |e: tidemill_store::UnknownWord| TrackingError::invalid(format!("sweep: `state`: {e}")),
            )?),
            None => None,
        };
        if change.sweep_id.is_none() && config.is_none() {
            return Err(TrackingError::invalid("sweep: `config` is missing"));
        }
        let (workspace, now, now_ms) = (caller.workspace.clone(), self.now(), self.now_ms());
        let known = change.sweep_id.clone();
        let stored = self
            .store()
            .write(move |tx| {
                let mut sweep = match &change.sweep_id {
                    Some(sweep_id) => match sweeps::get(tx, &workspace, sweep_id)? {
                        Some(sweep) => sweep,
                        None => return Ok(None),
                    },
                    None => {
                        let sweep_id = short_id(&[ids::fresh(now).as_bytes()]);
                        let seed = config
                            .as_ref()
                            .and_then(|config| config.get("seed"))
                            .and_then(Value::as_i64);
                        Sweep {
                            seed: seed.unwrap_or_else(|| seed_of(&sweep_id)),
                            display_name: sweep_id.clone(),
                            sweep_id,
                            workspace,
                            entity: change.entity,
                            project: change.project,
                            config: Value::Null,
                            state: SweepState::Pending,
                            created_ms: now_ms,
                            updated_ms: now_ms,
                        }
                    }
                };
                let name = config
                    .as_ref()
                    .and_then(|config| config.get("name"))
                    .and_then(Value::as_str);
                if let Some(name) = change.display_name.or_else(|| name.map(str::to_owned)) {
                    sweep.display_name = name;
                }
                sweep.config = config.unwrap_or(sweep.config);
                sweep.state = state.unwrap_or(sweep.state);
                sweep.updated_ms = now_ms;
                sweeps::put(tx, &sweep)?;
                let payload = serde_json::json!({ "project": sweep.project, "state": sweep.state });
                tx.event(now, "sweep.changed", "sweep", &sweep.sweep_id, payload)?;
                Ok(Some(sweep))
            })
            .await?;
        stored.ok_or_else(|| unknown(&known.unwrap_or_default()))
    }

    /// A sweep with its trials.
    pub async fn get_sweep(&self, caller: &Caller, sweep_id: &str) -> Result<(Sweep, Vec<Trial>)> {
        let (workspace, wanted) = (caller.workspace.clone(), sweep_id.to_owned());
        let found = self
            .store()
            .read(move |tx| {
                let Some(sweep) = sweeps::get(tx, &workspace, &wanted)? else {
                    return Ok(None);
                };
                let trials = sweeps::trials(tx, &wanted)?;
                Ok(Some((sweep, trials)))
            })
            .await?;
        found.ok_or_else(|| unknown(sweep_id))
    }

    /// Sweeps, latest first.
    pub async fn list_sweeps(&self, caller: &Caller, project: Option<String>) -> Result<Vec<Sweep>> {
        let workspace = caller.workspace.clone();
        let listed = self
            .store()
            .read(move |tx| sweeps::list(tx, &workspace, project.as_deref(), MOST_LISTED))
            .await?;
        Ok(listed)
    }

    /// The next trial of a sweep, or none when it gives out no more.
    pub async fn next_trial(&self, caller: &Caller, sweep_id: &str) -> Result<Option<Trial>> {
        let (workspace, wanted, now_ms) = (caller.workspace.clone(), sweep_id.to_owned(), self.now_ms());
        let found = self
            .store()
            .write(move |tx| {
                let Some(sweep) = sweeps::get(tx, &workspace, &wanted)? else {
                    return Ok(None);
                };
                give_out(tx, sweep, None, now_ms).map(Some)
            })
            .await?;
        found.ok_or_else(|| unknown(sweep_id))
    }

    /// Stores what a trial reports; whether it should stop now.
    pub async fn report_trial(
        &self,
        caller: &Caller,
        sweep_id: &str,
        number: i64,
        report: Report,
    ) -> Result<bool> {
        if report.value.is_some_and(|value| !value.is_finite()) && report.ended.is_none() {
            return Err(TrackingError::invalid(
                "sweep: a report's `value` must be a finite number",
            ));
        }
        let (workspace, wanted, now_ms) = (caller.workspace.clone(), sweep_id.to_owned(), self.now_ms());
        let found = self
            .store()
            .write(move |tx| {
                let Some(sweep) = sweeps::get(tx, &workspace, &wanted)? else {
                    return Ok(None);
                };
                let Some(mut trial) = sweeps::trial(tx, &wanted, number)? else {
                    return Ok(None);
                };
                if let Some(value) = report.value.filter(|value| value.is_finite()) {
                    let reported = sweeps::points(tx, &wanted)?;
                    let next = reported
                        .iter()
                        .filter(|point| point.trial == number)
                        .map(|point| point.step + 1)
                        .max();
                    let step = report.step.unwrap_or(next.unwrap_or(0));
                    sweeps::put_point(
                        tx,
                        &wanted,
                        sweeps::Point {
                            trial: number,
                            step,
                            value,
                        },
                    )?;
                    trial.objective = Some(value);
                }
                trial.state = report.ended.unwrap_or(trial.state);
                trial.updated_ms = now_ms;
                sweeps::put_trial(tx, &wanted, &trial)?;
                let stop = trial.state == TrialState::Running && stopped_early(tx, &sweep)?.contains(&number);
                if stop {
                    trial.state = TrialState::Stopped;
                    sweeps::put_trial(tx, &wanted, &trial)?;
                }
                Ok(Some(stop))
            })
            .await?;
        found.ok_or_else(|| {
            TrackingError::not_found(format!("there is no trial {number} of a sweep `{sweep_id}`"))
        })
    }
}

/// A sweep that names no seed gets one from its id.
fn seed_of(sweep_id: &str) -> i64 {
    let digest = Digest::of(sweep_id.as_bytes());
    let mut first = [0_u8; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    // Short enough to be written in JSON without loss.
    (u64::from_le_bytes(first) >> 12) as i64
}

fn space_of(sweep: &Sweep) -> std::result::Result<Space, StoreError> {
    Space::read(&sweep.config).map_err(|error| StoreError::conflict("sweep", error.to_string()))
}

/// Gives out the next trial, and ends the sweep when there is none and none runs.
fn give_out(
    tx: &mut Tx<'_>,
    mut sweep: Sweep,
    agent: Option<&str>,
    now_ms: i64,
) -> std::result::Result<Option<Trial>, StoreError> {
    if !matches!(sweep.state, SweepState::Pending | SweepState::Running) {
        return Ok(None);
    }
    let trials = sweeps::trials(tx, &sweep.sweep_id)?;
    let number = trials.len() as i64;
    let past: Vec<Observation> = trials
        .iter()
        .filter(|trial| trial.state != TrialState::Running)
        .map(|trial| Observation {
            params: trial.params.clone(),
            objective: trial
                .objective
                .filter(|_| trial.state != TrialState::Failed)
                .unwrap_or(f64::NAN),
        })
        .collect();
    let space = space_of(&sweep)?;
    let Some(params) = suggest(&space, sweep.seed, number, &past) else {
        let running = trials.iter().any(|trial| trial.state == TrialState::Running);
        if !running {
            sweep.state = SweepState::Finished;
            sweep.updated_ms = now_ms;
            sweeps::put(tx, &sweep)?;
        }
        return Ok(None);
    };
    if sweep.state == SweepState::Pending {
        sweep.state = SweepState::Running;
        sweep.updated_ms = now_ms;
        sweeps::put(tx, &sweep)?;
    }
    let trial = Trial {
        number,
        run_name: short_id(&[sweep.sweep_id.as_bytes(), &number.to_le_bytes()]),
        agent: agent.map(str::to_owned),
        params,
        state: TrialState::Running,
        objective: None,
        created_ms: now_ms,
        updated_ms: now_ms,
    };
    sweeps::put_trial(tx, &sweep.sweep_id, &trial)?;
    Ok(Some(trial))
}

/// The trials of a sweep that early stopping would end now.
fn stopped_early(tx: &ReadTx<'_>, sweep: &Sweep) -> std::result::Result<Vec<i64>, StoreError> {
    let space = space_of(sweep)?;
    let Some(rule) = &space.early else {
        return Ok(Vec::new());
    };
    let points = sweeps::points(tx, &sweep.sweep_id)?;
    let trials = sweeps::trials(tx, &sweep.sweep_id)?;
    let curves: Vec<hyperband::Curve> = trials
        .iter()
        .map(|trial| hyperband::Curve {
            trial: trial.number,
            running: trial.state == TrialState::Running,
            values: points
                .iter()
                .filter(|p| p.trial == trial.number)
                .map(|p| p.value)
                .collect(),
        })
        .collect();
    Ok(hyperband::to_stop(rule, space.maximize, &curves))
}
