//! `GET /metrics`: what serving has counted, in Prometheus' text format, under our own names and under [Triton's](triton).

mod hosting;
mod triton;

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use tidemill_serving::{Latency, Metrics, Route};

use crate::control_plane::App;
use crate::infer::describe::statistics;
use crate::infer::target::routes;

/// `GET /metrics`
pub(crate) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let serving = app.serving();
    let mut page = Page::default();
    page.counters(&serving.metrics());
    page.latency(&serving.metrics().latency);
    let live = serving.log().live_stats();
    page.gauge(
        "tidemill_wal_live_rows",
        "Rows in the prediction log that are not yet Parquet.",
        live.rows as f64,
    );
    page.routes(&routes(&app));
    if let Ok(all) = statistics(&app, None) {
        page.triton(&all);
    }
    page.ways(&serving.hosting().routing_statistics(None));
    page.nodes(&serving.hosting().part_statistics(None));
    if let Some(bytes) = resident_bytes() {
        page.gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            bytes,
        );
    }
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, page.0)
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn counters(&mut self, m: &Metrics) {
        let counters = [
            (
                "tidemill_requests_total",
                "Prediction requests answered, repeats included.",
                m.requests,
            ),
            (
                "tidemill_request_repeats_total",
                "Requests answered from an earlier answer.",
                m.repeats,
            ),
            (
                "tidemill_request_errors_total",
                "Prediction requests refused or failed.",
                m.errors,
            ),
            (
                "tidemill_predictions_total",
                "Predictions recorded, one a row.",
                m.appended_rows,
            ),
            (
                "tidemill_shadow_failures_total",
                "Batches that a shadow failed to answer.",
                m.shadow_failures,
            ),
            (
                "tidemill_shadows_shed_total",
                "Batches that shadows did not answer because the machine was behind.",
                m.shadows_shed,
            ),
            (
                "tidemill_requests_shed_total",
                "Requests refused because the machine was behind.",
                m.requests_shed,
            ),
            (
                "tidemill_unsampled_requests_total",
                "Requests that the endpoint's sampling left out of the prediction log.",
                m.unsampled_requests,
            ),
            (
                "tidemill_wal_bytes_total",
                "Bytes written to the prediction log.",
                m.appended_bytes,
            ),
            (
                "tidemill_wal_batches_total",
                "Batches written to the prediction log.",
                m.appended_batches,
            ),
            (
                "tidemill_wal_fsyncs_total",
                "Times the prediction log was forced to disk.",
                m.fsyncs,
            ),
            (
                "tidemill_wal_refused_rows_total",
                "Rows that the prediction log refused.",
                m.dropped_rows,
            ),
            (
                "tidemill_wal_calls_total",
                "Calls of deployments written to the prediction log.",
                m.appended_calls,
            ),
            (
                "tidemill_dropped_calls_total",
                "Calls of deployments that the prediction log could not take.",
                m.dropped_calls,
            ),
            (
                "tidemill_unsampled_calls_total",
                "Calls of deployments that sampling left out of the prediction log.",
                m.unsampled_calls,
            ),
            (
                "tidemill_omitted_payloads_total",
                "Inputs and answers recorded without their values: too large, or not to be redacted.",
                m.omitted_payloads,
            ),
        ];
        for (name, help, value) in counters {
            self.head(name, "counter", help);
            let _ = writeln!(self.0, "{name} {value}");
        }
        let fallbacks = [
            ("canary", m.canary_failed_rows),
            ("champion", m.champion_failed_rows),
            ("previous", m.previous_failed_rows),
        ];
        let name = "tidemill_fallback_rows_total";
        self.head(
            name,
            "counter",
            "Rows that a deployment failed to answer, by its role.",
        );
        for (role, rows) in fallbacks {
            let _ = writeln!(self.0, "{name}{{role=\"{role}\"}} {rows}");
        }
        let chain = [
            (
                "tidemill_default_rows_total",
                "Rows answered by the endpoint's default.",
                m.default_rows,
            ),
            (
                "tidemill_fallback_version_rows_total",
                "Rows answered by a version that the fallback chain names.",
                m.fallback_rows,
            ),
            (
                "tidemill_rule_rows_total",
                "Rows answered by a rule of the fallback chain.",
                m.rule_rows,
            ),
            (
                "tidemill_abstained_rows_total",
                "Rows that got no answer because the endpoint abstains.",
                m.abstained_rows,
            ),
            (
                "tidemill_unfit_rows_total",
                "Rows that no model was asked, by the endpoint's rules for missing and unseen values.",
                m.unfit_rows,
            ),
        ];
        for (name, help, rows) in chain {
            self.head(name, "counter", help);
            let _ = writeln!(self.0, "{name} {rows}");
        }
    }

    fn latency(&mut self, latency: &Latency) {
        let name = "tidemill_request_duration_seconds";
        self.head(
            name,
            "histogram",
            "From a request's arrival to its recorded answer.",
        );
        let mut below = 0;
        for (bound, count) in latency.bounds_us.iter().zip(&latency.counts) {
            below += count;
            let _ = writeln!(self.0, "{name}_bucket{{le=\"{}\"}} {below}", seconds(*bound));
        }
        let _ = writeln!(self.0, "{name}_bucket{{le=\"+Inf\"}} {}", latency.count);
        let _ = writeln!(self.0, "{name}_sum {}", seconds(latency.sum_us));
        let _ = writeln!(self.0, "{name}_count {}", latency.count);
    }

    fn routes(&mut self, routes: &[Arc<Route>]) {
        let name = "tidemill_route_share";
        self.head(
            name,
            "gauge",
            "Share of an endpoint's traffic, by version and role.",
        );
        for route in routes {
            let endpoint = escaped(route.endpoint.as_str());
            let canary = route.canary.as_ref();
            let share = canary.map_or(0.0, |canary| canary.share);
            let champion = route
                .champion
                .iter()
                .map(|d| ("champion", d.version, 1.0 - share));
            let canary = canary
                .into_iter()
                .map(|c| ("canary", c.deployment.version, share));
            let shadows = route.shadows.iter().map(|d| ("shadow", d.version, 0.0));
            for (role, version, share) in champion.chain(canary).chain(shadows) {
                let _ = writeln!(
                    self.0,
                    "{name}{{endpoint=\"{endpoint}\",version=\"{version}\",role=\"{role}\"}} {share}"
                );
            }
        }
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Linux only; elsewhere the metric is absent.
fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0)
}
