//! One version of a deployment: loading it, asking it, and the task that hands waiting calls to its replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tidemill_core::clock::{Stopwatch, real_sleep};
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{
    CallContext, Deadline, Interface, Loader, PartStatistics, Payload, Servable, Work,
};
use tidemill_core::spec::{ServingSpec, Span};
use tokio::sync::Mutex;

use super::HostedVersion;
use super::batch::{self, Patience};
use super::call::{CallTimes, Said};
use super::limit::Limit;
use super::pump::{LOOK_AGAIN, pump};
use super::queue::{Pending, Queue};
use super::replicas::{Replica, Replicas, Slot};
use super::statistics::{BatchTimes, Counts};
use super::threads::off_thread;
use super::warm::warm;
use crate::error::ServeError;

/// A payload larger than this is not answered on a thread that serves others, however quick the model is with a row.
const LIGHT_BYTES: usize = 64 << 10;
/// Rows that are answered together at most, where nothing was said.
const USUAL_ROWS: u32 = 64;

/// A version of a deployment.
#[derive(Debug)]
pub(super) struct Version {
    pub endpoint: EndpointName,
    pub number: VersionNumber,
    pub bundle: Option<Digest>,
    pub spec: Arc<ServingSpec>,
    loader: Arc<dyn Loader>,
    pub replicas: Arc<Replicas>,
    pub queue: Queue,
    pub patience: Patience,
    pub limit: Arc<Limit>,
    pub counts: Arc<Counts>,
    interface: ArcSwapOption<Interface>,
    pub failure: ArcSwapOption<PortError>,
    /// Held while a replica is loaded, so that the first is loaded once.
    loading: Mutex<()>,
    /// How many loads have ended, well or not.
    loads: AtomicU64,
    /// Unloaded: nothing loads it until it is switched on again.
    pub off: AtomicBool,
    /// Another replica is on its way.
    growing: AtomicBool,
    /// Calls that wait for the first replica.
    held: AtomicUsize,
    /// A task hands out the queue.
    pub pumping: AtomicBool,
    /// Microseconds since 1970; 0 if never.
    pub last_used: AtomicU64,
}

pub(super) fn duration(span: Span) -> Duration {
    Duration::from_micros(u64::try_from(span.as_micros()).unwrap_or(0))
}

impl Version {
    /// `before`: a version that is loaded in the same way; what it has loaded and counted is shared, and its callers end on it.
    pub fn new(
        endpoint: EndpointName,
        version: HostedVersion,
        spec: Arc<ServingSpec>,
        before: Option<&Self>,
    ) -> Self {
        let HostedVersion {
            number,
            loader,
            bundle,
        } = version;
        let queue = &spec.queue;
        let known = before.and_then(|before| before.interface.load_full());
        Self {
            endpoint,
            number,
            bundle,
            queue: Queue::new(queue.priorities, queue.max_requests, queue.max_wait.map(duration)),
            limit: Arc::new(Limit::new(queue.max_requests as usize + 1)),
            interface: ArcSwapOption::new(known.or_else(|| loader.interface().map(Arc::new))),
            spec,
            loader,
            replicas: before
                .map(|before| Arc::clone(&before.replicas))
                .unwrap_or_default(),
            patience: Patience::default(),
            counts: before
                .map(|before| Arc::clone(&before.counts))
                .unwrap_or_default(),
            failure: ArcSwapOption::empty(),
            loading: Mutex::new(()),
            loads: AtomicU64::new(0),
            off: AtomicBool::new(false),
            growing: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            pumping: AtomicBool::new(false),
            last_used: AtomicU64::new(before.map_or(0, |before| before.last_used.load(Ordering::Relaxed))),
        }
    }

    /// As it was put.
    pub fn hosted(&self) -> HostedVersion {
        HostedVersion {
            number: self.number,
            loader: Arc::clone(&self.loader),
            bundle: self.bundle,
        }
    }

    /// What has been counted of the parts of its model.
    pub fn parts(&self) -> Vec<PartStatistics> {
        self.loader.parts()
    }

    /// Whether what this version has loaded is what the other loader would load.
    pub fn loads_alike(&self, loader: &Arc<dyn Loader>, spec: &ServingSpec) -> bool {
        let same = Arc::ptr_eq(&self.loader, loader)
            || self
                .loader
                .identity()
                .is_some_and(|identity| loader.identity() == Some(identity));
        same && self.spec.worker == spec.worker && self.spec.warmup == spec.warmup
    }

    /// Whether the other settings let this version answer just as it does.
    pub fn answers_alike(&self, spec: &ServingSpec) -> bool {
        let own = &self.spec;
        own.batching == spec.batching
            && own.scaling == spec.scaling
            && own.queue == spec.queue
            && own.timeout == spec.timeout
    }

    /// What it takes and gives, if that is known without loading it.
    pub fn known_interface(&self) -> Option<Arc<Interface>> {
        self.interface.load_full()
    }

    pub fn is_loading(&self) -> bool {
        self.loading.try_lock().is_err()
    }

    /// So many replicas stay whatever happens.
    fn floor(&self) -> usize {
        let scaling = &self.spec.scaling;
        scaling.min.max(scaling.provisioned).min(scaling.max.max(1)) as usize
    }

    fn load_failed(&self, source: PortError) -> ServeError {
        ServeError::Load {
            endpoint: self.endpoint.clone(),
            version: self.number,
            source,
        }
    }

    pub fn overloaded(&self, why: impl Into<String>) -> ServeError {
        ServeError::Overloaded {
            endpoint: self.endpoint.clone(),
            why: why.into(),
        }
    }

    pub fn late(&self, stage: &'static str) -> ServeError {
        ServeError::DeadlinePassed {
            endpoint: self.endpoint.clone(),
            stage,
        }
    }

    pub fn failed(&self, source: PortError) -> ServeError {
        // A graph's nodes are refused and run late like anything else.
        match source.code {
            "overloaded" => return self.overloaded(source.message),
            "deadline_passed" => return self.late("one that it asks took too long"),
            _ => {}
        }
        ServeError::Model {
            endpoint: self.endpoint.clone(),
            version: self.number,
            source,
        }
    }

    /// A replica, after loading the first one if there is none. The load goes on if the caller does not.
    pub async fn ready(self: &Arc<Self>, context: &CallContext) -> Result<Arc<Replica>, ServeError> {
        if let Some(replica) = self.replicas.any() {
            return Ok(replica);
        }
        let held = Held::new(&self.held);
        if held.before >= self.spec.queue.max_requests as usize {
            return Err(self.overloaded(format!("{} requests wait for it to load", held.before)));
        }
        let version = Arc::clone(self);
        let load = tokio::spawn(async move { version.load_first().await });
        let deadline = context.deadline;
        tokio::select! {
            loaded = load => loaded.unwrap_or_else(|error| {
                Err(ServeError::Internal(format!("loading stopped: {error}")))
            }),
            () = over(deadline) => Err(self.late("it was still being loaded")),
        }
    }

    /// Loads the first replica, unless there is one.
    pub async fn load_first(self: &Arc<Self>) -> Result<Arc<Replica>, ServeError> {
        let before = self.loads.load(Ordering::Acquire);
        let _once = self.loading.lock().await;
        if let Some(replica) = self.replicas.any() {
            return Ok(replica);
        }
        // All who waited for the same attempt are told how it ended; who comes later may try again.
        if self.loads.load(Ordering::Acquire) != before
            && let Some(failure) = self.failure.load_full()
        {
            return Err(self.load_failed(PortError::clone(&failure)));
        }
        self.load_one().await
    }

    async fn load_one(self: &Arc<Self>) -> Result<Arc<Replica>, ServeError> {
        let unloaded = || ServeError::Unloaded {
            endpoint: self.endpoint.clone(),
        };
        if self.off.load(Ordering::Acquire) {
            return Err(unloaded());
        }
        let watch = Stopwatch::start();
        let loaded = match self.loader.load().await {
            Ok(model) => warm(model.as_ref(), &self.spec.warmup).await.map(|()| model),
            Err(error) => Err(error),
        };
        self.loads.fetch_add(1, Ordering::AcqRel);
        match loaded {
            Ok(_) if self.off.load(Ordering::Acquire) => Err(unloaded()),
            Ok(model) => {
                let replica = Arc::new(Replica::new(model));
                self.interface.store(Some(Arc::clone(&replica.interface)));
                self.failure.store(None);
                self.replicas.add(Arc::clone(&replica));
                self.counts.load_micros.store(watch.micros(), Ordering::Relaxed);
                let replicas = self.replicas.count();
                tracing::info!(endpoint = %self.endpoint, version = %self.number, replicas, micros = watch.micros(), "loaded");
                Ok(replica)
            }
            Err(error) => {
                tracing::warn!(endpoint = %self.endpoint, version = %self.number, %error, "cannot be loaded");
                self.failure.store(Some(Arc::new(error.clone())));
                Err(self.load_failed(error))
            }
        }
    }

    /// Starts another replica beside what is going on.
    fn grow(self: &Arc<Self>) {
        if self.growing.swap(true, Ordering::AcqRel) {
            return;
        }
        let version = Arc::clone(self);
        tokio::spawn(async move {
            let _growing = Cleared(&version.growing);
            // What went wrong is noted and told by the listing; those that are there go on.
            let _ = version.load_one().await;
        });
    }

    /// More replicas if more is asked than those there are can take, or if the first in line waits too long.
    pub fn scale_out(self: &Arc<Self>) {
        let scaling = &self.spec.scaling;
        let count = self.replicas.count();
        if count == 0 || count >= scaling.max.max(1) as usize {
            return;
        }
        let target = scaling.target_concurrency.max(1) as usize;
        let asked = self.queue.waiting() + self.replicas.busy();
        let (fixed, _) = self.patience.costs();
        let patient = Duration::from_secs_f64((4.0 * fixed).clamp(0.05, 5.0));
        if asked > target * count || self.queue.oldest() > patient {
            self.grow();
        }
    }

    /// Whether there may be more replicas than there are.
    pub fn may_grow(&self) -> bool {
        self.replicas.count() < self.spec.scaling.max as usize
    }

    /// Another replica, if fewer are there than are meant to stay. The first comes by [`Version::load_first`].
    pub fn top_up(self: &Arc<Self>) {
        if (1..self.floor()).contains(&self.replicas.count()) {
            self.grow();
        }
    }

    /// Takes replicas away that are not needed; the last one too, if it may sleep.
    pub fn scale_in(&self) {
        if self.queue.waiting() > 0 || self.held.load(Ordering::Acquire) > 0 {
            return;
        }
        let idle = duration(self.spec.scaling.idle);
        while self.replicas.remove_idle(self.floor(), idle) {
            let replicas = self.replicas.count();
            tracing::info!(endpoint = %self.endpoint, version = %self.number, replicas, "a replica was idle and is gone");
        }
    }

    /// Puts it to sleep for the sake of others' memory. Returns whether it slept before or does now.
    pub fn sleep(&self) -> bool {
        let free = self.floor() == 0 && self.queue.waiting() == 0 && self.held.load(Ordering::Acquire) == 0;
        if free {
            while self.replicas.remove_idle(0, Duration::ZERO) {}
        }
        self.replicas.count() == 0
    }

    pub fn max_rows(&self) -> usize {
        self.spec
            .batching
            .as_ref()
            .map_or(USUAL_ROWS, |batching| batching.max_rows)
            .max(1) as usize
    }

    /// Answers a call here and now, on a model that takes microseconds.
    pub async fn ask_now(
        &self,
        replica: &Replica,
        payload: Payload,
        context: &CallContext,
        rows: usize,
    ) -> Result<Said, ServeError> {
        replica.touch();
        let watch = Stopwatch::start();
        let answer = if payload.bytes() > LIGHT_BYTES {
            let (model, context) = (Arc::clone(&replica.model), context.clone());
            off_thread(Work::Heavy, async move { model.call(payload, &context).await }).await
        } else {
            replica.model.call(payload, context).await
        };
        let compute = watch.nanos();
        if answer.is_ok() {
            self.counts.answered_alone(rows, 0, compute);
        }
        let times = CallTimes { queue: 0, compute };
        answer
            .map(|payload| Said { payload, times })
            .map_err(|source| self.failed(source))
    }

    /// Stands in line and waits for the answer.
    pub async fn ask_in_turn(self: &Arc<Self>, pending: Pending, answer: Answer) -> Result<Said, ServeError> {
        let deadline = pending.context.deadline;
        self.patience.arrived();
        self.counts.pending.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.counts.pending);
        if !self.queue.push(pending) {
            let waiting = self.queue.waiting();
            return Err(self.overloaded(format!(
                "{waiting} requests wait already, and there is no room for more"
            )));
        }
        self.scale_out();
        if !self.pumping.swap(true, Ordering::AcqRel) {
            tokio::spawn(pump(Arc::clone(self)));
        }
        let result = tokio::select! {
            answer = answer => answer.unwrap_or_else(|_| Err(match deadline {
                // Those whose time is over are dropped when the line is full.
                Some(deadline) if deadline.passed() => self.late("it waited too long for its turn"),
                _ => ServeError::Internal("a call was lost".to_owned()),
            })),
            () = over(deadline) => Err(self.late("it waited for its turn, or the model took too long")),
        };
        drop(waiting);
        result
    }

    /// A slot for an answer in pieces. These wait beside the line, no more of them than the line holds, and not beyond their deadline.
    pub async fn slot_for_stream(self: &Arc<Self>, context: &CallContext) -> Result<Slot, ServeError> {
        if let Some(slot) = self.replicas.try_take() {
            return Ok(slot);
        }
        let waiting = self.counts.pending.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.counts.pending);
        if waiting >= u64::from(self.spec.queue.max_requests) {
            return Err(self.overloaded(format!("{waiting} requests wait already")));
        }
        loop {
            self.scale_out();
            if self.replicas.count() == 0 {
                self.load_first().await?;
            }
            let left = context
                .deadline
                .map_or(LOOK_AGAIN, |deadline| deadline.left().min(LOOK_AGAIN));
            tokio::select! {
                slot = self.replicas.take() => return Ok(slot),
                () = real_sleep(left) => {}
            }
            if context.deadline.is_some_and(|deadline| deadline.passed()) {
                return Err(self.late("it waited for its turn"));
            }
        }
    }

    /// Ends all that wait.
    pub fn turn_away(&self, error: &ServeError) {
        for pending in self.queue.drain() {
            let _ = pending.reply.send(Err(error.clone()));
        }
    }

    pub async fn answer_batch(self: Arc<Self>, slot: Slot, mut batch: Vec<Pending>) {
        let waited: Vec<u64> = batch.iter().map(|pending| pending.waiting.nanos()).collect();
        let model = &slot.replica.model;
        if batch.len() == 1 {
            let Some(mut pending) = batch.pop() else {
                return;
            };
            let (answer, compute) = self.answer_alone(model, &mut pending).await;
            drop(slot);
            reply(pending, answer, compute);
            return;
        }
        let rows: Vec<usize> = batch.iter().map(|pending| pending.rows).collect();
        let watch = Stopwatch::start();
        let context = batch::context(&batch);
        let joined = batch::join(&batch);
        let input = watch.nanos();
        let total = rows.iter().sum();
        let mut compute = 0;
        let answers = match joined {
            Ok(payload) => {
                let (answer, infer) = self.timed(model, payload, &context).await;
                compute = infer;
                let watch = Stopwatch::start();
                let parts = answer.and_then(|answer| batch::cut(answer, &rows));
                self.patience.answered(total, Duration::from_nanos(infer));
                if parts.is_ok() {
                    let times = BatchTimes {
                        rows: total as u64,
                        input,
                        infer,
                        output: watch.nanos(),
                    };
                    self.counts.executed(times);
                    for (pending, waited) in batch.iter().zip(waited) {
                        // Who has gone away is counted as such.
                        if !pending.reply.is_closed() {
                            self.counts.inferred(pending.rows, waited, times);
                        }
                    }
                }
                parts
            }
            Err(error) => Err(error),
        };
        match answers {
            Ok(parts) => {
                drop(slot);
                for (pending, part) in batch.into_iter().zip(parts) {
                    reply(pending, Ok(part), compute);
                }
            }
            // One request may have spoilt it for all: each is asked again by itself, and only those that fail then are told so.
            Err(error) => {
                tracing::debug!(endpoint = %self.endpoint, %error, calls = batch.len(), "a batch failed; its calls are asked one by one");
                for mut pending in batch {
                    if pending.reply.is_closed() {
                        continue;
                    }
                    let (answer, compute) = self.answer_alone(model, &mut pending).await;
                    reply(pending, answer, compute);
                }
            }
        }
    }

    async fn answer_alone(
        &self,
        model: &Arc<dyn Servable>,
        pending: &mut Pending,
    ) -> (Result<Payload, ServeError>, u64) {
        let payload = std::mem::replace(&mut pending.payload, Payload::Tensors(Vec::new()));
        let waited = pending.waiting.nanos();
        let (answer, infer) = self.timed(model, payload, &pending.context).await;
        self.patience.answered(pending.rows, Duration::from_nanos(infer));
        if answer.is_ok() && !pending.reply.is_closed() {
            self.counts.answered_alone(pending.rows, waited, infer);
        }
        (answer.map_err(|error| self.failed(error)), infer)
    }

    async fn timed(
        &self,
        model: &Arc<dyn Servable>,
        payload: Payload,
        context: &CallContext,
    ) -> (Result<Payload, PortError>, u64) {
        let watch = Stopwatch::start();
        let (own, context) = (Arc::clone(model), context.clone());
        let answer = off_thread(model.work(), async move { own.call(payload, &context).await }).await;
        (answer, watch.nanos())
    }
}

/// The other end of [`Pending::reply`].
pub(super) type Answer = tokio::sync::oneshot::Receiver<Result<Said, ServeError>>;

fn reply(pending: Pending, answer: Result<Payload, ServeError>, compute: u64) {
    let queue = pending.waiting.nanos().saturating_sub(compute);
    let times = CallTimes { queue, compute };
    // The caller may have gone away.
    let _ = pending.reply.send(answer.map(|payload| Said { payload, times }));
}

/// Returns once the deadline has passed; never without one.
pub(super) async fn over(deadline: Option<Deadline>) {
    match deadline {
        Some(deadline) => real_sleep(deadline.left()).await,
        None => std::future::pending().await,
    }
}

/// Counts those who wait for the first replica.
struct Held<'a> {
    counter: &'a AtomicUsize,
    before: usize,
}

impl<'a> Held<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        let before = counter.fetch_add(1, Ordering::AcqRel);
        Self { counter, before }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Clears a flag, also when what it stood for ends in a panic.
struct Cleared<'a>(&'a AtomicBool);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Counts those who wait for an answer.
struct Waiting<'a>(&'a AtomicU64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
