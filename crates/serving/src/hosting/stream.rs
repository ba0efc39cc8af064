//! Answers in pieces: begun, counted piece by piece, and ended when the caller's time is over.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use tidemill_core::clock::{Clock, Stopwatch};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{Answers, Deadline, Payload};
use tokio::task::AbortHandle;

use super::ask::ready;
use super::call::CallTimes;
use super::host::Host;
use super::recording::Recording;
use super::replicas::Slot;
use super::statistics::{Counted, Piece};
use super::version::{Version, over};
use super::{Call, CallAnswer, CallAnswers, Hosting, fit};
use crate::error::ServeError;

impl Host {
    pub async fn stream(&self, hosting: &Hosting, mut call: Call) -> Result<CallAnswers, ServeError> {
        self.check_on()?;
        let context = self.context(&mut call);
        let (kind, chosen, version) = self.choose(call.version, &context, &call.payload)?;
        let mut counted = Counted::new(&version.counts, call.received);
        let replica = counted.watch(ready(version, &mut call.payload, &context).await)?;
        if replica.interface.decoupled {
            counted.watch(self.check_rate(version))?;
            let used = self.now().as_micros().max(1) as u64;
            version.last_used.store(used, Ordering::Relaxed);
            let waiting = Stopwatch::start();
            let slot = counted.watch(version.slot_for_stream(&context).await)?;
            let queue = waiting.nanos();
            let recording = Recording::begin(self, hosting, version, &call.payload, &context, call.received);
            let rows = fit::rows(&replica.interface, &call.payload);
            let began = Stopwatch::start();
            let answers = tokio::select! {
                answers = slot.replica.model.stream(call.payload.clone(), &context) => {
                    answers.map_err(|source| version.failed(source))
                }
                () = over(context.deadline) => Err(version.late("the model took too long to begin")),
            };
            let answers = match counted.watch(answers) {
                Ok(answers) => answers,
                Err(error) => {
                    return match recording {
                        Some(recording) => recording
                            .finish(Err(error))
                            .await
                            .map(|_| Box::pin(futures_util::stream::empty()) as CallAnswers),
                        None => Err(error),
                    };
                }
            };
            if let Some(answers) = answers {
                self.routing.count(kind);
                let model = CallAnswer {
                    version: version.number,
                    route: Arc::clone(&chosen.route),
                    payload: Payload::Tensors(Vec::new()),
                    request_id: context.request_id.clone(),
                    at: self.now(),
                    degraded: None,
                    cached: false,
                    prediction_id: recording.as_ref().map(Recording::id),
                    by: None,
                    times: CallTimes::default(),
                };
                let answers = Box::pin(InPieces {
                    answers: Held::until(context.deadline, answers, slot),
                    ended: false,
                    over: Box::pin(over(context.deadline)),
                    version: Arc::clone(version),
                    clock: self.clock(),
                    counted,
                    model,
                    place: 0,
                    rows,
                    queue,
                    began,
                    piece: began,
                });
                return Ok(match recording {
                    Some(recording) => recording.stream(answers),
                    None => answers,
                });
            }
        }
        // The call counts itself.
        counted.passed_on();
        // The same id, so that the same version is chosen.
        call.context = context;
        let answer = self.call(hosting, call).await?;
        Ok(Box::pin(futures_util::stream::iter([Ok(answer)])))
    }
}

/// The model's answers and the slot, which is held until the last piece: the replica works on this call so long. Both go when the caller's
/// time is over, even if nobody reads any more.
struct Held {
    kept: Arc<Mutex<Option<(Answers, Slot)>>>,
    /// Lets go of them.
    timer: Option<AbortHandle>,
}

impl Held {
    fn until(deadline: Option<Deadline>, answers: Answers, slot: Slot) -> Self {
        let kept = Arc::new(Mutex::new(Some((answers, slot))));
        let timer = deadline.map(|deadline| {
            let late = Arc::clone(&kept);
            let timer = tokio::spawn(async move {
                over(Some(deadline)).await;
                let gone = lock(&late).take();
                drop(gone);
            });
            timer.abort_handle()
        });
        Self { kept, timer }
    }

    fn let_go(&self) {
        // Not while the lock is held.
        let gone = lock(&self.kept).take();
        drop(gone);
    }

    /// `None`: they are gone, because the time is over.
    fn poll_next(&self, context: &mut Context<'_>) -> Option<Poll<Option<Result<Payload, PortError>>>> {
        let mut kept = lock(&self.kept);
        let (answers, _) = kept.as_mut()?;
        Some(answers.as_mut().poll_next(context))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
        self.let_go();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pieces as the model gives them, until its answer or the caller's time is over.
struct InPieces {
    answers: Held,
    /// The last piece was given, or the time is over.
    ended: bool,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
    version: Arc<Version>,
    clock: Arc<dyn Clock>,
    counted: Counted,
    /// Every piece but for its payload and its time.
    model: CallAnswer,
    place: usize,
    rows: usize,
    queue: u64,
    began: Stopwatch,
    /// Since the piece before.
    piece: Stopwatch,
}

impl InPieces {
    fn fail(&mut self, error: ServeError) -> Poll<Option<Result<CallAnswer, ServeError>>> {
        self.note(Piece::Failed);
        self.counted.failed(&error);
        Poll::Ready(Some(Err(error)))
    }

    fn note(&mut self, piece: Piece) {
        let counts = &self.version.counts;
        counts.piece(self.place, piece, self.piece.nanos());
        self.place += 1;
        self.piece = Stopwatch::start();
    }
}

impl Stream for InPieces {
    type Item = Result<CallAnswer, ServeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        // Before the pieces: a model that always has one ready would go on for ever.
        let late = this.over.as_mut().poll(context).is_ready();
        let next = if late {
            None
        } else {
            this.answers.poll_next(context)
        };
        let Some(next) = next else {
            this.ended = true;
            this.answers.let_go();
            return this.fail(this.version.late("its answer was not over in time"));
        };
        match std::task::ready!(next) {
            Some(Ok(payload)) => {
                this.note(Piece::Came);
                Poll::Ready(Some(Ok(CallAnswer {
                    payload,
                    at: this.clock.now(),
                    ..this.model.clone()
                })))
            }
            // Others may follow; the call has failed all the same.
            Some(Err(source)) => {
                let error = this.version.failed(source);
                this.fail(error)
            }
            None => {
                this.ended = true;
                this.answers.let_go();
                if this.counted.is_open() {
                    this.note(Piece::Over);
                    let infer = this.began.nanos();
                    this.version.counts.answered_alone(this.rows, this.queue, infer);
                    this.counted.answered(this.clock.now().as_millis() as u64);
                }
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for InPieces {
    fn drop(&mut self) {
        // That the caller went away is counted with the call.
        if !self.ended && self.counted.is_open() {
            self.note(Piece::Cancelled);
        }
    }
}
