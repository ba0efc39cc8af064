//! What is counted of each version behind each endpoint of the loop. Counting takes no lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tidemill_core::ids::{EndpointName, VersionNumber};

use crate::error::ServeError;
use crate::hosting::{BatchTimes, Counts, VersionStatistics};
use crate::routing::{Route, Router};
use crate::server::InferResponse;

type ByVersion = BTreeMap<VersionNumber, Arc<Counts>>;

#[derive(Debug, Default)]
pub(crate) struct Tallies(ArcSwap<HashMap<EndpointName, ByVersion>>);

impl Tallies {
    fn of(&self, endpoint: &EndpointName, version: VersionNumber) -> Arc<Counts> {
        let all = self.0.load();
        if let Some(counts) = all.get(endpoint).and_then(|versions| versions.get(&version)) {
            return Arc::clone(counts);
        }
        let fresh = Arc::new(Counts::default());
        self.0.rcu(|all| {
            let mut next = HashMap::clone(all);
            let versions = next.entry(endpoint.clone()).or_default();
            versions.entry(version).or_insert_with(|| Arc::clone(&fresh));
            next
        });
        let all = self.0.load();
        let counted = all.get(endpoint).and_then(|versions| versions.get(&version));
        counted.map_or(fresh, Arc::clone)
    }

    /// A request that was answered, under the version of its first row.
    pub fn answered(&self, route: &Route, response: &InferResponse, infer: Duration, total: Duration) {
        let version = response.versions.first().copied().unwrap_or_default();
        let counts = self.of(&route.endpoint, version);
        let times = BatchTimes {
            rows: response.ids.len() as u64,
            input: 0,
            infer: ns(infer),
            output: ns(total.saturating_sub(infer)),
        };
        counts.answered(times, ns(total));
        let at = response.at.as_millis().max(0) as u64;
        counts.last_inference.store(at, Ordering::Relaxed);
    }

    /// A request that was not answered, under the version that it asked for or else the champion.
    pub fn failed(&self, route: &Route, version: Option<VersionNumber>, error: &ServeError, total: Duration) {
        let champion = route.champion.as_ref().map(|deployment| deployment.version);
        // Only versions that are there, so that nobody makes this grow by asking for others.
        let asked = version.filter(|version| route.versions().contains(version));
        let counts = self.of(&route.endpoint, asked.or(champion).unwrap_or_default());
        counts.failed(error, ns(total));
    }

    /// What was counted, of one endpoint or of all, by name and version; also of versions that are loaded and were never asked.
    pub fn snapshot(&self, router: &Router, name: Option<&EndpointName>) -> Vec<VersionStatistics> {
        let wanted = |endpoint: &&EndpointName| name.is_none_or(|name| name == *endpoint);
        for route in router.table().routes.values() {
            if wanted(&&route.endpoint) {
                for version in route.versions() {
                    self.of(&route.endpoint, version);
                }
            }
        }
        let all = self.0.load();
        let mut names: Vec<&EndpointName> = all.keys().filter(wanted).collect();
        names.sort();
        let of_name = |endpoint: &EndpointName| {
            let endpoint = endpoint.clone();
            let versions = all.get(&endpoint).cloned().unwrap_or_default();
            versions
                .into_iter()
                .map(move |(version, counts)| counts.snapshot(&endpoint, version))
        };
        names.into_iter().flat_map(of_name).collect()
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
