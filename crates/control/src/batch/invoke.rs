//! `SageMaker`'s asynchronous inference: one body out of a file, its answer into another. A request that was accepted is stored, so it is
//! answered also if the server ends before; it is forgotten once its answer is there.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidemill_core::clock::Timestamp;

use super::ask::AskBody;
use super::error::{BatchError, Result};
use super::places::Places;
use super::worker::Worker;

/// The largest body.
const MOST: u64 = 64 << 20;

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

impl Worker {
    /// Answers the request, or writes why not.
    pub(super) async fn invoke(&self, asked: &Invoke, now: Timestamp) -> Result<()> {
        let (location, bytes) = match self.invoked(asked, now).await {
            Ok(bytes) => (&asked.output, bytes),
            Err(error) => {
                tracing::warn!(%error, endpoint = %self.endpoint, id = asked.id, "an asynchronous request failed");
                let said = json!({ "Message": error.message, "ErrorCode": error.code });
                (&asked.failure, said.to_string().into())
            }
        };
        let place = self.places.find(location)?;
        self.places.write(&self.caller, &place, bytes).await
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
        let answering = self.ask.ask(self.asking(body, Some(asked.id.clone())));
        let limit = Duration::from_secs(asked.timeout_s);
        match tokio::time::timeout(limit, answering).await {
            Ok(given) => Ok(given?.bytes()),
            Err(_) => Err(BatchError::bad_input(format!(
                "the model took longer than {} s (`InvocationTimeoutSeconds`)",
                asked.timeout_s
            ))),
        }
    }
}
