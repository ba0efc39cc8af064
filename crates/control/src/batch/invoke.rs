//! `SageMaker`'s asynchronous inference: one body out of a file, its answer into another. A request that was accepted is stored, so it is
//! answered also if the server ends before; it is forgotten once its answer is there.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidemill_core::clock::{Timestamp, real_sleep};
use tidemill_core::ports::Blame;
use tidemill_store::batch_jobs::BatchJob;

use super::ask::AskBody;
use super::error::{BatchError, Result};
use super::places::Places;
use super::shape::{Shape, Spec};
use super::worker::Worker;
use crate::tracking::Caller;

/// The largest body.
const MOST: u64 = 64 << 20;

/// An answer that cannot be written is tried for so long.
const DELIVERY: Duration = Duration::from_mins(10);
/// The first wait before that, and the longest.
const DELIVERY_WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// An asynchronous request.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Invoke {
    /// The file of the body.
    pub input: String,
    /// The file of the answer.
    pub output: String,
    /// The file that says why there is none.
    pub failure: String,
    /// The body's type.
    pub content_type: String,
    /// The type that is wanted back.
    pub accept: String,
    /// The caller's id of the request.
    pub id: String,
    /// What goes to the model beside the body.
    pub parameters: Map<String, Value>,
    /// How long the model has.
    pub timeout_s: u64,
    /// When nobody wants the answer any more, if its turn has not come.
    pub expires_at: Timestamp,
}

impl Invoke {
    /// Refuses what cannot be done.
    pub(super) fn check(&self, places: &Places) -> Result<()> {
        for location in [&self.input, &self.output, &self.failure] {
            places.find(location)?;
        }
        Ok(())
    }
}

/// What the file says of a request that has no answer.
fn error_file(error: &BatchError) -> bytes::Bytes {
    let said = json!({ "Message": error.message, "ErrorCode": error.code });
    said.to_string().into()
}

/// Says in a single body's file that it was cancelled; whether that is there now.
pub(super) async fn said_cancelled(job: &BatchJob, places: &Places) -> bool {
    let Ok(Spec {
        shape: Shape::Invoke(asked),
        ..
    }) = serde_json::from_value(job.spec.clone())
    else {
        return true;
    };
    let caller = Caller {
        user: job.created_by.clone(),
        workspace: job.workspace.clone(),
    };
    let said = match places.find(&asked.failure) {
        Ok(place) => {
            places
                .write(&caller, &place, error_file(&BatchError::cancelled()))
                .await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = &said {
        tracing::warn!(job = job.id, %error, "that an asynchronous request was cancelled cannot be written");
    }
    said.is_ok()
}

impl Worker {
    /// Answers the request, or writes why not.
    pub(super) async fn invoke(&self, asked: &Invoke, now: Timestamp) -> Result<()> {
        let (location, bytes) = match self.invoked(asked, now).await {
            Ok(bytes) => (&asked.output, bytes),
            Err(error) => {
                tracing::warn!(%error, endpoint = %self.endpoint, id = asked.id, "an asynchronous request failed");
                (&asked.failure, error_file(&error))
            }
        };
        self.deliver(location, bytes).await
    }

    /// Writes a file, again and again where it cannot be written now: the request was accepted, and its answer exists nowhere else.
    async fn deliver(&self, location: &str, bytes: bytes::Bytes) -> Result<()> {
        let place = self.places.find(location)?;
        let mut waited = Duration::ZERO;
        let mut wait = DELIVERY_WAITS.0;
        loop {
            match self.places.write(&self.caller, &place, bytes.clone()).await {
                Err(error) if error.blame != Blame::Caller && waited < DELIVERY => {
                    tracing::warn!(%error, location, "the answer to an asynchronous request cannot be written; trying again");
                    real_sleep(wait).await;
                    waited += wait;
                    wait = (wait * 2).min(DELIVERY_WAITS.1);
                }
                written => return written,
            }
        }
    }

    async fn invoked(&self, asked: &Invoke, now: Timestamp) -> Result<bytes::Bytes> {
        if now > asked.expires_at {
            return Err(BatchError::bad_input(format!(
                "the request waited until {}, and was wanted no longer then (`RequestTTLSeconds`)",
                asked.expires_at
            )));
        }
        let place = self.places.find(&asked.input)?;
        let Some(file) = self.places.open(&self.caller, &place).await? else {
            return Err(BatchError::missing(format!("there is no file `{}`", asked.input)));
        };
        let Some(bytes) = file.rest(MOST).await? else {
            return Err(BatchError::bad_input(format!(
                "`{}` is larger than {} MiB",
                asked.input,
                MOST >> 20
            )));
        };
        let body = AskBody::Body {
            content_type: asked.content_type.clone(),
            accept: asked.accept.clone(),
            bytes: bytes.into(),
            parameters: asked.parameters.clone(),
        };
        let asking = self.asking(body, Some(asked.id.clone()));
        let limit = Duration::from_secs(asked.timeout_s);
        match self.ask.ask_within(asking, Some(limit)).await? {
            Some(given) => Ok(given.bytes()),
            None => Err(BatchError::bad_input(format!(
                "the model took longer than {} s (`InvocationTimeoutSeconds`)",
                asked.timeout_s
            ))),
        }
    }
}
