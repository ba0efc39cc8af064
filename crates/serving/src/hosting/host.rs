//! One deployment: its versions, and the way of a call through limits and cache to one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidemill_core::clock::{Clock, Timestamp};
use tidemill_core::ids::{self, EndpointName, VersionNumber};
use tidemill_core::servable::{CallContext, Deadline, Interface, Payload};
use tidemill_core::spec::{ServingSpec, VersionPolicy};

use super::cache::{Cache, RateLimit};
use super::routing::{Chosen, Kind, Routing};
use super::statistics::VersionStatistics;
use super::version::{Version, duration};
use super::{Call, CallAnswer, CallTimes, Hosted, Hosting, IndexEntry, VersionState};
use crate::error::ServeError;

#[derive(Debug)]
pub(super) struct Host {
    name: EndpointName,
    spec: Arc<ServingSpec>,
    versions: BTreeMap<VersionNumber, Arc<Version>>,
    clock: Arc<dyn Clock>,
    pub cache: Option<Arc<Cache>>,
    rate_limit: Option<Arc<RateLimit>>,
    pub routing: Routing,
    /// Set by an unload: nothing answers until a load.
    off: AtomicBool,
}

impl Host {
    /// `before`: the deployment that this one replaces. What it has loaded, counted and learnt is kept where the settings that it rests on
    /// are the same.
    pub fn new(deployment: Hosted, clock: Arc<dyn Clock>, before: Option<&Self>) -> Self {
        let Hosted { name, spec, versions } = deployment;
        let mut all_kept = true;
        let versions: BTreeMap<VersionNumber, Arc<Version>> = versions
            .into_iter()
            .map(|version| {
                let number = version.number;
                let old = before.and_then(|before| before.versions.get(&number));
                let old = old.filter(|old| old.loads_alike(&version.loader, &spec));
                all_kept &= old.is_some();
                let slot = match old {
                    Some(old) if old.answers_alike(&spec) => {
                        // What is put again answers again, also after an unload.
                        old.off.store(false, Ordering::Release);
                        Arc::clone(old)
                    }
                    old => {
                        let old = old.map(AsRef::as_ref);
                        Arc::new(Version::new(name.clone(), version, Arc::clone(&spec), old))
                    }
                };
                (number, slot)
            })
            .collect();
        let numbers: BTreeSet<VersionNumber> = versions.keys().copied().collect();
        let old = before.filter(|_| all_kept);
        let cache = old
            .filter(|old| old.spec.cache == spec.cache)
            .and_then(|old| old.cache.clone());
        let same_rate = before.filter(|before| before.spec.rate_limit == spec.rate_limit);
        let rate_limit = same_rate.and_then(|before| before.rate_limit.clone());
        Self {
            routing: Routing::new(&name, &spec, &numbers, before.map(|before| &before.routing)),
            versions,
            cache: cache.or_else(|| spec.cache.as_ref().map(|cache| Arc::new(Cache::new(cache)))),
            rate_limit: rate_limit.or_else(|| {
                spec.rate_limit
                    .as_ref()
                    .map(|limit| Arc::new(RateLimit::new(limit)))
            }),
            name,
            spec,
            clock,
            off: AtomicBool::new(false),
        }
    }

    /// Its versions as they were put, for putting them again.
    pub fn hosted_versions(&self) -> Vec<super::HostedVersion> {
        let versions = self.versions.values();
        versions.map(|version| version.hosted()).collect()
    }

    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A version, served or not.
    pub fn get(&self, number: VersionNumber) -> Option<&Arc<Version>> {
        self.versions.get(&number)
    }

    pub fn name(&self) -> &EndpointName {
        &self.name
    }

    pub fn spec(&self) -> &Arc<ServingSpec> {
        &self.spec
    }

    /// All versions, for those who keep house.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.versions.values()
    }

    /// Whether the version policy serves a version. Shadows answer nobody, so the policy looks past them.
    fn is_in_charge(&self, number: VersionNumber) -> bool {
        let mut others = self
            .versions
            .keys()
            .rev()
            .filter(|other| !self.routing.is_shadow(**other));
        match &self.spec.versions {
            VersionPolicy::All => others.any(|other| *other == number),
            VersionPolicy::Latest(count) => others.take(*count as usize).any(|other| *other == number),
            VersionPolicy::Specific(numbers) => {
                numbers.contains(&number.0) && others.any(|other| *other == number)
            }
        }
    }

    fn is_served(&self, number: VersionNumber) -> bool {
        self.versions.contains_key(&number) && (self.routing.names(number) || self.is_in_charge(number))
    }

    /// The versions that are served, oldest first.
    pub fn served(&self) -> Vec<VersionNumber> {
        let all = self.versions.keys().copied();
        all.filter(|number| self.is_served(*number)).collect()
    }

    pub fn version(&self, wanted: Option<VersionNumber>) -> Result<&Arc<Version>, ServeError> {
        let no_model = || ServeError::NoModel {
            endpoint: self.name.clone(),
        };
        match wanted {
            None => {
                let mut newest = self.versions.iter().rev();
                let found = newest.find(|(number, _)| self.is_in_charge(**number));
                found.map(|(_, version)| version).ok_or_else(no_model)
            }
            Some(number) if self.is_served(number) => self.versions.get(&number).ok_or_else(no_model),
            Some(version) => Err(ServeError::UnknownVersion {
                endpoint: self.name.clone(),
                version,
                loaded: self.served(),
            }),
        }
    }

    pub fn is_ready(&self, wanted: Option<VersionNumber>) -> bool {
        let there = self
            .version(wanted)
            .is_ok_and(|version| version.failure.load().is_none());
        there && !self.off.load(Ordering::Acquire)
    }

    pub fn index(&self) -> Vec<IndexEntry> {
        let off = self.off.load(Ordering::Acquire);
        let entry = |(number, version): (&VersionNumber, &Arc<Version>)| {
            let failure = version.failure.load_full();
            let (state, reason) = match &failure {
                _ if version.is_loading() => (VersionState::Loading, String::new()),
                Some(error) => (VersionState::Unavailable, error.to_string()),
                None if off && version.replicas.busy() > 0 => (VersionState::Unloading, String::new()),
                None if off => (VersionState::Unavailable, "unloaded".to_owned()),
                None if !self.is_served(*number) => {
                    let reason = "not served by the version policy".to_owned();
                    (VersionState::Unavailable, reason)
                }
                None => (VersionState::Ready, String::new()),
            };
            let used = version.last_used.load(Ordering::Relaxed);
            IndexEntry {
                name: self.name.clone(),
                version: *number,
                state,
                reason,
                replicas: version.replicas.count(),
                last_used: (used > 0).then(|| Timestamp::from_micros(used as i64)),
            }
        };
        self.versions.iter().map(entry).collect()
    }

    pub fn statistics(&self) -> Vec<VersionStatistics> {
        let versions = self.versions.iter();
        let snapshot =
            |(number, version): (&VersionNumber, &Arc<Version>)| version.counts.snapshot(&self.name, *number);
        versions.map(snapshot).collect()
    }

    pub fn known_interface(&self, wanted: Option<VersionNumber>) -> Option<Arc<Interface>> {
        self.version(wanted).ok()?.known_interface()
    }

    /// Whether whoever may answer a call reads the bodies of MLflow's scoring protocol itself.
    pub fn scores(&self, hosting: &Hosting, wanted: Option<VersionNumber>) -> bool {
        let scores = |version: &Arc<Version>| version.known_interface().is_none_or(|known| known.scores);
        if wanted.is_some() {
            return self.version(wanted).is_ok_and(scores);
        }
        let mut others = self
            .spec
            .fallback
            .iter()
            .filter_map(|step| step.endpoint.as_deref());
        let served = self
            .versions
            .iter()
            .filter(|(number, _)| self.is_served(**number));
        served.map(|(_, version)| version).all(scores)
            && others.all(|name| {
                let known = hosting.known_interface(&EndpointName::new(name), None);
                known.is_none_or(|known| known.scores)
            })
    }

    pub async fn interface(
        &self,
        wanted: Option<VersionNumber>,
    ) -> Result<(VersionNumber, Arc<Interface>), ServeError> {
        let version = self.version(wanted)?;
        if let Some(interface) = version.known_interface() {
            return Ok((version.number, interface));
        }
        self.check_on()?;
        let replica = version.ready(&CallContext::default()).await?;
        Ok((version.number, Arc::clone(&replica.interface)))
    }

    pub fn check_on(&self) -> Result<(), ServeError> {
        if self.off.load(Ordering::Acquire) {
            return Err(ServeError::Unloaded {
                endpoint: self.name.clone(),
            });
        }
        Ok(())
    }

    pub async fn load(&self) -> Result<(), ServeError> {
        self.off.store(false, Ordering::Release);
        for version in self.versions.values() {
            version.off.store(false, Ordering::Release);
        }
        for number in self.served() {
            if let Some(version) = self.versions.get(&number) {
                version.failure.store(None);
                version.load_first().await?;
            }
        }
        Ok(())
    }

    pub fn unload(&self) {
        self.off.store(true, Ordering::Release);
        for version in self.versions.values() {
            version.off.store(true, Ordering::Release);
        }
        let unloaded = ServeError::Unloaded {
            endpoint: self.name.clone(),
        };
        for version in self.versions.values() {
            version.turn_away(&unloaded);
            version.replicas.clear();
        }
    }

    /// Loads what is meant to be ready before it is asked.
    pub fn provide(&self) {
        let scaling = &self.spec.scaling;
        if scaling.min.max(scaling.provisioned) == 0 || self.off.load(Ordering::Acquire) {
            return;
        }
        for number in self.served() {
            if let Some(version) = self.versions.get(&number)
                && version.replicas.count() == 0
                && version.failure.load().is_none()
                && !version.is_loading()
            {
                let version = Arc::clone(version);
                // A failure is noted in the listing.
                tokio::spawn(async move { version.load_first().await.map(|_| ()) });
            }
        }
    }

    /// The version that answers, and why.
    pub fn choose(
        &self,
        wanted: Option<VersionNumber>,
        context: &CallContext,
        payload: &Payload,
    ) -> Result<(Kind, Chosen, &Arc<Version>), ServeError> {
        if wanted.is_none()
            && let Some((kind, chosen)) = self.routing.choose(context, payload)
            && let Some(version) = self.versions.get(&chosen.version)
        {
            return Ok((kind, chosen, version));
        }
        let version = self.version(wanted)?;
        let (kind, chosen) = match wanted {
            Some(number) => self.routing.explicit(number),
            None => self.routing.newest(version.number),
        };
        Ok((kind, chosen, version))
    }

    pub fn check_rate(&self, version: &Version) -> Result<(), ServeError> {
        match &self.rate_limit {
            Some(limit) if !limit.admits() => {
                let rate = self
                    .spec
                    .rate_limit
                    .as_ref()
                    .map_or(0.0, |limit| limit.per_second);
                Err(version.overloaded(format!("more than {rate} requests a second")))
            }
            _ => Ok(()),
        }
    }

    pub fn answer(
        &self,
        version: VersionNumber,
        route: &Arc<str>,
        payload: Payload,
        request_id: String,
        cached: bool,
    ) -> CallAnswer {
        CallAnswer {
            version,
            route: Arc::clone(route),
            payload,
            request_id,
            at: self.clock.now(),
            degraded: None,
            cached,
            prediction_id: None,
            by: None,
            times: CallTimes::default(),
        }
    }

    /// What travels with a call; what the call brought beside it moves in.
    pub fn context(&self, call: &mut Call) -> CallContext {
        let own = duration(self.spec.timeout);
        let budget = call.timeout.map_or(own, |asked| asked.min(own));
        let mut context = std::mem::take(&mut call.context);
        context.deadline = Some(Deadline::after(call.received, budget));
        if context.request_id.is_empty() {
            context.request_id = ids::fresh(self.clock.now());
        }
        if !call.attributes.is_empty() {
            context.attributes = Arc::new(std::mem::take(&mut call.attributes));
        }
        if let Some(key) = call.key.take() {
            context.key = Some(key);
        }
        context
    }
}
