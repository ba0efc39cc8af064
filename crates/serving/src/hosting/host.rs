//! One deployment: its versions, which of them are loaded, and the way of a call to the model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tidemill_core::clock::{Clock, Stopwatch, Timestamp};
use tidemill_core::ids::{self, EndpointName, VersionNumber};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{CallContext, Deadline, Interface, Loader, Payload, Servable, Work};
use tidemill_core::spec::{ServingSpec, VersionPolicy};
use tokio::sync::Mutex;

use super::statistics::{BatchTimes, Counts, VersionStatistics};
use super::{Call, CallAnswer, CallAnswers, Hosted, IndexEntry, VersionState};
use crate::error::ServeError;

#[derive(Debug)]
pub(super) struct Host {
    name: EndpointName,
    spec: Arc<ServingSpec>,
    versions: BTreeMap<VersionNumber, Version>,
    clock: Arc<dyn Clock>,
    /// Set by an unload: nothing answers until a load.
    off: AtomicBool,
}

#[derive(Debug)]
struct Version {
    loader: Arc<dyn Loader>,
    model: ArcSwapOption<Loaded>,
    /// Held while the model is loaded, so that it is loaded once.
    loading: Mutex<()>,
    interface: ArcSwapOption<Interface>,
    failure: ArcSwapOption<PortError>,
    counts: Counts,
    last_used: AtomicU64,
}

#[derive(Debug)]
struct Loaded {
    model: Arc<dyn Servable>,
    interface: Arc<Interface>,
}

impl Host {
    pub fn new(deployment: Hosted, clock: Arc<dyn Clock>) -> Self {
        let versions = deployment.versions.into_iter().map(|version| {
            let interface = version.loader.interface().map(Arc::new);
            let slot = Version {
                loader: version.loader,
                model: ArcSwapOption::empty(),
                loading: Mutex::new(()),
                interface: ArcSwapOption::new(interface),
                failure: ArcSwapOption::empty(),
                counts: Counts::default(),
                last_used: AtomicU64::new(0),
            };
            (version.number, slot)
        });
        Self {
            name: deployment.name,
            spec: deployment.spec,
            versions: versions.collect(),
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

    /// The versions that the policy serves, oldest first.
    pub fn served(&self) -> Vec<VersionNumber> {
        let all = self.versions.keys().copied();
        match &self.spec.versions {
            VersionPolicy::All => all.collect(),
            VersionPolicy::Latest(count) => {
                let skip = self.versions.len().saturating_sub(*count as usize);
                all.skip(skip).collect()
            }
            VersionPolicy::Specific(numbers) => all.filter(|v| numbers.contains(&v.0)).collect(),
        }
    }

    fn version(&self, wanted: Option<VersionNumber>) -> Result<(VersionNumber, &Version), ServeError> {
        let served = self.served();
        let number = match wanted {
            Some(number) if served.contains(&number) => number,
            Some(version) => {
                return Err(ServeError::UnknownVersion {
                    endpoint: self.name.clone(),
                    version,
                    loaded: served,
                });
            }
            None => *served.last().ok_or_else(|| ServeError::NoModel {
                endpoint: self.name.clone(),
            })?,
        };
        let version = self.versions.get(&number).ok_or_else(|| ServeError::NoModel {
            endpoint: self.name.clone(),
        })?;
        Ok((number, version))
    }

    pub fn is_ready(&self, wanted: Option<VersionNumber>) -> bool {
        let there = self
            .version(wanted)
            .is_ok_and(|(_, v)| v.failure.load().is_none());
        there && !self.off.load(Ordering::Acquire)
    }

    pub fn index(&self) -> Vec<IndexEntry> {
        let served = self.served();
        let off = self.off.load(Ordering::Acquire);
        let entry = |(number, version): (&VersionNumber, &Version)| {
            let failure = version.failure.load_full();
            let loading = version.loading.try_lock().is_err();
            let (state, reason) = match &failure {
                _ if loading => (VersionState::Loading, String::new()),
                Some(error) => (VersionState::Unavailable, error.to_string()),
                None if off => (VersionState::Unavailable, "unloaded".to_owned()),
                None if !served.contains(number) => (
                    VersionState::Unavailable,
                    "not served by the version policy".to_owned(),
                ),
                None => (VersionState::Ready, String::new()),
            };
            let used = version.last_used.load(Ordering::Relaxed);
            IndexEntry {
                name: self.name.clone(),
                version: *number,
                state,
                reason,
                replicas: usize::from(version.model.load().is_some()),
                last_used: (used > 0).then(|| Timestamp::from_micros(used as i64)),
            }
        };
        self.versions.iter().map(entry).collect()
    }

    pub fn statistics(&self) -> Vec<VersionStatistics> {
        let versions = self.versions.iter();
        versions
            .map(|(number, version)| version.counts.snapshot(&self.name, *number))
            .collect()
    }

    pub async fn interface(
        &self,
        wanted: Option<VersionNumber>,
    ) -> Result<(VersionNumber, Arc<Interface>), ServeError> {
        let (number, version) = self.version(wanted)?;
        if let Some(interface) = version.interface.load_full() {
            return Ok((number, interface));
        }
        let loaded = self.loaded(number, version).await?;
        Ok((number, Arc::clone(&loaded.interface)))
    }

    pub async fn load(&self) -> Result<(), ServeError> {
        self.off.store(false, Ordering::Release);
        for number in self.served() {
            if let Some(version) = self.versions.get(&number) {
                version.failure.store(None);
                self.loaded(number, version).await?;
            }
        }
        Ok(())
    }

    pub async fn unload(&self) {
        self.off.store(true, Ordering::Release);
        for version in self.versions.values() {
            let _once = version.loading.lock().await;
            version.model.store(None);
        }
    }

    async fn loaded(&self, number: VersionNumber, version: &Version) -> Result<Arc<Loaded>, ServeError> {
        if self.off.load(Ordering::Acquire) {
            return Err(ServeError::Unloaded {
                endpoint: self.name.clone(),
            });
        }
        if let Some(loaded) = version.model.load_full() {
            return Ok(loaded);
        }
        let _once = version.loading.lock().await;
        if let Some(loaded) = version.model.load_full() {
            return Ok(loaded);
        }
        let watch = Stopwatch::start();
        match version.loader.load().await {
            Ok(model) => {
                let interface = Arc::new(model.interface().clone());
                version.interface.store(Some(Arc::clone(&interface)));
                let loaded = Arc::new(Loaded { model, interface });
                version.model.store(Some(Arc::clone(&loaded)));
                version.failure.store(None);
                version
                    .counts
                    .load_micros
                    .store(watch.micros(), Ordering::Relaxed);
                tracing::info!(endpoint = %self.name, version = %number, micros = watch.micros(), "loaded");
                Ok(loaded)
            }
            Err(error) => {
                version.failure.store(Some(Arc::new(error.clone())));
                Err(ServeError::Load {
                    endpoint: self.name.clone(),
                    version: number,
                    source: error,
                })
            }
        }
    }

    pub async fn call(&self, call: Call) -> Result<CallAnswer, ServeError> {
        let (number, version) = self.version(call.version)?;
        let loaded = self.loaded(number, version).await?;
        let now = self.clock.now();
        version
            .last_used
            .store(now.as_micros().max(1) as u64, Ordering::Relaxed);
        let context = self.context(&call, now);
        self.check(&loaded.interface, &call.payload)?;
        let rows = rows(&loaded.interface, &call.payload);
        let started = Stopwatch::start();
        let result = self.ask(&loaded, call.payload, &context).await;
        let ns = |watch: Stopwatch| u64::try_from(watch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        match result {
            Ok(payload) => {
                let times = BatchTimes {
                    rows,
                    input: 0,
                    infer: ns(started),
                    output: 0,
                };
                version.counts.executed(times, 1);
                version.counts.success.add(ns(call.received));
                let at = self.clock.now();
                version
                    .counts
                    .last_inference
                    .store(at.as_millis() as u64, Ordering::Relaxed);
                Ok(CallAnswer {
                    version: number,
                    payload,
                    request_id: context.request_id,
                    at,
                    degraded: None,
                    cached: false,
                })
            }
            Err(source) => {
                version.counts.fail.add(ns(call.received));
                Err(ServeError::Model {
                    endpoint: self.name.clone(),
                    version: number,
                    source,
                })
            }
        }
    }

    async fn ask(
        &self,
        loaded: &Loaded,
        payload: Payload,
        context: &CallContext,
    ) -> Result<Payload, PortError> {
        match loaded.model.work() {
            Work::Light | Work::Remote => loaded.model.call(payload, context).await,
            Work::Heavy => {
                let (model, context) = (Arc::clone(&loaded.model), context.clone());
                let handle = tokio::runtime::Handle::current();
                let work = move || handle.block_on(model.call(payload, &context));
                tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
                    Err(PortError::internal(
                        "model_broken",
                        format!("the model's thread failed: {error}"),
                    ))
                })
            }
        }
    }

    pub async fn stream(&self, call: Call) -> Result<CallAnswers, ServeError> {
        let (number, version) = self.version(call.version)?;
        let loaded = self.loaded(number, version).await?;
        self.check(&loaded.interface, &call.payload)?;
        let context = self.context(&call, self.clock.now());
        let answers = loaded.model.stream(call.payload.clone(), &context).await;
        let endpoint = self.name.clone();
        let failed = move |source| ServeError::Model {
            endpoint: endpoint.clone(),
            version: number,
            source,
        };
        let Some(answers) = answers.map_err(&failed)? else {
            let answer = self.call(call).await?;
            return Ok(Box::pin(futures_util::stream::iter([Ok(answer)])));
        };
        let clock = Arc::clone(&self.clock);
        let answers = futures_util::StreamExt::map(answers, move |item| {
            item.map_err(&failed).map(|payload| CallAnswer {
                version: number,
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
        let own = Duration::from_micros(self.spec.timeout.as_micros().max(0) as u64);
        let budget = call.timeout.map_or(own, |asked| asked.min(own));
        let mut context = call.context.clone();
        context.deadline = Some(Deadline::after(call.received, budget));
        if context.request_id.is_empty() {
            context.request_id = ids::fresh(now);
        }
        context
    }

    /// Whether the payload fits what the model says it takes.
    fn check(&self, interface: &Interface, payload: &Payload) -> Result<(), ServeError> {
        let bad = |message: String| {
            Err(ServeError::Payload {
                endpoint: self.name.clone(),
                message,
            })
        };
        let Payload::Tensors(tensors) = payload else {
            if interface.body {
                return Ok(());
            }
            return bad("it takes tensors, a body came".to_owned());
        };
        if interface.inputs.is_empty() {
            return Ok(());
        }
        for tensor in tensors {
            let Some(spec) = interface.inputs.iter().find(|spec| spec.name == tensor.name) else {
                let known: Vec<&str> = interface.inputs.iter().map(|spec| spec.name.as_str()).collect();
                return bad(format!(
                    "there is no input `{}`; expected `{}`",
                    tensor.name,
                    known.join("`, `")
                ));
            };
            if let Err(error) = spec.check(tensor) {
                return bad(error.to_string());
            }
        }
        for spec in &interface.inputs {
            let came = tensors.iter().filter(|tensor| tensor.name == spec.name).count();
            if came > 1 {
                return bad(format!("input `{}` came {came} times; send it once", spec.name));
            }
            if came == 0 && !spec.optional {
                return bad(format!("input `{}` is missing", spec.name));
            }
        }
        if interface.batches {
            let mut rows = tensors.iter().map(|tensor| (tensor.rows(), &tensor.name));
            if let Some((first, name)) = rows.next()
                && let Some((other, odd)) = rows.find(|(rows, _)| *rows != first)
            {
                return bad(format!(
                    "input `{odd}` has {other} rows, expected {first} as in `{name}`"
                ));
            }
        }
        Ok(())
    }
}

/// Rows of a request: of its first tensor where the model takes batches, else 1.
fn rows(interface: &Interface, payload: &Payload) -> u64 {
    match payload {
        Payload::Tensors(tensors) if interface.batches => {
            tensors.first().map_or(1, |tensor| tensor.rows() as u64)
        }
        _ => 1,
    }
}
