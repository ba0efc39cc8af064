//! One fork server: a warm Python process that forks workers. It is spoken to over its standard input, and ends when that closes.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Value, json};
use tidemill_core::ports::PortError;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

use super::logs::{self, Tail};

/// An interpreter has to be there within this time.
const START: Duration = Duration::from_mins(1);

/// Forking takes milliseconds, but what it was told to import before has to be imported first.
const FORK: Duration = Duration::from_mins(2);

/// A fork server whose socket was closed may take so long to end its workers and itself.
const GRACE: Duration = Duration::from_secs(5);

/// Variables of this process that Python may see. All others stay here: they may hold secrets.
const PASSED_ON: [&str; 14] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "TZ",
    "USER",
    "LOGNAME",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "CUDA_VISIBLE_DEVICES",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Variables by which numeric libraries are told how many threads they may have.
const THREADS: [&str; 6] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
];

/// How a worker ended: the exit code, or the signal as a negative number.
pub(super) type Exit = oneshot::Receiver<i32>;

type Forked = Result<(i32, Exit), String>;

#[derive(Debug)]
struct Order {
    message: Value,
    descriptors: Vec<OwnedFd>,
}

#[derive(Debug, Default)]
struct Waiting {
    forks: HashMap<u64, oneshot::Sender<Forked>>,
    exits: HashMap<i32, oneshot::Sender<i32>>,
}

/// A fork server that runs.
#[derive(Debug)]
pub(super) struct ForkServer {
    orders: mpsc::UnboundedSender<Order>,
    waiting: Arc<Mutex<Waiting>>,
    gone: Arc<AtomicBool>,
    next: AtomicU64,
    /// Ends with this.
    _process: Process,
}

/// The process of a fork server. When this is dropped its socket is closed: it then ends its workers with all that they started, which an
/// end by force would leave behind.
#[derive(Debug)]
struct Process {
    child: Option<Child>,
    stream: Arc<UnixStream>,
    gone: Arc<AtomicBool>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let stuck = self.gone.load(Ordering::Acquire);
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write);
        let Some(mut child) = self.child.take() else {
            return;
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !stuck => {
                runtime.spawn(async move {
                    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                        let _ = child.start_kill();
                    }
                });
            }
            // It answers no more, or has ended.
            _ if stuck => drop(child.start_kill()),
            // Nobody is here to wait for it; its closed socket ends it.
            _ => {}
        }
    }
}

/// The environment of every Python process of ours.
pub(crate) fn clean(command: &mut Command, threads: u32) {
    command.env_clear();
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for name in THREADS {
        command.env(name, threads.to_string());
    }
    command.env("PYTHONUNBUFFERED", "1").env("PYTHONUTF8", "1");
}

impl ForkServer {
    /// Starts one and waits until it can fork.
    pub async fn start(python: &Path, sources: &Path, threads: u32) -> Result<Self, PortError> {
        let failed = |why: String| {
            PortError::upstream(
                "python_missing",
                format!(
                    "cannot start Python as `{}`: {why}; install Python 3.10 or newer, or name one with `TIDEMILL_PYTHON`",
                    python.display()
                ),
            )
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|e| failed(e.to_string()))?;
        // Else the interpreter's folder of this script would go before the standard library.
        let begin = format!(
            "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.append({}); from tidemill_worker.server import main; main()",
            Value::from(sources.to_string_lossy())
        );
        let mut command = Command::new(python);
        clean(&mut command, threads);
        let ours = ours.set_nonblocking(true).map(|()| ours);
        let stream = ours
            .and_then(UnixStream::from_std)
            .map_err(|e| failed(e.to_string()))?;
        let stream = Arc::new(stream);
        let gone = Arc::new(AtomicBool::new(false));
        let mut child = command
            .args(["-W", "ignore:This process:DeprecationWarning", "-c", &begin])
            .current_dir(sources)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|e| failed(e.to_string()))?;
        let stderr = child.stderr.take();
        let mut process = Process {
            child: Some(child),
            stream: Arc::clone(&stream),
            gone: Arc::clone(&gone),
        };
        // The command keeps its end of the socket open until it is dropped.
        drop(command);
        let tail = Tail::default();
        if let Some(stderr) = stderr {
            tokio::spawn(logs::follow(stderr, "fork server".into(), tail.clone()));
        }
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (ready, is_ready) = oneshot::channel();
        let (orders, queue) = mpsc::unbounded_channel();
        tokio::spawn(obey(Arc::clone(&stream), queue));
        tokio::spawn(listen(stream, Arc::clone(&waiting), Arc::clone(&gone), ready));
        match tokio::time::timeout(START, is_ready).await {
            Ok(Ok(python)) => tracing::debug!(%python, "fork server ready"),
            Ok(Err(_)) => {
                let status = match process.child.as_mut() {
                    Some(child) => child.wait().await.map_err(|e| failed(e.to_string()))?.to_string(),
                    None => String::new(),
                };
                return Err(failed(format!("it ended with {status}:\n{}", tail.text())));
            }
            Err(_) => return Err(failed(format!("it said nothing for {} s", START.as_secs()))),
        }
        Ok(Self {
            orders,
            waiting,
            gone,
            next: AtomicU64::new(1),
            _process: process,
        })
    }

    /// Whether it has ended by itself.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn order(&self, message: Value, descriptors: Vec<OwnedFd>) {
        // A server that is gone is noticed by whoever waits for its answer.
        let _ = self.orders.send(Order { message, descriptors });
    }

    /// Has it import modules, so that the next workers have them.
    pub fn import(&self, modules: &[String]) {
        self.order(json!({ "import": modules }), Vec::new());
    }

    /// Ends a worker at once, with everything that it started.
    pub fn kill(&self, pid: i32) {
        self.order(json!({ "kill": pid }), Vec::new());
    }

    /// Ends a worker that does not end by itself in a few seconds.
    pub fn retire(&self, pid: i32) {
        self.order(json!({ "retire": pid }), Vec::new());
    }

    /// Forks a worker, which talks over `data` and prints into `log`.
    pub async fn fork(&self, config: &Value, data: OwnedFd, log: OwnedFd) -> Result<(i32, Exit), PortError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, forked) = oneshot::channel();
        let waiting = || self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting().forks.insert(id, sender);
        if self.is_gone() {
            waiting().forks.remove(&id);
        }
        self.order(json!({ "fork": id, "config": config }), vec![data, log]);
        let failed = |why: &str| PortError::upstream("worker_start", format!("cannot fork a worker: {why}"));
        match tokio::time::timeout(FORK, forked).await {
            Ok(Ok(Ok(forked))) => Ok(forked),
            Ok(Ok(Err(why))) => Err(failed(&why)),
            Ok(Err(_)) => Err(failed("the fork server has ended; the next call begins another")),
            Err(_) => {
                // Whoever asks next begins another; this one ends when nobody holds it any more.
                self.gone.store(true, Ordering::Release);
                Err(failed(
                    "the fork server does not answer; the next call begins another",
                ))
            }
        }
    }
}

async fn obey(stream: Arc<UnixStream>, mut queue: mpsc::UnboundedReceiver<Order>) {
    while let Some(order) = queue.recv().await {
        if let Err(error) = send(&stream, &order).await {
            tracing::debug!(%error, "the fork server takes no orders");
            return;
        }
    }
}

async fn send(stream: &UnixStream, order: &Order) -> io::Result<()> {
    let text = order.message.to_string();
    let mut frame = Vec::with_capacity(4 + text.len());
    frame.extend_from_slice(&(text.len() as u32).to_le_bytes());
    frame.extend_from_slice(text.as_bytes());
    let mut sent = 0;
    while sent < frame.len() {
        let write = || {
            let descriptors: Vec<_> = order.descriptors.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            // They go with the first byte.
            if sent == 0 && !descriptors.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            Ok(rustix::net::sendmsg(
                stream,
                &[IoSlice::new(&frame[sent..])],
                &mut ancillary,
                flags,
            )?)
        };
        sent += stream.async_io(Interest::WRITABLE, write).await?;
    }
    Ok(())
}

/// Hears what the server says, until it says no more.
async fn listen(
    stream: Arc<UnixStream>,
    waiting: Arc<Mutex<Waiting>>,
    gone: Arc<AtomicBool>,
    ready: oneshot::Sender<String>,
) {
    let mut ready = Some(ready);
    let mut received: Vec<u8> = Vec::new();
    let mut buffer = [0_u8; 4_096];
    loop {
        if stream.readable().await.is_err() {
            break;
        }
        match stream.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        }
        while let Some((head, rest)) = received.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*head) as usize;
            let Some(text) = rest.get(..length) else { break };
            let message: Value = serde_json::from_slice(text).unwrap_or_default();
            received.drain(..4 + length);
            if let Some(ready) = ready.take_if(|_| message["ready"].is_i64()) {
                let python = message["python"].as_str().unwrap_or_default().to_owned();
                let _ = ready.send(python);
            } else {
                hear(&message, &waiting);
            }
        }
    }
    gone.store(true, Ordering::Release);
    // Whoever waits sees the other end dropped.
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.forks.clear();
    waiting.exits.clear();
}

fn hear(message: &Value, waiting: &Mutex<Waiting>) {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(forked) = message["forked"]
        .as_u64()
        .and_then(|id| waiting.forks.remove(&id))
    {
        let Some(pid) = message["pid"].as_i64() else {
            let _ = forked.send(Err(message["error"].as_str().unwrap_or("no process").to_owned()));
            return;
        };
        let (sender, exit) = oneshot::channel();
        waiting.exits.insert(pid as i32, sender);
        // Nobody waits any more: the worker sees its socket closed and ends.
        let _ = forked.send(Ok((pid as i32, exit)));
    } else if let Some(pid) = message["exited"].as_i64()
        && let Some(exit) = waiting.exits.remove(&(pid as i32))
    {
        let _ = exit.send(message["code"].as_i64().unwrap_or(0) as i32);
    }
}
