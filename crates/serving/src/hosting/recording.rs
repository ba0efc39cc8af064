//! What the prediction log gets of a call: its inputs are written down before the model is asked, everything else when it is known.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures_core::Stream;
use serde_json::Value;
use tidemill_core::calls::{CallFacts, CallFault, Recorded, take_out};
use tidemill_core::clock::Stopwatch;
use tidemill_core::digest::sticky_position;
use tidemill_core::ids::{self, PredictionId};
use tidemill_core::servable::{CallContext, Payload};
use tidemill_core::spec::{CallLogSpec, LogFailure, ServingSpec};
use tidemill_core::tensors::Tensor;

use super::host::Host;
use super::version::Version;
use super::{CallAnswer, CallAnswers, Hosting};
use crate::error::ServeError;
use crate::log::{CallDraft, PredictionLog};

/// A call that is being recorded.
pub(super) struct Recording {
    log: PredictionLog,
    spec: Arc<ServingSpec>,
    draft: CallDraft,
    facts: CallFacts,
    received: Stopwatch,
    version: Arc<Version>,
    /// Of the first input.
    first_extent: usize,
}

impl Recording {
    /// Begins with what is asked. `None`: this call is not recorded.
    pub fn begin(
        host: &Host,
        hosting: &Hosting,
        version: &Arc<Version>,
        payload: &Payload,
        context: &CallContext,
        received: Stopwatch,
    ) -> Option<Self> {
        let (log, spec) = (hosting.log()?, host.spec());
        let keep = &spec.log;
        if !keep.enabled {
            return None;
        }
        // By the request's id, so that a repeated request is left out again, and with it all whom it asks.
        if keep.sample < 1.0 && sticky_position("log", &context.request_id) >= keep.sample {
            log.counters().unsampled_calls.add(1);
            return None;
        }
        let inputs = recorded(log, payload, keep);
        let draft = match CallDraft::begin(&inputs) {
            Ok(draft) => draft,
            Err(error) => {
                tracing::warn!(endpoint = %host.name(), %error, "a call is not recorded");
                log.counters().dropped_calls.add(1);
                return None;
            }
        };
        let at = host.now();
        let parameters = parameters(context, keep);
        let facts = CallFacts {
            id: PredictionId::new(ids::fresh(at)),
            endpoint: host.name().clone(),
            at,
            request_id: context.request_id.clone(),
            key: context.key.as_deref().map(str::to_owned),
            version: version.number,
            bundle: version.bundle,
            by: None,
            route: String::new(),
            degraded: None,
            fault: None,
            cached: false,
            streamed: false,
            cut_short: false,
            depth: context.depth,
            rows: 1,
            parameters,
            outputs: context.outputs.clone(),
            columns: false,
            queue_us: 0,
            compute_us: 0,
            total_us: 0,
        };
        Some(Self {
            log: log.clone(),
            spec: Arc::clone(spec),
            draft,
            facts,
            received,
            first_extent: match payload {
                Payload::Tensors(tensors) => tensors.first().map_or(1, Tensor::rows),
                Payload::Body { .. } => 1,
            },
            version: Arc::clone(version),
        })
    }

    /// What is only known once the version has been loaded.
    fn look_at_interface(&mut self) {
        if let Some(interface) = self.version.known_interface() {
            self.facts.columns = interface.columns;
            if interface.batches {
                self.facts.rows = self.first_extent as u64;
            }
        }
    }

    /// Under which id it is recorded.
    pub fn id(&self) -> PredictionId {
        self.facts.id.clone()
    }

    /// Records how it ended. A call that was refused before any model was asked (too much is asked at once) is counted elsewhere and not
    /// recorded: then the log would be what a busy server does.
    pub async fn finish(mut self, result: Result<CallAnswer, ServeError>) -> Result<CallAnswer, ServeError> {
        if matches!(result, Err(ServeError::Overloaded { .. })) {
            return result;
        }
        let answers = match &result {
            Ok(answer) => {
                self.note(answer);
                vec![recorded(&self.log, &answer.payload, &self.spec.log)]
            }
            Err(error) => {
                self.facts.fault = Some(fault(error, &self.spec.log));
                Vec::new()
            }
        };
        self.facts.total_us = self.received.micros();
        self.look_at_interface();
        let id = self.facts.id.clone();
        match self.spec.log.on_failure {
            LogFailure::Drop => {
                let offered = self.log.offer_call(self.draft, &answers, self.facts);
                let answer = result?;
                // Who is told an id may rely on it.
                let recorded = self.log.is_recorded(offered).await;
                Ok(CallAnswer {
                    prediction_id: recorded.then_some(id),
                    ..answer
                })
            }
            LogFailure::Refuse => {
                let recording = self.log.record_call(self.draft, &answers, self.facts).await;
                let answer = result?;
                recording?;
                Ok(CallAnswer {
                    prediction_id: Some(id),
                    ..answer
                })
            }
        }
    }

    fn note(&mut self, answer: &CallAnswer) {
        if answer.by.is_some() || answer.version != self.facts.version {
            self.facts.bundle = None;
        }
        self.facts.version = answer.version;
        self.facts.by.clone_from(&answer.by);
        answer.route.as_ref().clone_into(&mut self.facts.route);
        self.facts.degraded = answer.degraded.as_deref().map(str::to_owned);
        self.facts.cached = answer.cached;
        self.facts.queue_us = answer.times.queue / 1_000;
        self.facts.compute_us = answer.times.compute / 1_000;
    }

    /// The same answers; what was sent is recorded at their end, or when the caller goes away.
    pub fn stream(self, answers: CallAnswers) -> CallAnswers {
        let mut recording = self;
        recording.facts.streamed = true;
        Box::pin(RecordedStream {
            answers,
            recording: Some(recording),
            sent: Vec::new(),
            bytes: 0,
        })
    }
}

/// What may be recorded of a payload.
fn recorded(log: &PredictionLog, payload: &Payload, keep: &CallLogSpec) -> Recorded {
    let recorded = Recorded::of(payload, &keep.redact, keep.max_bytes);
    if matches!(recorded, Recorded::Omitted { .. }) {
        log.counters().omitted_payloads.add(1);
    }
    recorded
}

/// What may be recorded of a call's parameters.
fn parameters(context: &CallContext, keep: &CallLogSpec) -> String {
    if context.parameters.is_empty() {
        return String::new();
    }
    let mut parameters = Value::Object(context.parameters.clone());
    take_out(&mut parameters, &keep.redact);
    parameters.to_string()
}

/// What may be recorded of a failure.
fn fault(error: &ServeError, keep: &CallLogSpec) -> CallFault {
    let message = if keep.redact.is_empty() {
        error.to_string()
    } else {
        CallFault::REDACTED.to_owned()
    };
    CallFault {
        code: error.code().to_owned(),
        message,
    }
}

struct RecordedStream {
    answers: CallAnswers,
    recording: Option<Recording>,
    sent: Vec<Recorded>,
    /// Of what was sent.
    bytes: u64,
}

impl RecordedStream {
    fn end(&mut self, cut_short: bool) {
        let Some(mut recording) = self.recording.take() else {
            return;
        };
        recording.facts.cut_short = cut_short;
        recording.look_at_interface();
        recording.facts.total_us = recording.received.micros();
        let Recording {
            log, draft, facts, ..
        } = recording;
        // Its pieces are with the caller already: nothing could be refused any more.
        log.offer_call(draft, &self.sent, facts);
    }
}

impl Stream for RecordedStream {
    type Item = Result<CallAnswer, ServeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.answers.as_mut().poll_next(context));
        let this = &mut *self;
        match (&next, &mut this.recording) {
            (Some(Ok(answer)), Some(recording)) => {
                recording.note(answer);
                this.bytes += answer.payload.bytes() as u64;
                let keep = &recording.spec.log;
                let piece = if this.bytes > keep.max_bytes {
                    recording.log.counters().omitted_payloads.add(1);
                    let bytes = answer.payload.bytes() as u64;
                    Recorded::Omitted { bytes }
                } else {
                    recorded(&recording.log, &answer.payload, keep)
                };
                this.sent.push(piece);
            }
            (Some(Err(error)), Some(recording)) => {
                recording.facts.fault = Some(fault(error, &recording.spec.log));
            }
            (None, _) => this.end(false),
            (Some(_), None) => {}
        }
        Poll::Ready(next)
    }
}

impl Drop for RecordedStream {
    fn drop(&mut self) {
        self.end(true);
    }
}
