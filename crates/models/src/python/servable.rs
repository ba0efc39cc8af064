//! A deployment in Python as the rest of the house sees it: it loads, answers, and comes back after its worker has died.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::Stream;
use tidemill_core::clock::{Stopwatch, real_sleep};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{Answers, CallContext, Interface, Loader, Payload, Servable, Work};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::deployment::PythonDeployment;
use super::fork_server::ForkServer;
use super::pieces::Pieces;
use super::pool::PythonModels;
use super::start::{Learnt, Started, start};
use super::worker::{Handle, LAST_LINES, NotSent};

/// The second worker that dies within [`CALM`] is followed by the next after this long, each further one after twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// After this long without a death, deaths are forgotten.
const CALM: Duration = Duration::from_mins(1);
/// A worker whose caller left while it was loaded is kept for the next one for so long.
const SPARE: Duration = Duration::from_secs(30);
/// So often a call goes to another worker because it could not be given to one that had just died.
const TRIES: usize = 4;

#[derive(Debug)]
struct Inner {
    models: PythonModels,
    deployment: Arc<PythonDeployment>,
    server: tokio::sync::Mutex<Option<Arc<ForkServer>>>,
    learnt: Mutex<Learnt>,
    spare: Mutex<Option<Started>>,
    /// Whether somebody has been told all that is known of why it cannot be loaded.
    told: AtomicBool,
}

/// Loads a deployment in Python.
#[derive(Debug, Clone)]
pub(super) struct PythonLoader(Arc<Inner>);

impl PythonLoader {
    pub fn new(models: PythonModels, deployment: PythonDeployment) -> Self {
        let learnt = Learnt::read(deployment.memory.as_deref());
        Self(Arc::new(Inner {
            models,
            deployment: Arc::new(deployment),
            server: tokio::sync::Mutex::default(),
            learnt: Mutex::new(learnt),
            spare: Mutex::default(),
            told: AtomicBool::new(false),
        }))
    }

    /// The fork server, with what the deployment needs imported; kept as long as this.
    pub async fn server(&self) -> Result<Arc<ForkServer>, PortError> {
        let mut known = self.0.server.lock().await;
        if let Some(server) = known.as_ref().filter(|server| !server.is_gone()) {
            return Ok(Arc::clone(server));
        }
        let server = self.0.models.server(&self.0.deployment).await?;
        let mut wanted = self.0.deployment.preload.clone();
        wanted.extend_from_slice(&self.learnt().modules);
        if !wanted.is_empty() {
            server.import(&wanted);
        }
        *known = Some(Arc::clone(&server));
        Ok(server)
    }

    fn learnt(&self) -> Learnt {
        self.0
            .learnt
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn start(&self) -> Result<Started, PortError> {
        let watch = Stopwatch::start();
        let mut server = self.server().await?;
        let mut started = start(Arc::clone(&server), Arc::clone(&self.0.deployment)).await;
        if started.is_err() && server.is_gone() {
            // It had died without anybody noticing yet.
            server = self.server().await?;
            started = start(Arc::clone(&server), Arc::clone(&self.0.deployment)).await;
        }
        let started = started.map_err(|error| self.not_started(error))?;
        tracing::debug!(deployment = %self.0.deployment.name, micros = watch.micros(), "a worker has loaded");
        if !started.learnt.modules.is_empty() {
            // The next worker has them from the start.
            server.import(&started.learnt.modules);
        }
        let learnt = {
            let mut learnt = self.0.learnt.lock().unwrap_or_else(PoisonError::into_inner);
            let before = learnt.modules.len();
            for module in &started.learnt.modules {
                if !learnt.modules.contains(module) {
                    learnt.modules.push(module.clone());
                }
            }
            let changed = before != learnt.modules.len() || learnt.interface != started.learnt.interface;
            learnt.interface.clone_from(&started.learnt.interface);
            changed.then(|| learnt.clone())
        };
        if let Some(learnt) = learnt {
            learnt.write(self.0.deployment.memory.as_deref());
        }
        Ok(started)
    }

    /// What to say of a failed start. All of it goes into the log; who deploys is told all of it as well, and comes first. Whoever calls a
    /// deployment that has loaded before, or that has failed before, is told no traceback and nothing that was printed.
    fn not_started(&self, error: PortError) -> PortError {
        tracing::error!(deployment = %self.0.deployment.name, code = error.code, "{error}");
        if self.learnt().interface.is_none() && !self.0.told.swap(true, Ordering::Relaxed) {
            return error;
        }
        let Some((first, _)) = error.message.split_once('\n') else {
            return error;
        };
        let message = format!(
            "{}; the server's log says more",
            first.trim_end_matches(LAST_LINES)
        );
        PortError { message, ..error }
    }

    /// [`PythonLoader::start`] that goes on when its caller leaves; a worker that nobody waited for is there for the next caller.
    async fn start_unhurried(&self) -> Result<Started, PortError> {
        let spare = || self.0.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(started) = spare().filter(|started| started.handle.is_alive()) {
            return Ok(started);
        }
        let (sender, started) = oneshot::channel();
        let loader = self.clone();
        tokio::spawn(async move {
            if let Err(Ok(unwanted)) = sender.send(loader.start().await) {
                *loader.0.spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(unwanted);
                real_sleep(SPARE).await;
                loader
                    .0
                    .spare
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
            }
        });
        started
            .await
            .unwrap_or_else(|_| Err(PortError::internal("worker_start", "the server is shutting down")))
    }
}

#[async_trait]
impl Loader for PythonLoader {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        let started = self.start_unhurried().await?;
        let interface = started.learnt.interface.clone().unwrap_or_default();
        Ok(Arc::new(PythonServable {
            permits: Arc::new(Semaphore::new(self.0.deployment.concurrency())),
            interface,
            lives: Arc::new(Lives {
                loader: self.clone(),
                current: Mutex::new(Some(started.handle)),
                deaths: tokio::sync::Mutex::default(),
            }),
        }))
    }

    fn interface(&self) -> Option<Interface> {
        self.learnt().interface
    }
}

#[derive(Debug, Default)]
struct Deaths {
    count: u32,
    last: Option<Stopwatch>,
    /// Why the next worker could not be started.
    failure: Option<PortError>,
}

impl Deaths {
    fn wait(&self) -> Duration {
        let Some(last) = self.last else {
            return Duration::ZERO;
        };
        // The first death is an accident.
        let doublings = self.count.saturating_sub(2).min(16);
        let wait = if self.count < 2 {
            Duration::ZERO
        } else {
            FIRST_WAIT * (1 << doublings)
        };
        wait.min(LONGEST_WAIT).saturating_sub(last.elapsed())
    }

    fn note(&mut self) {
        if self.last.is_some_and(|last| last.elapsed() > CALM) {
            self.count = 0;
        }
        self.count += 1;
        self.last = Some(Stopwatch::start());
    }
}

/// One worker after another.
#[derive(Debug)]
struct Lives {
    loader: PythonLoader,
    current: Mutex<Option<Arc<Handle>>>,
    /// Held while the next worker is started.
    deaths: tokio::sync::Mutex<Deaths>,
}

impl Lives {
    fn alive(&self) -> Option<Arc<Handle>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().filter(|handle| handle.is_alive())
    }

    async fn next(self: Arc<Self>) -> Result<Arc<Handle>, PortError> {
        let mut deaths = self.deaths.lock().await;
        if let Some(handle) = self.alive() {
            return Ok(handle);
        }
        if let Some(failure) = deaths.failure.as_ref().filter(|_| !deaths.wait().is_zero()) {
            return Err(failure.clone());
        }
        if deaths.failure.take().is_none() {
            deaths.note();
        }
        let wait = deaths.wait();
        if !wait.is_zero() {
            tracing::warn!(deployment = %self.loader.0.deployment.name, deaths = deaths.count, ?wait, "workers keep dying");
            real_sleep(wait).await;
        }
        match self.loader.start().await {
            Ok(started) => {
                let handle = started.handle;
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&handle));
                Ok(handle)
            }
            Err(error) => {
                deaths.note();
                deaths.count = deaths.count.max(2);
                deaths.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// A worker that can be asked. Starting one goes on when the caller leaves.
    async fn worker(self: &Arc<Self>) -> Result<Arc<Handle>, PortError> {
        if let Some(handle) = self.alive() {
            return Ok(handle);
        }
        tokio::spawn(Arc::clone(self).next())
            .await
            .unwrap_or_else(|_| Err(PortError::internal("worker_start", "the server is shutting down")))
    }
}

#[derive(Debug)]
struct PythonServable {
    interface: Interface,
    permits: Arc<Semaphore>,
    lives: Arc<Lives>,
}

impl PythonServable {
    async fn permit(&self) -> Result<OwnedSemaphorePermit, PortError> {
        Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| PortError::internal("worker_died", "the server is shutting down"))
    }

    async fn ask(&self, mut payload: Payload, context: &CallContext) -> Result<Payload, PortError> {
        let mut permit = self.permit().await?;
        for _ in 0..TRIES {
            let handle = self.lives.worker().await?;
            match handle.call(payload, context, permit).await {
                Ok(answer) => return answer,
                Err(NotSent(again, returned)) => (payload, permit) = (again, returned),
            }
        }
        Err(self.keeps_dying())
    }

    async fn begin_stream(&self, mut payload: Payload, context: &CallContext) -> Result<Answers, PortError> {
        let mut permit = self.permit().await?;
        for _ in 0..TRIES {
            let handle = self.lives.worker().await?;
            match handle.stream(payload, context, permit).await {
                Ok(Ok((call, pieces))) => {
                    return Ok(Box::pin(AnswerInPieces {
                        handle,
                        call,
                        pieces,
                        ended: false,
                    }));
                }
                Ok(Err(error)) => return Err(error),
                Err(NotSent(again, returned)) => (payload, permit) = (again, returned),
            }
        }
        Err(self.keeps_dying())
    }

    fn keeps_dying(&self) -> PortError {
        PortError::upstream(
            "worker_died",
            format!(
                "workers of `{}` keep dying before they take a call; look into the server's log, then send the request again",
                self.lives.loader.0.deployment.name
            ),
        )
    }

    async fn in_time<T>(
        &self,
        context: &CallContext,
        work: impl Future<Output = Result<T, PortError>>,
    ) -> Result<T, PortError> {
        let Some(deadline) = context.deadline else {
            return work.await;
        };
        tokio::time::timeout(deadline.left(), work)
            .await
            .unwrap_or_else(|_| {
                Err(PortError::internal(
                    "worker_timeout",
                    format!(
                        "`{}` did not answer within the request's time; give it more, or ask for less",
                        self.lives.loader.0.deployment.name
                    ),
                ))
            })
    }
}

#[async_trait]
impl Servable for PythonServable {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn work(&self) -> Work {
        Work::Remote
    }

    async fn call(&self, payload: Payload, context: &CallContext) -> Result<Payload, PortError> {
        self.in_time(context, self.ask(payload, context)).await
    }

    async fn stream(&self, payload: Payload, context: &CallContext) -> Result<Option<Answers>, PortError> {
        if !self.interface.decoupled {
            return Ok(None);
        }
        self.in_time(context, self.begin_stream(payload, context))
            .await
            .map(Some)
    }

    fn memory(&self) -> u64 {
        self.lives.alive().map_or(0, |handle| handle.memory())
    }

    fn concurrency(&self) -> usize {
        self.lives.loader.0.deployment.concurrency()
    }
}

/// An answer that comes in pieces. Dropping it tells the worker that the rest is not wanted.
struct AnswerInPieces {
    handle: Arc<Handle>,
    call: u32,
    pieces: Pieces,
    ended: bool,
}

impl Stream for AnswerInPieces {
    type Item = Result<Payload, PortError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = self.pieces.poll_next(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.ended = true;
        }
        match polled {
            Poll::Ready(None) if !self.pieces.is_whole() => Poll::Ready(Some(Err(PortError::caller(
                "stream_too_slow",
                "the answer came faster than it was read, and others wait for the worker; read faster, or ask again",
            )))),
            other => other,
        }
    }
}

impl Drop for AnswerInPieces {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (handle, call) = (Arc::clone(&self.handle), self.call);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { handle.cancel(call).await });
        }
    }
}
