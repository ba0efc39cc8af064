//! Deployments that are asked by tensors or bodies: many in one process, each loaded when it is first asked, gathered into batches,
//! scaled, and put to sleep again.
//!
//! The way of a call: [`Hosting::call`] → `host.rs` (version, limits, cache) → `version.rs` (`queue.rs`, `batch.rs`) → a replica's model.

mod batch;
mod cache;
mod call;
mod fit;
mod host;
mod limit;
mod pump;
mod queue;
mod replicas;
mod statistics;
#[cfg(test)]
mod tests;
mod version;
mod warm;
#[cfg(test)]
mod work_tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tidemill_core::clock::{Clock, Timestamp, real_sleep};
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::servable::{Interface, Loader};
use tidemill_core::spec::ServingSpec;

use crate::error::ServeError;
pub use call::{Call, CallAnswer, CallAnswers};
use host::Host;
pub use statistics::{BatchStatistics, DurationStatistics, VersionStatistics};
pub(crate) use statistics::{BatchTimes, Counts};
use version::Version;

/// How often house is kept.
const TURN: Duration = Duration::from_secs(1);

/// A version of a deployment, and how to load it.
#[derive(Debug, Clone)]
pub struct HostedVersion {
    /// Its number.
    pub number: VersionNumber,
    /// Loads it, whenever it is needed.
    pub loader: Arc<dyn Loader>,
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
}

impl Hosting {
    /// No deployments yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            hosts: Arc::default(),
            clock,
            memory_budget: Arc::default(),
        }
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

    /// Adds a deployment, or replaces the one of that name: calls under way end on what they began on.
    pub fn put(&self, deployment: Hosted) {
        let host = Arc::new(Host::new(deployment, Arc::clone(&self.clock)));
        self.hosts.rcu(|hosts| {
            let mut next = HashMap::clone(hosts);
            next.insert(host.name().clone(), Arc::clone(&host));
            next
        });
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
        self.host(&call.endpoint)?.call(call).await
    }

    /// Answers a call piece by piece; a model that gives one answer gives a stream of one.
    ///
    /// # Errors
    /// As [`Hosting::call`]; what goes wrong later is the stream's last item.
    pub async fn stream(&self, call: Call) -> Result<CallAnswers, ServeError> {
        self.host(&call.endpoint)?.stream(call).await
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
