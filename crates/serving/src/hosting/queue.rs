//! Calls that wait for a replica, by priority, and what may be answered together.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_core::clock::Stopwatch;
use tidemill_core::servable::{CallContext, Payload};
use tokio::sync::{Notify, oneshot};

use super::call::Said;
use crate::error::ServeError;

/// So many bytes wait at most, however few requests they are.
const MAX_BYTES: usize = 512 << 20;

/// A call that waits.
pub(super) struct Pending {
    pub payload: Payload,
    pub context: CallContext,
    pub rows: usize,
    /// Equal for calls that may be answered together; `None` for one that goes alone.
    pub alike: Option<u64>,
    /// From 0, the most urgent.
    pub priority: usize,
    pub waiting: Stopwatch,
    pub reply: oneshot::Sender<Result<Said, ServeError>>,
}

impl Pending {
    /// Whether nobody wants the answer any more.
    fn is_over(&self) -> bool {
        self.reply.is_closed() || self.context.deadline.is_some_and(|deadline| deadline.passed())
    }
}

#[derive(Default)]
struct Lines {
    /// One line a priority, the most urgent first.
    by_priority: Vec<VecDeque<Pending>>,
    waiting: usize,
    rows: usize,
    bytes: usize,
}

impl Lines {
    fn took(&mut self, pending: &Pending) {
        self.waiting -= 1;
        self.rows -= pending.rows;
        self.bytes -= pending.payload.bytes();
    }
}

/// The calls that wait for a version.
pub(super) struct Queue {
    lines: Mutex<Lines>,
    arrived: Notify,
    max_requests: usize,
    max_wait: Option<Duration>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} waiting)", self.lock().waiting)
    }
}

/// What was taken from the line.
pub(super) struct Taken {
    /// To be answered together.
    pub batch: Vec<Pending>,
    /// Nobody waits for these any more, or they waited too long.
    pub over: Vec<Pending>,
}

impl Queue {
    pub fn new(priorities: u32, max_requests: u32, max_wait: Option<Duration>) -> Self {
        let by_priority = (0..priorities.max(1)).map(|_| VecDeque::new()).collect();
        Self {
            lines: Mutex::new(Lines {
                by_priority,
                ..Lines::default()
            }),
            arrived: Notify::new(),
            max_requests: max_requests as usize,
            max_wait,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a call in line. Returns whether there was room.
    pub fn push(&self, pending: Pending) -> bool {
        {
            let mut lines = self.lock();
            if lines.waiting >= self.max_requests {
                // Those whose callers have gone make room.
                drop_over(&mut lines);
                if lines.waiting >= self.max_requests {
                    return false;
                }
            }
            let bytes = pending.payload.bytes();
            if lines.waiting > 0 && lines.bytes + bytes > MAX_BYTES {
                return false;
            }
            lines.waiting += 1;
            lines.rows += pending.rows;
            lines.bytes += bytes;
            let last = lines.by_priority.len() - 1;
            lines.by_priority[pending.priority.min(last)].push_back(pending);
        }
        self.arrived.notify_one();
        true
    }

    /// Returns once somebody has come since the last call.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// How many rows wait.
    pub fn rows(&self) -> usize {
        self.lock().rows
    }

    /// How long the first in line has waited.
    pub fn oldest(&self) -> Duration {
        let lines = self.lock();
        let firsts = lines.by_priority.iter().filter_map(VecDeque::front);
        firsts
            .map(|pending| pending.waiting.elapsed())
            .max()
            .unwrap_or_default()
    }

    /// The most urgent call and those that may be answered with it, `max_rows` in all; a call of more rows goes alone. `longest`: who has
    /// waited longer than this is over, beside those who waited longer than they may at any time.
    pub fn take(&self, max_rows: usize, longest: Option<Duration>) -> Taken {
        let mut taken = Taken {
            batch: Vec::new(),
            over: Vec::new(),
        };
        let mut guard = self.lock();
        let lines = &mut *guard;
        let mut rows = 0;
        let mut alike = None;
        let max_wait = match (self.max_wait, longest) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        for line in 0..lines.by_priority.len() {
            let mut place = 0;
            while place < lines.by_priority[line].len() {
                let pending = &lines.by_priority[line][place];
                let late = max_wait.is_some_and(|most| pending.waiting.elapsed() > most);
                let over = late || pending.is_over();
                let fits = taken.batch.is_empty()
                    || (pending.alike.is_some() && pending.alike == alike && rows + pending.rows <= max_rows);
                if !over && !fits {
                    // In order: one that would fit does not overtake its like that does not.
                    if pending.alike == alike {
                        break;
                    }
                    place += 1;
                    continue;
                }
                let Some(pending) = lines.by_priority[line].remove(place) else {
                    break;
                };
                lines.took(&pending);
                if over {
                    taken.over.push(pending);
                    continue;
                }
                rows += pending.rows;
                if taken.batch.is_empty() {
                    alike = pending.alike;
                }
                taken.batch.push(pending);
                if alike.is_none() || rows >= max_rows {
                    return taken;
                }
            }
        }
        taken
    }

    /// Everybody, because nobody can be answered.
    pub fn drain(&self) -> Vec<Pending> {
        let mut lines = self.lock();
        lines.waiting = 0;
        lines.rows = 0;
        lines.bytes = 0;
        lines.by_priority.iter_mut().flat_map(std::mem::take).collect()
    }
}

fn drop_over(lines: &mut Lines) {
    for line in &mut lines.by_priority {
        line.retain(|pending| !pending.is_over());
    }
    lines.waiting = lines.by_priority.iter().map(VecDeque::len).sum();
    lines.rows = lines
        .by_priority
        .iter()
        .flatten()
        .map(|pending| pending.rows)
        .sum();
    let calls = lines.by_priority.iter().flatten();
    lines.bytes = calls.map(|pending| pending.payload.bytes()).sum();
}

/// A number that is equal for payloads that can be joined along their first dimension and asked alike.
pub(super) fn alike(payload: &Payload, context: &CallContext) -> Option<u64> {
    let Payload::Tensors(tensors) = payload else {
        return None;
    };
    let mut hasher = DefaultHasher::new();
    for tensor in tensors {
        tensor.name.hash(&mut hasher);
        tensor.datatype.hash(&mut hasher);
        tensor.shape.get(1..)?.hash(&mut hasher);
    }
    context.outputs.hash(&mut hasher);
    for (name, value) in &context.parameters {
        name.hash(&mut hasher);
        value.to_string().hash(&mut hasher);
    }
    Some(hasher.finish())
}
