//! Deployments that are asked by tensors or bodies: many in one process, each loaded when it is first asked, gathered into batches,
//! scaled, and put to sleep again.
//!
//! The way of a call: [`Hosting::call`] → `host.rs` (version, limits, cache) → `version.rs` (`queue.rs`, `batch.rs`) → a replica's model.

mod again;
mod ask;
mod batch;
mod cache;
mod call;
mod explain;
mod fallback;
mod fit;
mod host;
mod limit;
mod pump;
mod queue;
mod recording;
#[cfg(test)]
mod recording_tests;
mod replicas;
pub(crate) mod routing;
#[cfg(test)]
mod routing_tests;
mod statistics;
#[cfg(test)]
mod statistics_tests;
mod stream;
#[cfg(test)]
mod tests;
mod threads;
mod trend;
mod version;
mod warm;
#[cfg(test)]
mod work_tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tidemill_core::clock::{Clock, Timestamp, real_sleep};
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, VersionNumber};
#[cfg(doc)]
use tidemill_core::servable::Servable;
use tidemill_core::servable::{Interface, Loader, PartStatistics};
use tidemill_core::spec::ServingSpec;

use crate::error::ServeError;
use crate::explain::{ExplainOptions, Explanation};
use crate::log::PredictionLog;
use crate::pressure::PressureGauge;
pub use call::{Call, CallAnswer, CallAnswers, CallTimes};
use host::Host;
pub use routing::{
    BanditArm, BanditState, BreakerState, BreakerStatistics, RoutingStatistics, ShadowStatistics,
};
pub use statistics::{BatchStatistics, DurationStatistics, ResponseStatistics, VersionStatistics};
pub(crate) use statistics::{BatchTimes, Counts};
use version::Version;

/// So many deployments may ask one another for one request.
const MAX_DEPTH: u8 = 8;

/// How often house is kept.
const TURN: Duration = Duration::from_secs(1);

/// A version of a deployment, and how to load it.
#[derive(Debug, Clone)]
pub struct HostedVersion {
    /// Its number.
    pub number: VersionNumber,
    /// Loads it, whenever it is needed.
    pub loader: Arc<dyn Loader>,
    /// The bundle that it is loaded from, if it is.
    pub bundle: Option<Digest>,
}

/// A deployment as it is meant to be.
#[derive(Debug, Clone)]
pub struct Hosted {
    /// The endpoint's name.
    pub name: EndpointName,
    /// How it answers.
    pub spec: Arc<ServingSpec>,
    /// Its versions, in any order.
    pub versions: Vec<HostedVersion>,
}

/// Where a version stands, in Triton's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionState {
    /// It answers, now or as soon as it is asked.
    Ready,
    /// It is being loaded.
    Loading,
    /// It is finishing what it was asked.
    Unloading,
    /// It does not answer: it was unloaded, or could not be loaded.
    Unavailable,
}

impl VersionState {
    /// The protocol's name, such as `READY`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// A version in the listing.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexEntry {
    /// The endpoint.
    pub name: EndpointName,
    /// The version.
    pub version: VersionNumber,
    /// Where it stands.
    pub state: VersionState,
    /// Why, where it does not answer.
    pub reason: String,
    /// Replicas that are loaded.
    pub replicas: usize,
    /// When it was last asked.
    pub last_used: Option<Timestamp>,
}

/// All deployments of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hosting {
    hosts: Arc<ArcSwap<HashMap<EndpointName, Arc<Host>>>>,
    clock: Arc<dyn Clock>,
    /// Bytes that all loaded models may take; 0 for any.
    memory_budget: Arc<AtomicU64>,
    pressure: PressureGauge,
    log: Option<PredictionLog>,
}

/// [`Hosting`] for those who are in it: graphs, which ask other deployments.
#[derive(Debug, Clone)]
pub(crate) struct WeakHosting {
    hosts: Weak<ArcSwap<HashMap<EndpointName, Arc<Host>>>>,
    clock: Arc<dyn Clock>,
    memory_budget: Arc<AtomicU64>,
    pressure: PressureGauge,
    log: Option<PredictionLog>,
}

impl WeakHosting {
    /// The deployments, while they are there.
    pub fn upgrade(&self) -> Option<Hosting> {
        Some(Hosting {
            hosts: self.hosts.upgrade()?,
            clock: Arc::clone(&self.clock),
            memory_budget: Arc::clone(&self.memory_budget),
            pressure: self.pressure.clone(),
            log: self.log.clone(),
        })
    }
}

impl Hosting {
    /// No deployments yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            hosts: Arc::default(),
            clock,
            memory_budget: Arc::default(),
            pressure: PressureGauge::default(),
            log: None,
        }
    }

    /// The same, recording calls.
    pub(crate) fn recording(mut self, log: PredictionLog) -> Self {
        self.log = Some(log);
        self
    }

    pub(crate) fn log(&self) -> Option<&PredictionLog> {
        self.log.as_ref()
    }

    pub(crate) fn downgrade(&self) -> WeakHosting {
        WeakHosting {
            hosts: Arc::downgrade(&self.hosts),
            clock: Arc::clone(&self.clock),
            memory_budget: Arc::clone(&self.memory_budget),
            pressure: self.pressure.clone(),
            log: self.log.clone(),
        }
    }

    /// How far this machine is behind; the first that is left undone then are copies for shadows.
    pub(crate) fn pressure(&self) -> &PressureGauge {
        &self.pressure
    }

    /// Lets all loaded models take so many bytes; above, those that were not asked for longest are put to sleep.
    pub fn set_memory_budget(&self, bytes: Option<u64>) {
        self.memory_budget.store(bytes.unwrap_or(0), Ordering::Relaxed);
    }

    /// Keeps house for ever: loads what is meant to be ready, takes idle replicas away, and keeps within the memory.
    pub async fn keep_house(&self) {
        loop {
            self.tidy();
            real_sleep(TURN).await;
        }
    }

    /// One turn of [`Hosting::keep_house`].
    pub fn tidy(&self) {
        let hosts = self.hosts.load_full();
        for host in hosts.values() {
            host.provide();
            for version in host.versions() {
                version.top_up();
                version.scale_in();
            }
        }
        let budget = self.memory_budget.load(Ordering::Relaxed);
        if budget == 0 {
            return;
        }
        let versions = hosts.values().flat_map(|host| host.versions());
        let mut loaded: Vec<&Arc<Version>> =
            versions.filter(|version| version.replicas.count() > 0).collect();
        loaded.sort_by_key(|version| version.last_used.load(Ordering::Relaxed));
        let mut held: u64 = loaded.iter().map(|version| version.replicas.memory()).sum();
        for version in loaded {
            if held <= budget {
                return;
            }
            let memory = version.replicas.memory();
            if version.sleep() {
                tracing::info!(endpoint = %version.endpoint, version = %version.number, memory, "put to sleep to make room");
                held -= memory;
            }
        }
    }

    /// Adds a deployment, or replaces the one of that name: calls under way end on what they began on. Versions that are loaded in the same
    /// way as before ([`Loader::identity`]) keep their replicas, so another routing or another limit loads nothing.
    pub fn put(&self, deployment: Hosted) {
        self.hosts.rcu(|hosts| {
            let before = hosts.get(&deployment.name).map(AsRef::as_ref);
            let host = Host::new(deployment.clone(), Arc::clone(&self.clock), before);
            let mut next = HashMap::clone(hosts);
            next.insert(host.name().clone(), Arc::new(host));
            next
        });
    }

    /// Gives a deployment other settings and keeps its versions.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn set_spec(&self, name: &EndpointName, spec: Arc<ServingSpec>) -> Result<(), ServeError> {
        let versions = self.host(name)?.hosted_versions();
        self.put(Hosted {
            name: name.clone(),
            spec,
            versions,
        });
        Ok(())
    }

    /// Tells how an answer of a version turned out, from 0 to 1: a bandit that chooses this version learns from it. Returns whether there is
    /// one.
    ///
    /// # Errors
    /// If there is no deployment of that name.
    pub fn tell_outcome(
        &self,
        name: &EndpointName,
        version: VersionNumber,
        outcome: f64,
    ) -> Result<bool, ServeError> {
        Ok(self.host(name)?.routing.tell(version, outcome))
    }

    /// What a deployment's bandit has learnt, to be stored; `None` without a bandit.
    ///
    /// # Errors
    /// If there is no deployment of that name.
    pub fn bandit(&self, name: &EndpointName) -> Result<Option<BanditState>, ServeError> {
        Ok(self.host(name)?.routing.bandit().map(routing::Bandit::state))
    }

    /// Gives a deployment's bandit back what was stored of it. Returns whether it has one.
    ///
    /// # Errors
    /// If there is no deployment of that name.
    pub fn restore_bandit(&self, name: &EndpointName, state: &BanditState) -> Result<bool, ServeError> {
        let host = self.host(name)?;
        let bandit = host.routing.bandit();
        if let Some(bandit) = bandit {
            bandit.restore(state);
        }
        Ok(bandit.is_some())
    }

    /// What has been counted of the routing, for one deployment or for all, by name.
    pub fn routing_statistics(&self, name: Option<&EndpointName>) -> Vec<RoutingStatistics> {
        let hosts = self.hosts.load();
        let wanted = hosts
            .values()
            .filter(|host| name.is_none_or(|name| host.name() == name));
        let mut all: Vec<RoutingStatistics> = wanted
            .map(|host| host.routing.statistics(host.name(), self.clock.now()))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What has been counted of the parts of versions that have parts: the nodes of graphs.
    pub fn part_statistics(
        &self,
        name: Option<&EndpointName>,
    ) -> Vec<(EndpointName, VersionNumber, Vec<PartStatistics>)> {
        let hosts = self.hosts.load();
        let wanted = hosts
            .values()
            .filter(|host| name.is_none_or(|name| host.name() == name));
        let parts = wanted.flat_map(|host| {
            let versions = host.versions().map(|version| (version.number, version.parts()));
            let with_parts = versions.filter(|(_, parts)| !parts.is_empty());
            with_parts.map(|(number, parts)| (host.name().clone(), number, parts))
        });
        let mut all: Vec<_> = parts.collect();
        all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        all
    }

    /// Takes a deployment away; calls under way end. Returns whether it was there.
    pub fn remove(&self, name: &EndpointName) -> bool {
        let mut there = false;
        self.hosts.rcu(|hosts| {
            let mut next = HashMap::clone(hosts);
            there = next.remove(name).is_some();
            next
        });
        there
    }

    /// Whether there is a deployment of that name.
    pub fn contains(&self, name: &EndpointName) -> bool {
        self.hosts.load().contains_key(name)
    }

    /// The names of all deployments, sorted.
    pub fn names(&self) -> Vec<EndpointName> {
        let mut names: Vec<EndpointName> = self.hosts.load().keys().cloned().collect();
        names.sort();
        names
    }

    fn host(&self, name: &EndpointName) -> Result<Arc<Host>, ServeError> {
        self.hosts
            .load()
            .get(name)
            .cloned()
            .ok_or_else(|| ServeError::UnknownEndpoint {
                name: name.clone(),
                known: self.names().iter().map(ToString::to_string).collect(),
            })
    }

    /// Every version of every deployment, by name and number.
    pub fn index(&self) -> Vec<IndexEntry> {
        let hosts = self.hosts.load();
        let mut entries: Vec<IndexEntry> = hosts.values().flat_map(|host| host.index()).collect();
        entries.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        entries
    }

    /// How a deployment is meant to answer.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn spec(&self, name: &EndpointName) -> Result<Arc<ServingSpec>, ServeError> {
        Ok(Arc::clone(self.host(name)?.spec()))
    }

    /// The versions of a deployment that its policy serves, oldest first.
    ///
    /// # Errors
    /// If there is no deployment of that name.
    pub fn served_versions(&self, name: &EndpointName) -> Result<Vec<VersionNumber>, ServeError> {
        Ok(self.host(name)?.served())
    }

    /// What a version takes and gives, if that is known without loading it.
    pub fn known_interface(
        &self,
        name: &EndpointName,
        version: Option<VersionNumber>,
    ) -> Option<Arc<Interface>> {
        self.host(name).ok()?.known_interface(version)
    }

    /// Whether whoever may answer a call of it (the version that is named, or else all of them and its fallbacks) reads the bodies of
    /// MLflow's scoring protocol itself. What has never been loaded is taken to do as the others do.
    pub fn scores(&self, name: &EndpointName, version: Option<VersionNumber>) -> bool {
        self.host(name).is_ok_and(|host| host.scores(self, version))
    }

    /// What each input contributed to a version's answer, and which version; the newest if none is named. The model is asked itself where
    /// it can tell ([`Servable::explain`]).
    ///
    /// # Errors
    /// As [`Hosting::call`], and if the answer is nothing that can be explained.
    pub async fn explain(
        &self,
        call: Call,
        options: &ExplainOptions,
    ) -> Result<(VersionNumber, Explanation), ServeError> {
        explain::explain(&*self.host(&call.endpoint)?, call, options).await
    }

    /// What a version takes and gives; the newest version if none is named. Loads it if that is not known without.
    ///
    /// # Errors
    /// If there is no such deployment or version, or it cannot be loaded.
    pub async fn interface(
        &self,
        name: &EndpointName,
        version: Option<VersionNumber>,
    ) -> Result<(VersionNumber, Arc<Interface>), ServeError> {
        self.host(name)?.interface(version).await
    }

    /// Whether a version would answer: it is there and was not unloaded. Sleeping counts as ready.
    pub fn is_ready(&self, name: &EndpointName, version: Option<VersionNumber>) -> bool {
        self.host(name).is_ok_and(|host| host.is_ready(version))
    }

    /// Loads a deployment now, also one that was unloaded.
    ///
    /// # Errors
    /// If there is none of that name, or it cannot be loaded.
    pub async fn load(&self, name: &EndpointName) -> Result<(), ServeError> {
        self.host(name)?.load().await
    }

    /// Unloads a deployment: it answers nothing until it is loaded again. Calls under way end first.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn unload(&self, name: &EndpointName) -> Result<(), ServeError> {
        self.host(name)?.unload();
        Ok(())
    }

    /// Answers a call.
    ///
    /// # Errors
    /// If there is no such deployment or version, the payload does not fit, it had to be refused, or the model failed.
    pub async fn call(&self, call: Call) -> Result<CallAnswer, ServeError> {
        if call.context.depth >= MAX_DEPTH {
            let name = &call.endpoint;
            let message = format!(
                "deployments ask one another {MAX_DEPTH} deep, the last of them `{name}`: a circle, most likely"
            );
            return Err(ServeError::Internal(message));
        }
        self.host(&call.endpoint)?.call(self, call).await
    }

    /// [`Hosting::call`], for deployments that ask others.
    pub(crate) fn call_boxed(&self, call: Call) -> BoxFuture<'_, Result<CallAnswer, ServeError>> {
        Box::pin(self.call(call))
    }

    /// Answers a call piece by piece; a model that gives one answer gives a stream of one.
    ///
    /// # Errors
    /// As [`Hosting::call`]; what goes wrong later is the stream's last item.
    pub async fn stream(&self, call: Call) -> Result<CallAnswers, ServeError> {
        self.host(&call.endpoint)?.stream(self, call).await
    }

    /// What has been counted, for one deployment or for all, by name and version.
    pub fn statistics(&self, name: Option<&EndpointName>) -> Vec<VersionStatistics> {
        let hosts = self.hosts.load();
        let mut all: Vec<VersionStatistics> = hosts
            .values()
            .filter(|host| name.is_none_or(|name| host.name() == name))
            .flat_map(|host| host.statistics())
            .collect();
        all.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        all
    }
}
