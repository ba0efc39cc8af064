//! One request from its arrival to its recorded answer.

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::clock::{Clock, Stopwatch, Timestamp};
use tidemill_core::digest::{Digest, sticky_position};
use tidemill_core::frame::{Column, Frame, Scores};
use tidemill_core::ids::{self, EndpointName, PredictionId, VersionNumber};
use tidemill_core::predictions::{PredictionBatch, Role};
use tidemill_core::servable::Deadline;

use crate::answer::{self, Answered, Ask};
use crate::error::ServeError;
use crate::explain::{self, ExplainOptions, Explanation};
use crate::guard::{Finding, SchemaError};
use crate::hosting::{Hosting, VersionStatistics, WeakHosting};
use crate::log::{Claim, Claimed, PredictionLog, RequestKey};
use crate::metrics::{Counters, Metrics};
use crate::pressure::{Pressure, PressureGauge};
use crate::routing::{Route, Router};
use crate::tallies::Tallies;

/// Batches of more rows than this are computed on a blocking thread, so that they do not hold up small ones.
const HEAVY_ROWS: usize = 256;

/// A request whose rows have been through [`crate::coerce`].
#[derive(Debug, Clone)]
pub struct InferRequest {
    /// Which endpoint.
    pub endpoint: EndpointName,
    /// The caller's id of the request: sending the same rows under the same id again gives the same answer, recorded once.
    pub request_id: Option<String>,
    /// The rows, in the route's schema.
    pub rows: Frame,
    /// The key of each row, or nothing at all. Without a key a row's unit is `request_id:row`.
    pub keys: Vec<Option<Arc<str>>>,
    /// Started when the request arrived.
    pub received: Stopwatch,
    /// A version asked for by number: it alone answers, without fallback, and the batch counts for no canary.
    pub version: Option<VersionNumber>,
    /// Until when an answer is of use.
    pub deadline: Option<Deadline>,
}

/// The answer, one entry a row in each vector.
#[derive(Debug, Clone, PartialEq)]
pub struct InferResponse {
    /// The id of each row's prediction.
    pub ids: Vec<PredictionId>,
    /// The version that answered each row; [`VersionNumber::DEFAULT`] for the default answer.
    pub versions: Vec<VersionNumber>,
    /// As what it answered.
    pub roles: Vec<Role>,
    /// What went wrong on the way to each row's answer.
    pub degraded: Vec<Option<Arc<str>>>,
    /// The answers.
    pub scores: Scores,
    /// The caller's id of the request, or the one made for it.
    pub request_id: String,
    /// When it was served; for a repeated request, when it was served first.
    pub at: Timestamp,
}

impl From<&PredictionBatch> for InferResponse {
    fn from(batch: &PredictionBatch) -> Self {
        Self {
            ids: batch.ids.clone(),
            versions: batch.versions.clone(),
            roles: batch.roles.clone(),
            degraded: batch.degraded.clone(),
            scores: batch.scores.clone(),
            request_id: batch.request_id.clone(),
            at: batch.at,
        }
    }
}

/// Answers requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    router: Arc<Router>,
    log: PredictionLog,
    hosting: Hosting,
    tallies: Arc<Tallies>,
    clock: Arc<dyn Clock>,
}

/// [`Server`] for what is in it: graphs, which ask other deployments and endpoints.
#[derive(Debug, Clone)]
pub(crate) struct WeakServer {
    hosting: WeakHosting,
    router: Arc<Router>,
    log: PredictionLog,
    tallies: Arc<Tallies>,
    clock: Arc<dyn Clock>,
}

impl WeakServer {
    /// The server, while it is there.
    pub fn upgrade(&self) -> Option<Server> {
        Some(Server {
            hosting: self.hosting.upgrade()?,
            router: Arc::clone(&self.router),
            log: self.log.clone(),
            tallies: Arc::clone(&self.tallies),
            clock: Arc::clone(&self.clock),
        })
    }
}

impl Server {
    /// A server over a routing table and an open log.
    pub fn new(router: Arc<Router>, log: PredictionLog, clock: Arc<dyn Clock>) -> Self {
        let hosting = Hosting::new(Arc::clone(&clock)).recording(log.clone());
        Self {
            router,
            log,
            hosting,
            tallies: Arc::default(),
            clock,
        }
    }

    pub(crate) fn downgrade(&self) -> WeakServer {
        WeakServer {
            hosting: self.hosting.downgrade(),
            router: Arc::clone(&self.router),
            log: self.log.clone(),
            tallies: Arc::clone(&self.tallies),
            clock: Arc::clone(&self.clock),
        }
    }

    /// The deployments that are asked by tensors or bodies.
    pub fn hosting(&self) -> &Hosting {
        &self.hosting
    }

    /// The routing table.
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// The prediction log.
    pub fn log(&self) -> &PredictionLog {
        &self.log
    }

    /// How far this machine is behind. Somebody has to [`PressureGauge::watch`].
    pub fn pressure(&self) -> &PressureGauge {
        self.hosting.pressure()
    }

    /// What has been counted so far.
    pub fn metrics(&self) -> Metrics {
        self.log.metrics()
    }

    /// What has been counted of the versions behind one endpoint or all, by name and version.
    pub fn statistics(&self, endpoint: Option<&EndpointName>) -> Vec<VersionStatistics> {
        self.tallies.snapshot(&self.router, endpoint)
    }

    /// Answers a request and records the answer; once this returns, the answer survives kill -9.
    ///
    /// # Errors
    /// If there is no such endpoint or version, nothing that could answer, or the answer could not be recorded.
    pub async fn predict(&self, request: InferRequest) -> Result<InferResponse, ServeError> {
        let (received, version) = (request.received, request.version);
        let counters = self.log.counters();
        let Some(route) = self.router.route(&request.endpoint) else {
            counters.errors.add(1);
            return Err(ServeError::UnknownEndpoint {
                name: request.endpoint,
                known: self.router.names(),
            });
        };
        let result = self.answer_and_record(&route, request).await;
        let total = received.elapsed();
        let result = match result {
            Ok((response, infer)) => {
                counters.requests.add(1);
                self.tallies.answered(&route, &response, infer, total);
                Ok(response)
            }
            Err(error) => {
                counters.errors.add(1);
                self.tallies.failed(&route, version, &error, total);
                Err(error)
            }
        };
        counters.observe_latency(u64::try_from(total.as_micros()).unwrap_or(u64::MAX));
        result
    }

    /// What each input contributed to what a version of an endpoint would answer, and which version: the champion if none is named.
    /// Nothing of it is recorded.
    ///
    /// # Errors
    /// If there is no such version, or its answer cannot be explained.
    pub async fn explain(
        &self,
        route: &Route,
        version: Option<VersionNumber>,
        rows: Frame,
        options: &ExplainOptions,
    ) -> Result<(VersionNumber, Explanation), ServeError> {
        explain::endpoint::explain(route, version, rows, options).await
    }

    /// Records a batch as the endpoint wants it.
    async fn record(
        &self,
        route: &Route,
        batch: PredictionBatch,
        claim: Option<Claim>,
    ) -> Result<(), ServeError> {
        let keep = &route.keep;
        // By the request's id, so that a repeated request is left out again.
        if keep.sample < 1.0 && sticky_position("log", &batch.request_id) >= keep.sample {
            self.log.counters().unsampled_requests.add(1);
            return Ok(());
        }
        let batch = redacted(batch, &keep.redact);
        match self.log.append_claimed(batch, claim).await {
            Err(error) if keep.answer_unrecorded => {
                tracing::warn!(endpoint = %route.endpoint, %error, "answered without a record");
                Ok(())
            }
            result => result,
        }
    }

    /// The answer, and how long the models took.
    async fn answer_and_record(
        &self,
        route: &Arc<Route>,
        request: InferRequest,
    ) -> Result<(InferResponse, Duration), ServeError> {
        let pressure = self.hosting.pressure().now();
        if pressure == Pressure::All {
            self.log.counters().requests_shed.add(1);
            return Err(ServeError::Overloaded {
                endpoint: route.endpoint.clone(),
                why: "this machine is behind with its work".to_owned(),
            });
        }
        let request = check(route, request)?;
        if request.rows.rows() == 0 {
            return Err(no_rows(route).into());
        }

        let mut claim = None;
        if let Some(request_id) = &request.request_id {
            let key = request_key(&request, request_id);
            match self.log.claim(key).await? {
                Claimed::Served(response) => {
                    self.log.counters().repeats.add(1);
                    return Ok((response, Duration::ZERO));
                }
                Claimed::Mine(mine) => claim = Some(mine),
            }
        }

        let at = self.clock.now();
        let named = request.request_id.is_some();
        let ask = Ask {
            request_id: request.request_id.unwrap_or_else(|| ids::fresh(at)),
            rows: request.rows,
            keys: request.keys,
            version: request.version,
            deadline: request.deadline,
        };
        let computing = Stopwatch::start();
        let computed = compute(Arc::clone(route), ask, self.log.counters(), pressure).await;
        if matches!(computed, Err(ServeError::Overloaded { .. })) {
            self.log.counters().requests_shed.add(1);
        }
        let (ask, answered) = computed?;
        let infer = computing.elapsed();
        let key = claim.as_ref().map(Claim::key);
        let prediction_ids = prediction_ids(at, ask.rows.rows(), named.then_some(key).flatten());
        let batch = PredictionBatch {
            endpoint: route.endpoint.clone(),
            at,
            request_id: ask.request_id,
            ids: prediction_ids,
            keys: ask.keys,
            versions: answered.versions,
            roles: answered.roles,
            canary_share: answered.canary_share,
            degraded: answered.degraded,
            scores: answered.scores,
            shadows: answered.shadows,
            features: ask.rows,
            latency_us: request.received.micros(),
        };
        let response = InferResponse::from(&batch);
        self.record(route, batch, claim).await?;
        Ok((response, infer))
    }
}

/// What of a batch may be recorded.
fn redacted(mut batch: PredictionBatch, features: &[usize]) -> PredictionBatch {
    if !features.is_empty() {
        batch.features = batch.features.without(features);
    }
    batch
}

fn check(route: &Route, mut request: InferRequest) -> Result<InferRequest, ServeError> {
    let schema = request.rows.schema();
    if !Arc::ptr_eq(schema, &route.schema) && **schema != *route.schema {
        return Err(ServeError::SchemaChanged {
            endpoint: request.endpoint,
        });
    }
    let (rows, keys) = (request.rows.rows(), request.keys.len());
    if keys == 0 {
        request.keys = vec![None; rows];
    } else if keys != rows {
        return Err(SchemaError::of(Finding {
            field: "keys".to_owned(),
            row: None,
            value: Some(keys.to_string()),
            expected: format!("{rows} keys, one a row, or none at all"),
            message: format!("{keys} keys came for {rows} rows; send one a row, or none at all"),
        })
        .into());
    }
    Ok(request)
}

fn no_rows(route: &Route) -> SchemaError {
    SchemaError::of(Finding {
        field: route
            .schema
            .features
            .first()
            .map(|f| f.name.clone())
            .unwrap_or_default(),
        row: None,
        value: None,
        expected: "at least one row".to_owned(),
        message: "the request has no rows; expected at least one".to_owned(),
    })
}

/// Small batches are computed where they are; heavy ones on a blocking thread.
async fn compute(
    route: Arc<Route>,
    ask: Ask,
    counters: &Arc<Counters>,
    pressure: Pressure,
) -> Result<(Ask, Answered), ServeError> {
    if ask.rows.rows() <= HEAVY_ROWS {
        let answered = answer::answer(&route, &ask, counters, pressure)?;
        return Ok((ask, answered));
    }
    let counters = Arc::clone(counters);
    let heavy = move || answer::answer(&route, &ask, &counters, pressure).map(|answered| (ask, answered));
    tokio::task::spawn_blocking(heavy)
        .await
        .map_err(|error| ServeError::Internal(format!("a blocking thread failed: {error}")))?
}

/// What makes two requests the same: endpoint, the caller's id, the version asked for, keys and values. The content belongs to it
/// because some clients number their requests anew in each process: another request under an old id is another request.
fn request_key(request: &InferRequest, request_id: &str) -> RequestKey {
    let mut content = Vec::new();
    content.extend_from_slice(&request.version.map_or(0, |version| version.0).to_le_bytes());
    let mut put_text = |text: Option<&str>| match text {
        Some(text) => {
            content.extend_from_slice(&(text.len() as u64 + 1).to_le_bytes());
            content.extend_from_slice(text.as_bytes());
        }
        None => content.extend_from_slice(&0u64.to_le_bytes()),
    };
    for key in &request.keys {
        put_text(key.as_deref());
    }
    for column in request.rows.columns() {
        if let Column::Categorical(values) = column {
            for value in values {
                put_text(value.as_deref());
            }
        }
    }
    for column in request.rows.columns() {
        if let Column::Numeric(values) = column {
            for value in values {
                content.extend_from_slice(&value.to_bits().to_le_bytes());
            }
        }
    }
    let parts = [
        request.endpoint.as_str().as_bytes(),
        request_id.as_bytes(),
        &content,
    ];
    RequestKey::new(Digest::of_parts(parts))
}

fn prediction_ids(at: Timestamp, rows: usize, key: Option<RequestKey>) -> Vec<PredictionId> {
    let id = |row: usize| match &key {
        Some(key) => ids::derived(at, [key.as_bytes().as_slice(), &(row as u64).to_le_bytes()]),
        None => ids::fresh(at),
    };
    (0..rows).map(|row| PredictionId::new(id(row))).collect()
}
