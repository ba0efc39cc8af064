//! A call of a deployment, and its answer.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use tidemill_core::clock::{Stopwatch, Timestamp};
use tidemill_core::ids::{EndpointName, VersionNumber};
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
}

/// Answers one after another.
pub type CallAnswers = Pin<Box<dyn Stream<Item = Result<CallAnswer, ServeError>> + Send>>;
