//! The search before a training: trials on the older part of the rows that may be trained on, each measured on the newer part. The
//! hold-out has no say, so that the gate judges the winner on rows that chose nothing.
//!
//! A sweep of a training is a sweep like those of W&B's agents (`/api/v1/sweeps` shows it), and each of its trials is a run below the
//! training's own. What to try next follows from seed and earlier trials alone, so a training that was interrupted goes on with the
//! trial it was at, and one that is reproduced finds the same winner.

use serde_json::{Value, json};
use tidemill_core::digest::Digest;
use tidemill_core::ports::{Blame, LabelledRows, PortError};
use tidemill_core::snapshot::SnapshotManifest;
use tidemill_core::spec::{Metric, Spec, SweepMethod, TrainingSpec};
use tidemill_store::runs::{self, RunRow, RunUpdate};
use tidemill_store::sweeps::{self, Sweep, SweepState, Trial, TrialState};
use tidemill_store::{StoreError, Tx};

use crate::context::Context;
use crate::error::{ControlError, Result};
use crate::pipeline::train::{self, Split};
use crate::pipeline::{key, tracked};
use crate::tracking::DEFAULT_WORKSPACE;
use crate::tracking::sweeps::{Observation, Space, short_id, suggest};

/// What a search found.
pub(super) struct Found {
    /// The settings to train with.
    pub settings: TrainingSpec,
    /// For the step's record: the sweep, its trials, the winner.
    pub detail: Value,
}

/// The sweep of a spec as W&B writes one; null where it has none.
pub(super) fn config(spec: &Spec) -> Value {
    let Some(sweep) = &spec.training.sweep else {
        return Value::Null;
    };
    let metric = metric(spec);
    let goal = if metric.is_some_and(Metric::higher_is_better) {
        "maximize"
    } else {
        "minimize"
    };
    json!({
        "method": match sweep.method {
            SweepMethod::Grid => "grid",
            SweepMethod::Random => "random",
            SweepMethod::Bayes => "bayes",
        },
        "metric": { "name": metric.map(Metric::name), "goal": goal },
        "parameters": sweep.parameters,
        "run_cap": sweep.trials,
        "seed": spec.training.seed,
    })
}

/// What a sweep of the spec optimises.
fn metric(spec: &Spec) -> Option<Metric> {
    let asked = spec.training.sweep.as_ref().and_then(|sweep| sweep.metric);
    asked.or_else(|| spec.metrics().first().copied())
}

/// What a sweep of the spec searches.
fn space(spec: &Spec) -> Result<Space> {
    Space::read(&config(spec)).map_err(|error| refused(&error.to_string()))
}

/// What a sweep of the spec draws from.
fn seed(spec: &Spec) -> i64 {
    i64::try_from(spec.training.seed).unwrap_or(i64::MAX)
}

/// Refuses a sweep whose parameters cannot be read.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    if spec.training.sweep.is_none() {
        return Ok(());
    }
    let space = space(spec)?;
    // The least and the greatest of a range may be out of bounds where a point between them is not.
    if let Some(first) = suggest(&space, 0, 0, &[]) {
        with_params(&spec.training, &first)?;
    }
    Ok(())
}

fn refused(message: &str) -> ControlError {
    ControlError::Refused {
        code: "training_sweep",
        message: format!("`training.sweep`: {message}"),
    }
}

/// The settings of a training with a trial's parameters in them.
pub(crate) fn with_params(training: &TrainingSpec, params: &Value) -> Result<TrainingSpec> {
    let mut settings = training.clone();
    for (name, value) in params.as_object().into_iter().flatten() {
        if training.run.is_some() {
            settings.params.insert(name.clone(), value.clone());
            continue;
        }
        match name.as_str() {
            "budget" => {
                let budget = value.as_f64().filter(|budget| (0.01..=3.0).contains(budget));
                settings.budget =
                    budget.ok_or_else(|| refused(&format!("`budget` became {value}: expected 0.01 to 3")))?;
            }
            "iterations" => {
                // A step may have made `40.0` of it.
                let rounds = value.as_f64().filter(|rounds| rounds.fract() == 0.0);
                let rounds = rounds.filter(|rounds| (1.0..=f64::from(u32::MAX)).contains(rounds));
                let rounds = rounds.ok_or_else(|| {
                    refused(&format!(
                        "`iterations` became {value}: expected a whole number of at least 1"
                    ))
                })?;
                settings.iterations = Some(rounds as u32);
            }
            other => {
                return Err(refused(&format!(
                    "the built-in trainer has no parameter `{other}`"
                )));
            }
        }
    }
    Ok(settings)
}

/// The settings that a recorded run was trained with: the spec's, and of a sweep what the record says was chosen.
pub(crate) fn settings_of(spec: &Spec, recorded: &Value) -> Result<TrainingSpec> {
    let Some(sweep) = &spec.training.sweep else {
        return Ok(spec.training.clone());
    };
    let record = if spec.training.run.is_some() {
        &recorded["params"]
    } else {
        recorded
    };
    let chosen = record.as_object().into_iter().flatten();
    let chosen = chosen.filter(|(name, _)| sweep.parameters.contains_key(*name));
    let chosen: serde_json::Map<String, Value> = chosen
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    with_params(&spec.training, &Value::Object(chosen))
}

/// Searches; none where the spec has no sweep.
pub(super) async fn search(
    ctx: &Context,
    run: &RunRow,
    lease: i64,
    manifest: &SnapshotManifest,
    rows: &LabelledRows,
) -> Result<Option<Found>> {
    let Some(metric) = ctx.spec.training.sweep.as_ref().and(metric(&ctx.spec)) else {
        return Ok(None);
    };
    let search = Search {
        ctx,
        run,
        lease,
        metric,
        sweep_id: short_id(&[b"training", run.id.as_str().as_bytes()]),
        space: space(&ctx.spec)?,
    };
    let split = train::split(rows, &ctx.spec.evaluation);
    search.run_trials(manifest, &split).await.map(Some)
}

struct Search<'a> {
    ctx: &'a Context,
    run: &'a RunRow,
    lease: i64,
    metric: Metric,
    sweep_id: String,
    space: Space,
}

/// A trial that was trained and measured, or the reason why not.
type Measured = std::result::Result<f64, String>;

impl Search<'_> {
    async fn run_trials(&self, manifest: &SnapshotManifest, split: &Split) -> Result<Found> {
        let earlier = self.begin().await?;
        let mut past: Vec<Observation> = Vec::new();
        let mut last_error = None;
        let seed = seed(&self.ctx.spec);
        while let Some(params) = suggest(&self.space, seed, past.len() as i64, &past) {
            let number = past.len() as i64;
            let known = earlier.iter().find(|trial| {
                trial.number == number && trial.params == params && trial.state != TrialState::Running
            });
            let objective = if let Some(trial) = known {
                trial.objective.filter(|_| trial.state == TrialState::Finished)
            } else {
                let started = self.start(number, &params).await?;
                let measured = self.measure(&params, manifest, split).await?;
                let objective = measured.as_ref().ok().copied();
                last_error = measured.as_ref().err().cloned().or(last_error);
                self.end(started, measured).await?;
                objective
            };
            let objective = objective.unwrap_or(f64::NAN);
            past.push(Observation { params, objective });
        }
        self.finish().await?;
        let loss = |seen: &Observation| {
            if self.space.maximize {
                -seen.objective
            } else {
                seen.objective
            }
        };
        let measured = past
            .iter()
            .enumerate()
            .filter(|(_, seen)| seen.objective.is_finite());
        // The first of equals.
        let Some((number, best)) = measured.min_by(|(_, a), (_, b)| loss(a).total_cmp(&loss(b))) else {
            let why = last_error.unwrap_or_else(|| "its run, of an earlier attempt, says why".to_owned());
            return Err(PortError::upstream(
                "training_sweep",
                format!(
                    "none of the {} trials of `training.sweep` could be trained and measured; the last: {why}",
                    past.len()
                ),
            )
            .into());
        };
        Ok(Found {
            settings: with_params(&self.ctx.spec.training, &best.params)?,
            detail: json!({
                "sweep": self.sweep_id, "trials": past.len(), "best": number, "params": best.params,
                "metric": self.metric.name(), "value": best.objective,
                "rows": [split.train.labels.rows(), split.holdout.labels.rows()],
            }),
        })
    }

    /// Trains with a trial's parameters and measures. What fails the trial alone is its result; what would fail any is an error.
    async fn measure(&self, params: &Value, manifest: &SnapshotManifest, split: &Split) -> Result<Measured> {
        let settings = with_params(&self.ctx.spec.training, params)?;
        let output = match train::train(self.ctx, &settings, manifest, split.train.clone()).await {
            Ok((output, _)) => output,
            Err(ControlError::Port(error)) if is_the_trials_own(&error) => return Ok(Err(error.to_string())),
            Err(error) => return Err(error),
        };
        let runtime = std::sync::Arc::clone(&self.ctx.runtime);
        let loaded = tokio::task::spawn_blocking(move || runtime.load(&output.bundle)).await;
        let model = match loaded.map_err(ControlError::internal)? {
            Ok(model) => model,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let (metrics, _) = train::measure_on(self.ctx, model, split.holdout.clone()).await?;
        let value = metrics.get(self.metric.name()).map(|measured| measured.value);
        Ok(value.filter(|value| value.is_finite()).ok_or_else(|| {
            format!(
                "`{}` cannot be measured on the {} rows after those it was trained on",
                self.metric.name(),
                split.holdout.labels.rows()
            )
        }))
    }

    /// A change under the run's lease.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> std::result::Result<T, StoreError> + Send + 'static,
    ) -> Result<T> {
        let (id, lease) = (self.run.id.clone(), self.lease);
        let written = self.ctx.store.write(move |tx| {
            runs::update_with_lease(tx, &id, lease, RunUpdate::default())?;
            work(tx)
        });
        Ok(written.await?)
    }

    /// Stores the sweep, and returns the trials of an earlier attempt.
    async fn begin(&self) -> Result<Vec<Trial>> {
        let now_ms = self.ctx.now().as_millis();
        let sweep = Sweep {
            sweep_id: self.sweep_id.clone(),
            workspace: DEFAULT_WORKSPACE.to_owned(),
            entity: "tidemill".to_owned(),
            project: self.ctx.spec.name.clone(),
            display_name: format!("training {}", self.run.id),
            config: config(&self.ctx.spec),
            state: SweepState::Running,
            seed: seed(&self.ctx.spec),
            created_ms: now_ms,
            updated_ms: now_ms,
        };
        self.write(move |tx| {
            let known = sweeps::get(tx, DEFAULT_WORKSPACE, &sweep.sweep_id)?;
            let created_ms = known.map_or(now_ms, |known| known.created_ms);
            sweeps::put(
                tx,
                &Sweep {
                    created_ms,
                    ..sweep.clone()
                },
            )?;
            sweeps::trials(tx, &sweep.sweep_id)
        })
        .await
    }

    async fn finish(&self) -> Result<()> {
        let (sweep_id, now_ms) = (self.sweep_id.clone(), self.ctx.now().as_millis());
        self.write(move |tx| {
            let Some(mut sweep) = sweeps::get(tx, DEFAULT_WORKSPACE, &sweep_id)? else {
                return Ok(());
            };
            (sweep.state, sweep.updated_ms) = (SweepState::Finished, now_ms);
            sweeps::put(tx, &sweep)
        })
        .await
    }

    async fn start(&self, number: i64, params: &Value) -> Result<Trial> {
        let now = self.ctx.now();
        let trial = Trial {
            number,
            run_name: short_id(&[self.sweep_id.as_bytes(), &number.to_le_bytes()]),
            agent: None,
            params: params.clone(),
            state: TrialState::Running,
            objective: None,
            created_ms: now.as_millis(),
            updated_ms: now.as_millis(),
        };
        let (stored, sweep_id) = (trial.clone(), self.sweep_id.clone());
        let (parent, project) = (self.run.id.clone(), self.ctx.spec.name.clone());
        self.write(move |tx| {
            sweeps::put_trial(tx, &sweep_id, &stored)?;
            let id = run_id(parent.as_str(), stored.number);
            tracked::begin_trial(
                tx,
                &project,
                parent.as_str(),
                (&id, &sweep_id, stored.number),
                now,
            )
        })
        .await?;
        Ok(trial)
    }

    async fn end(&self, mut trial: Trial, measured: Measured) -> Result<()> {
        let now = self.ctx.now();
        trial.updated_ms = now.as_millis();
        trial.objective = measured.as_ref().ok().copied();
        trial.state = match measured {
            Ok(_) => TrialState::Finished,
            Err(_) => TrialState::Failed,
        };
        let settings = with_params(&self.ctx.spec.training, &trial.params)?;
        let (sweep_id, id) = (self.sweep_id.clone(), run_id(self.run.id.as_str(), trial.number));
        let (metric, told) = (self.metric.name(), key::params(&settings));
        self.write(move |tx| {
            sweeps::put_trial(tx, &sweep_id, &trial)?;
            if let Some(value) = trial.objective {
                let point = sweeps::Point {
                    trial: trial.number,
                    step: 0,
                    value,
                };
                sweeps::put_point(tx, &sweep_id, point)?;
            }
            tracked::end_trial(tx, &id, &told, (metric, measured), now)
        })
        .await
    }
}

/// Whether the parameters may be what a training failed for. What this machine failed for is no result: the trial is tried again.
fn is_the_trials_own(error: &PortError) -> bool {
    error.blame == Blame::Caller
        || matches!(
            error.code,
            "training_command" | "training_timeout" | "training_output"
        )
}

/// The id of a trial's run: the same in every attempt.
fn run_id(parent: &str, number: i64) -> String {
    let digest = Digest::of_parts([parent.as_bytes(), b"trial".as_slice(), &number.to_le_bytes()]);
    digest.to_string().chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn spec(sweep: &str) -> Spec {
        let text = format!(
            "name: m\ndata:\n  source: a.csv\nlabel:\n  name: y\n  task: binary\nfeatures:\n  x: numeric\ntraining:\n{sweep}"
        );
        tidemill_core::spec::parse(Path::new("tidemill.yaml"), &text).unwrap()
    }

    #[test]
    fn a_sweep_is_written_in_the_words_of_wandb_and_optimises_the_leading_metric() {
        let spec = spec("  sweep:\n    trials: 3\n    parameters:\n      iterations: {min: 5, max: 50}\n");
        let config = config(&spec);
        assert_eq!(config["metric"], json!({ "name": "auc", "goal": "maximize" }));
        assert_eq!(
            (config["method"].as_str(), config["run_cap"].as_u64()),
            (Some("bayes"), Some(3))
        );
        check(&spec).unwrap();
    }

    #[test]
    fn parameters_reach_the_built_in_trainer_checked_and_a_command_as_they_are() {
        let built_in = spec("  budget: 1.0\n").training;
        let settings = with_params(&built_in, &json!({ "budget": 0.25, "iterations": 40.0 })).unwrap();
        assert_eq!((settings.budget, settings.iterations), (0.25, Some(40)));
        for wrong in [
            json!({ "budget": 9.0 }),
            json!({ "iterations": 1.5 }),
            json!({ "depth": 3 }),
        ] {
            let error = with_params(&built_in, &wrong).unwrap_err();
            assert_eq!(error.code(), "training_sweep", "{error}");
        }
        let command = spec("  run: python train.py\n  params: {depth: 1, rate: 0.1}\n").training;
        let settings = with_params(&command, &json!({ "depth": 6 })).unwrap();
        assert_eq!(Value::Object(settings.params), json!({ "depth": 6, "rate": 0.1 }));
    }

    #[test]
    fn what_was_chosen_is_read_back_from_the_record() {
        let spec = spec("  sweep:\n    parameters:\n      iterations: {min: 5, max: 50}\n");
        let chosen = with_params(&spec.training, &json!({ "iterations": 17 })).unwrap();
        let again = settings_of(&spec, &key::params(&chosen)).unwrap();
        assert_eq!(again, chosen);
    }

    #[test]
    fn a_distribution_that_cannot_be_read_is_refused_with_its_name() {
        let spec = spec("  sweep:\n    parameters:\n      iterations: {min: 50, max: 5}\n");
        let error = check(&spec).unwrap_err();
        assert!(error.to_string().contains("parameters.iterations"), "{error}");
    }
}
