//! A call of a deployment, and its answer.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use tidemill_core::clock::{Stopwatch, Timestamp};
use tidemill_core::ids::{EndpointName, PredictionId, VersionNumber};
use tidemill_core::servable::{CallContext, Payload};

use crate::error::ServeError;

/// A call, as a protocol has read it.
#[derive(Debug, Clone)]
pub struct Call {
    /// Which deployment.
    pub endpoint: EndpointName,
    /// Which version of it; the newest served one if none is named.
    pub version: Option<VersionNumber>,
    /// What is asked.
    pub payload: Payload,
    /// What travels with it. Its id may be empty, then one is made; its deadline is set here from `timeout`.
    pub context: CallContext,
    /// Started when the request arrived.
    pub received: Stopwatch,
    /// The answer is of no use after this long; the deployment's own timeout, if that is shorter.
    pub timeout: Option<Duration>,
    /// How urgent it is, 1 before all others; 0 for the deployment's usual.
    pub priority: u32,
    /// The unit that sticks to one version where traffic is split.
    pub key: Option<Arc<str>>,
    /// What the caller said beside the request: headers that begin with `x-`, in lower case.
    pub attributes: BTreeMap<String, String>,
}

impl Call {
    /// A call without anything special.
    pub fn new(endpoint: EndpointName, payload: Payload, received: Stopwatch) -> Self {
        Self {
            endpoint,
            version: None,
            payload,
            context: CallContext::default(),
            received,
            timeout: None,
            priority: 0,
            key: None,
            attributes: BTreeMap::new(),
        }
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct CallAnswer {
    /// The version that answered; [`VersionNumber::DEFAULT`] for an answer that no model gave.
    pub version: VersionNumber,
    /// Why this version: `version` (the request named it), `rule 2`, `split 0.1000` and `bandit 0.1000` (with its share), `newest`, or what
    /// answered instead, such as `fallback version 1`.
    pub route: Arc<str>,
    /// What it said.
    pub payload: Payload,
    /// The caller's id of the request, or the one made for it.
    pub request_id: String,
    /// When it was answered.
    pub at: Timestamp,
    /// What went wrong on the way to the answer.
    pub degraded: Option<Arc<str>>,
    /// Whether it was remembered from an earlier call.
    pub cached: bool,
    /// Under which id the call is recorded, if it is.
    pub prediction_id: Option<PredictionId>,
    /// Another deployment that answered instead; then the version is one of that.
    pub by: Option<EndpointName>,
    /// How long it took.
    pub times: CallTimes,
}

/// How long the parts of a call took, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallTimes {
    /// In line.
    pub queue: u64,
    /// In the model.
    pub compute: u64,
}

/// A model's answer, and how long it took.
#[derive(Debug)]
pub(super) struct Said {
    pub payload: Payload,
    pub times: CallTimes,
}

/// Answers one after another.
pub type CallAnswers = Pin<Box<dyn Stream<Item = Result<CallAnswer, ServeError>> + Send>>;
