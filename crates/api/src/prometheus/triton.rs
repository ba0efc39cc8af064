//! What was counted of each version, under the names that Triton's dashboards and alerts know.

use std::fmt::Write as _;

use tidemill_serving::{DurationStatistics, VersionStatistics};

use super::{Page, escaped};

type Number = fn(&VersionStatistics) -> f64;

/// Name, kind, help, and the number of a version.
const METRICS: [(&str, &str, &str, Number); 14] = [
    (
        "nv_inference_request_success",
        "counter",
        "Requests that were answered.",
        |s| s.success.count as f64,
    ),
    ("nv_inference_count", "counter", "Rows that were answered.", |s| {
        s.inference_count as f64
    }),
    (
        "nv_inference_exec_count",
        "counter",
        "Batches that a model was given.",
        |s| s.execution_count as f64,
    ),
    (
        "nv_inference_pending_request_count",
        "gauge",
        "Requests that wait for a model.",
        |s| s.pending as f64,
    ),
    (
        "nv_inference_request_duration_us",
        "counter",
        "Microseconds of requests in all, from arrival to answer.",
        |s| micros(s.success),
    ),
    (
        "nv_inference_queue_duration_us",
        "counter",
        "Microseconds that requests waited.",
        |s| micros(s.queue),
    ),
    (
        "nv_inference_compute_input_duration_us",
        "counter",
        "Microseconds from the queue to the model.",
        |s| micros(s.compute_input),
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "counter",
        "Microseconds in the model.",
        |s| micros(s.compute_infer),
    ),
    (
        "nv_inference_compute_output_duration_us",
        "counter",
        "Microseconds from the model to the answer.",
        |s| micros(s.compute_output),
    ),
    (
        "nv_cache_num_hits_per_model",
        "counter",
        "Requests answered from memory.",
        |s| s.cache_hit.count as f64,
    ),
    (
        "nv_cache_num_misses_per_model",
        "counter",
        "Requests that were looked for in memory and not found.",
        |s| s.cache_miss.count as f64,
    ),
    (
        "nv_cache_hit_duration_per_model",
        "counter",
        "Microseconds of requests answered from memory.",
        |s| micros(s.cache_hit),
    ),
    (
        "nv_cache_miss_duration_per_model",
        "counter",
        "Microseconds spent on looking and storing.",
        |s| micros(s.cache_miss),
    ),
    (
        "nv_model_load_duration_secs",
        "gauge",
        "Seconds that the latest load took.",
        |s| s.load_seconds,
    ),
];

fn micros(duration: DurationStatistics) -> f64 {
    (duration.ns / 1_000) as f64
}

impl Page {
    /// Every version of every endpoint, by name and version.
    pub(super) fn triton(&mut self, all: &[VersionStatistics]) {
        let labels = |one: &VersionStatistics| {
            format!(
                "model=\"{}\",version=\"{}\"",
                escaped(one.name.as_str()),
                one.version
            )
        };
        for (name, kind, help, number) in METRICS {
            self.head(name, kind, help);
            for one in all {
                let _ = writeln!(self.0, "{name}{{{}}} {}", labels(one), number(one));
            }
        }
        let name = "nv_inference_request_failure";
        self.head(name, "counter", "Requests that were not answered, by the reason.");
        for one in all {
            let known = one.rejected + one.cancelled + one.failed_by_model;
            let reasons = [
                ("REJECTED", one.rejected),
                ("CANCELED", one.cancelled),
                ("BACKEND", one.failed_by_model),
                ("OTHER", one.fail.count.saturating_sub(known)),
            ];
            for (reason, count) in reasons {
                let _ = writeln!(self.0, "{name}{{{},reason=\"{reason}\"}} {count}", labels(one));
            }
        }
    }
}
