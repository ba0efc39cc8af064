//! What was counted of the ways through deployments, and of the nodes of graphs.

use std::fmt::Write as _;

use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::servable::PartStatistics;
use tidemill_serving::{BreakerState, RoutingStatistics};

use super::{Page, escaped};

type OfNode = fn(&PartStatistics) -> f64;

const NODES: [(&str, &str, OfNode); 3] = [
    (
        "tidemill_graph_node_runs_total",
        "Runs of a node of a graph.",
        |part| part.count as f64,
    ),
    (
        "tidemill_graph_node_errors_total",
        "Runs of a node that failed.",
        |part| part.errors as f64,
    ),
    (
        "tidemill_graph_node_seconds_total",
        "Seconds of a node's own work in all.",
        |part| part.ns as f64 / 1e9,
    ),
];

impl Page {
    /// The nodes of graphs.
    pub(super) fn nodes(&mut self, graphs: &[(EndpointName, VersionNumber, Vec<PartStatistics>)]) {
        if graphs.is_empty() {
            return;
        }
        for (metric, help, number) in NODES {
            self.head(metric, "counter", help);
            for (name, version, parts) in graphs {
                let graph = escaped(name.as_str());
                for part in parts {
                    let (node, kind) = (escaped(&part.name), part.kind);
                    let labels =
                        format!("graph=\"{graph}\",version=\"{version}\",node=\"{node}\",kind=\"{kind}\"");
                    let _ = writeln!(self.0, "{metric}{{{labels}}} {}", number(part));
                }
            }
        }
    }

    /// How requests found their versions, shadows, breakers and bandits.
    pub(super) fn ways(&mut self, all: &[RoutingStatistics]) {
        if all.is_empty() {
            return;
        }
        let metric = "tidemill_routed_requests_total";
        self.head(
            metric,
            "counter",
            "Requests by how they found what answered them.",
        );
        for one in all {
            let ways = [
                ("version", one.explicit),
                ("rule", one.rule),
                ("split", one.split),
                ("bandit", one.bandit),
                ("newest", one.newest),
                ("fallback_version", one.fallback_version),
                ("fallback_endpoint", one.fallback_endpoint),
                ("fallback_default", one.fallback_default),
                ("abstained", one.abstained),
            ];
            let name = escaped(one.name.as_str());
            for (way, count) in ways {
                let _ = writeln!(self.0, "{metric}{{endpoint=\"{name}\",way=\"{way}\"}} {count}");
            }
        }
        let metric = "tidemill_shadow_copies_total";
        self.head(metric, "counter", "Copies for shadows by what came of them.");
        for one in all {
            let name = escaped(one.name.as_str());
            for shadow in &one.shadows {
                let results = [
                    ("equal", shadow.equal),
                    ("different", shadow.different),
                    ("failed", shadow.failed),
                    ("dropped", shadow.dropped),
                ];
                for (result, count) in results {
                    let labels = format!(
                        "endpoint=\"{name}\",version=\"{}\",result=\"{result}\"",
                        shadow.version
                    );
                    let _ = writeln!(self.0, "{metric}{{{labels}}} {count}");
                }
            }
        }
        let metric = "tidemill_breaker_closed";
        self.head(
            metric,
            "gauge",
            "1 while a version is asked, 0 while it is given a rest or tried again.",
        );
        for one in all {
            let name = escaped(one.name.as_str());
            for breaker in &one.breakers {
                let closed = u8::from(breaker.state == BreakerState::Closed);
                let version = breaker.version;
                let _ = writeln!(
                    self.0,
                    "{metric}{{endpoint=\"{name}\",version=\"{version}\"}} {closed}"
                );
            }
        }
        let metric = "tidemill_bandit_share";
        self.head(
            metric,
            "gauge",
            "A version's share of the traffic, as its bandit has learnt.",
        );
        for one in all {
            let name = escaped(one.name.as_str());
            for arm in one.arms.iter().flat_map(|state| &state.arms) {
                let version = arm.version;
                let _ = writeln!(
                    self.0,
                    "{metric}{{endpoint=\"{name}\",version=\"{version}\"}} {}",
                    arm.share
                );
            }
        }
    }
}
