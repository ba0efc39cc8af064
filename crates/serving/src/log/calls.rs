//! Calls of deployments in the log: recorded without anybody waiting for it.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tidemill_core::calls::{CallFacts, CallRecord, Recorded};
use tidemill_core::clock::{Timestamp, real_sleep};
use tidemill_core::ids::EndpointName;
use tokio::sync::oneshot;

use super::record::{CallDraft, Kind, LogEntry, Note};
use super::writer::{Append, Charge, Command};
use super::{PredictionLog, blocking, recovery};
use crate::error::ServeError;

/// Bytes of calls that may wait to be written, beyond which they are dropped: the disk stalls.
const MAX_WAITING: usize = 8 << 20;

/// So long the answer to a call waits for its record, at most.
const MOMENT: Duration = Duration::from_millis(20);

/// What became of a call that was offered.
#[derive(Debug)]
pub(crate) enum Offered {
    /// The kernel has it.
    Written,
    /// It waits in line, in memory.
    Waiting(oneshot::Receiver<Result<(), ServeError>>),
    /// It is not recorded, and counted.
    Dropped,
}

/// Bytes of calls that wait to be written.
pub(super) type Waiting = std::sync::Arc<AtomicUsize>;

impl PredictionLog {
    /// Records a call. Where nothing holds the disk up it is in the kernel's hands when this returns; else it waits in a line of limited
    /// length, or is dropped and counted.
    pub(crate) fn offer_call(&self, draft: CallDraft, answers: &[Recorded], facts: CallFacts) -> Offered {
        let dropped = |error: Option<ServeError>| {
            if let Some(error) = error {
                tracing::debug!(%error, "a call could not be recorded");
            }
            Offered::Dropped
        };
        let record = match draft.finish(answers, &facts) {
            Ok(record) => record,
            Err(error) => {
                self.counters().dropped_calls.add(1);
                return dropped(Some(error));
            }
        };
        let note = note_of(facts);
        if self.inner.tail.is_direct()
            && let Some(appended) = self.inner.tail.try_append(&record, note.lent())
        {
            return match appended {
                Ok(full) => {
                    // It is written all the same if nobody is there to rotate any more.
                    if full && self.send(Command::Rotate).is_err() {
                        tracing::debug!("the log is closed, and its segment stays full");
                    }
                    Offered::Written
                }
                Err(error) => dropped(Some(error)),
            };
        }
        let Some(charge) = Charge::take(&self.inner.waiting, record.len(), MAX_WAITING) else {
            self.counters().dropped_calls.add(1);
            return dropped(None);
        };
        // What becomes of it is counted, also where nobody listens.
        let (done, acknowledged) = oneshot::channel();
        let append = Append {
            record,
            note,
            claim: None,
            done,
            _charge: Some(charge),
        };
        match self.send(Command::Append(Box::new(append))) {
            Ok(()) => Offered::Waiting(acknowledged),
            Err(error) => dropped(Some(error)),
        }
    }

    /// Whether an offered call is recorded by now: one that waits in line is in memory only. Where the disk keeps up it is waited for a
    /// moment.
    pub(crate) async fn is_recorded(&self, offered: Offered) -> bool {
        match offered {
            Offered::Written => true,
            Offered::Dropped => false,
            Offered::Waiting(_) if self.inner.tail.is_stalled() => false,
            Offered::Waiting(acknowledged) => tokio::select! {
                written = acknowledged => matches!(written, Ok(Ok(()))),
                () = real_sleep(MOMENT) => false,
            },
        }
    }

    /// Records a call and waits until it is recorded.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) async fn record_call(
        &self,
        draft: CallDraft,
        answers: &[Recorded],
        facts: CallFacts,
    ) -> Result<(), ServeError> {
        let record = draft.finish(answers, &facts)?;
        let note = note_of(facts);
        if self.inner.tail.is_direct() {
            if self.inner.tail.append(&record, note.lent(), None)? {
                self.send(Command::Rotate)?;
            }
            return Ok(());
        }
        let (done, acknowledged) = oneshot::channel();
        let append = Append {
            record,
            note,
            claim: None,
            done,
            _charge: None,
        };
        self.send(Command::Append(Box::new(append)))?;
        acknowledged.await.map_err(|_| ServeError::Closed)?
    }

    /// The calls of a deployment in `[from, until)` that are not removed yet, in the order of writing.
    ///
    /// # Errors
    /// If a segment cannot be read.
    pub async fn live_calls(
        &self,
        endpoint: &EndpointName,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<CallRecord>, ServeError> {
        let segments = self.segments_between(endpoint, Kind::Call, from, until);
        if segments.is_empty() {
            return Ok(Vec::new());
        }
        let (dir, endpoint) = (self.inner.dir.clone(), endpoint.clone());
        blocking(move || {
            let mut calls = Vec::new();
            for id in segments {
                let Some(found) = recovery::read_unless_moved(&id.path(&dir))? else {
                    continue;
                };
                for found in found {
                    let note = found.record.entry.note();
                    let wanted = note.kind == Kind::Call
                        && (from..until).contains(&note.at)
                        && *note.endpoint == endpoint;
                    if let LogEntry::Call(call) = found.record.entry
                        && wanted
                    {
                        calls.push(*call);
                    }
                }
            }
            Ok(calls)
        })
        .await
    }
}

fn note_of(facts: CallFacts) -> Note {
    Note {
        endpoint: facts.endpoint,
        at: facts.at,
        ids: vec![facts.id],
        kind: Kind::Call,
    }
}
