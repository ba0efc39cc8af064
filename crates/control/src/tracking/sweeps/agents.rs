//! Agents: clients that ask for trials, run them, and tell every few seconds which of them still run.

use serde_json::{Map, Value, json};
use tidemill_core::ids;
use tidemill_store::sweeps::{self, Point, SweepState, TrialState};
use tidemill_store::{StoreError, Tx};

use super::{give_out, stopped_early, unknown};
use crate::tracking::{Caller, Result, Tracking, TrackingError};

/// What an agent is told to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Start a run with these parameters.
    Run {
        /// The W&B id that the run must take.
        run_name: String,
        /// `{"name": value}`.
        params: Value,
    },
    /// End a run.
    Stop {
        /// The W&B id of the run.
        run_name: String,
    },
    /// Ask no more.
    Exit,
}

impl Command {
    /// As W&B's agents read it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Run { run_name, params } => {
                let args: Map<String, Value> = params
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, value)| (name.clone(), json!({ "value": value })))
                    .collect();
                json!({ "type": "run", "run_id": run_name, "args": args })
            }
            Self::Stop { run_name } => json!({ "type": "stop", "run_id": run_name }),
            Self::Exit => json!({ "type": "exit" }),
        }
    }
}

impl Tracking {
    /// Registers an agent of a sweep and returns its id.
    pub async fn create_agent(&self, caller: &Caller, sweep_id: &str, host: &str) -> Result<String> {
        let agent_id = ids::fresh(self.now());
        let (id, workspace, wanted) = (agent_id.clone(), caller.workspace.clone(), sweep_id.to_owned());
        let (host, now_ms) = (host.to_owned(), self.now_ms());
        let there = self
            .store()
            .write(move |tx| {
                let there = sweeps::get(tx, &workspace, &wanted)?.is_some();
                if there {
                    sweeps::put_agent(tx, &id, &wanted, &host, now_ms)?;
                }
                Ok(there)
            })
            .await?;
        there.then_some(agent_id).ok_or_else(|| unknown(sweep_id))
    }

    /// An agent tells which runs it has under way, and gets at most one command: a run to stop first, else one to start if it has
    /// none.
    pub async fn agent_heartbeat(
        &self,
        caller: &Caller,
        agent_id: &str,
        runs: Vec<String>,
    ) -> Result<Option<Command>> {
        let (id, workspace, now_ms) = (agent_id.to_owned(), caller.workspace.clone(), self.now_ms());
        let answer = self
            .store()
            .write(move |tx| {
                let Some((sweep_id, host)) = sweeps::agent(tx, &id)? else {
                    return Ok(None);
                };
                let Some(sweep) = sweeps::get(tx, &workspace, &sweep_id)? else {
                    return Ok(None);
                };
                sweeps::put_agent(tx, &id, &sweep_id, &host, now_ms)?;
                let to_stop = match sweep.state {
                    SweepState::Canceled => None,
                    _ => Some(stopped_early(tx, &sweep)?),
                };
                for run_name in &runs {
                    let Some(mut trial) = sweeps::trial_of_run(tx, &sweep_id, run_name)? else {
                        continue;
                    };
                    if to_stop
                        .as_ref()
                        .is_none_or(|trials| trials.contains(&trial.number))
                    {
                        trial.state = TrialState::Stopped;
                        trial.updated_ms = now_ms;
                        sweeps::put_trial(tx, &sweep_id, &trial)?;
                        return Ok(Some(Some(Command::Stop {
                            run_name: trial.run_name,
                        })));
                    }
                }
                if !runs.is_empty() || sweep.state == SweepState::Paused {
                    return Ok(Some(None));
                }
                let trial = give_out(tx, sweep, Some(&id), now_ms)?;
                Ok(Some(Some(trial.map_or(Command::Exit, |trial| Command::Run {
                    run_name: trial.run_name,
                    params: trial.params,
                }))))
            })
            .await?;
        answer.ok_or_else(|| {
            TrackingError::not_found(format!("there is no agent `{agent_id}`, or its sweep is gone"))
        })
    }
}

/// What a run of a sweep measured of the sweep's metric, as it arrives.
pub(in crate::tracking) struct RunNews<'a> {
    pub sweep_id: &'a str,
    pub run_name: &'a str,
    /// Steps and values of the metric, from the run's history.
    pub points: Vec<(i64, f64)>,
    /// The metric in the run's summary.
    pub objective: Option<f64>,
    /// How the run ended, if it did.
    pub ended: Option<TrialState>,
}

/// Stores news of a run under its trial. A run that no trial was given out for is let be.
pub(in crate::tracking) fn tell(
    tx: &mut Tx<'_>,
    workspace: &str,
    news: RunNews<'_>,
    now_ms: i64,
) -> std::result::Result<(), StoreError> {
    let Some(mut trial) = sweeps::trial_of_run(tx, news.sweep_id, news.run_name)? else {
        return Ok(());
    };
    if sweeps::get(tx, workspace, news.sweep_id)?.is_none() {
        return Ok(());
    }
    for (step, value) in news.points.iter().filter(|(_, value)| value.is_finite()) {
        let point = Point {
            trial: trial.number,
            step: *step,
            value: *value,
        };
        sweeps::put_point(tx, news.sweep_id, point)?;
        trial.objective = Some(*value);
    }
    trial.objective = news.objective.or(trial.objective);
    if let Some(ended) = news.ended
        && trial.state != TrialState::Stopped
    {
        trial.state = ended;
    }
    trial.updated_ms = now_ms;
    sweeps::put_trial(tx, news.sweep_id, &trial)
}
