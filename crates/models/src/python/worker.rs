//! One worker process: its calls, its limits, and what became of it.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidemill_core::clock::{Stopwatch, real_sleep};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{CallContext, Payload};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, oneshot};

use super::deployment::PythonDeployment;
use super::fork_server::{Exit, ForkServer};
use super::logs::{self, Tail};
use super::pieces::{Answer, Pieces, Receiving, pieces};
use super::wire::{Failure, Frame, Kind, Request};

/// How often memory and time are looked at while a worker works.
const LOOK: Duration = Duration::from_millis(25);
/// A model has to be loaded within this time.
const LOAD: Duration = Duration::from_mins(10);
/// Pieces of an answer that wait for a caller who reads slowly.
const PIECES: usize = 64;
/// The same where other calls of the worker would wait as well: then it is the slow caller who is left behind.
const PIECES_AMONG_OTHERS: usize = 4_096;
/// Before what a worker printed.
pub(super) const LAST_LINES: &str = "; its last lines were:";
/// The call of which a worker speaks before it has loaded.
const LOADING: u32 = 0;

/// The socket to a worker, for one whole frame.
type Line = OwnedMutexGuard<Option<OwnedWriteHalf>>;

#[derive(Debug)]
enum Reply {
    Load(oneshot::Sender<Result<Bytes, PortError>>),
    One(oneshot::Sender<Answer>),
    Many(Receiving),
}

#[derive(Debug)]
struct InFlight {
    started: Stopwatch,
    reply: Reply,
    /// Given back when the worker is done with the call, not when the caller has left.
    permit: Option<OwnedSemaphorePermit>,
}

/// Why a worker was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Memory(u64),
    /// It could get no more memory itself.
    Exhausted,
    Time(Duration),
}

#[derive(Debug, Default)]
struct State {
    last: u32,
    calls: HashMap<u32, InFlight>,
    /// The call because of which it is ended, and why.
    ended: Option<(u32, Cause)>,
    dead: bool,
}

/// A worker process.
#[derive(Debug)]
pub(super) struct Worker {
    pid: i32,
    server: Arc<ForkServer>,
    deployment: Arc<PythonDeployment>,
    writer: Arc<tokio::sync::Mutex<Option<OwnedWriteHalf>>>,
    state: Mutex<State>,
    busy: Notify,
    /// Closed once it is being ended, so that nobody waits for it.
    ending: Semaphore,
    tail: Tail,
}

/// Holds a worker; when the last of these is dropped, it ends.
#[derive(Debug)]
pub(super) struct Handle(Arc<Worker>);

impl Drop for Handle {
    fn drop(&mut self) {
        // Its socket closes, and if that is not enough it is ended.
        if let Ok(mut writer) = self.0.writer.try_lock() {
            writer.take();
        }
        self.0.server.retire(self.0.pid);
    }
}

/// Why a call did not reach the worker: it may be asked of another one.
#[derive(Debug)]
pub(super) struct NotSent(pub Payload, pub OwnedSemaphorePermit);

impl Worker {
    /// Forks one. What it says when it has loaded comes from the second part.
    pub async fn fork(
        server: Arc<ForkServer>,
        deployment: Arc<PythonDeployment>,
    ) -> Result<(Handle, Result<Bytes, PortError>), PortError> {
        let failed =
            |error: io::Error| PortError::upstream("worker_start", format!("cannot fork a worker: {error}"));
        let pair = || {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            Ok((UnixStream::from_std(ours)?, OwnedFd::from(theirs)))
        };
        let (data, data_theirs) = pair().map_err(failed)?;
        let (log, log_theirs) = pair().map_err(failed)?;
        let tail = Tail::default();
        tokio::spawn(logs::follow(log, deployment.name.as_str().into(), tail.clone()));
        let (pid, exit) = server.fork(&deployment.config(), data_theirs, log_theirs).await?;
        let (reader, writer) = data.into_split();
        let worker = Arc::new(Self {
            pid,
            server,
            deployment,
            writer: Arc::new(tokio::sync::Mutex::new(Some(writer))),
            state: Mutex::default(),
            busy: Notify::new(),
            ending: Semaphore::new(0),
            tail,
        });
        let (sender, loaded) = oneshot::channel();
        worker.state().calls.insert(
            LOADING,
            InFlight {
                started: Stopwatch::start(),
                reply: Reply::Load(sender),
                permit: None,
            },
        );
        tokio::spawn(hear(Arc::clone(&worker), reader, exit));
        tokio::spawn(watch(Arc::clone(&worker)));
        let handle = Handle(worker);
        let loaded = loaded.await.unwrap_or_else(|_| Err(handle.0.died(None, None)));
        Ok((handle, loaded))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of memory that are its own or that it shares with its fork server.
    fn resident(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid)).ok()?;
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        Some(pages * rustix::param::page_size() as u64)
    }

    /// Ends it because of a call.
    fn end(&self, call: u32, cause: Cause) {
        let mut state = self.state();
        if state.ended.is_none() && !state.dead {
            state.ended = Some((call, cause));
            drop(state);
            self.ending.close();
            self.server.kill(self.pid);
        }
    }

    /// Waits for its socket. Whoever leaves meanwhile has written nothing.
    async fn line(&self) -> Line {
        Arc::clone(&self.writer).lock_owned().await
    }

    /// Writes a frame to its end even if nobody waits for that any more: after half a frame the next one would be taken for its rest.
    async fn write(self: &Arc<Self>, mut line: Line, mut request: Request) -> io::Result<()> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        match request.begin(line.as_ref().ok_or_else(broken)?) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => {
                self.give_up(line);
                return Err(error);
            }
        }
        let worker = Arc::clone(self);
        let rest = tokio::spawn(async move {
            let written = match line.as_mut() {
                Some(writer) => request.write(writer).await,
                None => Err(broken()),
            };
            if written.is_err() {
                worker.give_up(line);
            }
            written
        });
        rest.await.unwrap_or_else(|_| Err(broken()))
    }

    /// It cannot be written to: nothing must follow what it has.
    fn give_up(&self, mut line: Line) {
        line.take();
        self.state().dead = true;
        self.server.kill(self.pid);
    }

    /// Tells it that the rest of an answer is not wanted.
    async fn cancel(self: Arc<Self>, call: u32) {
        let line = self.line().await;
        // A worker that cannot be written to has ended.
        let _ = self.write(line, Request::cancel(call)).await;
    }

    /// What a frame says, to whom it concerns; `Err` if the worker does not keep to the protocol.
    async fn take(self: &Arc<Self>, frame: Frame) -> io::Result<()> {
        let (kind, call) = (frame.kind, frame.call);
        if kind == Kind::Piece {
            let receiving = match self.state().calls.get(&call) {
                Some(InFlight {
                    reply: Reply::Many(receiving),
                    ..
                }) => receiving.clone(),
                _ => return Ok(()),
            };
            return self.pass_on(call, &receiving, frame).await;
        }
        let Some(done) = self.state().calls.remove(&call) else {
            return Ok(());
        };
        // Wherever the receiver is gone, nobody wants to know any more.
        match (done.reply, kind) {
            (Reply::Load(sender), Kind::Ready) => drop(sender.send(Ok(frame.meta))),
            (Reply::Load(sender), Kind::Error) => drop(sender.send(Err(self.failure(call, &frame.meta)?))),
            (Reply::One(sender), Kind::Answer) => drop(sender.send(Ok(frame.payload()?))),
            (Reply::One(sender), Kind::Error) => drop(sender.send(Err(self.failure(call, &frame.meta)?))),
            (Reply::Many(receiving), Kind::Error) => {
                receiving.end_with(Err(self.failure(call, &frame.meta)?));
            }
            (Reply::Many(receiving), Kind::Answer) => receiving.end_with(Ok(frame.payload()?)),
            (Reply::Many(receiving), Kind::End) => receiving.end(),
            (Reply::One(_), Kind::End) => {}
            (_, kind) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("the worker said {kind:?} out of turn"),
                ));
            }
        }
        Ok(())
    }

    async fn pass_on(self: &Arc<Self>, call: u32, to: &Receiving, frame: Frame) -> io::Result<()> {
        let size = frame.size();
        let piece = frame.payload()?;
        if self.deployment.concurrency() > 1 {
            if to.is_too_slow_for(size, piece) {
                self.state().calls.remove(&call);
                // Not waited for: the worker may read no more before it is heard.
                tokio::spawn(Arc::clone(self).cancel(call));
            }
            return Ok(());
        }
        tokio::select! {
            // A caller who has left has cancelled the call.
            () = to.take(size, piece) => {}
            _ = self.ending.acquire() => {}
        }
        Ok(())
    }

    fn failure(&self, call: u32, meta: &[u8]) -> io::Result<PortError> {
        let failure: Failure = serde_json::from_slice(meta)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let name = &self.deployment.name;
        Ok(match failure.code.as_str() {
            "start" => {
                let mut message = format!("`{name}` could not be loaded: {}", failure.message);
                if !failure.traceback.is_empty() {
                    message = format!("{message}\n{}", failure.traceback.trim_end());
                }
                PortError::upstream("worker_start", message)
            }
            "arguments" if failure.error_code == "INVALID_PARAMETER_VALUE" => {
                PortError::caller("invalid_parameter_value", failure.message)
            }
            "arguments" => PortError::caller("function_arguments", failure.message),
            "memory" => {
                // It leaves by itself; until it has, no other call must go to it.
                self.state().ended.get_or_insert((call, Cause::Exhausted));
                self.too_large(&failure.message)
            }
            _ => PortError {
                trace: (!failure.traceback.is_empty()).then(|| failure.traceback.as_str().into()),
                ..PortError::internal("function_raised", format!("`{name}` raised {}", failure.message))
            },
        })
    }

    fn too_large(&self, what: &str) -> PortError {
        PortError::upstream(
            "worker_memory",
            format!(
                "the worker of `{}` was ended because of its memory: {what}, allowed are {} MiB; raise `memory_mib`, or ask for less",
                self.deployment.name, self.deployment.worker.memory_mib
            ),
        )
    }

    /// What to say to a call of a worker that is gone.
    fn died(&self, call: Option<u32>, code: Option<i32>) -> PortError {
        let name = &self.deployment.name;
        let ended = self.state().ended;
        match ended {
            Some((_, Cause::Exhausted)) => return self.too_large("it could get no more"),
            Some((_, Cause::Memory(bytes))) => {
                return self.too_large(&format!("it took {} MiB", bytes >> 20));
            }
            Some((LOADING, Cause::Time(limit))) => {
                return PortError::upstream(
                    "worker_start",
                    format!(
                        "`{name}` was not loaded within {} s{LAST_LINES}\n{}",
                        limit.as_secs(),
                        self.tail.text()
                    ),
                );
            }
            Some((late, Cause::Time(limit))) if Some(late) == call => {
                return PortError::internal(
                    "worker_timeout",
                    format!(
                        "`{name}` did not answer within {} s, so its worker was ended; raise `time_limit`, or ask for less",
                        limit.as_secs_f64()
                    ),
                );
            }
            _ => {}
        }
        let how = match (ended, code) {
            (Some(_), _) => "was ended because another call of it took too long".to_owned(),
            (None, Some(code)) if code < 0 => format!("was ended by signal {}", -code),
            (None, Some(code)) => format!("left with code {code}"),
            (None, None) => "ended".to_owned(),
        };
        let said = self.tail.text();
        let said = match (call, said.is_empty()) {
            // What a worker prints may not be meant for a caller; whoever deploys it sees it.
            (Some(LOADING), false) => format!("{LAST_LINES}\n{said}"),
            _ => String::new(),
        };
        let doing = if call == Some(LOADING) {
            "while it was loaded"
        } else {
            "before it had answered"
        };
        let code = if call == Some(LOADING) {
            "worker_start"
        } else {
            "worker_died"
        };
        PortError::upstream(
            code,
            format!(
                "the worker of `{name}` {how} {doing}; another takes its place, send the request again{said}"
            ),
        )
    }
}

impl Handle {
    /// Whether it can be asked.
    pub fn is_alive(&self) -> bool {
        let state = self.0.state();
        !state.dead && state.ended.is_none()
    }

    /// About how many bytes of memory it holds.
    pub fn memory(&self) -> u64 {
        self.0.resident().unwrap_or(0)
    }

    fn enter(&self, reply: Reply, permit: OwnedSemaphorePermit) -> Result<u32, OwnedSemaphorePermit> {
        let mut state = self.0.state();
        if state.dead || state.ended.is_some() {
            return Err(permit);
        }
        // Numbers come again after four billion calls; none of then is still under way.
        state.last = state.last.wrapping_add(1).max(LOADING + 1);
        let id = state.last;
        let call = InFlight {
            started: Stopwatch::start(),
            reply,
            permit: Some(permit),
        };
        state.calls.insert(id, call);
        drop(state);
        self.0.busy.notify_one();
        Ok(id)
    }

    /// Takes back a call that could not be sent; no other is sent to a worker that does not listen.
    fn give_up(&self, id: u32) -> Option<OwnedSemaphorePermit> {
        let mut state = self.0.state();
        state.dead = true;
        state.calls.remove(&id).and_then(|call| call.permit)
    }

    /// Asks. Nothing is waited for between [`Handle::enter`] and the first byte: whoever leaves has asked, or has not.
    async fn send(
        &self,
        reply: Reply,
        payload: Payload,
        context: &CallContext,
        permit: OwnedSemaphorePermit,
    ) -> Result<Result<u32, PortError>, NotSent> {
        let stream = matches!(reply, Reply::Many(_));
        let line = self.0.line().await;
        let id = match self.enter(reply, permit) {
            Ok(id) => id,
            Err(permit) => return Err(NotSent(payload, permit)),
        };
        let request = match Request::call(id, &payload, context, stream) {
            Ok(request) => request,
            Err(error) => {
                self.0.state().calls.remove(&id);
                let message = format!("cannot write the call: {error}");
                return Ok(Err(PortError::internal("worker_died", message)));
            }
        };
        match self.0.write(line, request).await {
            Ok(()) => Ok(Ok(id)),
            // It never had the whole call. If the call is not there any more, its end has been told already.
            Err(_) => match self.give_up(id) {
                Some(permit) => Err(NotSent(payload, permit)),
                None => Ok(Ok(id)),
            },
        }
    }

    /// Asks it.
    pub async fn call(
        &self,
        payload: Payload,
        context: &CallContext,
        permit: OwnedSemaphorePermit,
    ) -> Result<Answer, NotSent> {
        let (sender, answer) = oneshot::channel();
        match self.send(Reply::One(sender), payload, context, permit).await? {
            Ok(id) => Ok(answer.await.unwrap_or_else(|_| Err(self.0.died(Some(id), None)))),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Asks it for an answer in pieces.
    pub async fn stream(
        &self,
        payload: Payload,
        context: &CallContext,
        permit: OwnedSemaphorePermit,
    ) -> Result<Result<(u32, Pieces), PortError>, NotSent> {
        let most = if self.0.deployment.concurrency() > 1 {
            PIECES_AMONG_OTHERS
        } else {
            PIECES
        };
        let (receiving, rest) = pieces(most);
        let asked = self
            .send(Reply::Many(receiving), payload, context, permit)
            .await?;
        Ok(asked.map(|call| (call, rest)))
    }

    /// The rest of an answer is not wanted.
    pub async fn cancel(&self, id: u32) {
        Arc::clone(&self.0).cancel(id).await;
    }
}

async fn hear(worker: Arc<Worker>, reader: OwnedReadHalf, exit: Exit) {
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    let why = loop {
        let frame = match Frame::read(&mut reader).await {
            Ok(frame) => frame,
            Err(error) => break error,
        };
        if let Err(error) = worker.take(frame).await {
            break error;
        }
    };
    worker.state().dead = true;
    worker.ending.close();
    worker.server.kill(worker.pid);
    let code = tokio::time::timeout(Duration::from_secs(5), exit).await;
    let code = code.ok().and_then(Result::ok);
    // What it printed last is still on its way.
    if code.is_some_and(|code| code != 0) {
        real_sleep(Duration::from_millis(20)).await;
    }
    let calls = std::mem::take(&mut worker.state().calls);
    if !calls.is_empty() || why.kind() == io::ErrorKind::InvalidData {
        tracing::warn!(deployment = %worker.deployment.name, pid = worker.pid, ?code, reason = %why, calls = calls.len(), "a worker ended");
    }
    for (id, call) in calls {
        let error = worker.died(Some(id), code);
        // Wherever the receiver is gone, nobody wants to know any more.
        match call.reply {
            Reply::Load(sender) => drop(sender.send(Err(error))),
            Reply::One(sender) => drop(sender.send(Err(error))),
            Reply::Many(receiving) => receiving.end_with(Err(error)),
        }
    }
    worker.busy.notify_one();
}

/// Looks at time and memory while there are calls.
async fn watch(worker: Arc<Worker>) {
    let limit = worker.deployment.time_limit();
    let memory = worker.deployment.memory_limit();
    loop {
        let late = {
            let state = worker.state();
            if state.dead {
                return;
            }
            let mut oldest: Option<(u32, Duration, Duration)> = None;
            for (id, call) in &state.calls {
                let (taken, allowed) = (call.started.elapsed(), if *id == LOADING { LOAD } else { limit });
                if oldest.is_none_or(|(_, longest, _)| taken > longest) {
                    oldest = Some((*id, taken, allowed));
                }
            }
            oldest
        };
        let Some((call, taken, allowed)) = late else {
            worker.busy.notified().await;
            // A call that is answered in less than this is no reason to look.
            real_sleep(LOOK).await;
            continue;
        };
        if taken > allowed {
            worker.end(call, Cause::Time(allowed));
        } else if let Some(bytes) = worker.resident()
            && bytes > memory
        {
            worker.end(call, Cause::Memory(bytes));
        }
        real_sleep(LOOK.min(allowed)).await;
    }
}
