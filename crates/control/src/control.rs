//! [`Control`]: the one handle on the loop. It wakes the reconcilers (windows → rollouts → triggers → runs), by timer in production
//! and by the replay's clock in virtual time, and answers the API's questions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_core::clock::{Clock, Stopwatch, Timestamp};
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, ModelName, PredictionId, RunId, VersionNumber};
use tidemill_core::predictions::PredictionBatch;
use tidemill_core::spec::{Span, Spec};
use tidemill_serving::Server;
use tidemill_store::alerts::AlertState;
use tidemill_store::specs::{self, SpecRow};
use tidemill_store::{Store, alerts, endpoints, labels, meta, models, predictions as index, rollouts, runs};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;

use crate::context::{Context, Parts};
use crate::delivery::{bundles, endpoints as intended, reconcile, routes};
use crate::error::{ControlError, Result};
use crate::feedback::record;
use crate::monitor::windows;
use crate::pipeline::triggers::Fired;
use crate::pipeline::{runs as execution, scheduler, sweep, train};
use crate::predictions::{Predictions, Replay, replay};
use crate::report::{self, MonthMemo};
use crate::view::{EndpointStatus, FeedbackInput, FeedbackOutcome, Lineage, Reproduction, Status, Timeline};
use crate::{lineage, memory, reproduce};

/// Where a virtual clock stood, so that a restarted replay goes on there.
const CLOCK: &str = "clock.virtual";

/// How often the triggers are looked at when nothing happens.
const LOOK_EVERY: Span = Span::from_micros(6 * Span::HOUR.as_micros());

/// How often production looks, by the wall clock; windows and rollouts are due much less often.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How often labels without a prediction are counted at most, by the machine's clock.
const UNMATCHED_EVERY: Duration = Duration::from_mins(1);

/// The write-ahead log becomes Parquet at least this often in production, and in a replay at each window.
const COMPACT_ROWS: usize = 100_000;

struct Inner {
    ctx: Context,
    memo: MonthMemo,
    /// One tick at a time: reconcilers read the whole state and may not race with each other.
    ticking: Mutex<()>,
    running: Mutex<JoinSet<RunId>>,
    in_flight: std::sync::Mutex<std::collections::HashSet<RunId>>,
    nudge: Notify,
    next_look: AtomicI64,
    next_window: AtomicI64,
    served: AtomicBool,
    /// Counted when a window closes.
    unmatched: AtomicU64,
    unmatched_counted: std::sync::Mutex<Option<Stopwatch>>,
    ready: AtomicBool,
}

/// The loop. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    inner: Arc<Inner>,
}

impl Control {
    /// Puts the loop together and brings the serving side in line with what is stored.
    ///
    /// # Errors
    /// If the store cannot be written, or a champion cannot be loaded.
    pub async fn open(parts: Parts) -> Result<Self> {
        let ctx = Context::new(parts)?;
        sweep::check(&ctx.spec)?;
        remember_spec(&ctx).await?;
        let name = ctx.endpoint();
        let stored = ctx.store.read(move |tx| endpoints::find(tx, &name)).await?;
        let row = match stored {
            Some(row) => row,
            None => {
                let default = serde_json::to_value(&ctx.spec.endpoint.default).unwrap_or_default();
                let (row, now) = (intended::fresh(&ctx.spec.name, default, ctx.now()), ctx.now());
                ctx.store.write(move |tx| intended::store(tx, row, now)).await?
            }
        };
        let served = row.first_served_at.is_some();
        routes::apply(&ctx, &row).await?;
        let control = Self {
            inner: Arc::new(Inner {
                ctx,
                memo: MonthMemo::default(),
                ticking: Mutex::new(()),
                running: Mutex::new(JoinSet::new()),
                in_flight: std::sync::Mutex::default(),
                nudge: Notify::new(),
                next_look: AtomicI64::new(i64::MIN),
                next_window: AtomicI64::new(i64::MIN),
                served: AtomicBool::new(served),
                unmatched: AtomicU64::new(0),
                unmatched_counted: std::sync::Mutex::default(),
                ready: AtomicBool::new(true),
            }),
        };
        Ok(control)
    }

    pub(crate) fn ctx(&self) -> &Context {
        &self.inner.ctx
    }

    /// The project.
    pub fn spec(&self) -> &Arc<Spec> {
        &self.ctx().spec
    }

    /// State.
    pub fn store(&self) -> &Store {
        &self.ctx().store
    }

    /// The hot path.
    pub fn serving(&self) -> &Arc<Server> {
        &self.ctx().serving
    }

    /// The prediction log.
    pub fn predictions(&self) -> &Predictions {
        &self.ctx().predictions
    }

    /// Time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.ctx().clock
    }

    /// Whether requests may come.
    pub fn ready(&self) -> bool {
        self.inner.ready.load(Ordering::Relaxed)
    }

    /// The project's endpoint.
    pub fn endpoint(&self) -> EndpointName {
        self.ctx().endpoint()
    }

    /// Where a virtual clock stood when the data folder was last used.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn stored_virtual_time(store: &Store) -> Result<Option<Timestamp>> {
        Ok(store.read(|tx| meta::get(tx, CLOCK)).await?)
    }

    /// Returns the data folder to the machine's clock.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn forget_virtual_time(store: &Store) -> Result<()> {
        store.write(|tx| meta::remove(tx, CLOCK)).await?;
        Ok(())
    }

    /// Runs the loop until the future is dropped: for a clock that moves by itself.
    pub async fn run(&self) {
        loop {
            if let Err(error) = self.tick().await {
                tracing::error!(%error, code = error.code(), "a turn of the loop failed; it is tried again");
            }
            tokio::select! {
                () = tidemill_core::clock::real_sleep(HEARTBEAT) => {}
                () = self.inner.nudge.notified() => {}
            }
        }
    }

    /// One turn of every reconciler. Idempotent: with nothing due it changes nothing.
    ///
    /// # Errors
    /// If the store, the data or a model fails; what was committed before stays.
    pub async fn tick(&self) -> Result<()> {
        let _turn = self.inner.ticking.lock().await;
        let ctx = self.ctx();
        self.note_first_served().await?;
        let now = ctx.now();
        let mut closed = 0;
        if now.as_micros() >= self.inner.next_window.load(Ordering::Relaxed) {
            closed = windows::close_due(ctx).await?;
            let every = ctx.spec.monitors.every;
            self.inner
                .next_window
                .store((now.floor_to(every) + every).as_micros(), Ordering::Relaxed);
        } else if ctx.serving.log().live_stats().rows >= COMPACT_ROWS {
            ctx.predictions.compact().await?;
        }
        if closed > 0 {
            report::close_months(ctx).await?;
            self.count_unmatched(now).await?;
        }
        let rolling = ctx
            .serving
            .router()
            .route(&ctx.endpoint())
            .is_some_and(|r| r.canary.is_some());
        let mut changed = closed > 0;
        if closed > 0 || rolling {
            changed |= reconcile::reconcile(ctx, closed > 0).await?;
        }
        if changed || now.as_micros() >= self.inner.next_look.load(Ordering::Relaxed) {
            scheduler::tick(ctx).await?;
            self.inner.next_look.store(
                scheduler::next_look(ctx, now, LOOK_EVERY).as_micros(),
                Ordering::Relaxed,
            );
            self.start_runs().await?;
        }
        Ok(())
    }

    /// Counts the labels without a prediction, after looking for these in what has come since. A replay, in which a day passes in a
    /// fraction of a second, does it once a minute at most.
    async fn count_unmatched(&self, now: Timestamp) -> Result<()> {
        let recent = |watch: Stopwatch| watch.elapsed() < UNMATCHED_EVERY;
        if lock(&self.inner.unmatched_counted).is_some_and(recent) {
            return Ok(());
        }
        self.ctx().predictions.match_waiting_labels().await?;
        let before = now - self.ctx().spec.label.horizon;
        let unmatched = self.store().read(move |tx| labels::unmatched(tx, before)).await?;
        self.inner.unmatched.store(unmatched, Ordering::Relaxed);
        *lock(&self.inner.unmatched_counted) = Some(Stopwatch::start());
        Ok(())
    }

    /// Remembers when the endpoint first answered: windows count from there.
    async fn note_first_served(&self) -> Result<()> {
        if self.inner.served.load(Ordering::Relaxed) {
            return Ok(());
        }
        let ctx = self.ctx();
        let Some(first) = ctx.serving.log().oldest_of(&ctx.endpoint()) else {
            return Ok(());
        };
        let (name, now) = (ctx.endpoint(), ctx.now());
        ctx.store
            .write(move |tx| {
                let mut row = endpoints::get(tx, &name)?;
                if row.first_served_at.is_none() {
                    row.first_served_at = Some(first);
                    intended::store(tx, row, now)?;
                }
                Ok(())
            })
            .await?;
        self.inner.served.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Starts every run that is queued, or that a crash left running.
    async fn start_runs(&self) -> Result<()> {
        let open = self.store().read(runs::open_runs).await?;
        let mut running = self.inner.running.lock().await;
        for run in open {
            if !lock(&self.inner.in_flight).insert(run.id.clone()) {
                continue;
            }
            let control = self.clone();
            running.spawn(async move {
                if let Err(error) = execution::execute(control.ctx(), &run.id).await {
                    tracing::error!(run = %run.id, %error, "the run could not be recorded; it is tried again");
                }
                lock(&control.inner.in_flight).remove(&run.id);
                control.inner.nudge.notify_one();
                run.id
            });
        }
        Ok(())
    }

    /// Waits for the runs that are under way. Returns whether there were any.
    async fn wait_for_runs(&self) -> bool {
        let mut running = self.inner.running.lock().await;
        let mut any = false;
        while running.join_next().await.is_some() {
            any = true;
        }
        any
    }

    /// Moves a virtual clock and lets everything that is due by then happen, training included, before it answers.
    ///
    /// # Errors
    /// If the clock is the machine's, or a reconciler fails.
    pub async fn advance(&self, to: Timestamp) -> Result<Timestamp> {
        let Some(clock) = self.clock().as_virtual() else {
            return Err(ControlError::Conflict {
                code: "clock_not_virtual",
                message: "this server runs on the machine's clock, which cannot be moved; start it with `tidemill up --virtual-clock TIME`".into(),
            });
        };
        let before = clock.now();
        // Windows must close one by one, each at its own time, however far the clock is moved at once.
        let every = self.spec().monitors.every;
        let mut stop = before.floor_to(every) + every;
        while stop < to {
            self.turn(clock.advance_to(stop)).await?;
            stop = stop + every;
        }
        let now = clock.advance_to(to);
        self.turn(now).await?;
        Ok(now)
    }

    async fn turn(&self, now: Timestamp) -> Result<()> {
        self.store().write(move |tx| meta::set(tx, CLOCK, &now)).await?;
        self.tick().await?;
        while self.wait_for_runs().await {
            self.inner.next_look.store(i64::MIN, Ordering::Relaxed);
            self.tick().await?;
        }
        Ok(())
    }

    /// Moves what the write-ahead log holds into Parquet and waits for open runs: before a clean end.
    ///
    /// # Errors
    /// If the store fails; nothing is lost, the log keeps it.
    pub async fn settle(&self) -> Result<()> {
        self.wait_for_runs().await;
        let _turn = self.inner.ticking.lock().await;
        self.ctx().predictions.compact().await?;
        Ok(())
    }

    /// The server at a glance.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn status(&self) -> Result<Status> {
        let ctx = self.ctx();
        let (label, now) = (ctx.spec.label.name.clone(), ctx.now());
        let live = ctx.serving.log().live_stats();
        let live = (live.rows - live.calls) as u64;
        let name = ctx.endpoint();
        let mut status = ctx
            .store
            .read(move |tx| {
                let mut list = Vec::new();
                for row in endpoints::list(tx)? {
                    let rollout = rollouts::active(tx, &row.name)?;
                    list.push(EndpointStatus {
                        canary: row.canary.map(|v| (v, row.canary_share)),
                        rollout: rollout.map(|r| (r.state.to_string(), r.to_version)),
                        name: row.name,
                        model: row.model,
                        champion: row.champion,
                        previous: row.previous,
                        baseline: row.baseline,
                        shadows: row.shadows,
                        first_served_at: row.first_served_at,
                    });
                }
                let open_alerts = alerts::list(tx, None, 1_000)?
                    .iter()
                    .filter(|a| a.state == AlertState::Open)
                    .count();
                Ok(Status {
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    project: String::new(),
                    now,
                    virtual_clock: false,
                    predictions: index::count(tx, &name)?,
                    labels: labels::count(tx, &label)?,
                    unmatched_labels: 0,
                    rss_mb: 0.0,
                    peak_rss_mb: 0.0,
                    endpoints: list,
                    open_runs: runs::open_runs(tx)?.len() as u64,
                    open_alerts: open_alerts as u64,
                })
            })
            .await?;
        ctx.spec.name.clone_into(&mut status.project);
        status.virtual_clock = ctx.clock.as_virtual().is_some();
        status.predictions += live;
        status.unmatched_labels = self.inner.unmatched.load(Ordering::Relaxed);
        (status.rss_mb, status.peak_rss_mb) = memory::resident_mb();
        Ok(status)
    }

    /// An endpoint's life.
    ///
    /// # Errors
    /// If there is no such endpoint, or the store cannot be read.
    pub async fn timeline(&self, endpoint: &EndpointName) -> Result<Timeline> {
        self.check_endpoint(endpoint)?;
        report::timeline(self.ctx(), &self.inner.memo).await
    }

    /// From a prediction to everything that led to it.
    ///
    /// # Errors
    /// If there is no such prediction.
    pub async fn lineage(&self, id: &PredictionId) -> Result<Lineage> {
        lineage::of_prediction(self.ctx(), id).await
    }

    /// Asks the version that answered a row again.
    ///
    /// # Errors
    /// If it was not recorded whole, no model answered, or the model is gone.
    pub async fn replay(&self, batch: &PredictionBatch, row: usize) -> Result<Replay> {
        replay::of_row(self.ctx(), batch, row).await
    }

    /// Stores feedback; when it returns, it is durable.
    ///
    /// # Errors
    /// If an item is malformed (then nothing is stored), or the store fails.
    pub async fn record_feedback(&self, inputs: Vec<FeedbackInput>) -> Result<Vec<FeedbackOutcome>> {
        record::record(self.ctx(), inputs).await
    }

    /// Queues a training run by hand.
    ///
    /// # Errors
    /// If one is under way already.
    pub async fn start_run(&self, reason: &str) -> Result<RunId> {
        let open = self.store().read(runs::open_runs).await?;
        if let Some(run) = open.first() {
            return Err(ControlError::Conflict {
                code: "run_open",
                message: format!("run `{}` is {} already; wait for it", run.id, run.state),
            });
        }
        let fired = Fired {
            kind: "manual".into(),
            reason: reason.to_owned(),
            alert: None,
        };
        let id = scheduler::queue(self.ctx(), &fired, None).await?;
        self.start_runs().await?;
        Ok(id)
    }

    /// Queues a training run by hand and waits for its end.
    ///
    /// # Errors
    /// If one is under way already, or it cannot be recorded.
    pub async fn train(&self, reason: &str) -> Result<runs::RunRow> {
        let id = self.start_run(reason).await?;
        self.wait_for_runs().await;
        Ok(self.store().read(move |tx| runs::get(tx, &id)).await?)
    }

    /// Makes a version champion by hand.
    ///
    /// # Errors
    /// If there is no such version.
    pub async fn promote(
        &self,
        endpoint: &EndpointName,
        version: VersionNumber,
        why: &str,
        by: &str,
    ) -> Result<Value> {
        self.check_endpoint(endpoint)?;
        let _turn = self.inner.ticking.lock().await;
        reconcile::promote(self.ctx(), version, why, by).await
    }

    /// Takes a rollout back, or goes back to the previous champion.
    ///
    /// # Errors
    /// If there is nothing to go back to.
    pub async fn rollback(&self, endpoint: &EndpointName, why: &str, by: &str) -> Result<Value> {
        self.check_endpoint(endpoint)?;
        let _turn = self.inner.ticking.lock().await;
        reconcile::rollback(self.ctx(), why, by).await
    }

    /// Trains a version again and compares digests.
    ///
    /// # Errors
    /// If there is no such version, or training fails.
    pub async fn reproduce(&self, model: &ModelName, version: VersionNumber) -> Result<Reproduction> {
        reproduce::version(self.ctx(), model, version).await
    }

    /// Measures a version (default: the champion) on the latest labelled rows, held out as a training would hold them out.
    ///
    /// # Errors
    /// If there is no such version, or no labelled row.
    pub async fn evaluate(&self, version: Option<VersionNumber>) -> Result<Value> {
        let ctx = self.ctx();
        let name = ctx.endpoint();
        let endpoint = ctx.store.read(move |tx| endpoints::get(tx, &name)).await?;
        let Some(version) = version.or(endpoint.champion) else {
            return Err(ControlError::not_found(
                "champion",
                &ctx.spec.name,
                "; train a version first (`tidemill train`)",
            ));
        };
        let model = bundles::load_version(ctx, &ctx.model(), version).await?;
        ctx.predictions.compact().await?;
        let manifest = train::snapshot(ctx, endpoint.first_served_at, ctx.now()).await?;
        let rows = ctx.data.load_snapshot(&manifest).await?;
        let split = train::split(&rows, &ctx.spec.evaluation);
        let metrics = train::measure_on(ctx, model, split.holdout).await?;
        Ok(json!({
            "model": ctx.model(),
            "version": version,
            "rows": metrics.1,
            "from": split.holdout_range.map(|r| r.0),
            "until": split.holdout_range.map(|r| r.1),
            "snapshot": manifest.digest,
            "metrics": metrics.0,
        }))
    }

    fn check_endpoint(&self, endpoint: &EndpointName) -> Result<()> {
        if *endpoint == self.ctx().endpoint() {
            return Ok(());
        }
        Err(ControlError::not_found(
            "endpoint",
            endpoint,
            &format!("; this server has `{}`", self.ctx().endpoint()),
        ))
    }

    /// The project's registered model.
    pub fn model(&self) -> ModelName {
        self.ctx().model()
    }

    /// A run with its steps, as JSON.
    ///
    /// # Errors
    /// If there is no such run.
    pub async fn run_detail(&self, id: RunId) -> Result<Value> {
        Ok(self
            .store()
            .read(move |tx| {
                let run = runs::get(tx, &id)?;
                let mut value = json!(run);
                value["steps"] = json!(tidemill_store::steps::list(tx, &id)?);
                Ok(value)
            })
            .await?)
    }

    /// The registered versions, newest last.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn versions(&self) -> Result<Vec<models::ModelVersion>> {
        let model = self.model();
        Ok(self
            .store()
            .read(move |tx| models::list_versions(tx, &model))
            .await?)
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Keeps every version of the spec, so that a decision's configuration can be looked up by its digest.
async fn remember_spec(ctx: &Context) -> Result<()> {
    let text = serde_json::to_string(&*ctx.spec).map_err(ControlError::internal)?;
    let row = SpecRow {
        digest: Digest::of(text.as_bytes()),
        name: ctx.spec.name.clone(),
        text,
        created_at: ctx.now(),
    };
    ctx.store
        .write(move |tx| {
            if specs::current(tx, &row.name)?.is_some_and(|current| current.digest == row.digest) {
                return Ok(());
            }
            specs::put(tx, &row)?;
            specs::set_current(tx, &row.name, &row.digest)
        })
        .await?;
    Ok(())
}
