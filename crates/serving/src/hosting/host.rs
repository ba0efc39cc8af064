//! One deployment: its versions, and the way of a call through limits and cache to one of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidemill_core::clock::{Clock, Timestamp};
use tidemill_core::ids::{self, EndpointName, VersionNumber};
use tidemill_core::servable::{CallContext, Deadline, Interface, Payload, Work};
use tidemill_core::spec::{ServingSpec, VersionPolicy};
use tokio::sync::oneshot;

use super::cache::{self, Cache, RateLimit};
use super::fit;
use super::queue::{self, Pending};
use super::replicas::Replica;
use super::statistics::VersionStatistics;
use super::version::{Version, duration, nanos};
use super::{Call, CallAnswer, CallAnswers, Hosted, IndexEntry, VersionState};
use crate::error::ServeError;

#[derive(Debug)]
pub(super) struct Host {
    name: EndpointName,
    spec: Arc<ServingSpec>,
    versions: BTreeMap<VersionNumber, Arc<Version>>,
    clock: Arc<dyn Clock>,
    cache: Option<Cache>,
    rate_limit: Option<RateLimit>,
    /// Set by an unload: nothing answers until a load.
    off: AtomicBool,
}

impl Host {
    pub fn new(deployment: Hosted, clock: Arc<dyn Clock>) -> Self {
        let Hosted { name, spec, versions } = deployment;
        let versions = versions.into_iter().map(|version| {
            let (number, loader) = (version.number, version.loader);
            let slot = Version::new(name.clone(), number, Arc::clone(&spec), loader);
            (number, Arc::new(slot))
        });
        Self {
            versions: versions.collect(),
            cache: spec.cache.as_ref().map(Cache::new),
            rate_limit: spec.rate_limit.as_ref().map(RateLimit::new),
            name,
            spec,
            clock,
            off: AtomicBool::new(false),
        }
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

    fn is_served(&self, number: VersionNumber) -> bool {
        match &self.spec.versions {
            VersionPolicy::All => self.versions.contains_key(&number),
            VersionPolicy::Latest(count) => {
                let newest = self.versions.keys().rev().take(*count as usize);
                newest.into_iter().any(|newest| *newest == number)
            }
            VersionPolicy::Specific(numbers) => {
                numbers.contains(&number.0) && self.versions.contains_key(&number)
            }
        }
    }

    /// The versions that the policy serves, oldest first.
    pub fn served(&self) -> Vec<VersionNumber> {
        let all = self.versions.keys().copied();
        all.filter(|number| self.is_served(*number)).collect()
    }

    fn version(&self, wanted: Option<VersionNumber>) -> Result<&Arc<Version>, ServeError> {
        let no_model = || ServeError::NoModel {
            endpoint: self.name.clone(),
        };
        match wanted {
            None => {
                let mut newest = self.versions.iter().rev();
                let found = newest.find(|(number, _)| self.is_served(**number));
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

    fn check_on(&self) -> Result<(), ServeError> {
        if self.off.load(Ordering::Acquire) {
            return Err(ServeError::Unloaded {
                endpoint: self.name.clone(),
            });
        }
        Ok(())
    }

    pub async fn load(&self) -> Result<(), ServeError> {
        self.off.store(false, Ordering::Release);
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

    /// What comes before every model: the rate limit, the version, and the model itself, loaded if it slept.
    async fn enter(&self, call: &Call) -> Result<(Arc<Version>, Arc<Replica>, CallContext), ServeError> {
        self.check_on()?;
        let version = self.version(call.version)?;
        if let Some(limit) = &self.rate_limit
            && !limit.admits()
        {
            let rate = self
                .spec
                .rate_limit
                .as_ref()
                .map_or(0.0, |limit| limit.per_second);
            return Err(version.overloaded(format!("more than {rate} requests a second")));
        }
        let now = self.clock.now();
        version
            .last_used
            .store(now.as_micros().max(1) as u64, Ordering::Relaxed);
        let context = self.context(call, now);
        if context.deadline.is_some_and(|deadline| deadline.passed()) {
            return Err(version.late("its time was over when it came"));
        }
        let replica = version.ready(&context).await?;
        fit::check(&self.name, &replica.interface, &call.payload)?;
        fit::check_size(&self.name, &self.spec, &replica.interface, &call.payload)?;
        Ok((Arc::clone(version), replica, context))
    }

    pub async fn call(&self, call: Call) -> Result<CallAnswer, ServeError> {
        let (version, replica, context) = self.enter(&call).await?;
        let counts = &version.counts;
        let key = self.cache.as_ref().map(|_| cache::key(&call.payload, &context));
        if let (Some(cache), Some(key)) = (&self.cache, &key) {
            let found = cache.get(key);
            let counter = if found.is_some() {
                &counts.cache_hit
            } else {
                &counts.cache_miss
            };
            counter.add(nanos(call.received));
            if let Some(payload) = found {
                counts.success.add(nanos(call.received));
                return Ok(self.answer(&version, payload, context.request_id, true));
            }
        }
        let received = call.received;
        let request_id = context.request_id.clone();
        let result = ask(&version, &replica, call, context).await;
        match result {
            Ok(payload) => {
                counts.success.add(nanos(received));
                if let (Some(cache), Some(key)) = (&self.cache, key) {
                    cache.put(key, &payload);
                }
                Ok(self.answer(&version, payload, request_id, false))
            }
            Err(error) => {
                if matches!(error, ServeError::Model { .. }) {
                    counts.fail.add(nanos(received));
                }
                Err(error)
            }
        }
    }

    fn answer(&self, version: &Version, payload: Payload, request_id: String, cached: bool) -> CallAnswer {
        let at = self.clock.now();
        version
            .counts
            .last_inference
            .store(at.as_millis() as u64, Ordering::Relaxed);
        CallAnswer {
            version: version.number,
            payload,
            request_id,
            at,
            degraded: None,
            cached,
        }
    }

    pub async fn stream(&self, call: Call) -> Result<CallAnswers, ServeError> {
        let (version, replica, context) = self.enter(&call).await?;
        if !replica.interface.decoupled {
            let answer = self.call(call).await?;
            return Ok(Box::pin(futures_util::stream::iter([Ok(answer)])));
        }
        let slot = version.replicas.take().await;
        let answers = slot.replica.model.stream(call.payload.clone(), &context).await;
        let Some(answers) = answers.map_err(|source| version.failed(source))? else {
            drop(slot);
            let answer = self.call(call).await?;
            return Ok(Box::pin(futures_util::stream::iter([Ok(answer)])));
        };
        let clock = Arc::clone(&self.clock);
        let answers = futures_util::StreamExt::map(answers, move |item| {
            // Held until the last answer: the replica works on this call so long.
            let _working = &slot;
            let payload = item.map_err(|source| version.failed(source))?;
            Ok(CallAnswer {
                version: version.number,
                payload,
                request_id: context.request_id.clone(),
                at: clock.now(),
                degraded: None,
                cached: false,
            })
        });
        Ok(Box::pin(answers))
    }

    fn context(&self, call: &Call, now: Timestamp) -> CallContext {
        let own = duration(self.spec.timeout);
        let budget = call.timeout.map_or(own, |asked| asked.min(own));
        let mut context = call.context.clone();
        context.deadline = Some(Deadline::after(call.received, budget));
        if context.request_id.is_empty() {
            context.request_id = ids::fresh(now);
        }
        context
    }
}

/// The model's answer: at once from one that takes microseconds, else in turn.
async fn ask(
    version: &Arc<Version>,
    replica: &Replica,
    call: Call,
    context: CallContext,
) -> Result<Payload, ServeError> {
    let rows = fit::rows(&replica.interface, &call.payload);
    if replica.model.work() == Work::Light {
        return version.ask_now(replica, call.payload, &context, rows).await;
    }
    let gathered = replica.interface.batches && version.spec.batching.as_ref().is_none_or(|b| b.max_rows > 1);
    let permit = if version.spec.queue.adaptive {
        let together = if gathered { version.max_rows() } else { 1 };
        let Some(permit) = version.limit.admit(version.replicas.slots(), together) else {
            let now = version.limit.under_way();
            let why = format!("{now} requests are under way, and they take longer than they should");
            return Err(version.overloaded(why));
        };
        Some(permit)
    } else {
        None
    };
    let priorities = version.spec.queue.priorities.max(1);
    let priority = if call.priority == 0 {
        priorities.div_ceil(2)
    } else {
        call.priority
    };
    let (reply, answer) = oneshot::channel();
    let pending = Pending {
        alike: if gathered {
            queue::alike(&call.payload, &context)
        } else {
            None
        },
        payload: call.payload,
        context,
        rows,
        priority: priority as usize - 1,
        waiting: tidemill_core::clock::Stopwatch::start(),
        reply,
    };
    let payload = version.ask_in_turn(pending, answer).await?;
    if let Some(permit) = permit {
        permit.answered();
    }
    Ok(payload)
}
