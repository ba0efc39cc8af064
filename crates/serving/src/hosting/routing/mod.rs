//! Which version of a deployment answers, who else gets a copy, and which versions are given a rest.
//!
//! All of it is fixed when a deployment is put: choosing reads and takes no lock. What has been counted and learnt is carried over when the
//! deployment is put again.

mod bandit;
mod breaker;
pub(crate) mod conditions;
mod shadow;
pub(crate) mod sticky;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::servable::{CallContext, Payload};
use tidemill_core::spec::{BreakerSpec, ConditionSpec, RoutingSpec, ServingSpec, SourceSpec};

pub(super) use bandit::Bandit;
pub use bandit::{BanditArm, BanditState};
pub use breaker::BreakerState;
pub(super) use breaker::{Breaker, Pass};
use shadow::Shadow;
pub use shadow::ShadowStatistics;
use sticky::Way;

/// A version, and why it.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub version: VersionNumber,
    pub route: Arc<str>,
}

#[derive(Debug)]
struct Rule {
    when: ConditionSpec,
    to: Chosen,
}

/// How a request found its version.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Explicit,
    Rule,
    Split,
    Bandit,
    Newest,
    FallbackVersion,
    FallbackEndpoint,
    FallbackDefault,
    Abstained,
}

/// How often requests found their version in each way.
#[derive(Debug, Default)]
struct Tally([AtomicU64; 9]);

/// What has been counted of a deployment's routing since the process started.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoutingStatistics {
    /// The endpoint.
    pub name: EndpointName,
    /// Requests that named their version.
    pub explicit: u64,
    /// Requests that a rule sent.
    pub rule: u64,
    /// Requests by weight.
    pub split: u64,
    /// Requests by learnt weight.
    pub bandit: u64,
    /// Requests to the newest version.
    pub newest: u64,
    /// Answers of a version that was not in charge, because that one could not answer.
    pub fallback_version: u64,
    /// Answers of another deployment instead.
    pub fallback_endpoint: u64,
    /// Fixed answers instead.
    pub fallback_default: u64,
    /// Answers that say there is none.
    pub abstained: u64,
    /// The versions that get copies.
    pub shadows: Vec<ShadowStatistics>,
    /// The versions that may be given a rest.
    pub breakers: Vec<BreakerStatistics>,
    /// What the bandit has learnt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arms: Option<BanditState>,
}

/// A version's breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerStatistics {
    /// Which version.
    pub version: VersionNumber,
    /// Where it stands.
    pub state: BreakerState,
    /// How often it has opened.
    pub opened: u64,
}

/// The routing of a deployment.
#[derive(Debug)]
pub(super) struct Routing {
    key: Option<SourceSpec>,
    rules: Vec<Rule>,
    split: Vec<Way<Chosen>>,
    bandit: Option<Bandit>,
    shadows: Vec<Arc<Shadow>>,
    breakers: BTreeMap<VersionNumber, Arc<Breaker>>,
    named: BTreeSet<VersionNumber>,
    explicit: Arc<str>,
    newest: Arc<str>,
    tally: Arc<Tally>,
}

/// The versions that the settings name: they are served whatever the version policy says.
fn named(spec: &ServingSpec) -> BTreeSet<VersionNumber> {
    let mut named = BTreeSet::new();
    if let Some(routing) = &spec.routing {
        named.extend(routing.rules.iter().map(|rule| rule.version));
        named.extend(routing.split.keys().copied());
        named.extend(routing.bandit.iter().flat_map(|bandit| &bandit.versions).copied());
        named.extend(routing.shadow.iter().map(|shadow| shadow.version));
    }
    named.extend(spec.fallback.iter().filter_map(|step| step.version));
    named.into_iter().map(VersionNumber).collect()
}

impl Routing {
    /// For a deployment of these versions. `before`: the routing that it replaces.
    pub fn new(
        name: &EndpointName,
        spec: &ServingSpec,
        versions: &BTreeSet<VersionNumber>,
        before: Option<&Self>,
    ) -> Self {
        let named = named(spec);
        for missing in named.difference(versions) {
            tracing::warn!(endpoint = %name, version = %missing, "the routing names a version that is not there; it is left out");
        }
        let usual = RoutingSpec::default();
        let routing = spec.routing.as_ref().unwrap_or(&usual);
        let salt = routing.salt.as_deref().unwrap_or(name.as_str());
        let rules = routing.rules.iter().enumerate().map(|(place, rule)| Rule {
            when: rule.when.clone(),
            to: Chosen {
                version: VersionNumber(rule.version),
                route: Arc::from(format!("rule {}", place + 1)),
            },
        });
        let sum: f64 = routing.split.values().sum();
        let split = routing.split.iter().map(|(version, weight)| {
            let to = Chosen {
                version: VersionNumber(*version),
                route: Arc::from(format!("split {:.4}", weight / sum)),
            };
            Way::new(salt, &version.to_string(), to, *weight)
        });
        let shadow = |spec: &tidemill_core::spec::ShadowCopySpec| {
            let old =
                before.and_then(|before| before.shadows.iter().find(|old| old.spec.version == spec.version));
            Arc::new(Shadow::new(spec, salt, old.map(|old| Arc::clone(&old.counts))))
        };
        let bandit = routing.bandit.as_ref().map(|bandit| {
            let mut there = bandit.clone();
            there
                .versions
                .retain(|version| versions.contains(&VersionNumber(*version)));
            there
        });
        let old_bandit = before
            .and_then(|before| before.bandit.as_ref())
            .map(Bandit::state);
        Self {
            key: routing.key.clone(),
            rules: rules.filter(|rule| versions.contains(&rule.to.version)).collect(),
            split: split.filter(|way| versions.contains(&way.to.version)).collect(),
            bandit: bandit.map(|spec| Bandit::new(&spec, salt, old_bandit.as_ref())),
            shadows: routing.shadow.iter().map(shadow).collect(),
            breakers: breakers(spec, versions, before),
            named,
            explicit: Arc::from("version"),
            newest: Arc::from("newest"),
            tally: before.map(|before| Arc::clone(&before.tally)).unwrap_or_default(),
        }
    }

    /// Whether a version is served because the settings name it.
    pub fn names(&self, version: VersionNumber) -> bool {
        self.named.contains(&version)
    }

    /// Whether a version only gets copies.
    pub fn is_shadow(&self, version: VersionNumber) -> bool {
        self.shadows.iter().any(|shadow| shadow.version() == version)
    }

    /// The version of a request that names none; `None`: the newest.
    pub fn choose(&self, context: &CallContext, payload: &Payload) -> Option<(Kind, Chosen)> {
        let mut rules = self.rules.iter();
        if let Some(rule) = rules.find(|rule| conditions::holds(&rule.when, context, payload)) {
            return Some((Kind::Rule, rule.to.clone()));
        }
        if let Some(bandit) = &self.bandit {
            let ways = bandit.ways();
            let way = sticky::choose(&ways, &self.key(context, payload))?;
            return Some((Kind::Bandit, way.to.clone()));
        }
        if self.split.is_empty() {
            return None;
        }
        let way = sticky::choose(&self.split, &self.key(context, payload))?;
        Some((Kind::Split, way.to.clone()))
    }

    fn key<'a>(&self, context: &'a CallContext, payload: &Payload) -> std::borrow::Cow<'a, str> {
        conditions::key(self.key.as_ref(), context, payload)
    }

    pub fn explicit(&self, version: VersionNumber) -> (Kind, Chosen) {
        let route = Arc::clone(&self.explicit);
        (Kind::Explicit, Chosen { version, route })
    }

    pub fn newest(&self, version: VersionNumber) -> (Kind, Chosen) {
        let route = Arc::clone(&self.newest);
        (Kind::Newest, Chosen { version, route })
    }

    pub fn count(&self, kind: Kind) {
        self.tally.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Whether anybody gets copies.
    pub fn has_shadows(&self) -> bool {
        !self.shadows.is_empty()
    }

    /// The shadows that want a copy of a request that `by` answered.
    pub fn shadows(&self, by: VersionNumber, context: &CallContext, payload: &Payload) -> Vec<Arc<Shadow>> {
        let key = self.key(context, payload);
        let wanted = self
            .shadows
            .iter()
            .filter(|shadow| shadow.version() != by && shadow.wants(&key));
        wanted.cloned().collect()
    }

    /// The breaker of a version, if there is one.
    pub fn breaker(&self, version: VersionNumber) -> Option<&Arc<Breaker>> {
        self.breakers.get(&version)
    }

    pub fn bandit(&self) -> Option<&Bandit> {
        self.bandit.as_ref()
    }

    /// Learns an outcome. Returns whether there is a bandit that chooses this version.
    pub fn tell(&self, version: VersionNumber, outcome: f64) -> bool {
        self.bandit
            .as_ref()
            .is_some_and(|bandit| bandit.tell(version, outcome))
    }

    pub fn statistics(&self, name: &EndpointName, now: Timestamp) -> RoutingStatistics {
        let count = |kind: Kind| self.tally.0[kind as usize].load(Ordering::Relaxed);
        let breakers = self.breakers.iter().map(|(version, breaker)| BreakerStatistics {
            version: *version,
            state: breaker.state(now),
            opened: breaker.opened(),
        });
        RoutingStatistics {
            name: name.clone(),
            explicit: count(Kind::Explicit),
            rule: count(Kind::Rule),
            split: count(Kind::Split),
            bandit: count(Kind::Bandit),
            newest: count(Kind::Newest),
            fallback_version: count(Kind::FallbackVersion),
            fallback_endpoint: count(Kind::FallbackEndpoint),
            fallback_default: count(Kind::FallbackDefault),
            abstained: count(Kind::Abstained),
            shadows: self.shadows.iter().map(|shadow| shadow.statistics()).collect(),
            breakers: breakers.collect(),
            arms: self.bandit.as_ref().map(Bandit::state),
        }
    }
}

/// A breaker for each version where they are wanted; those that stand under the same rule as before go on.
fn breakers(
    spec: &ServingSpec,
    versions: &BTreeSet<VersionNumber>,
    before: Option<&Routing>,
) -> BTreeMap<VersionNumber, Arc<Breaker>> {
    let usual = BreakerSpec::default();
    let wanted = match &spec.breaker {
        Some(breaker) => breaker,
        None if !spec.fallback.is_empty() => &usual,
        None => return BTreeMap::new(),
    };
    let breaker = |version: &VersionNumber| {
        let old = before.and_then(|before| before.breakers.get(version));
        let breaker = old.filter(|old| old.spec() == wanted).cloned();
        (
            *version,
            breaker.unwrap_or_else(|| Arc::new(Breaker::new(wanted))),
        )
    };
    versions.iter().map(breaker).collect()
}
