//! The one thread that writes. It takes whatever waits in its queue, runs each change in its own savepoint, and pays for one
//! durable commit for all of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::sync::broadcast;

use crate::db::{Connection, Purpose, Source};
use crate::error::StoreError;
use crate::events::Event;
use crate::lock::FolderLock;
use crate::tx::Tx;

/// A group is closed at this size, so that the first of it does not wait for ever.
const MAX_GROUP: usize = 256;

/// A change on its way: runs once, then answers once.
trait Job: Send {
    /// Runs the change; keeps its result for the answer. Returns its events, or that it has to be rolled back.
    fn run(&mut self, conn: &Connection) -> Result<Vec<Event>, RolledBack>;
    /// Answers with the result, or with why the group could not be stored.
    fn answer(self: Box<Self>, failure: Option<StoreError>);
}

/// Why a change has to be rolled back.
struct RolledBack(StoreError);

struct Change<T, F, A> {
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    answer: A,
}

impl<T, F, A> Job for Change<T, F, A>
where
    T: Send,
    F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send,
    A: FnOnce(Result<T, StoreError>) + Send,
{
    fn run(&mut self, conn: &Connection) -> Result<Vec<Event>, RolledBack> {
        let Some(work) = self.work.take() else {
            return Err(RolledBack(StoreError::Closed));
        };
        let mut tx = Tx::new(conn);
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut tx))).unwrap_or_else(|panic| {
            Err(StoreError::Panicked {
                message: panic_message(panic.as_ref()),
            })
        });
        let outcome = match &result {
            Ok(_) => Ok(tx.into_events()),
            Err(error) => Err(RolledBack(error.clone())),
        };
        self.result = Some(result);
        outcome
    }

    fn answer(self: Box<Self>, failure: Option<StoreError>) {
        let answer = match (self.result, failure) {
            // What the change itself said tells more than what became of its group.
            (Some(Err(own)), _) => Err(own),
            (_, Some(failure)) => Err(failure),
            (Some(Ok(value)), None) => Ok(value),
            (None, None) => Err(StoreError::Closed),
        };
        (self.answer)(answer);
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}

/// The queue in front of the writing thread. Dropping it stores what waits, then closes the database and frees the folder.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(
        source: Source,
        conn: Connection,
        lock: FolderLock,
        events: broadcast::Sender<Event>,
    ) -> Result<Self, StoreError> {
        let (queue, jobs) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                serve(&source, conn, &jobs, &events);
                drop(lock);
            })
            .map_err(|e| StoreError::io("start the thread", "store-writer".as_ref(), e))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    pub fn submit<T, F, A>(&self, change: F, answer: A) -> Result<(), StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        A: FnOnce(Result<T, StoreError>) + Send + 'static,
    {
        let job = Change {
            work: Some(change),
            result: None,
            answer,
        };
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        queue.send(Box::new(job)).map_err(|_| StoreError::Closed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        let Some(thread) = self.thread.take() else { return };
        // The last owner of the store may be a closure on this very thread, which cannot wait for itself.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the store's writing thread panicked");
        }
    }
}

fn serve(
    source: &Source,
    mut conn: Connection,
    jobs: &mpsc::Receiver<Box<dyn Job>>,
    events: &broadcast::Sender<Event>,
) {
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        group.extend(jobs.try_iter().take(MAX_GROUP - 1));
        if conn.is_lost() {
            match source.connect(Purpose::Write) {
                Ok(fresh) => conn = fresh,
                Err(error) => {
                    tracing::warn!(%error, "the metadata database is away");
                    for job in group {
                        job.answer(Some(error.clone()));
                    }
                    continue;
                }
            }
        }
        store_group(&conn, group, events);
    }
    conn.close();
}

/// Runs the jobs in one transaction. If the database gives up on the whole transaction half-way (a full disk does that), the
/// jobs up to there are told so, and the rest starts afresh.
fn store_group(conn: &Connection, group: Vec<Box<dyn Job>>, events: &broadcast::Sender<Event>) {
    let mut waiting = group.into_iter();
    loop {
        let mut done = Vec::with_capacity(waiting.len());
        let outcome = run_until_lost(conn, &mut waiting, &mut done);
        match outcome {
            Ok(announcements) => {
                for job in done {
                    job.answer(None);
                }
                for event in announcements {
                    // Nobody listening is fine.
                    let _ = events.send(event);
                }
            }
            Err(failure) => {
                tracing::warn!(error = %failure, changes = done.len(), "could not store a group of changes");
                if conn.in_transaction()
                    && let Err(error) = conn.rollback()
                {
                    tracing::error!(%error, "could not roll back");
                }
                for job in done {
                    job.answer(Some(failure.clone()));
                }
            }
        }
        if waiting.len() == 0 {
            return;
        }
    }
}

fn run_until_lost(
    conn: &Connection,
    waiting: &mut std::vec::IntoIter<Box<dyn Job>>,
    done: &mut Vec<Box<dyn Job>>,
) -> Result<Vec<Event>, StoreError> {
    let mut announcements = Vec::new();
    if let Err(error) = conn.begin_write() {
        done.extend(waiting);
        return Err(error);
    }
    for mut job in waiting {
        let outcome = run_in_savepoint(conn, job.as_mut());
        done.push(job);
        announcements.extend(outcome?);
    }
    conn.commit()?;
    Ok(announcements)
}

/// `Err` means that the whole transaction is lost; a job that merely failed gives no events.
fn run_in_savepoint(conn: &Connection, job: &mut dyn Job) -> Result<Vec<Event>, StoreError> {
    conn.command("SAVEPOINT change")?;
    match job.run(conn) {
        Ok(events) if conn.in_transaction() => {
            conn.command("RELEASE change")?;
            Ok(events)
        }
        // The change swallowed the error that cost the transaction.
        Ok(_) => Err(StoreError::Closed),
        Err(RolledBack(error)) if !conn.in_transaction() => Err(error),
        Err(RolledBack(_)) => {
            conn.command("ROLLBACK TO change")?;
            conn.command("RELEASE change")?;
            Ok(Vec::new())
        }
    }
}
